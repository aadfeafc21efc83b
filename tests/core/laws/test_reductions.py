"""What the Kronecker rules become in special cases, and where they come to rest (P15 to P24)."""
# ruff: noqa: N802 - a test is named for its law

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from rootfree import (
    METHODS,
    Curvature,
    DiagonalCurvature,
    Hyper,
    KroneckerCurvature,
    MatrixCurvature,
    OuterProductCurvature,
    Precision,
    roles,
    update,
)

FLOAT64 = Precision.uniform(np.dtype("float64"))
BARE = ("momentum", "precond_momentum")


def sirf(**options: Any) -> Any:
    """Return SIRF-Shampoo without momenta and clip."""
    return METHODS["sirf_shampoo"].rule(FLOAT64, without=BARE, **{"trust_clip": False, **options})


def settled(
    shape: tuple[int, ...],
    grad: np.ndarray,
    curvature: Curvature | None,
    hyper: Hyper,
    count: int,
    *,
    factors: list[np.ndarray] | None = None,
    **options: Any,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the direction and the factors after ``count`` updates with one gradient."""
    rule = sirf(**options)
    state = rule.init(np.zeros((1, *shape)))
    if factors is not None:
        state = state._replace(factor=tuple((k[None],) for k in factors))
    for _ in range(count):
        state = rule.observe(grad[None], state, hyper, curvature)
    return rule.direction(grad[None], state, hyper)[0], [k[0] for (k,) in state.factor]


def test_P15_a_vector_with_a_diagonal_factor_is_rf_rmsprop():
    """P15: 1/k^2 tracks R6's s, lam inside of its average, to O(b2); no clip, a2 = 0.

    [max error 0.150, 0.092, 0.032 at b2 = 0.1, 0.05, 0.025]. One update gives 1/k^2 the excess
    (3/4) b2^2 (h - s)^2/s, of which an average over 1/b2 updates keeps (3/4) b2 E[(h - s)^2]/s.
    """
    alpha, damping, zero = 2.0, 0.1, np.zeros((1, 1000))
    diagonal, plain = sirf(structure="diagonal"), METHODS["rf_rmsprop"].rule(FLOAT64)
    means, largest = [], []
    for precond_lr in (0.1, 0.05, 0.025):
        rng = np.random.default_rng(0)
        state, target = diagonal.init(zero), plain.init(zero)
        hyper = Hyper(0.1, precond_lr, damping=damping, curvature_scale=alpha)
        for _ in range(round(4 / precond_lr)):
            # h = alpha g^2 + lam is 0.3 or 1.7, 1 in the mean with the variance 0.49.
            h = 1 + 0.7 * rng.choice([-1.0, 1.0], size=zero.shape)
            grad = np.sqrt((h - damping) / alpha)
            state = diagonal.observe(grad, state, hyper)
            target = plain.observe(grad, target, hyper, DiagonalCurvature(h))
        error = 1 / state.factor[0][0] ** 2 - target.statistic
        means.append(error.mean())
        largest.append(np.abs(error).max())
    np.testing.assert_allclose(means, 0.75 * 0.49 * np.array([0.1, 0.05, 0.025]), rtol=0.15)
    assert np.all(np.array(largest) < [0.150, 0.092, 0.032])


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.matrix])
@pytest.mark.parametrize("shape", [(5, 1), (1, 5), (1, 5, 1)])
def test_P16_axes_of_length_one_do_not_count(train, name, shape):
    """P16: a (p, 1) or (1, p) weight is a p-vector exactly, state and all [0.0]."""
    method = METHODS[name]
    rule = method.rule(FLOAT64)
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=5), 0.3 * rng.normal(size=(10, 5))
    hyper = Hyper(0.1, 0.1, 0.9, 0.5, damping=0.1, weight_decay=0.1, curvature_scale=3.0)
    vector = train(rule, start, lambda t, _: grads[t], hyper, 10)
    matrix = train(rule, start.reshape(shape), lambda t, _: grads[t].reshape(shape), hyper, 10)
    assert matrix.params.shape == (11, *shape)
    np.testing.assert_array_equal(matrix.params.reshape(11, 5), vector.params)
    kept, expected = roles(matrix.state), roles(vector.state)
    assert kept.keys() == expected.keys()
    for role, array in kept.items():
        np.testing.assert_array_equal(np.ravel(array), np.ravel(expected[role]), err_msg=role)
        assert role == "momentum" or array.shape == expected[role].shape


def test_P17_diagonal_factors_are_a_rank_one_second_moment():
    """P17: E[G^2] = a b^T, lam = 0: c_i^2 k_j^2 = 1/(alpha a_i b_j) [3e-15].

    Off the rank-one matrices there is no such factorisation, and lam = 0.1 moves the point.
    """
    a, b, alpha = np.array([0.5, 2.0, 1.0]), np.array([0.1, 3.0, 0.7, 1.3]), 5.0
    zero = np.zeros((3, 4))

    def found(second: np.ndarray, damping: float = 0.0) -> np.ndarray:
        curvature = DiagonalCurvature(alpha * second[None])
        hyper = Hyper(0.1, 0.3, damping=damping)
        given = {"structure": "diagonal", "trust_clip": True}
        _, (c, k) = settled((3, 4), zero, curvature, hyper, 400, **given)
        return np.outer(c**2, k**2) * alpha * second

    np.testing.assert_allclose(found(np.outer(a, b)), 1, rtol=1e-13)
    assert np.abs(found(np.outer(a, b), 0.1) - 1).max() > 0.05
    assert np.abs(found(np.outer(a, b) + 2 * np.eye(3, 4)) - 1).max() > 0.05


SQUARE = np.array([[2.0, 1.0, 0.0, 0.3], [0.0, 1.0, -1.0, 0.2], [0.5, 0.0, 1.0, 0], [0, 0.7, 0, 1]])


def starts(seed: int) -> list[np.ndarray]:
    """Return two regular factors of sizes that differ by a hundred."""
    rng = np.random.default_rng(seed)
    return [size * (np.eye(4) + 0.2 * rng.normal(size=(4, 4))) for size in (3.0, 0.03)]


@pytest.mark.parametrize("factors", [None, starts(0), starts(1)], ids=["identity", "0", "1"])
def test_P18_a_constant_square_gradient(factors):
    """P18: invertible n x n G, lam = 0: direction -> (n/alpha) G^-T, whatever the gauge [2e-15].

    With the power -1/2 for each factor all singular values are sqrt(n/alpha).
    """
    alpha, n = 3.0, 4
    hyper = Hyper(0.1, 0.2, curvature_scale=alpha)
    given = {"factors": factors, "trust_clip": True}
    u, (c, k) = settled((n, n), SQUARE, None, hyper, 600, **given)
    expected = n / alpha * np.linalg.inv(SQUARE).T
    np.testing.assert_allclose(u, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    roots = [_root(x @ x.T) for x in (c, k)]  # S_j^-1/2
    values = np.linalg.svd(roots[0] @ SQUARE @ roots[1], compute_uv=False)
    np.testing.assert_allclose(values, math.sqrt(n / alpha), rtol=1e-12)
    damped, _ = settled((n, n), SQUARE, None, hyper._replace(damping=0.1), 600, **given)
    assert np.abs(damped - expected).max() > 0.05 * np.abs(expected).max()


def _root(m: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(m)
    return (vectors * np.sqrt(values)) @ vectors.T


@pytest.mark.parametrize("rule", ["sirf_shampoo", "rf_shampoo"])
def test_P19_a_fixed_set_of_gradients_is_the_flip_flop(rule):
    """P19: lam = 0, the average of all outer products: the Kronecker maximum likelihood [6.5e-14].

    S_K = alpha mean(G^T S_C^-1 G)/p and S_C = alpha mean(G S_K^-1 G^T)/d, for R13 and for R14. One
    gradient at a time it does not hold.
    """
    rng = np.random.default_rng(0)
    p, d, alpha, count = 3, 4, 2.0, 6
    set_of = rng.normal(size=(count, p, d))
    full = OuterProductCurvature(math.sqrt(alpha / count) * set_of[None])
    hyper = Hyper(0.1, 0.2, curvature_scale=alpha)
    method = METHODS[rule].rule(FLOAT64, without=[b for b in BARE if b in METHODS[rule].hyper])
    errors = []
    for curvature in (full, None):
        state = method.init(np.zeros((1, p, d)))
        for t in range(600):
            state = method.observe(set_of[t % count][None], state, hyper, curvature)
        if rule == "sirf_shampoo":
            inverses = [k[0] @ k[0].T for (k,) in state.factor]
        else:
            inverses = [np.linalg.inv(s[0]) for s in state.statistic]
        s_c, s_k = (np.linalg.inv(m) for m in inverses)
        seen_k = alpha * np.einsum("rij,ik,rkl->jl", set_of, inverses[0], set_of) / count / p
        seen_c = alpha * np.einsum("rij,jk,rlk->il", set_of, inverses[1], set_of) / count / d
        errors.append(
            max(
                np.linalg.norm(s_k - seen_k) / np.linalg.norm(s_k),
                np.linalg.norm(s_c - seen_c) / np.linalg.norm(s_c),
            )
        )
    assert errors[0] < 1e-12
    assert errors[1] > 0.1


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["gradient", "matrix"])
def test_P20_solves_and_products_differ_in_second_order(shape, damping, kind):
    """P20: R13 against R14, one step from equal factors, no clip, a2 = 0: O(b2^2).

    [ratios on halving b2 3.64, 3.81, 3.91; in the form above 4.01, 3.98, 4.02 for N = 1, 2, 3]:
    they tend to 4, for every axis.
    """
    rng = np.random.default_rng(0)
    factors = [np.eye(d) + 0.3 * rng.normal(size=(d, d)) for d in shape]
    grad, size = rng.normal(size=(1, *shape)), math.prod(shape)
    h = rng.normal(size=(1, size, size))
    curvature = MatrixCurvature(h @ np.matrix_transpose(h) / size) if kind == "matrix" else None
    solved, free = METHODS["rf_shampoo"].rule(FLOAT64), sirf()
    errors = []
    for precond_lr in (0.1, 0.05, 0.025, 2e-3, 1e-3):
        hyper = Hyper(0.1, precond_lr, damping=damping, curvature_scale=1.5)
        inverses = tuple(np.linalg.inv(k @ k.T)[None] for k in factors)
        state = solved.init(grad)._replace(statistic=inverses)
        other = free.init(grad)._replace(factor=tuple((k[None],) for k in factors))
        state = solved.observe(grad, state, hyper, curvature)
        other = free.observe(grad, other, hyper, curvature)
        errors.append(
            [
                np.linalg.norm(np.linalg.inv(s[0]) - k[0] @ k[0].T)
                for s, (k,) in zip(state.statistic, other.factor, strict=True)
            ]
        )
    found = np.array(errors)
    assert np.abs(found[0] / found[1] - 4).max() < 0.8
    assert np.abs(found[1] / found[2] - 4).max() < 0.5
    np.testing.assert_allclose(found[3] / found[4], 4, rtol=0.02)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_P21_n_factors_move_n_times_as_fast(axes):
    """P21: from P = I and H = h I, d log P = -N b2 (h - 1); no clip, a2 = 0.

    [-0.0200, -0.0400, -0.0600 at h = 1.02, per b2]
    """
    shape, h = (2, 3, 2)[:axes], 1.02
    curvature = MatrixCurvature(h * np.eye(math.prod(shape))[None])
    precond_lr = 1e-3
    _, factors = settled(shape, np.zeros(shape), curvature, Hyper(0.1, precond_lr), 1)
    move = sum(math.log(k[0, 0] ** 2) for k in factors) / precond_lr
    assert move == pytest.approx(-0.02 * axes, abs=5e-5)
    assert move == pytest.approx(-axes * (h - 1), rel=1e-4)
    rule = sirf(trust_clip=True)
    state = rule.init(np.zeros((1, *shape)))
    far = MatrixCurvature(20.0 * np.eye(math.prod(shape))[None])
    clipped = rule.observe(np.zeros((1, *shape)), state, Hyper(0.1, precond_lr), far)
    moved = sum(math.log(k[0, 0, 0] ** 2) for (k,) in clipped.factor) / precond_lr
    assert moved > -0.2 * axes * 19  # the clip takes most of it


def test_P22_structure_is_kept(train):
    """P22: tril's strict upper part is 0.0 after 100 steps; dense K is not symmetric [0.18].

    ``test_structures.py`` has every structure.
    """
    rng = np.random.default_rng(0)
    target, mix = rng.normal(size=(4, 5)), rng.normal(size=(5, 5))
    hyper = Hyper(0.05, 0.2, 0.9, 0.5, damping=1e-2, curvature_scale=2.0)

    def gradient(_: int, w: np.ndarray) -> np.ndarray:
        return np.tanh((w - target) @ mix) @ mix.T + 0.1 * rng.normal(size=w.shape)

    for structure in ("tril", "triu", "dense"):
        rule = METHODS["sirf_shampoo"].rule(FLOAT64, structure=structure)
        state = train(rule, np.zeros((4, 5)), gradient, hyper, 100).state
        for (k,), (m,) in zip(state.factor, state.factor_momentum, strict=True):
            if structure == "dense":
                skew = np.linalg.norm(k[0] - k[0].T) / np.linalg.norm(k[0])
                assert 0.18 / 5 < skew < 0.18 * 5
                np.testing.assert_allclose(m[0], m[0].T, rtol=0, atol=1e-13)
            else:
                cut = np.triu if structure == "tril" else np.tril
                for array in (k[0], m[0]):
                    assert np.all(cut(array, 1 if structure == "tril" else -1) == 0.0)
                    assert np.all(array[np.tri(*array.shape) == 1] != 0) or structure == "triu"


# P24: the quadratic l = w^T H w/2.

H_ROWS = np.array([[3.0, 1.0], [1.0, 0.8]])
H_COLUMNS = np.array([[1.0, 0.2, 0.0], [0.2, 40.0, 0.5], [0.0, 0.5, 0.1]])
H = np.kron(H_ROWS, H_COLUMNS)


def newton_start(name: str) -> dict[str, Any]:
    """Return the state in which the preconditioner is H."""
    if name == "rf_full_matrix":
        return {"statistic": H[None]}
    if name == "rf_full_matrix_inverse":
        return {"statistic": np.linalg.inv(H)[None]}
    if name == "rf_full_matrix_factor":
        return {"factor": ((np.linalg.cholesky(np.linalg.inv(H))[None],),)}
    if name == "rf_shampoo":
        return {"statistic": (H_ROWS[None], H_COLUMNS[None])}
    halves = (np.linalg.cholesky(np.linalg.inv(h))[None] for h in (H_ROWS, H_COLUMNS))
    return {"factor": tuple((k,) for k in halves)}


ROOT_FREE = [name for name, method in METHODS.items() if method.matrix and method.scaled]


@pytest.mark.parametrize("name", ROOT_FREE)
def test_P24_true_curvature_is_newton(train, name):
    """P24: with the true curvature fed in and S_0 = H, w contracts by 1 - b1 in all directions."""
    method = METHODS[name]
    lr, count, shape = 0.1, 60, (2, 3)
    rule = method.rule(FLOAT64, without=[b for b in BARE if b in method.hyper])
    curvatures: list[Curvature] = [MatrixCurvature(H[None])]
    if "factors" in method.curvatures:
        curvatures.append(KroneckerCurvature((H_ROWS[None], H_COLUMNS[None])))
    for curvature in curvatures:
        w = np.ones(shape)
        run = train(
            rule,
            w,
            lambda _, w: (H @ w.ravel()).reshape(w.shape),
            Hyper(lr, 0.05),
            count,
            state=rule.init(w[None])._replace(**newton_start(name)),
            curvature=curvature,
        )
        expected = (1 - lr) ** np.arange(count + 1)[:, None, None] * w
        np.testing.assert_allclose(run.params, expected, rtol=0, atol=1e-11)
        np.testing.assert_allclose(run.params[-1], expected[-1], rtol=1e-8)


@pytest.mark.parametrize("name", ["rf_rmsprop", *ROOT_FREE])
def test_P24_gradient_products_end_at_the_edge_of_stability(train, name):
    """P24: with the GOP, full batch, s falls until b1 h/s = 2, not to the Hessian h.

    [s = 0.0502 for b1 = 0.1, h = 1]. From there w changes its sign at every step and its squared
    gradient is s.
    """
    method, options = METHODS[name], {}
    if name == "rf_full_matrix_inverse":
        options = {"exact": True}
    rule = method.rule(FLOAT64, without=[b for b in BARE if b in method.hyper], **options)
    run = train(rule, np.ones(1), lambda _, w: w, Hyper(0.1, 0.05), 4000)
    kept = next(
        x for role, x in roles(run.state).items() if role.startswith(("statistic", "factor"))
    )
    s = float(np.ravel(kept)[0])
    s = {"rf_full_matrix_inverse": 1 / s}.get(name, s)
    s = 1 / s**2 if "factor" in run.state._fields else s
    assert s == pytest.approx(0.0502, rel=0.01)
    assert s == pytest.approx(0.1 / 2, rel=1e-6)
    assert run.params[-1] == pytest.approx(-run.params[-2], rel=1e-6)
    assert run.params[-1] ** 2 == pytest.approx(s, rel=1e-5)


def test_P24_alpha_does_not_make_it_newton():
    """P24: nor does another alpha: one step of R9 sees alpha g g^T, of rank one, and not H."""
    rule = METHODS["rf_full_matrix"].rule(FLOAT64, without=["momentum"])
    w = np.ones((1, 6))
    state = rule.init(w)._replace(statistic=H[None])
    step, _ = update(rule, w @ H, state, w, Hyper(0.1, 0.05))
    assert np.abs(step + 0.1 * w).max() > 1e-3
