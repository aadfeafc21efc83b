"""Contestants on torch: rootfree's optimizers, torch's own, and those of other packages.

All of one race get the same parameters and gradients, and, where they have them, the same
hyper-parameters. The learning rate is so small that nothing diverges; what it is costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import rootfree_torch
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from benchmarks.contestants import Contestant, Mode, Racer
from benchmarks.shape_sets import GRADIENT_SCALE, PARAMETER_SCALE, Shapes, normal

LR: Final = 1e-6
MOMENTUM: Final = 0.9
WEIGHT_DECAY: Final = 1e-4
BATCH: Final = 32
SIRF: Final[Mapping[str, Any]] = {
    "lr": LR,
    "precond_lr": 0.02,
    "momentum": MOMENTUM,
    "precond_momentum": 0.5,
    "damping": 1e-3,
    "weight_decay": WEIGHT_DECAY,
    "batch_size": BATCH,
}
"""Hyper-parameters of SIRF-Shampoo, the same in every race and package."""

Make: TypeAlias = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def entered(
    make: Make,
    *,
    held: Callable[[Any], Any] = lambda optimizer: dict(optimizer.state),
    clears: bool = False,
) -> Callable[[Shapes, int], Racer]:
    """Return how an optimizer becomes a racer.

    Args:
        make: returns it for parameters.
        held: returns what its state is in: containers of tensors, nested in any way.
        clears: whether its step takes the gradients away, which are then put back before each.
    """

    def enter(shapes: Shapes, seed: int) -> Racer:
        parameters = [nn.Parameter(torch.tensor(x)) for x in normal(shapes, seed, PARAMETER_SCALE)]
        gradients = [torch.tensor(x) for x in normal(shapes, seed + 1, GRADIENT_SCALE)]
        optimizer = make(parameters)

        def give() -> None:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient

        def step() -> None:
            if clears:
                give()
            optimizer.step()

        def state_bytes() -> int:
            return sum(tensor.nbytes for tensor in _tensors(held(optimizer)))

        give()
        return Racer(step, state_bytes)

    return enter


def rf_rmsprop(*, compiled: bool) -> Contestant:
    """Return RF-RMSProp."""

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return rootfree_torch.RFRMSProp(
            parameters,
            lr=LR,
            momentum=MOMENTUM,
            weight_decay=WEIGHT_DECAY,
            batch_size=BATCH,
            compile=compiled,
        )

    mode: Mode = "compiled" if compiled else "eager"
    return Contestant(f"rf_rmsprop_{mode}", f"RF-RMSProp, {mode}", entered(make), mode)


def sirf_shampoo(
    variant: str, title: str, *, compiled: bool = True, **arguments: Any
) -> Contestant:
    """Return SIRF-Shampoo with arguments beyond `SIRF`.

    Args:
        variant: what distinguishes its key.
        title: what distinguishes it for readers.
        compiled: or eager.
        **arguments: of its constructor.
    """

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return rootfree_torch.SIRFShampoo(parameters, **{**SIRF, **arguments}, compile=compiled)

    mode: Mode = "compiled" if compiled else "eager"
    return Contestant(
        f"sirf_{variant}",
        f"SIRF-Shampoo, {title}" if compiled else f"SIRF-Shampoo, {title}, eager",
        entered(make),
        mode,
        # In the first period programs are compiled as their turns come.
        warm_up=2 * arguments.get("update_every", 1) if compiled else 1,
        cannot=_units if arguments.get("product_dtype") == "bfloat16" else lambda: None,
    )


def shampoo() -> Contestant:
    """Return rootfree's own Shampoo with the root, which takes it by eigenvectors."""

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return rootfree_torch.Shampoo(parameters, lr=LR, weight_decay=WEIGHT_DECAY)

    return Contestant("shampoo", "Shampoo of rootfree, eigenvectors every step", entered(make))


def adamw() -> Contestant:
    """Return torch's AdamW, fused."""

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=LR, weight_decay=WEIGHT_DECAY, fused=True)

    return Contestant("adamw", "torch AdamW, fused", entered(make))


def rmsprop() -> Contestant:
    """Return torch's RMSprop with momentum and weight decay."""

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(
            parameters, lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, foreach=True
        )

    return Contestant("rmsprop", "torch RMSprop, foreach", entered(make))


def _units() -> str | None:
    """Say that products in bfloat16 would be emulated, where they would: a step takes minutes."""
    has = rootfree_torch.capabilities("cpu")["bfloat16_products"]
    return None if has else "this CPU has no bfloat16 units"


def _tensors(tree: Any) -> Iterator[Tensor]:
    """Yield the tensors in containers, each once however often it is there."""
    seen = set()
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor) and id(leaf) not in seen:
            seen.add(id(leaf))
            yield leaf
