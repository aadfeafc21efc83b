"""The contract of a port: what a backend must offer to be judged.

Four methods are enough (a black box). A port whose arrays follow the array API standard gets them
from `port_from_namespace`: `rootfree_array` is then its optimizer.

Example:
    >>> import numpy as np
    >>> import array_api_compat.numpy as xp
    >>> from rootfree_conformance import NumericModel, port_from_namespace
    >>> port = port_from_namespace(
    ...     name="mine", device="cpu", xp=xp,
    ...     dtypes={"float64": NumericModel(), "float32": NumericModel()},
    ...     to_device=lambda host, dtype: host.astype(dtype),
    ...     to_host=lambda array: array.astype("float64"),
    ... )
    >>> port.name
    'mine'
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

import array_api_compat
import numpy as np
import rootfree
from numpy.typing import NDArray
from rootfree_array import Platform

from rootfree_conformance.numeric import NumericModel

HostArray: TypeAlias = NDArray[np.float64]
HostArrays: TypeAlias = Mapping[str, HostArray]
Handle: TypeAlias = Any


class Spec(NamedTuple):
    """Which optimizer a port is to start.

    ``options`` are the catalogue's, and where the preconditioner is not updated at every step
    ``update_every`` and ``stagger``: whether parameters take turns. ``without`` names the
    hyper-parameters that are 0 and stay 0: no state is wanted for them.
    """

    rule: str
    options: Mapping[str, Any]
    dtype: str  # of parameters and gradients
    state_dtype: str
    compute_dtype: str  # inputs of matrix products
    rounding: str
    without: tuple[str, ...] = ()


class Snapshot(NamedTuple):
    """What a port holds, as exact float64 values.

    A parameter without elements may have no state. ``state`` holds counters (``step``, ``salt``,
    and ``phase`` where parameters take turns) as 0-d arrays beside the arrays of the rule.
    """

    params: dict[str, HostArray]
    state: dict[str, dict[str, HostArray]]  # parameter -> role -> array
    step: int
    dtypes: dict[str, str]  # role -> dtype name as stored; "param" for the parameters


def arguments(spec: Spec) -> dict[str, Any]:
    """Return the keyword arguments that an adapter's class or function is to be called with.

    They lack the learning rate, whose name differs. Hyper-parameters are those of the time before
    the first step, which sets its own: a 0 asks for no buffer, 1/2 is in everyone's range.
    """
    method = rootfree.method(spec.rule)
    hyper = {name: 0.5 for name in ("precond_lr", *method.buffers) if name in method.hyper}
    exact = {"damping": 0.0} if spec.options.get("exact") else {}
    products = {"compute_dtype": spec.compute_dtype} if method.matrix else {}
    return {
        **hyper,
        **dict.fromkeys(spec.without, 0.0),
        **exact,
        **spec.options,
        **products,
        "state_dtype": spec.state_dtype,
        "rounding": spec.rounding,
    }


class Port(Protocol):
    """A backend as the suite sees it. Host arrays hold values of the case's dtype exactly.

    ``hyper`` has the names of `rootfree.Hyper` and may change at each step. No method changes what
    it is given: `read` and `load` copy. Errors are raised before anything is written. A port may
    have a further attribute ``scope``, a key of `rootfree_conformance.cases.left_out.SCOPES`: then
    it is judged on the cases of that scope, and the report says so.
    """

    name: str
    device: str
    dtypes: Mapping[str, NumericModel]

    def start(self, spec: Spec, params: HostArrays) -> Handle:
        """Return a fresh optimizer."""
        ...

    def step(self, handle: Handle, grads: HostArrays, hyper: Mapping[str, float]) -> Handle:
        """Take one step and return the optimizer, which may be the same object.

        A parameter whose name is not in ``grads`` has no gradient: it keeps value and state.
        """
        ...

    def read(self, handle: Handle) -> Snapshot:
        """Return a copy of parameters and state."""
        ...

    def load(self, handle: Handle, snapshot: Snapshot) -> Handle:
        """Return the optimizer with a copy of the snapshot's parameters and state."""
        ...


