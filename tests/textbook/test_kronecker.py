"""The Kronecker methods of the textbook: against closed forms without a Kronecker product.

The methods form every D x D matrix; here the same numbers come from einsum over the axes, and from
the formulas for matrices. Agreement means float64 to 1e-12 relative to the largest entry.
"""

import numpy as np
import pytest
from rootfree_textbook import init, rf_shampoo, shampoo, sirf_shampoo, step
from rootfree_textbook.kronecker import axes, partial_trace
from rootfree_textbook.structures import pack, project, unpack

METHODS = ["shampoo", "rf_shampoo", "sirf_shampoo"]
STRUCTURES = [
    "dense",
    "diagonal",
    "block_diagonal(2)",
    "tril",
    "triu",
    "tril_toeplitz",
    "triu_toeplitz",
    "hierarchical(1,1)",
    "arrowhead(first_column)",
    "arrowhead(last_row)",
    "arrowhead(first_row)",
    "arrowhead(last_column)",
]
HYPER = {
    "lr": 0.1,
    "precond_lr": 0.05,
    "momentum": 0.9,
    "precond_momentum": 0.5,
    "damping": 1e-2,
    "weight_decay": 0.01,
    "batch_size": 4,
}
HALVES = {"lr": 0.5, "precond_lr": 0.5, "momentum": 0.5, "damping": 0.0, "weight_decay": 0.25}
BARE = {"with_momentum": False, "with_factor_momentum": False}


def close(actual, desired, tolerance=1e-12):
    """Equal in float64, relative to the largest entry."""
    scale = np.max(np.abs(desired), initial=0.0)
    np.testing.assert_allclose(actual, desired, rtol=0, atol=tolerance * scale)


def gradients(shape, steps=5, seed=0):
    """Independent normal gradients."""
    return list(np.random.default_rng(seed).standard_normal((steps, *shape)))


def positive(d, seed=0):
    """A positive definite matrix."""
    X = np.random.default_rng(seed).standard_normal((d, d))
    return X @ X.T / d + 0.1 * np.eye(d)


def run(name, param, grads, *, start=None, **hyper):
    """Parameters after each of the steps, and the last state."""
    shapes = {key: hyper[key] for key in ("structure", "max_dim", "merge_dims") if key in hyper}
    state = init(name, param, **shapes, **(start or {}))
    path = []
    for grad in grads:
        param, state = step(name, param, grad, state, **hyper)
        path.append(param)
    return path, state


def on_axes(array, matrices):
    """Apply a matrix to each axis, one after the other: x_1 M_1 ... x_N M_N."""
    for j, matrix in enumerate(matrices):
        array = np.moveaxis(np.tensordot(matrix, array, axes=(1, j)), 0, j)
    return array


def rows(array, j):
    """mat_j(array)."""
    return np.moveaxis(array, j, 0).reshape(array.shape[j], -1)


