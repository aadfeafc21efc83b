"""The contract of the core: what an array, a namespace, a rule and its hyper-parameters are.

Every rule of rootfree is written once against these protocols. An array is anything that the Python
array API standard (https://data-apis.org/array-api) describes; a namespace is the module that holds
its functions. Nothing here, or anywhere else in ``rootfree``, names a framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, cast

import array_api_compat

if TYPE_CHECKING:
    from rootfree.curvature import Curvature
    from rootfree.precision import Precision

DType: TypeAlias = Any
"""A dtype object of some namespace; it comes from the adapter."""

Device: TypeAlias = Any
"""A device object of some namespace."""

WeightDecayMode: TypeAlias = Literal["coupled", "decoupled"]
LossReduction: TypeAlias = Literal["mean", "sum"]
Rounding: TypeAlias = Literal["nearest", "stochastic"]


class Array(Protocol):
    """The part of an array-API array that the rules touch: shape, dtype and arithmetic."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def dtype(self) -> DType: ...

    def __add__(self, other: Any, /) -> Array: ...
    def __radd__(self, other: Any, /) -> Array: ...
    def __sub__(self, other: Any, /) -> Array: ...
    def __rsub__(self, other: Any, /) -> Array: ...
    def __mul__(self, other: Any, /) -> Array: ...
    def __rmul__(self, other: Any, /) -> Array: ...
    def __truediv__(self, other: Any, /) -> Array: ...
    def __rtruediv__(self, other: Any, /) -> Array: ...
    def __neg__(self) -> Array: ...
    def __lt__(self, other: Any, /) -> Array: ...
    def __gt__(self, other: Any, /) -> Array: ...
    def __eq__(self, other: object, /) -> Array: ...  # type: ignore[override]  # elementwise
    def __and__(self, other: Any, /) -> Array: ...
    def __getitem__(self, key: Any, /) -> Array: ...


Scalar: TypeAlias = "float | Array"
"""A Python number or a 0-d array, so that a schedule never recompiles anything."""


class Linalg(Protocol):
    """The decompositions of the standard's extension: for the methods that declare them only."""

    def eigh(self, x: Array, /) -> tuple[Array, Array]: ...
    def solve(self, x1: Array, x2: Array, /) -> Array: ...


class Namespace(Protocol):
    """The functions of the array API standard that the rules use; ``nextafter`` is of 2024.12."""

    int32: DType
    float32: DType
    linalg: Linalg

    def abs(self, x: Array, /) -> Array: ...
    def arange(
        self, start: int, /, stop: int, *, dtype: DType = ..., device: Device = ...
    ) -> Array: ...
    def astype(self, x: Array, dtype: DType, /, *, copy: bool = ...) -> Array: ...
    def bitwise_and(self, x: Array, y: Any, /) -> Array: ...
    def bitwise_right_shift(self, x: Array, y: Any, /) -> Array: ...
    def bitwise_xor(self, x: Array, y: Any, /) -> Array: ...
    def broadcast_to(self, x: Array, /, shape: tuple[int, ...]) -> Array: ...
    def concat(self, arrays: Sequence[Array], /, *, axis: int = ...) -> Array: ...
    def expand_dims(self, x: Array, /, *, axis: int) -> Array: ...
    def expm1(self, x: Array, /) -> Array: ...
    def eye(self, n_rows: int, /, *, dtype: DType = ..., device: Device = ...) -> Array: ...
    def finfo(self, dtype: DType, /) -> Any: ...
    def floor(self, x: Array, /) -> Array: ...
    def full(
        self, shape: Sequence[int], value: float, *, dtype: DType = ..., device: Device = ...
    ) -> Array: ...
    def full_like(self, x: Array, value: float, /, *, dtype: DType = ...) -> Array: ...
    def flip(self, x: Array, /, *, axis: int | None = ...) -> Array: ...
    def log1p(self, x: Array, /) -> Array: ...
    def matmul(self, x: Array, y: Array, /) -> Array: ...
    def matrix_transpose(self, x: Array, /) -> Array: ...
    def max(self, x: Array, /, *, axis: int | None = ...) -> Array: ...
    def maximum(self, x: Array, y: Any, /) -> Array: ...
    def nextafter(self, x: Array, y: Array, /) -> Array: ...
    def ones_like(self, x: Array, /) -> Array: ...
    def pow(self, x1: Array, x2: Array, /) -> Array: ...
    def permute_dims(self, x: Array, axes: tuple[int, ...], /) -> Array: ...
    def reshape(self, x: Array, shape: tuple[int, ...], /) -> Array: ...
    def sqrt(self, x: Array, /) -> Array: ...
    def stack(self, arrays: Sequence[Array], /, *, axis: int = ...) -> Array: ...
    def sum(self, x: Array, /, *, axis: int | None = ...) -> Array: ...
    def take(self, x: Array, indices: Array, /, *, axis: int) -> Array: ...
    def tril(self, x: Array, /, *, k: int = ...) -> Array: ...
    def triu(self, x: Array, /, *, k: int = ...) -> Array: ...
    def where(self, condition: Array, x: Any, y: Any, /) -> Array: ...
    def zeros(self, shape: Sequence[int], *, dtype: DType = ..., device: Device = ...) -> Array: ...
    def zeros_like(self, x: Array, /, *, dtype: DType = ...) -> Array: ...


def namespace(*arrays: Array) -> Namespace:
    """Return the array-API namespace that all of ``arrays`` belong to."""
    return cast("Namespace", array_api_compat.array_namespace(*arrays))


