"""Turns within a period: who observes when, and how evenly the work is spread."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rootfree import observes, phases, slices

COSTS = st.lists(st.integers(0, 100), max_size=30)


@pytest.mark.parametrize("phase", range(4))
def test_first_step_and_every_fourth(phase):
    """Step 0 observes whatever the phase, then one step in each period."""
    found = [count for count in range(20) if observes(4, count, phase)]
    assert found[0] == 0
    later = [count for count in found if count]
    assert [(count + phase) % 4 for count in later] == [0] * len(later)
    assert len(later) == (4 if phase == 0 else 5)


def test_a_function_decides_alone():
    """A function is asked at the first step too, and no phase moves it."""
    assert [observes(lambda count: count == 3, count, 2) for count in range(5)] == [
        False, False, False, True, False,
    ]  # fmt: skip


@given(COSTS, st.integers(1, 12))
def test_phases_spread_the_work(costs, period):
    """Graham's bound: at most 4/3 - 1/(3 period) of what the busiest phase must hold."""
    given_phases = phases(costs, period)
    assert len(given_phases) == len(costs)
    assert all(0 <= phase < period for phase in given_phases)
    load = [
        sum(c for c, p in zip(costs, given_phases, strict=True) if p == q) for q in range(period)
    ]
    if len(costs) <= 8 and period <= 3:
        assert max(load) <= (4 / 3 - 1 / (3 * period)) * _best(costs, period) + 1e-9
    assert max(load) <= sum(costs) / period + max(costs, default=0)


def _best(costs, period):
    """Return the least work that the busiest phase can have, by trying all assignments."""
    return min(
        max(sum(c for c, p in zip(costs, chosen, strict=True) if p == q) for q in range(period))
        for chosen in product(range(period), repeat=len(costs))
    )


def test_phases_respect_what_is_there():
    """New work goes where there is least of it already, the lowest phase at a tie."""
    assert phases([1.0, 1.0], 3, taken=[5.0, 0.0, 0.5]) == [1, 2]
    assert phases([1.0, 1.0, 1.0], 3) == [0, 1, 2]


@given(st.integers(1, 50), st.integers(1, 60))
def test_slices_cover_evenly(count, parts):
    """Neighbourhoods follow each other, cover everything, and differ by one at most."""
    cut = slices(count, parts)
    assert [i for part in cut for i in part] == list(range(count))
    assert len(cut) == min(count, parts)
    assert max(map(len, cut)) - min(map(len, cut)) <= 1
