"""The suite's own numbers (conformance 7): frozen, the same on every machine, and well spread."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from rootfree_conformance.cases.draws import normal, uniform
from rootfree_conformance.cases.expand import balanced, runs, single_steps
from rootfree_conformance.cases.families import POLICIES
from rootfree_conformance.numeric import FORMATS, quantise

MASK = 2**64 - 1
FROZEN_UNIFORM = ["0x1.0ec45fe0f1f4dp-1", "0x1.e706b554966f8p-1", "0x1.61093baacc208p-4"]
FROZEN_NORMAL = ["0x1.59fe14c5cbe40p-4", "-0x1.4585ed66df048p-1", "0x1.6eb9287c4d5e0p+0"]


def splitmix64(seed: str, count: int) -> list[float]:
    """Return SplitMix64's numbers with Python's integers, as its paper writes it."""
    z = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "little")
    numbers = []
    for _ in range(count):
        z = (z + 0x9E3779B97F4A7C15) & MASK
        mixed = z
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
        mixed ^= mixed >> 31
        numbers.append((mixed >> 11) * 2.0**-53)
    return numbers


def test_numbers_are_frozen():
    """Three numbers, for ever: a change of the draws is a change of every case."""
    assert [x.hex() for x in uniform("rootfree", (3,)).tolist()] == FROZEN_UNIFORM
    assert [x.hex() for x in normal("rootfree", (3,)).tolist()] == FROZEN_NORMAL


def test_uniform_is_splitmix64():
    """The published generator, element by element in row-major order."""
    assert uniform("a seed", (2, 3)).ravel().tolist() == splitmix64("a seed", 6)


@pytest.mark.parametrize(("draw", "mean", "variance"), [(uniform, 0.5, 1 / 12), (normal, 0.0, 1.0)])
def test_distribution(draw, mean, variance):
    """Mean and variance within five standard errors of what they should be."""
    x = draw("distribution", (100, 100))
    assert abs(x.mean() - mean) < 5 * np.sqrt(variance / x.size)
    assert abs(x.var() - variance) < 5 * variance * np.sqrt(2 / x.size)
    assert abs(np.corrcoef(x.ravel()[1:], x.ravel()[:-1])[0, 1]) < 5 / np.sqrt(x.size)


def test_every_seed_and_element_is_its_own():
    """No two seeds share numbers, no number repeats, and 0-d and empty shapes work."""
    x, y = uniform("a", (1000,)), uniform("b", (1000,))
    assert len({*x.tolist(), *y.tolist()}) == 2000
    assert uniform("a", ()).shape == ()
    assert normal("a", (0, 4)).shape == (0, 4)


def test_inputs_are_values_of_their_dtypes():
    """Representation error is never charged to a port: every input is rounded once, before."""
    cases = [*single_steps("L3.2"), *balanced("L6.1"), *list(runs("L4.0"))[::20]]
    for case in cases[::7]:
        param, state = (FORMATS[n] for n in (case.policy.dtype, case.policy.state_dtype))
        for array, form in [
            (case.param, param),
            *((grad, param) for grad in case.grads),
            *((case.state[role], state) for role in case.roles if case.state),
        ]:
            assert np.array_equal(quantise(array, form), array), case.id


def test_every_term_is_visible_in_balanced_cases():
    """No gradient, state or hyper-parameter of a balanced case is zero (conformance 7)."""
    for case in balanced("L3.2"):
        assert all(value != 0 for value in case.hypers[0].values())
        arrays = [case.param, *case.grads, *(case.state[role] for role in case.roles)]
        assert all(np.all(array != 0) for array in arrays)
    assert {case.policy.label for case in balanced("L3.2")} == set(POLICIES)


def test_checks_share_numbers_and_not_ids():
    """The label names the numbers; the id adds check and policy, and no two cases share one."""
    ids = [case.id for check in ("L3.2", "L4.0") for case in (*single_steps(check),)]
    assert len(set(ids)) == len(ids)
    one, other = next(single_steps("L3.2")), next(single_steps("L9.9"))
    assert one.label == other.label
    assert np.array_equal(one.param, other.param)
