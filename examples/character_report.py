"""The outputs of ``characters.py``: what its JSON file holds, the tables and figures made from it.

Everything that is shown is computed from the JSON file, so all of it can be made again::

    python examples/character_report.py build/demo/characters.json
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

import matplotlib as mpl
from image_report import STYLE, arguments, diverged, short
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator
from rich.table import Table


class Run(TypedDict):
    """One training run. Its curves have an entry a look at the validation text."""

    lr: float
    seed: int
    diverged: bool  # a loss was not finite; the curves stop there
    train_loss: list[float]  # mean over the batches since the last look, each before its step
    validation_loss: list[float]
    displacement: list[float]  # of the factors from the identity; empty where there are none
    state_bytes: int  # 0 if it diverged
    warning: str | None  # what the optimizer warned of when it was made


class Study(TypedDict):
    """One variant."""

    variant: str
    title: str
    about_state: bool
    optimizer: str
    hyper: dict[str, Any]  # arguments that it was given, the learning rate apart
    vectors: str | None  # the method of embeddings and vectors, where it is another
    search: list[Run]  # one a learning rate, in ascending order; empty if it took over a rate
    lr: float  # the winner
    edge: str | None  # "lowest" or "highest" if the winner is so among all that were tried
    runs: list[Run]  # one a seed, with the winner
    seconds_per_step: float | None  # median


class Report(TypedDict):
    """All of ``characters.json``."""

    quick: bool
    data: dict[str, Any]  # sha256, alphabet, sizes
    plan: dict[str, Any]  # steps, warm_up, every, batch, context, terms, grid and seeds
    weights: int
    versions: dict[str, str]
    studies: list[Study]


_METHODS: Final = (
    "",
    "learning rates tried",
    "chosen",
    "validation loss",
    "below SGD",
    "below AdamW",
    "steps (s) to SGD's",
    "steps (s) to AdamW's",
    "step's time / SGD's",
    "diverged: search, seeds",
)
_FILE_ONLY: Final = {"learning rates tried", "diverged: search, seeds"}
"""Columns that a terminal is too narrow for."""
_STATES: Final = (
    "state",
    "validation loss",
    "factors moved by",
    "bytes a weight",
    "step's time / SGD's",
    "warned",
)
_NOTES: Final = """\
* The text is `pydoc_data.topics` of Python {Python}: {whole:,} characters of an alphabet of \
{alphabet}, SHA-256 `{sha256}`. It differs between versions of Python. The first {train:,} \
characters are trained on, the last {validation:,} validated on, by {windows} windows spread \
evenly over them.
* {others}.
* {steps} steps of {batch} x {context} characters, float32, one thread a run. The learning rate \
rises for {warm_up} steps, then falls to zero along a cosine. The loss is a mean over {terms:,} \
characters, so the root-free methods are told `batch_size={terms}`.
* Learning rate: a grid of {grid} around a centre that was found beforehand, each {grid_step:g} \
times the one before, seed {search_seed}. While the best lies on an edge the grid grows by one \
step on that side, at most {extensions} times. Best is the lowest validation loss after the last \
step; a run that diverged (a loss that is not finite) ranks last. The validation text chose the \
rates too: there is no test text, and the numbers compare methods under one rule.
* `precond_lr` was chosen beforehand with a few runs of seed 0: for AdamW from 0.001, 0.02 and \
0.1; RF-RMSProp, 0.02 and 0.1; Shampoo, 0.01 and 0.05; SIRF-Shampoo, 0.05, 0.1, 0.2 and 0.4, and \
its `damping` from 0.0001, 0.001 and 0.01. SIRF-Shampoo has the values that serve the images too; \
here 0.2 did better still. All else is as it comes.
* All other columns: the chosen rate with seeds {runs}, the mean over the seeds that did not \
diverge, ± their sample standard deviation.
* Steps to a loss: the mean over seeds of the first look, of one every {every} steps, at which the \
validation loss is not above what SGD, or AdamW, ends with. The schedule is for all {steps} steps; \
one made for fewer could be there earlier. Seconds: steps times the time of a step.
* Time of a step: gradient and update, the median of {timed}, one thread, the variants taking \
turns, after all runs. It depends on the machine, and no loss does.
* What each was given; every other argument has rootfree's default:"""
_STATE_NOTE: Final = """\
SIRF-Shampoo with `precond_lr = {precond_lr:g}` and its state in three ways; the learning rate, \
{lr}, is the best for float32, and the rest is the same. Where all factors stand still, what is \
left is SGD; the figure shows that too, at its own best rate. Moved by: |K - I| / |I| in the \
Frobenius norm, the mean over all factors."""
_QUICK: Final = "**QUICK: a smoke test of the demo. The numbers below mean nothing.**"


