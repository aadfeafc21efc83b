"""What is counted of a step: operations, and temporary memory by the storages that live."""

from __future__ import annotations

import torch

from benchmarks.counting import counted


def test_temporaries_are_those_that_live_at_once() -> None:
    """Two of three temporaries of 400 bytes live at the same time; the result replaces nothing."""
    x = torch.ones(100)
    kept = []

    def step() -> None:
        y = x * 2  # 400
        z = y + 1  # 800
        del y  # 400
        kept.append(z.exp())  # 800, and z goes

    counts = counted(step)
    assert counts.peak_bytes == 800
    assert counts.operations == 3


def test_views_and_writes_in_place_take_nothing() -> None:
    """A view shares its storage; an operation in place, or into `out`, makes none."""
    x, out = torch.ones(10, 10), torch.empty(10, 10)

    def step() -> None:
        x.add_(1)
        torch.mm(x.mT, x, out=out)

    counts = counted(step)
    assert counts.peak_bytes == 0
    assert counts.operations == 3


def test_what_is_freed_makes_room() -> None:
    """Where the old is freed before the new is made, nothing is needed besides."""
    held = [torch.ones(100)]

    def step() -> None:
        held[0].mul_(1)  # seen, as what was there before
        held.clear()
        held.append(torch.ones(100))

    assert counted(step).peak_bytes == 0


def test_counting_is_repeatable() -> None:
    """The same step counts the same, though storages of the first may be used again."""
    x = torch.ones(50)
    assert len({counted(lambda: (x * 2).sum()) for _ in range(5)}) == 1
