"""NumPy whose inputs and state cannot be written: a rule that changes one in place is refused."""

import array_api_compat.numpy as xp
import numpy as np
from rootfree import roles

from rootfree_conformance.numeric import NumericModel
from rootfree_conformance.port import Handle, HostArray, HostArrays, NamespacePort, Spec


def _to_device(host: HostArray, dtype: str) -> np.ndarray:
    array = host.astype(dtype)
    array.flags.writeable = False
    return array


class ReadOnlyPort(NamespacePort):
    """Freezes all that a step returns, so that the next step meets it read-only."""

    def start(self, spec: Spec, params: HostArrays) -> Handle:
        """Return an optimizer whose arrays are frozen."""
        return self._frozen(super().start(spec, params))

    def step(self, handle: Handle, grads: HostArrays, hyper: object) -> Handle:
        """Take one step and freeze its results."""
        return self._frozen(super().step(handle, grads, hyper))  # type: ignore[arg-type]  # passed on

    def _frozen(self, handle: Handle) -> Handle:
        states = [array for state in handle._states.values() for array in roles(state).values()]
        for array in [*handle.params.values(), *states]:
            array.flags.writeable = False
        return handle


port = ReadOnlyPort(
    name="numpy_readonly",
    device="cpu",
    xp=xp,
    dtypes=dict.fromkeys(("float64", "float32"), NumericModel()),
    to_device=_to_device,
    to_host=lambda array: np.array(array, dtype=np.float64),
    proof=lambda: {"numpy": np.__version__},
)