def write(report: Report, folder: Path) -> list[Path]:
    """Write ``characters.json``, ``characters.md`` and the figures, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers, text = folder / "characters.json", folder / "characters.md"
    numbers.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    text.write_text(markdown(report), encoding="utf-8")
    return [text, numbers, *draw(report, folder)]


def summary(study: Study) -> str:
    """Return a variant's result in a line."""
    shown = ", ".join(f"{loss:.3f}" for loss in _ends(study)) or "diverged"
    which = "state in " if study["about_state"] else ""
    return f"{which}{study['title']}: lr {short(study['lr'])}, validation loss {shown}"


def tables(report: Report) -> list[Table]:
    """Return the two tables for a terminal."""
    made = []
    for title, (head, rows) in {
        "Methods": method_rows(report),
        "SIRF-Shampoo's state": state_rows(report),
    }.items():
        table = Table(title=title + (", QUICK: means nothing" if report["quick"] else ""))
        shown = [i for i, name in enumerate(head) if name not in _FILE_ONLY]
        for i in shown:
            table.add_column(head[i], justify="right" if i else "left")
        for row in rows:
            table.add_row(*(row[i] for i in shown))
        made.append(table)
    return made


def markdown(report: Report) -> str:
    """Return the report as Markdown: the two tables, and how the numbers were made."""
    slow = next(study for study in report["studies"] if study["about_state"])
    state_note = _STATE_NOTE.format(precond_lr=slow["hyper"]["precond_lr"], lr=short(slow["lr"]))
    lines = ["# Root-free and root-based methods on a character GPT", ""]
    lines += [_QUICK, ""] if report["quick"] else []
    lines += [f"A GPT of two layers and {report['weights']:,} weights.", ""]
    lines += [*_table(*method_rows(report)), "", "![Methods](characters.png)", ""]
    lines += ["## State in bfloat16", "", state_note, ""]
    lines += [*_table(*state_rows(report)), "", *_warnings(report)]
    lines += ["![State](characters_state.png)", "", "## How the numbers were made", ""]
    return "\n".join([*lines, *_notes(report), ""])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["--:" for _ in head[1:]]]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def method_rows(report: Report) -> tuple[Sequence[str], list[list[str]]]:
    """Return the head and the cells of the methods' table."""
    studies = {study["variant"]: study for study in report["studies"]}
    targets = {name: _mean(_ends(studies[name])) for name in ("sgd", "adamw")}
    rows = []
    for name, study in studies.items():
        if study["about_state"]:
            continue
        rates, ends = [run["lr"] for run in study["search"]], _ends(study)
        below = [
            "-" if name == other or not ends or target is None else f"{target - _mean_of(ends):.3f}"
            for other, target in targets.items()
        ]
        reached = [
            "its own end" if name == other else _reached(study, target, report["plan"]["every"])
            for other, target in targets.items()
        ]
        edge = f" ({study['edge']} tried)" if study["edge"] and len(rates) > 1 else ""
        rows.append(
            [
                study["title"],
                f"{len(rates)}: {short(rates[0])} to {short(rates[-1])}",
                short(study["lr"]) + edge,
                _spread(ends),
                *below,
                *reached,
                _relative(study, studies["sgd"]),
                f"{diverged(study['search'])}, {diverged(study['runs'])}",
            ]
        )
    return _METHODS, rows


