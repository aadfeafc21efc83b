"""The textbook's rounding to bfloat16: against its literal form in float32, and its laws."""

import math

import ml_dtypes
import numpy as np
import pytest
from rootfree_textbook import round_stochastically, round_to_bfloat16

ULP = 2.0**-7  # spacing of bfloat16 in [1, 2)


def int32(constant):
    """`constant` modulo 2^32 as a signed 32-bit number."""
    return np.array(constant % 2**32, dtype=np.uint32).astype(np.int32)


def logical_shift(x, k):
    """A logical shift from the arithmetic one, by masking."""
    return (x >> np.int32(k)) & np.int32(2 ** (32 - k) - 1)


def fmix(x):
    """The finaliser in signed 32-bit arithmetic with products that wrap."""
    x = np.atleast_1d(x)  # arrays wrap silently, scalars warn
    x = x ^ logical_shift(x, 16)
    x = x * int32(0x85EBCA6B)
    x = x ^ logical_shift(x, 13)
    x = x * int32(0xC2B2AE35)
    return x ^ logical_shift(x, 16)


def literal(x, role, count, salt):
    """Section 4.3 line by line: int32 for the hash, float32 for the rounding, no bit patterns."""
    x = x.astype(np.float32)
    inf = np.float32(np.inf)
    idx = np.arange(x.size, dtype=np.int32).reshape(x.shape)
    with np.errstate(invalid="ignore", over="ignore"):
        c1, c2 = np.atleast_1d(int32(0x9E3779B9)), np.atleast_1d(int32(0x7F4A7C15))
        key = fmix(int32(salt) + np.atleast_1d(int32(role)) * c1)
        k = fmix(idx * c1 + np.atleast_1d(int32(count)) * c2 + key) & np.int32(0xFFFF)
        r = k.astype(np.float32) * np.float32(2.0**-16)
        a = np.abs(x)
        ulp16 = (np.nextafter(a, inf) - a) * np.float32(65536)
        ok = (a >= np.float32(2.0**-103)) & np.isfinite(ulp16)
        ulp16 = np.where(ok, ulp16, np.float32(1))
        q = a / ulp16
        lo = np.floor(q)
        f = q - lo
        y = (lo + (r < f)) * ulp16
        out = np.where(ok & (f > 0), np.where(x < 0, -y, y), x)
        return out.astype(ml_dtypes.bfloat16).astype(np.float64)


def assert_same_bits(actual, desired):
    """Equal as float64 numbers, signs of zero included; NaN equals NaN."""
    np.testing.assert_array_equal(actual, desired)
    numbers = ~np.isnan(desired)
    np.testing.assert_array_equal(np.signbit(actual[numbers]), np.signbit(desired[numbers]))


def many_values():
    """131,000 float32 values of all magnitudes, and every kind of special one."""
    rng = np.random.default_rng(0)
    everywhere = rng.integers(0, 0x7F800000, size=60_000, dtype=np.uint32).view(np.float32)
    usual = (rng.standard_normal(60_000) * 10.0 ** rng.uniform(-20, 6, 60_000)).astype(np.float32)
    subnormal = rng.integers(0, 0x00800000, size=10_000, dtype=np.uint32).view(np.float32)
    largest = rng.integers(0x7F7E0000, 0x7F800000, size=1000, dtype=np.uint32).view(np.float32)
    borders = [
        0.0,
        2.0**-149,
        2.0**-134,
        2.0**-133,
        2.0**-126,
        np.nextafter(np.float32(2.0**-126), np.float32(0)),
        2.0**-103,
        1.0,
        np.nextafter(np.float32(1), np.float32(0)),
        np.nextafter(np.float32(1), np.float32(2)),
        np.finfo(np.float32).max,
        float(ml_dtypes.finfo(ml_dtypes.bfloat16).max),
        np.inf,
        np.nan,
        np.uint32(0x7FFFFFFF).view(np.float32),  # the NaN of the largest pattern
    ]
    magnitudes = np.concatenate([everywhere, usual, subnormal, largest, np.float32(borders)])
    signs = rng.choice([-1.0, 1.0], size=magnitudes.size)
    both = np.concatenate([np.float32(borders), -np.float32(borders)])
    return np.concatenate([magnitudes * signs, both]).astype(np.float64)


def bfloat16_values():
    """All 65,282 bfloat16 numbers and infinities: every pattern that is no NaN."""
    patterns = np.arange(2**16, dtype=np.uint32)
    numbers = patterns[(patterns & 0x7FFF) <= 0x7F80]
    return (numbers << 16).view(np.float32).astype(np.float64)


def test_nearest_is_the_cast_of_ml_dtypes():
    """Nearest, ties to even, over all magnitudes: every number as the reference type rounds it."""
    below = bfloat16_values()
    below = below[np.isfinite(below)].astype(np.float32).view(np.uint32)
    ties = (below + np.uint32(0x8000)).view(np.float32).astype(np.float64)
    values = np.concatenate([many_values(), ties])
    with np.errstate(over="ignore"):
        expected = values.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)
    assert_same_bits(round_to_bfloat16(values), expected)


@pytest.mark.parametrize(
    ("role", "count", "salt"),
    [(1, 0, 0), (2, 1, 12345), (3, 999_999, -1), (4 + 2 * 3 + 1024, 2**31 - 1, -(2**31))],
)
def test_stochastic_is_the_literal_form(role, count, salt):
    """Section 4.3: the bit trick and the hash equal the published lines in every bit.

    Subnormal numbers of both signs, zeros, the largest numbers, infinities and NaN included.
    """
    values = many_values()
    assert values.size > 100_000
    rounded = round_stochastically(values, role=role, count=count, salt=salt)
    assert_same_bits(rounded, literal(values, role, count, salt))


