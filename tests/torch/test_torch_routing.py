"""Which parameter gets which method, and what an optimizer costs (backends 2.6)."""

from __future__ import annotations

import pytest
import rootfree_torch
import torch
from rootfree_torch import SIRFShampoo, param_groups, plan
from torch import nn


class Model(nn.Module):
    """A little of everything."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(11, 4)
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.LayerNorm(4)
        self.body = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4))
        self.row = nn.Parameter(torch.ones(1, 7))
        self.scale = nn.Parameter(torch.ones(()))
        self.wide = nn.Linear(4, 40, bias=False)
        self.frozen = nn.Linear(4, 4, bias=False)
        self.frozen.weight.requires_grad_(False)
        self.head = nn.Linear(4, 11, bias=False)
        self.head.weight = self.tokens.weight  # tied


EXPECTED = {
    "row": ("rf_rmsprop", "a vector"),
    "scale": ("rf_rmsprop", "a scalar"),
    "tokens.weight": ("rf_rmsprop", "an embedding"),
    "conv.weight": ("the optimizer's", ""),
    "conv.bias": ("rf_rmsprop", "a vector"),
    "norm.weight": ("rf_rmsprop", "a vector"),
    "norm.bias": ("rf_rmsprop", "a vector"),
    "body.0.weight": ("the optimizer's", ""),
    "body.0.bias": ("rf_rmsprop", "a vector"),
    "body.2.weight": ("the optimizer's", ""),
    "body.2.bias": ("rf_rmsprop", "a vector"),
    "wide.weight": ("rf_rmsprop", "an axis of 40 > 32"),
    "frozen.weight": ("none", "frozen"),
}


def rules_of(groups):
    """Return each parameter's method by its name, after an optimizer has taken the groups."""
    found = {}
    for group in SIRFShampoo(groups).param_groups:
        for name in group["param_names"]:
            assert name not in found
            found[name] = group["rule"]
    return found


def test_every_kind_has_its_method():
    """Each parameter lands in one group, or in none because it is frozen, and the table says so."""
    groups = param_groups(Model(), max_dim=32)
    assert {row.name: (row.rule, row.reason) for row in groups.rows} == EXPECTED
    own = {"the optimizer's": "sirf_shampoo"}
    assert rules_of(groups) == {
        name: own.get(rule, rule) for name, (rule, _) in EXPECTED.items() if rule != "none"
    }
    table = str(groups).splitlines()
    assert len(table) == 2 + len(EXPECTED)
    assert "frozen.weight  (4, 4)" in str(groups)


def test_a_tied_parameter_follows_the_embedding():
    """By identity, under whichever name it comes first."""
    model = Model()
    model.tokens, head = nn.Identity(), model.tokens
    model.last = head
    (row,) = (row for row in param_groups(model).rows if row.name == "head.weight")
    assert row.rule == "rf_rmsprop"


def test_options_go_to_their_groups():
    """The own method's, RF-RMSProp's, and what neither says is the catalogue's."""
    groups = param_groups(Model(), elementwise={"lr": 0.25}, lr=0.5, damping=0.125)
    own, vectors = SIRFShampoo(groups, lr=0.75).param_groups
    assert (own["rule"], own["lr"], own["damping"]) == ("sirf_shampoo", 0.5, 0.125)
    assert (vectors["rule"], vectors["lr"]) == ("rf_rmsprop", 0.25)
    assert vectors["damping"] == rootfree_torch.RFRMSProp([torch.ones(1)]).defaults["damping"]


def test_a_step_moves_what_is_routed():
    """The groups work: everything with a gradient moves, what is frozen does not."""
    model = Model()
    optimizer = SIRFShampoo(param_groups(model), lr=0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(EXPECTED) - {"frozen.weight"}


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        (r"body\..*\.weight", ["body.0.weight", "body.2.weight"]),
        (nn.LayerNorm, ["norm.weight", "norm.bias"]),
        (lambda model: model.body[2], ["body.2.weight", "body.2.bias"]),
        (lambda model: model.scale, ["scale"]),
    ],
    ids=["expression", "type", "module", "parameter"],
)
def test_overrides(selector, names):
    """A selector's parameters alone get the override's options; `None` leaves them out."""
    model = Model()
    chosen = selector(model) if not isinstance(selector, str | type) else selector
    found = rules_of(param_groups(model, overrides=[(chosen, {"rule": "sgd"})]))
    assert sorted(name for name, rule in found.items() if rule == "sgd") == sorted(names)
    groups = param_groups(model, overrides=[(chosen, None)])
    assert sorted(set(found) - set(rules_of(groups))) == sorted(names)
    assert {row.rule for row in groups.rows if row.name in names} == {"none"}


@pytest.mark.parametrize(
    ("overrides", "error", "match"),
    [
        ([("body", {})], ValueError, r"'body' selects no parameter; there are: row \(1, 7\)"),
        ([(nn.RNN, {})], ValueError, "override RNN selects no parameter"),
        ([("(", {})], ValueError, "no regular expression"),
        ([(3, {})], TypeError, "got int"),
        (
            [("norm.*", {}), (nn.LayerNorm, {})],
            ValueError,
            r"norm.weight \(4,\) by 'norm.\*' and LayerNorm; norm.bias",
        ),
    ],
    ids=["nothing", "no such type", "expression", "kind", "twice"],
)
def test_wrong_overrides(overrides, error, match):
    """Refused, with what they are and what there is."""
    with pytest.raises(error, match=match):
        param_groups(Model(), overrides=overrides)


def test_what_no_method_takes():
    """A complex parameter is named; left out, or frozen, it is no matter."""
    model = Model()
    model.phase = nn.Parameter(torch.ones(2, 3, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"not real: phase \(2, 3\) torch.complex64"):
        param_groups(model)
    assert "phase" not in rules_of(param_groups(model, overrides=[("phase", None)]))
    model.phase.requires_grad_(False)
    assert "phase" not in rules_of(param_groups(model))
    with pytest.raises(TypeError, match="`model` must be"):
        param_groups(model.parameters())


def test_plan_is_what_is_allocated(cls):
    """To the byte, over groups of several methods; on the meta device nothing is made."""
    model = Model()
    optimizer = cls(param_groups(model))
    planned = plan(optimizer)
    assert not optimizer.state
    optimizer.init_state()
    held = {
        name: sum(x.nbytes for x in optimizer.state[p].values())
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    assert {row.name: row.state_bytes for row in planned.rows} == held
    with torch.device("meta"):
        other = Model()
    assert plan(cls(param_groups(other))).state_bytes == planned.state_bytes


def test_plan_is_for_our_optimizers():
    """A typed error for another one."""
    with pytest.raises(TypeError, match="must be one of rootfree's, got SGD"):
        plan(torch.optim.SGD([torch.ones(1)]))
