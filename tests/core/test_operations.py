"""Decompositions are called where the catalogue declares them, and nowhere else.

Each method runs on a namespace that records the functions that are looked up in it. One whose
`decompositions` are empty is root- and inverse-free: products, sums, elementwise arithmetic and the
root of a norm are all that it needs, whatever its options and whatever curvature it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import array_api_strict as strict
import pytest
from rootfree import (
    CURVATURES,
    METHODS,
    DiagonalCurvature,
    Hyper,
    KroneckerCurvature,
    MatrixCurvature,
    OuterProductCurvature,
    Precision,
    update,
)
from rootfree.structures import STRUCTURES

ALLOWED = {
    *("abs", "arange", "astype", "bitwise_and", "bitwise_right_shift", "bitwise_xor"),
    *("broadcast_to", "concat", "expand_dims", "expm1", "eye", "finfo", "flip", "floor", "full"),
    *("full_like", "log1p", "matmul", "matrix_transpose", "max", "maximum", "nextafter"),
    *("ones_like", "permute_dims", "reshape", "sqrt", "stack", "sum", "take", "tril", "triu"),
    *("where", "zeros", "zeros_like", "int32", "float32", "float64"),
}
"""What rules without decompositions may call; `pow` is for the eigenvalues of those with a root."""
HYPER = Hyper(0.1, 0.1, 0.5, 0.5, damping=0.25, weight_decay=0.1, curvature_scale=2.0)
SHAPE = (2, 4, 3)  # two members


class Recorder:
    """The strictest namespace, with a note of every name that is looked up."""

    __name__ = "recorder"

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.linalg = _Linalg(self.seen)

    def __getattr__(self, name: str) -> Any:
        self.seen.add(name)
        return getattr(strict, name)


class _Linalg:
    def __init__(self, seen: set[str]) -> None:
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        self._seen.add(f"linalg.{name}")
        return getattr(strict.linalg, name)


def curvatures(name: str) -> Iterator[Any]:
    """Yield a curvature of each kind that a method takes, and none."""
    n, *shape = SHAPE
    size = shape[0] * shape[1]

    def eye(length: int) -> Any:
        one = strict.eye(length, dtype=strict.float64)
        return strict.stack([one] * n)

    made = {
        "diagonal": lambda: DiagonalCurvature(strict.ones(SHAPE, dtype=strict.float64)),
        "vectors": lambda: OuterProductCurvature(strict.ones((n, 2, *shape), dtype=strict.float64)),
        "matrix": lambda: MatrixCurvature(eye(size)),
        "factors": lambda: KroneckerCurvature(tuple(map(eye, shape))),
    }
    assert set(made) == set(CURVATURES)
    yield None
    for kind in METHODS[name].curvatures:
        yield made[kind]()


def settings(name: str) -> Iterator[dict[str, Any]]:
    """Yield every combination of the options that choose code."""
    options = METHODS[name].options
    choices: dict[str, Any] = {
        "decay": (0, 1),
        "improved": (False, True),
        "trust_clip": (False, True),
        "structure": tuple(STRUCTURES),
    }
    names = [option for option in choices if option in options]
    for values in product(*(choices[option] for option in names)):
        yield dict(zip(names, values, strict=True))
    if "exact" in options:
        yield {"exact": True}


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that gives the names that a method looks up in all of its forms."""
    recorder = Recorder()
    monkeypatch.setattr(
        "rootfree._typing.array_api_compat.array_namespace", lambda *arrays: recorder
    )

    def called(name: str, dtypes: tuple[Any, Any] = (strict.float64,) * 2) -> set[str]:
        working, compute = dtypes
        precision = Precision(working, working, compute, product_dtype=working)
        grad = strict.reshape(strict.arange(1, 25, dtype=working), SHAPE)
        for options in settings(name):
            exact = options.get("exact", False)
            rule = METHODS[name].rule(precision, **options)
            for curvature in [None] if exact else curvatures(name):
                hyper = HYPER._replace(damping=0.0) if exact else HYPER
                state = rule.init(grad)
                for observe in (True, False):
                    _, state = update(rule, grad, state, grad, hyper, observe, curvature=curvature)
        return recorder.seen

    return called


@pytest.mark.parametrize("name", METHODS)
def test_decompositions_are_the_declared_ones(name, called):
    """Those declared are called, and no other; main-part functions are the permitted ones."""
    seen = called(name)
    linalg = {function.split(".")[1] for function in seen if function.startswith("linalg.")}
    assert linalg == set(METHODS[name].decompositions)
    extra = {"pow"} if "eigh" in METHODS[name].decompositions else set()
    assert {function for function in seen if "." not in function} <= ALLOWED | extra


@pytest.mark.parametrize("name", METHODS)
def test_products_of_rounded_inputs_call_nothing_more(name, called):
    """A narrower `compute_dtype` adds casts, no decomposition."""
    if not METHODS[name].matrix:
        return
    seen = called(name, (strict.float64, strict.float32))
    assert {f.split(".")[1] for f in seen if f.startswith("linalg.")} == set(
        METHODS[name].decompositions
    )


def test_methods_of_the_paper_are_free_of_them():
    """The root-free methods in products: no decomposition is declared, so none is called."""
    free = {name for name, method in METHODS.items() if method.matrix and not method.decompositions}
    assert free == {"rf_full_matrix_inverse", "rf_full_matrix_factor", "sirf_shampoo"}


def test_the_recorder_sees(called, monkeypatch):
    """A decomposition in a method that declares none would be found."""
    from rootfree.structures import Dense

    def times(self, one, other):
        from rootfree._typing import namespace

        namespace(one[0]).linalg.inv(one[0])
        return (one[0],)

    monkeypatch.setattr(Dense, "times", times)
    assert "linalg.inv" in called("sirf_shampoo")
