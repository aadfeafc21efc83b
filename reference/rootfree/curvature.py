"""Curvature that enters a preconditioner: the gradient outer product, or one the caller supplies.

Preconditioner and curvature are separate ideas (Lin et al., 2024, arXiv 2402.03496): the
preconditioner S is an inverse covariance, the curvature H is a partial derivative of the
variational objective, and any symmetric estimate may stand in for it. The default is the gradient
outer product ``alpha g g^T``, alpha from `rootfree.curvature_scale`. What a caller supplies
replaces it as it is: neither alpha nor a square is applied. Damping is added by the rules that add
it to the curvature.

In every class here a rule sees arrays with the stack axis first; an adapter's user passes them
without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, Final, NamedTuple, TypeAlias, cast

from rootfree._typing import Array


class DiagonalCurvature(NamedTuple):
    """A diagonal curvature from the caller, for example a Hutchinson or Gauss-Newton diagonal.

    Attributes:
        diagonal: h, shaped like the stack of parameters ``(n, *shape)``; >= 0 keeps the
            preconditioner positive, which is the caller's to see to.
    """

    diagonal: Array


class OuterProductCurvature(NamedTuple):
    """A sum of outer products, ``H = sum_r x_r x_r^T``: a Gauss-Newton or empirical Fisher matrix.

    Attributes:
        vectors: x_r, ``(n, r, *shape)``, each shaped like the parameter.
    """

    vectors: Array


class MatrixCurvature(NamedTuple):
    """A whole curvature matrix, a Hessian or Gauss-Newton matrix, for parameters of few numbers.

    Attributes:
        matrix: H, symmetric, ``(n, D, D)`` with D the parameter's size, row-major.
    """

    matrix: Array


class KroneckerCurvature(NamedTuple):
    """A Kronecker-factored curvature, ``H = H_1 kron ... kron H_N``, as of KFAC.

    Attributes:
        factors: H_j, symmetric, ``(n, d_j, d_j)`` for each axis that the rule has a factor for, in
            order.
    """

    factors: tuple[Array, ...]


Curvature: TypeAlias = (
    DiagonalCurvature | OuterProductCurvature | MatrixCurvature | KroneckerCurvature
)

CURVATURES: Final[dict[str, type[Any]]] = {
    "diagonal": DiagonalCurvature,
    "vectors": OuterProductCurvature,
    "matrix": MatrixCurvature,
    "factors": KroneckerCurvature,
}
"""Every kind of curvature by the word that the catalogue has for it, the name of its field."""


def as_curvature(value: Any) -> Curvature:
    """Return a curvature; a bare array stands for a diagonal."""
    if isinstance(
        value, DiagonalCurvature | OuterProductCurvature | MatrixCurvature | KroneckerCurvature
    ):
        return value
    return DiagonalCurvature(value)


def arrays_of(curvature: Curvature) -> tuple[Any, ...]:
    """Return the arrays that a curvature holds."""
    (value,) = curvature
    return value if isinstance(value, tuple) else (value,)


def mapped(curvature: Curvature, function: Callable[[Any], Any]) -> Curvature:
    """Return the curvature with ``function`` applied to each of its arrays."""
    arrays = tuple(map(function, arrays_of(curvature)))
    made: Any = type(curvature)
    return cast(
        "Curvature", made(arrays if isinstance(curvature, KroneckerCurvature) else arrays[0])
    )


def check_curvature(
    name: str,
    curvature: Curvature,
    *,
    shape: tuple[int, ...],
    dims: tuple[int, ...],
    kinds: Collection[str],
    title: str,
) -> None:
    """Check that a caller's curvature is of a kind that a method takes, and fits its parameter.

    Args:
        name: the parameter's name.
        curvature: without the stack axis.
        shape: the parameter's.
        dims: lengths of the axes that the rule has factors for.
        kinds: keys of `CURVATURES` that the method takes.
        title: the method's name, for errors.

    Raises:
        ValueError: if it is of another kind or of another shape; the message names the parameter.
    """
    kind = next(word for word, cls in CURVATURES.items() if isinstance(curvature, cls))
    if not kinds:
        raise ValueError(f"{title}, the rule of {name!r}, has no use for a curvature")
    if kind not in kinds:
        taken = ", ".join(CURVATURES[word].__name__ for word in kinds)
        raise ValueError(
            f"{title}, the rule of {name!r}, takes {taken}; got {type(curvature).__name__}"
        )
    size = math.prod(shape)
    came = tuple(tuple(array.shape) for array in arrays_of(curvature))
    if kind == "vectors":
        count = came[0][:1]
        expected: tuple[tuple[int, ...], ...] = ((*(count or (1,)), *shape),)
    else:
        expected = {
            "diagonal": (shape,),
            "matrix": ((size, size),),
            "factors": tuple((length, length) for length in dims),
        }[kind]
    if came != expected:
        raise ValueError(
            f"curvature of {name!r} has {_words(came)}, a {type(curvature).__name__} of its "
            f"parameter, shaped {shape}, needs {_words(expected)}"
        )


def _words(shapes: tuple[tuple[int, ...], ...]) -> str:
    return f"shape {', '.join(map(str, shapes))}"
