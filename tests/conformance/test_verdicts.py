"""Verdicts and exit codes (conformance 1 and 9): no case is skipped silently."""

from __future__ import annotations

import re

import numpy as np
import pytest
from rootfree import METHODS
from rootfree_conformance import audits, discovery
from rootfree_conformance.checks.contract import Result, failed_to_run
from rootfree_conformance.verdict import Exit, exit_code, verdict

GOOD = "from rootfree_conformance.ports.numpy_port import port"
ABSENT = "import a_library_that_is_not_installed"
BROKEN = "import math\nfrom math import there_is_no_such_name"
WRONG = """
from rootfree_conformance.ports.numpy_port import port

step = port.step
port.step = lambda handle, grads, hyper: step(handle, grads, {**hyper, "lr": 1.0005 * hyper["lr"]})
"""
DYING = """
import os
from rootfree_conformance.ports.numpy_port import port

step, steps = port.step, []

def counted(handle, grads, hyper):
    steps.append(1)
    if len(steps) == 20:
        os._exit(7)
    return step(handle, grads, hyper)

port.step = counted
"""
RAISING = """
from rootfree_conformance.ports.numpy_port import port

def step(handle, grads, hyper):
    raise RuntimeError("the accelerator is on fire")

port.step = step
"""
HIDDEN = """
from rootfree_conformance.ports.numpy_port import port

read = port.read
port.read = lambda handle: read(handle)._replace(state={})
"""
SINGLE = """
import array_api_compat.numpy as xp
import numpy as np
from rootfree_conformance import NumericModel, port_from_namespace

port = port_from_namespace(
    name="single", device="cpu", xp=xp, dtypes={"float64": NumericModel()},
    to_device=lambda host, dtype: host.astype(np.float32),
    to_host=lambda array: array.astype(np.float64),
)
"""
QUICK = ("--profile", "quick", "--dtype", "float64")


def result(passed: bool, name: str = "a", executed: bool = True) -> Result:
    """Return a result."""
    return Result(name, executed, "R", 0.5 if passed else 2.0, 1.0)


@pytest.mark.parametrize(
    ("results", "must_pass", "said"),
    [
        ([], [], "NOT RUN"),
        ([], ["a"], "NOT RUN"),
        ([result(True)], ["a"], "CONFORMANT"),
        ([result(True)], [], "CONFORMANT"),
        ([result(True)], ["a", "b"], "INCOMPLETE"),
        ([result(False)], ["a"], "NON-CONFORMANT"),
        ([result(False)], ["a", "b"], "NON-CONFORMANT"),
        ([result(True), result(False, "b")], ["a", "b"], "NON-CONFORMANT"),
        ([result(False, "more than must pass"), result(True)], ["a"], "NON-CONFORMANT"),
        ([result(True), result(True, "b", executed=False)], ["a", "b"], "INCOMPLETE"),
        ([result(True, executed=False)], ["a"], "NOT RUN"),
    ],
    ids=range(11),
)
def test_verdict(results, must_pass, said):
    """NON-CONFORMANT outranks INCOMPLETE outranks CONFORMANT; executed is what counts."""
    assert verdict(results, must_pass) == said


def test_what_did_not_pass():
    """A case that was not executed, or that has no number to show, has not passed."""
    assert not result(True, executed=False).passed
    assert not Result("a", True, "R", float("nan"), 1.0).passed
    assert not failed_to_run(next(audits.CHECKS["L3.2"].cases("L3.2")), "an error").passed


YES, NO, PART, NOT = "CONFORMANT", "NON-CONFORMANT", "INCOMPLETE", "NOT RUN"