class TestByHand:
    """Numbers to be checked with a pencil: b1 = b2 = a1 = 1/2, lam = 0, kap = 1/4."""

    G = np.array([[4.0, 0.0], [0.0, 0.0]])

    def test_shampoo(self):
        """R12, lam = 1: L = diag(8, 0), R = diag(9, 1)^-1/4 on both axes; U = (4/3 at the corner).

        Then G again without a look at it: the old roots, buf = U/2 + U.
        """
        W, state = np.zeros((2, 2)), init("shampoo", np.zeros((2, 2)))
        hyper = HALVES | {"damping": 1.0, "weight_decay": 0}
        first, state = shampoo(W, self.G, state, **hyper)
        for j in range(2):
            close(state[f"statistic.{j}"], [[8, 0], [0, 0]])
            close(state[f"root.{j}"], [[9**-0.25, 0], [0, 1]])
        close(first, [[-2 / 3, 0], [0, 0]])
        second, state = shampoo(first, self.G, state, update_now=False, **hyper)
        close(state["statistic.0"], [[8, 0], [0, 0]])
        close(second, [[-2 / 3 - 1, 0], [0, 0]])

    def test_rf_shampoo(self):
        """R13: H_j = (2/4) 16 diag(1, 0) on both axes, S_j = diag(1/2 + 4, 1/2) = diag(9, 1)/2.

        U = 4 / (81/4) at the corner.
        """
        W, state = np.zeros((2, 2)), init("rf_shampoo", np.zeros((2, 2)))
        W, state = rf_shampoo(W, self.G, state, **HALVES)
        for j in range(2):
            close(state[f"statistic.{j}"], [[4.5, 0], [0, 0.5]])
        close(W, [[-8 / 81, 0], [0, 0]])

    def test_sirf_shampoo(self):
        """R14, a2 = 1/2: N_j = diag(8, 0), m_j = (N_j - I)/4 = diag(7, -1)/4, norm sqrt(50)/4.

        K_j = I - (b2/norm) m_j = diag(1 - 7/s, 1 + 1/s) with s = 2 sqrt(50). No clip: b2 itself.
        """
        W, start = np.zeros((2, 2)), init("sirf_shampoo", np.zeros((2, 2)))
        s = 2 * np.sqrt(50)
        moved, state = sirf_shampoo(W, self.G, start, precond_momentum=0.5, **HALVES)
        for j in range(2):
            close(state[f"factor_momentum.{j}"], [[1.75, 0], [0, -0.25]])
            close(state[f"factor.{j}"], [[1 - 7 / s, 0], [0, 1 + 1 / s]])
        close(moved, [[-2 * (1 - 7 / s) ** 4, 0], [0, 0]])
        _, state = sirf_shampoo(W, self.G, start, precond_momentum=0.5, trust_clip=False, **HALVES)
        close(state["factor.0"], [[0.125, 0], [0, 1.125]])

    def test_first_matrices(self):
        """S_0 = s_0 I: S_j = s_0^(1/N) I and K_j = s_0^(-1/(2N)) I for N axes; L_j = s_0 I."""
        W = np.zeros((2, 3, 1, 2))
        close(init("shampoo", W)["statistic.1"], np.zeros((3, 3)))
        close(init("shampoo", W, init_scale=8)["statistic.1"], 8 * np.eye(3))
        close(init("shampoo", W, init_scale=8)["root.1"], np.eye(3))
        close(init("rf_shampoo", W, init_scale=8)["statistic.1"], 2 * np.eye(3))
        close(init("sirf_shampoo", W, init_scale=8)["factor.1"], 2**-0.5 * np.eye(3))
        close(init("sirf_shampoo", W, init_scale=8)["factor_momentum.1"], np.zeros((3, 3)))


class TestShampoo:
    """R12 axis by axis."""

    @pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 2)])
    def test_against_products_per_axis(self, shape):
        """R12: exponent -1/(2N) per axis, from the spectrum of L_j + lam I."""
        grads, N = gradients(shape), len(shape)
        L = [np.zeros((d, d)) for d in shape]
        W, buf, expected = np.ones(shape), np.zeros(shape), []
        for G in grads:
            R = []
            for j in range(N):
                L[j] = 0.95 * L[j] + 0.05 * rows(G, j) @ rows(G, j).T
                w, V = np.linalg.eigh(L[j] + 1e-2 * np.eye(len(L[j])))
                R.append((V * w ** (-1 / (2 * N))) @ V.T)
            buf = 0.9 * buf + on_axes(G, R) + 0.01 * W
            W = W - 0.1 * buf
            expected.append(W)
        path, state = run("shampoo", np.ones(shape), grads, **HYPER)
        close(path, expected, 1e-11)
        for j in range(N):
            close(state[f"statistic.{j}"], L[j])

    def test_a_vector_is_full_matrix_adagrad(self):
        """R12 with N = 1 is R8 with a moving average."""
        grads = gradients((4,))
        path, _ = run("shampoo", np.ones(4), grads, **HYPER)
        expected, _ = run("full_adagrad", np.ones(4), grads, decay=1, **HYPER)
        close(path, expected)

    @pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 2)])
    def test_weight_of_the_new_term_is_a_learning_rate(self, shape):
        """R12: all L_j times c multiply U by c^(-1/2), whatever N is. gam = 0, lam -> c lam."""
        grads = gradients(shape)
        hyper = HYPER | {"decay": 0, "weight_decay": 0}
        path, _ = run("shampoo", np.zeros(shape), grads, **hyper)
        four = hyper | {"precond_lr": 0.2, "damping": 4e-2}
        other, _ = run("shampoo", np.zeros(shape), grads, **four)
        close(other, np.array(path) / 2, 1e-10)


