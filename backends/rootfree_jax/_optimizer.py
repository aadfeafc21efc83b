"""The optimizers as functions that optax users know, made from the catalogue.

``rf_rmsprop(...)`` is ``optax.chain(scale_by_rf_rmsprop(...), descend(...))``; either part can be
chained with optax's own transformations instead. Only the names stand here, so that editors and
type checkers know them: what a method is, takes and says of itself comes from the core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from inspect import Parameter, Signature
from typing import Any, Final

import jax
import optax
import rootfree
from rootfree import CURVATURES, METHODS, Arguments, Method
from rootfree.validation import check_flag
from rootfree_array._precision import warn_if_stalled

from rootfree_jax._precision import DTYPES, dtype_name, widest_policy
from rootfree_jax._stages import descent, precondition

Factory = Callable[..., optax.GradientTransformationExtraArgs]

_LR: Final = "learning_rate"
_STACK: Final = (
    "whether leaves of one shape, dtype and layout are stepped as one stack. The program has one "
    "step for each kind of leaf instead of one for each leaf, so it traces and compiles faster, "
    "and a device that is slow to start small operations runs it faster; in return each step "
    "copies such leaves into the stack and back. Default False."
)
_OF_DESCENT: Final = ("lr", "weight_decay", "weight_decay_mode")


def _alias(method: Method) -> Factory:
    """Return the optimizer's function."""
    summary = f"{method.title} as an optax transformation, learning rate included."
    return _function(method.name, method, _optimizer, summary)


def _scale_by(method: Method) -> Factory:
    """Return the function of the optimizer's first stage."""
    summary = (
        f"The preconditioned direction of {method.title}, without learning rate.\n\n"
        "It has the dtype that it is computed in, float32 for 16-bit parameters; `descend` rounds."
    )
    return _function(f"scale_by_{method.name}", _preconditioner(method), precondition, summary)


def _optimizer(
    method: Method, checked: Arguments, *, together: bool
) -> optax.GradientTransformationExtraArgs:
    sgd = METHODS["sgd"]
    if not _has_statistic(method):
        return descent(sgd, checked, same_dtype=True, together=together)
    # An average of gradients is taken before the preconditioner; no heavy ball is left for descent.
    averages = method.momentum == "average"
    last = checked._replace(
        hyper={name: checked.hyper[name] for name in sgd.hyper}
        | ({"momentum": 0.0} if averages else {}),
        options={name: checked.options[name] for name in sgd.options},
    )
    return optax.chain(
        precondition(_preconditioner(method), checked, together=together),
        descent(sgd, last, same_dtype=False, together=False),
    )


def _preconditioner(method: Method) -> Method:
    """Return the method without what belongs to the descent."""
    apart = {*_OF_DESCENT, *(() if method.momentum == "average" else ("momentum",))}
    return replace(
        method,
        hyper={name: value for name, value in method.hyper.items() if name not in apart},
        options={name: value for name, value in method.options.items() if name not in apart},
    )


def _has_statistic(method: Method) -> bool:
    return "precond_lr" in method.hyper


def _function(
    name: str,
    method: Method,
    build: Callable[..., optax.GradientTransformationExtraArgs],
    summary: str,
) -> Factory:
    """Return a function with the method's arguments and documentation that calls ``build``."""
    signature = _annotated(rootfree.signature(method, lr=_LR, trailing={"stack": False}))

    def function(*args: Any, **kwargs: Any) -> optax.GradientTransformationExtraArgs:
        given = _bound(name, signature, args, kwargs)
        return build(method, _checked(method, given), together=given["stack"])

    function.__name__ = function.__qualname__ = name
    function.__module__ = "rootfree_jax"
    function.__doc__ = rootfree.docstring(
        method, summary + _notes(method, signature), lr=_LR, extra={"stack": _STACK}
    )
    function.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    function.__annotations__["return"] = signature.return_annotation
    function.__signature__ = signature  # type: ignore[attr-defined]  # read by inspect
    return function


def _annotated(signature: Signature) -> Signature:
    """Return the signature with types, and optax's own for the learning rate, which tools seek."""
    parameters = signature.parameters.values()
    kinds = {p.name: float | jax.Array for p in parameters if p.name not in _static(signature)}
    if _LR in kinds:
        kinds[_LR] = optax.ScalarOrSchedule
    return Signature(
        [p.replace(annotation=kinds.get(p.name, Any)) for p in parameters],
        return_annotation=optax.GradientTransformationExtraArgs,
    )


def _static(signature: Signature) -> tuple[str, ...]:
    """Return the names of the arguments that cannot be traced."""
    keywords = (p for p in signature.parameters.values() if p.kind is Parameter.KEYWORD_ONLY)
    return tuple(p.name for p in keywords if p.name != "batch_size")


