"""Everything that can be run on a checkout; ``nox -l`` lists it.

The sessions share one environment, because torch and JAX are large: `environment` makes it, and
every session that needs it asks for it first. Only `package` has its own, where nothing of the
checkout may be seen. Every version is pinned by ``constraints.txt``.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"

ROOT = Path(__file__).parent
PACKAGES = {
    "rootfree",
    "rootfree_array",
    "rootfree_conformance",
    "rootfree_cupy",
    "rootfree_jax",
    "rootfree_textbook",
    "rootfree_torch",
}
EXTRAS = "torch,jax,conformance,checkpoint"


@nox.session(default=False)
def environment(session: nox.Session) -> None:
    """Make the environment that the other sessions share: torch, JAX and the tools."""
    groups = nox.project.dependency_groups(
        nox.project.load_toml("pyproject.toml"), "test", "types", "package", "demo", "bench"
    )
    install(session, "-e", f".[{EXTRAS}]", *groups)


@nox.session(venv_backend="none", requires=["environment"])
def conformance(session: nox.Session) -> None:
    """Prove numpy, torch and JAX equal to the float64 reference; arguments are passed on."""
    required = "numpy,torch,torch_compiled,jax,jax_stacked"
    arguments = session.posargs or ["--require", required]
    shared(
        session,
        "-m",
        "rootfree_conformance",
        *arguments,
        "--report",
        "build/conformance",
        "--force",
    )


@nox.session(venv_backend="none", requires=["environment"])
def teeth(session: nox.Session) -> None:
    """Plant faults and see the conformance suite find each of them."""
    report = ("--report", "build/teeth", "--force")
    shared(session, "-m", "rootfree_conformance", "teeth", *session.posargs, *report)


@nox.session(venv_backend="none", requires=["environment"])
def tests(session: nox.Session) -> None:
    """Test what is not conformance: laws of the rules, adapters, packaging, documentation."""
    shared(session, "-m", "pytest", *session.posargs)


@nox.session(venv_backend="none", requires=["environment"])
def types(session: nox.Session) -> None:
    """Check types with mypy (strict) and basedpyright."""
    shared(session, "-m", "mypy")
    shared(session, "-m", "basedpyright", "--pythonpath", shared_python(session))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, docstrings and format with ruff."""
    install(
        session, *nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "lint")
    )
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(requires=["environment"])
def package(session: nox.Session) -> None:
    """Build sdist and wheel, look inside, and run the suite from the installed wheel alone."""
    dist = ROOT / "build" / "dist"
    for old in dist.glob("rootfree-*"):
        old.unlink()
    shared(session, "-m", "build", "--outdir", str(dist))
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    look_inside_wheel(session, wheel)
    look_inside_sdist(session, sdist)
    # The version stands still between builds: pip replaces an installed wheel only if told to.
    install(session, f"rootfree[torch,jax,conformance] @ {wheel.as_uri()}")
    install(session, "--force-reinstall", "--no-deps", str(wheel))
    with session.chdir(session.create_tmp()):
        session.run("python", "-c", FROM_WHEEL, str(ROOT))
        quick = ("--profile", "quick", "--backend", "numpy,torch,jax")
        session.run("python", "-m", "rootfree_conformance", *quick, "--require", "numpy,torch,jax")


@nox.session(venv_backend="none", requires=["environment"], default=False)
def demo(session: nox.Session) -> None:
    """Train on images and on text with and without the root; arguments go to both examples."""
    for example in ("images.py", "characters.py"):
        shared(session, f"examples/{example}", *session.posargs)


@nox.session(venv_backend="none", requires=["environment"], default=False)
def bench(session: nox.Session) -> None:
    """Race against peers and judge the performance targets; arguments are passed on."""
    shared(session, "-m", "benchmarks", *session.posargs)


FROM_WHEEL = """
import pathlib, sys, rootfree, rootfree_conformance
checkout = pathlib.Path(sys.argv[1])
for module in rootfree, rootfree_conformance:
    path = pathlib.Path(module.__file__)
    if checkout in path.parents and "site-packages" not in path.parts:
        sys.exit(f"{module.__name__} comes from the checkout: {path}")
"""


def install(session: nox.Session, *what: str) -> None:
    """Install with every version pinned."""
    session.install(*what, env=pinned())


def shared(session: nox.Session, *command: str) -> None:
    """Run Python with ``command`` in the shared environment."""
    session.run(shared_python(session), *command, external=True, env=pinned())


def shared_python(session: nox.Session) -> str:
    """Return the path of the shared environment's interpreter."""
    python = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    return str((session.cache_dir.parent / "environment" / python).absolute())


def pinned() -> dict[str, str]:
    """Return the variables that pin what pip installs, the requirements of builds included."""
    pins = (ROOT / "constraints.txt").as_uri()  # an address, since pip splits paths at spaces
    return {"PIP_CONSTRAINT": pins, "PIP_BUILD_CONSTRAINT": pins}


def look_inside_wheel(session: nox.Session, wheel: Path) -> None:
    """Fail unless the wheel holds the packages, typed, with licence and ports, and no more."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    top = {PurePosixPath(name).parts[0] for name in files}
    (info,) = (name for name in top if name.endswith(".dist-info"))
    if top - {info} != PACKAGES:
        session.error(f"the wheel must hold {sorted(PACKAGES)}, it holds {sorted(top - {info})}")
    expected = {f"{name}/{part}" for name in PACKAGES for part in ("__init__.py", "py.typed")}
    expected.add(f"{info}/licenses/LICENSE")
    entry_points = files[f"{info}/entry_points.txt"].decode()
    ports = [line.split("=")[1].strip() for line in entry_points.splitlines() if "=" in line]
    expected |= {port.split(":")[0].replace(".", "/") + ".py" for port in ports}
    if not ports or not expected <= files.keys():
        session.error(f"the wheel lacks {sorted(expected - files.keys()) or 'its ports'}")


def look_inside_sdist(session: nox.Session, sdist: Path) -> None:
    """Fail unless the source distribution holds what is needed to test and build it."""
    with tarfile.open(sdist) as archive:
        files = {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()}
    wanted = {"LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "constraints.txt"}
    wanted |= {"noxfile.py", "pyproject.toml", "examples/images.py", "reference/rootfree/py.typed"}
    if not wanted <= files or not any(name.startswith("tests/") for name in files):
        session.error(f"the source distribution lacks {sorted(wanted - files) or 'its tests'}")
