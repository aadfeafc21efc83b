"""Root-free and root-based methods on a two-layer character GPT, and SIRF-Shampoo in bfloat16.

The GPT reads the standard library's help texts. SGD, AdamW, RF-RMSProp, Shampoo and SIRF-Shampoo
train it for the same number of steps, each at the learning rate that won a search of its own on
the validation text with one seed; the numbers come from seeds that the search has not seen. The
loss is a mean over the characters of a batch, so the root-free methods are told their number.

Then SIRF-Shampoo keeps its state in bfloat16: at a small `precond_lr`, rounding to nearest holds
the factors at the identity, and stochastic rounding does not.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any, Final, NamedTuple

import torch
from budget import Grid, best, conduct, edge, parser, search
from character_report import Report, Run, Study, summary, tables, write
from character_tasks import CONTEXT, GPT, load, windows
from rich.console import Console
from rich.progress import Progress
from rootfree_torch import SGD, AdamW, RFRMSProp, Shampoo, SIRFShampoo, StalledStateWarning
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # torch forgot to export it
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

BATCH: Final = 32
TERMS: Final = BATCH * CONTEXT
"""Characters in a batch: what the mean loss is a mean over."""
DIVERGED: Final = (FloatingPointError, LinAlgError)
"""What a step raises that cannot be taken."""
GRID_STEP: Final = 2.0
SEARCH_SEED: Final = 0


@dataclass(frozen=True)
class Variant:
    """A method and what is done with it.

    Attributes:
        title: name in the outputs.
        optimizer: its class.
        centre: the middle of its grid of learning rates.
        hyper: other arguments, where they are not left to the defaults.
        vectors: the method of embeddings and vectors, where it is not that of the matrices.
        rate_of: the variant whose learning rate it takes over, without a search of its own.
        about_state: whether it is there to compare ways to keep the state.
    """

    title: str
    optimizer: Callable[..., torch.optim.Optimizer]
    centre: float
    hyper: Mapping[str, Any] = field(default_factory=dict)
    vectors: str | None = None
    rate_of: str | None = None
    about_state: bool = False


_SIRF: Final = Variant(
    "SIRF-Shampoo",
    SIRFShampoo,
    4e-2,
    {"precond_lr": 0.1, "momentum": 0.9, "damping": 1e-3, "batch_size": TERMS},
)
_SLOW: Final = replace(
    _SIRF,
    title="float32",
    centre=1e-1,
    hyper={**_SIRF.hyper, "precond_lr": 0.03},
    about_state=True,
)
_SLOW_BFLOAT16: Final = replace(_SLOW, rate_of="slow")
VARIANTS: Final = {
    "sgd": Variant("SGD", SGD, 1e-1, {"momentum": 0.9}),
    "adamw": Variant("AdamW", AdamW, 1e-2, {"precond_lr": 0.02}),
    "rf_rmsprop": Variant(
        "RF-RMSProp", RFRMSProp, 6e-2, {"momentum": 0.9, "precond_lr": 0.02, "batch_size": TERMS}
    ),
    "shampoo": Variant("Shampoo", Shampoo, 1e-2, {"momentum": 0.9, "precond_lr": 0.05}),
    "sirf_shampoo": _SIRF,
    "routed": replace(
        _SIRF,
        title="SIRF-Shampoo, vectors RF-RMSProp",
        vectors="rf_rmsprop",
    ),
    "slow": _SLOW,
    "slow_nearest": replace(
        _SLOW_BFLOAT16,
        title="bfloat16, nearest",
        hyper={**_SLOW.hyper, "state_dtype": "bfloat16", "rounding": "nearest"},
    ),
    "slow_stochastic": replace(
        _SLOW_BFLOAT16,
        title="bfloat16, stochastic",
        hyper={**_SLOW.hyper, "state_dtype": "bfloat16", "rounding": "stochastic"},
    ),
}


@dataclass(frozen=True)
class Plan:
    """How much is done, the same for every variant.

    Attributes:
        steps: of a run.
        warm_up: steps in which the learning rate rises; then it falls to zero along a cosine.
        every: steps between two looks at the validation text.
        grid: learning rates in a grid, an odd number, each `GRID_STEP` times the one before.
        extensions: steps that a grid may grow by while its best rate lies on an edge.
        seeds: of the runs that are reported.
        windows: of the validation text that are looked at, a multiple of `BATCH`.
        timed: steps whose duration is taken, in rounds of all variants.
    """

    steps: int = 240
    warm_up: int = 20
    every: int = 12
    grid: int = 3
    extensions: int = 3
    seeds: tuple[int, ...] = (1, 2, 3)
    windows: int = 256
    timed: int = 24


QUICK: Final = Plan(
    steps=8, warm_up=2, every=4, grid=1, extensions=0, seeds=(1, 2), windows=32, timed=2
)


class Job(NamedTuple):
    """One run to do."""

    variant: str
    lr: float
    seed: int
    plan: Plan


class Trainee:
    """A model with its optimizer, and the batches that it sees."""

    def __init__(self, job: Job) -> None:
        variant, plan = VARIANTS[job.variant], job.plan
        torch.manual_seed(job.seed)
        self.text = load()
        self.model = GPT(len(self.text.alphabet))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", StalledStateWarning)
            self.optimizer = variant.optimizer(
                grouped(self.model, variant, job.lr), lr=job.lr, **variant.hyper
            )
        self.warning = str(caught[0].message) if caught else None
        self.windows = plan.windows
        self.schedule = LambdaLR(self.optimizer, lambda step: rate(step, plan))

    def step(self) -> Tensor:
        """Take a step and return the loss before it.

        Raises:
            FloatingPointError: if it is not finite; no step is taken then.
            LinAlgError: if a method finds no eigenvalues, for the same reason.
        """
        starts = torch.randint(len(self.text.train) - CONTEXT, (BATCH,))
        loss = loss_of(self.model, *windows(self.text.train, starts))
        if not math.isfinite(loss.item()):
            raise FloatingPointError("the loss is not finite")
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch says no types
        self.optimizer.step()
        self.schedule.step()
        return loss

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the mean loss over windows spread evenly over the validation text."""
        last = len(self.text.validation) - CONTEXT - 1
        starts = torch.linspace(0, last, self.windows).long()
        losses = [
            loss_of(self.model, *windows(self.text.validation, part)).item()
            for part in torch.split(starts, BATCH)  # of equal size, so that the mean is that of all
        ]
        return statistics.fmean(losses)

    def displacement(self) -> float | None:
        """Return how far the factors are from the identity: the mean of |K - I| / |I|.

        Frobenius norms, over all factors of all parameters; ``None`` if there are none.
        """
        found = [
            (torch.linalg.norm(k.float() - torch.eye(len(k))) / math.sqrt(len(k))).item()
            for state in self.optimizer.state.values()
            for role, k in state.items()
            if role.startswith("factor.")
        ]
        return statistics.fmean(found) if found else None

    def state_bytes(self) -> int:
        """Return the size of the optimizer's state."""
        return sum(
            array.nbytes
            for state in self.optimizer.state.values()
            for array in state.values()
            if isinstance(array, Tensor)
        )


