"""What the tests of the suite share: ports in files, the command line, and judging in-process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from rootfree_conformance import script
from rootfree_conformance.__main__ import main
from rootfree_conformance.cases.expand import Case
from rootfree_conformance.checks import CHECKS
from rootfree_conformance.checks.contract import Result
from rootfree_conformance.port import Port
from rootfree_conformance.run import judged
from rootfree_conformance.script import Outcome, Script
from rootfree_conformance.truth import Truth


class InProcess:
    """What a worker is to the judges, without a process."""

    def __init__(self, port: Port) -> None:
        self.info = {"dtypes": dict(port.dtypes)}
        self._port = port

    def run(self, scripts: Iterable[Script]) -> Iterator[Outcome]:
        """Yield the outcome of each script in turn."""
        return (script.run(self._port, one) for one in scripts)


@pytest.fixture
def port_file(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes a port's source and returns its ``file.py:port``."""

    def port_file(source: str, name: str = "acme.py") -> str:
        (tmp_path / name).write_text(dedent(source))
        return f"{tmp_path / name}:port"

    return port_file


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Return a function that runs the command line: exit code, and all that it wrote."""

    def command(*arguments: str) -> tuple[int, str]:
        try:
            code = main(list(map(str, arguments)))
        except SystemExit as left:
            code = left.code
        out, err = capsys.readouterr()
        return int(code), out + err

    return command


@pytest.fixture(scope="session")
def truth() -> Truth:
    """Return truths that the tests share."""
    return Truth()


@pytest.fixture
def judge(truth: Truth) -> Callable[..., list[Result]]:
    """Return a function that judges a port on small cases, without a process of its own."""

    def judge(
        port: Port,
        *checks: str,
        rules: tuple[str, ...] = ("rf_rmsprop", "adamw"),
        wanted: Callable[[Case], bool] = lambda case: (
            case.corner.name in ("balanced", "exact_decay", "absent")
        ),
    ) -> list[Result]:
        pairs = [
            (CHECKS[name], case)
            for name in checks or CHECKS
            for case in CHECKS[name].cases(name)
            if case.shape == (3, 5)
            and case.policy.dtype in port.dtypes
            and case.method.name in rules
            and wanted(case)
        ]
        assert pairs
        return [result for _, result in judged(InProcess(port), pairs, truth)]

    return judge
