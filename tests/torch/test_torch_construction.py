"""Construction and groups of the torch optimizers (TR01 to TR08, TR25)."""

from __future__ import annotations

import inspect
import io
import subprocess
import sys
from zlib import crc32

import numpy as np
import pytest
import rootfree
import rootfree_torch
import torch
from rootfree import METHODS
from rootfree_torch import SGD, AdamW, RFAdaGrad, RFRMSProp, SIRFShampoo


@pytest.fixture
def weight():
    """Return a parameter."""
    return torch.nn.Parameter(torch.ones(2, 2))


def test_names():
    """Public names are the catalogue's classes, in its order, other types, then the functions."""
    classes = [method.class_name for method in METHODS.values()]
    others = ["StalledStateWarning", "ParamGroups", "Routed"]
    functions = ["param_groups", "plan", "global_batch_size", "capabilities"]
    assert rootfree_torch.__all__ == [*classes, *others, *functions]


def test_signature(cls):
    """TR01: parameters first, then the catalogue's arguments; the constructor shows the same."""
    method = next(m for m in METHODS.values() if m.class_name == cls.__name__)
    expected = rootfree.signature(
        method, leading=("params",), trailing={"maximize": False, "foreach": None, "compile": False}
    )
    assert inspect.signature(cls) == expected
    assert list(inspect.signature(cls.__init__).parameters) == ["self", *expected.parameters]


def test_documentation(cls):
    """Every argument is explained, and the first line is the method's name."""
    first, *rest = inspect.getdoc(cls).splitlines()
    title = cls._method.title
    assert first == f"{title[0].upper()}{title[1:]}."
    for name in inspect.signature(cls).parameters:
        assert any(line.strip().startswith(f"{name}: ") for line in rest), name


def test_construction(cls, weight):
    """TR01: `cls(params, lr=...)` and positional hyper-parameters."""
    assert cls([weight], lr=0.25).param_groups[0]["lr"] == 0.25
    assert cls([weight], 0.25).param_groups[0]["lr"] == 0.25


def test_subclass_made_on_the_fly(cls, weight):
    """TR55: a subclass made by a framework has the same arguments and steps once."""
    made = type(f"Lightning{cls.__name__}", (cls,), {})
    optimizer = made([weight], lr=0.5)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert inspect.signature(made) == inspect.signature(cls)
    assert optimizer.state[weight]["step"] == 1


def test_subclass_with_its_own_constructor(weight):
    """A user's subclass shows its own signature."""

    class Mine(RFRMSProp):
        def __init__(self, params, rate):
            super().__init__(params, lr=rate)

    assert list(inspect.signature(Mine).parameters) == ["params", "rate"]
    assert Mine([weight], 0.5).param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"lr": -1.0}, ValueError),
        ({"lr": float("nan")}, ValueError),
        ({"lr": "0.1"}, TypeError),
        ({"lr": torch.ones(2)}, TypeError),
        ({"lr": np.asarray(0.1)}, TypeError),
        ({"precond_lr": 1.0}, ValueError),
        ({"momentum": 1.0}, ValueError),
        ({"damping": -1e-8}, ValueError),
        ({"weight_decay": -1.0}, ValueError),
        ({"batch_size": 0}, ValueError),
        ({"batch_size": "8"}, TypeError),
        ({"loss_reduction": "none"}, ValueError),
        ({"init_scale": -1.0}, ValueError),
        ({"weight_decay_mode": "l2"}, ValueError),
        ({"decay": 2}, ValueError),
        ({"rounding": "up"}, ValueError),
        ({"state_dtype": "float8"}, ValueError),
        ({"state_dtype": 16}, TypeError),
        ({"beta2": 0.9}, TypeError),
    ],
    ids=str,
)
@pytest.mark.parametrize("own", [RFRMSProp, SIRFShampoo])
def test_arguments_are_checked_first(own, given, error):
    """TR02: a bad value is reported before the parameters are looked at; the message names it."""
    with pytest.raises(error, match=next(iter(given))):
        own(None, **given)


def test_precond_lr_of_a_sum_may_exceed_one(weight):
    """TR02: the range of `precond_lr` depends on the decay of the group it is for."""
    RFAdaGrad([weight], precond_lr=2.0)
    with pytest.raises(ValueError, match="precond_lr"):
        RFAdaGrad([weight], precond_lr=2.0, decay=1)
    with pytest.raises(ValueError, match="precond_lr"):
        RFAdaGrad([{"params": [weight], "decay": 1, "precond_lr": 2.0}])


