"""Stochastic rounding to bfloat16: the same bits everywhere, and none too few (mathematics 4.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from rootfree.precision import round_stochastically

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SMALLEST = 2.0**-103  # from here on a library that flushes subnormal numbers sees the spacing
LARGEST = float(np.finfo(np.float32).max)


def on_numpy(x: np.ndarray, count: np.ndarray, salt: np.ndarray, role: int) -> np.ndarray:
    """Round with NumPy and ml_dtypes."""
    return round_stochastically(x, BFLOAT16, role=role, count=count, salt=salt)


def on_torch(x: np.ndarray, count: np.ndarray, salt: np.ndarray, role: int) -> np.ndarray:
    """Round with torch."""
    x, count, salt = (torch.tensor(a) for a in (x, count, salt))
    rounded = round_stochastically(x, torch.bfloat16, role=role, count=count, salt=salt)
    return rounded.view(torch.uint16).numpy().view(BFLOAT16)


def on_jax(x: np.ndarray, count: np.ndarray, salt: np.ndarray, role: int) -> np.ndarray:
    """Round with JAX, operation by operation."""
    x, count, salt = (jnp.asarray(a) for a in (x, count, salt))
    return np.asarray(round_stochastically(x, jnp.bfloat16, role=role, count=count, salt=salt))


def on_jax_jit(x: np.ndarray, count: np.ndarray, salt: np.ndarray, role: int) -> np.ndarray:
    """Round with JAX, compiled."""

    @jax.jit
    def compiled(x: Any, count: Any, salt: Any) -> Any:
        return round_stochastically(x, jnp.bfloat16, role=role, count=count, salt=salt)

    return np.asarray(compiled(jnp.asarray(x), jnp.asarray(count), jnp.asarray(salt)))


def on_strict(x: np.ndarray, count: np.ndarray, salt: np.ndarray, role: int) -> np.ndarray:
    """Round with array_api_strict, not on its default device, in float32 as it has no bfloat16."""
    device = array_api_strict.Device("device1")
    x, count, salt = (array_api_strict.asarray(a, device=device) for a in (x, count, salt))
    dtype = array_api_strict.float32
    rounded = round_stochastically(x, dtype, role=role, count=count, salt=salt)
    assert rounded.device == device
    host = array_api_strict.asarray(rounded, device=array_api_strict.Device("CPU_DEVICE"))
    return np.asarray(host).astype(BFLOAT16)


LIBRARIES = {
    "torch": on_torch,
    "jax": on_jax,
    "jax-jit": on_jax_jit,
    "array_api_strict": on_strict,
}


def bits(x: np.ndarray) -> np.ndarray:
    """Return the 16-bit patterns."""
    return x.view(np.uint16)


def samples() -> np.ndarray:
    """Return 131,072 float32 numbers of both signs over every power of two, and some corners."""
    rng = np.random.default_rng(0)
    x = np.exp2(rng.uniform(-149, 127.99, 2**17)) * rng.choice([-1, 1], 2**17)
    corners = [0.0, -0.0, 2.0**-149, -(2.0**-126), SMALLEST, SMALLEST * (1 - 2.0**-24)]
    corners += [1.0, 1 + 2.0**-23, 2 - 2.0**-23]
    x[: len(corners)] = corners
    return x.astype(np.float32).reshape(2, 2**16)


COUNT = np.array([0, 7], np.int32)
SALT = np.array([0, -123456789], np.int32)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("role", [1, 2, 3, 1024 * 5 + 7])
def test_same_bits(library: str, role: int) -> None:
    """4.3: no bit differs from NumPy's: subnormal numbers, zeros of both signs and all others."""
    x = samples()
    expected = bits(on_numpy(x, COUNT, SALT, role))
    came = bits(LIBRARIES[library](x, COUNT, SALT, role))
    assert np.count_nonzero(came != expected) == 0


def test_largest_numbers_and_non_finite_ones() -> None:
    """4.3: where the spacing is lost to overflow the cast rounds to nearest; NaN stays NaN."""
    x = np.array([[LARGEST, -LARGEST, np.inf, -np.inf, np.nan]], np.float32)
    count, salt = COUNT[:1], SALT[:1]
    with np.errstate(all="ignore"):  # NumPy reports the overflow that the rule allows for
        expected = x.astype(BFLOAT16)
        roundings = [on_numpy(x, count, salt, 1), on_strict(x, count, salt, 1)]
    roundings += [on_torch(x, count, salt, 1), on_jax(x, count, salt, 1)]
    for rounded in roundings:
        np.testing.assert_array_equal(rounded.astype(float), expected.astype(float))


def sixteen_bits(index: int, count: int, salt: int, role: int) -> int:
    """Return k, the random bits of one element, in Python's integers."""
    low = 0xFFFFFFFF

    def mix(x: int) -> int:
        x = ((x ^ x >> 16) * 0x85EBCA6B) & low
        x = ((x ^ x >> 13) * 0xC2B2AE35) & low
        return x ^ x >> 16

    key = mix((salt + role * 0x9E3779B9) & low)
    return mix((index * 0x9E3779B9 + count * 0x7F4A7C15 + key) & low) & 0xFFFF


