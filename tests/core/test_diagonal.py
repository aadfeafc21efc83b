"""The seven rules written out, two steps of each (mathematics R1 to R7)."""

from __future__ import annotations

import numpy as np
import pytest
from rootfree import METHODS, Hyper

W = np.array([[1.0, -2.0, 0.5, 3.0]])
G = np.array([[[0.3, -1.5, 2.0, 1e-3]], [[-0.7, 0.2, 1.0, 5.0]]])
B1, B2, A1, LAM, KAP, ALPHA = 0.1, 0.2, 0.6, 0.05, 0.3, 7.0


def sgd(w):
    """R1."""
    buf = 0
    for g in G:
        buf = A1 * buf + g + KAP * w
        w = w - B1 * buf
    return w


def adagrad(w):
    """R2."""
    s = buf = 0
    for g in G:
        s = s + B2 * g**2
        buf = A1 * buf + g / (np.sqrt(s) + LAM) + KAP * w
        w = w - B1 * buf
    return w


def rmsprop(w):
    """R3."""
    s = buf = 0
    for g in G:
        s = (1 - B2) * s + B2 * g**2
        buf = A1 * buf + g / (np.sqrt(s) + LAM) + KAP * w
        w = w - B1 * buf
    return w


def adamw(w):
    """R4."""
    s = e = 0
    for t, g in enumerate(G, start=1):
        s = (1 - B2) * s + B2 * g**2
        e = A1 * e + (1 - A1) * g
        c1, c2 = 1 - A1**t, 1 - (1 - B2) ** t
        w = w - B1 * ((e / c1) / (np.sqrt(s / c2) + LAM) + KAP * w)
    return w


def rf_adagrad(w):
    """R5."""
    s, buf = 1, 0
    for g in G:
        s = s + B2 * ALPHA * g**2
        buf = A1 * buf + g / (s + LAM) + KAP * w
        w = w - B1 * buf
    return w


def rf_rmsprop(w):
    """R6."""
    s, buf = 1, 0
    for g in G:
        s = (1 - B2) * s + B2 * ALPHA * g**2
        buf = A1 * buf + g / (s + LAM) + KAP * w
        w = w - B1 * buf
    return w


def rf_adamw(w):
    """R7."""
    s, e = 1, 0
    for g in G:
        s = (1 - B2) * s + B2 * ALPHA * g**2
        e = A1 * e + (1 - A1) * g
        w = w - B1 * (e / (s + LAM) + KAP * w)
    return w


WRITTEN_OUT = {f.__name__: f for f in (sgd, adagrad, rmsprop, adamw)}
WRITTEN_OUT |= {f.__name__: f for f in (rf_adagrad, rf_rmsprop, rf_adamw)}


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_two_steps(name, march, float64):
    """R1 to R7: two steps with every hyper-parameter in play; a dozen roundings each."""
    hyper = Hyper(B1, B2, A1, 0.0, LAM, KAP, ALPHA)
    run = march(METHODS[name].rule(float64), W, lambda t, _: G[t], hyper, 2)
    np.testing.assert_allclose(run.params[-1], WRITTEN_OUT[name](W), rtol=1e-14)
