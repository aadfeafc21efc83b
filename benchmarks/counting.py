"""What a step of eager torch dispatches, and the memory that it needs while it runs.

Every operation that reaches torch's dispatcher is seen by `Counting`. The memory is counted by
storages: one that an operation returns and that was not there before is new, and is gone when
Python says so. What the step frees of what was there before counts against it: a new state that
takes the place of an old one needs both only while both live.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Counts(NamedTuple):
    """What happened in a step.

    Attributes:
        operations: how many were dispatched.
        peak_bytes: the most memory beyond what was held before it.
    """

    operations: int
    peak_bytes: int


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Counts operations, and the bytes of storages that live, while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.operations = 0
        self.live_bytes = 0  # beyond those that were there before
        self.peak_bytes = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and take note of it."""
        kwargs = kwargs or {}
        for storage in _storages((args, kwargs)):
            self._see(storage)
        result = func(*args, **kwargs)
        for storage in _storages(result):
            if self._see(storage):
                self.live_bytes += storage.nbytes()
        self.operations += 1
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        return result

    def _see(self, storage: torch.UntypedStorage) -> bool:
        """Remember a storage until it is freed, and say whether it is seen for the first time."""
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return False

        def free(_: object) -> None:
            self.live_bytes -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, free)
        return True


def counted(step: Callable[[], object]) -> Counts:
    """Take a step and return what it dispatched."""
    with Counting() as counting:
        step()
    return Counts(counting.operations, counting.peak_bytes)


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [
        leaf.untyped_storage()
        for leaf in tree_leaves(tree)
        if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided
    ]