class TestRootFreeShampoo:
    """R13 for matrices, and against R14."""

    @pytest.mark.parametrize("gam", [0, 1])
    def test_matrices(self, gam):
        """R13, N = 2, all of it without a Kronecker product, from the old factors."""
        p, d, alpha, lam, b2 = 3, 4, 4, 1e-2, 0.05
        S_C, S_K = np.eye(p), np.eye(d)
        W, buf, expected = np.ones((p, d)), np.zeros((p, d)), []
        for G in gradients((p, d)):
            iC, iK = np.linalg.inv(S_C), np.linalg.inv(S_K)
            H_C = (alpha * G @ iK @ G.T + lam * np.trace(iK) * np.eye(p)) / d
            H_K = (alpha * G.T @ iC @ G + lam * np.trace(iC) * np.eye(d)) / p
            S_C = (1 - b2 * gam) * S_C + b2 * H_C
            S_K = (1 - b2 * gam) * S_K + b2 * H_K
            U = np.linalg.solve(S_C, np.linalg.solve(S_K, G.T).T) + 0.01 * W
            buf = 0.9 * buf + U
            W = W - 0.1 * buf
            expected.append(W)
        path, state = run("rf_shampoo", np.ones((p, d)), gradients((p, d)), decay=gam, **HYPER)
        close(path, expected)
        close(state["statistic.0"], S_C)
        close(state["statistic.1"], S_K)

    def test_three_axes(self):
        """R13, N = 3: V_j = G with S_i^-1 on the other axes; q_i = tr(S_i^-1)/d_i."""
        shape = (2, 3, 4)
        (G,) = gradients(shape, steps=1)
        S = [positive(d, seed=d) for d in shape]
        state = init("rf_shampoo", G) | {f"statistic.{j}": S[j] for j in range(3)}
        _, new = step("rf_shampoo", G, G, state, **HYPER)
        for j, d in enumerate(shape):
            inverses = [np.eye(d) if i == j else np.linalg.inv(S[i]) for i in range(3)]
            H = 4 * d / 24 * rows(on_axes(G, inverses), j) @ rows(G, j).T
            q = np.prod([np.trace(inverses[i]) / shape[i] for i in range(3) if i != j])
            expected = 0.95 * S[j] + 0.05 * (H + 1e-2 * q * np.eye(d))
            close(new[f"statistic.{j}"], expected)
            np.testing.assert_array_equal(new[f"statistic.{j}"], new[f"statistic.{j}"].T)

    def test_a_vector_is_the_s_form(self):
        """R13 with N = 1 is R9."""
        grads = gradients((4,))
        path, _ = run("rf_shampoo", np.ones(4), grads, **HYPER)
        expected, _ = run("rf_full_matrix", np.ones(4), grads, **HYPER)
        close(path, expected)

    @pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 2)])
    @pytest.mark.parametrize("kind", ["gradient", "matrix"])
    def test_p20_one_step_of_sirf_shampoo_differs_in_second_order(self, shape, kind):
        """P20: no clip, a2 = 0: S_j^-1 against K_j K_j^T from equal starts: O(b2^2)."""
        (G,) = gradients(shape, steps=1)
        K = [np.linalg.cholesky(positive(d, seed=d)) for d in shape]
        curvature = None if kind == "gradient" else {"matrix": positive(G.size)}
        errors = []
        for b2 in (1e-3, 5e-4):
            hyper = HYPER | {"precond_lr": b2, "trust_clip": False, "curvature": curvature}
            state = init("rf_shampoo", G)
            state |= {f"statistic.{j}": np.linalg.inv(k @ k.T) for j, k in enumerate(K)}
            _, solved = step("rf_shampoo", G, G, state, **hyper)
            state = init("sirf_shampoo", G, **BARE) | {f"factor.{j}": k for j, k in enumerate(K)}
            _, free = step("sirf_shampoo", G, G, state, **hyper)
            errors.append(
                [
                    np.linalg.norm(
                        np.linalg.inv(solved[f"statistic.{j}"])
                        - free[f"factor.{j}"] @ free[f"factor.{j}"].T
                    )
                    for j in range(len(shape))
                ]
            )
        np.testing.assert_allclose(np.divide(*errors), 4, rtol=0.1)


