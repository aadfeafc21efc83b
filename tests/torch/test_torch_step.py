"""The step of the torch optimizers: what it touches and what it leaves (TR09, TR21 to TR32)."""

from __future__ import annotations

import gc
import weakref

import pytest
import rootfree_torch._state as state_module
import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)


def test_closure(cls, normal):
    """TR21: the closure runs once, with gradients enabled, and its loss comes back."""
    p = torch.nn.Parameter(normal(0))
    optimizer = cls([p], lr=0.1)
    calls = []

    def closure():
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    before = p.detach().clone()
    with torch.no_grad():
        loss = optimizer.step(closure=closure)
        assert not torch.is_grad_enabled()
    assert calls == [True]
    assert loss.item() == pytest.approx((before * before).sum().item())
    assert not torch.equal(p, before)
    assert optimizer.step() is None


def test_missing_gradient(cls, make_params, take_steps, same_bits):
    """TR22: a parameter without a gradient keeps its value and its state; others go on."""
    params = make_params()
    optimizer = cls(params, lr=0.1)
    take_steps(optimizer, 0)
    value, state = params[0].detach().clone(), dict(optimizer.state[params[0]])
    state = {role: x.clone() for role, x in state.items()}
    params[0].grad = None
    optimizer.step()
    assert same_bits(params[0], value)
    for role, x in state.items():
        assert same_bits(optimizer.state[params[0]][role], x)
    assert optimizer.state[params[1]]["step"] == 2


def test_no_gradient_leaves_no_state(cls, make_params):
    """TR22: without any gradient a step does nothing at all."""
    optimizer = cls(make_params())
    optimizer.step()
    assert not optimizer.state


