"""Low precision: training with bfloat16, state that stands still, and what a device offers."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from rootfree_array._precision import StalledStateWarning
from rootfree_torch import RFRMSProp, capabilities
from rootfree_torch._precision import DTYPES, dtype_name, named_dtype

STOCHASTIC = {"state_dtype": "bfloat16", "rounding": "stochastic"}


@pytest.mark.parametrize("options", [{}, STOCHASTIC], ids=["float32 state", "bfloat16 state"])
def test_training(normal, options):
    """RF-RMSProp with bfloat16 parameters solves a small regression to their resolution."""
    x, target = normal(0, (64, 8)), normal(1, (8, 2))
    weight = torch.nn.Parameter(torch.zeros(8, 2, dtype=torch.bfloat16))
    optimizer = RFRMSProp([weight], lr=0.1, precond_lr=0.05, batch_size=64, **options)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=150)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = (x @ weight.float() - x @ target).square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    assert weight.dtype == torch.bfloat16
    assert losses[-1] < 1e-3 * losses[0]


@pytest.mark.parametrize(
    ("options", "decays"),
    [({}, True), (STOCHASTIC, True), ({"state_dtype": "bfloat16"}, False)],
    ids=["float32", "stochastic bfloat16", "nearest bfloat16"],
)
def test_decay_under_zero_gradients(options, decays):
    """P: at `precond_lr=1e-3` s follows (1 - 1e-3)^t, but not in bfloat16 rounded to nearest.

    The mean over 4096 elements of a stochastically rounded s has a standard error below 0.1 of the
    6 % that it is allowed here.
    """
    weight = torch.nn.Parameter(torch.ones(64, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("default" if decays else "ignore", StalledStateWarning)
        optimizer = RFRMSProp([weight], precond_lr=1e-3, **options)
    weight.grad = torch.zeros_like(weight)
    for _ in range(300):
        optimizer.step()
    mean = optimizer.state[weight]["statistic"].double().mean().item()
    assert mean == pytest.approx((1 - 1e-3) ** 300 if decays else 1.0, rel=0.06 if decays else 0)


def test_warning_at_construction():
    """Nearest-rounded bfloat16 state is warned of once a group, where the optimizer is made."""
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    with pytest.warns(StalledStateWarning, match=r"precond_lr=0.001") as caught:
        RFRMSProp(params, precond_lr=1e-3, state_dtype="bfloat16")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    RFRMSProp(params, precond_lr=1e-2, state_dtype="bfloat16")
    groups = [{"params": params, "precond_lr": 1e-3}]
    with pytest.warns(StalledStateWarning):
        RFRMSProp(groups, precond_lr=1e-2, state_dtype="bfloat16")


@pytest.mark.parametrize(
    ("dtype", "options", "match"),
    [
        (torch.float64, {"state_dtype": "float32"}, "state_dtype"),
        (torch.float32, {"state_dtype": "float64"}, "state_dtype"),
        (torch.float32, {"state_dtype": "float16"}, "state_dtype"),
        (torch.float32, {"rounding": "stochastic"}, "rounding"),
        (torch.float64, STOCHASTIC, "state_dtype"),
    ],
    ids=str,
)
def test_refused_combinations(dtype, options, match):
    """A storage that does not go with a parameter is refused at construction."""
    with pytest.raises(ValueError, match=match):
        RFRMSProp([torch.nn.Parameter(torch.ones(2, dtype=dtype))], **options)


def test_names_of_dtypes():
    """Names and objects translate to each other."""
    assert {name: dtype_name(dtype) for name, dtype in DTYPES.items()} == {n: n for n in DTYPES}
    assert named_dtype("state_dtype", None) is None


def test_capabilities():
    """What a device offers is plain data, and asking for it sets nothing."""
    before = torch.get_float32_matmul_precision()
    found = capabilities()
    assert json.loads(json.dumps(found)) == found
    assert found["device"] == "cpu"
    assert found["float32_products"] == "ieee"
    assert torch.get_float32_matmul_precision() == before
    assert isinstance(found["bfloat16_products"], bool)
    assert capabilities("meta")["bfloat16_products"] is False


@pytest.mark.parametrize(("told", "shown"), [("medium", "bf16"), ("high", "tf32")])
def test_capabilities_show_the_switches(told, shown):
    """1.4: what float32 products have been told to be is read, whichever switch has said it."""
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(told)
        assert capabilities()["float32_products"] == shown
        assert capabilities("cuda")["float32_products"] == "tf32"
    finally:
        torch.set_float32_matmul_precision(before)
    assert capabilities()["float32_products"] == "ieee"