def test_equals_the_bit_trick() -> None:
    """4.3: the same as adding 65535 - k to the pattern of the float32 number and cutting 16 bits.

    Below 2^-103 every library rounds to nearest, as one that flushes subnormal numbers must.
    Half of the elements have discarded bits k, which round down, or k + 1, which round up.
    """
    count, salt, role = int(COUNT[1]), int(SALT[1]), 3
    k = np.array([sixteen_bits(index, count, salt, role) for index in range(4000)], np.uint32)
    patterns = samples()[1:, : len(k)].view(np.uint32)
    patterns[:, ::4] = patterns[:, ::4] & 0xFFFF0000 | k[::4]
    patterns[:, 1::4] = patterns[:, 1::4] & 0xFFFF0000 | np.minimum(k[1::4] + 1, 0xFFFF)
    x = patterns.view(np.float32)
    came = bits(on_numpy(x, COUNT[1:], SALT[1:], role))
    expected = np.where(
        np.abs(x) < SMALLEST, bits(x.astype(BFLOAT16)), (patterns + 0xFFFF - k) >> 16
    )
    np.testing.assert_array_equal(came, expected)


def test_values_that_bfloat16_holds_never_change() -> None:
    """4.3: none of the 65,280 finite bfloat16 numbers changes, whatever the bits."""
    every = np.arange(2**16, dtype=np.uint16).view(BFLOAT16)
    every = every[np.isfinite(every.astype(np.float32))]
    for count in range(20):
        counter = np.array([count], np.int32)
        came = on_numpy(every.astype(np.float32)[None], counter, SALT[1:], 2)
        assert np.count_nonzero(bits(came)[0] != bits(every)) == 0


def test_mean_is_exact() -> None:
    """4.3: P(up) = f, so the mean error of 400 draws is 0 with rms sqrt(1/(6 * 400)) spacings.

    f is uniform here, hence E f(1 - f) = 1/6. Limits are 5 sigma: of the mean of all draws, and of
    the mean square over n elements, which varies by sqrt(2/n).
    """
    n, draws = 4096, 400
    rng = np.random.default_rng(1)
    x = (1 + rng.uniform(0, 1, n)).astype(np.float32)  # one binade: the spacing is 2^-7
    stack = np.broadcast_to(x, (draws, n))
    salt = np.zeros(draws, np.int32)
    rounded = on_numpy(stack, np.arange(draws, dtype=np.int32), salt, 2).astype(np.float64)
    error = (rounded - x) * 2**7
    assert np.all(np.abs(error) < 1)
    assert abs(error.mean()) < 5 * np.sqrt(1 / 6 / (n * draws))
    rms = np.sqrt(np.mean(error.mean(axis=0) ** 2))
    assert rms == pytest.approx(np.sqrt(1 / (6 * draws)), rel=5 * np.sqrt(2 / n) / 2)


def test_an_exact_one_does_not_drift() -> None:
    """4.3: just below a power of two the spacing halves, and the mean is still exact.

    Half the spacing below 1 rounds up half the time; 5 sigma for n draws.
    """
    n = 2**16
    x = np.full((1, n), 1 - 2.0**-9, np.float32)
    up = on_numpy(x, COUNT[:1], SALT[:1], 2).astype(float) == 1
    assert abs(up.mean() - 0.5) < 5 * 0.5 / np.sqrt(n)


@pytest.mark.parametrize("library", ["numpy", *LIBRARIES])
def test_stacking_changes_nothing(library: str) -> None:
    """4.3: the bits restart in each member, so a stack equals its members; 0 bits differ."""
    rounding: Callable[..., np.ndarray] = {"numpy": on_numpy, **LIBRARIES}[library]
    x = np.random.default_rng(2).normal(size=(5, 33, 7)).astype(np.float32)
    count = np.array([3, 3, 0, 9, 1], np.int32)
    salt = np.array([11, 12, 11, 11, -4], np.int32)
    stacked = bits(rounding(x, count, salt, 1))
    for i in range(len(x)):
        alone = bits(rounding(x[i : i + 1], count[i : i + 1], salt[i : i + 1], 1))
        np.testing.assert_array_equal(stacked[i : i + 1], alone)


@pytest.mark.parametrize("change", ["role", "count", "salt", "element"])
def test_bits_depend_on_all_that_they_should(change: str) -> None:
    """4.3: another role, count, salt or element draws other bits: half of the roundings differ.

    f = 1/2 everywhere, so two independent draws agree in n/2 of n cases, within 5 sigma.
    """
    n = 2**14
    x = np.full((1, n), 1 + 2.0**-8, np.float32)
    arguments = {"role": 1, "count": np.array([4], np.int32), "salt": np.array([9], np.int32)}
    came = bits(on_numpy(x, **arguments))
    if change == "element":
        other = np.roll(came, 1)
    else:
        other = bits(on_numpy(x, **{**arguments, change: arguments[change] + 1}))
    assert abs(np.mean(came == other) - 0.5) < 5 * 0.5 / np.sqrt(n)
