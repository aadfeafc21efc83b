"""The report (conformance 10, 13): complete, equal for equal runs, and telling no secrets."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import socket
import sys
from pathlib import Path

import pytest
from rootfree_conformance import audits, thresholds
from rootfree_conformance.reporting import record
from rootfree_conformance.run import Selection, run
from rootfree_conformance.verdict import Exit

PORTS = {
    "good.py": "from rootfree_conformance.ports.numpy_port import port",
    "raising.py": """
        from rootfree_conformance.ports.numpy_port import port

        step = port.step

        def sometimes(handle, grads, hyper):
            if hyper["precond_lr"] == 0.3:
                raise RuntimeError("it happened in " + __file__.rpartition("/")[2])
            return step(handle, grads, hyper)

        port.step = sometimes
    """,
    "absent.py": "import a_library_that_is_not_installed",
    "broken.py": "from json import there_is_no_such_name",  # Python's error quotes json's path
}
SELECTION = ("--profile", "quick", "--dtype", "float64", "--rule", "sgd,rf_adamw")
KEYS = {
    "report": "schema profile exit_code timings environment suite audits ports",
    "environment": "python system machine packages",
    "suite": "version mustpass_sha256 thresholds",
    "audit": "id title wrong passed",
    "port": "name kind device proof verdict reason numeric levels cases",
    "case": "id executed statistic value limit per_output worst first_bad message passed",
}


@pytest.fixture
def report(port_file, command, tmp_path):
    """Return a function that runs the ports and returns the text of the report."""
    refs = [arg for name, text in PORTS.items() for arg in ("--port", port_file(text, name))]

    def report(folder: str = "report") -> str:
        code, screen = command(*refs, *SELECTION, "--report", tmp_path / folder)
        assert code == Exit.NON_CONFORMANT, screen
        return (tmp_path / folder / "report.json").read_text()

    return report


def has(mapping, kind):
    """Assert that a mapping has the keys of its kind, at least."""
    assert set(KEYS[kind].split()) <= set(mapping), kind


def test_schema(report):
    """Every part that the page promises is there, and a reader of another language can parse it."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads(report(), parse_constant=refuse)
    has(found, "report")
    has(found["environment"], "environment")
    has(found["suite"], "suite")
    assert found["schema"] == 1
    assert found["exit_code"] == 1
    assert found["profile"] == "quick"
    assert found["suite"]["thresholds"] == {
        name: value for name, value in vars(thresholds).items() if name.isupper()
    }
    assert {audit["id"] for audit in found["audits"]} == {"A4", "A5"}
    for audit in found["audits"]:
        has(audit, "audit")
        assert audit["passed"] is True
    assert [port["name"] for port in found["ports"]] == ["core", *PORTS]
    verdicts = [port["verdict"] for port in found["ports"]]
    assert verdicts == ["INCOMPLETE", "INCOMPLETE", "NON-CONFORMANT", "NOT RUN", "NOT RUN"]
    for port in found["ports"]:
        has(port, "port")
        for case in port["cases"]:
            has(case, "case")
    assert "ModuleNotFoundError" in found["ports"][-2]["reason"]
    assert "cannot import name 'there_is_no_such_name'" in found["ports"][-1]["reason"]
    assert found["ports"][1]["numeric"]["float64"]["write"] == "fused"
    assert set(found["timings"]) == {"core", *PORTS}


