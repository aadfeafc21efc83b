"""The arguments that every adapter gives a method: names, defaults, checks, documentation.

An adapter makes its class or function for a method from these, so that the same word means the same
thing in every framework and nothing about a method is written in an adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any, Final, NamedTuple

from rootfree._typing import Scalar
from rootfree.catalogue import Method
from rootfree.precision import is_zero
from rootfree.structures import canonical
from rootfree.validation import (
    check_choice,
    check_flag,
    check_hyper,
    check_limit,
    check_number,
    check_period,
)

_MEANING: Final = {
    "lr": "parameter learning rate, >= 0. A schedule matters: root-free steps are not scale-free.",
    "precond_lr": (
        "weight of the new curvature in the statistic, in [0, 1) for a moving average and >= 0 for "
        "a sum; Adam's beta2 is one minus this."
    ),
    "precond_momentum": (
        "Riemannian momentum: decay of the average of the factors' directions, in [0, 1)."
    ),
    "weight_decay": "multiple of the parameter added to the preconditioned direction, >= 0.",
    "batch_size": (
        "number of terms that the mean loss was taken over, globally, for the gradient as it "
        "arrives, > 0. It scales the curvature; the default 1 means no scaling."
    ),
    "loss_reduction": "'mean', or 'sum' for a loss that is a sum: then the curvature scale is 1.",
    "update_every": (
        "period of the preconditioner's update, >= 1; with a period the first step updates it. Or "
        "a function of the count of steps so far that says whether this one does."
    ),
    "stagger": (
        "with a period, parameters take turns after the first step, so that every step does about "
        "as much of the work; with False all of them update at the same steps."
    ),
    "structure": (
        "of the factors: 'dense', 'diagonal', 'block_diagonal(k)', 'tril', 'triu', "
        "'tril_toeplitz', 'triu_toeplitz', 'hierarchical(k1, k2)', 'arrowhead(side)'; one name, a "
        "tuple with one for each axis, or a mapping from the number of axes to either. Axes of "
        "length 1 do not count."
    ),
    "max_dim": (
        "an axis longer than this becomes diagonal if its structure stores or forms a square "
        "matrix, as dense, triangular and Toeplitz ones do; None for no limit."
    ),
    "merge_dims": (
        "neighbouring axes, never the first, share a matrix while the product of their lengths "
        "does not exceed this, as of a convolution kernel; None merges nothing."
    ),
    "trust_clip": (
        "divide a factor's step by its Frobenius norm where that exceeds 1, which keeps the factor "
        "invertible."
    ),
    "improved": "second-order term that keeps S positive definite for an indefinite curvature.",
    "exact": "exact inverse by a rank-one formula, for the gradient outer product without damping.",
    "decay": "1 for a moving average of the statistic, 0 for a sum.",
    "init_scale": (
        "the statistic before the first step, a multiple of the identity, >= 0; > 0 for the "
        "inverse covariance of a matrix method."
    ),
    "weight_decay_mode": "'coupled' (inside the heavy ball) or 'decoupled' (after it).",
    "state_dtype": (
        "storage of the state, by name or dtype object; by default float32 for 16- and 32-bit "
        "parameters and float64 for float64 ones."
    ),
    "compute_dtype": (
        "inputs of matrix products, by name or dtype object; by default bfloat16 for bfloat16 "
        "parameters on a device with units for it, else float32, or float64 for float64 ones."
    ),
    "product_dtype": (
        "in which products of these inputs are taken, by name or dtype object; by default "
        "compute_dtype on a device with units for it, else float32."
    ),
    "rounding": (
        "'nearest', or 'stochastic' for bfloat16 state, which with 'nearest' cannot follow a small "
        "precond_lr."
    ),
}
_MOMENTUM: Final = {
    "heavy_ball": "heavy ball on the preconditioned direction, in [0, 1).",
    "average": "decay of the average of gradients, in [0, 1); Adam's beta1.",
}
_DAMPING: Final = {
    "curvature": "multiple of the identity added to the curvature, >= 0.",
    "eigenvalues": "added to the eigenvalues before the root, > 0.",
    "denominator": (
        "added to the denominator, >= 0; in units of the statistic without the root, of its square "
        "root with it."
    ),
}
_SCALE: Final = (
    "`batch_size` is 1 unless you give it: a root-free step depends on the gradient's scale, so "
    "state how many terms your mean loss averages. Clipping gradients by a constant factor rho "
    "multiplies the long-run step by 1/rho."
)


class Arguments(NamedTuple):
    """The checked arguments of a method, sorted by what they configure."""

    hyper: dict[str, Scalar]  # fields of Hyper that the method reads, by name
    options: dict[str, Any]  # static configuration
    batch_size: Any  # a number, a 0-d array or a callable without arguments
    loss_reduction: Any
    state_dtype: Any  # None, a name or a dtype object: the adapter resolves it
    rounding: Any
    compute_dtype: Any = None  # as state_dtype
    update_every: Any = 1  # an integer, or a function of the count
    stagger: bool = False
    product_dtype: Any = None  # as state_dtype


def signature(
    method: Method, *, lr: str = "lr", leading: Sequence[str] = (), trailing: Mapping[str, Any] = {}
) -> Signature:
    """Return the signature of a method's class or function.

    Args:
        method: the method.
        lr: the framework's word for the learning rate.
        leading: names of positional parameters before the hyper-parameters.
        trailing: the adapter's own keyword parameters, with defaults.
    """
    positional = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in leading]
    hyper = [
        Parameter(lr if name == "lr" else name, Parameter.POSITIONAL_OR_KEYWORD, default=default)
        for name, default in method.hyper.items()
    ]
    keywords = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=default)
        for name, default in {**_static(method), **trailing}.items()
    ]
    return Signature([*positional, *hyper, *keywords])


def arguments(method: Method, given: Mapping[str, Any], *, lr: str = "lr") -> Arguments:
    """Check a method's arguments and sort them.

    Args:
        method: the method.
        given: every argument of `signature` but the leading and trailing ones, defaults applied.
        lr: the framework's word for the learning rate.

    Raises:
        TypeError: for a value of the wrong kind or an unknown option.
        ValueError: for a value out of its range.
    """
    options = {name: given[name] for name in method.options}
    for name, choices in _CHOICES.items():
        if name in given:
            check_choice(name, given[name], choices)
    _check_options(method, options)
    if "structure" in options:
        options |= {"structure": canonical(options["structure"])}
    update_every = given.get("update_every", 1)
    check_period("update_every", update_every)
    check_flag("stagger", given.get("stagger", False))
    hyper = {name: given[lr if name == "lr" else name] for name in method.hyper}
    check_hypers(method, hyper, options, lr=lr)
    batch_size = given.get("batch_size", 1)
    if not callable(batch_size):
        check_hyper("batch_size", batch_size)
    return Arguments(
        hyper,
        options,
        batch_size,
        given.get("loss_reduction", "mean"),
        given["state_dtype"],
        given["rounding"],
        given.get("compute_dtype"),
        update_every,
        given.get("stagger", False),
        given.get("product_dtype"),
    )


def check_hypers(
    method: Method, hyper: Mapping[str, Any], options: Mapping[str, Any], *, lr: str = "lr"
) -> None:
    """Check the values of all hyper-parameters that a method reads.

    Args:
        method: the method.
        hyper: values by the names of `rootfree.Hyper`.
        options: the static configuration.
        lr: what an error calls the learning rate.

    Raises:
        TypeError: for a value of the wrong kind.
        ValueError: for a value out of its range, a missing name or an unknown one.
    """
    if set(hyper) != set(method.hyper):
        raise ValueError(
            f"{method.title} has the hyper-parameters {', '.join(method.hyper)}; "
            f"got {', '.join(map(str, hyper))}"
        )
    decay = options.get("decay", method.fixed.get("decay", 1))
    for name, value in hyper.items():
        check_hyper(name, value, decay=decay, shown=lr if name == "lr" else name)
    check_together(method, hyper, options)


def check_together(method: Method, hyper: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Check that hyper-parameters go with a method and its options, each being in its range.

    Raises:
        ValueError: if they do not: the step would divide by zero, or cannot be taken.
    """
    if "eigh" in method.decompositions and is_zero(hyper["damping"]):
        raise ValueError(
            f"`damping` of {method.title} must be > 0, got {hyper['damping']!r}: the statistic is "
            "singular at first, and its root is taken of the eigenvalues plus the damping"
        )
    if options.get("exact") and not is_zero(hyper["damping"]):
        raise ValueError(
            f"`exact` needs damping=0, got {hyper['damping']!r}: the rank-one inverse is that of "
            "the gradient outer product alone"
        )
    if method.fixed.get("bias_correction") and is_zero(hyper["precond_lr"]):
        raise ValueError(
            f"`precond_lr` of {method.title} must be > 0, got 0: its bias correction divides by "
            "the weight of the gradients seen so far"
        )


