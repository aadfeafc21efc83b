"""Seeded faults (conformance 8): data that follows the code, each with its named killer."""

from __future__ import annotations

import math
import re

import pytest
from rootfree_conformance import teeth
from rootfree_conformance.cases.families import POLICIES
from rootfree_conformance.checks import CHECKS
from rootfree_conformance.discovery import known
from rootfree_conformance.faults.catalogue import FAULTS
from rootfree_conformance.faults.patch import PACKAGES, StaleFaultError, folder, seed

AUDITS = {"A0", "A4", "A5"}
BY_ID = {fault.id: fault for fault in FAULTS}


def replaced(fault, **fields):
    """Return a fault with other fields."""
    return type(fault)(**{**vars(fault), **fields})


def test_ids_are_unique():
    """Numbers are never reused, and no fault is planted twice."""
    assert len(BY_ID) == len(FAULTS) >= 70
    assert all(re.fullmatch(r"M\d{2,3}", fault.id) for fault in FAULTS)
    experiments = {(f.file, f.old, f.new, f.killer, f.port, f.rules, f.policies) for f in FAULTS}
    assert len(experiments) == len(FAULTS)
    assert len({fault.title for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=BY_ID)
def test_faults_follow_the_code(fault):
    """The text to replace occurs exactly once, and what replaces it is another text."""
    package, _, path = fault.file.partition("/")
    assert (folder(package) / path).read_text().count(fault.old) == 1
    assert fault.old != fault.new


@pytest.mark.parametrize("fault", FAULTS, ids=BY_ID)
def test_faults_name_what_exists(fault):
    """Killer, port, rules, policies and package are real, and the killer has cases to run."""
    assert fault.killer in {*CHECKS, *AUDITS}
    assert fault.port in {*known(), "suite"}
    assert (fault.port == "suite") == (fault.killer in AUDITS)
    assert fault.file.split("/")[0] in PACKAGES
    assert set(fault.policies) <= set(POLICIES)
    if fault.killer in CHECKS:
        pairs = teeth._pairs(fault)
        assert pairs
        assert {case.method.name for _, case in pairs} >= set(fault.rules)


def test_every_check_has_a_victim():
    """A check that kills nothing is deleted (conformance 8.2); so is an audit."""
    assert {fault.killer for fault in FAULTS} == {*CHECKS, *AUDITS}


def test_no_package_is_left_out_of_the_copy():
    """What a fault breaks is copied, else the whole package would run beside the broken one."""
    assert {fault.file.split("/")[0] for fault in FAULTS} <= set(PACKAGES)
    assert {"rootfree", "rootfree_textbook", "rootfree_conformance"} <= set(PACKAGES)


def test_seeding_breaks_one_file(tmp_path):
    """The copy differs in the fault's text alone, and the original is not touched."""
    fault = BY_ID["M24"]
    original = folder("rootfree") / "descent.py"
    before = original.read_text()
    seed(fault, tmp_path)
    assert original.read_text() == before
    assert (tmp_path / fault.file).read_text() == before.replace(fault.old, fault.new)
    for package in PACKAGES:
        for path in folder(package).rglob("*"):
            relative = path.relative_to(folder(package))
            if path.is_file() and "__pycache__" not in path.parts:
                same = (tmp_path / package / relative).read_bytes() == path.read_bytes()
                assert same != (f"{package}/{relative}" == fault.file)


@pytest.mark.parametrize("old", ["a text that is nowhere", "hyper", ""])
def test_a_stale_fault_is_an_error(old, tmp_path, monkeypatch):
    """A text that is not there exactly once stops teeth: faults follow the code."""
    fault = replaced(BY_ID["M24"], old=old)
    with pytest.raises(StaleFaultError, match=r"M24: rootfree/descent.py has \d+ places with"):
        seed(fault, tmp_path)
    monkeypatch.setattr(teeth, "FAULTS", (fault,))
    with pytest.raises(StaleFaultError):
        list(teeth.kills())


def test_three_faults_are_killed(monkeypatch):
    """A rule, a refusal and the comparator: each by its named check, and by a number."""
    chosen = [replaced(BY_ID[name], rules=("rf_rmsprop",)) for name in ("M24", "M59")]
    monkeypatch.setattr(teeth, "FAULTS", (*chosen, BY_ID["M71"]))
    found = {kill.fault.id: kill for kill in teeth.kills()}
    assert all(kill.killed for kill in found.values()), found
    assert all(math.isfinite(kill.value) and kill.value > 0 for kill in found.values())
    assert found["M24"].case == "L3.2/rf_rmsprop/balanced/3x5@float32"
    assert found["M24"].first_bad == "param"
    assert found["M24"].value > 10
    assert found["M59"].case.startswith("L8.3/")
    assert found["M71"].case == "A4"


def test_a_harmless_fault_is_missed(monkeypatch):
    """Teeth do not report kills that did not happen, nor prove anything on a port that fails."""
    fault = replaced(BY_ID["M24"], new="return -(1.0 * hyper.lr) * direction")
    blind = replaced(BY_ID["M24"], policies=("float16",))
    monkeypatch.setattr(teeth, "FAULTS", (fault, blind))
    missed, unproven = teeth.kills()
    assert not missed.killed
    assert missed.value <= 1
    assert not unproven.killed
    assert "does not pass the same cases" in unproven.case


def test_a_kill_needs_a_port_that_is_whole(monkeypatch):
    """Where the unbroken port fails too, a failure proves nothing."""
    broken = replaced(BY_ID["M24"], new="return -hyper.lr * direction * 2.0")
    results = teeth._results
    seen = []

    def failing(fault, pairs, truth, path):
        seen.append(path)
        return results(fault, pairs, truth, path) if path else []

    monkeypatch.setattr(teeth, "FAULTS", (broken,))
    monkeypatch.setattr(teeth, "_results", failing)
    (kill,) = teeth.kills()
    assert not kill.killed
    assert len(seen) == 2
