"""Schedules, tensor hyper-parameters and a momentum that is set later (TR42, TR46)."""

from __future__ import annotations

import copy

import pytest
import torch
from rootfree_torch import SGD, SIRFShampoo
from torch.optim import lr_scheduler as schedule

SCHEDULERS = {
    "LambdaLR": lambda o: schedule.LambdaLR(o, lambda t: 0.9**t),
    "MultiplicativeLR": lambda o: schedule.MultiplicativeLR(o, lambda t: 0.9),
    "StepLR": lambda o: schedule.StepLR(o, 2),
    "MultiStepLR": lambda o: schedule.MultiStepLR(o, [1, 4]),
    "ConstantLR": lambda o: schedule.ConstantLR(o, total_iters=2),
    "LinearLR": lambda o: schedule.LinearLR(o, total_iters=4),
    "ExponentialLR": lambda o: schedule.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: schedule.PolynomialLR(o, 8),
    "CosineAnnealingLR": lambda o: schedule.CosineAnnealingLR(o, 6),
    "CosineAnnealingWarmRestarts": lambda o: schedule.CosineAnnealingWarmRestarts(o, 2),
    "CyclicLR": lambda o: schedule.CyclicLR(o, 0.01, 0.1, step_size_up=2),
    "OneCycleLR": lambda o: schedule.OneCycleLR(o, 0.1, total_steps=8),
    "ChainedScheduler": lambda o: schedule.ChainedScheduler(
        [schedule.ExponentialLR(o, 0.9), schedule.StepLR(o, 2)]
    ),
    "SequentialLR": lambda o: schedule.SequentialLR(
        o, [schedule.ConstantLR(o), schedule.ExponentialLR(o, 0.9)], milestones=[2]
    ),
    "ReduceLROnPlateau": lambda o: schedule.ReduceLROnPlateau(o, patience=0),
}


def advance(scheduler):
    """Take a scheduler's step, with a loss that never improves if it wants one."""
    if isinstance(scheduler, schedule.ReduceLROnPlateau):
        scheduler.step(1.0)
    else:
        scheduler.step()


@pytest.mark.parametrize("name", SCHEDULERS)
def test_scheduler(cls, name, make_params, take_steps):
    """TR46: each scheduler gives the learning rates and momenta that it gives torch's own SGD."""
    params, others = make_params(), make_params()
    optimizer = cls([{"params": params[:2]}, {"params": params[2:], "lr": 0.2}], lr=0.1)
    groups = [{"params": others[:2]}, {"params": others[2:], "lr": 0.2}]
    reference = torch.optim.SGD(groups, lr=0.1, momentum=optimizer.defaults["momentum"])
    schedulers = [SCHEDULERS[name](o) for o in (optimizer, reference)]
    for t in range(6):
        for o, scheduler in zip((optimizer, reference), schedulers, strict=True):
            take_steps(o, t)
            advance(scheduler)
        for key in ("lr", "momentum"):
            ours, theirs = ([g[key] for g in o.param_groups] for o in (optimizer, reference))
            assert ours == theirs


@pytest.mark.parametrize("name", SCHEDULERS)
def test_resume(cls, name, make_params, take_steps, equal_bits):
    """TR46: three steps, save, resume and three steps equal six, scheduler included."""

    def begin():
        optimizer = cls(make_params(), lr=0.1)
        return optimizer, SCHEDULERS[name](optimizer)

    whole, scheduler = begin()
    take_steps(whole, *range(6), after=lambda: advance(scheduler))
    first, scheduler = begin()
    take_steps(first, *range(3), after=lambda: advance(scheduler))
    saved = copy.deepcopy((first.state_dict(), scheduler.state_dict()))
    values = [p.detach().clone() for p in first.param_groups[0]["params"]]
    second, scheduler = begin()
    with torch.no_grad():
        for p, value in zip(second.param_groups[0]["params"], values, strict=True):
            p.copy_(value)
    second.load_state_dict(saved[0])
    scheduler.load_state_dict(saved[1])
    take_steps(second, *range(3, 6), after=lambda: advance(scheduler))
    assert equal_bits(whole, second)


def arrays_of(field, roles):
    """Return the roles of a field of the core's state."""
    return {role for role in roles if role.partition(".")[0] == field}