def test_zero_dimensional_tensors_are_not_read(cls, weight):
    """TR02: a 0-d tensor on the meta device, which has no value, passes every check."""
    given = {name: torch.tensor(0.5, device="meta") for name in cls._method.hyper}
    assert cls([weight], **given).param_groups[0]["lr"] is given["lr"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda named: [p for _, p in named],
        lambda named: (p for _, p in named),
        lambda named: iter(named),
        lambda named: [{"params": [p]} for _, p in named],
        lambda named: [{"params": (pair for pair in [pair])} for pair in named],
    ],
    ids=["list", "generator", "named", "groups", "named groups"],
)
def test_forms_of_params(cls, make_params, wrap):
    """TR03: tensors, named tensors and groups, each walked once."""
    params = make_params()
    optimizer = cls(wrap([(f"p{i}", p) for i, p in enumerate(params)]))
    kept = [p for group in optimizer.param_groups for p in group["params"]]
    assert all(a is b for a, b in zip(kept, params, strict=True))


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ([], ValueError),
        (torch.ones(2), TypeError),
        (None, TypeError),
        ([1.0], TypeError),
        ([{torch.nn.Parameter(torch.ones(2))}], TypeError),
        ([{"params": {torch.nn.Parameter(torch.ones(2))}}], TypeError),
    ],
    ids=["empty", "tensor", "none", "number", "set", "set in a group"],
)
def test_refused_params(cls, params, error):
    """TR03: what torch refuses, with torch's kinds of error."""
    with pytest.raises(error):
        cls(params)


def test_names_are_kept(cls):
    """TR04: names reach the group; some with and some without is an error."""
    layer = torch.nn.Linear(2, 2)
    optimizer = cls(layer.named_parameters())
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    with pytest.raises(ValueError, match="names"):
        cls([("weight", layer.weight), layer.bias])


@pytest.mark.parametrize("named", [True, False])
def test_salt(make_params, named):
    """TR04: the key of the rounding bits is the CRC-32 of the name, or else of the position."""
    params = make_params(shapes=((2,), (2,), (2,)))
    names = ["weight", "bias", "scale"] if named else ["0", "1", "2"]
    pairs = list(zip(names, params, strict=True)) if named else params
    groups = [{"params": pairs[:2]}, {"params": pairs[2:]}]
    optimizer = RFRMSProp(groups, state_dtype="bfloat16", rounding="stochastic")
    optimizer.init_state()
    for name, p in zip(names, params, strict=True):
        salt = optimizer.state[p]["salt"]
        assert salt.shape == ()
        assert salt.dtype == torch.int32
        assert salt.item() % 2**32 == crc32(name.encode())


def test_groups_keep_count_and_order(cls, make_params):
    """TR05: one group in, one group out; every key of `defaults` in every group."""
    params = make_params()
    groups = [{"params": [p], "lr": 0.1 * (i + 1), "tag": i} for i, p in enumerate(params)]
    optimizer = cls(groups, lr=7.0)
    assert [group["lr"] for group in optimizer.param_groups] == [g["lr"] for g in groups]
    assert [group["tag"] for group in optimizer.param_groups] == [0, 1, 2, 3]
    assert "lr" in optimizer.defaults
    for group in optimizer.param_groups:
        assert optimizer.defaults.keys() <= group.keys()
        assert set(cls._method.hyper) | set(cls._method.options) <= group.keys()


def test_every_argument_can_differ_per_group(cls, normal):
    """TR05: a group's own values do what they would do in an optimizer of their own."""
    own = {name: value / 2 + 0.25 for name, value in cls._method.hyper.items()}
    own |= {"batch_size": 8} if cls._method.scaled else {}
    own |= {"update_every": 2, "compute_dtype": "bfloat16"} if cls._method.matrix else {}
    own |= {"structure": "diagonal", "merge_dims": 4, "trust_clip": False, "improved": True}
    own |= {"maximize": True, "init_scale": 0.5, "weight_decay_mode": "decoupled", "decay": 1}
    own = {k: v for k, v in own.items() if k in inspect.signature(cls).parameters}
    a, b, alone = (torch.nn.Parameter(normal(1)) for _ in range(3))
    together = cls([{"params": [a]}, {"params": [b], **own}])
    separate = cls([alone], **own)
    for t in range(3):
        for p in (a, b, alone):
            p.grad = normal(10 + t)
        together.step()
        separate.step()
    assert torch.equal(b, alone)
    assert not torch.equal(a, b)