@pytest.mark.parametrize(
    ("verdicts", "required", "audited", "code"),
    [
        ({"core": YES, "a": YES}, ["a"], True, 0),
        ({"core": YES, "a": YES, "b": NOT}, [], True, 0),
        ({"core": YES, "a": YES, "b": NOT}, ["b"], True, 3),
        ({"core": YES, "a": YES, "b": PART}, ["b"], True, 3),
        ({"core": YES, "a": YES, "b": PART}, [], True, 3),
        ({"core": PART, "a": PART}, [], True, 3),
        ({"core": YES, "a": YES}, ["never heard of"], True, 3),
        ({"core": YES, "a": NOT}, [], True, 4),
        ({"core": YES, "a": NOT}, ["a"], True, 4),
        ({"core": YES}, [], True, 4),
        ({"core": YES, "a": YES, "b": NO}, [], True, 1),
        ({"core": YES, "a": NO, "b": NOT}, ["b"], True, 1),
        ({"core": NO, "a": NOT}, [], True, 1),
        ({"core": NOT, "a": NOT}, ["a"], False, 2),
        ({"core": YES, "a": NO}, [], False, 2),
    ],
    ids=range(15),
)
def test_exit_code(verdicts, required, audited, code):
    """The first that applies of 2, 1, 4, 3, 0."""
    assert exit_code(verdicts, required, audits_passed=audited) == code


def line(screen: str, name: str) -> str:
    """Return the verdict and what follows it, of the last line that begins with a name."""
    found = re.findall(rf"^{re.escape(name)} +((?:CONF|NON-|INCO|NOT ).*)$", screen, re.MULTILINE)
    return found[-1]


@pytest.mark.parametrize(
    ("source", "arguments", "code", "said"),
    [
        (GOOD, QUICK, Exit.CONFORMANT, r"CONFORMANT +147 cases  float64$"),
        (GOOD, (*QUICK, "--rule", "sgd"), Exit.REQUIRED_MISSING, r"INCOMPLETE +10 cases"),
        (GOOD, (*QUICK, "--level", "L8"), Exit.REQUIRED_MISSING, r"INCOMPLETE +28 cases"),
        (WRONG, QUICK, Exit.NON_CONFORMANT, r"NON-CONFORMANT +147 cases"),
        (RAISING, QUICK, Exit.NON_CONFORMANT, r"NON-CONFORMANT +147 cases"),
        (HIDDEN, QUICK, Exit.NON_CONFORMANT, r"NON-CONFORMANT +147 cases"),
        (SINGLE, QUICK, Exit.NON_CONFORMANT, r"NON-CONFORMANT +147 cases"),
        (DYING, QUICK, Exit.REQUIRED_MISSING, r"INCOMPLETE +\d+ cases.*\(.*process died"),
        (ABSENT, QUICK, Exit.NOTHING_EXECUTED, r"NOT RUN +\(ModuleNotFoundError: No module named"),
        (BROKEN, QUICK, Exit.NOTHING_EXECUTED, r"NOT RUN +\(ImportError: cannot import name"),
        ("port = 1", QUICK, Exit.NOTHING_EXECUTED, r"NOT RUN +\(AttributeError: .*'name'"),
        ("", QUICK, Exit.NOTHING_EXECUTED, r"NOT RUN +\(AttributeError: .*'port'"),
        ("raise SystemExit(0)", QUICK, Exit.NOTHING_EXECUTED, r"NOT RUN +\(.+\)"),
    ],
    ids=[
        "good",
        "rules",
        "levels",
        "wrong",
        "raising",
        "hiding its state",
        "float32 for float64",
        "dying",
        "absent",
        "broken",
        "no port",
        "nothing",
        "leaves",
    ],
)
def test_one_port(source, arguments, code, said, port_file, command):
    """Each kind of port and selection has its verdict, its reason and its exit code."""
    came, screen = command("--port", port_file(source), *arguments)
    assert re.match(said, line(screen, "acme.py")), screen
    assert came == code
    assert screen.splitlines()[-1] == f"exit {int(code)}"


