"""The report as data: ``report.json``, equal for equal runs but for its ``timings``."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import rootfree_conformance
from rootfree_conformance import audits, thresholds
from rootfree_conformance.cases.left_out import unjudged
from rootfree_conformance.run import Run, Subject
from rootfree_conformance.verdict import Exit

_PACKAGES = (
    "rootfree",
    "numpy",
    "array-api-compat",
    "array-api-strict",
    "ml-dtypes",
    "torch",
    "jax",
    "jaxlib",
    "optax",
    "cupy-cuda12x",
)


# Folders of this machine, which errors name and a report must not.
_FOLDERS = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[\\/](?:[\w.+-]+[\\/])+")


def record(run: Run, code: Exit, profile: str) -> dict[str, Any]:
    """Return the report. Infinite values are the string ``"inf"``: JSON has no other."""
    must_pass = "\n".join(audits.listed())
    return {
        "schema": 1,
        "profile": profile,
        "exit_code": int(code),
        "timings": {s.name: round(s.seconds, 3) for s in run.subjects},
        "environment": _environment(),
        "suite": {
            "version": rootfree_conformance.__version__,
            "mustpass_sha256": hashlib.sha256(must_pass.encode()).hexdigest(),
            "thresholds": {
                name: value for name, value in vars(thresholds).items() if name.isupper()
            },
        },
        "not_judged": unjudged(run.scopes),
        "audits": [asdict(audit) | {"passed": audit.passed} for audit in run.audits],
        "ports": [_port(subject) for subject in run.subjects],
    }


def write(report: Mapping[str, Any], path: Path) -> None:
    """Write the report; a reader sees the old file or the new one, never half of it."""
    text = json.dumps(_finite(report), sort_keys=True, indent=1, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _port(subject: Subject) -> dict[str, Any]:
    levels: dict[str, dict[str, Any]] = {}
    for result in subject.results:
        level = levels.setdefault(result.id.split("/")[0], {"run": 0, "passed": 0, "worst": 0.0})
        level["run"] += result.executed
        level["passed"] += result.passed
        level["worst"] = max(level["worst"], result.value)
    return {
        "name": subject.name,
        "kind": subject.kind,
        "device": subject.device,
        "scope": subject.scope,
        "proof": dict(subject.proof),
        "verdict": subject.verdict,
        "reason": _FOLDERS.sub("", subject.reason),
        "numeric": {name: asdict(model) for name, model in subject.dtypes.items()},
        "levels": levels,
        "cases": [
            asdict(result) | {"passed": result.passed, "message": _FOLDERS.sub("", result.message)}
            for result in subject.results
        ],
    }


def _environment() -> dict[str, Any]:
    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "packages": packages,
    }


def _finite(value: Any) -> Any:
    """Return plain JSON, which has no infinite numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
