"""How the time of a step grows with the width of layers and with their number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypedDict

from benchmarks import floors, peers, torch_entries
from benchmarks.contestants import Contestant
from benchmarks.racing import Race, race
from benchmarks.shape_sets import Shapes


class Series(TypedDict):
    """Races on shapes that grow along one axis."""

    key: str
    title: str
    axis: str  # what grows
    sizes: list[int]
    races: list[Race]  # one a size


@dataclass(frozen=True)
class Growth:
    """A series to run.

    Attributes:
        key: its name in the results.
        title: for readers.
        axis: what grows.
        sizes: along it.
        shapes: returns the shapes of a size.
        contestants: who takes part.
    """

    key: str
    title: str
    axis: str
    sizes: tuple[int, ...]
    shapes: Callable[[int], Shapes]
    contestants: tuple[Contestant, ...]


GROWTHS: Final = (
    Growth(
        "width",
        "Four square layers",
        "width of a layer",
        (64, 128, 256, 512, 1024),
        lambda width: 4 * ((width, width),),
        (
            floors.floor_12(),
            torch_entries.adamw(),
            torch_entries.rf_rmsprop(compiled=True),
            torch_entries.sirf_shampoo("compiled", "every step"),
            peers.sirfshampoo(damping=1e-3),
        ),
    ),
    Growth(
        "depth",
        "Layers of 128 x 128",
        "number of layers",
        (1, 2, 4, 8, 16, 32, 64),
        lambda layers: layers * ((128, 128),),
        (
            floors.floor_12(),
            torch_entries.adamw(),
            torch_entries.rf_rmsprop(compiled=False),
            torch_entries.sirf_shampoo("eager", "stacked", compiled=False),
            torch_entries.sirf_shampoo("apart", "foreach=False", compiled=False, foreach=False),
            peers.sirfshampoo(damping=1e-3),
        ),
    ),
)
"""Both series."""


def series(*, rounds: int, tell: Callable[[str], None] = lambda _: None) -> list[Series]:
    """Run both series.

    Args:
        rounds: of every race.
        tell: is told what is being done.
    """
    done = []
    for growth in GROWTHS:
        races = []
        for size in growth.sizes:
            tell(f"{growth.title}, {growth.axis} {size}")
            key = f"{growth.key}/{size}"
            shapes = growth.shapes(size)
            races.append(
                race(key, growth.title, str(size), shapes, growth.contestants, rounds=rounds)
            )
        done.append(
            Series(
                key=growth.key,
                title=growth.title,
                axis=growth.axis,
                sizes=list(growth.sizes),
                races=races,
            )
        )
    return done