def _notes(method: Method, signature: Signature) -> str:
    notes = (
        f"\n\nWith `optax.inject_hyperparams` pass ``static_args={_static(signature)}``: these "
        "shape the computation and cannot be traced."
    )
    if _LR in signature.parameters:
        notes += " `learning_rate` may be a schedule, a function of the number of updates applied."
    if method.curvatures:
        kinds = ", ".join(f"`rootfree.{CURVATURES[kind].__name__}`" for kind in method.curvatures)
        notes += (
            "\n\n``update(grads, state, params, curvature=h)`` replaces the outer product: "
            "`h` is a tree like `grads`, with ``None``, an array for a diagonal, or one of "
            f"{kinds} in a leaf's place."
        )
    if method.scaled:
        notes += " ``update(..., batch_size=n)`` sets the batch size of one step."
    return notes


def _checked(method: Method, given: Mapping[str, Any]) -> Arguments:
    """Return the arguments of a call, checked as far as they can be without parameters."""
    check_flag("stack", given["stack"])
    rate = given.get(_LR, 0.0)
    checked = rootfree.arguments(method, {**given, _LR: 0.0 if callable(rate) else rate}, lr=_LR)
    checked = checked._replace(
        hyper={**checked.hyper, "lr": rate},
        state_dtype=dtype_name("state_dtype", checked.state_dtype),
        compute_dtype=dtype_name("compute_dtype", checked.compute_dtype),
        product_dtype=dtype_name("product_dtype", checked.product_dtype),
    )
    policy = widest_policy(checked)
    rule = method.rule(policy.precision(DTYPES), **checked.options)
    # The least that any parameter needs; init knows what its parameters do.
    warn_if_stalled(policy, method, rule, [()], checked.hyper.get("precond_lr"), stacklevel=4)
    return checked


def _bound(
    name: str, signature: Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call by name, defaults included."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}() {error}") from None
    bound.apply_defaults()
    for key in _static(signature):
        if isinstance(bound.arguments[key], jax.Array):
            raise TypeError(
                f"`{key}` of {name} cannot be an array; with optax.inject_hyperparams pass "
                f"static_args={_static(signature)}"
            )
    if callable(bound.arguments.get("batch_size")):
        raise TypeError(
            f"`batch_size` of {name} must be a number or a 0-d array, got a function; pass it per "
            "step: update(grads, state, params, batch_size=n)"
        )
    return bound.arguments


sgd = _alias(METHODS["sgd"])
adagrad = _alias(METHODS["adagrad"])
rmsprop = _alias(METHODS["rmsprop"])
adamw = _alias(METHODS["adamw"])
rf_adagrad = _alias(METHODS["rf_adagrad"])
rf_rmsprop = _alias(METHODS["rf_rmsprop"])
rf_adamw = _alias(METHODS["rf_adamw"])
full_adagrad = _alias(METHODS["full_adagrad"])
rf_full_matrix = _alias(METHODS["rf_full_matrix"])
rf_full_matrix_inverse = _alias(METHODS["rf_full_matrix_inverse"])
rf_full_matrix_factor = _alias(METHODS["rf_full_matrix_factor"])
shampoo = _alias(METHODS["shampoo"])
rf_shampoo = _alias(METHODS["rf_shampoo"])
sirf_shampoo = _alias(METHODS["sirf_shampoo"])

scale_by_adagrad = _scale_by(METHODS["adagrad"])
scale_by_rmsprop = _scale_by(METHODS["rmsprop"])
scale_by_adamw = _scale_by(METHODS["adamw"])
scale_by_rf_adagrad = _scale_by(METHODS["rf_adagrad"])
scale_by_rf_rmsprop = _scale_by(METHODS["rf_rmsprop"])
scale_by_rf_adamw = _scale_by(METHODS["rf_adamw"])
scale_by_full_adagrad = _scale_by(METHODS["full_adagrad"])
scale_by_rf_full_matrix = _scale_by(METHODS["rf_full_matrix"])
scale_by_rf_full_matrix_inverse = _scale_by(METHODS["rf_full_matrix_inverse"])
scale_by_rf_full_matrix_factor = _scale_by(METHODS["rf_full_matrix_factor"])
scale_by_shampoo = _scale_by(METHODS["shampoo"])
scale_by_rf_shampoo = _scale_by(METHODS["rf_shampoo"])
scale_by_sirf_shampoo = _scale_by(METHODS["sirf_shampoo"])

descend = _function(
    "descend",
    METHODS["sgd"],
    partial(descent, same_dtype=False),
    "The last stage of every method: weight decay, heavy ball, learning rate.\n\n"
    "It takes directions, of any real floating dtype, and returns what is added to the parameters, "
    "in their dtype.",
)
