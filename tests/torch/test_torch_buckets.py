"""Buckets: equal parameters are stepped together, and nobody can tell but by the time it takes."""

from __future__ import annotations

import copy

import pytest
import rootfree
import rootfree_torch
import torch
from rootfree import METHODS
from rootfree_torch import RFRMSProp, Shampoo, SIRFShampoo
from rootfree_torch._texts import CHUNK
from torch.utils._python_dispatch import TorchDispatchMode

MATRIX = [getattr(rootfree_torch, m.class_name) for m in METHODS.values() if m.matrix]


class Dispatched(TorchDispatchMode):
    """Counts the operations that reach the dispatcher."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Note the operation, and run it."""
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def made(cls, count, normal, shape=(4, 3), **options):
    """Return an optimizer of equal parameters, and gradients for it."""
    params = [torch.nn.Parameter(normal(i, shape)) for i in range(count)]
    hyper = {"damping": 0.1} if "damping" in cls._method.hyper else {}
    return cls(params, lr=0.01, **hyper, **options), params


def stepped(optimizer, params, normal, *numbers, missing=()):
    """Step with gradients of the numbers; pairs of number and place in `missing` have none."""
    for number in numbers:
        for i, p in enumerate(params):
            p.grad = None
            if (number, i) not in missing:
                p.grad = normal(1000 * (number + 1) + i, p.shape, p.dtype)
        optimizer.step()


@pytest.mark.parametrize("options", [{}, {"state_dtype": "bfloat16", "rounding": "stochastic"}])
def test_grouping_changes_no_bit(cls, normal, equal_bits, options):
    """Stacked or one by one, with gradients that come late or are missing: equal bits on a CPU."""
    gaps = {(0, 1), (2, 3), (2, 0), (3, 2)}
    runs = []
    for foreach in (None, False, True):
        period = {"update_every": 3} if cls._method.matrix else {}
        optimizer, params = made(cls, 4, normal, foreach=foreach, **options, **period)
        stepped(optimizer, params, normal, *range(6), missing=gaps)
        runs.append(optimizer)
    assert equal_bits(runs[0], runs[1])
    assert equal_bits(runs[0], runs[2])


def test_members_do_not_touch_each_other(cls, normal, same_bits):
    """A gradient of 1e6 in one member of a stack leaves every bit of the others."""
    outcomes = []
    for size in (1.0, 1e6):
        optimizer, params = made(cls, 3, normal)
        stepped(optimizer, params, normal, 0)
        for i, p in enumerate(params):
            p.grad = normal(77 + i, p.shape) * (size if i == 1 else 1.0)
        optimizer.step()
        outcomes.append(params)
    assert not torch.equal(outcomes[0][1], outcomes[1][1])
    for i in (0, 2):
        assert same_bits(outcomes[0][i], outcomes[1][i])


@pytest.mark.parametrize("period", [1, 4])
def test_operations_do_not_grow_with_equal_layers(cls, normal, period):
    """S11: as many operations for 12 equal layers as for 4, when all observe and when none does."""
    counts = []
    for count in (4, 12):
        options = {"update_every": period, "stagger": False} if cls._method.matrix else {}
        optimizer, params = made(cls, count, normal, **options)
        stepped(optimizer, params, normal, 0, 1)
        found = []
        for number in (2, 3, 4):
            for i, p in enumerate(params):
                p.grad = normal(number + i, p.shape)
            with Dispatched() as dispatched:
                optimizer.step()
            found.append(len(dispatched.names))
        counts.append(found)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("foreach", [True, False])
def test_what_is_kept_between_observations_is_kept(normal, foreach):
    """A step at which nobody observes multiplies by K K^T on both sides, and nothing else."""
    optimizer, params = made(SIRFShampoo, 3, normal, update_every=5, stagger=False, foreach=foreach)
    products = []
    for number in range(6):
        for i, p in enumerate(params):
            p.grad = normal(number + i, p.shape)
        with Dispatched() as dispatched:
            optimizer.step()
        products.append(sum(name.split(".")[1] in ("bmm", "mm") for name in dispatched.names))
    off = 2 if foreach else 2 * len(params)
    assert products[1:5] == [off] * 4
    assert min(products[0], products[5]) > off


