"""What the torch optimizers compute: the core's steps, and torch's own where definitions agree."""

from __future__ import annotations

import pytest
import rootfree
import torch
from rootfree import METHODS, Hyper
from rootfree_array._precision import resolve
from rootfree_torch import SGD, AdaGrad, AdamW, RFRMSProp, RMSProp
from rootfree_torch._precision import DTYPES, native

PEERS = {
    "sgd": (
        lambda p: SGD(p, 0.1),
        lambda p: torch.optim.SGD(p, 0.1),
    ),
    "sgd with momentum and decay": (
        lambda p: SGD(p, 0.1, 0.9, 0.01),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
    ),
    "adagrad": (
        lambda p: AdaGrad(p, 0.1, damping=1e-10),
        lambda p: torch.optim.Adagrad(p, 0.1),
    ),
    "rmsprop": (
        lambda p: RMSProp(p, 0.1, precond_lr=0.01),
        lambda p: torch.optim.RMSprop(p, 0.1, alpha=0.99),
    ),
    "rmsprop with momentum": (
        lambda p: RMSProp(p, 0.1, precond_lr=0.1, momentum=0.9),
        lambda p: torch.optim.RMSprop(p, 0.1, alpha=0.9, momentum=0.9),
    ),
    "adamw": (
        lambda p: AdamW(p, 0.1, precond_lr=1e-3, momentum=0.9, weight_decay=0.01),
        lambda p: torch.optim.AdamW(p, 0.1, betas=(0.9, 0.999), weight_decay=0.01),
    ),
    "adamw, defaults": (AdamW, torch.optim.AdamW),
    "sgd, maximize": (
        lambda p: SGD(p, 0.1, weight_decay=0.01, maximize=True),
        lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.01, maximize=True),
    ),
}


@pytest.mark.parametrize("name", PEERS)
def test_equals_torch(name, make_params, take_steps):
    """In float64 the trajectories agree to 1e-12, relative to parameters of order 1."""
    ours, theirs = (make_params(dtype=torch.float64) for _ in range(2))
    optimizers = [make(p) for make, p in zip(PEERS[name], (ours, theirs), strict=True)]
    start = [p.detach().clone() for p in ours]
    for t in range(20):
        for optimizer in optimizers:
            take_steps(optimizer, t)
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)
    assert all((p - s).abs().max() > 1e-4 for p, s in zip(ours, start, strict=True))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("state", [None, "bfloat16"])
def test_equals_the_core(cls, dtype, state, normal, same_bits):
    """Bit for bit what `rootfree.update` gives on the same tensors: the adapter adds nothing."""
    if state and dtype == "float64":
        state = "float64"
    options = {"state_dtype": state} | ({"rounding": "stochastic"} if state == "bfloat16" else {})
    hyper = {name: value / 2 + 0.25 for name, value in cls._method.hyper.items()}
    scale = {"batch_size": 8} if cls._method.scaled else {}
    p = torch.nn.Parameter(normal(0, (3, 2), DTYPES[dtype]))
    optimizer = cls([p], **hyper, **scale, **options)
    optimizer.init_state()

    method = METHODS[cls._method.name]
    units = native(torch.device("cpu"))
    rounding = options.get("rounding", "nearest")
    policy = resolve(dtype, state=state, rounding=rounding, native=units)
    rule = method.rule(policy.precision(DTYPES))
    stack = p.detach().clone().unsqueeze(0)
    core = rule.init(stack)
    if core.salt is not None:
        core = core._replace(salt=optimizer.state[p]["salt"].reshape(1))
    for t in range(4):
        grad = normal(10 + t, (3, 2), DTYPES[dtype])
        p.grad = grad
        optimizer.step()
        given = Hyper(**hyper, curvature_scale=scale.get("batch_size", 1))
        step, core = rootfree.update(rule, grad.unsqueeze(0), core, stack, given)
        stack = rootfree.add_step(stack, step)
    assert same_bits(p, stack[0])
    expected = rootfree.roles(core)
    assert optimizer.state[p].keys() == expected.keys()
    for role, x in optimizer.state[p].items():
        assert same_bits(x.to(core.step.dtype) if role == "step" else x, expected[role][0])


def test_a_schedule_of_every_scalar_reaches_the_rule(normal):
    """Each hyper-parameter is read in each step, as it stands in the group."""
    p = torch.nn.Parameter(normal(0, dtype=torch.float64))
    optimizer = RFRMSProp([p])
    rule = optimizer._method.rule(rootfree.Precision.uniform(torch.float64))
    stack = p.detach().clone().unsqueeze(0)
    state = rule.init(stack)
    for t in range(1, 5):
        hyper = dict.fromkeys(optimizer._method.hyper, 0.1 + 0.1 / t)
        optimizer.param_groups[0].update(hyper, batch_size=t)
        p.grad = normal(t, dtype=torch.float64)
        optimizer.step()
        step, state = rootfree.update(
            rule, p.grad.unsqueeze(0), state, stack, Hyper(**hyper, curvature_scale=t)
        )
        stack = rootfree.add_step(stack, step)
    assert torch.equal(p, stack[0])
