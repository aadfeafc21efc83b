"""The conformance suite: proves that a backend computes rootfree's algorithms, and says how well.

A port passes if every case that it must pass ran on it and its error stayed below what the
arithmetic that it declares can cause: a bound that the core itself derives, case by case. No
tolerance is fitted. ``python -m rootfree_conformance --help`` says how to run it.
"""

from rootfree_conformance.numeric import NumericModel
from rootfree_conformance.port import (
    HostArrays,
    NamespacePort,
    Port,
    Snapshot,
    Spec,
    port_from_namespace,
)

__version__ = "0.1.0"

__all__ = [
    "HostArrays",
    "NamespacePort",
    "NumericModel",
    "Port",
    "Snapshot",
    "Spec",
    "port_from_namespace",
]
