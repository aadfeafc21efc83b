"""State and loading of the torch optimizers (TR10 to TR19)."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import rootfree
import torch
from rootfree_torch import SGD, AdamW, RFAdamW, RFRMSProp

STOCHASTIC = {"state_dtype": "bfloat16", "rounding": "stochastic"}
CONFIGURATIONS = {
    "float64": (torch.float64, {}),
    "float32": (torch.float32, {}),
    "bfloat16": (torch.bfloat16, {}),
    "float16": (torch.float16, {}),
    "stochastic": (torch.bfloat16, STOCHASTIC),
}


@pytest.fixture(params=CONFIGURATIONS)
def make(request, make_params):
    """Return a function that makes an optimizer, always of the same parameters."""
    dtype, options = CONFIGURATIONS[request.param]

    def make(cls, **kwargs):
        return cls(make_params(dtype=dtype), **{"lr": 0.1, **options, **kwargs})

    return make


def copy_params(source, target):
    """Give ``target`` the parameter values of ``source``."""
    with torch.no_grad():
        for theirs, ours in zip(source.param_groups, target.param_groups, strict=True):
            for p, q in zip(theirs["params"], ours["params"], strict=True):
                q.copy_(p)


def through_a_file(state_dict):
    """Return what `torch.load` makes of it by default."""
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file)


def test_init_state(cls, make, take_steps, equal_bits):
    """TR10: `init_state` creates what the first step would, once, and moves nothing."""
    ready, fresh = make(cls), make(cls)
    ready.init_state()
    assert len(ready.state) == 4
    assert all(roles["step"] == 0 for roles in ready.state.values())
    arrays = [x for roles in ready.state.values() for x in roles.values()]
    ready.init_state()
    again = [x for roles in ready.state.values() for x in roles.values()]
    assert all(a is b for a, b in zip(arrays, again, strict=True))
    for optimizer in (ready, fresh):
        take_steps(optimizer, 0)
    assert equal_bits(ready, fresh)


def test_layout(cls, make, take_steps):
    """TR11, TR16: flat, tensors only; a 0-d float32 counter on the CPU; the rest as configured."""
    optimizer = make(cls, momentum=0.5)
    take_steps(optimizer, 0)
    precision = rootfree.Precision.uniform(torch.float64)
    for p, roles in optimizer.state.items():
        stack = torch.ones(1, *p.shape, dtype=torch.float64)
        expected = rootfree.roles(cls._method.rule(precision).init(stack))
        expected |= {"salt": stack} if optimizer.defaults["rounding"] == "stochastic" else {}
        assert set(roles) == set(expected)
        assert type(roles) is dict
        assert all(type(x) is torch.Tensor for x in roles.values())
        step = roles["step"]
        assert (step.dtype, step.shape, step.device.type) == (torch.float32, (), "cpu")
        for role in expected.keys() - {"step", "salt"}:
            assert roles[role].shape == expected[role].shape[1:]


def test_state_dict(cls, make, take_steps):
    """TR12: two keys, integers for parameters, in the parameters' order."""
    optimizer = make(cls)
    take_steps(optimizer, 0)
    saved = optimizer.state_dict()
    assert list(saved) == ["state", "param_groups"]
    assert list(saved["state"]) == [0, 1, 2, 3]
    assert saved["param_groups"][0]["params"] == [0, 1, 2, 3]


def test_arrays_stay_where_they_are(cls, make, take_steps):
    """Steps write into the state's tensors: what holds their addresses goes on to be right."""
    optimizer = make(cls)
    take_steps(optimizer, 0)
    kept = [(roles, dict(roles)) for roles in optimizer.state.values()]
    before = [{role: x.clone() for role, x in roles.items()} for roles, _ in kept]
    take_steps(optimizer, 1)
    for (roles, old), copied in zip(kept, before, strict=True):
        assert roles.keys() == old.keys()
        assert all(roles[role] is old[role] for role in old)
        assert not torch.equal(roles["step"], copied["step"])


def test_resume(cls, make, take_steps, equal_bits):
    """TR13, TR18: three steps, a file, three steps equal six: state keeps its dtypes and bits."""
    whole, first, second = make(cls), make(cls), make(cls)
    take_steps(whole, *range(6))
    take_steps(first, *range(3))
    copy_params(first, second)
    second.load_state_dict(through_a_file(first.state_dict()))
    assert equal_bits(first, second)
    take_steps(second, *range(3, 6))
    assert equal_bits(whole, second)


