"""Full-matrix rules: the parameter is one vector, its preconditioner one matrix. Small D only.

AdaGrad in its full-matrix form takes a root by eigenvalues. Its root-free form exists in three
parameterisations of one natural-gradient step: the inverse covariance S, which is solved with; the
covariance Sigma = S^-1, which needs products only but can lose positive definiteness; and a factor
B, Sigma = B B^T, products only and positive definite by construction, which is
`rootfree.SIRFShampoo` with ``flatten=True``.

References:
    Duchi, Hazan, Singer, Adaptive Subgradient Methods, 2011 (full-matrix AdaGrad). Lin et al.,
    2024, arXiv 2402.03496. Lin, Schmidt, Khan, Handling the Positive-Definite Constraint in the
    Bayesian Learning Rule, 2020, arXiv 2002.10060 (`improved`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rootfree._typing import Array, Hyper, WeightDecayMode, namespace
from rootfree.curvature import Curvature, DiagonalCurvature, MatrixCurvature, OuterProductCurvature
from rootfree.precision import Precision, cast, is_zero, store
from rootfree.shampoo import inverse_root
from rootfree.state import buffer, counter, salt
from rootfree.structures import identity, transposed
from rootfree.structures._diagonals import on_diagonal
from rootfree.validation import check_choice, check_number


class FullMatrixState(NamedTuple):
    """State of `FullMatrix`; a field that the configuration does not need is ``None``."""

    step: Array  # updates applied, (n,) int32
    salt: Array | None  # key of the stochastic-rounding bits, (n,) int32
    statistic: Array  # S, or Sigma, (n, D, D)
    root: Array | None  # S^(-1/2), (n, D, D)
    momentum: Array | None  # heavy-ball buffer, (n, *shape)


@dataclass(frozen=True)
class FullMatrix:
    """A rule with one D x D matrix for the whole parameter; g is the gradient as a vector.

    With H the caller's curvature, else ``alpha g g^T``; b2 is `precond_lr`:

        "root"       S = (1 - b2 decay) S + b2 g g^T;            U = (max(S, 0) + damping)^(-1/2) g
        "solve"      S = (1 - b2 decay) S + b2 (H + damping I);  U = S^-1 g
        "inverse"    Sigma = (1 + b2 decay) Sigma - b2 Sigma (H + damping I) Sigma;   U = Sigma g

    The "inverse" form stays positive definite if and only if the largest eigenvalue of
    ``b2 Sigma^1/2 (H + damping I) Sigma^1/2`` is below ``1 + b2 decay``: keep b2 small against the
    curvature, or use `exact`.

    Args:
        precision: dtypes and rounding; decompositions are taken in the working dtype.
        form: ``"root"``, ``"solve"`` or ``"inverse"``.
        decay: 1 for a moving average, 0 for a sum.
        init_scale: s_0; S starts as ``s_0 I``. > 0, except for the root.
        improved: ``"solve"`` only: adds ``b2^2/2 (H - S) S^-1 (H - S)``, which keeps S positive
            definite, at least half of the old one, for indefinite H.
        exact: ``"inverse"`` only: the exact inverse of the "solve" form's S, by a rank-one formula,
            for the gradient outer product without damping.
        momentum: ``"heavy_ball"`` on the direction, or ``"none"``.
        weight_decay_mode: ``"coupled"`` or ``"decoupled"``, see `rootfree.descend`.

    Raises:
        ValueError, TypeError: if an argument is out of its range, or of another kind.

    References:
        Duchi et al., 2011. Lin et al., 2024, arXiv 2402.03496.
    """

    precision: Precision
    form: Literal["root", "solve", "inverse"]
    decay: Literal[0, 1] = 1
    init_scale: float = 1.0
    improved: bool = False
    exact: bool = False
    momentum: Literal["none", "heavy_ball"] = "heavy_ball"
    weight_decay_mode: WeightDecayMode = "coupled"

    def __post_init__(self) -> None:
        """Check the configuration."""
        check_choice("form", self.form, ("root", "solve", "inverse"))
        check_choice("decay", self.decay, (0, 1))
        check_number("init_scale", self.init_scale, low=0, static=True)
        if self.form != "root":
            check_number("init_scale", self.init_scale, above=0, static=True)
        if self.improved and self.form != "solve":
            raise ValueError(f"`improved` is for form='solve', got form={self.form!r}")
        if self.exact and self.form != "inverse":
            raise ValueError(f"`exact` is for form='inverse', got form={self.form!r}")
        check_choice("momentum", self.momentum, ("none", "heavy_ball"))
        check_choice("weight_decay_mode", self.weight_decay_mode, ("coupled", "decoupled"))

    @property
    def elementwise(self) -> bool:
        """Return ``False``: a matrix mixes the numbers of its axis."""
        return False

    def dims(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the side of the matrix, as the only axis."""
        return (math.prod(shape),)

    def least_rate(self, shape: tuple[int, ...], unit: float) -> float:
        """Return the `precond_lr` from which a decay is seen in storage of that unit roundoff."""
        del shape
        return unit

    def init(self, param: Array) -> FullMatrixState:
        """Return the state before the first step of a stack ``(n, *shape)``."""
        (size,), stored = self.dims(tuple(param.shape[1:])), self.precision.state_dtype
        eye = identity(size, param, self.precision)
        start = 1 / self.init_scale if self.form == "inverse" else self.init_scale
        return FullMatrixState(
            step=counter(param),
            salt=salt(param, self.precision),
            statistic=cast(start * eye, stored),
            root=cast(eye, stored) if self.form == "root" else None,
            momentum=buffer(param, self.precision, kept=self.momentum == "heavy_ball"),
        )

    def observe(
        self,
        grad: Array,
        state: FullMatrixState,
        hyper: Hyper,
        curvature: Curvature | None = None,
    ) -> FullMatrixState:
        """Return the state after the curvature has entered the matrix.

        Raises:
            ValueError: with `exact`, for a curvature or a damping that is not Python's 0.
        """
        b2, old = hyper.precond_lr, cast(state.statistic, self.precision.working_dtype)
        if self.form == "inverse":
            new = self._covariance(grad, old, hyper, curvature)
        else:
            if self.form == "root":
                if curvature is not None:
                    raise ValueError("full-matrix AdaGrad has no use for a curvature")
                x = self._vectors(grad, None)
                h = self.precision.matmul(x, transposed(x))
            else:
                h = self._curvature(grad, hyper, curvature)
            new = ((1 - b2) * old if self.decay else old) + b2 * h
            if self.improved:
                gap = h - old if self.decay else h
                product = self.precision.matmul(gap, namespace(gap).linalg.solve(old, gap))
                new = new + (0.5 * b2 * b2) * product
        statistic = self._store(new, "statistic", state)
        root = None
        if state.root is not None:
            power = inverse_root(new, hyper.damping, 2, self.precision)
            root = self._store(power, "root", state)
        return state._replace(statistic=statistic, root=root)

    def derive(self, state: FullMatrixState, shape: tuple[int, ...], period: int) -> None:
        """Return ``None``: a matrix is applied once in a step, to one vector."""

    def direction(
        self, grad: Array, state: FullMatrixState, hyper: Hyper, derived: None = None
    ) -> Array:
        """Return the preconditioned gradient, ``(n, *shape)``."""
        del hyper, derived
        xp, g = namespace(grad), self._vectors(grad, None)
        kept = cast(state.statistic if state.root is None else state.root, g.dtype)
        u = xp.linalg.solve(kept, g) if self.form == "solve" else self.precision.matmul(kept, g)
        return xp.reshape(u, grad.shape)

    def _covariance(
        self, grad: Array, old: Array, hyper: Hyper, curvature: Curvature | None
    ) -> Array:
        """Return the new Sigma."""
        b2, dot = hyper.precond_lr, self.precision.matmul
        if self.exact and not (curvature is None and is_zero(hyper.damping)):
            raise ValueError(
                "`exact` is for the gradient outer product without damping; set damping=0, and "
                "pass no curvature, or leave `exact` out"
            )
        if isinstance(curvature, DiagonalCurvature | MatrixCurvature):
            h = self._matrix(curvature)
            seen = dot(old, dot(h, old))
        else:
            x = self._vectors(grad, curvature)
            v = dot(old, x)
            seen = dot(v, transposed(v))
            if curvature is None:
                seen = hyper.curvature_scale * seen
            if self.exact:
                xp, kept = namespace(v), 1 - b2 * self.decay
                gain = b2 * hyper.curvature_scale
                size = xp.expand_dims(xp.sum(x * v, axis=1), axis=2)  # g.v, (n, 1, 1)
                return (old - (b2 / (kept + gain * size)) * seen) / kept
        if not is_zero(hyper.damping):
            seen = seen + hyper.damping * dot(old, old)
        return ((1 + b2) * old if self.decay else old) - b2 * seen

    def _curvature(self, grad: Array, hyper: Hyper, curvature: Curvature | None) -> Array:
        """Return H with damping, ``(n, D, D)``."""
        if isinstance(curvature, DiagonalCurvature | MatrixCurvature):
            h = self._matrix(curvature)
        else:
            x = self._vectors(grad, curvature)
            h = self.precision.matmul(x, transposed(x))
            if curvature is None:
                h = hyper.curvature_scale * h
        if is_zero(hyper.damping):
            return h
        return h + hyper.damping * identity(h.shape[1], h, self.precision)

    def _matrix(self, curvature: DiagonalCurvature | MatrixCurvature) -> Array:
        """Return a caller's curvature as a matrix, ``(n, D, D)``, in the working dtype."""
        dtype = self.precision.working_dtype
        if isinstance(curvature, MatrixCurvature):
            return cast(curvature.matrix, dtype)
        rows = self._vectors(curvature.diagonal, None)
        return on_diagonal(rows[:, :, 0])

    def _vectors(self, grad: Array, curvature: Curvature | None) -> Array:
        """Return the gradient, or the vectors of a curvature, as columns ``(n, D, r)``."""
        dtype, xp = self.precision.working_dtype, namespace(grad)
        size = math.prod(grad.shape[1:])
        if isinstance(curvature, OuterProductCurvature):
            x = cast(curvature.vectors, dtype)
            return transposed(xp.reshape(x, (*x.shape[:2], size)))
        return xp.reshape(cast(grad, dtype), (grad.shape[0], size, 1))

    def _store(self, x: Array, role: str, state: FullMatrixState) -> Array:
        return store(x, self.precision, role=role, step=state.step, salt=state.salt)
