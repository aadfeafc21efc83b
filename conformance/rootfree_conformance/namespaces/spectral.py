"""Functions of symmetric matrices by their eigenvalues, bounded without bounding eigenvectors.

Eigenvectors of eigenvalues that lie close together may come out as anything, but a function of the
matrix, ``V diag(f(w)) V^T``, does not depend on the choice. Eigenvalues and eigenvectors are
therefore parts of one matrix here: a rule may clamp and shift the eigenvalues, take a power of
them, scale the eigenvectors by them and multiply by the eigenvectors' transpose. What comes out is
an array again, with the bound that follows from

    |f(A + E) - f(A)|_F <= L |E|_F        A, E symmetric, L the largest slope of f on the spectra

where E is the matrix's own error and the backward error of the decomposition, which the port's
model declares. Any other operation on the parts raises.

References:
    Bhatia, Matrix Analysis, 1997, theorem VII.2.8 (Lipschitz functions, Frobenius norm). Anderson
    and others, LAPACK Users' Guide, 1999, section 4.7 (backward errors of symmetric solvers).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from rootfree_conformance.namespaces.products import gamma

_ROOM = 1 + 2.0**-6
"""Second-order terms."""


@dataclass(frozen=True)
class Part:
    """Eigenvalues, or a function of them; eigenvectors; or eigenvectors scaled by a function.

    Attributes:
        kind: which of these.
        matrix: the bounded array that was decomposed.
        dtype: format of the numbers.
        w: eigenvalues, ``(n, d)``, or the function's values.
        v: eigenvectors, ``(n, d, d)``.
        low: least value that an argument of the power may have in a port, ``(n,)``.
        shift: bound of the error that was added to every eigenvalue.
        slope: of the function, ``(n,)``.
        relative: bound of the relative error of the function's values, by roundings.
    """

    kind: Literal["values", "vectors", "transposed", "scaled"]
    matrix: Any
    dtype: Any
    w: Any
    v: Any
    low: Any
    shift: float = 0.0
    slope: Any = 1.0
    relative: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array that it stands for."""
        shape: tuple[int, ...] = self.w.shape if self.kind == "values" else self.v.shape
        return shape

    @property
    def device(self) -> str:
        """There is one."""
        return "cpu"

    @property
    def xp(self) -> Any:
        """The namespace."""
        return self.matrix.xp

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return self.xp

    def maximum(self, floor: Any) -> Part:
        """Clamp the eigenvalues: a function with slope 1, or 0."""
        self._must_be("values")
        least = np.max(floor.value)
        return replace(self, w=np.maximum(self.w, floor.value), low=np.maximum(self.low, least))

    def __add__(self, other: Any) -> Part:
        self._must_be("values")
        other = self.matrix._lift(other)
        value, error = float(other.value), float(other.error)
        return replace(
            self,
            w=self.w + value,
            low=self.low + value - error,
            shift=self.shift + error,
            relative=self.relative + self.dtype.unit,
        )

    def power(self, exponent: Any) -> Part:
        """Return a negative power of every eigenvalue."""
        self._must_be("values")
        c, error = float(exponent.value.flat[0]), float(exponent.error.flat[0])
        assert c < 0
        with np.errstate(all="ignore"):
            logarithm = max(
                float(np.max(np.abs(np.log(self.low)))), float(np.max(np.abs(np.log(self.w))))
            )
            relative = -c * self.relative + error * logarithm
            return replace(
                self,
                w=self.w**c,
                slope=-c * self.low ** (c - 1),
                low=self.low**c,  # the largest value of the function
                relative=relative + 2 * self.xp.model.pow * self.dtype.unit,
            )

    def __mul__(self, other: Part) -> Part:
        self._must_be("vectors")
        other._must_be("values")
        return replace(
            other, kind="scaled", relative=other.relative + self.relative + self.dtype.unit
        )

    def turned(self) -> Part:
        """Return the transpose of the eigenvectors."""
        self._must_be("vectors")
        return replace(self, kind="transposed")

    def astype(self, dtype: Any) -> Part:
        """Round entries to a narrower format; widening costs nothing."""
        narrowed = dtype.unit if dtype.bits < self.dtype.bits else 0.0
        return replace(self, dtype=dtype, relative=self.relative + narrowed)

    def matmul(self, other: Part) -> Any:
        """Return the function of the matrix, an array with a bound."""
        self._must_be("scaled")
        other._must_be("transposed")
        xp, d = self.xp, self.v.shape[-1]
        perturbation, loss = _backward(self.matrix)
        narrowed = xp.model.matmul_bits
        inputs = 2 * 2.0**-narrowed if narrowed is not None and narrowed < self.dtype.bits else 0.0
        rounding = self.relative + other.relative + inputs + 2 * loss
        rounding = _ROOM * (rounding + float(gamma(d, xp.accumulator(self.dtype))))
        bound = self.slope * (perturbation + np.sqrt(d) * self.shift) + rounding * self.low
        value = (self.v * self.w[:, np.newaxis, :]) @ np.swapaxes(self.v, -1, -2)
        sizes = np.sqrt(np.sum(value**2, axis=(1, 2)))
        amount = np.sqrt(np.sum(self.matrix.value**2, axis=(1, 2)))
        with np.errstate(all="ignore"):
            xp.condition = max(xp.condition, float(np.max(self.slope * amount / sizes)))
        return xp.rounded(
            value,
            np.broadcast_to(bound[:, np.newaxis, np.newaxis], value.shape),
            self.dtype,
            exact=False,
        )

    def _must_be(self, kind: str) -> None:
        if self.kind != kind:
            raise TypeError(f"no bound is known for this operation on {self.kind} of a matrix")


def eigh(matrix: Any) -> tuple[Part, Part]:
    """Return eigenvalues and eigenvectors of a symmetric bounded array, as parts of it."""
    w, v = np.linalg.eigh(matrix.value)
    perturbation, _ = _backward(matrix)
    values = Part("values", matrix, matrix.dtype, w, v, w[:, 0] - perturbation)
    return values, replace(values, kind="vectors")


def _backward(matrix: Any) -> tuple[Any, float]:
    """Return the norm of what a port's matrix may differ by, and the eigenvectors' loss.

    A port may read either triangle, or the mean of both.
    """
    error = np.maximum(matrix.error, np.swapaxes(matrix.error, -1, -2))
    own = np.sqrt(np.sum(error**2, axis=(1, 2)))
    size = np.sqrt(np.sum((np.abs(matrix.value) + error) ** 2, axis=(1, 2)))
    loss = matrix.xp.model.eigh * matrix.value.shape[-1] * matrix.dtype.unit
    return own + loss * size, loss
