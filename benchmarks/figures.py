"""The figures: steps of every race as bars with the floor drawn, growth on log axes, state."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from benchmarks.racing import Race, Result
from benchmarks.scaling import Series

# Colours of Okabe and Ito, told apart with any colour vision; patterns and markers say the same.
_OURS: Final = "#0072B2"
_THEIRS: Final = "#E69F00"
_FLOOR: Final = "#000000"
_LOOKS: Final = (
    ("#000000", (0, (1, 1.2)), ""),
    ("#56B4E9", (0, (5, 1.5)), "s"),
    ("#0072B2", "-", "o"),
    ("#009E73", "-", "P"),
    ("#D55E00", (0, (6, 1.5, 1, 1.5)), "D"),
    ("#E69F00", (0, (3, 1.5)), "^"),
)
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
}


def draw(
    races: Sequence[Race], series: Sequence[Series], folder: Path, *, quick: bool
) -> list[Path]:
    """Draw what there is to draw, and return the files."""
    note = "  (QUICK: few rounds)" if quick else ""
    run = [race for race in races if any(_ran(race))]
    files = []
    with mpl.rc_context(_STYLE):
        if run:
            files.append(_bars(run, folder / "steps.png", f"Milliseconds of a step{note}"))
            title = f"Bytes of optimizer state for a byte of float32 parameters{note}"
            files.append(_states(run, folder / "state.png", title))
        if series:
            files.append(_growth(series, folder / "growth.png"))
    return files


def _ran(race: Race, *, bounds: bool = False) -> Iterator[Result]:
    """Yield the results with times, optimizers alone or floors alone."""
    for result in race["results"]:
        if result["milliseconds"] and result["bound"] is bounds:
            yield result


def _is_ours(result: Result) -> bool:
    return result["key"].startswith(("rf_", "sirf_", "shampoo"))


def _bars(races: Sequence[Race], path: Path, title: str) -> Path:
    """Draw a panel a race: the median step as a bar, shortest and longest as a line."""
    lengths = [len(list(_ran(race))) + 1.6 for race in races]
    columns = 2
    pairs = [lengths[i : i + columns] for i in range(0, len(races), columns)]
    heights = [max(pair) for pair in pairs]
    figure = Figure(
        figsize=(13, 0.34 * sum(heights) + 0.55 * len(heights) + 0.6), layout="constrained"
    )
    grid = figure.subplots(
        len(heights), columns, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    panels = list(grid.flat)
    for ax, race in zip(panels, races, strict=False):
        _panel(ax, race)
    for ax in panels[len(races) :]:
        ax.set_axis_off()
    figure.suptitle(
        f"{title}\nbar: median over the rounds; line: shortest to longest; dotted: a floor, bare "
        "work; blue: rootfree, orange hatched: others",
        fontsize=10,
    )
    figure.savefig(path, dpi=140, metadata={"Software": None})
    return path


def _panel(ax: Axes, race: Race) -> None:
    results = list(_ran(race))
    medians = [statistics.median(result["milliseconds"]) for result in results]
    for place, (result, median) in enumerate(zip(results, medians, strict=True)):
        ours = _is_ours(result)
        ax.barh(
            place,
            median,
            color=_OURS if ours else _THEIRS,
            hatch="" if ours else "//",
            edgecolor="white",
            height=0.72,
        )
        low, high = min(result["milliseconds"]), max(result["milliseconds"])
        ax.plot([low, high], [place, place], color="0.35", linewidth=1)
        ax.annotate(
            f"{median:.3g}" if median < 100 else f"{median:.0f}",
            (median, place),
            xytext=(4, 5),
            textcoords="offset points",
            fontsize=8,
            va="center",
        )
    _floors(ax, race, len(results))
    ax.set_yticks(range(len(results)), [result["title"] for result in results])
    ax.set_ylim(len(results) - 0.4, -0.6)
    bounds = [statistics.median(result["milliseconds"]) for result in _ran(race, bounds=True)]
    longest = [max(result["milliseconds"]) for result in results]
    ax.set_xlim(0, max(1.25 * max([*medians, *bounds]), 1.03 * max(longest)))
    ax.set_title(f"{race['title']}: {race['shape_set']}", loc="right", fontsize=9.5)


def _floors(ax: Axes, race: Race, rows: int) -> None:
    """Draw the floors as vertical lines, named in the legend with their time."""
    dashes = ((0, (1, 1)), (0, (4, 1.5)), (0, (6, 1.5, 1, 1.5)))
    for result, dash in zip(_ran(race, bounds=True), dashes, strict=False):
        median = statistics.median(result["milliseconds"])
        name = result["title"].removeprefix("floor: ")
        ax.axvline(
            median, color=_FLOOR, linestyle=dash, linewidth=1.2, label=f"{name}: {median:.3g}"
        )
    if ax.get_legend_handles_labels()[0]:
        ax.legend(
            loc="upper right",
            bbox_to_anchor=(1, 0),
            borderaxespad=2.4,
            ncols=2,
            fontsize=7.5,
            frameon=False,
            handlelength=2.6,
        )


def _states(races: Sequence[Race], path: Path, title: str) -> Path:
    """Draw the state of every optimizer over the float32 parameters, on one shape set each."""
    shown: dict[str, tuple[float, Result]] = {}
    titles = set()
    for race in races:
        if race["title"] in titles:
            continue  # on another shape set already
        titles.add(race["title"])
        parameters = 4 * sum(map(math.prod, race["shapes"]))
        for result in _ran(race):
            label = f"{result['title']}: {race['shape_set']}"
            shown[label] = ((result["state_bytes"] or 0) / parameters, result)
    figure = Figure(figsize=(9, 0.26 * len(shown) + 1.0), layout="constrained")
    ax = figure.subplots()
    for place, (share, result) in enumerate(shown.values()):
        ours = _is_ours(result)
        ax.barh(
            place,
            share,
            color=_OURS if ours else _THEIRS,
            hatch="" if ours else "//",
            edgecolor="white",
        )
        ax.annotate(
            f"{share:.2f}",
            (share, place),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=8,
            va="center",
        )
    ax.set_yticks(range(len(shown)), list(shown), fontsize=8)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=140, metadata={"Software": None})
    return path


def _growth(series: Sequence[Series], path: Path) -> Path:
    """Draw the median step against what grows, a panel a series, on log axes."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    panels = figure.subplots(1, len(series), squeeze=False)[0]
    for ax, one in zip(panels, series, strict=True):
        races = one["races"]
        for number, first in enumerate(races[0]["results"]):
            if first["lacks"] is not None:
                continue
            medians = [statistics.median(race["results"][number]["milliseconds"]) for race in races]
            colour, dashes, marker = _LOOKS[number % len(_LOOKS)]
            ax.plot(
                one["sizes"],
                medians,
                color=colour,
                linestyle=dashes,
                marker=marker,
                markersize=5,
                linewidth=1.6,
                label=first["title"],
            )
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(one["sizes"], list(map(str, one["sizes"])))
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        ax.grid(visible=True, color="0.9", linewidth=0.6)
        ax.set_xlabel(one["axis"])
        ax.set_title(f"{one['title']}: milliseconds of a step, median")
        ax.legend(fontsize=8, framealpha=0.9, handlelength=3)
    figure.savefig(path, dpi=140, metadata={"Software": None})
    return path
