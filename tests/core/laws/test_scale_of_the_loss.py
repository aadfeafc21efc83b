"""The scale of the loss and of its gradients in every root-free method (P06 to P10).

The diagonal methods have more tests of these laws in ``test_scale.py`` and ``test_step_bound.py``.
"""
# ruff: noqa: N802 - a test is named for its law

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from rootfree import METHODS, Hyper, Precision, curvature_scale, update

FLOAT64 = Precision.uniform(np.dtype("float64"))
SHAPE = (3, 4)
STEPS = 30
START = np.random.default_rng(1).normal(size=SHAPE)
GRADIENTS = 0.3 * np.random.default_rng(0).normal(size=(STEPS, *SHAPE))
STRUCTURES = (
    "dense",
    "diagonal",
    "block_diagonal(2)",
    "tril",
    "triu_toeplitz",
    "hierarchical(1,1)",
)


def root_free() -> Iterator[Any]:
    """Yield every root-free method, SIRF-Shampoo with several structures."""
    for name, method in METHODS.items():
        if name == "sirf_shampoo":
            for structure in STRUCTURES:
                yield pytest.param(name, {"structure": structure}, id=f"{name}, {structure}")
            yield pytest.param(name, {"trust_clip": False}, id=f"{name}, no clip")
        elif method.scaled:
            yield pytest.param(name, {}, id=name)


every_root_free_method = pytest.mark.parametrize(("name", "options"), list(root_free()))

