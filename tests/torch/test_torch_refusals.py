"""What a step refuses, before it writes anything, and curvatures from the caller (TR25)."""

from __future__ import annotations

import pytest
import torch
from rootfree_torch import RFAdamW, RFRMSProp


def state_bits(optimizer):
    """Return a copy of the state by parameter and role."""
    return {
        p: {role: x.clone() for role, x in roles.items()} for p, roles in optimizer.state.items()
    }


BAD = {
    "sparse": lambda p: torch.ones_like(p).to_sparse(),
    "dtype": lambda p: torch.ones_like(p, dtype=torch.float64),
    "complex": lambda p: torch.ones_like(p, dtype=torch.complex64),
    "device": lambda p: torch.ones_like(p, device="meta"),
    "shape": lambda p: p.new_ones(6),
}


class Odd(torch.Tensor):
    """A tensor that has whatever gradient it is given: torch itself refuses most of these."""

    grad = None


@pytest.mark.parametrize("kind", BAD)
def test_a_refused_gradient_changes_nothing(cls, normal, same_bits, kind):
    """TR25: every gradient is checked before anything is written; the message has the word."""
    good = torch.nn.Parameter(normal(0))
    bad = normal(1).as_subclass(Odd)
    optimizer = cls([("first", good), ("second.weight", bad)], lr=0.1)
    good.grad, bad.grad = normal(2), normal(3)
    optimizer.step()
    values, state = good.detach().clone(), state_bits(optimizer)
    bad.grad = BAD[kind](good.detach())
    with pytest.raises((TypeError, ValueError), match=rf"'second.weight'.*{kind}"):
        optimizer.step()
    assert same_bits(good, values)
    for p, roles in state.items():
        assert all(same_bits(optimizer.state[p][role], x) for role, x in roles.items())


def test_sparse_embedding(cls):
    """TR25: what a sparse embedding produces is refused with a remedy, by position if unnamed."""
    layer = torch.nn.Embedding(3, 2, sparse=True)
    optimizer = cls(layer.parameters())
    layer(torch.tensor([0, 2])).sum().backward()
    with pytest.raises(TypeError, match=r"'group 0, parameter 0' is sparse.*sparse=False"):
        optimizer.step()


@pytest.mark.parametrize("own", [RFRMSProp, RFAdamW])
def test_given_curvature(own, normal):
    """A caller's diagonal replaces the outer product; a parameter without one keeps that."""
    a, b, c, d = (torch.nn.Parameter(normal(0)) for _ in range(4))
    mixed, usual = own([a, b], batch_size=8), own([c], batch_size=8)
    unit = own([d])
    for p in (a, b, c, d):
        p.grad = normal(1)
    mixed.step(curvature={a: normal(1).square().double()})
    usual.step()
    unit.step()
    assert torch.equal(b, c)
    assert torch.allclose(a, d, rtol=1e-6, atol=0)
    assert not torch.equal(a, b)


def test_refused_curvature(normal):
    """A curvature that does not fit is refused before anything is written."""
    a, b, c = (torch.nn.Parameter(normal(i)) for i in range(3))
    groups = [{"params": [("a", a), ("b", b)]}, {"params": [("c", c)], "rule": "sgd"}]
    optimizer = RFRMSProp(groups)
    for p in (a, b, c):
        p.grad = normal(5)
    before = a.detach().clone()
    one = torch.ones(3, 2)
    for curvature, error, match in [
        ({b: torch.ones(2, 3)}, ValueError, r"'b' has shape \(2, 3\)"),
        ({b: one.to("meta")}, ValueError, "'b' is on meta"),
        ({b: one.int()}, TypeError, "'b'.*int32"),
        ({b: one.to_sparse()}, TypeError, "'b'.*sparse"),
        ({b: 1.0}, TypeError, "'b' must be a tensor, got float"),
        ({a: one, torch.ones(3, 2): one}, ValueError, "no parameter of this optimizer"),
        ({c: one}, ValueError, "SGD, the rule of 'c'"),
        (one, TypeError, "must map"),
    ]:
        with pytest.raises(error, match=match):
            optimizer.step(curvature=curvature)
    assert torch.equal(a, before)
    assert not optimizer.state
