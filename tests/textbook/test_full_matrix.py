"""The full-matrix methods of the textbook: numbers by hand, and the laws that relate the forms.

Agreement means float64 to 1e-12 relative to the largest entry; an order of convergence is read off
the errors at two step sizes.
"""

import numpy as np
import pytest
from rootfree_textbook import (
    full_adagrad,
    init,
    rf_full_matrix,
    rf_full_matrix_factor,
    rf_full_matrix_inverse,
    step,
)
from rootfree_textbook.curvature import curvature_matrix

FORMS = ["rf_full_matrix", "rf_full_matrix_inverse", "rf_full_matrix_factor"]
HYPER = {
    "lr": 0.1,
    "precond_lr": 0.05,
    "momentum": 0.9,
    "precond_momentum": 0.5,
    "damping": 1e-3,
    "weight_decay": 0.01,
    "batch_size": 4,
}
HALVES = {"lr": 0.5, "precond_lr": 0.5, "momentum": 0.5, "damping": 1.0, "weight_decay": 0.25}
BARE = {"with_momentum": False, "with_factor_momentum": False}


def close(actual, desired, tolerance=1e-12):
    """Equal in float64, relative to the largest entry."""
    scale = np.max(np.abs(desired), initial=0.0)
    np.testing.assert_allclose(actual, desired, rtol=0, atol=tolerance * scale)


def positive(d, seed=0):
    """A positive definite matrix with eigenvalues of 0.1 and more."""
    X = np.random.default_rng(seed).standard_normal((d, d))
    return X @ X.T / d + 0.1 * np.eye(d)


def run(name, param, gradients, *, start=None, **hyper):
    """Parameters after each of the steps, and the last state."""
    state = init(name, param, **(start or {}))
    path = []
    for grad in gradients:
        param, state = step(name, param, grad, state, **hyper)
        path.append(param)
    return path, state


def gradients(shape, steps=20, seed=0):
    """Independent normal gradients."""
    return list(np.random.default_rng(seed).standard_normal((steps, *shape)))


class TestByHand:
    """Numbers to be checked with a pencil: b1 = b2 = a1 = 1/2, lam = 1, kap = 1/4, alpha = 2."""

    def test_full_adagrad(self):
        """R8 with g = (4, 0): S = diag(8, 0), R = diag(9, 1)^-1/2; U = (4/3, 0) + W/4.

        Then without a look at the gradient (0, 3): the same root; buf = U/2 + (0, 3) + W/4.
        """
        W, state = np.array([4.0, 8.0]), init("full_adagrad", np.zeros(2))
        first, state = full_adagrad(W, np.array([4.0, 0.0]), state, **HALVES)
        close(state["statistic"], [[8, 0], [0, 0]])
        close(state["root"], [[1 / 3, 0], [0, 1]])
        close(state["momentum"], [7 / 3, 2])
        close(first, [4 - 7 / 6, 7])
        second, state = full_adagrad(first, np.array([0.0, 3.0]), state, update_now=False, **HALVES)
        close(state["statistic"], [[8, 0], [0, 0]])
        close(second, first - 0.5 * (np.array([7 / 6, 1 + 3]) + first / 4))
        assert state["step"] == 2

    def test_s_form(self):
        """R9 with g = (1, 1): S = I/2 + (2 g g^T + I)/2 = [[2, 1], [1, 2]], S^-1 g = (1/3, 1/3)."""
        W, state = np.array([1.0, 0.0]), init("rf_full_matrix", np.zeros(2))
        W, state = rf_full_matrix(W, np.array([1.0, 1.0]), state, batch_size=2, **HALVES)
        close(state["statistic"], [[2, 1], [1, 2]])
        close(W, [1 - 0.5 * (1 / 3 + 1 / 4), -1 / 6])

    def test_inverse_form(self):
        """R10 with g = (1, 0), alpha = 1/2: Sigma = (3/2) I - (diag(1/2, 0) + I)/2."""
        W, state = np.zeros(2), init("rf_full_matrix_inverse", np.zeros(2))
        W, state = rf_full_matrix_inverse(W, np.array([1.0, 0.0]), state, batch_size=0.5, **HALVES)
        close(state["statistic"], [[0.75, 0], [0, 1]])
        close(W, [-0.375, 0])

    def test_factor_form(self):
        """R11 with g = (1, 0), alpha = 8, a2 = 1/2: X = diag(8, 0), m = X/4 = diag(2, 0).

        ||m|| = 2, so eta = 1/4 and B = diag(1/2, 1). Without the clip B = diag(0, 1).
        """
        W, g = np.zeros(2), np.array([1.0, 0.0])
        given = HALVES | {"batch_size": 8, "precond_momentum": 0.5}
        start = init("rf_full_matrix_factor", W)
        moved, state = rf_full_matrix_factor(W, g, start, **given)
        close(state["factor_momentum.0"], [[2, 0], [0, 0]])
        close(state["factor.0"], [[0.5, 0], [0, 1]])
        close(moved, [-0.125, 0])
        moved, state = rf_full_matrix_factor(W, g, start, trust_clip=False, **given)
        close(state["factor.0"], [[0, 0], [0, 1]])
        close(moved, [0, 0])

    def test_first_matrices(self):
        """S_0 = s_0 I in every form: Sigma_0 = I/s_0, B_0 = I/sqrt(s_0); 0 with the root."""
        W = np.zeros((2, 1))
        close(init("full_adagrad", W)["statistic"], np.zeros((2, 2)))
        close(init("full_adagrad", W, init_scale=4)["statistic"], 4 * np.eye(2))
        close(init("full_adagrad", W, init_scale=4)["root"], np.eye(2))
        for name, role, power in zip(
            FORMS, ("statistic", "statistic", "factor.0"), (1, -1, -0.5), strict=True
        ):
            close(init(name, W)[role], np.eye(2))
            close(init(name, W, init_scale=4)[role], 4.0**power * np.eye(2))