HYPER = Hyper(
    0.05,
    0.05,
    momentum=0.9,
    precond_momentum=0.5,
    damping=0.1,
    weight_decay=0.1,
    curvature_scale=7.0,
)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference, relative to the largest change of the parameter."""
    return float(np.abs(a - b).max() / np.abs(a - a[0]).max())


def compared(
    train: Any,
    name: str,
    options: dict[str, Any],
    factor: float,
    *,
    alpha: float | None = None,
    start: float | None = None,
    damping: float | None = None,
) -> float:
    """Return how far trajectories are apart for a loss and for ``factor`` times the loss.

    The other loss is trained with alpha, s_0 and damping multiplied by what is given, by default by
    what the laws say: 1/factor, factor, factor.
    """
    alpha = 1 / factor if alpha is None else alpha
    start = factor if start is None else start
    damping = factor if damping is None else damping
    scale, gradients = 0.5, GRADIENTS
    method = METHODS[name]
    rule = method.rule(FLOAT64, init_scale=scale, **options)
    plain = train(rule, START, lambda t, _: gradients[t], HYPER, STEPS, every=2)
    hyper = HYPER._replace(curvature_scale=7 * alpha, damping=0.1 * damping)
    rule = method.rule(FLOAT64, init_scale=scale * start, **options)
    other = train(rule, START, lambda t, _: factor * gradients[t], hyper, STEPS, every=2)
    return difference(plain.params, other.params)


@every_root_free_method
def test_P06_mean_and_sum_are_one_method(train, name, options):
    """P06: (mean, alpha = B, s_0, lam) is (sum, alpha = 1, B s_0, B lam), both momenta, kap, T = 2.

    [0.0; IF <= 7e-16]
    """
    assert compared(train, name, options, 7.0) < 1e-13


@pytest.mark.parametrize("kept", ["start", "damping"])
@every_root_free_method
def test_P06_is_false_with_equal_start_or_damping(train, name, options, kept):
    """P06: with equal S_0 or lam it is false [O(1)]."""
    assert compared(train, name, options, 1 / 7, **{kept: 1.0}) > 0.05


def test_P06_init_scale_is_that_of_factors():
    """P06: s_0 times B is K_j0 times B^(-1/(2N))."""
    param = np.zeros((1, *SHAPE))
    for scale in (0.5, 3.5):
        state = METHODS["sirf_shampoo"].rule(FLOAT64, init_scale=scale).init(param)
        for (k,), d in zip(state.factor, SHAPE, strict=True):
            np.testing.assert_allclose(k[0], scale**-0.25 * np.eye(d), rtol=1e-15)


@pytest.mark.parametrize("c", [0.01, 3.0])
@every_root_free_method
def test_P07_a_scaled_loss_with_scaled_settings(train, name, options, c):
    """P07: l -> c l, alpha/c, c s_0 and c lam leaves W(t) unchanged [<= 4e-16]."""
    assert compared(train, name, options, c) < 1e-13


@pytest.mark.parametrize("kept", ["alpha", "start", "damping"])
@every_root_free_method
def test_P07_needs_all_three(train, name, options, kept):
    """P07, converse: leaving one of alpha, s_0 and lam as it is parts the trajectories."""
    assert compared(train, name, options, 0.1, **{kept: 1.0}) > 0.05


@pytest.mark.parametrize(
    ("name", "root"), [("rf_full_matrix", False), ("full_adagrad", True), ("shampoo", True)]
)
def test_P07_a_scaled_loss_with_alpha_kept(name, root):
    """P07: with alpha fixed and S_0 = lam = 0 the root-free step becomes 1/c, a root step stays.

    Twelve gradients enter a matrix that starts at 0; only then is it regular, and lam can be 0.
    """
    method, c = METHODS[name], 5.0
    rule = method.rule(FLOAT64, decay=0, without=["momentum"])
    steps = []
    for factor in (1.0, c):
        state = rule.init(START[None])
        if not root:
            state = state._replace(statistic=np.zeros_like(state.statistic))
        grads = factor * GRADIENTS[:13, None]
        for grad in grads[:-1]:
            state = rule.observe(grad, state, Hyper(0.1, 1.0, damping=1e-3 * root))
        step, _ = update(rule, grads[-1], state, START[None], Hyper(0.1, 1.0))
        steps.append(step)
    np.testing.assert_allclose(steps[1], steps[0] / (1 if root else c), rtol=1e-10)


CLIPPED = {
    "rf_rmsprop": {},
    "rf_full_matrix": {},
    "rf_full_matrix_inverse": {"exact": True},
    "rf_full_matrix_factor": {},
    "rf_shampoo": {},
    "sirf_shampoo": {},
    "rmsprop": {},
    "full_adagrad": {"decay": 1, "init_scale": 1.0},
    "shampoo": {"init_scale": 1.0},
}


@pytest.mark.parametrize("name", CLIPPED)
def test_P08_clipping_by_a_constant_factor(train, name):
    """P08: all gradients times rho: long-run root-free steps times 1/rho, a root's as they were.

    [times 10.0 and times 1.0 at rho = 0.1; lam = 0]. After 600 steps at b2 = 0.1 the start weighs
    0.9^600 = 1e-27, and more with the clip, which R11 has in every step.
    """
    method, rho, count = METHODS[name], 0.1, 600
    rule = method.rule(FLOAT64, **CLIPPED[name])
    hyper = Hyper(0.01, 0.1, 0.9, 0.5)
    param, gradients, last = START[:2, :3], GRADIENTS[:, :2, :3], []
    for factor in (1.0, rho):
        run = train(rule, param, lambda t, _, f=factor: f * gradients[t % STEPS], hyper, count)
        last.append(run.steps[-1])
    expected = last[0] / rho if method.scaled else last[0]
    np.testing.assert_allclose(last[1], expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def probabilities(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return P(y = 1) of logistic regression."""
    return 1 / (1 + np.exp(-x @ w))


