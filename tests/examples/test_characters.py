"""The demo on characters: its smoke version end to end, and its parts."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
METHODS = {
    "sgd": "SGD",
    "adamw": "AdamW",
    "rf_rmsprop": "RF-RMSProp",
    "shampoo": "Shampoo",
    "sirf_shampoo": "SIRF-Shampoo",
    "routed": "SIRF-Shampoo, vectors RF-RMSProp",
}
STATES = {
    "slow": "float32",
    "slow_nearest": "bfloat16, nearest",
    "slow_stochastic": "bfloat16, stochastic",
}


def module(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    """Return a module of the examples."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module(name)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module with the text and the model."""
    return module(monkeypatch, "character_tasks")


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module with the variants and the runs."""
    return module(monkeypatch, "characters")


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that writes the outputs."""
    return module(monkeypatch, "character_report")


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module with the search."""
    return module(monkeypatch, "budget")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``--quick`` writes, run as a user would, with warnings as errors."""
    out = tmp_path_factory.mktemp("demo") / "new"
    command = [sys.executable, "-W", "error", str(EXAMPLES / "characters.py"), "--quick"]
    done = subprocess.run(
        [*command, "--workers", "2", "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SHA-256" in done.stdout
    assert "\x1b" not in done.stdout  # plain lines where there is no terminal
    return out


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    """What is in the JSON file, which must not hold NaN or infinity."""
    text = (folder / "characters.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(
        text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")
    )
    return loaded


def test_every_variant_has_numbers_or_is_said_to_have_diverged(report: dict[str, Any]) -> None:
    """A study a variant, its curves finite and complete unless it diverged."""
    assert [study["variant"] for study in report["studies"]] == [*METHODS, *STATES]
    plan = report["plan"]
    for study in report["studies"]:
        assert [run["seed"] for run in study["runs"]] == plan["seeds"]
        assert study["seconds_per_step"] > 0
        for run in study["search"] + study["runs"]:
            curves = [run["train_loss"], run["validation_loss"]]
            curves += [run["displacement"]] if study["optimizer"] == "SIRFShampoo" else []
            assert all(math.isfinite(value) for curve in curves for value in curve)
            lengths = {len(curve) for curve in curves}
            assert run["diverged"] or lengths == {plan["steps"] // plan["every"]}


def test_ways_to_keep_the_state_differ_in_nothing_else(report: dict[str, Any]) -> None:
    """One learning rate for the three; bfloat16 takes half the bytes; nearest is warned of."""
    studies = {study["variant"]: study for study in report["studies"]}
    wide, *narrow = (studies[name] for name in STATES)
    assert {study["lr"] for study in narrow} == {wide["lr"]}
    for study in narrow:
        given = {k: v for k, v in study["hyper"].items() if k not in ("state_dtype", "rounding")}
        assert given == wide["hyper"]
        assert study["runs"][0]["state_bytes"] < 0.51 * wide["runs"][0]["state_bytes"]
    warned = {name for name, study in studies.items() for run in study["runs"] if run["warning"]}
    assert warned == {"slow_nearest"}


def test_the_tables_have_a_row_a_variant(folder: Path) -> None:
    """Each title starts a row, and the outputs say that they are a smoke test."""
    text = (folder / "characters.md").read_text(encoding="utf-8")
    for title in (*METHODS.values(), *STATES.values()):
        assert len([line for line in text.splitlines() if line.startswith(f"| {title} |")]) == 1
    assert "QUICK" in text


def test_the_figures_are_pngs(folder: Path) -> None:
    """Both are written, and are more than an empty canvas."""
    for name in ("characters.png", "characters_state.png"):
        content = (folder / name).read_bytes()
        assert content.startswith(b"\x89PNG\r\n")
        assert len(content) > 20_000


def test_a_loss_that_is_not_reached_is_said_so(
    report: dict[str, Any], outputs: ModuleType, tmp_path: Path
) -> None:
    """Curves made up: reached by all, by one seed of two, by none; and a study that diverged."""
    changed = json.loads(json.dumps(report))
    ends = {"sgd": [9, 1], "adamw": [9, 0.5], "rf_rmsprop": [0.1, 0.1]}
    for study in changed["studies"]:
        study["seconds_per_step"] = 0.5
        for run in study["runs"]:
            run["validation_loss"] = ends.get(study["variant"], [2, 2])
    shampoo = changed["studies"][3]
    shampoo["runs"][0]["validation_loss"] = [9, 0.9]
    for run in changed["studies"][4]["runs"]:
        run.update(diverged=True, train_loss=[], validation_loss=[], displacement=[])
    outputs.write(changed, tmp_path)
    text = (tmp_path / "characters.md").read_text(encoding="utf-8")
    rows = {line.split(" |")[0][2:]: line.split(" | ") for line in text.splitlines() if "|" in line}
    first, last = changed["plan"]["every"], changed["plan"]["steps"]
    assert rows["RF-RMSProp"][6:8] == [f"{first} ({first / 2:.1f})"] * 2
    assert rows["Shampoo"][6:8] == [f"{last} ({last / 2:.1f}), 1 of 2 seeds", "not reached"]
    assert rows["SGD"][6:8] == ["its own end", "not reached"]
    assert rows["SIRF-Shampoo"][3] == "diverged"


def test_the_search_goes_on_where_the_best_lies_on_an_edge(budget: ModuleType) -> None:
    """From a centre of 1 to a best rate of 8, each rate tried once; and no further than allowed."""

    def do(rates: list[float]) -> list[dict[str, float]]:
        return [{"lr": lr, "loss": abs(math.log2(lr / 8))} for lr in rates]

    def merit(run: dict[str, float]) -> float:
        return -run["loss"]

    tried = budget.search(1.0, budget.Grid(3, 2.0, 5), do, merit)
    assert [run["lr"] for run in tried] == [0.5, 1, 2, 4, 8, 16]
    assert budget.best(tried, merit)["lr"] == 8
    assert budget.edge(tried, merit) is None
    short = budget.search(1.0, budget.Grid(3, 2.0, 1), do, merit)
    assert [run["lr"] for run in short] == [0.5, 1, 2, 4]
    assert budget.edge(short, merit) == "highest"


def test_the_text_is_split_by_position(tasks: ModuleType) -> None:
    """Nothing is lost or read twice, and the numbers spell the text."""
    text = tasks.load()
    whole = torch.cat([text.train, text.validation])
    assert len(whole) > 300_000
    assert sorted(set(whole.tolist())) == list(range(len(text.alphabet)))
    spelled = "".join(text.alphabet[i] for i in whole[:20_000].tolist())
    assert "with" in spelled
    read, following = tasks.windows(text.train, torch.tensor([0, 7]))
    assert read.shape == following.shape == (2, tasks.CONTEXT)
    assert torch.equal(read[:, 1:], following[:, :-1])


def test_the_model_does_not_see_what_follows(tasks: ModuleType) -> None:
    """A changed character changes no score before its own place."""
    torch.manual_seed(0)
    model = tasks.GPT(11)
    read = torch.randint(11, (2, tasks.CONTEXT))
    changed = read.clone()
    changed[:, 40:] = (changed[:, 40:] + 1) % 11
    difference = (model(read) - model(changed)).abs().amax((0, 2))
    assert difference[:40].max() < 1e-5
    assert difference[40:].min() > 1e-4


def test_vectors_and_embeddings_can_have_a_method_of_their_own(
    demo: ModuleType, tasks: ModuleType
) -> None:
    """Every parameter is in one of two groups, and matrices of linear layers are in the first."""
    model = tasks.GPT(11)
    matrices, others = demo.grouped(model, demo.VARIANTS["routed"], 0.1)
    assert len(matrices["params"]) + len(others["params"]) == len(list(model.parameters()))
    linear = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert {id(p) for p in matrices["params"]} == {id(weight) for weight in linear}
    assert others["rule"] == "rf_rmsprop"
    assert others["lr"] == 0.1
