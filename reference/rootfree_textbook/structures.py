"""Structures: linear classes of d x d matrices that are closed under products.

A factor K of SIRF-Shampoo and its direction m lie in one class. A class is described here by what
it stores: `layout` says for every entry of the matrix that need not be 0 which stored number it is.
All else follows, entry by entry.

    dense               every entry                                  (d, d)
    diagonal            the diagonal                                 (d,)
    block_diagonal(k)   blocks of size k along the diagonal,         (q, k, k), q = d div k
                        the last one smaller                         (r, r), r = d mod k
    tril, triu          a triangle; the other one is stored as 0     (d, d)
    tril_toeplitz       K[i, j] = c[i - j] for i >= j                (d,)
    triu_toeplitz       K[i, j] = c[j - i] for i <= j                (d,)
    hierarchical(k1, k2)  [ A  B1      B2 ]                          A (k1, k1), B = [B1 B2]
                          [ 0  diag C  0  ]                          (k1, d - k1), C (f,),
                          [ 0  Dm      E  ]                          Dm (k2, f), E (k2, k2)
    arrowhead(side)     the diagonal and one dense border, which is  diagonal (d,)
                        first_column, last_row, first_row or         border (d - 1,)
                        last_column

f = d - k1 - k2. In short matrices k1, then k2, then f give way. Arrays without entries are left
out. Without parentheses: block_diagonal(30), hierarchical(15, 15), arrowhead(first_row).

References:
    W. Lin, F. Dangel, R. Eschenhagen, K. Neklyudov, A. Kristiadi, R. E. Turner, A. Makhzani.
    Structured Inverse-Free Natural Gradient Descent: Memory-Efficient & Numerically-Stable KFAC.
    ICML 2024. arXiv 2312.05705. The classes are those of its released code.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

from rootfree_textbook.descent import Array

Structure: TypeAlias = str | Sequence[str] | Mapping[int, str | Sequence[str]]

# Stored number: (which array, index in it).
Place: TypeAlias = tuple[int, tuple[int, ...]]

DEFAULT_ARGUMENTS: Final[Mapping[str, str]] = {
    "dense": "",
    "diagonal": "",
    "block_diagonal": "30",
    "tril": "",
    "triu": "",
    "tril_toeplitz": "",
    "triu_toeplitz": "",
    "hierarchical": "15,15",
    "arrowhead": "first_row",
}
SIDES: Final = ("first_column", "last_row", "first_row", "last_column")
QUADRATIC: Final = ("dense", "tril", "triu", "tril_toeplitz", "triu_toeplitz")


def parse(structure: str) -> tuple[str, tuple[int, ...], str]:
    """Name, sizes and side of a structure.

    Raises:
        ValueError: there is no such structure.

    Example:
        >>> parse("hierarchical(2, 1)"), parse("arrowhead")
        (('hierarchical', (2, 1), ''), ('arrowhead', (), 'first_row'))
    """
    match = re.fullmatch(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*", structure)
    if match is None or match[1] not in DEFAULT_ARGUMENTS:
        msg = f"unknown structure {structure!r}; known are {', '.join(DEFAULT_ARGUMENTS)}"
        raise ValueError(msg)
    name, given = match[1], match[2]
    text = DEFAULT_ARGUMENTS[name] if given is None else given.replace(" ", "")
    sizes = {"block_diagonal": r"0*[1-9]\d*", "hierarchical": r"\d+,\d+"}
    if name in sizes and re.fullmatch(sizes[name], text):
        return name, tuple(int(size) for size in text.split(",")), ""
    if name == "arrowhead" and text in SIDES:
        return name, (), text
    if DEFAULT_ARGUMENTS[name] == "" and given is None:
        return name, (), ""
    msg = f"wrong arguments of the structure {structure!r}"
    raise ValueError(msg)


def structures_of(structure: Structure, shape: Sequence[int], max_dim: int | None) -> list[str]:
    """The structure of every axis.

    Args:
        structure: one for all axes, one for each, or a mapping from the number of axes to either.
        shape: lengths of the axes, none of them 1 unless it is the only one.
        max_dim: axes longer than this become diagonal if their structure forms d x d matrices;
            None: no limit.

    Raises:
        ValueError: there is not one structure for each axis, or none for this number of axes.
    """
    if isinstance(structure, Mapping):
        if len(shape) not in structure:
            msg = f"`structure` has no entry for {len(shape)} axes: {dict(structure)}"
            raise ValueError(msg)
        structure = structure[len(shape)]
    names = [structure] * len(shape) if isinstance(structure, str) else list(structure)
    if len(names) != len(shape):
        msg = f"`structure` must have one entry for each axis of {tuple(shape)}, got {names}"
        raise ValueError(msg)
    for j, d in enumerate(shape):
        if parse(names[j])[0] in QUADRATIC and max_dim is not None and d > max_dim:
            names[j] = "diagonal"
    return names


def packed_shapes(structure: str, d: int) -> list[tuple[int, ...]]:
    """Shapes of the arrays that a d x d matrix of the class is stored in, empty ones included."""
    name, sizes, _ = parse(structure)
    if name in ("dense", "tril", "triu"):
        return [(d, d)]
    if name == "block_diagonal":
        (k,) = sizes
        return [(d // k, k, k), (d % k, d % k)]
    if name == "hierarchical":
        a, f, e = _hierarchy(sizes, d)
        return [(a, a), (a, d - a), (f,), (e, f), (e, e)]
    if name == "arrowhead":
        return [(d,), (max(d - 1, 0),)]
    return [(d,)]


def layout(structure: str, d: int) -> dict[tuple[int, int], Place]:
    """Entry (i, j) of the matrix -> its place in the storage, for every entry of the class.

    Arrays are numbered as in `packed_shapes`.
    """
    name, sizes, side = parse(structure)
    places: dict[tuple[int, int], Place] = {}
    if name == "dense":
        for i in range(d):
            for j in range(d):
                places[i, j] = 0, (i, j)
    elif name == "diagonal":
        for i in range(d):
            places[i, i] = 0, (i,)
    elif name == "block_diagonal":
        (k,) = sizes
        q = d // k
        for i in range(d):
            for j in range(i // k * k, min(i // k * k + k, d)):
                block, row, column = i // k, i % k, j % k
                places[i, j] = (0, (block, row, column)) if block < q else (1, (row, column))
    elif name in ("tril", "tril_toeplitz"):
        for i in range(d):
            for j in range(i + 1):
                places[i, j] = 0, ((i, j) if name == "tril" else (i - j,))
    elif name in ("triu", "triu_toeplitz"):
        for i in range(d):
            for j in range(i, d):
                places[i, j] = 0, ((i, j) if name == "triu" else (j - i,))
    elif name == "hierarchical":
        a, f, e = _hierarchy(sizes, d)
        for i in range(a):
            for j in range(d):
                places[i, j] = (0, (i, j)) if j < a else (1, (i, j - a))
        for i in range(f):
            places[a + i, a + i] = 2, (i,)
        for i in range(e):
            for j in range(f + e):
                places[a + f + i, a + j] = (3, (i, j)) if j < f else (4, (i, j - f))
    else:
        for i in range(d):
            places[i, i] = 0, (i,)
        for b in range(d - 1):
            entry = {
                "first_column": (b + 1, 0),
                "last_row": (d - 1, b),
                "first_row": (0, b + 1),
                "last_column": (b, d - 1),
            }[side]
            places[entry] = 1, (b,)
    return places


def pack(structure: str, matrix: Array) -> list[Array]:
    """Store a matrix of the class: its non-empty arrays, in the order of the table above.

    Args:
        structure: the class.
        matrix: a member of it, (d, d). What the class does not hold is not looked at; of entries
            that are one stored number the first counts.

    Example:
        >>> pack("tril_toeplitz", np.array([[1.0, 0.0], [3.0, 1.0]]))
        [array([1., 3.])]
    """
    d = len(matrix)
    arrays = [np.zeros(shape) for shape in packed_shapes(structure, d)]
    for entry, (number, index) in reversed(layout(structure, d).items()):
        arrays[number][index] = matrix[entry]
    return [array for array in arrays if array.size > 0]


def unpack(structure: str, arrays: Sequence[Array], d: int) -> Array:
    """The d x d matrix that `pack` stored.

    Example:
        >>> unpack("arrowhead", [np.array([1.0, 2.0]), np.array([3.0])], 2)
        array([[1., 3.],
               [0., 2.]])
    """
    remaining = iter(arrays)
    full = [
        np.zeros(shape) if 0 in shape else next(remaining) for shape in packed_shapes(structure, d)
    ]
    matrix = np.zeros((d, d))
    for entry, (number, index) in layout(structure, d).items():
        matrix[entry] = full[number][index]
    return matrix


def project(structure: str, matrix: Array) -> Array:
    """Pi(N): twice the natural gradient of <N, M> at M = 0 in the class.

    The Fisher metric is 1/2 ||dM + dM^T||^2. Entries that are one stored number share their mean.
    An entry off the diagonal whose mirror image is in the class too is half of a symmetric pair and
    taken as it is; one without is doubled.

    Args:
        structure: the class.
        matrix: N, symmetric, (d, d).

    Returns:
        A member of the class, (d, d), of the trace of N.

    Example:
        >>> project("tril", np.array([[1.0, 2.0], [2.0, 3.0]]))
        array([[1., 0.],
               [4., 3.]])
    """
    places = layout(structure, len(matrix))
    tied: dict[Place, list[float]] = {}
    for entry, place in places.items():
        tied.setdefault(place, []).append(matrix[entry])
    projected = np.zeros_like(matrix)
    for (i, j), place in places.items():
        doubled = i != j and (j, i) not in places
        projected[i, j] = (2 if doubled else 1) * sum(tied[place]) / len(tied[place])
    return projected


def _hierarchy(sizes: Sequence[int], d: int) -> tuple[int, int, int]:
    """Sizes of the three groups of coordinates of a hierarchical matrix: dense, diagonal, dense."""
    k1, k2 = sizes
    a = min(k1, d)
    e = min(k2, d - a)
    return a, d - a - e, e