LAYOUTS = {
    "scalar": lambda x: x.reshape(-1)[0].clone(),
    "single": lambda x: x.reshape(-1)[:1].clone().reshape(1, 1, 1),
    "transposed": lambda x: x.T,
    "strided": lambda x: x.reshape(-1)[::2],
    "channels_last": lambda x: x.reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_write_in_place(cls, normal, layout):
    """TR23: the tensor given is written: same storage, strides, offset; values as if contiguous."""
    tensor = LAYOUTS[layout](normal(0, (4, 6)))
    p = tensor.requires_grad_()
    reference = torch.nn.Parameter(p.detach().clone(memory_format=torch.contiguous_format))
    optimizer, other = cls([p], lr=0.1), cls([reference], lr=0.1)
    pointer, stride, offset, version = p.data_ptr(), p.stride(), p.storage_offset(), p._version
    for t in range(3):
        grad = normal(10 + t, p.shape)
        p.grad = torch.empty_like(p.detach()).copy_(grad)
        reference.grad = grad
        optimizer.step()
        other.step()
    assert (p.data_ptr(), p.stride(), p.storage_offset()) == (pointer, stride, offset)
    assert p._version > version
    assert torch.equal(p, reference)
    assert p.requires_grad
    assert p.is_leaf


def test_no_elements(cls):
    """TR23: a parameter without elements is left alone, and has no state."""
    p = torch.nn.Parameter(torch.empty(0, 3))
    optimizer = cls([p])
    optimizer.init_state()
    p.grad = torch.empty(0, 3)
    optimizer.step()
    assert not optimizer.state


def test_plain_tensor_with_a_gradient(cls, normal):
    """TR23: a tensor that requires no gradient but has one moves; without one it has no state."""
    p = normal(0)
    optimizer = cls([p], lr=0.1)
    optimizer.init_state()
    optimizer.step()
    assert not optimizer.state
    p.grad = normal(1)
    before = p.clone()
    optimizer.step()
    assert not torch.equal(p, before)


def test_repeated_parameter(cls, normal):
    """TR23: torch warns of a parameter that is listed twice; it is then stepped twice."""
    p = torch.nn.Parameter(normal(0))
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optimizer = cls([p, p], lr=0.1)
    p.grad = normal(1)
    optimizer.step()
    assert optimizer.state[p]["step"] == 2


@pytest.mark.parametrize("maximize", [False, True])
def test_gradient_is_not_modified(cls, normal, same_bits, maximize):
    """TR24: `.grad` keeps its object and its bits."""
    p = torch.nn.Parameter(normal(0))
    optimizer = cls([p], lr=0.1, weight_decay=0.1, maximize=maximize)
    for t in range(2):
        grad = normal(1 + t)
        p.grad = given = grad.clone()
        optimizer.step()
        assert p.grad is given
        assert same_bits(given, grad)


def test_maximize(cls, make_params, take_steps):
    """TR32: ascending f equals descending -f, in every bit."""
    up, down = make_params(), make_params()
    ascent, descent = cls(up, lr=0.1, maximize=True), cls(down, lr=0.1)
    for t in range(3):
        take_steps(ascent, t)
        for a, d in zip(up, down, strict=True):
            d.grad = -a.grad
        descent.step()
    assert all(torch.equal(a, d) for a, d in zip(up, down, strict=True))


def test_dtypes_and_devices_may_differ_in_a_group(cls, make_params, take_steps):
    """TR26: each parameter has the state that its own dtype and device ask for."""
    dtypes = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    params = [make_params(dtype=dtype, shapes=((2, 2),))[0] for dtype in dtypes]
    params.append(torch.nn.Parameter(torch.ones(2, 2, device="meta")))
    optimizer = cls(params, momentum=0.5)
    take_steps(optimizer, 0, 1)
    expected = (torch.float64, torch.float32, torch.float32, torch.float32, torch.float32)
    for p, dtype in zip(params, expected, strict=True):
        arrays = {role: x for role, x in optimizer.state[p].items() if role != "step"}
        assert arrays
        assert all(x.dtype == dtype and x.device == p.device for x in arrays.values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("warm", [False, True])
def test_lr_zero(cls, make_params, take_steps, same_bits, dtype, warm):
    """TR27: `lr=0` leaves every bit of a parameter, signs of zero included."""
    params = make_params(dtype=dtype)
    with torch.no_grad():
        params[0][0, 0], params[0][0, 1] = -0.0, 0.0
        params[0][1, 0] = torch.finfo(dtype).smallest_normal / 2
    before = [p.detach().clone() for p in params]
    optimizer = cls(params, lr=0.0, weight_decay=0.1)
    if warm:
        take_steps(optimizer, 0, 1)
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step(closure=None)
    assert all(same_bits(p, b) for p, b in zip(params, before, strict=True))


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_deterministic(cls, make_params, take_steps, equal_bits, rounding):
    """TR28: two runs give equal bits, and the order of other parameters' creation is no matter."""
    kept = {"state_dtype": "bfloat16"} if rounding == "stochastic" else {}
    runs = []
    for unused in (0, 3):
        _ = [torch.ones(1) for _ in range(unused)]
        optimizer = cls(make_params(), lr=0.1, rounding=rounding, **kept)
        take_steps(optimizer, 0, 1, 2)
        runs.append(optimizer)
    assert equal_bits(*runs)


def test_one_optimizer_per_parameter(cls, make_params, equal_bits, take_steps):
    """TR29: stepping from a gradient hook equals one optimizer over all parameters."""
    together, apart = make_params(), make_params()
    optimizers = {p: cls([p], lr=0.1) for p in apart}

    def hook(p):
        optimizers[p].step()
        p.grad = None

    for p in apart:
        p.register_post_accumulate_grad_hook(hook)
    reference = cls(together, lr=0.1)
    for _ in range(3):
        sum((p.pow(2).sum() for p in apart), torch.zeros(())).backward()
        reference.zero_grad()
        sum((p.pow(2).sum() for p in together), torch.zeros(())).backward()
        reference.step()
    assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))