class TestCurvature:
    """H of a step, and what a caller may put in its place."""

    grad = np.arange(6.0).reshape(2, 3)

    def test_gradient_outer_product(self):
        """Section 1: alpha g g^T + lam I, g row by row."""
        g = np.array([0.0, 1, 2, 3, 4, 5])
        close(curvature_matrix(self.grad, 7, 0.5), 7 * np.outer(g, g) + 0.5 * np.eye(6))

    def test_the_callers_matrix_is_not_scaled_but_damped(self):
        """Section 1: each kind as the D x D matrix that it stands for."""
        rng = np.random.default_rng(0)
        h, x, H = rng.standard_normal((2, 3)), rng.standard_normal((4, 2, 3)), positive(6)
        A, B = positive(2), positive(3)
        eye = 0.5 * np.eye(6)
        close(curvature_matrix(self.grad, 7, 0.5, {"diagonal": h}), np.diag(h.ravel()) + eye)
        vectors = sum(np.outer(v.ravel(), v.ravel()) for v in x)
        close(curvature_matrix(self.grad, 7, 0.5, {"vectors": x}), vectors + eye)
        close(curvature_matrix(self.grad, 7, 0.5, {"vectors": x[:0]}), eye)
        close(curvature_matrix(self.grad, 7, 0.5, {"matrix": H}), H + eye)
        close(curvature_matrix(self.grad, 7, 0.5, {"factors": [A, B]}), np.kron(A, B) + eye)
        V = rng.standard_normal((2, 3))  # (A kron B) vec(V) = vec(A V B^T)
        close(np.kron(A, B) @ V.ravel(), (A @ V @ B.T).ravel())

    @pytest.mark.parametrize(
        ("curvature", "message"),
        [
            ({}, "exactly one key"),
            ({"matrix": np.eye(6), "diagonal": np.ones(6)}, "exactly one key"),
            ({"hessian": np.eye(6)}, "unknown curvature 'hessian'"),
            ({"matrix": np.eye(5)}, r"must make a matrix of shape \(6, 6\), got \(5, 5\)"),
        ],
    )
    def test_errors(self, curvature, message):
        """One kind, of the right shape."""
        with pytest.raises(ValueError, match=message):
            curvature_matrix(self.grad, 1, 0, curvature)

    @pytest.mark.parametrize("name", FORMS)
    @pytest.mark.parametrize("damping", [0.0, 0.5])
    def test_the_kinds_agree(self, name, damping):
        """Given as 3 sqrt(alpha) g, or as its matrix, the curvature of the GOP gives its step."""
        param, grad = np.ones((2, 3)), self.grad / 10
        hyper = HYPER | {"damping": damping}
        expected, state = step(name, param, grad, init(name, param), **hyper)
        g = grad.ravel()
        for curvature in ({"vectors": 2 * grad[None]}, {"matrix": 4 * np.outer(g, g)}):
            moved, given = step(name, param, grad, init(name, param), curvature=curvature, **hyper)
            close(moved, expected)
            for role in state:
                close(given[role], state[role])


