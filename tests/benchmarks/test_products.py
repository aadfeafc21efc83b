"""The floors take the products that the rules take, and count them as the library does."""

from __future__ import annotations

import pytest
import torch
from rootfree import METHODS, Precision, plan

from benchmarks.floors import floor_12, floor_12_jax, floor_merged, floor_taken
from benchmarks.products import all_products, flops, taken_products
from benchmarks.shape_sets import SETS

DOUBLE = Precision("float64", "float64", "float64")
LARGE = ["4x2048^2", "gpt4x256", "mlp3x512"]


def test_a_matrix_takes_twelve_products() -> None:
    """2 for A, 2 A A^T, 2 K^T K, 2 K m, 4 K (K^T X): each 2 m n k operations."""
    p, d = 5, 3
    axes = all_products([(p, d)])
    assert sum(len(axis.observation) + len(axis.direction) for axis in axes) == 12
    a = outer = 2 * p * p * d + 2 * p * d * d
    gram = moved = 2 * p**3 + 2 * d**3
    assert flops(axes) == a + outer + gram + moved + 2 * a


@pytest.mark.parametrize("damping", [0.0, 1e-3])
@pytest.mark.parametrize("name", LARGE)
def test_what_is_taken_is_what_the_library_plans(name: str, damping: float) -> None:
    """Products are all of a plan but the elementwise work, under 1 % where matrices are large."""
    rule = METHODS["sirf_shampoo"].rule(DOUBLE, max_dim=None)
    planned = plan(rule, SETS[name], damping=damping).per_step()
    taken = flops(taken_products(SETS[name], damping=damping))
    assert 0.99 * planned < taken < planned


@pytest.mark.parametrize("merge_dims", [None, 9, 1152])
def test_merged_axes_are_the_librarys(merge_dims: int | None) -> None:
    """The same holds for convolutions, with few columns and so more elementwise work."""
    rule = METHODS["sirf_shampoo"].rule(DOUBLE, max_dim=None, merge_dims=merge_dims)
    planned = plan(rule, SETS["conv"]).per_step()
    taken = flops(taken_products(SETS["conv"], damping=1e-3, merge_dims=merge_dims))
    assert 0.97 * planned < taken < planned


def test_what_is_taken_never_exceeds_what_can_be() -> None:
    """K K^T is formed only where it saves work, and a period takes less of everything."""
    for shapes in SETS.values():
        every = flops(taken_products(shapes, damping=1e-3))
        assert flops(taken_products(shapes, damping=0)) < every <= flops(all_products(shapes))
        assert flops(taken_products(shapes, damping=1e-3, update_every=10), 10) < every


class _Products(torch.overrides.TorchFunctionMode):
    """Adds up the operations of batched products."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Count a product, and run everything."""
        if func is torch.bmm:
            left, right = args
            self.flops += 2 * left.shape[0] * left.shape[1] * left.shape[2] * right.shape[2]
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("name", ["tiny", "conv"])
def test_floors_do_what_is_counted(name: str) -> None:
    """A period of steps of the floor takes exactly the operations of its products."""
    shapes = SETS[name]
    cases = [
        (floor_12(), all_products(shapes), 1),
        (floor_taken(damping=0), taken_products(shapes, damping=0), 1),
        (floor_merged(9), taken_products(shapes, damping=1e-3, merge_dims=9), 1),
        (
            floor_taken(damping=1e-3, update_every=4),
            taken_products(shapes, damping=1e-3, update_every=4),
            4,
        ),
    ]
    for contestant, axes, period in cases:
        step = contestant.enter(shapes, 0).step
        with _Products() as products:
            for _ in range(period):
                step()
        assert products.flops == period * flops(axes, period), contestant.title


def test_the_floor_in_jax_takes_the_same_products() -> None:
    """As many results as products, none of which a compiler could leave out."""
    shapes = SETS["tiny"]
    results = floor_12_jax().enter(shapes, 0).step()
    axes = all_products(shapes)
    assert isinstance(results, list)
    assert len(results) == sum(len(axis.observation) + len(axis.direction) for axis in axes)