def test_given_groups_are_not_changed(cls, weight):
    """TR05: two optimizers made from the same list of groups do not share a dict."""
    groups = [{"params": [weight]}]
    first, second = cls(groups, lr=0.5), cls(groups, lr=0.25)
    assert groups == [{"params": [weight]}]
    assert (first.param_groups[0]["lr"], second.param_groups[0]["lr"]) == (0.5, 0.25)


def test_group_values_are_plain(cls, weight):
    """TR06: numbers of other libraries become Python's, dtypes become names."""
    hyper = {name: np.float64(0.5) for name in cls._method.hyper}
    optimizer = cls([{"params": [weight], "state_dtype": torch.bfloat16, **hyper}], **hyper)
    group = optimizer.param_groups[0]
    assert group["state_dtype"] == "bfloat16"
    for values in (group, optimizer.defaults):
        plain = {k: v for k, v in values.items() if k != "params"}
        assert all(type(v) in (int, float, bool, str, type(None)) for v in plain.values()), plain
    if cls._method.matrix:
        given = cls([weight], compute_dtype=torch.bfloat16).param_groups[0]["compute_dtype"]
        assert given == "bfloat16"


@pytest.mark.parametrize("given", ["bfloat16", torch.bfloat16])
def test_forms_of_state_dtype(weight, given):
    """TR06: a name and a dtype object mean the same."""
    optimizer = RFRMSProp([weight], precond_lr=0.5, state_dtype=given)
    optimizer.init_state()
    assert optimizer.defaults["state_dtype"] == "bfloat16"
    assert optimizer.state[weight]["statistic"].dtype == torch.bfloat16


def test_another_rule_in_a_group(normal):
    """TR07: a group of another rule equals an optimizer of that rule; its keys are all there."""
    a, b, alone = (torch.nn.Parameter(normal(1)) for _ in range(3))
    groups = [{"params": [a]}, {"params": [b], "rule": "rf_rmsprop", "lr": 0.5}]
    mixed, pure = AdamW(groups, lr=0.25, precond_lr=0.5), RFRMSProp([alone], lr=0.5)
    for t in range(3):
        for p in (a, b, alone):
            p.grad = normal(10 + t)
        mixed.step()
        pure.step()
    assert torch.equal(b, alone)
    group = mixed.param_groups[1]
    assert {k: group[k] for k in pure.defaults} == pure.defaults
    assert mixed.defaults.keys() <= group.keys()


def test_what_another_rule_does_not_read(weight):
    """TR07: the keys are there, as torch wants them, and hold nothing."""
    groups = [{"params": [weight], "rule": "rf_rmsprop", "tag": 7}]
    optimizer = SIRFShampoo(groups, update_every=3, structure="diagonal", compute_dtype="bfloat16")
    group = optimizer.param_groups[0]
    unread = {"precond_momentum", "structure", "max_dim", "merge_dims", "trust_clip"}
    assert {name for name, value in group.items() if value is None} == {
        *unread,
        *("update_every", "stagger", "compute_dtype", "product_dtype", "state_dtype", "foreach"),
    }
    assert optimizer.defaults.keys() <= group.keys()
    assert group["tag"] == 7
    group = SGD([{"params": [weight], "rule": "sirf_shampoo"}]).param_groups[0]
    assert (group["update_every"], group["batch_size"], group["compute_dtype"]) == (1, 1, None)


def test_what_the_loss_and_the_storage_decide_holds_for_every_rule(weight):
    """TR07: batch size, dtypes and sign are the optimizer's, whatever the group's rule."""
    groups = [{"params": [weight], "rule": "rf_adagrad"}]
    shared = {"batch_size": 64, "state_dtype": "bfloat16", "rounding": "stochastic"}
    group = RFRMSProp(groups, maximize=True, **shared).param_groups[0]
    assert {name: group[name] for name in shared} == shared
    other = torch.nn.Parameter(torch.ones(2))
    matrix = [{"params": [other], "rule": "rf_shampoo"}]
    products = {**shared, "update_every": 4, "compute_dtype": "bfloat16"}
    found = SIRFShampoo(matrix, **products).param_groups[0]
    assert {name: found[name] for name in products} == products
    assert group["maximize"] is True
    assert (group["decay"], group["lr"]) == (0, METHODS["rf_adagrad"].hyper["lr"])