class TestForms:
    """S, its inverse, its factor: one natural gradient."""

    H = positive(4)
    S = positive(4, seed=1)

    def errors(self, b2, gam=1):
        """Distances of the three new S^-1 from the exact one, per form, after one step from S."""
        exact = np.linalg.inv((1 - b2 * gam) * self.S + b2 * self.H)
        distances = []
        for name in FORMS:
            state = init(name, np.zeros(4), **BARE)
            role = "factor.0" if name == "rf_full_matrix_factor" else "statistic"
            Sigma = np.linalg.inv(self.S)
            state[role] = {
                "rf_full_matrix": self.S,
                "rf_full_matrix_inverse": Sigma,
                "rf_full_matrix_factor": np.linalg.cholesky(Sigma),
            }[name]
            _, state = step(
                name,
                np.zeros(4),
                np.zeros(4),
                state,
                curvature={"matrix": self.H},
                decay=gam,
                trust_clip=False,
                **HYPER | {"precond_lr": b2, "damping": 0},
            )
            new = state[role]
            reached = {
                "rf_full_matrix": np.linalg.inv(new),
                "rf_full_matrix_inverse": new,
                "rf_full_matrix_factor": new @ new.T,
            }[name]
            distances.append(np.linalg.norm(reached - exact))
        return np.array(distances)

    @pytest.mark.parametrize("gam", [0, 1])
    def test_p01_first_order_agreement(self, gam):
        """P01: from one S with a fixed H the forms differ by O(b2^2) in one step."""
        coarse, fine = self.errors(1e-3, gam), self.errors(5e-4, gam)
        assert coarse[0] < 1e-13
        np.testing.assert_allclose(coarse[1:] / fine[1:], 4, rtol=0.02)

    def test_p02_leading_error_of_the_factor_form(self):
        """P02: B B^T - S_new^-1 = -(3/4) b2^2 B X^2 B^T + O(b2^3), X = B^T H B - I."""
        b2, B = 1e-4, np.linalg.cholesky(np.linalg.inv(self.S))
        X = B.T @ self.H @ B - np.eye(4)
        leading = np.linalg.norm(0.75 * b2**2 * B @ X @ X @ B.T)
        assert self.errors(b2)[2] == pytest.approx(leading, rel=2e-3)

    def test_p03_the_factor_form_is_on_the_safe_side(self):
        """P03: (B_new B_new^T)^-1 >= (1 - b2) S + b2 H while (b2/2) lmax(X) < 1."""
        for seed in range(20):
            H, b2 = positive(3, seed), 0.5
            state = init("rf_full_matrix_factor", np.zeros(3), **BARE)
            assert b2 / 2 * np.linalg.eigvalsh(H)[-1] < 1.5
            hyper = HYPER | {"precond_lr": b2, "damping": 0}
            _, state = step(
                "rf_full_matrix_factor",
                np.zeros(3),
                np.zeros(3),
                state,
                curvature={"matrix": H},
                trust_clip=False,
                **hyper,
            )
            B = state["factor.0"]
            gap = np.linalg.inv(B @ B.T) - (1 - b2) * np.eye(3) - b2 * H
            assert np.linalg.eigvalsh(gap)[0] > -1e-12

    def test_p04_the_inverse_form_is_not_safe(self):
        """P04: H = diag(50, 1, 1), b2 = 0.1 from I: Sigma has the eigenvalue 1.1 - 5 = -3.9."""
        curvature = {"diagonal": np.array([50.0, 1.0, 1.0])}
        hyper = HYPER | {"precond_lr": 0.1, "damping": 0}
        states = {}
        for name in FORMS[1:]:
            state = init(name, np.zeros(3), **BARE)
            _, states[name] = step(
                name, np.zeros(3), np.zeros(3), state, curvature=curvature, **hyper
            )
        close(np.diag(states["rf_full_matrix_inverse"]["statistic"]), [-3.9, 1.0, 1.0])
        assert np.all(np.diag(states["rf_full_matrix_factor"]["factor.0"]) > 0.8)

    @pytest.mark.parametrize("b2", [0.1, 0.5])
    def test_p05_constant_curvature_is_inverted(self, b2):
        """P05: B B^T -> (H + lam I)^-1, and S -> H + lam I; the clip is on, a2 = 0."""
        inverse = np.linalg.inv(self.H + 0.1 * np.eye(4))
        hyper = HYPER | {"precond_lr": b2, "damping": 0.1, "curvature": {"matrix": self.H}}
        given = {"start": BARE, **hyper}
        _, state = run("rf_full_matrix_factor", np.zeros(4), [np.zeros(4)] * 500, **given)
        close(state["factor.0"] @ state["factor.0"].T, inverse)
        _, state = run("rf_full_matrix", np.zeros(4), [np.zeros(4)] * 500, **given)
        close(np.linalg.inv(state["statistic"]), inverse)

    @pytest.mark.parametrize("gam", [0, 1])
    def test_exact_inverse_is_the_s_form(self, gam):
        """R10 `exact`: the rank-one inverse has the trajectory of R9, for gam = 0 and 1."""
        hyper = HYPER | {"damping": 0, "decay": gam}
        expected, S_state = run("rf_full_matrix", np.ones(4), gradients((4,)), **hyper)
        path, state = run(
            "rf_full_matrix_inverse", np.ones(4), gradients((4,)), exact=True, **hyper
        )
        close(path, expected, 1e-11)
        close(state["statistic"] @ S_state["statistic"], np.eye(4), 1e-11)

    def test_exact_needs_its_conditions(self):
        """R10 `exact`: GOP and lam = 0 only."""
        one, state = np.ones(2), init("rf_full_matrix_inverse", np.ones(2))
        for changed in ({"damping": 0.1}, {"damping": 0, "curvature": {"matrix": np.eye(2)}}):
            with pytest.raises(ValueError, match="`exact`"):
                step("rf_full_matrix_inverse", one, one, state, exact=True, **HYPER | changed)

    def test_p25_the_improved_rule_keeps_half_of_s(self):
        """P25: S_new >= S/2 for indefinite H = diag(-30, 1, 2), b2 = 0.1; plainly it is -2.1."""
        curvature = {"diagonal": np.array([-30.0, 1.0, 2.0])}
        hyper = HYPER | {"precond_lr": 0.1, "damping": 0, "curvature": curvature}
        state = init("rf_full_matrix", np.zeros(3))
        smallest = []
        for improved in (True, False):
            _, new = step(
                "rf_full_matrix", np.zeros(3), np.zeros(3), state, improved=improved, **hyper
            )
            smallest.append(np.linalg.eigvalsh(new["statistic"])[0])
        # 1 - 3.1 + 0.005 * 31^2 and 1 - 3.1; the others are at 1 and above
        assert smallest == pytest.approx([1.0, -2.1])

    @pytest.mark.parametrize("gam", [0, 1])
    def test_improved_rule_is_the_plain_one_to_first_order(self, gam):
        """2.2: the option adds (b2^2/2) Dl S^-1 Dl with Dl = H + lam I - gam S."""
        state = {**init("rf_full_matrix", np.zeros(4)), "statistic": self.S}
        hyper = HYPER | {"damping": 0.3, "decay": gam, "curvature": {"matrix": self.H}}
        new = [
            step("rf_full_matrix", np.zeros(4), np.zeros(4), state, improved=i, **hyper)[1]
            for i in (False, True)
        ]
        Dl = self.H + 0.3 * np.eye(4) - gam * self.S
        change = 0.05**2 / 2 * Dl @ np.linalg.solve(self.S, Dl)
        close(new[1]["statistic"] - new[0]["statistic"], change, 1e-10)

    def test_factor_form_of_rank_one(self):
        """R11, a2 = lam = 0, q = a.a: B <- (1 + eta gam/2) B - (eta alpha/2) (B a) a^T.

        ||m|| = sqrt(alpha^2 q^2 - 2 alpha gam q + gam^2 D)/2.
        """
        B, g, alpha, b2 = np.random.default_rng(3).standard_normal((4, 4)), np.ones(4), 4, 0.05
        for gam in (0, 1):
            a = B.T @ g
            q = a @ a
            norm = np.sqrt(alpha**2 * q**2 - 2 * alpha * gam * q + gam**2 * 4) / 2
            eta = b2 / max(1, norm)
            expected = (1 + eta * gam / 2) * B - eta * alpha / 2 * np.outer(B @ a, a)
            state = {**init("rf_full_matrix_factor", np.zeros(4), **BARE), "factor.0": B}
            hyper = HYPER | {"damping": 0}
            _, state = step("rf_full_matrix_factor", np.zeros(4), g, state, decay=gam, **hyper)
            close(state["factor.0"], expected)

    def test_factor_form_is_sirf_shampoo_of_a_vector(self):
        """R11 is R14 with a single axis of length D, with both momenta and the clip."""
        grads = gradients((2, 3))
        path, state = run("rf_full_matrix_factor", np.ones((2, 3)), grads, **HYPER)
        flat, other = run("sirf_shampoo", np.ones(6), [g.ravel() for g in grads], **HYPER)
        close(np.reshape(path, (-1, 6)), flat)
        close(state["factor.0"], other["factor.0"])
        close(state["factor_momentum.0"], other["factor_momentum.0"])