def test_a_required_port_is_absent(port_file, command, monkeypatch):
    """Absence is a failure where the port is required, and only a word where it is not."""
    good = discovery.reference("numpy")
    known = {"numpy": good, "absent": "a_library_that_is_not_installed.port:port"}
    monkeypatch.setattr(discovery, "known", lambda: known)
    code, screen = command(*QUICK)
    assert (code, line(screen, "absent")[:7]) == (0, "NOT RUN")
    code, screen = command(*QUICK, "--require", "numpy,absent")
    assert code == Exit.REQUIRED_MISSING
    assert "No module named 'a_library_that_is_not_installed'" in line(screen, "absent")
    assert line(screen, "numpy").startswith("CONFORMANT")
    monkeypatch.setenv("ROOTFREE_REQUIRE", "absent")
    assert command(*QUICK, "--backend", "numpy")[0] == Exit.REQUIRED_MISSING
    assert command(*QUICK, "--backend", "absent")[0] == Exit.NOTHING_EXECUTED


def test_a_port_given_by_file_is_required(port_file, command):
    """What was asked for must run, even beside a port that conforms."""
    both = ("--port", port_file(GOOD), "--port", port_file(ABSENT, "absent.py"))
    code, screen = command(*both, *QUICK)
    assert code == Exit.REQUIRED_MISSING
    assert line(screen, "acme.py").startswith("CONFORMANT")


def test_a_failure_says_what_and_where(port_file, command):
    """The screen has the rule, the case, the first bad quantity and the numbers."""
    _, screen = command("--port", port_file(WRONG), *QUICK)
    first = screen[screen.index("FAIL acme.py L3.2/sgd/") :].splitlines()
    assert first[0] == "FAIL acme.py L3.2/sgd/balanced/3x5@float64"
    assert "first bad quantity: param" in first[1]
    shown = re.search(
        r"R = (\S+) at param\[\d, \d\]: got (\S+), expected (\S+) \+- (\S+);", first[2]
    )
    r, x, v, e = map(float, shown.groups())
    assert r == pytest.approx(abs(x - v) / e, rel=1e-2)
    assert r > 1e9
    rows = [re.match(r"(\w+) +ok \S+ +FAIL \d+/\d+$", text) for text in screen.splitlines()]
    assert [row[1] for row in rows if row] == [*METHODS, "float64"]


def test_a_port_that_raises_is_quoted(port_file, command):
    """An exception fails the case; its class and words are shown, and the next case still runs."""
    _, screen = command("--port", port_file(RAISING), *QUICK)
    assert "RuntimeError in Step: the accelerator is on fire" in screen
    assert "first bad quantity: exception" in screen


@pytest.mark.parametrize("change", ["removed", "added"])
def test_the_must_pass_list_is_compared(change, port_file, command, monkeypatch):
    """A5: a line removed from the list, or added to it, stops everything with exit code 2."""
    ids = audits.listed()
    changed = ids[:5] + ids[6:] if change == "removed" else [*ids, "L3.2/sgd/nothing@float64"]
    monkeypatch.setattr(audits, "listed", lambda: changed)
    code, screen = command("--port", port_file(GOOD), *QUICK)
    assert code == Exit.AUDIT_FAILED
    assert "AUDIT FAILED A5" in screen
    assert (ids[5] if change == "removed" else "nothing") in screen
    assert line(screen, "acme.py").startswith("NOT RUN")


def test_a_comparator_that_is_broken_judges_nobody(port_file, command, monkeypatch):
    """A4 comes before every run, not only in teeth."""
    monkeypatch.setattr(audits, "differing", lambda x, y: 0)
    code, screen = command("--port", port_file(GOOD), *QUICK)
    assert code == Exit.AUDIT_FAILED
    assert "AUDIT FAILED A4" in screen
    assert line(screen, "acme.py").startswith("NOT RUN")