def test_state_is_seen_by_parameter(normal):
    """Every entry is a tensor of its parameter's own shape, and views of one stack share it."""
    optimizer, params = made(SIRFShampoo, 3, normal)
    stepped(optimizer, params, normal, 0)
    for p in params:
        assert {role: tuple(x.shape) for role, x in optimizer.state[p].items()} == {
            "step": (), "factor.0": (4, 4), "factor.1": (3, 3),
            "factor_momentum.0": (4, 4), "factor_momentum.1": (3, 3), "momentum": (4, 3),
        }  # fmt: skip
    storages = {optimizer.state[p]["factor.0"].untyped_storage().data_ptr() for p in params}
    assert len(storages) == 1


def test_a_replaced_entry_is_taken_up(normal):
    """What a user puts into the state, or writes into it, is what the next step works on."""
    for in_place in (True, False):
        one, params = made(SIRFShampoo, 3, normal, update_every=3)
        two, others = made(SIRFShampoo, 3, normal, update_every=3, foreach=False)
        for optimizer, own in ((one, params), (two, others)):
            stepped(optimizer, own, normal, 0, 1)
            state = optimizer.state[own[1]]
            if in_place:
                state["factor.0"].mul_(2.0)
            else:
                state["factor.0"] = state["factor.0"] * 2.0
            stepped(optimizer, own, normal, 2, 3)
        assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


def test_late_groups_and_late_gradients(normal, equal_bits):
    """A group that comes later, and parameters whose first gradient does, as one by one."""
    runs = []
    for foreach in (None, False):
        optimizer, params = made(SIRFShampoo, 2, normal, foreach=foreach, update_every=2)
        stepped(optimizer, params, normal, 0, 1, missing={(0, 1), (1, 1)})
        later = [torch.nn.Parameter(normal(50 + i, (4, 3))) for i in range(2)]
        optimizer.add_param_group({"params": later, "lr": 0.3})
        stepped(optimizer, [*params, *later], normal, 2, 3, 4)
        runs.append(optimizer)
    assert equal_bits(*runs)


def test_a_group_without_gradients_is_left_alone(normal, same_bits):
    """Members without a gradient keep value and state to the bit, and their count."""
    optimizer, params = made(RFRMSProp, 3, normal)
    stepped(optimizer, params, normal, 0)
    before = [
        (p.detach().clone(), {r: x.clone() for r, x in optimizer.state[p].items()}) for p in params
    ]
    stepped(optimizer, params, normal, 1, missing={(1, 0), (1, 2)})
    for i, (value, state) in enumerate(before):
        moved = i == 1
        assert same_bits(params[i], value) != moved
        for role, x in state.items():
            assert same_bits(optimizer.state[params[i]][role], x) != moved, role
    stepped(optimizer, params, normal, 2, missing={(2, i) for i in range(3)})
    assert [float(optimizer.state[p]["step"]) for p in params] == [1, 2, 1]


