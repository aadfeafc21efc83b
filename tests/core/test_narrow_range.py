"""Products in float16, whose largest number is 65504 (mathematics 4.4)."""

from __future__ import annotations

import numpy as np
import pytest
from rootfree import METHODS, Hyper, Precision, update

FLOAT16, FLOAT32, FLOAT64 = (np.dtype(name) for name in ("float16", "float32", "float64"))
ALPHA = 2.0**-26
SHAPE = (1, 8, 12)


def stepped(precision: Precision) -> tuple[np.ndarray, np.ndarray]:
    """Return a step and the first factor, where the factors are large."""
    rng = np.random.default_rng(0)
    rule = METHODS["sirf_shampoo"].rule(precision)
    grad = (rng.normal(size=SHAPE)).astype(precision.working_dtype)
    state = rule.init(np.zeros(SHAPE, precision.working_dtype))
    large = tuple((2.0**7 * k[0],) for k in state.factor)  # K K^T is 2^14, two of them overflow
    hyper = Hyper(1.0, 0.01, damping=2.0**-30, curvature_scale=ALPHA)
    step, state = update(rule, grad, state._replace(factor=large), grad, hyper)
    return step, state.factor[0][0]


def test_large_numbers_stay_in_range():
    """4.4: alpha enters before the products, factors are scaled down: 11 bits, and no overflow."""
    exact = stepped(Precision.uniform(FLOAT64))
    narrow = Precision(FLOAT32, FLOAT32, FLOAT16, product_dtype=FLOAT32, narrow_range=True)
    for came, wanted in zip(stepped(narrow), exact, strict=True):
        assert came.dtype == FLOAT32
        np.testing.assert_allclose(came, wanted, rtol=0, atol=2.0**-8 * np.abs(wanted).max())


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_it_is_needed():
    """Without the scaling the same numbers overflow float16."""
    precision = Precision(FLOAT32, FLOAT32, FLOAT16, product_dtype=FLOAT32)
    assert not np.isfinite(stepped(precision)[0]).all()


def test_it_changes_nothing_in_real_arithmetic():
    """4.4: in float64 the scaling is neutral to rounding."""
    plain = stepped(Precision.uniform(FLOAT64))
    scaled = stepped(Precision(FLOAT64, FLOAT64, FLOAT64, narrow_range=True))
    for came, wanted in zip(scaled, plain, strict=True):
        np.testing.assert_allclose(came, wanted, rtol=0, atol=1e-13 * np.abs(wanted).max())