def test_every_case_shows_why_it_passed(report):
    """`passed` follows from `executed`, `value` and `limit`, and the levels add the cases up."""
    for port in json.loads(report())["ports"]:
        ids = [case["id"] for case in port["cases"]]
        assert len(set(ids)) == len(ids)
        for case in port["cases"]:
            value = float(case["value"])
            assert case["passed"] == (case["executed"] and value <= float(case["limit"]))
            assert case["passed"] != bool(case["message"])
            assert case["passed"] != bool(case["first_bad"])
            if case["statistic"] == "R" and case["per_output"]:
                assert value == max(float(v) for v in case["per_output"].values())
                worst = case["worst"]
                bound = worst["e"] * (1 + thresholds.SUITE_ROUNDING)
                error = abs(worst["x"] - worst["v"])
                assert value == (error / bound if error else 0)
        for level, sums in port["levels"].items():
            cases = [case for case in port["cases"] if case["id"].startswith(f"{level}/")]
            assert sums["run"] == sum(case["executed"] for case in cases)
            assert sums["passed"] == sum(case["passed"] for case in cases)
            assert float(sums["worst"]) == max(float(case["value"]) for case in cases)


def test_infinite_values_are_strings(report):
    """JSON has no infinity: a case without a number says so in a word."""
    raising = json.loads(report())["ports"][2]
    stopped = [case for case in raising["cases"] if case["first_bad"] == "exception"]
    assert stopped
    assert {case["value"] for case in stopped} == {"inf"}
    assert "inf" in {level["worst"] for level in raising["levels"].values()}


def test_two_runs_differ_in_timings_alone(report):
    """Byte for byte, keys sorted (conformance 13)."""
    one, other = report("one"), report("other")
    timings = re.compile(r'^ "timings": \{.*?^ \}', re.MULTILINE | re.DOTALL)
    assert len(timings.findall(one)) == 1
    assert timings.sub("", one) == timings.sub("", other)
    assert json.dumps(json.loads(one), sort_keys=True, indent=1) + "\n" == one


def test_nothing_about_the_machine_but_what_matters(report, tmp_path):
    """No absolute path and no host name: a report is published."""
    text = report()
    for place in (tmp_path, Path.home(), Path.cwd(), Path(sys.prefix), Path(__file__)):
        assert f"{place}/" not in text
    for name in {socket.gethostname(), platform.node()} - {"", "localhost"}:
        assert not re.search(rf"\b{re.escape(name)}\b", text)
    assert not re.search(r'"/|[ (]/(home|tmp|usr|root|work|Users)/', text)


def test_a_failing_write_leaves_the_old_report(tmp_path):
    """A reader sees the old file or the new one: what cannot be written changes nothing."""
    path = tmp_path / "report.json"
    path.write_text("the old one")
    with pytest.raises((TypeError, ValueError)):
        record.write({"a set is not JSON": {1, 2}}, path)
    assert path.read_text() == "the old one"
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_report_has_the_permissions_of_any_new_file(tmp_path):
    """Who may read a file that is made here may read the report."""
    (tmp_path / "other").touch()
    record.write({}, tmp_path / "report.json")
    assert (tmp_path / "report.json").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_write_keeps_every_bit(tmp_path):
    """Floats are written so that they are read back exactly; infinite ones and NaN are words."""
    values = [0.1, 2.0**-1074, 1 + 2.0**-52, 1e300, -0.0]
    record.write({"values": values, "words": (math.inf, -math.inf, math.nan)}, tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text())
    assert [x.hex() for x in found["values"]] == [x.hex() for x in values]
    assert found["words"] == ["inf", "-inf", "nan"]


def test_folders_are_made(tmp_path):
    """`--report build/acme` needs no folder."""
    record.write({}, tmp_path / "build" / "acme" / "report.json")
    assert (tmp_path / "build" / "acme" / "report.json").read_text() == "{}\n"


def test_the_must_pass_list_is_identified(monkeypatch):
    """A report names the list that it was judged by: another list has another hash."""
    found = run({}, Selection(quick=True, dtypes=["float64"], rules=["sgd"]), lambda *_: None)
    one = record.record(found, Exit.CONFORMANT, "quick")["suite"]["mustpass_sha256"]
    ids = audits.listed()
    monkeypatch.setattr(audits, "listed", lambda: ids[1:])
    other = record.record(found, Exit.CONFORMANT, "quick")["suite"]["mustpass_sha256"]
    assert re.fullmatch(r"[0-9a-f]{64}", one)
    assert one != other
