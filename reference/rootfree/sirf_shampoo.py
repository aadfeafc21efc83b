"""SIRF-Shampoo: a structured, inverse- and root-free Kronecker preconditioner, products only.

The inverse of the preconditioner is kept as ``S^-1 = (K_1 K_1^T) kron ... kron (K_N K_N^T)``, one
factor for each axis of the parameter, and the factors move along the natural gradient of the
variational objective. Neither a root nor an inverse is ever taken, so the method runs in low
precision. With dense factors it is IF-Shampoo; with one factor for the flattened parameter it is
the full-matrix method in its factor form.

References:
    Lin et al., Can We Remove the Square-Root in Adaptive Gradient Methods?, 2024, arXiv 2402.03496,
    figure "IF-Shampoo". Lin et al., Structured Inverse-Free Natural Gradient Descent, 2024,
    arXiv 2312.05705 (structures).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from rootfree._typing import Array, Hyper, Scalar, WeightDecayMode, namespace
from rootfree.contraction import contracted, product_of_others, viewed
from rootfree.curvature import Curvature
from rootfree.precision import Precision, cast, is_zero, per_member, store
from rootfree.shapes import along, merged
from rootfree.state import buffer, counter, salt
from rootfree.structures import (
    Diagonal,
    Factor,
    Structure,
    add,
    by_axis,
    canonical,
    named,
    names,
    scale,
    transposed,
)
from rootfree.validation import check_choice, check_limit, check_number


class SIRFShampooState(NamedTuple):
    """State of `SIRFShampoo`; a field that the configuration does not need is ``None``."""

    step: Array  # updates applied, (n,) int32
    salt: Array | None  # key of the stochastic-rounding bits, (n,) int32
    factor: tuple[Factor, ...]  # K_j of each axis, as its structure stores it
    factor_momentum: tuple[Factor, ...] | None  # m_j of each axis
    momentum: Array | None  # heavy-ball buffer, (n, *shape)


@dataclass(frozen=True)
class SIRFShampoo:
    """A rule that keeps the inverse preconditioner in factors.

        A   = G x_1 K_1^T ... x_N K_N^T                         (old factors throughout)
        N_j = (alpha d_j/D) Pi_j(A_j A_j^T) + lambda prod_{i != j} (|K_i|^2/d_i) Pi_j(K_j^T K_j)
        m_j = precond_momentum m_j + (1 - precond_momentum) (N_j - decay I)/2
        K_j = K_j - precond_lr / max(1, |m_j|) K_j m_j
        U   = G x_1 (K_1 K_1^T) ... x_N (K_N K_N^T)              (new factors)

    A_j is A with axis j first and the rest flattened, Pi_j the projection of the axis's structure,
    d_j its length, D the product of all. `rootfree.descend` makes the step of U. A caller's
    curvature replaces the outer product of the gradient; the damping lambda is added to it too.

    Args:
        precision: dtypes and rounding. Products take their inputs in its ``compute_dtype``.
        structure: of the factors: a name, one for each axis, or a mapping from the number of axes
            to either; see `rootfree.structures`.
        decay: 1 for a moving average of the curvature, 0 for a sum.
        init_scale: s_0 > 0; the preconditioner starts as ``s_0 I``.
        trust_clip: divide the factor's step by its Frobenius norm where that exceeds 1. It keeps
            factors invertible; without it, large curvature can make them singular.
        max_dim: an axis longer than this becomes diagonal if its structure stores or forms a d x d
            matrix, as dense, triangular and Toeplitz ones do; ``None`` for no limit.
        merge_dims: neighbouring axes, never the first, share a factor while their product does not
            exceed this; ``None`` merges nothing.
        flatten: one factor for the whole parameter.
        momentum: ``"heavy_ball"`` on the direction, or ``"none"``.
        precond_momentum: whether the average m_j is kept; ``False`` for a momentum of 0.
        weight_decay_mode: ``"coupled"`` or ``"decoupled"``, see `rootfree.descend`.

    Raises:
        ValueError, TypeError: if an argument is out of its range, or of another kind.

    Example:
        >>> import array_api_compat.numpy as xp
        >>> from rootfree import Hyper, Precision, SIRFShampoo, update
        >>> rule = SIRFShampoo(Precision.uniform(xp.float64), structure="diagonal")
        >>> param, grad = xp.ones((1, 2, 2)), xp.asarray([[[1.0, 0.0], [0.0, 2.0]]])
        >>> state = rule.init(param)
        >>> step, state = update(rule, grad, state, param, Hyper(lr=0.1, precond_lr=0.5))
        >>> state.factor[0][0].tolist()
        [[1.125, 0.75]]

    References:
        Lin et al., 2024, arXiv 2402.03496.
    """

    precision: Precision
    structure: Any = "dense"
    decay: Literal[0, 1] = 1
    init_scale: float = 1.0
    trust_clip: bool = True
    max_dim: int | None = 4096
    merge_dims: int | None = None
    flatten: bool = False
    momentum: Literal["none", "heavy_ball"] = "heavy_ball"
    precond_momentum: bool = True
    weight_decay_mode: WeightDecayMode = "coupled"

    def __post_init__(self) -> None:
        """Check the configuration."""
        object.__setattr__(self, "structure", canonical(self.structure))
        # Names are read here, once: a compiler that traces a step sees classes.
        object.__setattr__(self, "_kinds", {name: named(name) for name in names(self.structure)})
        check_choice("decay", self.decay, (0, 1))
        check_number("init_scale", self.init_scale, above=0, static=True)
        check_limit("max_dim", self.max_dim)
        check_limit("merge_dims", self.merge_dims)
        check_choice("momentum", self.momentum, ("none", "heavy_ball"))
        check_choice("weight_decay_mode", self.weight_decay_mode, ("coupled", "decoupled"))

    @property
    def elementwise(self) -> bool:
        """Return ``False``: a matrix mixes the numbers of its axis."""
        return False

    def dims(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the lengths of the axes that get a factor, for a parameter's shape."""
        return (math.prod(shape),) if self.flatten else merged(shape, self.merge_dims)

    def structures(self, shape: tuple[int, ...]) -> tuple[Structure, ...]:
        """Return the structure of every axis that gets a factor.

        Raises:
            ValueError: if `structure` does not say one for this number of axes.
        """
        dims = self.dims(shape)
        return tuple(
            self._structure(name, length)
            for name, length in zip(by_axis(self.structure, len(dims)), dims, strict=True)
        )

    def limited(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the lengths of the axes that `max_dim` makes diagonal."""
        dims = self.dims(shape)
        return tuple(
            length
            for name, length in zip(by_axis(self.structure, len(dims)), dims, strict=True)
            if self._is_limited(name, length)
        )

    def least_rate(self, shape: tuple[int, ...], unit: float) -> float:
        """Return the `precond_lr` from which factors leave the identity in such storage.

        With small curvature a factor grows by the factor ``1 + precond_lr / max(2, sqrt(d))`` at
        each step, without the clip by ``1 + precond_lr / 2``.
        """
        longest = max(self.dims(shape)) if self.trust_clip else 1
        return unit * max(2.0, math.sqrt(longest))

    def init(self, param: Array) -> SIRFShampooState:
        """Return the state before the first step of a stack ``(n, *shape)``."""
        spaces = self.structures(tuple(param.shape[1:]))
        start = self.init_scale ** (-0.5 / len(spaces))
        stored = self.precision.state_dtype
        factors = [_cast(space.eye(param, start), stored) for space in spaces]
        zeros = [_cast(space.zeros(param), stored) for space in spaces]
        return SIRFShampooState(
            step=counter(param),
            salt=salt(param, self.precision),
            factor=tuple(factors),
            factor_momentum=tuple(zeros) if self.precond_momentum else None,
            momentum=buffer(param, self.precision, kept=self.momentum == "heavy_ball"),
        )

    def observe(
        self,
        grad: Array,
        state: SIRFShampooState,
        hyper: Hyper,
        curvature: Curvature | None = None,
    ) -> SIRFShampooState:
        """Return the state after every factor has moved, all of them from the old ones."""
        shape = tuple(grad.shape[1:])
        spaces, factors = self.structures(shape), self._working(state.factor)
        targets = contracted(grad, curvature, spaces, factors, hyper.curvature_scale)
        if not is_zero(hyper.damping):
            targets = self._damped(targets, spaces, factors, hyper.damping)
        moved, averages = [], []
        for axis, (space, k, target) in enumerate(zip(spaces, factors, targets, strict=True)):
            m = scale(target, 0.5)
            if self.decay:
                m = add(m, space.eye(grad, -0.5))
            if state.factor_momentum is not None:
                old = self._working((state.factor_momentum[axis],))[0]
                m = add(scale(old, hyper.precond_momentum), scale(m, 1 - hyper.precond_momentum))
                averages.append(self._store(m, f"factor_momentum.{axis}", state))
            change = scale(space.times(k, m), -self._rate(space, m, hyper.precond_lr))
            moved.append(self._store(add(k, change), f"factor.{axis}", state))
        return state._replace(
            factor=tuple(moved),
            factor_momentum=None if state.factor_momentum is None else tuple(averages),
        )

    def derive(
        self, state: SIRFShampooState, shape: tuple[int, ...], period: int
    ) -> tuple[Array | None, ...]:
        """Return ``K_j K_j^T``, ``(n, d_j, d_j)``, of the axes where it saves work, else ``None``.

        Forming it is a product of d^3, and saves one of d^2 M in each direction, M the number of
        columns that the axis is applied to. It is kept as products take it, in ``compute_dtype``.
        """
        spaces, factors = self.structures(shape), self._working(state.factor)
        total = math.prod([space.size for space in spaces])
        products: list[Array | None] = []
        for space, k in zip(spaces, factors, strict=True):
            if self._pays(space, total // space.size, period):
                product = space.apply(k, transposed(space.to_dense(k)))
                products.append(cast(product, self.precision.compute_dtype))
            else:
                products.append(None)
        return tuple(products)

    def direction(
        self,
        grad: Array,
        state: SIRFShampooState,
        hyper: Hyper,
        derived: tuple[Array | None, ...] | None = None,
    ) -> Array:
        """Return ``G x_1 (K_1 K_1^T) ... x_N (K_N K_N^T)``, ``(n, *shape)``."""
        del hyper
        shape = tuple(grad.shape[1:])
        products = self.derive(state, shape, 1) if derived is None else derived
        spaces, factors = self.structures(shape), self._working(state.factor)
        factors, back = self._in_range(spaces, factors)
        u = viewed(grad, self.dims(shape), self.precision)
        for axis, (space, k, both) in enumerate(zip(spaces, factors, products, strict=True), 1):

            def through(
                x: Array, space: Structure = space, k: Factor = k, both: Array | None = both
            ) -> Array:
                if both is not None:
                    return self.precision.matmul(both, x)
                return space.apply(k, space.apply_transposed(k, x))

            u = along(u, axis, through)
        u = u if back is None else per_member(back, u) * u
        return namespace(u).reshape(u, grad.shape)

    def _structure(self, name: str, length: int) -> Structure:
        if self._is_limited(name, length):
            return Diagonal(length, self.precision)
        kind, arguments = self._kind(name)
        return kind(length, self.precision, *arguments)

    def _pays(self, space: Structure, columns: int, period: int) -> bool:
        """Return whether ``K K^T`` is worth forming for so many columns in so many directions.

        NOTE: in a narrow range factors are scaled before every product, which this would undo.
        """
        return space.square and not self.precision.narrow_range and space.size < period * columns

    def _is_limited(self, name: str, length: int) -> bool:
        return self.max_dim is not None and length > self.max_dim and self._kind(name)[0].square

    def _kind(self, name: str) -> tuple[type[Structure], tuple[Any, ...]]:
        return self._kinds[name]  # type: ignore[attr-defined,no-any-return]  # set when it is made

    def _damped(
        self,
        targets: list[Factor],
        spaces: tuple[Structure, ...],
        factors: tuple[Factor, ...],
        damping: Scalar,
    ) -> list[Factor]:
        """Return N_j with lambda I added to the curvature."""
        sizes = [
            space.squared_norm(k) * (1.0 / space.size)
            for space, k in zip(spaces, factors, strict=True)
        ]
        return [
            add(target, scale(space.gram(k), damping * product_of_others(sizes, j)))
            for j, (space, k, target) in enumerate(zip(spaces, factors, targets, strict=True))
        ]

    def _rate(self, space: Structure, m: Factor, precond_lr: Scalar) -> Scalar:
        """Return the step size of every member's factor, ``(n,)``, or the rate itself."""
        if not self.trust_clip:
            return precond_lr
        xp = namespace(*m)
        norm = xp.sqrt(space.squared_norm(m))
        return precond_lr / xp.maximum(norm, _ones(norm))

    def _in_range(
        self, spaces: tuple[Structure, ...], factors: tuple[Factor, ...]
    ) -> tuple[tuple[Factor, ...], Array | None]:
        """Return factors scaled down where a narrow range asks for it, and what undoes it."""
        if not self.precision.narrow_range:
            return factors, None
        scaled, back = [], None
        for space, k in zip(spaces, factors, strict=True):
            xp = namespace(*k)
            size = xp.sqrt(space.max_abs(k))
            s = xp.maximum(size, _ones(size))
            scaled.append(scale(k, 1.0 / s))
            back = s * s if back is None else back * s * s
        return tuple(scaled), back

    def _working(self, factors: tuple[Factor, ...]) -> tuple[Factor, ...]:
        return tuple(_cast(factor, self.precision.working_dtype) for factor in factors)

    def _store(self, factor: Factor, role: str, state: SIRFShampooState) -> Factor:
        def stored(part: Array, name: str) -> Array:
            return store(part, self.precision, role=name, step=state.step, salt=state.salt)

        if len(factor) == 1:
            return (stored(factor[0], role),)
        return tuple(stored(part, f"{role}.{i}") for i, part in enumerate(factor))


def _cast(factor: Factor, dtype: Any) -> Factor:
    return tuple(cast(part, dtype) for part in factor)


def _ones(like: Array) -> Array:
    return namespace(like).ones_like(like)
