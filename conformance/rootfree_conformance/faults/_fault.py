"""What a seeded fault is."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        id: its number.
        title: what is broken, in a few words.
        file: path inside the packages, ``rootfree/diagonal.py``.
        old: text to replace, found exactly once.
        new: what replaces it.
        killer: id of the check, or audit, that must fail.
        port: which port runs the broken copy; ``suite`` if the suite itself is broken.
        rules: rules whose cases the killer runs; empty for all.
        policies: precision policies whose cases the killer runs.
        shape: of the parameter in these cases.
    """

    id: str
    title: str
    file: str
    old: str
    new: str
    killer: str
    port: str = "numpy"
    rules: tuple[str, ...] = ()
    policies: tuple[str, ...] = field(default=("float32",))
    shape: tuple[int, ...] = (3, 5)
