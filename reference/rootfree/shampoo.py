"""Kronecker rules that keep statistics: Shampoo by roots, root-free Shampoo by solves.

Both have a matrix for each axis of the parameter. Shampoo divides by the 2N-th root of the sum of
outer products over the other axes. Root-free Shampoo is the natural-gradient update of a
Kronecker-factored inverse covariance S: the outer products are seen through the other axes'
inverses, and the direction solves with S itself. It is the reference point of SIRF-Shampoo, which
needs no solves.

References:
    Gupta, Koren, Singer, Shampoo: Preconditioned Stochastic Tensor Optimization, 2018,
    arXiv 1802.09568. Lin et al., 2024, arXiv 2402.03496 (root-free).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from rootfree._typing import Array, Hyper, Scalar, WeightDecayMode, namespace
from rootfree.contraction import mean_trace, product_of_others, viewed
from rootfree.curvature import (
    Curvature,
    DiagonalCurvature,
    KroneckerCurvature,
    MatrixCurvature,
)
from rootfree.precision import Precision, cast, is_zero, per_member, store
from rootfree.shapes import along, broadcast_along, matrix, merged, partial_trace
from rootfree.state import buffer, counter, salt
from rootfree.structures import identity, transposed
from rootfree.structures._diagonals import diagonal, on_diagonal
from rootfree.validation import check_choice, check_limit, check_number


class ShampooState(NamedTuple):
    """State of `Shampoo`; a field that the configuration does not need is ``None``."""

    step: Array  # updates applied, (n,) int32
    salt: Array | None  # key of the stochastic-rounding bits, (n,) int32
    statistic: tuple[Array, ...]  # L_j or S_j of each axis, (n, d_j, d_j)
    root: tuple[Array, ...] | None  # R_j of each axis, (n, d_j, d_j)
    momentum: Array | None  # heavy-ball buffer, (n, *shape)


@dataclass(frozen=True)
class Shampoo:
    """A rule with a matrix of statistics for each axis.

    With the root, for ``root=True``:

        L_j = (1 - precond_lr decay) L_j + precond_lr mat_j(G) mat_j(G)^T
        R_j = (max(L_j, 0) + damping)^(-1/(2N))                           by eigh
        U   = G x_1 R_1 ... x_N R_N

    without it, every right-hand side from the old S:

        V_j = G x_i S_i^-1 over all i != j
        H_j = (alpha d_j/D) mat_j(V_j) mat_j(G)^T + damping prod_{i != j} (tr(S_i^-1)/d_i) I
        S_j = (1 - precond_lr decay) S_j + precond_lr (H_j + H_j^T)/2
        U   = G x_1 S_1^-1 ... x_N S_N^-1                                 by solve

    Args:
        precision: dtypes and rounding; decompositions are taken in the working dtype.
        root: which of the two.
        decay: 1 for a moving average, 0 for a sum.
        init_scale: without the root s_0 > 0, ``S_j = s_0^(1/N) I``; with it >= 0, ``L_j = s_0 I``.
        merge_dims: neighbouring axes, never the first, share a matrix while their product does not
            exceed this; ``None`` merges nothing.
        momentum: ``"heavy_ball"`` on the direction, or ``"none"``.
        weight_decay_mode: ``"coupled"`` or ``"decoupled"``, see `rootfree.descend`.

    Raises:
        ValueError, TypeError: if an argument is out of its range, or of another kind.

    References:
        Gupta et al., 2018, arXiv 1802.09568. Lin et al., 2024, arXiv 2402.03496.
    """

    precision: Precision
    root: bool
    decay: Literal[0, 1] = 1
    init_scale: float = 1.0
    merge_dims: int | None = None
    momentum: Literal["none", "heavy_ball"] = "heavy_ball"
    weight_decay_mode: WeightDecayMode = "coupled"

    def __post_init__(self) -> None:
        """Check the configuration."""
        check_choice("decay", self.decay, (0, 1))
        check_number("init_scale", self.init_scale, low=0, static=True)
        if not self.root:
            check_number("init_scale", self.init_scale, above=0, static=True)
        check_limit("merge_dims", self.merge_dims)
        check_choice("momentum", self.momentum, ("none", "heavy_ball"))
        check_choice("weight_decay_mode", self.weight_decay_mode, ("coupled", "decoupled"))

    @property
    def elementwise(self) -> bool:
        """Return ``False``: a matrix mixes the numbers of its axis."""
        return False

    def dims(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the lengths of the axes that get a matrix, for a parameter's shape."""
        return merged(shape, self.merge_dims)

    def least_rate(self, shape: tuple[int, ...], unit: float) -> float:
        """Return the `precond_lr` from which a decay is seen in storage of that unit roundoff."""
        del shape
        return unit

    def init(self, param: Array) -> ShampooState:
        """Return the state before the first step of a stack ``(n, *shape)``."""
        dims, stored = self.dims(tuple(param.shape[1:])), self.precision.state_dtype
        start = self.init_scale if self.root else self.init_scale ** (1 / len(dims))
        eyes = [identity(length, param, self.precision) for length in dims]
        return ShampooState(
            step=counter(param),
            salt=salt(param, self.precision),
            statistic=tuple(cast(start * eye, stored) for eye in eyes),
            root=tuple(cast(eye, stored) for eye in eyes) if self.root else None,
            momentum=buffer(param, self.precision, kept=self.momentum == "heavy_ball"),
        )

    def observe(
        self,
        grad: Array,
        state: ShampooState,
        hyper: Hyper,
        curvature: Curvature | None = None,
    ) -> ShampooState:
        """Return the state after the curvature has entered every axis's statistics."""
        old = [cast(s, self.precision.working_dtype) for s in state.statistic]
        if self.root:
            if curvature is not None:
                raise ValueError("Shampoo with the root has no use for a curvature")
            new = self._sums(grad)
        else:
            new = self._seen(grad, curvature, old, hyper)
        statistics, roots = [], []
        for axis, (s, h) in enumerate(zip(old, new, strict=True)):
            kept = (1 - hyper.precond_lr) * s if self.decay else s
            s_new = kept + hyper.precond_lr * h
            statistics.append(self._store(s_new, f"statistic.{axis}", state))
            if self.root:
                power = inverse_root(s_new, hyper.damping, 2 * len(old), self.precision)
                roots.append(self._store(power, f"root.{axis}", state))
        return state._replace(statistic=tuple(statistics), root=tuple(roots) if self.root else None)

    def derive(self, state: ShampooState, shape: tuple[int, ...], period: int) -> None:
        """Return ``None``: a root, or an inverse, is in the state where it is worth it."""

    def direction(
        self, grad: Array, state: ShampooState, hyper: Hyper, derived: None = None
    ) -> Array:
        """Return G with every axis's root, or inverse, applied, ``(n, *shape)``."""
        del hyper, derived
        u, dtype = (
            viewed(grad, self.dims(tuple(grad.shape[1:])), self.precision),
            self.precision.working_dtype,
        )
        if state.root is not None:
            for axis, root in enumerate(state.root, 1):
                r = cast(root, dtype)
                u = along(u, axis, partial(self.precision.matmul, r))
        else:
            for axis, statistic in enumerate(state.statistic, 1):
                u = solved(u, axis, cast(statistic, dtype))
        return namespace(u).reshape(u, grad.shape)

    def _sums(self, grad: Array) -> list[Array]:
        """Return the outer product of the gradient over all axes but one, for each."""
        g = viewed(grad, self.dims(tuple(grad.shape[1:])), self.precision)
        return [_square(matrix(g, axis), self.precision) for axis in range(1, g.ndim)]

    def _seen(
        self, grad: Array, curvature: Curvature | None, old: list[Array], hyper: Hyper
    ) -> list[Array]:
        """Return every axis's curvature as it is seen through the other axes' inverses."""
        dims, xp = self.dims(tuple(grad.shape[1:])), namespace(grad)
        damped = not is_zero(hyper.damping)
        eyes = [identity(s.shape[1], s, self.precision) for s in old]
        inverses = []
        if damped or isinstance(curvature, DiagonalCurvature | KroneckerCurvature):
            inverses = [xp.linalg.solve(s, eye) for s, eye in zip(old, eyes, strict=True)]
        new = self._contracted(grad, curvature, old, inverses, dims, hyper)
        if damped:
            means = list(map(mean_trace, inverses))
            weights = [hyper.damping * product_of_others(means, j) for j in range(len(eyes))]
            terms = zip(new, weights, eyes, strict=True)
            new = [h + per_member(weight, eye) * eye for h, weight, eye in terms]
        return new

    def _contracted(
        self,
        grad: Array,
        curvature: Curvature | None,
        old: list[Array],
        inverses: list[Array],
        dims: tuple[int, ...],
        hyper: Hyper,
    ) -> list[Array]:
        """Return the curvature of every axis without damping."""
        dtype, total, xp = self.precision.working_dtype, math.prod(dims), namespace(grad)
        axes = range(len(dims))
        if isinstance(curvature, DiagonalCurvature):
            h, out = viewed(curvature.diagonal, dims, self.precision), []
            for j in axes:
                seen = h
                for i, inverse in enumerate(inverses):
                    if i != j:
                        seen = seen * broadcast_along(diagonal(inverse), i + 1, h)
                rows = (dims[j] / total) * xp.sum(matrix(seen, j + 1), axis=2)
                out.append(on_diagonal(rows))
            return out
        if isinstance(curvature, KroneckerCurvature):
            factors = [cast(h, dtype) for h in curvature.factors]
            means = [
                xp.sum(xp.sum(inverse * h, axis=2), axis=1) * (1.0 / h.shape[1])  # both symmetric
                for inverse, h in zip(inverses, factors, strict=True)
            ]
            return [
                per_member(product_of_others(means, j), factors[j]) * _symmetric(factors[j])
                for j in axes
            ]
        if isinstance(curvature, MatrixCurvature):
            h = cast(curvature.matrix, dtype)
            h, out = xp.reshape(h, (h.shape[0], *dims, *dims)), []
            for j in axes:
                seen = h
                for i in axes:
                    seen = seen if i == j else solved(seen, i + 1, old[i])
                trace = partial_trace(seen, j + 1)
                out.append((dims[j] / total) * _symmetric(trace))
            return out
        if curvature is None:
            x, weight = (
                viewed(grad, self.dims(tuple(grad.shape[1:])), self.precision),
                hyper.curvature_scale,
            )
        else:
            x, weight = cast(curvature.vectors, dtype), 1.0
            x = xp.reshape(x, (*x.shape[:2], *dims))
        first, out = x.ndim - len(dims), []
        for j in axes:
            v = x
            for i in axes:
                v = v if i == j else solved(v, first + i, old[i])
            h = self.precision.matmul(matrix(v, first + j), transposed(matrix(x, first + j)))
            out.append((weight * (dims[j] / total)) * _symmetric(h))
        return out

    def _store(self, x: Array, role: str, state: ShampooState) -> Array:
        return store(x, self.precision, role=role, step=state.step, salt=state.salt)


def inverse_root(s: Array, damping: Scalar, power: int, precision: Precision) -> Array:
    """Return ``(max(S, 0) + damping)^(-1/power)`` of symmetric matrices, by their eigenvalues.

    Args:
        s: ``(n, d, d)`` in the working dtype.
        damping: added to the eigenvalues, which are taken as 0 where rounding made them negative.
        power: the root, 2 N for an axis of an N-axis parameter.
        precision: dtypes.
    """
    xp = namespace(s)
    w, v = xp.linalg.eigh(s)
    w = xp.pow(xp.maximum(w, xp.zeros_like(w)) + damping, xp.full_like(w, -1 / power))
    return precision.matmul(v * xp.expand_dims(w, axis=1), transposed(v))


def solved(x: Array, axis: int, s: Array) -> Array:
    """Return ``x`` with the inverse of ``s``, ``(n, d, d)``, applied along an axis."""
    return along(x, axis, lambda m: namespace(m).linalg.solve(s, m))


def _square(m: Array, precision: Precision) -> Array:
    return precision.matmul(m, transposed(m))


def _symmetric(h: Array) -> Array:
    """Return (H + H^T)/2, which removes the asymmetry of rounding only."""
    return 0.5 * (h + transposed(h))
