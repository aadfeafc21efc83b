"""The batch-size contract (backends 2.4; TR06 and TR51 in one process)."""

from __future__ import annotations

import pytest
import torch
from rootfree_torch import SGD, AdamW, RFRMSProp, global_batch_size


def run(make_params, take_steps, cls, *, set_to=None, **given):
    """Return the parameters after three steps."""
    params = make_params(dtype=torch.float64)
    optimizer = cls(params, **given)
    if set_to is not None:
        optimizer.set_batch_size(set_to)
    take_steps(optimizer, 0, 1, 2)
    return params


@pytest.mark.parametrize(
    "given",
    [
        {"batch_size": torch.tensor(8)},
        {"batch_size": lambda: 8},
        {"batch_size": lambda: torch.tensor(8.0)},
        {"set_to": 8},
        {"set_to": torch.tensor(8)},
        {"batch_size": lambda: 3, "set_to": 8},
    ],
    ids=["tensor", "callable", "callable tensor", "set", "set tensor", "set over callable"],
)
def test_forms(make_params, take_steps, given):
    """2.4: every form of the number means the same."""
    expected = run(make_params, take_steps, RFRMSProp, batch_size=8)
    for p, q in zip(run(make_params, take_steps, RFRMSProp, **given), expected, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-14, atol=0)
    other = run(make_params, take_steps, RFRMSProp)
    assert not torch.equal(other[0], expected[0])


def test_default_and_sum(cls, make_params, take_steps):
    """2.4: the default is 1, and a sum is not scaled whatever the batch size."""
    if not cls._method.scaled:
        with pytest.raises(TypeError, match="batch_size"):
            cls(make_params(), batch_size=8)
        return
    expected = run(make_params, take_steps, cls, batch_size=1)
    for given in ({}, {"batch_size": 8, "loss_reduction": "sum"}):
        got = run(make_params, take_steps, cls, **given)
        assert all(torch.equal(p, q) for p, q in zip(got, expected, strict=True))


def test_scaled_loss(make_params, take_steps, normal):
    """2.4: a loss times c with alpha / c, s_0 and damping times c, gives U / 1 and lr as they were.

    The root-free direction of c G with s times c is that of G: here c = 4, exact in binary.
    """
    plain, times = make_params(dtype=torch.float64), make_params(dtype=torch.float64)
    a = RFRMSProp(plain, batch_size=8, damping=0.5, init_scale=1.0)
    b = RFRMSProp(times, batch_size=2, damping=2.0, init_scale=4.0)
    for t in range(3):
        take_steps(a, t)
        for p, q in zip(plain, times, strict=True):
            q.grad = 4 * p.grad
        b.step()
    assert all(torch.equal(p, q) for p, q in zip(plain, times, strict=True))


def test_a_callable_stays_on_the_instance(make_params, take_steps):
    """TR06: it is asked once a step; its current value is in every group, as a plain number."""
    params, sizes = make_params(), iter([8, 4])
    optimizer = RFRMSProp(
        [{"params": params[:2]}, {"params": params[2:]}], batch_size=sizes.__next__
    )
    take_steps(optimizer, 0)
    assert [group["batch_size"] for group in optimizer.param_groups] == [8, 8]
    take_steps(optimizer, 1)
    assert [group["batch_size"] for group in optimizer.param_groups] == [4, 4]
    assert not any(callable(value) for value in optimizer.defaults.values())


def test_a_callable_is_asked_after_the_closure(normal):
    """2.4: the number belongs to the batch that the closure has taken."""
    p, seen = torch.nn.Parameter(normal(0)), []
    optimizer = RFRMSProp([p], batch_size=lambda: len(seen))

    def closure():
        seen.append(1)
        return 0.0

    optimizer.step(closure)
    assert optimizer.param_groups[0]["batch_size"] == 1


def test_given_twice(make_params):
    """A group's own batch size and a callable for every group contradict each other."""
    groups = [{"params": make_params(), "batch_size": 8}]
    with pytest.raises(ValueError, match="given twice"):
        RFRMSProp(groups, batch_size=lambda: 4)


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), ("8", TypeError)])
def test_refused_numbers(make_params, value, error):
    """2.4: the number is checked where it comes in, also when it comes from a callable."""
    optimizer = RFRMSProp(make_params())
    with pytest.raises(error, match="batch_size"):
        optimizer.set_batch_size(value)
    assert optimizer.param_groups[0]["batch_size"] == 1
    with pytest.raises(error, match="batch_size"):
        RFRMSProp(make_params(), batch_size=lambda: value).step()


def test_rules_that_do_not_read_it(make_params):
    """A training loop may set it for any method; a group of a rule that reads it gets it."""
    params = make_params()
    groups = [{"params": params[:1]}, {"params": params[1:], "rule": "rf_rmsprop"}]
    optimizer = AdamW(groups)
    optimizer.set_batch_size(8)
    assert "batch_size" not in optimizer.param_groups[0]
    assert optimizer.param_groups[1]["batch_size"] == 8
    SGD(make_params()).set_batch_size(8)


def test_accumulation(normal):
    """2.4: k micro-batches whose losses are divided by k equal one batch of all terms."""
    x, y = normal(0, (12, 3), torch.float64), normal(1, (12, 1), torch.float64)
    results = []
    for k in (1, 4):
        weight = torch.nn.Parameter(torch.ones(3, 1, dtype=torch.float64))
        optimizer = RFRMSProp([weight], batch_size=global_batch_size(12 // k, accumulate=k))
        for _ in range(5):
            optimizer.zero_grad()
            for inputs, targets in zip(x.chunk(k), y.chunk(k), strict=True):
                ((inputs @ weight - targets).square().mean() / k).backward()
            optimizer.step()
        results.append(weight.detach())
    torch.testing.assert_close(*results, rtol=1e-12, atol=0)


def test_global_batch_size(monkeypatch):
    """2.4: it multiplies by the number of ranks when there are ranks."""
    assert global_batch_size(32) == 32
    assert global_batch_size(32, accumulate=4) == 128
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 8)
    assert global_batch_size(32, accumulate=4) == 1024
    for bad in ((0,), (8, 0)):
        with pytest.raises(ValueError, match="must be >= 1"):
            global_batch_size(*bad)
    with pytest.raises(TypeError, match="local"):
        global_batch_size("8")