class TestAgainstDiagonal:
    """With one entry a matrix is a number."""

    def test_full_adagrad(self):
        """R8, D = 1: S is AdaGrad's s. The damping stands under the root and not behind it."""
        grads, hyper = gradients((1,)), HYPER | {"precond_lr": 1.0}
        path, state = run("full_adagrad", np.ones(1), grads, **hyper | {"damping": 0})
        expected, diagonal = run("adagrad", np.ones(1), grads, **hyper | {"damping": 0})
        close(path, expected)
        close(state["statistic"].ravel(), diagonal["statistic"])

    @pytest.mark.parametrize("gam", [0, 1])
    def test_root_free(self, gam):
        """R9, D = 1: S is RF-RMSProp's s, if alpha G^2 + lam is fed into that."""
        state, diagonal = (init(name, np.ones(1)) for name in ("rf_full_matrix", "rf_rmsprop"))
        param = other = np.ones(1)
        for grad in gradients((1,)):
            h = 4 * grad**2 + 1e-3
            param, state = step("rf_full_matrix", param, grad, state, decay=gam, **HYPER)
            hyper = HYPER | {"damping": 0, "decay": gam, "curvature": h}
            other, diagonal = step("rf_rmsprop", other, grad, diagonal, **hyper)
        close(param, other)
        close(state["statistic"].ravel(), diagonal["statistic"])


