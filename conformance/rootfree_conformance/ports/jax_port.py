"""JAX on the CPU, jitted, through the transformations that a user would make."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rootfree_jax
from rootfree import method

from rootfree_conformance.numeric import NumericModel
from rootfree_conformance.port import HostArray, HostArrays, Snapshot, Spec, arguments

jax.config.update("jax_platforms", "cpu")  # type: ignore[no-untyped-call]  # jax's own
# XLA computes log1p and expm1 on the CPU less accurately than a C library, log1p in float64 by far:
# near -0.41 it is wrong by 128 ulps in jaxlib 0.10.2. A test measures what is declared here.
_SINGLE = NumericModel(expm1=8.0, subnormals="flushed", write="returned", count="shared")
_DOUBLE = replace(_SINGLE, log1p=256.0)


class Handle(NamedTuple):
    """A run: parameters and optimizer state are trees of arrays."""

    spec: Spec
    params: dict[str, jax.Array]
    state: Any


class JaxPort:
    """A black box around ``rootfree_jax``; float64 runs with 64-bit types enabled.

    Args:
        name: what it calls itself.
        scope: which cases it is judged on, see `rootfree_conformance.cases.left_out`.
        **arguments: of the optimizers, beside those of a case.
    """

    device = "cpu"
    dtypes: Mapping[str, NumericModel] = {
        "float64": _DOUBLE,
        "float32": _SINGLE,
        "bfloat16": _SINGLE,
    }

    def __init__(self, name: str = "jax", scope: str = "whole", **arguments: Any) -> None:
        self.name, self.scope, self._arguments = name, scope, arguments

    def start(self, spec: Spec, params: HostArrays) -> Handle:
        """Return parameters and fresh state."""
        spec = spec._replace(options={**spec.options, **self._arguments})
        with _types(spec):
            device = {k: jnp.asarray(v, dtype=spec.dtype) for k, v in params.items()}
            transformation = _transformation(spec, {"lr": 1.0})
            return Handle(spec, device, transformation.init(device))

    def step(self, handle: Handle, grads: HostArrays, hyper: Mapping[str, float]) -> Handle:
        """Take one jitted step."""
        with _types(handle.spec):
            device = {k: jnp.asarray(v, dtype=handle.spec.dtype) for k, v in grads.items()}
            there: dict[str, Any] = {**dict.fromkeys(handle.params), **device}
            step = _compiled(*_key(handle.spec))
            return handle._replace(**step(handle.params, handle.state, there, dict(hyper)))

    def read(self, handle: Handle) -> Snapshot:
        """Return copies as float64."""
        with _types(handle.spec):
            parts = _parts(handle.state)
            steps = max(int(part.count) for part in parts)
            state: dict[str, dict[str, HostArray]] = {
                name: {"step": np.asarray(float(steps))}
                for name, param in handle.params.items()
                if param.size
            }
            dtypes = {"param": str(next(iter(handle.params.values())).dtype)}
            for role, tree in _trees(parts):
                for name, entry in tree.items():
                    for path, array in _arrays(role, entry) if name in state else ():
                        state[name][path] = _host(array)
                        dtypes[path] = str(array.dtype)
            params = {name: _host(param) for name, param in handle.params.items()}
            return Snapshot(params, state, steps, dtypes)

    def load(self, handle: Handle, snapshot: Snapshot) -> Handle:
        """Return a handle with the snapshot's arrays in place of its own."""

        def replaced(part: Any) -> Any:
            fields: dict[str, Any] = {"count": jnp.asarray(snapshot.step, dtype=jnp.int32)}
            for role, tree in _trees([part]):
                fields[role] = {
                    name: _filled(role, old, snapshot.state.get(name, {}))
                    for name, old in tree.items()
                }
            return part._replace(**fields)

        with _types(handle.spec):
            old = handle.state
            state = replaced(old) if hasattr(old, "_fields") else tuple(map(replaced, old))
            params = {
                k: jnp.asarray(v, dtype=handle.spec.dtype) for k, v in snapshot.params.items()
            }
            return Handle(handle.spec, params, state)

    def proof(self) -> dict[str, str]:
        """Say which JAX this is, and on what it runs."""
        return {"jax": jax.__version__, "devices": str(jax.devices())}


def _transformation(spec: Spec, hyper: Mapping[str, Any]) -> Any:
    fixed = {*spec.without, *(["damping"] if spec.options.get("exact") else [])}
    given = {name: hyper[name] for name in method(spec.rule).hyper if name in hyper}
    rate = given.pop("lr")
    traced = {name: value for name, value in given.items() if name not in fixed}
    make = getattr(rootfree_jax, spec.rule)
    return make(rate, **{**arguments(spec), **traced})


def _key(spec: Spec) -> tuple[Any, ...]:
    rule, options, *rest = spec
    return rule, tuple(sorted(options.items())), *rest


@cache
def _compiled(rule: str, options: tuple[tuple[str, Any], ...], *rest: Any) -> Any:
    spec = Spec(rule, dict(options), *rest)

    def step(params: Any, state: Any, grads: Any, hyper: Any) -> dict[str, Any]:
        transformation = _transformation(spec, hyper)
        updates, state = transformation.update(
            grads, state, params, batch_size=hyper["curvature_scale"]
        )
        moving = {name: update for name, update in updates.items() if update is not None}
        moved: Any = optax.apply_updates({name: params[name] for name in moving}, moving)
        return {"params": {**params, **moved}, "state": state}

    return jax.jit(step)


def _parts(state: Any) -> list[Any]:
    """Return the states of the transformations that the optimizer is chained of."""
    found = [state] if hasattr(state, "_fields") else list(state)
    return [part for part in found if "count" in getattr(part, "_fields", ())]


def _trees(parts: list[Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (role, tree)
        for part in parts
        for role, tree in part._asdict().items()
        if isinstance(tree, dict)
    ]


def _arrays(role: str, entry: Any) -> Iterator[tuple[str, Any]]:
    """Yield the arrays of an entry, a tuple by axis or by part of a structure, by role."""
    if hasattr(entry, "dtype"):
        yield role, entry
    elif isinstance(entry, tuple) and not hasattr(entry, "_fields"):
        for index, one in enumerate(entry):
            yield from _arrays(f"{role}.{index}", one)


def _filled(role: str, old: Any, saved: HostArrays) -> Any:
    """Return an entry like ``old`` with arrays put in by role."""
    if hasattr(old, "dtype"):
        return jnp.asarray(saved[role], dtype=old.dtype)
    if isinstance(old, tuple) and not hasattr(old, "_fields"):
        return tuple(_filled(f"{role}.{index}", one, saved) for index, one in enumerate(old))
    return old


def _types(spec: Spec) -> Any:
    return jax.enable_x64(True) if spec.dtype == "float64" else nullcontext()


def _host(array: jax.Array) -> HostArray:
    wide = array.astype(jnp.float32) if array.dtype == jnp.bfloat16 else array
    return np.array(wide, dtype=np.float64)


port = JaxPort()