def state_rows(report: Report) -> tuple[Sequence[str], list[list[str]]]:
    """Return the head and the cells of the table on state."""
    studies = {study["variant"]: study for study in report["studies"]}
    rows = []
    for study in studies.values():
        if not study["about_state"]:
            continue
        finite = [run for run in study["runs"] if not run["diverged"]]
        moved = [run["displacement"][-1] for run in finite]
        size = [run["state_bytes"] / report["weights"] for run in finite]
        rows.append(
            [
                study["title"],
                _spread(_ends(study)),
                f"{100 * _mean_of(moved):.2f} %" if moved else "diverged",
                f"{_mean_of(size):.1f}" if size else "diverged",
                _relative(study, studies["sgd"]),
                "yes" if any(run["warning"] for run in study["runs"]) else "no",
            ]
        )
    return _STATES, rows


def _ends(study: Study) -> list[float]:
    """Return the last validation loss of every seed that did not diverge."""
    return [run["validation_loss"][-1] for run in study["runs"] if not run["diverged"]]


def _mean_of(values: Sequence[float]) -> float:
    return statistics.fmean(values)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "diverged"
    mean = f"{statistics.fmean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def _reached(study: Study, target: float | None, every: int) -> str:
    """Return when the validation loss is first not above ``target``, in steps and seconds."""
    if target is None:
        return "no such loss"
    steps = []
    for run in study["runs"]:
        looks = [i for i, loss in enumerate(run["validation_loss"], 1) if loss <= target]
        steps += [looks[0] * every] if looks else []
    if not steps:
        return "not reached"
    seconds = study["seconds_per_step"]
    took = "" if seconds is None else f" ({statistics.fmean(steps) * seconds:.1f})"
    seeds = len(study["runs"])
    some = "" if len(steps) == seeds else f", {len(steps)} of {seeds} seeds"
    return f"{statistics.fmean(steps):.0f}{took}{some}"


def _relative(study: Study, sgd: Study) -> str:
    one, other = study["seconds_per_step"], sgd["seconds_per_step"]
    return "not timed" if one is None or other is None else f"{one / other:.2f}"


def _warnings(report: Report) -> list[str]:
    """Return what the optimizers warned of, once each, as quotations."""
    said = {
        run["warning"]: study["title"]
        for study in report["studies"]
        for run in study["runs"]
        if run["warning"]
    }
    return [
        line for text, title in said.items() for line in (f"Warned, {title}:", "", f"> {text}", "")
    ]


def _notes(report: Report) -> list[str]:
    """Return the settings as a Markdown list."""
    plan, data = report["plan"], report["data"]
    versions = dict(report["versions"])
    return [
        *_NOTES.format(
            **{**plan, **data, **data["sizes"]},
            whole=sum(data["sizes"].values()),
            Python=versions.pop("Python"),
            others=", ".join(f"{name} {number}" for name, number in versions.items()),
            runs=", ".join(map(str, plan["seeds"])),
        ).splitlines(),
        *(
            f"  * {'state in ' if study['about_state'] else ''}{study['title']}: "
            f"{study['optimizer']}, {arguments(study['hyper'])}"
            + (f"; embeddings, biases and norms: {study['vectors']}" if study["vectors"] else "")
            for study in report["studies"]
        ),
    ]


# Colours of Okabe and Ito, told apart with any colour vision; dashes say the same.
_LOOKS: Final[dict[str, tuple[str, Any]]] = {
    "sgd": ("#000000", (0, (1, 1.2))),
    "adamw": ("#E69F00", (0, (5, 1.5))),
    "rf_rmsprop": ("#56B4E9", (0, (6, 1.5, 1, 1.5))),
    "shampoo": ("#D55E00", (0, (3, 1.5))),
    "sirf_shampoo": ("#0072B2", "-"),
    "routed": ("#009E73", (0, (8, 1.5, 1, 1.5, 1, 1.5))),
    "slow": ("#56B4E9", "-"),
    "slow_nearest": ("#D55E00", (0, (6, 1.5, 1, 1.5))),
    "slow_stochastic": ("#000000", (0, (3, 3))),
}
_WIDTHS: Final = {"sirf_shampoo": 2.0, "slow": 4.0}  # the latter is seen below what covers it