@dataclass
class NamespacePort:
    """A port made of an array-API namespace, with `rootfree_array` as its optimizer."""

    name: str
    device: str
    xp: Any
    dtypes: Mapping[str, NumericModel]
    to_device: Callable[[HostArray, str], Any]
    to_host: Callable[[Any], HostArray]
    sync: Callable[[], None] = lambda: None
    proof: Callable[[], Mapping[str, Any]] = dict
    adapter: str = "rootfree_array"
    _platform: Any = field(default=None, init=False, repr=False)

    @property
    def platform(self) -> Any:
        """The adapter's record of this library: dtype objects are read off real arrays."""
        if self._platform is None:
            names = dict.fromkeys([*self.dtypes, "float32"])
            probe = {name: self.to_device(np.zeros(1), name) for name in names}
            native = [name for name, model in self.dtypes.items() if model.native_products]
            dtypes = {name: array.dtype for name, array in probe.items()}
            self._platform = Platform(self.xp, dtypes, native=native)
        return self._platform

    def start(self, spec: Spec, params: HostArrays) -> Handle:
        """Return an optimizer of `rootfree_array`."""
        adapter = importlib.import_module(self.adapter)
        return getattr(adapter, rootfree.method(spec.rule).class_name)(
            {name: self.to_device(host, spec.dtype) for name, host in params.items()},
            platform=self.platform,
            **arguments(spec),
        )

    def step(self, handle: Handle, grads: HostArrays, hyper: Mapping[str, float]) -> Handle:
        """Take one step."""
        handle.hyper = {name: hyper[name] for name in handle.hyper}
        device = {
            name: self.to_device(host, self.platform.dtype_name(handle.params[name].dtype))
            for name, host in grads.items()
        }
        handle.step(device, batch_size=hyper["curvature_scale"])
        self.sync()
        return handle

    def read(self, handle: Handle) -> Snapshot:
        """Return host copies."""
        name_of = self.platform.dtype_name
        state = handle.state
        dtypes = {"param": name_of(next(iter(handle.params.values())).dtype)}
        for roles in state.values():
            dtypes |= {role: name_of(array.dtype).split(".")[-1] for role, array in roles.items()}
        host = {name: {r: self._host(a) for r, a in roles.items()} for name, roles in state.items()}
        steps = [int(roles["step"]) for roles in host.values()]
        return Snapshot(
            {name: self._host(param) for name, param in handle.params.items()},
            host,
            max(steps, default=0),
            dtypes,
        )

    def load(self, handle: Handle, snapshot: Snapshot) -> Handle:
        """Put a snapshot into the optimizer."""
        name_of, template = self.platform.dtype_name, handle.state
        for name, host in snapshot.params.items():
            handle.params[name] = self.to_device(host, name_of(handle.params[name].dtype))
        handle.load_state_dict(
            handle.state_dict()
            | {
                "state": {
                    name: {
                        role: self._device(host, template[name][role])
                        for role, host in snapshot.state[name].items()
                    }
                    for name in template
                }
            }
        )
        return handle

    def _host(self, array: Any) -> HostArray:
        if array.dtype == self.xp.int32:
            return np.asarray(float(int(array)))
        return self.to_host(array)

    def _device(self, host: HostArray, like: Any) -> Any:
        if like.dtype == self.xp.int32:
            where = array_api_compat.device(like)
            return self.xp.asarray(int(host), dtype=self.xp.int32, device=where)
        return self.to_device(host, self.platform.dtype_name(like.dtype))


def port_from_namespace(
    *,
    name: str,
    device: str,
    xp: Any,
    dtypes: Mapping[str, NumericModel],
    to_device: Callable[[HostArray, str], Any],
    to_host: Callable[[Any], HostArray],
    sync: Callable[[], None] = lambda: None,
    proof: Callable[[], Mapping[str, Any]] = dict,
) -> Port:
    """Return the port of an array-API namespace; `rootfree_array` is its optimizer.

    Args:
        name: what it calls itself; the report has the installed name, or the file's.
        device: the device that it claims to run on.
        xp: the namespace, array-api-compat's or native.
        dtypes: parameter dtypes that it offers, each with its declared arithmetic.
        to_device: float64 host array and dtype name to device array, exact.
        to_host: device array to a float64 host array of its own, exact.
        sync: returns when all queued work is done.
        proof: device name, driver, ... as plain data.
    """
    return NamespacePort(name, device, xp, dtypes, to_device, to_host, sync, proof)
