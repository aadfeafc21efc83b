"""What the tests of the torch adapter share: parameters, gradients and steps."""

from __future__ import annotations

import pytest
import rootfree_torch
import torch
from rootfree import METHODS

CLASSES = [getattr(rootfree_torch, method.class_name) for method in METHODS.values()]
torch.set_num_threads(1)  # on tensors of these sizes threads only wait for each other
SHAPES = ((3, 2), (3,), (), (2, 1, 2))


def pytest_generate_tests(metafunc):
    """Run a test that asks for `cls` with every class."""
    if "cls" in metafunc.fixturenames:
        metafunc.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


@pytest.fixture
def normal():
    """Return a function that makes a tensor of normal numbers, away from 0."""

    def normal(seed, shape=(3, 2), dtype=torch.float32):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return (x + 0.1 * x.sign()).to(dtype)

    return normal


@pytest.fixture
def make_params(normal):
    """Return a function that makes parameters of several shapes."""

    def make_params(seed=0, dtype=torch.float32, shapes=SHAPES):
        return [
            torch.nn.Parameter(normal(seed + i, shape, dtype)) for i, shape in enumerate(shapes)
        ]

    return make_params


@pytest.fixture
def take_steps(normal):
    """Return a function that takes steps with gradients that depend on the step's number alone."""

    def take_steps(optimizer, *numbers, after=lambda: None):
        for number in numbers:
            params = [p for group in optimizer.param_groups for p in group["params"]]
            for i, p in enumerate(params):
                p.grad = normal(1000 * (number + 1) + i, p.shape, p.dtype).to(p.device)
            optimizer.step()
            after()

    return take_steps


@pytest.fixture
def equal_bits():
    """Return a function that says whether two optimizers have equal parameters and state."""

    def equal_bits(a, b):
        ours, theirs = (
            [p for group in optimizer.param_groups for p in group["params"]] for optimizer in (a, b)
        )
        return len(ours) == len(theirs) and all(
            same(p, q)
            and a.state[p].keys() == b.state[q].keys()
            and all(same(a.state[p][role], b.state[q][role]) for role in a.state[p])
            for p, q in zip(ours, theirs, strict=True)
        )

    return equal_bits


@pytest.fixture
def same_bits():
    """Return a function that says whether two tensors agree in dtype, shape and every bit."""
    return same


def same(x, y):
    """Compare signs too: -0.0 is not 0.0 here, and NaN is NaN."""
    if x.dtype != y.dtype or x.shape != y.shape or x.device != y.device:
        return False
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    x, y = (t.detach().contiguous().reshape(-1).view(integer) for t in (x, y))
    return torch.equal(x, y)