def test_nothing_is_kept_of_a_dropped_optimizer(cls, make_params, take_steps):
    """TR29: shared caches hold configurations and shapes, and no more of them for more optimizers.

    Neither parameter nor optimizer outlives its last reference.
    """

    def life():
        params = make_params()
        optimizer = cls(params)
        take_steps(optimizer, 0)
        return [weakref.ref(x) for x in (optimizer, *params)]

    caches = (state_module._rule, state_module._made_layout)
    life()
    sizes = [cache.cache_info().currsize for cache in caches]
    references = life()
    gc.collect()
    assert [cache.cache_info().currsize for cache in caches] == sizes
    assert all(cache.cache_info().maxsize for cache in caches)
    assert all(reference() is None for reference in references)


def test_parameters_are_found_anew_in_every_step(cls, make_params, take_steps):
    """TR09: whoever replaces `group["params"]` before the first step trains the new ones."""
    old, new = make_params(0), make_params(0)
    optimizer = cls(old, lr=0.1)
    optimizer.param_groups[0]["params"] = new
    take_steps(optimizer, 0)
    assert set(optimizer.state) == set(new)


def test_materialised_parameters(cls, normal):
    """TR09: a parameter that was on the meta device at construction trains where it is now."""
    layer = torch.nn.Linear(2, 3, device="meta")
    optimizer = cls(layer.parameters(), lr=0.1)
    layer.to_empty(device="cpu")
    layer.weight.data.copy_(normal(0, (3, 2)))
    layer.bias.data.zero_()
    optimizer.param_groups[0]["params"] = list(layer.parameters())
    layer(normal(1, (4, 2))).sum().backward()
    optimizer.step()
    assert all(x.device.type == "cpu" for roles in optimizer.state.values() for x in roles.values())


def test_zero_grad_and_modes(cls, make_params, take_steps):
    """TR30: `zero_grad` is torch's own, and there is no train or eval mode."""
    optimizer = cls(make_params())
    take_steps(optimizer, 0)
    optimizer.zero_grad(set_to_none=False)
    assert all(not p.grad.any() for p in optimizer.param_groups[0]["params"])
    optimizer.zero_grad()
    assert all(p.grad is None for p in optimizer.param_groups[0]["params"])
    assert cls.zero_grad is torch.optim.Optimizer.zero_grad
    assert not hasattr(cls, "train")
    assert not hasattr(cls, "eval")


def test_no_host_read(cls):
    """1.1: a step with tensor hyper-parameters reads no value: it runs on the meta device."""
    p = torch.nn.Parameter(torch.ones(2, 3, device="meta"))
    hyper = {name: torch.tensor(0.5, device="meta") for name in cls._method.hyper}
    optimizer = cls([p], **hyper)
    for _ in range(2):
        p.grad = torch.ones(2, 3, device="meta")
        optimizer.step()
    assert optimizer.state[p]["step"] == 2


def test_hooks(cls, normal):
    """TR45: each of the six instance hooks and two global ones fires once, in order."""
    p = torch.nn.Parameter(normal(0))
    for made in (cls, type("Sub", (cls,), {})):
        optimizer = made([p], lr=0.1)
        seen = []

        def note(name, seen=seen):
            return lambda *_: seen.append(name)

        optimizer.register_step_pre_hook(note("pre"))
        optimizer.register_step_post_hook(note("post"))
        optimizer.register_state_dict_pre_hook(note("save pre"))
        optimizer.register_state_dict_post_hook(note("save post"))
        optimizer.register_load_state_dict_pre_hook(note("load pre"))
        optimizer.register_load_state_dict_post_hook(note("load post"))
        handles = [
            register_optimizer_step_pre_hook(note("global pre")),
            register_optimizer_step_post_hook(note("global post")),
        ]
        p.grad = normal(1)
        optimizer.step()
        for handle in handles:
            handle.remove()
        optimizer.load_state_dict(optimizer.state_dict())
        assert seen == [
            *("global pre", "pre", "post", "global post"),
            *("save pre", "save post", "load pre", "load post"),
        ]