class TestSIRFShampoo:
    """R14 without a D x D matrix."""

    @pytest.mark.parametrize("gam", [0, 1])
    @pytest.mark.parametrize("trust_clip", [True, False])
    def test_dense_matrices(self, gam, trust_clip):
        """R14, "2-D dense, written out": A = C^T G K, both momenta, weight decay, damping."""
        p, d, alpha, lam = 3, 5, 4, 1e-2
        C, K, m_C, m_K = np.eye(p), np.eye(d), np.zeros((p, p)), np.zeros((d, d))
        W, buf, expected = np.ones((p, d)), np.zeros((p, d)), []
        for G in gradients((p, d)):
            A = C.T @ G @ K
            X_C = alpha / d * A @ A.T + lam * np.sum(K**2) / d * C.T @ C - gam * np.eye(p)
            X_K = alpha / p * A.T @ A + lam * np.sum(C**2) / p * K.T @ K - gam * np.eye(d)
            m_C, m_K = 0.5 * m_C + 0.25 * X_C, 0.5 * m_K + 0.25 * X_K
            rates = [0.05 / max(1, np.linalg.norm(m)) if trust_clip else 0.05 for m in (m_C, m_K)]
            C, K = C - rates[0] * C @ m_C, K - rates[1] * K @ m_K
            buf = 0.9 * buf + C @ C.T @ G @ K @ K.T + 0.01 * W
            W = W - 0.1 * buf
            expected.append(W)
        path, state = run(
            "sirf_shampoo",
            np.ones((p, d)),
            gradients((p, d)),
            decay=gam,
            trust_clip=trust_clip,
            **HYPER,
        )
        close(path, expected)
        for role, value in zip(
            ("factor.0", "factor.1", "factor_momentum.0", "factor_momentum.1"),
            (C, K, m_C, m_K),
            strict=True,
        ):
            close(state[role], value)
        assert np.max(np.abs(K - K.T)) > 1e-4  # P22: a dense factor is not symmetric

    def expected_step(self, grad, structures, factors, contraction, b2=0.05):
        """K_j after one step without momentum and clip, from Pi of d_j/D times a contraction."""
        new = []
        for j, d in enumerate(grad.shape):
            r = np.prod([np.sum(k**2) / len(k) for i, k in enumerate(factors) if i != j])
            N = project(
                structures[j], d / grad.size * contraction(j) + 1e-2 * r * factors[j].T @ factors[j]
            )
            new.append(factors[j] - b2 * factors[j] @ (N - np.eye(d)) / 2)
        return new

    def factors(self, structures, shape):
        """A factor of each structure that is neither symmetric nor special."""
        rng = np.random.default_rng(7)
        return [
            unpack(s, pack(s, rng.standard_normal((d, d)) + 2 * np.eye(d)), d)
            for s, d in zip(structures, shape, strict=True)
        ]

    def one_step(self, grad, structures, factors, **given):
        """The factors after one step of the method from `factors`, and the new parameter."""
        state = init("sirf_shampoo", grad, structure=structures, **BARE)
        for j, (s, k) in enumerate(zip(structures, factors, strict=True)):
            arrays = pack(s, k)
            roles = [role for role in state if role.split(".")[:2] == ["factor", str(j)]]
            state |= dict(zip(roles, arrays, strict=True))
        hyper = HYPER | {"weight_decay": 0, "trust_clip": False}
        moved, state = step(
            "sirf_shampoo", 0 * grad, grad, state, structure=structures, **hyper, **given
        )
        new = []
        for j, s in enumerate(structures):
            roles = [role for role in state if role.split(".")[:2] == ["factor", str(j)]]
            new.append(unpack(s, [state[role] for role in roles], grad.shape[j]))
        return new, moved

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_structures(self, structure):
        """R14: N_j = (alpha d_j/D) Pi(A_j A_j^T) + lam prod r_i Pi(K_j^T K_j), three axes.

        With the structure on the two outer axes and a dense factor between.
        """
        structures = (structure, "dense", structure)
        (G,) = gradients((3, 2, 4), steps=1)
        K = self.factors(structures, G.shape)
        A = on_axes(G, [k.T for k in K])
        expected = self.expected_step(G, structures, K, lambda j: 4 * rows(A, j) @ rows(A, j).T)
        new, moved = self.one_step(G, structures, K)
        for actual, desired in zip(new, expected, strict=True):
            close(actual, desired)
        close(moved, -0.1 * on_axes(G, [k @ k.T for k in expected]))

    def test_curvatures(self):
        """Section 1, the table of contractions: each kind of H, with three different structures."""
        structures = ("tril", "dense", "hierarchical(1,2)")
        (G,) = gradients((3, 2, 5), steps=1)
        rng = np.random.default_rng(8)
        K = self.factors(structures, G.shape)

        x = rng.standard_normal((4, *G.shape))
        A = [on_axes(v, [k.T for k in K]) for v in x]
        h = rng.standard_normal(G.shape)
        F = [positive(d, seed=d) for d in G.shape]
        traces = [np.trace(k.T @ f @ k) for k, f in zip(K, F, strict=True)]

        def vectors(j):
            return sum(rows(a, j) @ rows(a, j).T for a in A)

        def diagonal(j):
            rho = [np.ones(d) if i == j else np.sum(K[i] ** 2, 1) for i, d in enumerate(G.shape)]
            weighted = np.einsum("abc,a,b,c->abc", h, *rho)
            return K[j].T @ np.diag(np.sum(rows(weighted, j), 1)) @ K[j]

        def factors(j):
            others = np.prod([t for i, t in enumerate(traces) if i != j])
            return others * K[j].T @ F[j] @ K[j]

        matrix = positive(G.size)
        blocks = matrix.reshape(*G.shape, *G.shape)

        def general(j):
            operands = ["abcxyz", "ai", "bj", "ck", "xl", "ym", "zn"]
            T = np.einsum(",".join(operands) + "->ijklmn", blocks, *K, *K)
            return np.einsum(
                T, {0: [0, 1, 2, 3, 1, 2], 1: [1, 0, 2, 1, 3, 2], 2: [1, 2, 0, 1, 2, 3]}[j], [0, 3]
            )

        for kind, given, contraction in (
            ("vectors", x, vectors),
            ("diagonal", h, diagonal),
            ("factors", F, factors),
            ("matrix", matrix, general),
        ):
            expected = self.expected_step(G, structures, K, contraction)
            new, _ = self.one_step(G, structures, K, curvature={kind: given})
            for actual, desired in zip(new, expected, strict=True):
                close(actual, desired)

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_p22_structure_is_kept_exactly(self, structure):
        """P22: what is stored as 0 stays 0; packing after 20 steps with momentum loses nothing."""
        path, state = run(
            "sirf_shampoo",
            np.ones((4, 5)),
            gradients((4, 5), steps=20),
            structure=structure,
            **HYPER,
        )
        assert np.all(np.isfinite(path))
        for triangle, cut in (("tril", np.tril), ("triu", np.triu)):
            if structure == triangle:
                for role in ("factor.0", "factor.1", "factor_momentum.0", "factor_momentum.1"):
                    np.testing.assert_array_equal(state[role], cut(state[role]))

    @pytest.mark.parametrize("shape", [(3,), (3, 2), (2, 3, 2)])
    def test_p05_without_gradient_the_damping_is_inverted(self, shape):
        """P05: K_j -> lam^(-1/(2N)) I, so that the preconditioner is I/lam."""
        _, state = run(
            "sirf_shampoo",
            np.zeros(shape),
            [np.zeros(shape)] * 400,
            start=BARE,
            **HYPER | {"damping": 0.25, "precond_lr": 0.2},
        )
        for j, d in enumerate(shape):
            close(state[f"factor.{j}"], 0.25 ** (-1 / (2 * len(shape))) * np.eye(d), 1e-10)

    def test_p06_mean_and_sum_are_one_method(self):
        """P06: (mean, alpha = B, s_0, lam) = (sum, alpha = 1, B s_0, B lam)."""
        grads = gradients((3, 4))
        mean = HYPER | {"batch_size": 7, "damping": 0.1}
        total = HYPER | {"batch_size": 1, "damping": 0.7}
        expected, _ = run("sirf_shampoo", np.ones((3, 4)), grads, start={"init_scale": 2}, **mean)
        path, _ = run(
            "sirf_shampoo",
            np.ones((3, 4)),
            [7 * g for g in grads],
            start={"init_scale": 14},
            **total,
        )
        close(path, expected)

    def test_p13_reparameterisation(self):
        """P13: W = A V B^T, C_0 = A^-1 C, K_0 = B^-1 K: one trajectory, clip and momenta included.

        lam = kap = 0; the gradient in V is A^T G B.
        """
        A, B = np.array([[2.0, 1.0], [0.0, 0.5]]), np.array([[1.0, 0, 2], [0, 3, 0], [1, 1, 1]])
        hyper = HYPER | {"damping": 0, "weight_decay": 0}
        W, V = np.zeros((2, 3)), np.zeros((2, 3))
        state, changed = init("sirf_shampoo", W), init("sirf_shampoo", W)
        changed |= {"factor.0": np.linalg.inv(A), "factor.1": np.linalg.inv(B)}
        for G in gradients((2, 3), steps=20):
            W, state = step("sirf_shampoo", W, G, state, **hyper)
            V, changed = step("sirf_shampoo", V, A.T @ G @ B, changed, **hyper)
            close(A @ V @ B.T, W, 1e-11)

    def test_p14_gauge(self):
        """P14: C -> c C, K -> K/c changes nothing but storage, damping and momenta included."""
        grads = gradients((3, 4), steps=10)
        expected, state = run("sirf_shampoo", np.ones((3, 4)), grads, **HYPER)
        moved = np.ones((3, 4))
        other = init("sirf_shampoo", moved)
        other |= {"factor.0": 4 * np.eye(3), "factor.1": np.eye(4) / 4}
        for grad, desired in zip(grads, expected, strict=True):
            moved, other = step("sirf_shampoo", moved, grad, other, **HYPER)
            close(moved, desired)
        close(other["factor.0"], 4 * state["factor.0"])

    def test_p17_diagonal_fixed_point(self):
        """P17: E[G^2] = a b^T, lam = 0: c_i^2 k_j^2 = 1/(alpha a_i b_j)."""
        a, b = np.array([0.5, 2.0, 1.0]), np.array([0.1, 3.0])
        hyper = HYPER | {"damping": 0, "precond_lr": 0.3}
        _, state = run(
            "sirf_shampoo",
            np.zeros((3, 2)),
            [np.zeros((3, 2))] * 300,
            start=BARE,
            structure="diagonal",
            curvature={"diagonal": 4 * np.outer(a, b)},
            **hyper,
        )
        close(np.outer(state["factor.0"] ** 2, state["factor.1"] ** 2), 1 / (4 * np.outer(a, b)))

    def test_p18_constant_gradient(self):
        """P18: constant invertible square G of side n, lam = 0: the direction is (n/alpha) G^-T."""
        G = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, -1.0], [0.5, 0.0, 1.0]])
        hyper = HYPER | {"damping": 0, "weight_decay": 0, "precond_lr": 0.2, "lr": 1.0}
        path, _ = run("sirf_shampoo", np.zeros((3, 3)), [G] * 400, start=BARE, **hyper)
        close(path[-2] - path[-1], 3 / 4 * np.linalg.inv(G).T, 1e-10)


