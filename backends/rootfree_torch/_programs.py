"""Texts compiled by `torch.compile`: traced once for arrays of one form, then called unchecked.

A text is traced with `make_fx`, whose graph has code of its own, so that no two programs share a
cache of `torch.compile`'s. Hyper-parameters are 0-d tensors: their values compile nothing. Only a
damping that is Python's 0 is part of a program, as products that it makes needless are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import rootfree
import torch
from rootfree import Hyper
from torch.fx.experimental.proxy_tensor import make_fx

from rootfree_torch._texts import Arrays, Kind, Memo, Text

Job = tuple[Kind, Arrays]
_MISSING: Final = {"InvalidCxxCompiler", "TritonMissing"}
_MOST_SCALARS: Final = 256


class Programs:
    """The programs of an optimizer by what they were compiled for."""

    def __init__(self) -> None:
        self._made: dict[Any, Callable[..., Any]] = {}
        self._scalars: dict[Any, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self._made)

    def run(self, text: Text, jobs: Sequence[Job], memo: Memo, place: Any) -> Any:
        """Run a text on each job's arrays, all of them in one program.

        Args:
            text: what is run.
            jobs: kinds and arrays, with the same scalars.
            memo: spares finding the program.
            place: names these jobs in ``memo``.

        Returns:
            What the text gives for the only job; nothing for several, which must write all.

        Raises:
            RuntimeError: if there is no compiler for the device. Nothing has been written.
        """
        hyper = jobs[0][1].hyper
        place = (text, place, hyper.damping == 0.0 if _is_static(hyper.damping) else None)
        strides = [(a.grad.stride(), a.active is None) for _, a in jobs]
        tensors = list(_tensors(jobs))
        known = memo.get(place)
        if known is None or known[0] != strides:
            known = memo[place] = (strides, self._program(text, jobs, tensors))
        out = known[1](*tensors)
        return out[0] if out else jobs[0][1].param

    def find(
        self, text: Text, jobs: Sequence[Job]
    ) -> tuple[Callable[..., Any], list[torch.Tensor]]:
        """Return the program for jobs and its arguments: scalars, then each job's, gradient first.

        Args:
            text: what is run.
            jobs: kinds and arrays, with the same scalars.
        """
        tensors = list(_tensors(jobs))
        return self._program(text, jobs, tensors), tensors

    def scalars(self, hyper: Hyper, dtype: torch.dtype, device: torch.device) -> Hyper:
        """Return the scalars of a step as 0-d tensors, without waiting for the device."""

        def scalar(name: str, value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return value.to(device, dtype, non_blocking=True)
            if name == "damping" and value == 0:
                return 0.0
            key = (float(value), dtype, device)
            if key not in self._scalars:
                if len(self._scalars) >= _MOST_SCALARS:
                    self._scalars.clear()  # a schedule has many values, and needs each of them once
                self._scalars[key] = torch.full((), float(value), dtype=dtype, device=device)
            return self._scalars[key]

        return Hyper(*(scalar(name, value) for name, value in hyper._asdict().items()))

    def _program(
        self, text: Text, jobs: Sequence[Job], tensors: Sequence[torch.Tensor]
    ) -> Callable[..., Any]:
        """Return the program for jobs, compiled when it is called first."""
        forms = tuple((x.shape, x.stride(), x.dtype, x.device) for x in tensors)
        key = (text, tuple((kind, _outline(arrays)) for kind, arrays in jobs), forms)
        if key not in self._made:

            def traced(*given: torch.Tensor) -> tuple[Any, ...]:
                results = [text(kind, arrays) for kind, arrays in _filled(jobs, given)]
                # A lone parameter has been written; what is returned for it would be a copy.
                return tuple(results[:1]) if _is_returned(text, jobs) else ()

            graph = make_fx(traced, tracing_mode="fake")(*tensors)
            # Of a module, a call would pass through its hooks.
            program = torch.compile(
                graph.forward, fullgraph=True, dynamic=False, options=_options()
            )
            self._made[key] = _first_checked(program)
        return self._made[key]


def _is_static(value: object) -> bool:
    return not isinstance(value, torch.Tensor)


def _is_returned(text: Text, jobs: Sequence[Job]) -> bool:
    param = jobs[0][1].param
    return len(jobs) == 1 and param is not None and param.shape[0] > 1


def _parts(arrays: Arrays) -> list[Any]:
    """Return the places of an entry's arrays, but for the scalars; ``None`` where there is none."""
    roles: Any = rootfree.roles(arrays.state)
    return [arrays.grad, arrays.param, arrays.active, *roles.values(), *(arrays.kept or ())]


def _tensors(jobs: Sequence[Job]) -> Iterator[torch.Tensor]:
    """Yield the arrays of jobs: their common scalars, then those of each."""
    hyper: Any = jobs[0][1].hyper
    yield from (x for x in hyper if not _is_static(x))
    for _, arrays in jobs:
        yield from (x for x in _parts(arrays) if x is not None)


def _outline(arrays: Arrays) -> tuple[Any, ...]:
    """Return what is known of arrays besides the tensors: which are there, and static scalars."""
    static = tuple(x if _is_static(x) else None for x in arrays.hyper)
    there = tuple(x is not None for x in _parts(arrays))
    return static, tuple(rootfree.roles(arrays.state)), there, arrays.kept is None


def _filled(jobs: Sequence[Job], given: Sequence[torch.Tensor]) -> Iterator[Job]:
    """Yield jobs with other tensors in the places of theirs, in the order of `_tensors`."""
    rest: Iterator[Any] = iter(given)
    hyper = Hyper(*(x if _is_static(x) else next(rest) for x in jobs[0][1].hyper))
    for kind, arrays in jobs:
        grad, param, active, *others = (x if x is None else next(rest) for x in _parts(arrays))
        roles = list(rootfree.roles(arrays.state))
        state = rootfree.with_roles(arrays.state, dict(zip(roles, others, strict=False)))
        kept = None if arrays.kept is None else tuple(others[len(roles) :])
        yield kind, Arrays(grad, param, state, hyper, active, kept)


def _options() -> dict[str, Any]:
    """Return what spares a call the checks that finding its program has made already."""
    skip = getattr(torch.compiler, "skip_all_guards_unsafe", None)  # since torch 2.8
    return {} if skip is None else {"guard_filter_fn": skip, "size_asserts": False}


def _first_checked(program: Callable[..., Any]) -> Callable[..., Any]:
    """Return a program whose first call, which compiles it, says what to do without a compiler."""

    def first(*tensors: torch.Tensor) -> Any:
        try:
            return program(*tensors)
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None and type(cause).__name__ not in _MISSING:
                inner = getattr(cause, "inner_exception", None)
                cause = inner or cause.__cause__ or cause.__context__
            if cause is None:
                raise
            raise RuntimeError(
                "`compile=True` needs a compiler that torch.compile can use: a C++ compiler for "
                "parameters on the CPU (install g++, or name one by the environment variable CXX), "
                "Triton for those on a GPU. Without one, leave `compile` at False"
            ) from error

    return first
