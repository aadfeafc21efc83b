"""One port in a process of its own: a fault there cannot bend the truth, nor a crash end the run.

The parent starts ``python -m rootfree_conformance.worker``, and sends scripts over a connection.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from threading import Thread
from typing import Any

from rootfree import check_choice
from rootfree_array import StalledStateWarning

from rootfree_conformance import discovery, script
from rootfree_conformance.cases.left_out import SCOPES
from rootfree_conformance.port import Port
from rootfree_conformance.script import Outcome, Script

_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_START_SECONDS = 120
_CASE_SECONDS = 300


class Worker:
    """A running port.

    Args:
        ref: the port's reference.
        path: folders to import from first: the patched copy of a seeded fault.

    Attributes:
        info: name, device, dtypes and proof of the port; ``None`` if it could not be loaded.
        absence: why it could not be loaded.
    """

    def __init__(self, ref: str, path: Sequence[Path] = ()) -> None:
        self.info: Mapping[str, Any] | None = None
        self.absence = "the worker process ended before the port was loaded"
        key = os.urandom(16)
        listener = Listener(authkey=key)
        environment = {**os.environ, **_ENVIRONMENT, "ROOTFREE_WORKER_KEY": key.hex()}
        folders = [*map(str, path), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(folders)
        if path:  # a fault may divide by zero
            environment["PYTHONWARNINGS"] = "ignore"
        command = [sys.executable, "-m", "rootfree_conformance.worker", listener.address, ref]
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        with listener:
            self._link = self._accept(listener)
        if self._link is not None:
            self._receive_identity(self._link)

    def _accept(self, listener: Listener) -> Connection[Any, Any] | None:
        """Wait for the child to call, but not for one that has died."""
        found: list[Any] = []

        def accept() -> None:
            with suppress(OSError):  # closed, because the child has died
                found.append(listener.accept())

        thread = Thread(target=accept, daemon=True)
        thread.start()
        for _ in range(_START_SECONDS * 10):
            thread.join(0.1)
            if not thread.is_alive() or self._process.poll() is not None:
                break
        thread.join(0.1)
        return found[0] if found else None

    def _receive_identity(self, link: Connection[Any, Any]) -> None:
        with suppress(EOFError):  # then absence says that it ended
            self.info, self.absence = link.recv()

    def run(self, scripts: Iterable[Script]) -> Iterator[Outcome]:
        """Yield the outcome of each script in turn, and end early if the process dies."""
        link = self._link
        if link is None or self.info is None:
            return
        listed = list(scripts)

        def send() -> None:
            with suppress(OSError):  # the receiving side notices that the process has died
                for one in listed:
                    link.send(one)

        sender = Thread(target=send, daemon=True)
        sender.start()
        try:
            for _ in listed:
                if not link.poll(_CASE_SECONDS):
                    self.absence = f"the port gave no answer within {_CASE_SECONDS} s"
                    return
                yield link.recv()
        except (EOFError, ConnectionError):
            self.absence = "the port's process died"

    def close(self) -> None:
        """End the process."""
        if self._link is not None:
            self._link.close()
        self._process.terminate()
        self._process.wait()


def main(address: str, ref: str) -> None:
    """Serve a port until the parent hangs up."""
    with Client(address, authkey=bytes.fromhex(os.environ.pop("ROOTFREE_WORKER_KEY"))) as link:
        warnings.simplefilter("ignore", StalledStateWarning)  # such cases are wanted here
        try:
            port = discovery.load(ref)
            info = _identity(port)
        except Exception as error:  # any failure to load is an absence with a reason
            link.send((None, f"{type(error).__name__}: {error}"))
            return
        link.send((info, ""))
        while True:
            try:
                one = link.recv()
            except EOFError:
                return
            link.send(script.run(port, one))


def _identity(port: Port) -> dict[str, Any]:
    """Return what a port says of itself.

    Raises:
        ValueError: if it has a scope that the suite does not know.
    """
    scope = getattr(port, "scope", "whole")
    check_choice("scope", scope, tuple(SCOPES))
    proof: Mapping[str, Any] = getattr(port, "proof", dict)()
    return {
        "name": port.name,
        "device": port.device,
        "dtypes": dict(port.dtypes),
        "proof": dict(proof),
        "scope": scope,
        "kind": "white" if hasattr(port, "xp") else "black",
    }


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
