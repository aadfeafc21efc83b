"""What a case asks of a port, as data: a list of calls that a worker process makes in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from rootfree_conformance.port import Handle, HostArray, HostArrays, Port, Snapshot, Spec


class Start(NamedTuple):
    """Start a fresh optimizer."""

    spec: Spec
    params: HostArrays


class Load(NamedTuple):
    """Load a snapshot."""

    snapshot: Snapshot


class Reload(NamedTuple):
    """Load what an earlier `Read` of this script returned."""

    read: int


class Step(NamedTuple):
    """Take a step."""

    grads: HostArrays
    hyper: Mapping[str, float]


class Refuse(NamedTuple):
    """Take a step that must be refused."""

    grads: HostArrays
    hyper: Mapping[str, float]


class Read(NamedTuple):
    """Read parameters and state."""


class Refusal(NamedTuple):
    """What a `Refuse` met: the names of the error's classes, most special first, and its text."""

    classes: tuple[str, ...]
    message: str


Call: TypeAlias = Start | Load | Reload | Step | Refuse | Read
Script: TypeAlias = Sequence[Call]
Answer: TypeAlias = Snapshot | Refusal


class Outcome(NamedTuple):
    """The answers of a script, and the error that stopped it, if one did."""

    answers: list[Answer]
    error: str | None


def run(port: Port, script: Script) -> Outcome:
    """Run a script on a port; an error of the port becomes part of the outcome."""
    answers: list[Answer] = []
    handle: Handle = None
    for call in script:
        try:
            match call:
                case Start(spec, params):
                    handle = port.start(spec, params)
                case Load(snapshot):
                    handle = port.load(handle, snapshot)
                case Reload(read):
                    earlier = answers[read]
                    assert isinstance(earlier, Snapshot)
                    handle = port.load(handle, earlier)
                case Step(grads, hyper):
                    handle = port.step(handle, grads, hyper)
                case Read():
                    answers.append(_plain(port.read(handle)))
                case Refuse(grads, hyper):
                    answers.append(_refusal(port, handle, call))
        except Exception as error:  # whatever a port raises is its result
            return Outcome(answers, f"{type(error).__name__} in {type(call).__name__}: {error}")
    return Outcome(answers, None)


def _plain(read: object) -> Snapshot:
    """Return an answer as arrays of float64, which any process can take over.

    Raises:
        TypeError, ValueError: if it is no snapshot of numbers.
    """
    if not isinstance(read, Snapshot):
        raise TypeError(f"`read` must return a Snapshot, got {type(read).__name__}")
    return Snapshot(
        _arrays(read.params),
        {name: _arrays(roles) for name, roles in read.state.items()},
        int(read.step),
        {str(role): str(dtype) for role, dtype in read.dtypes.items()},
    )


def _arrays(named: HostArrays) -> dict[str, HostArray]:
    return {str(name): np.asarray(array, dtype=np.float64) for name, array in named.items()}


def _refusal(port: Port, handle: Handle, call: Refuse) -> Refusal:
    try:
        port.step(handle, call.grads, call.hyper)
    except Exception as error:  # judged by its classes
        return Refusal(tuple(c.__name__ for c in type(error).__mro__), str(error))
    return Refusal((), "")
