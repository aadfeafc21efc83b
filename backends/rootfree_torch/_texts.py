"""What is run for a bucket, eagerly or compiled: the core's halves of a step, written in place.

Each text takes a bucket's static description and arrays, with the stack axis first, and leaves
nothing else behind than what it writes into the state's arrays. They are the same in both modes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import rootfree
import torch
from rootfree import Curvature, Hyper, Rule

CHUNK: Final = 2**17
"""Elements of an array that a CPU updates at once, so that a step's temporaries stay in cache."""


unexported: Final[Any] = torch
"""torch with the ``_foreach`` functions, which its own optimizers are made of but types hide."""


class Kind(NamedTuple):
    """What does not change between steps: a program that was compiled for it can be used again."""

    rule: Rule[Any]
    shape: tuple[int, ...]  # of a parameter
    period: int | None  # None: a function of the count decides


class Arrays(NamedTuple):
    """What a text is given; what it does not need is ``None``."""

    grad: Any  # (n, *shape)
    param: Any  # (n, *shape)
    state: Any  # of the rule, its counter in float32
    hyper: Hyper
    active: Any = None  # which members take part, (n,) bool; None for all
    kept: tuple[torch.Tensor | None, ...] | None = None  # of `rootfree.Rule.derive`
    curvature: Curvature | None = None  # the caller's


Text = Callable[[Kind, Arrays], Any]
Memo = dict[Any, Any]
"""Programs by the place that they were found for; it goes with the arrays of these places."""

Call = Callable[[Text, Kind, Arrays, Any], Any]
"""Runs a text on arrays, eagerly or compiled; the last argument names the place of the arrays."""


def observed(kind: Kind, arrays: Arrays) -> None:
    """Let the curvature into the state, and renew what is kept between observations."""
    grad, _, state, hyper, active, kept, curvature = _counted(arrays)
    new = rootfree.observed(kind.rule, grad, state, hyper, curvature=curvature, active=active)
    _write(new, state)
    if kept is not None:
        fresh = kind.rule.derive(new, kind.shape, kind.period or 1)
        for array, product in zip(kept, fresh, strict=True):
            if array is not None:
                array.copy_(product)


def advanced(kind: Kind, arrays: Arrays) -> Any:
    """Step with the preconditioner as it is; return the parameters' values, as `stepped`."""
    grad, param, state, hyper, active, kept, _ = _counted(arrays)
    step, new = rootfree.advanced(kind.rule, grad, state, param, hyper, derived=kept, active=active)
    return _moved(param, step, new, state)


def stepped(kind: Kind, arrays: Arrays) -> Any:
    """Observe and step.

    Returns:
        The new values of a stack of parameters, to be copied to them; one alone, which is a view,
        has been written already.
    """
    grad, param, state, hyper, active, _, curvature = _counted(arrays)
    step, new = rootfree.update(
        kind.rule, grad, state, param, hyper, curvature=curvature, active=active
    )
    return _moved(param, step, new, state)


def alone(kind: Kind, arrays: Arrays) -> None:
    """Observe, step and count one parameter, given as it is and not as a stack."""
    grad, param = (x.unsqueeze(0) for x in (arrays.grad, arrays.param))
    stepped(kind, arrays._replace(grad=grad, param=param))
    arrays.state.step.add_(1)


def _counted(arrays: Arrays) -> Arrays:
    """Return arrays with the counter as the core has it; torch's own convention is float32."""
    state = arrays.state
    return arrays._replace(state=state._replace(step=state.step.to(torch.int32)))


def _moved(param: Any, step: Any, new: Any, state: Any) -> Any:
    _write(new, state)
    moved: Any = rootfree.add_step(param, step)
    return param.copy_(moved) if param.shape[0] == 1 else moved


def _write(new: Any, old: Any) -> None:
    """Copy what a rule changed of a state into the arrays it was given, but for the counter."""
    before: Any = rootfree.roles(old)
    after: Any = rootfree.roles(new)
    for role, array in after.items():
        if role != "step" and array is not before[role]:
            before[role].copy_(array)


def eagerly(text: Text, kind: Kind, arrays: Arrays, place: Any = None) -> Any:
    """Run a text; one large parameter goes part by part, so that temporaries stay in cache."""
    parts = _parts(kind, arrays) if text is stepped else []
    for part in parts:
        text(kind, part)
    return arrays.param if parts else text(kind, arrays)


def _parts(kind: Kind, arrays: Arrays) -> list[Arrays]:
    """Return views of cache-sized parts, if a parameter that fills the cache can be cut."""
    grad, param, state, _, active, _, curvature = arrays
    whole = param.shape[0] > 1 or param.numel() <= CHUNK or param.device.type != "cpu"
    if whole or not kind.rule.elementwise or active is not None or curvature is not None:
        return []
    roles: Any = rootfree.roles(state)
    found = {role: x for role, x in roles.items() if x.shape == param.shape}
    if not all(x.is_contiguous() for x in (grad, param, *found.values())):
        return []
    flat = {role: x.view(1, -1) for role, x in found.items()}
    g, p = grad.view(1, -1), param.view(1, -1)
    cuts = [slice(start, start + CHUNK) for start in range(0, param.numel(), CHUNK)]
    states = (rootfree.with_roles(state, {r: x[:, cut] for r, x in flat.items()}) for cut in cuts)
    return [
        arrays._replace(grad=g[:, cut], param=p[:, cut], state=part)
        for cut, part in zip(cuts, states, strict=True)
    ]
