"""What a contestant is: a name, and how to make something that takes steps on given shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, NamedTuple, TypeAlias

from benchmarks.shape_sets import Shapes

Mode: TypeAlias = Literal["eager", "compiled", "jitted"]


class Racer(NamedTuple):
    """A contestant on its marks.

    Attributes:
        step: takes a step and returns when it is done.
        state_bytes: returns the bytes of its state now.
        temporary_bytes: returns the bytes that a step needs besides, where a compiler knows them.
    """

    step: Callable[[], object]
    state_bytes: Callable[[], int]
    temporary_bytes: Callable[[], int | None] = lambda: None


@dataclass(frozen=True)
class Contestant:
    """Something whose steps are timed.

    Attributes:
        key: its name in the results, unique in a race.
        title: its name for readers.
        enter: returns a racer for shapes and a seed. Racers of the same shapes and seed have the
            same parameters and gradients.
        mode: ``"eager"`` steps are torch operations one by one, which can be counted;
            ``"compiled"`` ones are `torch.compile`'s, ``"jitted"`` ones `jax.jit`'s.
        needs: packages beyond rootfree's own, by the name that they are imported under.
        cannot: says why it cannot run on this machine, if it cannot.
        warm_up: steps before the first round: as many as are needed until nothing new happens.
        bound: whether it is no optimizer but the least that one has to do.
    """

    key: str
    title: str
    enter: Callable[[Shapes, int], Racer]
    mode: Mode = "eager"
    needs: tuple[str, ...] = ()
    cannot: Callable[[], str | None] = lambda: None
    warm_up: int = 1
    bound: bool = False

    def lacks(self) -> str | None:
        """Say why it does not run here: a package is not installed, or the machine cannot."""
        missing = [name for name in self.needs if find_spec(name) is None]
        if missing:
            return f"{', '.join(missing)} not installed"
        return self.cannot()