def grouped(model: nn.Module, variant: Variant, lr: float) -> Any:
    """Return the model's parameters as the variant's optimizer takes them."""
    if variant.vectors is None:
        return model.parameters()
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for p in model.parameters():
        (others if p.ndim < 2 or id(p) in embeddings else matrices).append(p)
    return [{"params": matrices}, {"params": others, "rule": variant.vectors, "lr": lr}]


def rate(step: int, plan: Plan) -> float:
    """Return what multiplies the learning rate in a step."""
    if step < plan.warm_up:
        return (step + 1) / plan.warm_up
    return (1 + math.cos(math.pi * (step - plan.warm_up) / (plan.steps - plan.warm_up))) / 2


def loss_of(model: nn.Module, read: Tensor, following: Tensor) -> Tensor:
    """Return the mean loss over all characters."""
    return cross_entropy(model(read).flatten(0, 1), following.flatten())


def train(job: Job) -> Run:
    """Do one run. The same job gives the same result on the same machine."""
    plan, trainee = job.plan, Trainee(job)
    run = Run(
        lr=job.lr,
        seed=job.seed,
        diverged=False,
        train_loss=[],
        validation_loss=[],
        displacement=[],
        state_bytes=0,
        warning=trainee.warning,
    )
    for _ in range(plan.steps // plan.every):
        try:
            loss = statistics.fmean(trainee.step().item() for _ in range(plan.every))
        except DIVERGED:
            return {**run, "diverged": True}
        validation_loss = trainee.validation_loss()
        if not math.isfinite(validation_loss):
            return {**run, "diverged": True}
        run["train_loss"].append(loss)
        run["validation_loss"].append(validation_loss)
        displacement = trainee.displacement()
        if displacement is not None:
            run["displacement"].append(displacement)
    return {**run, "state_bytes": trainee.state_bytes()}


def study(job: Job, do: Callable[[list[Job]], list[Run]]) -> list[Study]:
    """Search a variant's learning rate, then do its runs, and those of variants that follow it.

    Args:
        job: what all runs have in common.
        do: does jobs, in any order, and returns their runs in the order of the jobs.
    """
    plan = job.plan
    tried = search(
        VARIANTS[job.variant].centre,
        Grid(plan.grid, GRID_STEP, plan.extensions),
        lambda rates: do([job._replace(lr=lr) for lr in rates]),
        _merit,
    )
    lr = best(tried, _merit)["lr"]
    followers = [name for name, variant in VARIANTS.items() if variant.rate_of == job.variant]
    names = [job.variant, *followers]
    runs = do([Job(name, lr, seed, plan) for name in names for seed in plan.seeds])
    return [
        Study(
            variant=name,
            title=VARIANTS[name].title,
            about_state=VARIANTS[name].about_state,
            optimizer=VARIANTS[name].optimizer.__name__,
            hyper=dict(VARIANTS[name].hyper),
            vectors=VARIANTS[name].vectors,
            search=tried if name == job.variant else [],
            lr=lr,
            edge=edge(tried, _merit) if name == job.variant else None,
            runs=[runs.pop(0) for _ in plan.seeds],
            seconds_per_step=None,
        )
        for name in names
    ]


def _merit(run: Run) -> float:
    """Return minus the last validation loss."""
    return -math.inf if run["diverged"] else -run["validation_loss"][-1]


def timed(studies: list[Study], plan: Plan) -> list[Study]:
    """Return the studies with the median duration of a step.

    One thread, and the variants take turns, so that what else the machine does hits all of them.
    """
    torch.set_num_threads(1)
    trainees = [Trainee(Job(s["variant"], s["lr"], SEARCH_SEED, plan)) for s in studies]
    seconds: list[list[float]] = [[] for _ in studies]
    for _ in range(plan.timed + 1):
        for trainee, times in zip(trainees, seconds, strict=True):
            started = time.perf_counter()
            with suppress(*DIVERGED):
                trainee.step()
                times.append(time.perf_counter() - started)
    return [
        # The first step makes the state.
        {**s, "seconds_per_step": statistics.median(times[1:]) if times[1:] else None}
        for s, times in zip(studies, seconds, strict=True)
    ]


def main() -> None:
    """Do all runs and write the report."""
    arguments = parse()
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 110  # of a file nobody knows the width
    started = time.perf_counter()
    plan = QUICK if arguments.quick else Plan()
    text = load()
    console.print(
        f"pydoc_data.topics of Python {platform.python_version()}: "
        f"{len(text.train) + len(text.validation):,} characters, SHA-256 {text.sha256}",
        soft_wrap=True,
    )
    jobs = [Job(name, 0.0, SEARCH_SEED, plan) for name, v in VARIANTS.items() if v.rate_of is None]
    done: dict[str, Study] = {}
    followers = max(sum(v.rate_of == job.variant for v in VARIANTS.values()) for job in jobs)
    most = plan.grid + plan.extensions + len(plan.seeds) * (1 + followers)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        for finished in conduct(
            jobs, study, train, most=most, workers=arguments.workers, progress=progress
        ):
            for one in finished:
                done[one["variant"]] = one
                progress.console.print(summary(one))
    report = describe(plan, timed([done[name] for name in VARIANTS], plan), quick=arguments.quick)
    for table in tables(report):
        console.print(table)
    for path in write(report, arguments.out):
        console.print(f"wrote {path}", soft_wrap=True)
    console.print(f"{time.perf_counter() - started:.0f} seconds")


def parse() -> argparse.Namespace:
    """Return the command line's arguments."""
    return parser(
        "Root-free and root-based methods on a character GPT.",
        "python examples/characters.py --quick --out build/demo",
    ).parse_args()


def describe(plan: Plan, studies: list[Study], *, quick: bool) -> Report:
    """Return everything that the outputs are made from."""
    text = load()
    model = GPT(len(text.alphabet))
    return Report(
        quick=quick,
        data={
            "sha256": text.sha256,
            "alphabet": len(text.alphabet),
            "sizes": {"train": len(text.train), "validation": len(text.validation)},
        },
        plan={
            **asdict(plan),
            "batch": BATCH,
            "context": CONTEXT,
            "terms": TERMS,
            "grid_step": GRID_STEP,
            "search_seed": SEARCH_SEED,
        },
        weights=sum(p.numel() for p in model.parameters()),
        versions={
            "Python": platform.python_version(),
            **{name: version(name) for name in ("rootfree", "torch")},
        },
        studies=studies,
    )


if __name__ == "__main__":
    main()
