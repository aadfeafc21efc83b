"""Every kind of curvature, through every structure, against the textbook's explicit matrices.

The textbook forms the D x D matrix H of each kind and takes its partial traces; the core never
does. Mathematics 1, the table of contractions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import rootfree_textbook
from rootfree import (
    METHODS,
    Curvature,
    DiagonalCurvature,
    Hyper,
    KroneckerCurvature,
    MatrixCurvature,
    OuterProductCurvature,
    Precision,
    roles,
    update,
)

STRUCTURES = (
    *("dense", "diagonal", "block_diagonal(2)", "tril", "triu", "tril_toeplitz", "triu_toeplitz"),
    *("hierarchical(1,2)", "hierarchical(2,0)", "arrowhead(first_column)", "arrowhead(last_row)"),
    *("arrowhead(first_row)", "arrowhead(last_column)"),
)
SHAPES = ((3, 4), (5,), (2, 1, 3, 2), ())
STEPS = 3
HYPER = {"lr": 0.1, "precond_lr": 0.1, "momentum": 0.5, "damping": 0.2, "weight_decay": 0.1}
ROUNDING = 1e-12  # a few dozen operations of 1e-16, times a hundred


def configurations() -> Iterator[tuple[str, dict[str, Any], str | None]]:
    """Yield methods, options and kinds of curvature."""
    for name, method in METHODS.items():
        if not method.matrix:
            continue
        options: list[dict[str, Any]] = [{}]
        if name == "sirf_shampoo":
            options = [{"structure": structure} for structure in STRUCTURES]
            options += [{"trust_clip": False}, {"merge_dims": 6}, {"max_dim": 3}, {"decay": 0}]
            options += [{"init_scale": 2.0}]
        if name in ("rf_full_matrix", "shampoo", "rf_shampoo"):
            options += [{"decay": 0}, {"init_scale": 2.0}]
        options += [{"improved": True}] if name == "rf_full_matrix" else []
        options += [{"merge_dims": 6}] if name in ("shampoo", "rf_shampoo") else []
        for option in options:
            for kind in (None, *method.curvatures):
                yield name, option, kind


def drawn(
    kind: str, shape: tuple[int, ...], dims: tuple[int, ...], rng: np.random.Generator
) -> tuple[Curvature, dict[str, Any]]:
    """Return a positive curvature for the core, a stack of one, and for the textbook."""

    def symmetric(size: int) -> np.ndarray:
        half = rng.normal(size=(size, size))
        return half @ half.T / size

    size = int(np.prod(shape))
    if kind == "diagonal":
        h = rng.uniform(size=shape)
        return DiagonalCurvature(h[None]), {"diagonal": h}
    if kind == "vectors":
        x = rng.normal(size=(3, *shape))
        return OuterProductCurvature(x[None]), {"vectors": x}
    if kind == "matrix":
        matrix = symmetric(size)
        return MatrixCurvature(matrix[None]), {"matrix": matrix}
    factors = [symmetric(length) for length in dims]
    return KroneckerCurvature(tuple(h[None] for h in factors)), {"factors": factors}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "options", "kind"), list(configurations()), ids=str)
def test_against_explicit_matrices(name, options, kind, shape):
    """State and parameters agree over three steps, the second of which does not observe."""
    rng = np.random.default_rng(1)
    method, param = METHODS[name], rng.normal(size=shape)
    rule = method.rule(Precision.uniform(np.dtype("float64")), **options)
    layout = {k: v for k, v in options.items() if k in ("structure", "max_dim", "merge_dims")}
    start = {**layout, **({"init_scale": 2.0} if "init_scale" in options else {})}
    settings = {k: v for k, v in options.items() if k != "init_scale"}
    hyper = {**HYPER, **({"precond_momentum": 0.4} if "precond_momentum" in method.hyper else {})}
    mine, state = param[None], rule.init(param[None])
    theirs = rootfree_textbook.init(name, param, **start)
    for t in range(STEPS):
        grad = 0.3 * rng.normal(size=shape)
        curvature, given = (None, {})
        if kind is not None:
            curvature, explicit = drawn(kind, shape, rule.dims(shape), rng)
            given = {"curvature": explicit}
        now = t != 1
        step, state = update(
            rule,
            grad[None],
            state,
            mine,
            Hyper(**hyper, curvature_scale=4.0),
            now,
            curvature=curvature,
        )
        mine = mine + step
        param, theirs = rootfree_textbook.step(
            name, param, grad, theirs, **hyper, batch_size=4.0, update_now=now, **settings, **given
        )
    np.testing.assert_allclose(mine[0], param, rtol=0, atol=ROUNDING * np.abs(param).max())
    kept = roles(state)
    assert kept.keys() == theirs.keys()
    for role in kept.keys() - {"step"}:
        largest = np.abs(theirs[role]).max()
        np.testing.assert_allclose(kept[role][0], theirs[role], rtol=0, atol=ROUNDING * largest)
