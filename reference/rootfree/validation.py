"""Checks of what a user hands over, with errors that name it, say what came and what to do.

Hyper-parameters are checked when an optimizer is made, shapes and dtypes before a step writes
anything. Array values are never read: a 0-d array passes as a hyper-parameter whatever it holds.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from numbers import Real
from operator import attrgetter
from typing import Any, Final

import array_api_compat

RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "lr": (0.0, math.inf),
    "precond_lr": (0.0, math.inf),
    "momentum": (0.0, 1.0),
    "precond_momentum": (0.0, 1.0),
    "damping": (0.0, math.inf),
    "weight_decay": (0.0, math.inf),
}
"""Allowed values of the hyper-parameters: from the first number to the second, excluded."""


def check_number(
    name: str,
    value: object,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float | None = None,
    static: bool = False,
) -> None:
    """Check that a Python number lies in [low, high); a 0-d array passes unread, unless ``static``.

    With ``above`` it must exceed that.

    Raises:
        TypeError: if ``value`` is neither a real number nor a 0-d array.
        ValueError: if it is NaN, infinite or outside the range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        if not static and getattr(value, "shape", None) == () and hasattr(value, "dtype"):
            return
        wanted = "a number" if static else "a number or a 0-d array"
        raise TypeError(f"`{name}` must be {wanted}, got {type(value).__name__}: {value!r}")
    try:
        number = float(value)
    except OverflowError:  # a Python integer beyond every float
        number = math.inf
    if not math.isfinite(number) or not low <= number < high:
        span = f">= {low:g}" if high == math.inf else f"in [{low:g}, {high:g})"
        raise ValueError(f"`{name}` must be {span}, got {value!r}")
    if above is not None and not number > above:
        raise ValueError(f"`{name}` must be > {above:g}, got {value!r}")


def check_limit(name: str, value: object) -> None:
    """Check that ``value`` is an integer >= 1, or ``None`` for no limit.

    Raises:
        TypeError: if it is neither.
        ValueError: if it is smaller.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(
            f"`{name}` must be an integer or None, got {type(value).__name__}: {value!r}"
        )
    if value < 1:
        raise ValueError(f"`{name}` must be >= 1, or None for no limit; got {value!r}")


def check_flag(name: str, value: object) -> None:
    """Check that ``value`` is ``True`` or ``False``.

    Raises:
        TypeError: if it is not.
    """
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False, got {type(value).__name__}: {value!r}")


def check_period(name: str, value: object) -> None:
    """Check that ``value`` is an integer >= 1, or a function.

    Raises:
        TypeError, ValueError: if it is not.
    """
    if callable(value):
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(
            f"`{name}` must be an integer or a function of the count of steps, got "
            f"{type(value).__name__}: {value!r}"
        )
    if value < 1:
        raise ValueError(f"`{name}` must be >= 1, got {value!r}")


def check_hyper(name: str, value: object, *, decay: int = 1, shown: str | None = None) -> None:
    """Check one hyper-parameter of `rootfree.Hyper`, or a batch size.

    Args:
        name: a field of `rootfree.Hyper`, or ``"batch_size"``.
        value: a Python number, or a 0-d array (accepted unread).
        decay: 1 if the statistic is a moving average, which bounds ``precond_lr`` by 1.
        shown: what an error calls it, where a framework has another word.

    Raises:
        TypeError, ValueError: as `check_number`.
    """
    if name in ("batch_size", "curvature_scale"):
        check_number(name, value)
        if isinstance(value, Real) and not float(value) > 0:
            raise ValueError(f"`{name}` must be > 0, got {value!r}")
        return
    low, high = RANGES[name]
    if name == "precond_lr" and decay:
        high = 1.0
    check_number(shown or name, value, low=low, high=high)


def check_choice(name: str, value: object, choices: Collection[Any]) -> None:
    """Check that ``value`` is one of ``choices``.

    Raises:
        ValueError: if it is not.
    """
    if isinstance(value, bool) or value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{name}` must be one of {listed}; got {value!r}")


def check_gradient(
    name: str, grad: Any, param: Any, *, kinds: Collection[str] = ("dtype", "device")
) -> None:
    """Check that a gradient has its parameter's shape, dtype and device.

    Args:
        name: the parameter's name.
        grad: the gradient.
        param: the parameter.
        kinds: attributes that must agree besides the shape.

    Raises:
        ValueError: if it has not; the message names the parameter, both values and a remedy.
    """
    if tuple(grad.shape) != tuple(param.shape):
        raise ValueError(
            f"gradient of {name!r} has shape {tuple(grad.shape)}, its parameter has "
            f"{tuple(param.shape)}; pass the gradient of this parameter"
        )
    for kind in kinds:
        read = array_api_compat.device if kind == "device" else attrgetter(kind)
        came, expected = read(grad), read(param)
        if came != expected:
            raise ValueError(
                f"gradient of {name!r} has {kind} {came}, its parameter has {expected}; "
                f"convert the gradient before the step"
            )