class TestReparameterisation:
    """w = A v + c on a loss with varying curvature, l = sum log cosh(M w)."""

    M = np.random.default_rng(5).standard_normal((3, 3))
    A = np.array([[2.0, 1.0, 0.0], [0.0, 0.5, -1.0], [1.0, 0.0, 3.0]])
    c = np.array([0.1, -1.0, 0.5])

    def trajectory(self, name, statistic, matrix, shift, **changed):
        """w(t) when the method runs on v, w = matrix v + shift, from S_0 = statistic."""
        v = np.linalg.solve(matrix, np.ones(3) - shift)
        state = {**init(name, v), "statistic": statistic}
        hyper = HYPER | {"damping": 0, "weight_decay": 0} | changed
        path = []
        for _ in range(20):
            gradient = self.M.T @ np.tanh(self.M @ (matrix @ v + shift))
            v, state = step(name, v, matrix.T @ gradient, state, **hyper)
            path.append(matrix @ v + shift)
        return np.array(path)

    def test_p11_root_free_trajectories_are_the_same(self):
        """P11: R9 is invariant iff S_0^v = A^T S_0^w A and lam = kap = 0; heavy ball allowed."""
        plain = np.eye(3), np.eye(3), np.zeros(3)
        expected = self.trajectory("rf_full_matrix", *plain)
        close(self.trajectory("rf_full_matrix", self.A.T @ self.A, self.A, self.c), expected, 1e-11)
        other = self.trajectory("rf_full_matrix", np.eye(3), self.A, self.c)
        assert np.max(np.abs(other - expected)) > 1e-2
        damped = [
            self.trajectory("rf_full_matrix", *given, damping=0.1)
            for given in (plain, (self.A.T @ self.A, self.A, self.c))
        ]
        assert np.max(np.abs(damped[0] - damped[1])) > 1e-3

    def test_p11_is_false_with_the_root(self):
        """P11: R8 moves differently in v, even with S_0^v = A^T S_0^w A."""
        expected = self.trajectory("full_adagrad", np.eye(3), np.eye(3), np.zeros(3))
        path = self.trajectory("full_adagrad", self.A.T @ self.A, self.A, self.c)
        assert np.max(np.abs(path - expected)) > 0.1