def draw(report: Report, folder: Path) -> list[Path]:
    """Draw ``characters.png``, the methods, and ``characters_state.png``, three ways to keep state.

    Args:
        report: what to draw.
        folder: where to.

    Returns:
        The files written.
    """
    methods = [study for study in report["studies"] if not study["about_state"]]
    states = [study for study in report["studies"] if study["about_state"]]
    every, steps = report["plan"]["every"], report["plan"]["steps"]
    with mpl.rc_context(STYLE):
        figure, (left, right) = _canvas(report, "a two-layer character GPT")
        for study in methods:
            seconds = study["seconds_per_step"] or 0.0
            for ax, scale in ((left, every), (right, every * seconds)):
                _curve(ax, study, [run["validation_loss"] for run in study["runs"]], scale)
        for ax, across in ((left, "step"), (right, "seconds of training, one thread")):
            _label(ax, "validation loss", across)
            _zoom(ax, methods)
        left.xaxis.set_major_locator(MultipleLocator(max(1, steps // 6)))
        _save(figure, left, folder / "characters.png", columns=3)

        figure, (left, right) = _canvas(report, "SIRF-Shampoo's state, in float32 and bfloat16")
        for study in [*states, next(s for s in methods if s["variant"] == "sgd")]:
            _curve(left, study, [run["validation_loss"] for run in study["runs"]], every)
        for study in states:
            _curve(right, study, [run["displacement"] for run in study["runs"]], every)
        _label(left, "validation loss", "step")
        _label(right, "factors' distance from the identity", "step")
        right.set_ylim(bottom=0)
        right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        for ax in (left, right):
            ax.xaxis.set_major_locator(MultipleLocator(max(1, steps // 6)))
        _save(figure, left, folder / "characters_state.png", columns=4)
    return [folder / "characters.png", folder / "characters_state.png"]


def _canvas(report: Report, title: str) -> tuple[Figure, tuple[Axes, Axes]]:
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    quick = "QUICK, means nothing: " if report["quick"] else ""
    seeds = len(report["plan"]["seeds"])
    figure.suptitle(
        f"{quick}{title}\nline: mean over {seeds} seeds; band: lowest to highest", fontsize=11
    )
    return figure, (left, right)


def _curve(ax: Axes, study: Study, curves: Sequence[Sequence[float]], scale: float) -> None:
    """Draw one variant: the mean over seeds and a band from the lowest to the highest.

    Seeds that diverged end the band where the first of them stops.
    """
    length = min(map(len, curves))
    points = list(zip(*(curve[:length] for curve in curves), strict=True))
    across = [scale * i for i in range(1, length + 1)]
    colour, dashes = _LOOKS[study["variant"]]
    ax.fill_between(
        across, [min(p) for p in points], [max(p) for p in points], color=colour, alpha=0.18, lw=0
    )
    ax.plot(
        across,
        [statistics.fmean(p) for p in points],
        color=colour,
        linestyle=dashes,
        linewidth=_WIDTHS.get(study["variant"], 1.6),
        label=study["title"],
    )


def _label(ax: Axes, title: str, across: str) -> None:
    ax.set_title(title)
    ax.set_xlabel(across)


def _zoom(ax: Axes, studies: Sequence[Study]) -> None:
    """Show what happens after the first fifth: before it every loss falls, and off the scale."""
    seen = [
        loss
        for study in studies
        for run in study["runs"]
        for loss in run["validation_loss"][len(run["validation_loss"]) // 5 :]
    ]
    if seen:
        low, high = min(seen), max(seen)
        ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def _save(figure: Figure, ax: Axes, path: Path, columns: int) -> None:
    lines = ax.get_lines()
    figure.legend(
        lines,
        [str(line.get_label()) for line in lines],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handlelength=3.2,
    )
    figure.savefig(path, dpi=160, metadata={"Software": None})


def main() -> None:
    """Make the tables and figures again, beside the JSON file that is given."""
    path = Path(sys.argv[1])
    write(json.loads(path.read_text(encoding="utf-8")), path.parent)


if __name__ == "__main__":
    main()
