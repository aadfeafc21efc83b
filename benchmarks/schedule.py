"""What a run consists of: which contestants race on which shape sets, how often."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks import floors, jax_entries, peers, torch_entries
from benchmarks.contestants import Contestant
from benchmarks.racing import Race, race
from benchmarks.shape_sets import SETS


@dataclass(frozen=True)
class Event:
    """Contestants that race on some shape sets.

    Attributes:
        key: the races' names begin with it.
        title: for readers.
        serves: the targets that it is for.
        sets: the shape sets of a full run.
        quick_sets: those of a quick one.
        rounds: of a full run.
        quick_rounds: of a quick one.
        contestants: who takes part.
        full_only: keys of those who take too long to get ready for a quick run.
    """

    key: str
    title: str
    serves: tuple[str, ...]
    sets: tuple[str, ...]
    quick_sets: tuple[str, ...]
    rounds: int
    quick_rounds: int
    contestants: tuple[Contestant, ...]
    full_only: tuple[str, ...] = ()


_PRECISIONS: Final[tuple[tuple[str, str, dict[str, str]], ...]] = (
    ("float32", "float32", {}),
    (
        "rounded",
        "bfloat16 inputs, float32 products",
        {"compute_dtype": "bfloat16", "product_dtype": "float32"},
    ),
    (
        "native",
        "bfloat16 products",
        {"compute_dtype": "bfloat16", "product_dtype": "bfloat16"},
    ),
    (
        "stored",
        "bfloat16 state, stochastic",
        {"state_dtype": "bfloat16", "rounding": "stochastic"},
    ),
)

EVENTS: Final = (
    Event(
        "elementwise",
        "Elementwise methods",
        ("S1", "S2", "S10"),
        ("4x2048^2", "gpt4x256"),
        ("4x2048^2", "gpt4x256"),
        40,
        20,
        (
            floors.copy(),
            torch_entries.adamw(),
            torch_entries.rf_rmsprop(compiled=True),
            torch_entries.rmsprop(),
            torch_entries.rf_rmsprop(compiled=False),
        ),
    ),
    Event(
        "every_step",
        "Dense matrix methods, every step",
        ("S3", "S4", "S8", "S10"),
        ("mlp3x512", "gpt4x256"),
        ("mlp3x512",),
        9,
        7,
        (
            floors.floor_12(),
            floors.floor_taken(damping=0),
            floors.floor_taken(damping=1e-3),
            torch_entries.sirf_shampoo("0", "damping 0", damping=0.0),
            torch_entries.sirf_shampoo("0.001", "damping 0.001"),
            torch_entries.sirf_shampoo("eager", "damping 0.001", compiled=False),
            peers.sirfshampoo(damping=0),
            peers.sirfshampoo(damping=1e-3),
            torch_entries.shampoo(),
            peers.pytorch_optimizer_shampoo(),
            peers.meta_shampoo(),
        ),
    ),
    Event(
        "every_10",
        "Dense matrix methods, every 10 steps",
        ("S5",),
        ("mlp3x512", "gpt4x256"),
        ("mlp3x512",),
        60,
        30,
        (
            floors.floor_taken(damping=1e-3, update_every=10),
            torch_entries.sirf_shampoo("10", "every 10", update_every=10),
            torch_entries.sirf_shampoo(
                "10_together", "every 10, all at once", update_every=10, stagger=False
            ),
            peers.pytorch_optimizer_soap(update_every=10),
            peers.heavyball_soap(update_every=10),
        ),
        full_only=("sirf_10_together", "heavyball_soap_10"),
    ),
    Event(
        "bfloat16",
        "SIRF-Shampoo in bfloat16",
        ("S6", "S8"),
        ("mlp3x512",),
        ("mlp3x512",),
        9,
        7,
        (
            floors.floor_taken(damping=1e-3),
            *(
                torch_entries.sirf_shampoo(variant, title, compiled=False, **arguments)
                for variant, title, arguments in _PRECISIONS
            ),
            peers.sirfshampoo(damping=1e-3),
        ),
    ),
    Event(
        "convolution",
        "Convolutions",
        ("S7", "S10"),
        ("conv",),
        ("conv",),
        20,
        10,
        (
            floors.floor_merged(9),
            torch_entries.sirf_shampoo("merged", "kernel axes merged", merge_dims=9),
            torch_entries.sirf_shampoo(
                "merged_eager", "kernel axes merged", merge_dims=9, compiled=False
            ),
            torch_entries.sirf_shampoo(
                "joined_eager", "kernel joins its input axis", merge_dims=1152, compiled=False
            ),
            torch_entries.sirf_shampoo("apart_eager", "four axes", compiled=False),
            peers.sirfshampoo(damping=1e-3),
        ),
        full_only=("sirf_merged",),
    ),
    Event(
        "jax_elementwise",
        "Elementwise methods, JAX",
        ("S9",),
        ("4x2048^2", "gpt4x256"),
        ("4x2048^2", "gpt4x256"),
        40,
        20,
        (floors.copy(), jax_entries.rf_rmsprop(), jax_entries.rmsprop()),
    ),
    Event(
        "jax_every_step",
        "SIRF-Shampoo, JAX",
        ("S9",),
        ("mlp3x512", "gpt4x256"),
        ("mlp3x512",),
        9,
        7,
        (floors.floor_12(), floors.floor_12_jax(), jax_entries.sirf_shampoo()),
    ),
)
"""All races, in order."""

_QUICK_SECONDS: Final = 4.0
"""After which a race of a quick run begins no further round."""


def races(
    wanted: Sequence[str],
    *,
    quick: bool,
    rounds: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Race]:
    """Run the races that targets ask for.

    Args:
        wanted: the targets.
        quick: the small version.
        rounds: of every race, in place of its own number.
        tell: is told what is being done.
    """
    done = []
    for event in EVENTS:
        if not set(event.serves) & set(wanted):
            continue
        own = event.quick_rounds if quick else event.rounds
        for name in event.quick_sets if quick else event.sets:
            tell(f"{event.title}, {name}")
            done.append(
                race(
                    f"{event.key}/{name}",
                    event.title,
                    name,
                    SETS[name],
                    [c for c in event.contestants if not (quick and c.key in event.full_only)],
                    rounds=own if rounds is None else rounds,
                    seconds=_QUICK_SECONDS if quick and rounds is None else math.inf,
                )
            )
    return done