def test_the_largest_float32_has_no_spacing():
    """Section 4.3, `ok`: where the spacing overflows the cast rounds to nearest, here to infinity.

    The bit trick alone would round down where k = 65535; one of 2^18 draws or so must have that k.
    """
    largest = np.full(2**18, np.finfo(np.float32).max, dtype=np.float64)
    np.testing.assert_array_equal(round_stochastically(largest, role=2, count=3, salt=4), np.inf)
    np.testing.assert_array_equal(literal(largest, 2, 3, 4), np.inf)


@pytest.mark.parametrize(("seed", "expected"), [(0, 0), (1, 0x514E28B7), (0xFFFFFFFF, 0x81F16F39)])
def test_the_literal_hash_is_murmurhash3(seed, expected):
    """Published vectors of MurmurHash3 (x86, 32 bits) of the empty string, which is fmix(seed).

    The comparison above is then with the published constants and not with a copy of a mistake.
    """
    assert fmix(int32(seed)).astype(np.uint32).item() == expected


@pytest.mark.parametrize("count", [0, 1, 77])
def test_bfloat16_numbers_never_change(count):
    """Section 4.3: what is a bfloat16 already stays, -0.0 and subnormal numbers included."""
    values = bfloat16_values()
    assert_same_bits(round_to_bfloat16(values), values)
    assert_same_bits(round_stochastically(values, role=2, count=count, salt=9), values)


def test_results_are_the_two_neighbours():
    """Section 4.3: a magnitude goes to the bfloat16 below or above it, and both happen."""
    values = np.random.default_rng(1).uniform(1, 2, 10_000).astype(np.float32).astype(np.float64)
    rounded = round_stochastically(values, role=2, count=5, salt=6)
    below = np.floor(values / ULP) * ULP
    up = rounded > below
    np.testing.assert_array_equal(rounded[up], below[up] + ULP)
    np.testing.assert_array_equal(rounded[~up], below[~up])
    assert 0.45 < np.mean(up) < 0.55


def test_the_mean_is_unbiased():
    """Section 4.3: P(up) = f, so the mean of n draws is off by sqrt(1/(6 n)) ulp, root mean square.

    f (1 - f) has the mean 1/6. With 4096 entries the root mean square is known to 2 %, and the mean
    over all entries is zero to its standard deviation of sqrt(1/(6 n 4096)): 5 of them are allowed.
    """
    draws, size = 400, 4096
    values = np.random.default_rng(2).uniform(1, 2, size).astype(np.float32).astype(np.float64)
    mean = np.zeros(size)
    for count in range(draws):
        mean += round_stochastically(values, role=2, count=count, salt=0) / draws
    error = (mean - values) / ULP
    theory = math.sqrt(1 / (6 * draws))
    assert math.sqrt(np.mean(error**2)) == pytest.approx(theory, rel=0.06)
    assert abs(np.mean(error)) < 5 * theory / math.sqrt(size)


def test_small_decays_are_not_lost():
    """P26: 1.0 decayed 1000 times by 1e-3 ends at 0.999^1000 = 0.3677, where nearest stays at 1.0.

    The mean of the entries is off by at most 5 of its standard deviations, estimated from them.
    """
    size = 1024
    stochastic, nearest = np.ones(size), np.ones(1)
    for count in range(1000):
        decayed = (np.float32(0.999) * stochastic.astype(np.float32)).astype(np.float64)
        stochastic = round_stochastically(decayed, role=2, count=count, salt=3)
        nearest = round_to_bfloat16(np.float32(0.999) * nearest)
    deviation = np.std(stochastic) / math.sqrt(size)
    assert deviation < 1e-3
    assert abs(np.mean(stochastic) - 0.999**1000) < 5 * deviation
    assert nearest.item() == 1.0


@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (0,), (2, 0)])
def test_shapes_and_entries(shape):
    """Section 4.3: entries are numbered row by row, so a shape changes nothing; inputs stay."""
    values = np.asarray(np.random.default_rng(4).standard_normal(shape))
    values = np.asarray(values.astype(np.float32).astype(np.float64))
    values.flags.writeable = False
    for rounded, flat in (
        (round_to_bfloat16(values), round_to_bfloat16(values.reshape(-1))),
        (
            round_stochastically(values, role=1, count=2, salt=3),
            round_stochastically(values.reshape(-1), role=1, count=2, salt=3),
        ),
    ):
        assert rounded.shape == shape
        assert rounded.dtype == np.float64
        np.testing.assert_array_equal(rounded.reshape(-1), flat)
    turned = np.asfortranarray(values)
    np.testing.assert_array_equal(
        round_stochastically(turned, role=1, count=2, salt=3),
        round_stochastically(values, role=1, count=2, salt=3),
    )


def test_draws_depend_on_role_count_and_salt():
    """Section 4.3: each of the three gives other bits, so that no two arrays round in step."""
    halfway = np.full(4096, 1 + ULP / 2)
    first = round_stochastically(halfway, role=1, count=1, salt=1)
    for changed in ({"role": 2}, {"count": 2}, {"salt": 2}):
        other = round_stochastically(halfway, **{"role": 1, "count": 1, "salt": 1} | changed)
        assert 0.45 < np.mean(first == other) < 0.55
