"""Matrix methods whose state is bfloat16 (mathematics 4.2, P26).

Rounded to nearest, a factor that moves by small relative steps stands still. Rounded stochastically
it follows, and float32 state does with products of bfloat16 numbers. Warnings are the adapters'.
"""
# ruff: noqa: N802 - a test is named for its law

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from rootfree import METHODS, Hyper, Precision, add_step, update
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

FLOAT64, FLOAT32 = np.dtype("float64"), np.dtype("float32")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
UNIT = 2.0**-8  # roundoff of bfloat16
PRECISIONS = {
    "float64": Precision.uniform(FLOAT64),
    "float32": Precision(FLOAT32, FLOAT32, BFLOAT16, product_dtype=FLOAT32),
    "nearest": Precision(FLOAT32, BFLOAT16, BFLOAT16, product_dtype=FLOAT32),
    "stochastic": Precision(FLOAT32, BFLOAT16, BFLOAT16, "stochastic", product_dtype=FLOAT32),
}


class Trained(NamedTuple):
    """How a training on digits ends."""

    factors: list[np.ndarray]
    loss: float  # mean of the last 20 steps


WIDTH, STEPS, BATCH = 64, 300, 128


def trained(precision: Precision) -> Trained:
    """Train a perceptron with two hidden layers on digits with SIRF-Shampoo, precond_lr 0.01."""
    dtype, rng = precision.working_dtype, np.random.default_rng(0)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(dtype)
    params = []
    for inputs, outputs in ((64, WIDTH), (WIDTH, WIDTH), (WIDTH, 10)):
        for shape in ((outputs, inputs), (outputs,)):
            start = rng.uniform(-1, 1, shape) / np.sqrt(inputs)
            params.append(start.astype(dtype)[None])
    rule = METHODS["sirf_shampoo"].rule(precision)
    states = [salted(rule.init(p), number) for number, p in enumerate(params)]
    hyper = Hyper(1e-3, 0.01, 0.9, 0.5, damping=1e-3, curvature_scale=BATCH)
    losses = []
    for _ in range(STEPS):
        rows = rng.integers(0, len(images), BATCH)
        loss, grads = gradients(params, images[rows], labels[rows])
        losses.append(loss)
        for i, grad in enumerate(grads):
            step, states[i] = update(rule, grad, states[i], params[i], hyper)
            params[i] = add_step(params[i], step)
    factors = [k[0].astype(FLOAT64) for state in states for (k,) in state.factor]
    return Trained(factors, float(np.mean(losses[-20:])))


def salted(state: Any, number: int) -> Any:
    """Return a state whose parameter has rounding bits of its own, as an adapter sees to."""
    return state if state.salt is None else state._replace(salt=np.array([number], np.int32))


def gradients(
    params: list[np.ndarray], x: np.ndarray, labels: np.ndarray
) -> tuple[float, list[np.ndarray]]:
    """Return the mean cross-entropy and its gradients."""
    weights, biases = params[::2], params[1::2]
    inputs = [x]
    for w, b in zip(weights, biases, strict=True):
        inputs.append(inputs[-1] @ w[0].T + b[0])
        if len(inputs) <= len(weights):
            inputs[-1] = np.maximum(inputs[-1], 0)
    logits = inputs.pop()
    logits = logits - logits.max(axis=1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    hit = np.eye(10, dtype=x.dtype)[labels]
    back, grads = (np.exp(logs) - hit) / x.dtype.type(len(x)), []
    for w, a in zip(reversed(weights), reversed(inputs), strict=True):
        grads += [back.sum(axis=0)[None], (back.T @ a)[None]]
        back = (back @ w[0]) * (a > 0)
    return float(-(logs * hit).sum() / len(x)), grads[::-1]


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Trained]]:
    """Train once with every precision. BLAS threads of small products wait for each other."""
    with threadpool_limits(1):
        yield {name: trained(precision) for name, precision in PRECISIONS.items()}


def displacement_errors(run: Trained, exact: Trained) -> list[float]:
    """Return the relative Frobenius error of every factor's displacement from the identity."""
    return [
        float(np.linalg.norm(k - e) / np.linalg.norm(e - np.eye(len(e))))
        for k, e in zip(run.factors, exact.factors, strict=True)
    ]


def test_P26_factors_on_digits_leave_the_identity(runs):
    """4.2: in float64 all factors move by 0.3 and more of the identity's norm in 300 steps."""
    for k in runs["float64"].factors:
        assert np.linalg.norm(k - np.eye(len(k))) > 0.3 * np.sqrt(len(k))


def test_P26_nearest_rounding_stands_still(runs):
    """4.2: with bfloat16 state rounded to nearest factors miss 100 % of their way [1.0]."""
    assert min(displacement_errors(runs["nearest"], runs["float64"])) > 0.98
    assert runs["nearest"].loss > runs["float64"].loss + 0.15