def docstring(
    method: Method, summary: str, *, lr: str = "lr", extra: Mapping[str, str] = {}
) -> str:
    """Return a docstring in Google style for a method's class or function.

    Args:
        method: the method.
        summary: the first line.
        lr: the framework's word for the learning rate.
        extra: the adapter's own parameters with their meanings.
    """
    damping = "curvature" if method.matrix else "denominator"
    damping = "eigenvalues" if "eigh" in method.decompositions else damping
    meaning = {
        **_MEANING,
        "momentum": _MOMENTUM[method.momentum],
        "damping": _DAMPING[damping],
    }
    lines = [summary, ""]
    if method.scaled:
        lines += [_SCALE, ""]
    lines.append("Args:")
    for name, default in {**method.hyper, **_static(method)}.items():
        shown = lr if name == "lr" else name
        lines.append(f"    {shown}: {meaning[name]} Default {default!r}.")
    lines += [f"    {name}: {text}" for name, text in extra.items()]
    lines += [
        "",
        "Raises:",
        "    TypeError: for an argument of the wrong kind.",
        "    ValueError: for an argument out of its range.",
        "",
        "References:",
        f"    {method.source}.",
    ]
    return "\n".join(lines)


_CHOICES: Final = {
    "decay": (0, 1),
    "weight_decay_mode": ("coupled", "decoupled"),
    "loss_reduction": ("mean", "sum"),
    "rounding": ("nearest", "stochastic"),
}


def _check_options(method: Method, options: Mapping[str, Any]) -> None:
    """Check the static configuration as far as it can be without parameters."""
    if "init_scale" in options:
        # An inverse covariance of a matrix method is divided by; the diagonal one only added to.
        above = 0 if method.matrix and method.scaled else None
        check_number("init_scale", options["init_scale"], low=0, above=above, static=True)
    for name in ("max_dim", "merge_dims"):
        check_limit(name, options.get(name))
    for name in ("trust_clip", "improved", "exact"):
        if name in options:
            check_flag(name, options[name])


def _static(method: Method) -> dict[str, Any]:
    """Return the keyword parameters that every adapter has, with their defaults."""
    shared = method.shared
    dtypes = ("compute_dtype", "product_dtype")
    products = {name: shared.pop(name) for name in dtypes if name in shared}
    return {**shared, **method.options, "state_dtype": None, **products, "rounding": "nearest"}