def observed_fisher(batch: int, total: int, *, shift: float, reduction: str) -> np.ndarray:
    """Return the mean of what R9 observes over ``total / batch`` mini-batches, a stack of them.

    Args:
        batch: B.
        total: number of samples.
        shift: added to P(y = 1) where labels are drawn: 0 draws them from the model.
        reduction: of the loss.
    """
    rng = np.random.default_rng(batch)
    rows = rng.integers(0, len(INPUTS), size=total)
    p = probabilities(INPUTS, WEIGHTS)[rows]
    y = rng.random(total) < p + shift
    g = ((p - y)[:, None] * INPUTS[rows]).reshape(total // batch, batch, -1)
    grad = g.mean(axis=1) if reduction == "mean" else g.sum(axis=1)
    rule = METHODS["rf_full_matrix"].rule(FLOAT64, without=["momentum"], decay=0)
    hyper = Hyper(0.1, 1.0, curvature_scale=curvature_scale(batch, reduction))
    state = rule.observe(grad, rule.init(grad), hyper)
    return state.statistic.mean(axis=0) - np.eye(grad.shape[1])


INPUTS = np.hstack([np.ones((20, 1)), np.random.default_rng(4).normal(size=(20, 2))])
WEIGHTS = np.array([0.5, -1.0, 0.3])
VARIANCES = probabilities(INPUTS, WEIGHTS) * (1 - probabilities(INPUTS, WEIGHTS))
FISHER = (INPUTS.T * VARIANCES) @ INPUTS / len(INPUTS)  # of one term, averaged over inputs
SAMPLES = 400_000


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_P09_the_batch_size_makes_a_fisher_of_a_mean(batch):
    """P09: labels from the model: E[B gbar gbar^T] is the average Fisher for any B.

    [relative error 0.005, 0.004, 0.022 at B = 1, 4, 16 and 400,000 samples]: the mean of
    n = samples / B products of Gaussians is off by 2/sqrt(n) or so.
    """
    found = observed_fisher(batch, SAMPLES, shift=0.0, reduction="mean")
    error = np.linalg.norm(found - FISHER) / np.linalg.norm(FISHER)
    assert error < 5 * np.sqrt(batch / SAMPLES)
    total = observed_fisher(batch, SAMPLES, shift=0.0, reduction="sum")
    np.testing.assert_allclose(total, batch * found, rtol=1e-11)


def test_P09_needs_labels_of_the_model():
    """P09, converse: other labels give g a mean mu, and B gbar gbar^T has (B - 1) mu mu^T more."""
    shift = 0.1
    p = probabilities(INPUTS, WEIGHTS)
    mean = (p - np.minimum(p + shift, 1)) @ INPUTS / len(INPUTS)
    alone, several = (
        observed_fisher(batch, SAMPLES, shift=shift, reduction="mean") for batch in (1, 16)
    )
    grown = 15 * np.outer(mean, mean)
    np.testing.assert_allclose(several - alone, grown, rtol=0, atol=0.05 * np.abs(grown).max())
    assert np.linalg.norm(grown) > 0.4 * np.linalg.norm(FISHER)


def test_P10_a_step_is_bounded():
    """P10: R6, lam = kap = 0: |dW| <= b1/(2 sqrt((1-b2) s alpha b2)), s before the step.

    Attained at G^2 = (1-b2) s/(alpha b2). [0.5308825 against 0.5308825]: with b1 = 1, b2 = 0.01,
    s = 0.7, alpha = 128. There is no bound with s_0 = 0.
    """
    precond_lr, s, alpha = 0.01, 0.7, 128.0
    rule = METHODS["rf_rmsprop"].rule(FLOAT64, without=["momentum"])
    best = ((1 - precond_lr) * s / (alpha * precond_lr)) ** 0.5
    g = np.append(best, np.geomspace(1e-6, 1e6, 9999))[None]
    sizes = {}
    for start in (s, 0.0):
        state = rule.init(g)._replace(statistic=np.full_like(g, start))
        step, _ = update(rule, g, state, g, Hyper(1.0, precond_lr, curvature_scale=alpha))
        sizes[start] = np.abs(step[0])
    assert sizes[s][0] == pytest.approx(0.5308825, abs=1e-7)
    assert sizes[s].max() <= sizes[s][0] * (1 + 1e-15)
    assert sizes[0.0].max() == pytest.approx(1 / (alpha * precond_lr * 1e-6))


def test_P10_a_matrix_of_one_number_has_the_bound():
    """P10 for R9, R13 and the exact R10 of one number: s is S, and the rule is R6."""
    g = np.geomspace(1e-3, 1e3, 999)[:, None]  # a stack of parameters of length 1
    bound = 1 / (2 * (0.99 * 0.7 * 128 * 0.01) ** 0.5)
    for name, options in (
        ("rf_full_matrix", {}),
        ("rf_shampoo", {}),
        ("rf_full_matrix_inverse", {"exact": True}),
    ):
        rule = METHODS[name].rule(FLOAT64, without=["momentum"], init_scale=0.7, **options)
        step, _ = update(rule, g, rule.init(g), g, Hyper(1.0, 0.01, curvature_scale=128.0))
        assert np.abs(step).max() == pytest.approx(bound, rel=1e-4)
        assert np.abs(step).max() <= bound