@pytest.mark.parametrize("which", ["momentum", "precond_momentum"])
def test_momentum_set_later(cls, which, make_params, take_steps, equal_bits):
    """TR46: a momentum of 0 keeps no buffer; one set later starts from zeros at the next step."""
    if which not in cls._method.hyper:
        with pytest.raises(TypeError, match=which):
            cls(make_params(), **{which: 0.0})
        return
    late, reference = (cls(make_params(), lr=0.1, **{which: 0.0}) for _ in range(2))
    other = cls(make_params(), lr=0.1, **{which: 0.5})
    other.init_state()
    field = cls._method.buffers[which]
    take_steps(late, 0)
    take_steps(reference, 0)
    assert not any(arrays_of(field, roles) for roles in late.state.values())
    zeros = [{r: roles[r] for r in arrays_of(field, roles)} for roles in other.state.values()]
    for roles, buffers in zip(reference.state.values(), zeros, strict=True):
        assert buffers
        roles.update(buffers)
    for optimizer in (late, reference):
        optimizer.param_groups[0][which] = 0.5
        take_steps(optimizer, 1, 2)
    assert all(arrays_of(field, roles) for roles in late.state.values())
    assert equal_bits(late, reference)


def test_momentum_set_to_zero_again(cls, make_params, take_steps, equal_bits):
    """TR46: a buffer that exists is kept up, as with a 0-d tensor, whose value nobody reads."""
    momenta = dict.fromkeys(cls._method.buffers, 0.5)
    number, tensor = (cls(make_params(), lr=0.1, **momenta) for _ in range(2))
    for optimizer, zero in ((number, 0.0), (tensor, torch.tensor(0.0))):
        take_steps(optimizer, 0)
        optimizer.param_groups[0].update(dict.fromkeys(momenta, zero))
        take_steps(optimizer, 1, 2)
    assert equal_bits(number, tensor)


@pytest.mark.parametrize("loaded", [0.0, 0.5])
@pytest.mark.parametrize("which", ["momentum", "precond_momentum"])
def test_momentum_of_a_loaded_dict(make_params, take_steps, which, loaded):
    """TR46: a dict without a buffer loads into an optimizer with momentum, and the reverse."""
    cls = SGD if which == "momentum" else SIRFShampoo
    source, target = (cls(make_params(), **{which: value}) for value in (loaded, 0.5 - loaded))
    take_steps(source, 0)
    take_steps(target, 0)
    target.load_state_dict(source.state_dict())
    assert target.param_groups[0][which] == loaded
    target.param_groups[0][which] = 0.5
    take_steps(target, 1)
    field = cls._method.buffers[which]
    assert all(arrays_of(field, roles) for roles in target.state.values())


def test_tensor_lr(cls, make_params, take_steps):
    """TR42: a tensor is read in each step, and a scheduler changes it in place."""
    rate = torch.tensor(0.1, dtype=torch.float64)
    tensor, number = cls(make_params(), lr=rate), cls(make_params(), lr=0.1)
    schedulers = [schedule.ExponentialLR(o, 0.5) for o in (tensor, number)]
    for t in range(4):
        for o, scheduler in zip((tensor, number), schedulers, strict=True):
            take_steps(o, t)
            scheduler.step()
        assert tensor.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.1 * 0.5**4)
    for p, q in zip(*(o.param_groups[0]["params"] for o in (tensor, number)), strict=True):
        assert torch.allclose(p, q, rtol=1e-5, atol=1e-6)


def test_every_hyper_parameter_may_be_a_tensor(cls, make_params, take_steps):
    """TR42: each is read in each step, whatever its dtype, and gives what the number gives."""
    hyper = {name: value / 2 + 0.25 for name, value in cls._method.hyper.items()}
    tensors = {name: torch.tensor(value / 2, dtype=torch.float64) for name, value in hyper.items()}
    optimizer, reference = cls(make_params(), **tensors), cls(make_params(), **hyper)
    for value in tensors.values():
        value.mul_(2)
    for o in (optimizer, reference):
        take_steps(o, 0, 1, 2)
    for p, q in zip(*(o.param_groups[0]["params"] for o in (optimizer, reference)), strict=True):
        assert torch.allclose(p, q, rtol=1e-5, atol=1e-6)