def device(array: Array) -> Device:
    """Return the device of ``array``, or ``None`` where it has not got one.

    A traced array has none yet; one that is spread over several devices answers with its layout,
    which an array of another shape cannot have.
    """
    found = array_api_compat.device(cast("Any", array))
    return None if hasattr(found, "device_set") else found


class Hyper(NamedTuple):
    """The scalars that may change from step to step.

    Each is a Python number or a 0-d array. A rule reads the ones it needs and ignores the rest; the
    paper's letters are in parentheses.

    Attributes:
        lr: parameter learning rate (beta_1), >= 0.
        precond_lr: weight of the new curvature (beta_2), in [0, 1) with decay, >= 0 without. Adam's
            ``beta2`` is one minus this.
        momentum: heavy ball on the preconditioned direction (alpha_1), in [0, 1); the average of
            gradients in AdamW and RF-AdamW.
        precond_momentum: Riemannian momentum on the factors (alpha_2), in [0, 1).
        damping: added to the curvature (matrix rules) or to the denominator (diagonal rules)
            (lambda), >= 0.
        weight_decay: multiple of the parameter added to the preconditioned direction (kappa), >= 0.
        curvature_scale: alpha, > 0: the number of averaged terms for a mean loss, 1 for a sum. See
            `curvature_scale`.
    """

    lr: Scalar
    precond_lr: Scalar = 0.0
    momentum: Scalar = 0.0
    precond_momentum: Scalar = 0.0
    damping: Scalar = 0.0
    weight_decay: Scalar = 0.0
    curvature_scale: Scalar = 1.0


def curvature_scale(batch_size: Scalar, loss_reduction: LossReduction = "mean") -> Scalar:
    """Return alpha, the factor that makes the gradient outer product an empirical Fisher matrix.

    Args:
        batch_size: number of terms in the average whose gradient arrives, > 0; the global number
            under data parallelism or gradient accumulation.
        loss_reduction: ``"mean"`` gives ``batch_size``, ``"sum"`` gives 1.

    Raises:
        ValueError: if ``loss_reduction`` is neither.

    References:
        Lin et al., Can We Remove the Square-Root in Adaptive Gradient Methods?, 2024,
        arXiv 2402.03496: the scaling of the gradient outer product.
    """
    if loss_reduction == "mean":
        return batch_size
    if loss_reduction == "sum":
        return 1.0
    raise ValueError(f"`loss_reduction` must be 'mean' or 'sum', got {loss_reduction!r}")


class State(Protocol):
    """What every rule's state, a ``NamedTuple`` of arrays, has; a rule adds its own fields.

    A field that the configuration does not need is ``None``. Field names are the role names under
    which every adapter shows and saves the arrays.
    """

    @property
    def step(self) -> Array:
        """Updates applied so far, ``(n,)`` int32."""
        ...

    @property
    def salt(self) -> Array | None:
        """Key of the stochastic-rounding bits, ``(n,)`` int32; ``None`` with nearest rounding."""
        ...

    @property
    def momentum(self) -> Array | None:
        """Heavy-ball buffer, ``(n, *shape)``; ``None`` without heavy ball."""
        ...


S = TypeVar("S", bound=State)


class Rule(Protocol[S]):
    """An update rule: a frozen dataclass whose fields are the static configuration.

    Laws, each of them tested:

    * *Stacks.* Every array carries a leading axis of n >= 1 equally shaped parameters,
      ``(n, *shape)``; the result for a member does not depend on the other members.
    * *Purity.* No argument is changed; no Python branch, ``float()`` or ``bool()`` on an array
      value; no shape depends on data; every created array has an explicit dtype and device.
    * *Order.* `observe` lets the gradient's curvature in, `direction` then uses the new state.
    * *Precision.* Gradients are cast to the working dtype once, new state to the state dtype once.
    """

    @property
    def precision(self) -> Precision: ...
    @property
    def weight_decay_mode(self) -> WeightDecayMode: ...

    @property
    def elementwise(self) -> bool:
        """Whether a number's step depends on nothing but its own gradient, state and value.

        Then a parameter may be cut anywhere, and its parts updated one after the other.
        """
        ...

    def dims(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the lengths of the axes that the rule's matrices stand for, for a shape."""
        ...

    def least_rate(self, shape: tuple[int, ...], unit: float) -> float:
        """Return the smallest `precond_lr` that state rounded to nearest can follow.

        Args:
            shape: of the parameter.
            unit: unit roundoff of the storage, 2^-8 for bfloat16.
        """
        ...

    def init(self, param: Array) -> S:
        """Return the state before the first step, for a stack of parameters ``(n, *shape)``."""
        ...

    def observe(self, grad: Array, state: S, hyper: Hyper, curvature: Curvature | None = None) -> S:
        """Return the state after the curvature at this gradient has entered the preconditioner."""
        ...

    def derive(self, state: S, shape: tuple[int, ...], period: int) -> Any:
        """Return what `direction` may use again until the next `observe`, or ``None``.

        Args:
            state: of a stack of parameters.
            shape: of the parameter.
            period: how many directions are taken of this state, >= 1; decides what pays.
        """
        ...

    def direction(self, grad: Array, state: S, hyper: Hyper, derived: Any = None) -> Array:
        """Return the preconditioned gradient, ``(n, *shape)``, in the working dtype.

        Args:
            grad: gradients ``(n, *shape)``.
            state: from `observe`, or the last one.
            hyper: the scalars of this step.
            derived: from `derive`, of this state; ``None`` for what pays in a single step.
        """
        ...
