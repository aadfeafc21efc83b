"""Large parameters: an elementwise step is cut where that keeps numbers in cache, to the bit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rootfree_array import AdamW, RFRMSProp, _platform
from rootfree_array._step import _pieces

SHAPES = [(16, 20), (20, 16), (700,), (3, 170), (2, 3, 100), (1, 1, 300), (240,)]


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_large_parameters_in_pieces(shape, in_place, normal, monkeypatch, same_bits, calls):
    """Cut or whole, elementwise steps have the same bits, in both modes and any memory order."""
    for cls in (RFRMSProp, AdamW):
        shapes = {"w": shape, "small": (3,)}
        found = []
        for cached in (None, 60):
            monkeypatch.setattr(_platform, "_CACHED", cached)
            params = normal(0, np.float32, shapes)
            params["w"] = np.asfortranarray(params["w"])
            optimizer = cls(params, in_place=in_place, momentum=0.5, weight_decay=0.1)
            calls.clear()
            for number in range(3):
                optimizer.step(normal(number, np.float32, shapes))
            assert all(optimizer.params[n] is params[n] for n in params) == in_place
            found.append((dict(optimizer.params), optimizer.state, calls["update"]))
        (whole, state, none), (pieces, others, some) = found
        assert none == 0
        assert (some > 0) == (np.prod(shape) > 240)
        assert same_bits(whole, pieces)
        assert same_bits(state, others)


def test_a_really_large_parameter(normal, calls, same_bits):
    """2**18 numbers at a time, of float32 and of bfloat16 with float32 state."""
    for dtype in (np.float32, ml_dtypes.bfloat16):
        param, grad = (normal(seed, dtype, {"w": (1280, 1024)}) for seed in (0, 1))
        calls.clear()
        pieces = RFRMSProp(param)
        pieces.step(grad)
        assert calls == {"update": 5, "add_step": 5}
        whole = RFRMSProp(param)
        whole.step(grad, curvature={"w": grad["w"].astype(np.float32) ** 2})
        assert calls == {"update": 5, "observed": 1, "advanced": 1, "add_step": 6}
        np.testing.assert_array_equal(pieces.params["w"], whole.params["w"])


def test_stochastic_rounding_is_not_cut(normal, calls, monkeypatch):
    """Its bits depend on an element's place: the rule says so, and steps as a whole."""
    monkeypatch.setattr(_platform, "_CACHED", 30)
    low = {"state_dtype": "bfloat16", "rounding": "stochastic"}
    optimizer = RFRMSProp(normal(0, np.float32, {"w": (200,)}), **low)
    optimizer.step(normal(1, np.float32, {"w": (200,)}))
    assert calls == {"observed": 1, "advanced": 1, "add_step": 1}


@pytest.mark.parametrize("cached", [None, 3])
def test_gradients_may_be_the_parameters(cached, monkeypatch, same_bits):
    """Of a product, each factor's gradient is the other one: all is read before it is written."""
    monkeypatch.setattr(_platform, "_CACHED", cached)
    start = {name: np.arange(i, i + 16.0).reshape(4, 4) for i, name in enumerate("ab")}
    copied = RFRMSProp(start, lr=0.5)
    shared = RFRMSProp({name: p.copy() for name, p in start.items()}, lr=0.5, in_place=True)
    for _ in range(2):
        for optimizer, of in ((copied, np.copy), (shared, lambda x: x)):
            a, b = (of(optimizer.params[name]) for name in "ab")
            optimizer.step({"a": b.T, "b": a})
    assert same_bits(copied.params, shared.params)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 40))
def test_pieces_cover_every_number_once(shape, most):
    """Whatever the shape, and none has more numbers than asked for."""
    counts = np.zeros(shape, int)
    for piece in _pieces(tuple(shape), most):
        assert 0 < counts[piece].size <= most
        counts[piece] += 1
    assert np.all(counts == 1)