def test_cache_sized_parts_change_no_bit(normal, equal_bits, monkeypatch):
    """A large parameter that is stepped part by part has the bits of one stepped whole."""
    shape = (3, CHUNK // 2 + 5)
    runs = []
    for chunk in (CHUNK, 10 * CHUNK):
        monkeypatch.setattr("rootfree_torch._texts.CHUNK", chunk)
        optimizer, params = made(RFRMSProp, 1, normal, shape, weight_decay=0.1)
        stepped(optimizer, params, normal, 0, 1)
        runs.append(optimizer)
    assert equal_bits(*runs)


def test_rounding_bits_do_not_depend_on_parts(normal):
    """With stochastic rounding a parameter is never cut: its bits belong to places in the whole."""
    rule = METHODS["rf_rmsprop"].rule
    single = rootfree.Precision.uniform(torch.float32)
    assert rule(single).elementwise
    narrow = rootfree.Precision(torch.float32, torch.bfloat16, torch.float32, "stochastic")
    assert not rule(narrow).elementwise


@pytest.mark.parametrize("change", ["dtype", "layout", "storage"])
def test_a_parameter_whose_data_changes(normal, change):
    """TR09: what `.to()` and assignments to `.data` do is seen at the next step."""
    optimizer, params = made(RFRMSProp, 2, normal)
    stepped(optimizer, params, normal, 0)
    old = params[0].data
    new = {
        "dtype": lambda x: x.to(torch.bfloat16),
        "layout": lambda x: x.t().contiguous().t(),
        "storage": lambda x: x.clone(),
    }[change](old)
    params[0].data = new
    params[0].grad = torch.ones_like(params[0])
    params[1].grad = torch.ones_like(params[1])
    before = old.clone()
    optimizer.step()
    assert params[0].data.data_ptr() == new.data_ptr()
    assert torch.equal(old, before)
    assert not torch.equal(params[0].float(), before)


def test_copies_step_alike(normal, equal_bits):
    """TR19: a deep copy has stacks of its own and goes on as the original."""
    optimizer, params = made(SIRFShampoo, 3, normal, update_every=3)
    stepped(optimizer, params, normal, 0, 1)
    other = copy.deepcopy(optimizer)
    theirs = other.param_groups[0]["params"]
    stepped(optimizer, params, normal, 2, 3)
    stepped(other, theirs, normal, 2, 3)
    assert equal_bits(optimizer, other)
    assert (
        other.state[theirs[0]]["momentum"].data_ptr()
        != optimizer.state[params[0]]["momentum"].data_ptr()
    )


@pytest.mark.parametrize("matrix", MATRIX, ids=lambda cls: cls.__name__)
def test_turns(matrix, normal):
    """After the first step each parameter observes at every third of its steps, not all at once."""
    optimizer, params = made(matrix, 3, normal, update_every=3)
    kept = "root.0" if matrix is Shampoo else None
    observed = []
    for number in range(7):
        before = [_preconditioner(optimizer.state[p], kept) for p in params]
        stepped(optimizer, params, normal, number)
        after = [_preconditioner(optimizer.state[p], kept) for p in params]
        observed.append([not torch.equal(x, y) for x, y in zip(before, after, strict=True)])
    assert observed[0] == [True] * 3
    phases = [int(optimizer.state[p]["phase"]) for p in params]
    assert sorted(phases) == [0, 1, 2]
    for number in range(1, 7):
        assert observed[number] == [(number + phase) % 3 == 0 for phase in phases]


def _preconditioner(state, kept):
    roles = [r for r in state if r.split(".")[0] in ("statistic", "root", "factor")]
    return torch.cat(
        [state[r].flatten() for r in roles if kept in (None, r)] or [torch.zeros(0)]
    ).clone()


def test_all_at_once_without_turns(normal):
    """`stagger=False` keeps no phase and observes at 0, 3, 6."""
    optimizer, params = made(SIRFShampoo, 3, normal, update_every=3, stagger=False)
    for number in range(7):
        before = [_preconditioner(optimizer.state[p], None) for p in params]
        stepped(optimizer, params, normal, number)
        after = [_preconditioner(optimizer.state[p], None) for p in params]
        changed = [not torch.equal(x, y) for x, y in zip(before, after, strict=True)]
        assert changed == [number % 3 == 0] * 3
        assert all("phase" not in optimizer.state[p] for p in params)


def test_work_is_spread(normal):
    """The products of a step stay near a tenth of all, over shapes of different cost."""
    shapes = [(24, 8), (8, 8), (32, 8), (8, 32)] * 4
    params = [torch.nn.Parameter(normal(i, s)) for i, s in enumerate(shapes)]
    optimizer = SIRFShampoo(params, update_every=10)
    rule = METHODS["sirf_shampoo"].rule(rootfree.Precision.uniform(torch.float32))
    optimizer.init_state()
    costs = [rootfree.plan(rule, [s]).observe_flops for s in shapes]
    load = [0.0] * 10
    for p, cost in zip(params, costs, strict=True):
        load[int(optimizer.state[p]["phase"])] += cost
    assert max(load) <= max(4 / 3 * sum(costs) / 10, max(costs))
    assert min(load) > 0


def test_resume_observes_on_the_same_steps(normal, equal_bits):
    """Phases are saved: a run that is resumed within a period goes on as if it had not stopped."""
    shapes = [(4, 3), (4, 3), (3, 5), (6, 2)]
    make = lambda order: [torch.nn.Parameter(normal(i, shapes[i])) for i in order]  # noqa: E731
    whole, parts = make(range(4)), make(range(4))
    one, two = (SIRFShampoo(p, update_every=3) for p in (whole, parts))
    stepped(one, whole, normal, *range(8))
    stepped(two, parts, normal, *range(4))
    resumed = SIRFShampoo(parts, update_every=3)
    resumed.load_state_dict(two.state_dict())
    stepped(resumed, parts, normal, *range(4, 8))
    assert equal_bits(one, resumed)


def test_another_period_deals_turns_anew(normal):
    """A group's `update_every` counts from the next step on, evenly spread again."""
    optimizer, params = made(SIRFShampoo, 5, normal, update_every=2)
    stepped(optimizer, params, normal, 0, 1)
    for period in (5, 1, 5, 3):
        optimizer.param_groups[0]["update_every"] = period
        stepped(optimizer, params, normal, 2)
        fresh, others = made(SIRFShampoo, 5, normal, update_every=period)
        stepped(fresh, others, normal, 0)
        for p, q in zip(params, others, strict=True):
            assert optimizer.state[p].get("phase") == fresh.state[q].get("phase")


def test_a_loaded_period_keeps_its_phases(normal):
    """The dict's period goes with the dict's phases, whatever the optimizer had before."""
    one, params = made(SIRFShampoo, 3, normal, update_every=3)
    two, others = made(SIRFShampoo, 3, normal, update_every=2)
    for run, parts in ((one, params), (two, others)):
        stepped(run, parts, normal, 0)
    saved = one.state_dict()
    for roles in saved["state"].values():
        roles["phase"] = (roles["phase"] + 1) % 3
    two.load_state_dict(saved)
    stepped(two, others, normal, 1)
    expected = [int(roles["phase"]) for roles in saved["state"].values()]
    assert [int(two.state[p]["phase"]) for p in others] == expected


def test_a_state_without_phases_gets_some(normal):
    """A state dict of a run that observed at every step loads where there is a period, and back."""
    plain, params = made(SIRFShampoo, 3, normal)
    stepped(plain, params, normal, 0)
    periodic, others = made(SIRFShampoo, 3, normal, update_every=3)
    saved = plain.state_dict()
    saved["param_groups"][0]["update_every"] = 3
    periodic.load_state_dict(saved)
    stepped(periodic, others, normal, 1)
    assert sorted(int(periodic.state[p]["phase"]) for p in others) == [0, 1, 2]
    back = periodic.state_dict()
    back["param_groups"][0]["update_every"] = 1
    plain.load_state_dict(back)
    stepped(plain, params, normal, 2)


def test_state_bytes_are_those_of_the_plan(cls, normal):
    """S8: what the state holds is what `plan` says, to the byte, the counter's dtype apart."""
    optimizer, params = made(cls, 3, normal)
    optimizer.init_state()
    rule = cls._method.rule(
        rootfree.Precision.uniform(torch.float32),
        without=cls._method.absent(optimizer.state[params[0]]),
    )
    held = sum(x.nbytes for roles in optimizer.state.values() for x in roles.values())
    assert held == rootfree.plan(rule, [p.shape for p in params]).state_bytes


class Live(TorchDispatchMode):
    """Watches the bytes of storages that operations make, while they live."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation, and note what is new."""
        import weakref

        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, torch.Tensor):
                storage = x.untyped_storage()
                key = storage._cdata
                if key not in self.seen and not any(
                    isinstance(a, torch.Tensor) and a.untyped_storage()._cdata == key for a in args
                ):
                    size = storage.nbytes()
                    self.seen.add(key)
                    self.now += size
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._gone, key, size)
        return out

    def _gone(self, key, size):
        self.seen.discard(key)
        self.now -= size


