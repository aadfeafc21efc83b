"""One rule, every array library: the same numbers on NumPy, array_api_strict, torch and JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import array_api_strict
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from rootfree_array import RFRMSProp

HYPER = {"lr": 0.25, "momentum": 0.5, "weight_decay": 0.125, "precond_lr": 0.25, "damping": 0.125}
HYPER |= {"precond_momentum": 0.25}


class Library(NamedTuple):
    """How NumPy arrays get into a library and out of it."""

    put: Callable[[np.ndarray], Any]
    get: Callable[[Any], np.ndarray]
    kind: Callable[[Any], bool]


LIBRARIES = {
    "strict": Library(
        lambda x: array_api_strict.asarray(x, device=array_api_strict.Device("device1")),
        lambda x: np.asarray(x.to_device(array_api_strict.Device("CPU_DEVICE"))),
        lambda x: str(x.device) == str(array_api_strict.Device("device1")),
    ),
    "torch": Library(
        lambda x: torch.tensor(x), lambda x: x.numpy(), lambda x: isinstance(x, torch.Tensor)
    ),
    "jax": Library(
        lambda x: jnp.asarray(x), lambda x: np.asarray(x), lambda x: isinstance(x, jnp.ndarray)
    ),
}


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Library:
    """Each library in turn."""
    return LIBRARIES[request.param]


def settings(cls):
    """Return hyper-parameters at which every term shows."""
    return {name: HYPER[name] for name in cls.method.hyper}


def run(cls, normal, put, count, **given):
    """Take steps from balanced state."""
    optimizer = cls({n: put(p) for n, p in normal(0, np.float32).items()}, **given)
    for number in range(1, count + 1):
        optimizer.step({n: put(g) for n, g in normal(number, np.float32).items()}, batch_size=3)
    return optimizer


def test_same_numbers(cls, library, normal):
    """float32: a step is NumPy's within one rounding of the largest number that it adds.

    Products and decompositions add in other orders: there the suite judges, and here a step is
    NumPy's to four digits.
    """
    roundings = 8 if cls.method.fixed.get("bias_correction") else 1  # log1p, expm1: a few ulps
    ours = run(cls, normal, library.put, 1, **settings(cls))
    numpys = run(cls, normal, lambda x: x, 1, **settings(cls))
    for name, param in numpys.params.items():
        mine = library.get(ours.params[name])
        assert mine.dtype == np.float32
        assert mine.shape == param.shape
        largest = np.abs(normal(0, np.float32)[name]) + np.abs(param)
        within = 1e-4 * np.max(largest) if cls.method.matrix else roundings * np.spacing(largest)
        assert np.all(np.abs(mine - param) <= within)
        for role, array in numpys.state[name].items():
            came = library.get(ours.state[name][role])
            assert came.dtype == array.dtype
            size = np.abs(array).astype(np.float32)
            within = 1e-4 * np.max(size) if cls.method.matrix else np.spacing(size)
            assert np.all(np.abs(came - array) <= within)


def test_results_stay_in_their_library(cls, library, normal):
    """Parameters and state are arrays of the library and device that the parameters were of."""
    optimizer = run(cls, normal, library.put, 2, **settings(cls))
    arrays = [*optimizer.params.values()]
    arrays += [array for roles in optimizer.state.values() for array in roles.values()]
    assert all(library.kind(array) for array in arrays)


def test_save_and_load(cls, library, normal):
    """A run goes on bit for bit in every library."""
    whole = run(cls, normal, library.put, 2, **settings(cls))
    resumed = cls(whole.params, **settings(cls))
    resumed.load_state_dict(whole.state_dict())
    for optimizer in (whole, resumed):
        optimizer.step({n: library.put(g) for n, g in normal(9, np.float32).items()})
    for name in whole.params:
        one, other = (library.get(o.params[name]) for o in (whole, resumed))
        assert one.tobytes() == other.tobytes()


@pytest.mark.filterwarnings("ignore:You are comparing a array_api_strict dtype:UserWarning")
def test_a_gradient_of_another_library_is_refused(library, normal):
    """NumPy's gradients are not taken for the library's own."""
    optimizer = RFRMSProp({n: library.put(p) for n, p in normal(0, np.float32).items()})
    with pytest.raises(ValueError, match=r"gradient of 'bias' has d(type|evice) "):
        optimizer.step(normal(1, np.float32))
    assert int(optimizer.state["bias"]["step"]) == 0


def test_a_gradient_on_another_device_is_refused():
    """Devices must agree: nothing is copied behind the user's back."""
    here, there = (array_api_strict.Device(name) for name in ("device1", "device2"))
    single = array_api_strict.float32
    optimizer = RFRMSProp({"w": array_api_strict.ones(2, dtype=single, device=here)})
    with pytest.raises(ValueError, match=r"gradient of 'w' has device .*device2.*convert"):
        optimizer.step({"w": array_api_strict.ones(2, dtype=single, device=there)})


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_bfloat16(name, normal):
    """bfloat16 parameters, and state with the published bits: equal in every library."""
    library = LIBRARIES[name]
    dtype = {"torch": torch.bfloat16, "jax": jnp.bfloat16}[name]
    narrow = {"torch": lambda x: torch.tensor(x).to(dtype), "jax": lambda x: jnp.asarray(x, dtype)}
    import ml_dtypes

    given = {"state_dtype": "bfloat16", "rounding": "stochastic", "lr": 0.25}
    ours = run(RFRMSProp, normal, narrow[name], 3, **given)
    numpys = run(RFRMSProp, normal, lambda x: x.astype(ml_dtypes.bfloat16), 3, **given)

    def wide(array):
        return library.get(array.float() if name == "torch" else array.astype(jnp.float32))

    for parameter, roles in numpys.state.items():
        assert np.array_equal(wide(ours.params[parameter]), numpys.params[parameter].astype(float))
        for role in ("statistic", "momentum"):
            came = wide(ours.state[parameter][role])
            assert np.array_equal(came, roles[role].astype(np.float32))


def test_torch_in_place():
    """A tensor is written where it is; one that autograd watches is refused by torch itself."""
    weight = torch.ones(3)
    optimizer = RFRMSProp({"w": weight}, lr=0.5, in_place=True)
    optimizer.step({"w": torch.ones(3)})
    assert optimizer.params["w"] is weight
    assert not torch.equal(weight, torch.ones(3))