def test_wide_values_survive(make_params):
    """TR13: what bfloat16 cannot hold comes back: a long count, an int32 key, a float32 array."""
    params = make_params(dtype=torch.bfloat16, shapes=((2,),))
    optimizer = RFRMSProp(params)
    optimizer.init_state()
    saved = optimizer.state_dict()
    saved["state"][0]["step"] = torch.tensor(16777215.0)
    saved["state"][0]["statistic"] = torch.tensor([1.0 + 2.0**-23, 3.0])
    optimizer.load_state_dict(saved)
    roles = optimizer.state[params[0]]
    assert roles["step"] == 16777215
    assert roles["statistic"].tolist() == [1.0 + 2.0**-23, 3.0]

    optimizer = RFRMSProp(params, **STOCHASTIC)
    optimizer.init_state()
    saved = optimizer.state_dict()
    saved["state"][0]["salt"] = torch.tensor(16777217, dtype=torch.int32)
    optimizer.load_state_dict(saved)
    assert optimizer.state[params[0]]["salt"].item() == 16777217


def roles(saved):
    """Return the saved state of the second parameter."""
    return saved["state"][1]


MEMBER = "'group 0, parameter 1'"
BROKEN = {
    "shape": (
        lambda saved: roles(saved).update(statistic=torch.ones(2)),
        rf"'statistic' of {MEMBER} has shape \(2,\).*expected \(3,\)",
    ),
    "dtype": (
        lambda saved: roles(saved).update(statistic=torch.ones(3, dtype=torch.float64)),
        f"{MEMBER}.*float64, expected.*float32",
    ),
    "missing role": (lambda saved: roles(saved).pop("statistic"), f"{MEMBER} has roles"),
    "missing counter": (lambda saved: roles(saved).pop("step"), f"{MEMBER} has roles"),
    "unknown role": (
        lambda saved: roles(saved).update(exp_avg=torch.ones(3)),
        f"{MEMBER} has roles.*exp_avg",
    ),
    "number": (lambda saved: roles(saved).update(statistic=1.0), "must be a tensor, got float"),
    "counter": (lambda saved: roles(saved).update(step=torch.zeros(1)), "'step'.*has shape"),
    "rule": (
        lambda saved: saved["param_groups"][0].update(rule="rmsprop"),
        "group 0 has rule 'rmsprop'.*'rf_rmsprop'",
    ),
    "unknown rule": (
        lambda saved: saved["param_groups"][0].update(rule="adam"),
        "unknown method 'adam'",
    ),
    "rounding": (
        lambda saved: saved["param_groups"][0].update(rounding="up"),
        "`rounding` must be",
    ),
    "parameter": (
        lambda saved: saved["state"].update({7: saved["state"].pop(1)}),
        "entries 7",
    ),
    "fewer parameters": (lambda saved: saved["param_groups"][0]["params"].pop(), "size"),
    "more groups": (
        lambda saved: saved["param_groups"].append({"params": []}),
        "number of parameter groups",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_dict_changes_nothing(make_params, take_steps, equal_bits, what):
    """TR14: it is checked in full before the first write; the message names the parameter."""
    optimizer, twin, source = (RFRMSProp(make_params()) for _ in range(3))
    for o, steps in ((optimizer, 2), (twin, 2), (source, 1)):
        take_steps(o, *range(steps))
    saved = source.state_dict()
    saved["param_groups"][0]["lr"] = 7.0
    break_it, match = BROKEN[what]
    break_it(saved)
    with pytest.raises((TypeError, ValueError), match=match):
        optimizer.load_state_dict(saved)
    assert equal_bits(optimizer, twin)
    assert optimizer.param_groups[0]["lr"] == optimizer.defaults["lr"]
    for o in (optimizer, twin):
        take_steps(o, 2)
    assert equal_bits(optimizer, twin)


def test_loading_copies(cls, make, take_steps, equal_bits):
    """TR15: nothing is shared with the dict, which stays as it was and loads again."""
    source, target, other = make(cls), make(cls), make(cls)
    take_steps(source, 0)
    copy_params(source, target)
    copy_params(source, other)
    saved = source.state_dict()
    before = copy.deepcopy(saved)
    target.load_state_dict(saved)
    loaned = {x.data_ptr() for roles in saved["state"].values() for x in roles.values()}
    held = {x.data_ptr() for roles in target.state.values() for x in roles.values()}
    assert not loaned & held
    take_steps(target, 1)
    target.param_groups[0]["lr"] = 7.0
    assert saved["param_groups"] == before["param_groups"]
    assert saved["state"].keys() == before["state"].keys()
    other.load_state_dict(state_dict=saved)
    assert equal_bits(source, other)


def test_state_follows_the_parameter(make_params):
    """TR16: arrays go to the parameter's device, the counter stays on the CPU."""
    params = [torch.nn.Parameter(torch.ones(3, device="meta"))]
    source, target = RFRMSProp([torch.nn.Parameter(torch.ones(3))]), RFRMSProp(params)
    source.init_state()
    target.load_state_dict(source.state_dict())
    devices = {role: x.device.type for role, x in target.state[params[0]].items()}
    assert devices == {"step": "cpu", "statistic": "meta", "momentum": "meta"}


def test_default_device(cls, make_params, take_steps):
    """TR16: torch's default device moves neither the counter nor the arrays."""
    params = make_params(shapes=((2, 3),))
    with torch.device("meta"):
        optimizer = cls(params, **STOCHASTIC)
        optimizer.init_state()
    take_steps(optimizer, 0)
    with torch.device("meta"):
        optimizer.step()
    assert all(x.device.type == "cpu" for x in optimizer.state[params[0]].values())


def test_older_versions(cls, make_params, take_steps, equal_bits):
    """TR17: a dict or a pickle without some group keys, and a number as a counter, still load."""
    source, target = cls(make_params()), cls(make_params())
    take_steps(source, 0)
    copy_params(source, target)
    saved = copy.deepcopy(source.state_dict())
    for key in ("rule", "maximize", "rounding", "state_dtype", "weight_decay_mode"):
        del saved["param_groups"][0][key]
    for key in ("update_every", "compute_dtype", "structure", "max_dim", "trust_clip"):
        saved["param_groups"][0].pop(key, None)
    for roles in saved["state"].values():
        roles["step"] = int(roles["step"])
    target.load_state_dict(saved)
    assert equal_bits(source, target)
    assert target.param_groups[0].keys() == source.param_groups[0].keys()
    take_steps(target, 1)

    old = source.__getstate__()
    del old["_batch_size"], old["_update_every"]
    old["param_groups"] = [{k: v for k, v in g.items() if k != "rule"} for g in old["param_groups"]]
    again = cls.__new__(cls)
    again.__setstate__(old)
    assert again.param_groups[0]["rule"] == cls._method.name


def test_a_scheduled_value_out_of_range_loads(make_params):
    """A schedule may end a rounding error below zero; such a run must still resume."""
    source, target = RFRMSProp(make_params()), RFRMSProp(make_params())
    source.param_groups[0]["lr"] = -1e-20
    target.load_state_dict(source.state_dict())
    assert target.param_groups[0]["lr"] == -1e-20
    copy.deepcopy(target)


def test_an_empty_state_loads(cls, make, equal_bits):
    """TR56: a dict that was taken before any step loads, before and after `init_state`."""
    optimizer = make(cls)
    optimizer.load_state_dict(optimizer.state_dict())
    assert not optimizer.state
    other = make(cls)
    other.init_state()
    other.load_state_dict(optimizer.state_dict())
    assert equal_bits(optimizer, other)


def test_a_users_hook_is_heard(make_params, take_steps):
    """2.3: what a user's hook returns is what is checked and loaded; post-hooks see it loaded."""
    source, target = RFRMSProp(make_params()), RFRMSProp(make_params(dtype=torch.bfloat16))
    take_steps(source, 0)
    seen = []

    def keep_one(_, saved):
        return {**saved, "state": {0: saved["state"][0]}}

    def look(optimizer):
        seen.extend(x.dtype for roles in optimizer.state.values() for x in roles.values())

    target.register_load_state_dict_pre_hook(keep_one)
    target.register_load_state_dict_post_hook(look)
    target.load_state_dict(source.state_dict())
    assert len(target.state) == 1
    assert set(seen) == {torch.float32}
    assert len(target._optimizer_load_state_dict_pre_hooks) == 1  # ours is gone
    assert target._loading is None  # and so is what it kept


@pytest.mark.parametrize("duplicate", ["deepcopy", "pickle"])
def test_copies(cls, make, take_steps, equal_bits, duplicate):
    """TR19: a copy steps identically, loads and saves, and leaves the original alone."""
    optimizer = make(cls)
    take_steps(optimizer, 0, 1)
    if duplicate == "deepcopy":
        other = copy.deepcopy(optimizer)
    else:
        other = pickle.loads(pickle.dumps(optimizer))
    assert equal_bits(optimizer, other)
    take_steps(other, 2)
    assert not equal_bits(optimizer, other)
    take_steps(optimizer, 2)
    assert equal_bits(optimizer, other)
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    assert equal_bits(optimizer, other)


def test_a_copy_keeps_a_callable(make_params, take_steps, equal_bits):
    """TR19: a batch size that is asked for in each step is asked for by a copy, too."""
    optimizer = RFRMSProp(make_params(), batch_size=lambda: 64)
    take_steps(optimizer, 0)
    other = copy.deepcopy(optimizer)
    for o in (optimizer, other):
        o.param_groups[0]["batch_size"] = 1
        take_steps(o, 1)
    assert other.param_groups[0]["batch_size"] == 64
    assert equal_bits(optimizer, other)


def test_state_of_another_optimizer(make_params, take_steps):
    """TR14: torch's own AdamW saved other roles."""
    source, target = torch.optim.AdamW(make_params()), AdamW(make_params())
    take_steps(source, 0)
    with pytest.raises(ValueError, match="exp_avg"):
        target.load_state_dict(source.state_dict())
    with pytest.raises(ValueError, match="rule 'rf_adamw'"):
        target.load_state_dict(RFAdamW(make_params()).state_dict())


def test_sgd_keeps_a_counter_alone(make_params):
    """TR11: what a rule does not need is not there."""
    optimizer = SGD(make_params())
    optimizer.init_state()
    assert all(set(roles) == {"step"} for roles in optimizer.state.values())