class TestShapes:
    """Section 4.8."""

    @pytest.mark.parametrize("name", METHODS)
    def test_p16_axes_of_length_one_are_dropped(self, name):
        """P16: (p, 1), (1, p) and (p,) are one method; a scalar is a vector of length 1."""
        for flat, shapes in (((4,), [(4, 1), (1, 4), (1, 4, 1)]), ((1,), [(), (1, 1)])):
            grads = gradients(flat)
            expected, expected_state = run(name, np.ones(flat), grads, **HYPER)
            for shape in shapes:
                path, state = run(name, np.ones(shape), [g.reshape(shape) for g in grads], **HYPER)
                assert path[-1].shape == shape
                assert state["momentum"].shape == shape
                np.testing.assert_array_equal(np.reshape(path, np.shape(expected)), expected)
                assert list(state) == list(expected_state)
                for role in set(state) - {"step", "momentum"}:
                    np.testing.assert_array_equal(state[role], expected_state[role])

    @pytest.mark.parametrize(
        ("shape", "limit", "expected"),
        [
            ((64, 64, 3, 3), None, (64, 64, 3, 3)),
            ((64, 64, 3, 3), 16, (64, 64, 9)),
            ((64, 64, 3, 3), 8, (64, 64, 3, 3)),
            ((64, 64, 3, 3), 9, (64, 64, 9)),
            ((64, 64, 3, 3), 576, (64, 576)),
            ((2, 2, 2, 2), 100, (2, 8)),
            ((5, 2, 3, 7), 10, (5, 6, 7)),
            ((2, 3), 100, (2, 3)),
            ((3,), 100, (3,)),
            ((), 100, (1,)),
            ((1, 1), None, (1,)),
            ((1, 4, 1, 5, 2), 10, (4, 10)),
        ],
    )
    def test_axes(self, shape, limit, expected):
        """Section 4.8: axes of length 1 first, then merging, never into axis 0."""
        assert axes(shape, limit) == expected

    @pytest.mark.parametrize("name", METHODS)
    def test_merging_is_a_reshape(self, name):
        """Section 4.8: after the reshape the rule is unchanged."""
        grads = gradients((2, 3, 1, 2))
        merged, state = run(name, np.ones((2, 3, 1, 2)), grads, merge_dims=6, **HYPER)
        flat, other = run(name, np.ones((2, 6)), [g.reshape(2, 6) for g in grads], **HYPER)
        np.testing.assert_array_equal(np.reshape(merged, (-1, 2, 6)), flat)
        assert state["momentum"].shape == (2, 3, 1, 2)
        assert list(state) == list(other)

    def test_long_axes(self):
        """Section 4.8: an axis longer than `max_dim` is diagonal, the other keeps its structure."""
        grads = gradients((3, 4))
        path, state = run("sirf_shampoo", np.ones((3, 4)), grads, max_dim=3, **HYPER)
        expected, _ = run(
            "sirf_shampoo", np.ones((3, 4)), grads, structure=("dense", "diagonal"), **HYPER
        )
        np.testing.assert_array_equal(path, expected)
        assert state["factor.0"].shape == (3, 3)
        assert state["factor.1"].shape == (4,)

    def test_mapping_of_structures(self):
        """Section 3.3: from the number of axes, after dropping."""
        structure = {1: "diagonal", 2: ("tril", "arrowhead")}
        assert init("sirf_shampoo", np.ones((1, 3)), structure=structure)["factor.0"].shape == (3,)
        state = init("sirf_shampoo", np.ones((2, 1, 3)), structure=structure)
        assert state["factor.0"].shape == (2, 2)
        assert state["factor.1.0"].shape == (3,)
        assert state["factor.1.1"].shape == (2,)

    def test_partial_trace(self):
        """Section 1: of M_1 kron M_2 kron M_3 it is M_j times the traces of the others."""
        M = [np.random.default_rng(d).standard_normal((d, d)) for d in (2, 3, 4)]
        T = np.kron(np.kron(M[0], M[1]), M[2])
        for j in range(3):
            others = np.prod([np.trace(m) for i, m in enumerate(M) if i != j])
            close(partial_trace(T, (2, 3, 4), j), others * M[j])
