"""What rootfree asks of `torch.distributed`."""

from __future__ import annotations

import torch
from rootfree import check_number


def global_batch_size(local: int, accumulate: int = 1) -> int:
    """Return the number of terms in a gradient that is averaged over micro-batches and ranks.

    The optimizer never multiplies by the number of ranks by itself, as it cannot know whether the
    batch size that it was given is local or global.

    Args:
        local: number of terms in one micro-batch on one rank, >= 1.
        accumulate: number of micro-batches whose mean losses, each divided by this number, are
            added up before a step, >= 1.

    Returns:
        ``local * accumulate * world_size``; the world size is 1 outside `torch.distributed`.

    Raises:
        TypeError, ValueError: if an argument is no number, or below 1.

    Example:
        >>> global_batch_size(32, accumulate=4)
        128
    """
    check_number("local", local, low=1)
    check_number("accumulate", accumulate, low=1)
    return local * accumulate * _world_size()


def _world_size() -> int:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1
