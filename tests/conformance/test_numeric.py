"""Rounding into a format is what hardware does (conformance 3: inputs are quantised once)."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest
from rootfree_conformance.numeric import FORMATS, NumericModel, quantise

CASTS = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def cast(x: np.ndarray, name: str) -> np.ndarray:
    """Round with the library that owns the dtype."""
    with np.errstate(over="ignore"):
        # NOTE: ml_dtypes takes float64 through float32; inputs of these tests are float32 numbers.
        return x.astype(CASTS[name]).astype(np.float64)


def same_bits(x: np.ndarray, y: np.ndarray) -> bool:
    """Compare signs of zeros too; NaN is NaN whatever its payload."""
    x, y = (np.where(np.isnan(a), np.nan, a) for a in (x, y))
    return np.array_equal(x.view(np.int64), y.view(np.int64))


def decades(low: int, high: int, count: int = 20_000) -> np.ndarray:
    """Return float32 numbers of both signs, evenly over powers of two, subnormals included."""
    draws = np.random.default_rng(1)
    exponents = draws.uniform(low, high, count)
    return (draws.choice([-1.0, 1.0], count) * 2.0**exponents).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("name", CASTS)
def test_quantise_is_the_cast(name):
    """Equal to the library's cast, bit for bit, from below the smallest number to the largest."""
    form = FORMATS[name]
    lowest = int(np.log2(form.smallest_subnormal)) - 3
    x = decades(max(lowest, -149), min(form.max_exponent + 2, 127))
    assert same_bits(quantise(x, form), cast(x, name))


@pytest.mark.parametrize("name", CASTS)
def test_ties_go_to_the_even_neighbour(name):
    """Halfway between two neighbours, normal and subnormal, as the library's cast."""
    form = FORMATS[name]
    units = np.arange(-64, 64) + 0.5
    for spacing in (form.smallest_subnormal, 2.0 ** (1 - form.bits), 2.0 ** (12 - form.bits)):
        x = (units + np.sign(units) * (2.0 ** (form.bits - 1) if spacing > 1e-30 else 0)) * spacing
        expected = np.rint(x / spacing) * spacing
        assert same_bits(quantise(x, form), expected)
        if name != "float32":  # a float32 tie is no float32 number
            assert same_bits(quantise(x, form), cast(x, name))


@pytest.mark.parametrize("name", CASTS)
def test_overflow(name):
    """The largest number stays, half a spacing beyond it and all that follows is infinite."""
    form = FORMATS[name]
    largest = (2 - 2.0 ** (1 - form.bits)) * 2.0**form.max_exponent
    beyond = 2.0 ** (form.max_exponent - form.bits)
    x = np.asarray([largest, np.nextafter(largest + beyond, 0), largest + beyond, 1.79e308, np.inf])
    expected = np.asarray([largest, largest, np.inf, np.inf, np.inf])
    for sign in (1.0, -1.0):
        assert same_bits(quantise(sign * x, form), sign * expected)


@pytest.mark.parametrize("name", FORMATS)
def test_special_values(name):
    """Zeros keep their signs, NaN stays NaN, and no format warns about the largest float64."""
    x = np.asarray([0.0, -0.0, np.nan, np.finfo(np.float64).max])
    came = quantise(x, FORMATS[name])
    assert same_bits(came[:3], x[:3])
    assert came[3] == (x[3] if name == "float64" else np.inf)


@pytest.mark.parametrize("name", FORMATS)
def test_format_describes_the_dtype(name):
    """Bits, unit and smallest numbers are those that the dtype's own `finfo` has."""
    form = FORMATS[name]
    info = ml_dtypes.finfo(CASTS.get(name, np.float64))
    assert 2 * form.unit == float(info.eps)
    assert form.smallest_normal == float(info.smallest_normal)
    assert form.smallest_subnormal == float(info.smallest_subnormal)
    assert form.bits == info.nmant + 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"bits": 0}, "`bits` must be at least 1, got 0"),
        ({"matmul_bits": -3}, "`matmul_bits` must be at least 1, got -3"),
        ({"div": -0.5}, "`div` must be >= 0, got -0.5"),
        ({"log1p": np.nan}, "`log1p` must be >= 0, got nan"),
        ({"subnormals": "lost"}, "`subnormals` must be one of 'kept', 'flushed'; got 'lost'"),
        ({"write": "later"}, "`write` must be one of 'fused', 'returned'; got 'later'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_declaration_that_is_none(given, words):
    """A model that describes no arithmetic is refused where it is made."""
    with pytest.raises(ValueError, match=re.escape(words)):
        NumericModel(**given)


def test_quantise_returns_what_it_can_hold():
    """Idempotent, and float64 is not touched."""
    x = np.random.default_rng(2).normal(size=100)
    assert same_bits(quantise(x, FORMATS["float64"]), x)
    for form in FORMATS.values():
        once = quantise(x, form)
        assert same_bits(quantise(once, form), once)
