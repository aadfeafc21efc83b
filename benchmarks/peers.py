"""Contestants of other packages on torch; those that are not installed are reported so."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import nn

from benchmarks.contestants import Contestant
from benchmarks.torch_entries import BATCH, LR, MOMENTUM, SIRF, WEIGHT_DECAY, entered


def sirfshampoo(*, damping: float) -> Contestant:
    """Return the authors' SIRF-Shampoo, every step, with rootfree's hyper-parameters."""

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        from sirfshampoo import SIRFShampoo

        made: torch.optim.Optimizer = SIRFShampoo(
            nn.ParameterList(parameters),
            lr=LR,
            beta2=SIRF["precond_lr"],
            alpha1=MOMENTUM,
            alpha2=SIRF["precond_momentum"],
            lam=damping,
            kappa=WEIGHT_DECAY,
            batch_size=BATCH,  # a number: without one it counts what a model is fed
        )
        return made

    def held(optimizer: Any) -> list[Any]:
        factors = chain(*optimizer.preconditioner, *optimizer.preconditioner_momenta)
        return [dict(optimizer.state), [factor.to_dense() for factor in factors]]

    return Contestant(
        f"sirfshampoo_{damping:g}",
        f"sirfshampoo, damping {damping:g}",
        entered(make, held=held),
        needs=("sirfshampoo",),
    )


def meta_shampoo() -> Contestant:
    """Return Meta's Distributed Shampoo, whose roots are taken by eigenvectors, every step.

    It is on no package index: ``facebookresearch/optimizers`` has to be installed by hand.
    """

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        from distributed_shampoo import (  # pyright: ignore[reportMissingImports]  # by hand
            DistributedShampoo,
        )

        made: torch.optim.Optimizer = DistributedShampoo(
            parameters,
            lr=LR,
            betas=(MOMENTUM, 0.99),
            epsilon=1e-8,
            weight_decay=WEIGHT_DECAY,
            max_preconditioner_dim=4096,
            precondition_frequency=1,
        )
        return made

    return Contestant(
        "meta_shampoo",
        "Meta's Distributed Shampoo, eigenvectors every step",
        entered(make),
        needs=("distributed_shampoo",),
    )


def pytorch_optimizer_shampoo() -> Contestant:
    """Return the Shampoo of pytorch_optimizer, whose roots are taken by SVD, every step."""

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        from pytorch_optimizer import Shampoo

        return Shampoo(
            parameters, lr=LR, weight_decay=WEIGHT_DECAY, preconditioning_compute_steps=1
        )

    return Contestant(
        "pytorch_optimizer_shampoo",
        "Shampoo of pytorch_optimizer, SVD every step",
        entered(make),
        needs=("pytorch_optimizer",),
    )


def pytorch_optimizer_soap(*, update_every: int) -> Contestant:
    """Return the SOAP of pytorch_optimizer, whose vectors have no preconditioner."""

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        from pytorch_optimizer import SOAP

        return SOAP(
            parameters, lr=LR, weight_decay=WEIGHT_DECAY, precondition_frequency=update_every
        )

    return Contestant(
        f"pytorch_optimizer_soap_{update_every}",
        f"SOAP of pytorch_optimizer, every {update_every}",
        entered(make),
        needs=("pytorch_optimizer",),
        warm_up=update_every + 2,
    )


def heavyball_soap(*, update_every: int) -> Contestant:
    """Return the SOAP of heavyball, compiled, whose vectors have no preconditioner."""

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        import heavyball

        heavyball.utils.compile_mode = "default"  # its own choice tries out products and prints
        made: torch.optim.Optimizer = heavyball.SOAP(
            parameters, lr=LR, weight_decay=WEIGHT_DECAY, precondition_frequency=update_every
        )
        return made

    return Contestant(
        f"heavyball_soap_{update_every}",
        f"SOAP of heavyball, every {update_every}, compiled",
        entered(make, clears=True),
        "compiled",
        needs=("heavyball",),
        warm_up=2 * update_every + 2,
    )