@pytest.mark.parametrize("name", ["RFRMSProp", "SIRFShampoo"])
def test_temporary_bytes(name, normal):
    """S10: beyond state and gradients a step takes at most four of the largest stack."""
    cls = getattr(rootfree_torch, name)
    optimizer, params = made(cls, 6, normal, (64, 48))
    _, others = made(cls, 2, normal, (16, 8))
    optimizer.add_param_group({"params": others})
    stepped(optimizer, [*params, *others], normal, 0, 1)
    for i, p in enumerate([*params, *others]):
        p.grad = normal(i, p.shape)
    stack = sum(x.nbytes for p in params for x in (p, *optimizer.state[p].values()))
    with Live() as live:
        optimizer.step()
    assert 0 < live.peak <= 4 * stack


def test_no_value_is_read_by_the_host(cls, normal):
    """No `item`, no comparison that the host needs, in any step: nothing waits for a device."""
    period = {"update_every": 3} if cls._method.matrix else {}
    optimizer, params = made(cls, 3, normal, **period)
    stepped(optimizer, params, normal, 0, 1)
    for number in (2, 3, 4):
        for i, p in enumerate(params):
            p.grad = normal(number + i, p.shape)
        with Dispatched() as dispatched:
            optimizer.step()
        read = {"aten._local_scalar_dense.default", "aten.equal.default", "aten.nonzero.default"}
        assert not read & set(dispatched.names)
