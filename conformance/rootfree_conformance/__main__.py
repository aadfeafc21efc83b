"""Command line of the conformance suite."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from rootfree import METHODS

from rootfree_conformance import audits, discovery, teeth
from rootfree_conformance.cases.families import POLICIES
from rootfree_conformance.checks import CHECKS
from rootfree_conformance.discovery import PortError
from rootfree_conformance.faults.catalogue import FAULTS
from rootfree_conformance.reporting import record, terminal
from rootfree_conformance.run import Selection, run
from rootfree_conformance.verdict import Exit, exit_code

_EXAMPLES = """\
examples:
  python -m rootfree_conformance                            every installed backend
  python -m rootfree_conformance --backend torch --profile quick
  python -m rootfree_conformance --port acme_rootfree.py:port --report acme
  python -m rootfree_conformance --require numpy,torch,jax  absence is a failure
  python -m rootfree_conformance list                       the must-pass list
  python -m rootfree_conformance teeth                      plant faults, see them found

exit codes: 0 every requested backend is CONFORMANT; 1 one is NON-CONFORMANT; 2 an audit of the
suite failed; 3 a required backend is INCOMPLETE or NOT RUN; 4 nothing was executed; 64 wrong
command line
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]  # exits as the base does
        self.print_usage(sys.stderr)
        sys.stderr.write(f"{self.prog}: error: {message}\n")
        sys.exit(Exit.USAGE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parser().parse_args(arguments)
    if options.command == "list":
        sys.stdout.write("\n".join(audits.collected(quick=options.profile == "quick")) + "\n")
        return Exit.CONFORMANT
    target = _report_path(options)
    if options.command == "teeth":
        return _teeth(target)
    return _run(options, target)


def _run(options: argparse.Namespace, target: Path | None) -> int:
    try:
        ports = _ports(options)
    except PortError as error:
        _parser().error(str(error))
    selection = Selection(
        quick=options.profile == "quick",
        dtypes=options.dtype,
        rules=options.rule,
        levels=options.level,
    )
    sys.stdout.write(f"to judge: core, {', '.join(ports)}\n")
    found = run(ports, selection, terminal.ProgressLine())
    asked = [*options.backend, *(name for name in ports if name.endswith(".py"))]
    required = [*options.require, *asked]
    code = exit_code(found.verdicts, required, audits_passed=found.audits_passed)
    sys.stdout.write("\n" + terminal.screen(found, code))
    if target is not None:
        record.write(record.record(found, code, options.profile), target)
        sys.stdout.write(f"report: {target}\n")
    return code


def _teeth(target: Path | None) -> int:
    rows, table = [], []
    sys.stdout.write(terminal.FAULT_HEADING)
    for kill in teeth.kills():
        fault = kill.fault
        value = "raises" if kill.first_bad == "exception" else f"{kill.value:.3g}"
        table.append((fault.id, fault.title, fault.killer, value, kill.killed))
        rows.append({**asdict(fault), **asdict(kill), "fault": fault.id})
        sys.stdout.write(terminal.fault_line(table[-1]))
        sys.stdout.flush()
    killed = sum(kill[-1] for kill in table)
    sys.stdout.write(f"{killed} of {len(FAULTS)} faults killed by their named check\n")
    if target is not None:
        record.write({"schema": 1, "faults": rows, "killed": killed}, target)
        sys.stdout.write(f"report: {target}\n")
    return Exit.CONFORMANT if killed == len(FAULTS) else Exit.NON_CONFORMANT


def _ports(options: argparse.Namespace) -> dict[str, str]:
    """Return name and reference of every port to judge: those asked for, else all installed."""
    ports = {name: discovery.reference(name) for name in options.backend}
    for text in options.port:
        path = discovery.checked_path(text)
        name = Path(text.rpartition(":")[0]).name
        if name in ports:
            raise PortError(f"two ports are called {name}; rename a file, or judge one at a time")
        ports[name] = path
    ports = ports or dict(discovery.known())
    for name in options.require:
        ports.setdefault(name, discovery.reference(name))
    return ports


def _report_path(options: argparse.Namespace) -> Path | None:
    if options.report is None:
        return None
    path = Path(options.report) / "report.json"
    if path.exists() and not options.force:
        _parser().error(f"{path} exists; --force overwrites it")
    return path


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(
                f"unknown {', '.join(unknown)}; known: {', '.join(known)}"
            )
        return names

    return parse


def _list(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _levels(text: str) -> list[str]:
    levels = _list(text)
    unknown = [level for level in levels if not any(name.startswith(level) for name in CHECKS)]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no check is called {', '.join(unknown)}; known: {', '.join(CHECKS)}"
        )
    return levels


def _parser() -> argparse.ArgumentParser:
    dtypes = list(dict.fromkeys(policy.dtype for policy in POLICIES.values()))
    parser = _Parser(
        prog="python -m rootfree_conformance",
        description="Prove that backends compute rootfree's algorithms.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("command", nargs="?", default="run", choices=("run", "list", "teeth"))
    add(
        "--backend",
        action="extend",
        type=_list,
        default=[],
        metavar="NAMES",
        help="installed backends, by comma",
    )
    add("--port", action="append", default=[], metavar="FILE.py:NAME", help="a port in a file")
    add("--profile", choices=("certify", "quick"), default="certify")
    add(
        "--dtype",
        action="extend",
        type=_names(dtypes),
        default=[],
        metavar="NAMES",
        help="narrow the claim",
    )
    add(
        "--rule",
        action="extend",
        type=_names(list(METHODS)),
        default=[],
        metavar="NAMES",
        help="only these rules",
    )
    add(
        "--level",
        action="extend",
        type=_levels,
        default=[],
        metavar="IDS",
        help="only these checks: L3, L4.0, ...",
    )
    add("--report", metavar="DIR", help="write report.json there")
    add("--force", action="store_true", help="overwrite a report")
    require = [name for name in os.environ.get("ROOTFREE_REQUIRE", "").split(",") if name]
    add(
        "--require",
        action="extend",
        type=_list,
        default=require,
        metavar="NAMES",
        help="absence is a failure",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