def test_a_mixed_state_dict_loads_with_weights_only(normal):
    """TR07, TR18: the keys of a group's own rule survive a file."""
    params = [torch.nn.Parameter(normal(i)) for i in range(2)]
    groups = [{"params": params[:1]}, {"params": params[1:], "rule": "rf_adamw"}]
    optimizer = SGD(groups)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other = SGD(groups)
    other.load_state_dict(torch.load(file))
    assert other.param_groups == optimizer.param_groups


def test_unknown_rule(weight):
    """TR07: the message names the nearest rule and the group."""
    with pytest.raises(ValueError, match="did you mean 'rf_rmsprop'") as caught:
        RFRMSProp([{"params": [weight], "rule": "rf_rmsprob"}])
    assert caught.value.__notes__ == ["in parameter group 0"]


def test_groups_added_later(cls, make_params, take_steps, equal_bits):
    """TR08: a group that comes after a step moves, and has its own counter."""
    early, late = make_params(0, shapes=((2, 2),)), make_params(1, shapes=((3,),))
    optimizer = cls(early, lr=0.1)
    take_steps(optimizer, 0, 1)
    before = late[0].detach().clone()
    optimizer.add_param_group({"params": late, "lr": 0.2})
    take_steps(optimizer, 2)
    assert not torch.equal(late[0], before)
    assert [optimizer.state[p]["step"].item() for p in early + late] == [3, 1]


@pytest.mark.parametrize(
    ("group", "error"),
    [
        ({"lr": -1.0}, ValueError),
        ({"rounding": "stochastic"}, ValueError),
        ({"state_dtype": "float64"}, ValueError),
        ({"batch_size": lambda: 8}, TypeError),
        ({"rule": "sirf_shampoo", "update_every": lambda count: True}, TypeError),
        ({"rule": "sirf_shampoo", "update_every": None}, TypeError),
        ({"rule": "sirf_shampoo", "structure": ("dense", "dense")}, ValueError),
        ({"rule": "sirf_shampoo", "compute_dtype": "float64"}, ValueError),
        ({"lr": np.asarray(0.1)}, TypeError),
    ],
    ids=str,
)
def test_a_refused_group_is_not_added(weight, group, error):
    """TR08: what a group says is checked like an argument; a refusal leaves no trace."""
    optimizer = RFRMSProp([weight])
    other = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(error) as caught:
        optimizer.add_param_group({"params": [other], **group})
    assert caught.value.__notes__ == ["in parameter group 1"]
    assert len(optimizer.param_groups) == 1
    with pytest.raises(TypeError, match="dict"):
        optimizer.add_param_group([other])


@pytest.mark.parametrize(
    ("param", "word"),
    [
        (torch.ones(2, dtype=torch.int64), "int64"),
        (torch.ones(2, dtype=torch.bool), "bool"),
        (torch.ones(2, dtype=torch.complex64), "complex"),
        (torch.ones(2).to_sparse(), "sparse"),
        (torch.ones(2, dtype=torch.float8_e4m3fn), "float8_e4m3fn"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused_parameters(cls, param, word):
    """TR25: sparse, complex and integer parameters are refused at construction, by name."""
    with pytest.raises(TypeError, match=word) as caught:
        cls([("layer.weight", param)])
    assert "layer.weight" in str(caught.value)
    with pytest.raises(TypeError, match="group 0, parameter 1"):
        cls([torch.nn.Parameter(torch.ones(2)), param])


def test_without_torch(tmp_path):
    """1.6: the error of a missing framework names the extra and keeps the module's name."""
    finder = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            raise ModuleNotFoundError('No module', name='torch')\n"
        "sys.meta_path.insert(0, Missing())\n"
        "try:\n"
        "    import rootfree_torch\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error.name, error)\n"
    )
    assert _output(finder) == 'torch rootfree_torch needs PyTorch: pip install "rootfree[torch]"\n'


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("__version__ = '2.5.1+cpu'", "ImportError rootfree_torch needs torch >= 2.6, found 2.5.1"),
        ("import libmissing", "ModuleNotFoundError No module named 'libmissing'"),
        ("raise ImportError('libcudart.so')", "ImportError libcudart.so"),
    ],
    ids=["old", "incomplete", "broken"],
)
def test_torch_that_does_not_do(tmp_path, source, message):
    """1.6: an old torch is named; a broken one keeps its own error."""
    (tmp_path / "torch.py").write_text(source)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "try:\n"
        "    import rootfree_torch\n"
        "except ImportError as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    assert _output(code).startswith(message)


def _output(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