def test_where_core_and_textbook_differ_no_port_is_judged(port_file, command, monkeypatch):
    """A0: the core is NON-CONFORMANT on that rule, and ports run on the others only."""
    textbook = audits.textbook

    def differs(case):
        steps = textbook(case)
        if case.method.name == "sgd":
            steps[-1]["param"] = steps[-1]["param"] * (1 + 1e-11)
        return steps

    monkeypatch.setattr(audits, "textbook", differs)
    code, screen = command("--port", port_file(GOOD), *QUICK)
    assert code == Exit.NON_CONFORMANT
    assert line(screen, "core").startswith("NON-CONFORMANT")
    assert re.match(r"INCOMPLETE +137 cases.*not judged on sgd", line(screen, "acme.py"))
    assert "FAIL core A0/sgd/balanced/3x5@float64#L3.2" in screen


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--backend", "abacus"], "unknown backend 'abacus'; installed: "),
        (["--require", "abacus"], "unknown backend 'abacus'"),
        (["--rule", "sgd,newton"], "unknown newton; known: sgd"),
        (["--dtype", "float8"], "unknown float8; known: float64"),
        (["--level", "L3,L9.1"], "no check is called L9.1; known: L3.2"),
        (["--port", "acme"], "a port is given as file.py:attribute, got 'acme'"),
        (["--port", "nowhere.py:port"], "no such file: nowhere.py"),
        (["--port", "nowhere.py:"], "a port is given as file.py:attribute"),
        (["--profile", "slow"], "invalid choice"),
        (["dance"], "invalid choice"),
        (["--colour"], "unrecognized arguments"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_command_line(arguments, words, command):
    """Exit code 64, with what is known."""
    code, said = command(*arguments)
    assert code == Exit.USAGE
    assert words in said


def test_repeated_options_add_up(command, port_file):
    """`--backend a --backend b` judges both: the first is not forgotten."""
    _, screen = command("--backend", "numpy", "--backend", "numpy_readonly", *QUICK)
    assert line(screen, "numpy").startswith("CONFORMANT")
    assert line(screen, "numpy_readonly").startswith("CONFORMANT")


def test_two_ports_of_one_name_are_not_mixed_up(command, port_file, tmp_path):
    """Neither of two ports may take the other's place unnoticed."""
    one = port_file(GOOD)
    (tmp_path / "other").mkdir()
    other = port_file(WRONG, "other/acme.py")
    code, _ = command("--port", one, "--port", other, *QUICK)
    assert code in (Exit.USAGE, Exit.NON_CONFORMANT)
    code, _ = command("--port", other, "--port", one, *QUICK)
    assert code in (Exit.USAGE, Exit.NON_CONFORMANT)


def test_a_file_may_be_named_after_its_library(command, port_file):
    """A port in `decimal.py` that imports `decimal` gets the library, not itself."""
    source = f"import decimal\ndecimal.Decimal(1)\n{GOOD}"
    code, screen = command("--port", port_file(source, "decimal.py"), *QUICK)
    assert code == 0, screen


def test_a_report_is_not_overwritten(command, port_file, tmp_path):
    """An existing report is kept unless `--force` is given; the run does not even start."""
    where = tmp_path / "report"
    where.mkdir()
    (where / "report.json").write_text("the old one")
    arguments = ("--port", port_file(ABSENT), *QUICK, "--report", where)
    code, said = command(*arguments)
    assert code == Exit.USAGE
    assert "--force overwrites it" in said
    assert (where / "report.json").read_text() == "the old one"
    assert command(*arguments, "--force")[0] == Exit.NOTHING_EXECUTED
    assert (where / "report.json").read_text() != "the old one"


def test_list_is_the_must_pass_list(command):
    """`list` prints what must pass; the quick profile is a part of it, in the same order."""
    code, text = command("list")
    assert code == 0
    assert text.split() == audits.listed()
    quick = command("list", "--profile", "quick")[1].split()
    assert 0 < len(quick) < len(text.split())
    assert [name for name in text.split() if name in set(quick)] == quick


def test_audits_pass():
    """The suite as it is passes its own audits, and the comparator's is no empty list."""
    assert audits.comparator().passed
    assert audits.lists().passed
    assert not audits.Audit("A4", "", ("something",)).passed
    assert np.unique(audits.listed()).size == len(audits.listed())