def test_P26_stochastic_rounding_follows(runs):
    """4.2: rounded stochastically each factor is within 25 % of the float64 run's [0.09-0.18]."""
    found = displacement_errors(runs["stochastic"], runs["float64"])
    assert max(found) < 0.25
    assert max(found) > 0.05  # it is bfloat16
    assert abs(runs["stochastic"].loss - runs["float64"].loss) < 0.03


def test_P26_float32_state_with_bfloat16_products(runs):
    """4.2: float32 state is within 1 %, although products round inputs [2e-4 to 5e-4]."""
    found = displacement_errors(runs["float32"], runs["float64"])
    assert max(found) < 1e-2
    assert max(found) > 1e-5  # products do round
    assert abs(runs["float32"].loss - runs["float64"].loss) < 1e-3


def grown(precision: Precision, d: int, precond_lr: float, count: int, **options: Any) -> Any:
    """Return a diagonal factor after ``count`` updates without gradient and damping."""
    options = {"structure": "diagonal", "trust_clip": True, **options}
    without = ("momentum", "precond_momentum")
    rule = METHODS["sirf_shampoo"].rule(precision, without=without, **options)
    zero = np.zeros((1, d), precision.working_dtype)
    state = rule.init(zero)
    for _ in range(count):
        _, state = update(rule, zero, state, zero, Hyper(0.1, precond_lr))
    return state.factor[0][0].astype(FLOAT64)


@pytest.mark.parametrize(("d", "reached"), [(8, 2.02), (512, 1.09)])
def test_P26_without_gradient_a_factor_grows(d, reached):
    """4.2: from I a factor grows by 1 + b2/max(2, sqrt(d)); b2 = 0.01, 200 updates.

    [float32 reaches 2.02 at d = 8, 1.09 at d = 512; bf16 1.00]: with a2 = 0.5, which loses most of
    the first update; without it 2.026. Stochastic rounding is exact in the
    mean, over d entries to a few times sqrt((growth - 1) growth 2^-7 / d).
    """
    growth = (1 + 0.01 / max(2, np.sqrt(d))) ** 200
    assert growth == pytest.approx(reached, abs=6e-3)
    np.testing.assert_allclose(grown(PRECISIONS["float32"], d, 0.01, 200), growth, rtol=1e-4)
    assert np.all(grown(PRECISIONS["nearest"], d, 0.01, 200) == 1.0)
    mean = grown(PRECISIONS["stochastic"], d, 0.01, 200).mean()
    assert abs(mean - growth) < 5 * np.sqrt((growth - 1) * growth * 2**-7 / d)


@pytest.mark.parametrize("trust_clip", [True, False])
@pytest.mark.parametrize(
    ("d", "threshold"), [(2, 0.0078), (8, 0.011), (64, 0.031), (512, 0.088), (768, 0.108)]
)
def test_P26_least_rate_is_where_nearest_rounding_moves(d, threshold, trust_clip):
    """4.2: nearest bf16 follows only if b2 > u max(2, sqrt(d)), without the clip 2 u, u = 2^-8."""
    rule = METHODS["sirf_shampoo"].rule(PRECISIONS["nearest"], trust_clip=trust_clip)
    least = rule.least_rate((d,), UNIT)
    assert least == pytest.approx(threshold if trust_clip else 0.0078, rel=0.02)
    for share, moves in ((0.99, False), (1.01, True)):
        k = grown(PRECISIONS["nearest"], d, share * least, 1, trust_clip=trust_clip)
        assert np.all(k > 1) if moves else np.all(k == 1)


@pytest.mark.parametrize("name", ["rf_rmsprop", "rf_full_matrix", "rf_shampoo"])
def test_P26_without_gradient_a_statistic_decays(name):
    """P26: s, S and S_j decay by 0.999^300 = 0.7407 in the mean; rounded to nearest they stay 1.

    One rounding has a variance of at most f ulp^2, f ulp = 1e-3 s, ulp = 2^-8 below 1: 300 of them
    2^-8 (1 - 0.74), over n numbers 5 sigma.
    """
    n, d = 4000, 4
    for rounding in ("nearest", "stochastic"):
        rule = METHODS[name].rule(PRECISIONS[rounding], without=["momentum"])
        zero = np.zeros((n, d), FLOAT32)
        state = rule.init(zero)
        if state.salt is not None:
            state = state._replace(salt=np.arange(n, dtype=np.int32))
        for _ in range(300):
            state = rule.observe(zero, state, Hyper(0.1, 1e-3))
            state = state._replace(step=state.step + 1)
        kept = state.statistic[0] if isinstance(state.statistic, tuple) else state.statistic
        assert kept.dtype == BFLOAT16
        kept = kept.astype(FLOAT64)
        numbers = kept if kept.ndim == 2 else np.diagonal(kept, axis1=1, axis2=2)
        if rounding == "nearest":
            assert np.all(numbers == 1)
        else:
            allowed = 5 * np.sqrt(2**-8 * 0.26 / numbers.size)
            assert abs(numbers.mean() - 0.999**300) < allowed
