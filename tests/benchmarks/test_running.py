"""Races that are run, on tiny shapes: every contestant that needs no compiler, and the files."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from benchmarks import counts
from benchmarks.__main__ import parser
from benchmarks.contestants import Contestant, Racer
from benchmarks.machine import facts
from benchmarks.racing import LEAST_ROUNDS, race
from benchmarks.report import write
from benchmarks.schedule import EVENTS
from benchmarks.shape_sets import SETS
from benchmarks.verdicts import judge

ROOT = Path(__file__).parents[2]
UNCOMPILED = {
    contestant.key: contestant
    for event in EVENTS
    for contestant in event.contestants
    if contestant.mode != "compiled"
}


@pytest.fixture(scope="module")
def tiny() -> Any:
    """A race of all of them, two rounds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of other packages are theirs
        return race("a/tiny", "All", "tiny", SETS["tiny"], [*UNCOMPILED.values()], rounds=2)


def test_everybody_runs_or_says_why(tiny: Any) -> None:
    """Two times each, state and counts where they can be had; who is not installed has none."""
    for result, contestant in zip(tiny["results"], UNCOMPILED.values(), strict=True):
        missing = [name for name in contestant.needs if importlib.util.find_spec(name) is None]
        assert all(name in (result["lacks"] or "") for name in missing)
        if result["lacks"]:
            assert not result["milliseconds"]
            continue
        assert len(result["milliseconds"]) == 2
        assert min(result["milliseconds"]) > 0
        assert bool(result["state_bytes"]) is not contestant.bound
        assert (result["operations"] is not None) == (contestant.mode == "eager")


def test_the_authors_state_is_counted_whole(tiny: Any) -> None:
    """Factors, their momenta and momentum: rootfree's has a counter a parameter besides."""
    found = {result["key"]: result for result in tiny["results"]}
    ours, theirs = found["sirf_eager"]["state_bytes"], found["sirfshampoo_0.001"]["state_bytes"]
    assert ours - theirs == 4 * len(SETS["tiny"])


def test_files_are_written(tiny: Any, tmp_path: Path) -> None:
    """JSON without NaN, a Markdown table, pictures; the JSON names no host and no path."""
    growth = {"key": "g", "title": "Growth", "axis": "size", "sizes": [1, 2], "races": [tiny] * 2}
    report: Any = {
        "quick": False,
        "wanted": ["S1"],
        "machine": facts(),
        "races": [tiny],
        "series": [growth],
        "counts": [],
        "judgements": judge([tiny], [], ["S1"]),
    }
    files = write(report, tmp_path / "new")
    names = {path.name for path in files}
    assert names == {"bench.json", "bench.md", "steps.png", "state.png", "growth.png"}
    text = (tmp_path / "new" / "bench.json").read_text(encoding="utf-8")
    loaded = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert loaded["races"][0]["results"][0]["milliseconds"]
    assert str(Path.home()) not in text
    for path in files:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG\r\n")
            assert path.stat().st_size > 10_000


def test_rounds_are_interleaved() -> None:
    """Each round runs everybody once and begins with the next; warming up comes before."""
    seen: list[str] = []

    def contestant(key: str) -> Contestant:
        def enter(shapes: Any, seed: int) -> Racer:
            return Racer(lambda: seen.append(key), lambda: 0)

        return Contestant(key, key, enter, mode="jitted", warm_up=1)

    race("r", "r", "tiny", SETS["tiny"], [contestant(key) for key in "abc"], rounds=4)
    assert "".join(seen) == "abc" + "abc" + "bca" + "cab" + "abc"
    seen.clear()
    slow = [contestant(key) for key in "ab"]
    race("r", "r", "tiny", SETS["tiny"], slow, rounds=40, seconds=0.0)
    assert len(seen) == 2 * (1 + LEAST_ROUNDS)


def test_the_same_numbers_for_all() -> None:
    """A contestant that writes into its gradients changes those of no other."""
    from benchmarks.shape_sets import normal

    before = [x.copy() for x in normal(SETS["tiny"], 1, 0.5)]
    for key in ("pytorch_optimizer_shampoo", "sirf_eager"):
        contestant = UNCOMPILED[key]
        if contestant.lacks() is None:
            contestant.enter(SETS["tiny"], 0).step()
    after = normal(SETS["tiny"], 1, 0.5)
    assert all((x == y).all() for x, y in zip(before, after, strict=True))


def test_counts_without_a_compiler() -> None:
    """S11 and S13: two methods, and seconds and frameworks of an import."""
    found = counts.counts(["S11", "S13"])
    assert [count["id"] for count in found] == ["S11", "S11", "S13", "S13"]
    assert found[-1]["value"] == 0


def test_the_command_line(tmp_path: Path) -> None:
    """It writes and exits with 0 whatever it finds, and refuses a target that is none."""
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "S13"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "new")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "S13" in (tmp_path / "new" / "bench.md").read_text(encoding="utf-8")
    assert "\x1b" not in done.stdout  # plain lines where there is no terminal


def test_targets_are_named_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """In any case and order; one that does not exist is refused, and those there are named."""
    assert parser().parse_args(["--only", "s5, S3"]).only == ("S3", "S5")
    with pytest.raises(SystemExit):
        parser().parse_args(["--only", "S3,S99"])
    assert "unknown S99" in capsys.readouterr().err
