"""`compile=True`: the same steps, compiled once for each kind of bucket."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import rootfree_torch
import torch
from rootfree_torch import RFRMSProp, Shampoo, SIRFShampoo
from torch._dynamo.utils import counters

# torch's own modules warn of torch's own functions while they compile.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch._prims_common.check:FutureWarning"),
]
METHODS = [RFRMSProp, rootfree_torch.AdamW, SIRFShampoo, Shampoo]


@pytest.fixture(autouse=True)
def fresh():
    """Count compilations from zero."""
    torch.compiler.reset()
    counters.clear()


def compilations():
    """Return how many graphs have been compiled."""
    return counters["stats"]["unique_graphs"]


def made(cls, normal, shapes, **options):
    """Return an optimizer of parameters of some shapes."""
    params = [torch.nn.Parameter(normal(i, shape)) for i, shape in enumerate(shapes)]
    return cls(params, lr=0.01, damping=0.1, **options), params


def take(optimizer, params, normal, number, missing=()):
    """Take the step of a number; the places in `missing` have no gradient."""
    for i, p in enumerate(params):
        p.grad = None if i in missing else normal(1000 * (number + 1) + i, p.shape)
    optimizer.step()


SHAPES = [(6, 4), (6, 4), (5,), (210, 170)]  # stacked, alone, and alone because it is large


@pytest.mark.parametrize(
    ("method", "period"),
    [
        (method, period)
        for method in METHODS
        for period in (1, 3)
        if method._method.matrix or period == 1
    ],
)
def test_equals_eager(method, period, normal):
    """Values and state of a compiled run are those of an eager one, to rounding."""
    options = {"update_every": period} if method._method.matrix else {}
    shapes = SHAPES if method is not Shampoo else SHAPES[:3]
    runs = []
    for flag in (False, True):
        optimizer, params = made(method, normal, shapes, compile=flag, **options)
        for number in range(5):
            take(optimizer, params, normal, number, missing=(1, 3) if number == 3 else ())
        runs.append((optimizer, params))
    (eager, ours), (compiled, theirs) = runs
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
        assert eager.state[p].keys() == compiled.state[q].keys()
        for role, x in eager.state[p].items():
            torch.testing.assert_close(x, compiled.state[q][role], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("period", [1, 3])
def test_schedules_compile_nothing(period, normal):
    """S12: no compilation after the first steps while scalars change and the period alternates."""
    optimizer, params = made(SIRFShampoo, normal, SHAPES, compile=True, update_every=period)
    for number in range(period + 1):
        take(optimizer, params, normal, number)
    first = compilations()
    assert 0 < first == len(optimizer._stepper.programs)
    (group,) = optimizer.param_groups
    for number in range(200):
        group["lr"] = 0.01 / (number + 1)
        group["damping"] = 0.1 + 0.01 * number
        group["precond_lr"] = 0.05 + 0.0001 * number
        group["weight_decay"] = 0.001 * number
        optimizer.set_batch_size(1 + number % 7)
        for i, p in enumerate(params):
            p.grad = torch.full_like(p, 0.01 * (i + 1))
        optimizer.step()
    assert compilations() == first


def test_one_program_for_equal_parameters(normal):
    """Large equal parameters share a program; those of a diagonal rule are called at once."""
    optimizer, params = made(SIRFShampoo, normal, [(210, 170)] * 3, compile=True)
    take(optimizer, params, normal, 0)
    assert compilations() == 1
    optimizer, params = made(RFRMSProp, normal, [(210, 170), (300, 150)], compile=True)
    take(optimizer, params, normal, 0)
    assert compilations() == 2


def test_a_tensor_learning_rate(normal):
    """TR42: a 0-d tensor is read at each step, and filled in place it compiles nothing."""
    rate = torch.tensor(0.5)
    params = [torch.nn.Parameter(normal(0, (4,)))]
    optimizer = RFRMSProp(params, lr=rate, compile=True)
    take(optimizer, params, normal, 0)
    first, before = compilations(), params[0].detach().clone()
    rate.fill_(0.0)
    take(optimizer, params, normal, 1)
    assert torch.equal(params[0], before)
    assert compilations() == first


def test_a_damping_of_zero_is_another_program(normal):
    """Products that no damping needs are left out: once for 0, once for any other."""
    optimizer, params = made(SIRFShampoo, normal, [(6, 4)], compile=True)
    for number, damping in enumerate((0.1, 0.0, 0.2, 0.0, 0.3)):
        optimizer.param_groups[0]["damping"] = damping
        take(optimizer, params, normal, number)
    assert compilations() == 2


def test_gradients_of_another_layout(normal):
    """A program is never given arrays of strides that it was not compiled for."""
    runs = []
    for flag in (False, True):
        optimizer, params = made(RFRMSProp, normal, [(40, 30)], compile=flag)
        for number in range(4):
            grad = normal(number, (40, 30))
            params[0].grad = grad.t().contiguous().t() if number % 2 else grad
            optimizer.step()
        params[0].grad = torch.ones(()).expand(40, 30)
        optimizer.step()
        runs.append(params[0])
    torch.testing.assert_close(*runs)


def test_loading_and_copying_compile_nothing_new(normal):
    """Programs depend on shapes alone: a loaded state runs in those that are there."""
    optimizer, params = made(SIRFShampoo, normal, [(6, 4)] * 2, compile=True)
    take(optimizer, params, normal, 0)
    first = compilations()
    optimizer.load_state_dict(optimizer.state_dict())
    take(optimizer, params, normal, 1)
    assert compilations() == first


def test_in_place_and_at_the_same_address(normal):
    """Compiled steps write into the given tensors too."""
    optimizer, params = made(RFRMSProp, normal, SHAPES, compile=True)
    take(optimizer, params, normal, 0)
    tensors = [*params, *(x for p in params for x in optimizer.state[p].values())]
    places = [x.data_ptr() for x in tensors]
    take(optimizer, params, normal, 1)
    assert places == [x.data_ptr() for x in tensors]


def test_no_compiler(tmp_path):
    """Without a C++ compiler the error says what to do, and no parameter has moved."""
    script = """
import torch
from rootfree_torch import RFRMSProp
p = torch.nn.Parameter(torch.ones(3)); p.grad = torch.ones(3)
optimizer = RFRMSProp([p], compile=True)
try:
    optimizer.step()
except RuntimeError as error:
    print(error, type(error.__cause__).__name__)
print(p.tolist(), float(optimizer.state[p]["step"]))
"""
    environment = {
        **os.environ,
        "CXX": str(tmp_path / "nothing"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False
    )
    assert "`compile=True` needs a compiler" in done.stdout, done.stderr
    assert "[1.0, 1.0, 1.0] 0.0" in done.stdout
