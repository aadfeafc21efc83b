"""The diagonal family: one statistic s, raised to the power 1/2 (root-based) or 1 (root-free).

SGD, AdaGrad, RMSProp and AdamW, and the root-free RF-AdaGrad, RF-RMSProp and RF-AdamW, are presets
of one rule. Removing the root makes s the diagonal of an inverse covariance, and the method a
diagonal second-order one. Three things must change with it: s starts at 1 and not at 0, since an
inverse covariance is positive definite; the squared gradient of a mean loss is multiplied by the
batch size alpha, since a Fisher matrix belongs to a normalised density; and the learning rate needs
a schedule.

References:
    Lin et al., Can We Remove the Square-Root in Adaptive Gradient Methods?, 2024, arXiv 2402.03496.
    Duchi, Hazan, Singer, Adaptive Subgradient Methods, 2011 (AdaGrad). Tieleman, Hinton, Lecture
    6.5, 2012 (RMSProp). Loshchilov, Hutter, 2017, arXiv 1711.05101 (AdamW).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from rootfree._typing import Array, Hyper, Scalar, WeightDecayMode, device, namespace
from rootfree.curvature import Curvature, DiagonalCurvature
from rootfree.precision import Precision, cast, per_member, store
from rootfree.validation import check_choice, check_number


class DiagonalState(NamedTuple):
    """State of `Diagonal`; a field that the configuration does not need is ``None``."""

    step: Array  # updates applied, (n,) int32
    salt: Array | None  # key of the stochastic-rounding bits, (n,) int32
    statistic: Array | None  # s, (n, *shape): diagonal of the inverse covariance
    first_moment: Array | None  # e, (n, *shape): average of raw gradients
    momentum: Array | None  # heavy-ball buffer, (n, *shape)


@dataclass(frozen=True)
class Diagonal:
    """A diagonal adaptive rule.

        s <- (1 - precond_lr * decay) * s + precond_lr * h
        e <- momentum * e + (1 - momentum) * G                   (average of gradients only)
        U  = x / max(s**power + damping, tiny)                    x = e or G

    with h the caller's diagonal curvature, else ``alpha * G**2`` for power 1 and ``G**2`` for power
    1/2; ``tiny`` is the smallest normal number. `rootfree.descend` makes the step of U.

    Args:
        precision: dtypes and rounding.
        power: 1/2 with the root, 1 without it, 0 for no statistic at all (SGD: U = x).
        decay: 1 for a moving average (RMSProp), 0 for a sum (AdaGrad).
        init_scale: s before the first step, >= 0, in units of alpha times squared gradient. A
            root-free rule wants 1: s is an inverse covariance. 0 is allowed so that it can be seen
            to fail.
        momentum: ``"heavy_ball"`` on the direction, ``"average"`` of the gradients before it,
            ``"none"``.
        bias_correction: divide e and s by one minus their decayed weights, as Adam does. For power
            1/2 with decay only: with ``init_scale = 1`` it would be wrong.
        weight_decay_mode: ``"coupled"`` or ``"decoupled"``, see `rootfree.descend`.

    Raises:
        ValueError, TypeError: if an argument is out of its range, or of another kind.

    Example:
        >>> import array_api_compat.numpy as xp
        >>> from rootfree import Diagonal, Hyper, Precision, update
        >>> rule = Diagonal(Precision.uniform(xp.float64), power=1.0)
        >>> param, grad = xp.ones((1, 2)), xp.asarray([[1.0, -2.0]])
        >>> state = rule.init(param)
        >>> step, state = update(rule, grad, state, param, Hyper(lr=0.1, precond_lr=0.5))
        >>> state.statistic.tolist(), step.tolist()
        ([[1.0, 2.5]], [[-0.1, 0.08000000000000002]])

    References:
        Lin et al., 2024, arXiv 2402.03496: RF-AdaGrad and RF-RMSProp.
    """

    precision: Precision
    power: float = 1.0
    decay: Literal[0, 1] = 1
    init_scale: float = 1.0
    momentum: Literal["none", "heavy_ball", "average"] = "heavy_ball"
    bias_correction: bool = False
    weight_decay_mode: WeightDecayMode = "coupled"

    def __post_init__(self) -> None:
        """Check the configuration."""
        check_choice("power", self.power, (0, 0.5, 1))
        check_choice("decay", self.decay, (0, 1))
        check_number("init_scale", self.init_scale, low=0, static=True)
        check_choice("momentum", self.momentum, ("none", "heavy_ball", "average"))
        check_choice("weight_decay_mode", self.weight_decay_mode, ("coupled", "decoupled"))
        if self.bias_correction and (self.power != 0.5 or not self.decay or self.init_scale):
            raise ValueError(
                "`bias_correction` is for a decaying root-based statistic that starts at 0, got "
                f"power={self.power}, decay={self.decay}, init_scale={self.init_scale}; "
                "set it to False"
            )

    @property
    def elementwise(self) -> bool:
        """Whether a parameter may be cut: the bits of stochastic rounding depend on the place."""
        return self.precision.rounding == "nearest"

    def dims(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the parameter's shape: every number has its own statistic."""
        return shape

    def least_rate(self, shape: tuple[int, ...], unit: float) -> float:
        """Return the `precond_lr` from which a decay is seen in storage of that unit roundoff."""
        del shape
        return unit

    def init(self, param: Array) -> DiagonalState:
        """Return the state before the first step of a stack ``(n, *shape)``."""
        xp = namespace(param)
        n, dtype, where = param.shape[0], self.precision.state_dtype, device(param)

        def counter() -> Array:
            return xp.zeros((n,), dtype=xp.int32, device=where)

        def filled(value: float) -> Array:
            return xp.full_like(param, value, dtype=dtype)

        return DiagonalState(
            step=counter(),
            salt=counter() if self.precision.rounding == "stochastic" else None,
            statistic=filled(self.init_scale) if self.power else None,
            first_moment=filled(0.0) if self.momentum == "average" else None,
            momentum=filled(0.0) if self.momentum == "heavy_ball" else None,
        )

    def observe(
        self,
        grad: Array,
        state: DiagonalState,
        hyper: Hyper,
        curvature: Curvature | None = None,
    ) -> DiagonalState:
        """Return the state after the curvature, and the gradient's average, have been updated.

        Raises:
            TypeError: if the curvature is not diagonal.
        """
        if not isinstance(curvature, DiagonalCurvature | None):
            raise TypeError(
                f"a diagonal rule takes DiagonalCurvature, got {type(curvature).__name__}"
            )
        dtype = self.precision.working_dtype
        grad = cast(grad, dtype)
        statistic, first_moment = state.statistic, state.first_moment
        if statistic is not None:
            weight = hyper.precond_lr
            if curvature is not None:
                h = cast(curvature.diagonal, dtype)
            else:
                h = grad * grad
                # One scalar: the passes over memory are what a step of this rule costs.
                weight = weight * hyper.curvature_scale if self.power == 1 else weight
            s = cast(statistic, dtype)
            if self.decay:
                s = (1 - hyper.precond_lr) * s
            statistic = self._store(s + weight * h, "statistic", state)
        if first_moment is not None:
            e = hyper.momentum * cast(first_moment, dtype) + (1 - hyper.momentum) * grad
            first_moment = self._store(e, "first_moment", state)
        return state._replace(statistic=statistic, first_moment=first_moment)

    def derive(self, state: DiagonalState, shape: tuple[int, ...], period: int) -> None:
        """Return ``None``: nothing of a step lasts."""

    def direction(
        self, grad: Array, state: DiagonalState, hyper: Hyper, derived: None = None
    ) -> Array:
        """Return ``x / max(s**power + damping, tiny)``, ``(n, *shape)``, in the working dtype."""
        dtype = self.precision.working_dtype
        x = cast(grad if state.first_moment is None else state.first_moment, dtype)
        if self.bias_correction and state.first_moment is not None:
            x = x / _mass(1 - hyper.momentum, state.step, x)
        if state.statistic is None:
            return x
        xp = namespace(x)
        s = cast(state.statistic, dtype)
        if self.bias_correction:
            s = s / _mass(hyper.precond_lr, state.step, s)
        root = xp.sqrt(s) if self.power == 0.5 else s
        # NOTE: s and the damping can both vanish; tiny keeps 0/0 out and changes nothing else.
        tiny = xp.full((), float(xp.finfo(dtype).smallest_normal), dtype=dtype, device=device(x))
        return x / xp.maximum(root + hyper.damping, tiny)

    def _store(self, x: Array, role: str, state: DiagonalState) -> Array:
        return store(x, self.precision, role=role, step=state.step, salt=state.salt)


def _mass(weight: Scalar, step: Array, like: Array) -> Array:
    """Return ``1 - (1 - weight)**t``, t the updates applied with this one: ``(n, 1, ...)``.

    NOTE: written with log1p and expm1; the power loses 2e-4 of its value in float32 at a weight of
    1e-4. A weight of 1 has the mass 1 and no logarithm.
    """
    xp = namespace(like)
    t = per_member(cast(step, like.dtype), like) + 1
    w = weight * xp.ones_like(t)
    partial = w < 1
    log = xp.log1p(-xp.where(partial, w, 0.5 * xp.ones_like(t)))
    return xp.where(partial, -xp.expm1(t * log), xp.ones_like(t))
