"""The diagonal methods of the textbook: against torch, against numbers by hand, against their laws.

Properties P06 ... P24 are those of the paper's second-order view, each with the exact conditions
under which it holds. Agreement means float64 to 1e-12: the rounding of the few dozen operations
that 20 steps put on top of each other, with room to spare.
"""

import inspect
import math

import numpy as np
import pytest
import torch
from rootfree_textbook import STEPS, adagrad, adamw, init, rf_adagrad, rf_adamw, rf_rmsprop, step

DIAGONAL = list(STEPS)[:7]
ROOT_FREE = ["rf_adagrad", "rf_rmsprop", "rf_adamw"]
WITH_STATISTIC = [name for name in DIAGONAL if name != "sgd"]
SHAPES = [(), (1,), (5,), (3, 4), (2, 3, 2), (0,), (2, 0, 3)]
HYPER = {
    "lr": 0.1,
    "precond_lr": 0.05,
    "momentum": 0.9,
    "damping": 1e-3,
    "weight_decay": 0.01,
    "batch_size": 4,
}
HALVES = {
    "lr": 0.5,
    "precond_lr": 0.5,
    "momentum": 0.5,
    "damping": 1.0,
    "weight_decay": 0.25,
    "batch_size": 2,
}


def close(actual, desired):
    """Equal in float64, relative to the largest entry."""
    scale = np.max(np.abs(desired), initial=0.0)
    np.testing.assert_allclose(actual, desired, rtol=0, atol=1e-12 * scale)


def random_gradients(shape, steps=20, seed=0):
    """Gradients whose entries differ in scale by up to 100 and change from step to step."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-1, 1, size=shape)
    return [np.asarray(scale * rng.standard_normal(shape)) for _ in range(steps)]


def run(name, param, gradients, *, init_scale=None, with_momentum=True, **hyper):
    """Parameters after each of the steps, and the last state."""
    state = init(name, param, init_scale=init_scale, with_momentum=with_momentum)
    path = []
    for grad in gradients:
        param, state = step(name, param, grad, state, **hyper)
        path.append(param)
    return path, state


def run_torch(optimizer, param, gradients, **options):
    """The same gradients through an optimizer of torch, in float64."""
    tensor = torch.nn.Parameter(torch.tensor(param))
    optimizer = optimizer([tensor], **options)
    path = []
    for grad in gradients:
        tensor.grad = torch.tensor(grad)
        optimizer.step()
        path.append(tensor.detach().numpy().copy())
    return path


class TestAgainstTorch:
    """20 steps in float64 on the same gradients, where the two definitions are one."""

    param = np.random.default_rng(1).standard_normal((3, 4))
    gradients = random_gradients((3, 4))

    def test_sgd(self):
        """torch.optim.SGD: dampening 0, no Nesterov; the first buffer is G; L2 is coupled."""
        expected = run_torch(
            torch.optim.SGD, self.param, self.gradients, lr=0.1, momentum=0.9, weight_decay=0.01
        )
        path, _ = run("sgd", self.param, self.gradients, lr=0.1, momentum=0.9, weight_decay=0.01)
        close(path, expected)

    @pytest.mark.parametrize("init_scale", [0.0, 0.5])
    def test_adagrad(self, init_scale):
        """torch.optim.Adagrad: lr_decay 0, b2 = 1, eps is added to the root, no weight decay.

        Torch preconditions its weight decay (L2), this library does not.
        """
        expected = run_torch(
            torch.optim.Adagrad,
            self.param,
            self.gradients,
            lr=0.1,
            lr_decay=0,
            initial_accumulator_value=init_scale,
            eps=1e-3,
        )
        path, _ = run(
            "adagrad",
            self.param,
            self.gradients,
            init_scale=init_scale,
            with_momentum=False,
            **HYPER | {"precond_lr": 1, "weight_decay": 0},
        )
        close(path, expected)

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_rmsprop(self, momentum):
        """torch.optim.RMSprop: alpha is 1 - b2, not centred, eps is added to the root, no L2."""
        expected = run_torch(
            torch.optim.RMSprop,
            self.param,
            self.gradients,
            lr=0.1,
            alpha=0.95,
            eps=1e-3,
            momentum=momentum,
        )
        path, _ = run(
            "rmsprop",
            self.param,
            self.gradients,
            with_momentum=momentum > 0,
            **HYPER | {"momentum": momentum, "weight_decay": 0},
        )
        close(path, expected)

    @pytest.mark.parametrize("mode", ["coupled", "decoupled"])
    def test_adamw(self, mode):
        """torch.optim.AdamW: betas are (a1, 1 - b2), eps is added to the corrected root.

        The decay is decoupled in torch; without a heavy ball the coupled one is the same.
        """
        expected = run_torch(
            torch.optim.AdamW,
            self.param,
            self.gradients,
            lr=0.1,
            betas=(0.9, 0.95),
            eps=1e-3,
            weight_decay=0.01,
        )
        path, _ = run("adamw", self.param, self.gradients, weight_decay_mode=mode, **HYPER)
        close(path, expected)

    def test_adamw_without_first_moment(self):
        """torch.optim.AdamW with beta1 = 0: G itself, and no correction of a moment not there."""
        expected = run_torch(
            torch.optim.AdamW,
            self.param,
            self.gradients,
            lr=0.1,
            betas=(0.0, 0.95),
            eps=1e-3,
            weight_decay=0.01,
        )
        path, state = run("adamw", self.param, self.gradients, with_momentum=False, **HYPER)
        close(path, expected)
        assert "first_moment" not in state


class TestByHand:
    """Numbers to be checked with a pencil: b1 = b2 = a1 = 1/2, lam = 1, kap = 1/4, alpha = 2."""

    param = np.array([1.0])

    def test_rf_rmsprop(self):
        """R6, two steps with G = 1 and then G = -3.

        s = 0.5*1 + 0.5*2*1 = 1.5;  U = 1/2.5 + 0.25 = 0.65;  buf = 0.65;  W = 1 - 0.325 = 0.675
        s = 0.5*1.5 + 0.5*2*9 = 9.75;  U = -3/10.75 + 0.25*0.675 = -12/43 + 0.16875;
        buf = 0.325 + U;  W = 0.675 - buf/2
        """
        first, state = rf_rmsprop(
            self.param, np.array([1.0]), init("rf_rmsprop", self.param), **HALVES
        )
        close(state["statistic"], [1.5])
        close(state["momentum"], [0.65])
        close(first, [0.675])
        second, state = rf_rmsprop(first, np.array([-3.0]), state, **HALVES)
        buffer = 0.325 - 12 / 43 + 0.16875
        close(state["statistic"], [9.75])
        close(state["momentum"], [buffer])
        close(second, [0.675 - buffer / 2])
        assert state["step"] == 2

    def test_rf_rmsprop_decoupled(self):
        """R6 with the decay behind the heavy ball, G = 1 twice: the buffer never sees W.

        s = 1.5;   buf = 1/2.5 = 0.4;            W = 1 - 0.5*(0.4 + 0.25) = 0.675
        s = 1.75;  buf = 0.2 + 1/2.75 = 31/55;   W = 0.675 - 0.5*(31/55 + 0.16875)
        """
        state, param = init("rf_rmsprop", self.param), self.param
        for _ in range(2):
            param, state = rf_rmsprop(
                param, np.array([1.0]), state, weight_decay_mode="decoupled", **HALVES
            )
        close(state["momentum"], [31 / 55])
        close(param, [0.675 - 0.5 * (31 / 55 + 0.16875)])

    def test_rf_adagrad(self):
        """R5, G = 1 twice: the old statistic keeps its full weight.

        s = 1 + 0.5*2 = 2;  U = 1/3 + 1/4 = 7/12;  buf = 7/12;  W = 1 - 7/24 = 17/24
        s = 3;  U = 1/4 + 17/96 = 41/96;  buf = 7/24 + 41/96 = 69/96;  W = 17/24 - 69/192 = 67/192
        """
        state, param = init("rf_adagrad", self.param), self.param
        for _ in range(2):
            param, state = rf_adagrad(param, np.array([1.0]), state, **HALVES)
        close(state["statistic"], [3.0])
        close(state["momentum"], [69 / 96])
        close(param, [67 / 192])

    def test_rf_adamw(self):
        """R7, G = 1 and then G = -3: an average of raw gradients, corrected nowhere.

        e = 0.5;                  s = 1.5;   W = 1 - 0.5*(0.5/2.5 + 0.25) = 0.775
        e = 0.25 - 1.5 = -1.25;   s = 9.75;  W = 0.775 - 0.5*(-1.25/10.75 + 0.25*0.775)
        """
        first, state = rf_adamw(self.param, np.array([1.0]), init("rf_adamw", self.param), **HALVES)
        close(first, [0.775])
        second, state = rf_adamw(first, np.array([-3.0]), state, **HALVES)
        close(state["first_moment"], [-1.25])
        close(state["statistic"], [9.75])
        close(second, [0.775 - 0.5 * (-1.25 / 10.75 + 0.19375)])

    def test_a_curvature_is_used_as_it_is(self):
        """A caller's h replaces the square: s = 0.5 s_0 + 0.5*6, whatever alpha and G are."""
        for name, expected in {
            "rf_rmsprop": 3.5,
            "rf_adamw": 3.5,
            "rmsprop": 3.0,
            "adamw": 3.0,
        }.items():
            _, state = step(
                name,
                self.param,
                np.array([100.0]),
                init(name, self.param),
                curvature=np.array([6.0]),
                **HALVES,
            )
            close(state["statistic"], [expected])

    @pytest.mark.parametrize(
        ("accumulating", "averaging"), [("adagrad", "rmsprop"), ("rf_adagrad", "rf_rmsprop")]
    )
    @pytest.mark.parametrize("decay", [0, 1])
    def test_decay_turns_one_into_the_other(self, accumulating, averaging, decay):
        """A sum (gam = 0) or an average (1): the only difference of R2, R3 and of R5, R6."""
        gradients = random_gradients((4,))
        expected, _ = run(accumulating, np.ones(4), gradients, decay=decay, **HYPER)
        path, _ = run(averaging, np.ones(4), gradients, decay=decay, **HYPER)
        np.testing.assert_array_equal(path, expected)
        default, _ = run(averaging, np.ones(4), gradients, **HYPER)
        assert np.array_equal(default, path) == (decay == 1)


@pytest.mark.parametrize(
    ("name", "gam", "power", "alpha", "init_scale"),
    [
        ("adagrad", 0, -0.5, 1, 1e-8),
        ("rmsprop", 1, -0.5, 1, 1e-8),
        ("rf_adagrad", 0, -1.0, 4, 1.0),
        ("rf_rmsprop", 1, -1.0, 4, 1.0),
    ],
)
def test_equals_the_diagonal_of_the_full_matrix(name, gam, power, alpha, init_scale):
    """The poster word for word: S <- (1 - b2 gam) S + b2 alpha g g^T and mu -= b1 diag(S)^p g.

    There S is a matrix, g = vec(G) row by row, and no damping, heavy ball or decay occurs.
    """
    param = np.random.default_rng(2).standard_normal((2, 3))
    gradients = random_gradients((2, 3))
    mu, matrix, expected = param.reshape(-1), init_scale * np.eye(6), []
    for grad in gradients:
        g = grad.reshape(-1)
        matrix = (1 - 0.05 * gam) * matrix + 0.05 * alpha * np.outer(g, g)
        mu = mu - 0.1 * np.diag(np.diag(matrix) ** power) @ g
        expected.append(mu.reshape(2, 3))
    path, _ = run(
        name,
        param,
        gradients,
        init_scale=init_scale,
        with_momentum=False,
        **HYPER | {"damping": 0, "weight_decay": 0},
    )
    close(path, expected)


def test_the_posters_weight_of_adagrad_is_a_learning_rate():
    """R2 with lam = 0: b2 multiplies every step by 1/sqrt(b2) and does nothing else."""
    gradients = random_gradients((5,))
    rest = {"momentum": 0.9, "damping": 0, "weight_decay": 0}
    path, _ = run("adagrad", np.ones(5), gradients, lr=0.1, precond_lr=0.04, **rest)
    expected, _ = run("adagrad", np.ones(5), gradients, lr=0.5, precond_lr=1, **rest)
    close(path, expected)


@pytest.mark.parametrize("name", ["rf_adagrad", "rf_rmsprop"])
def test_storing_the_statistic_over_alpha_is_the_same(name):
    """R6: the released code keeps v = s/B and divides by B v + lam: equal for constant B."""
    gradients, batch = random_gradients((5,)), 7
    gam = int(name == "rf_rmsprop")
    v, param, expected = np.full(5, 1 / batch), np.ones(5), []
    for grad in gradients:
        v = (1 - 0.05 * gam) * v + 0.05 * grad**2
        param = param - 0.1 * (grad / (batch * v + 1e-3) + 0.01 * param)
        expected.append(param)
    hyper = HYPER | {"batch_size": batch}
    path, _ = run(name, np.ones(5), gradients, with_momentum=False, **hyper)
    close(path, expected)


class TestScale:
    """What a factor on the loss does: the reason for alpha."""

    @pytest.mark.parametrize("name", ROOT_FREE)
    def test_p06_mean_and_sum_are_one_method(self, name):
        """P06: (mean, alpha = B, S_0, lam) and (sum, alpha = 1, B S_0, B lam) have one trajectory.

        With equal S_0 or with equal lam they do not.
        """
        batch, mean_gradients = 7, random_gradients((5,))
        sum_gradients = [batch * grad for grad in mean_gradients]
        mean = HYPER | {"batch_size": batch, "damping": 0.5}
        total = mean | {"batch_size": 1, "damping": batch * 0.5}
        expected, mean_state = run(name, np.ones(5), mean_gradients, init_scale=2, **mean)
        path, state = run(name, np.ones(5), sum_gradients, init_scale=batch * 2, **total)
        close(path, expected)
        close(state["statistic"], batch * mean_state["statistic"])
        same_start, _ = run(name, np.ones(5), sum_gradients, init_scale=2, **total)
        assert np.max(np.abs(np.subtract(same_start, expected))) > 1e-2
        same_damping = total | {"damping": 0.5}
        path, _ = run(name, np.ones(5), sum_gradients, init_scale=batch * 2, **same_damping)
        assert np.max(np.abs(np.subtract(path, expected))) > 1e-2

    @pytest.mark.parametrize("name", ROOT_FREE)
    def test_p07_a_factor_on_the_loss(self, name):
        """P07: l -> c l with alpha / c, c S_0 and c lam leaves W(t) unchanged."""
        c, gradients = 3.7, random_gradients((5,))
        scaled = [c * grad for grad in gradients]
        expected, _ = run(name, np.ones(5), gradients, init_scale=2, **HYPER)
        hyper = HYPER | {"batch_size": HYPER["batch_size"] / c, "damping": HYPER["damping"] * c}
        path, _ = run(name, np.ones(5), scaled, init_scale=2 * c, **hyper)
        close(path, expected)

    @pytest.mark.parametrize("name", WITH_STATISTIC)
    def test_p07_a_factor_with_alpha_fixed(self, name):
        """P07: with alpha fixed and S_0 = lam = 0, c divides root-free steps, not those of a root.

        The gradients are given and kap = 0, so that steps add up to W(t) - W(0).
        """
        c, gradients = 3.7, random_gradients((5,))
        hyper = HYPER | {"damping": 0, "weight_decay": 0}
        start = np.zeros(5)
        expected, _ = run(name, start, gradients, init_scale=0, **hyper)
        path, _ = run(name, start, [c * grad for grad in gradients], init_scale=0, **hyper)
        factor = 1 / c if name in ROOT_FREE else 1
        close(path, factor * np.array(expected))

    @pytest.mark.parametrize(("name", "factor"), [("rf_rmsprop", 10.0), ("rmsprop", 1.0)])
    def test_p08_a_small_constant_factor_enlarges_root_free_steps(self, name, factor):
        """P08: rho = 0.1 on all gradients makes long-run steps 1/rho as long, or as long as before.

        lam = kap = 0. After 2000 steps at b2 = 0.05 the start has the weight 0.95^2000 = 3e-45.
        """
        gradients = random_gradients((5,), steps=2000)
        hyper = HYPER | {"damping": 0, "weight_decay": 0, "momentum": 0}
        path, _ = run(name, np.zeros(5), gradients, **hyper)
        clipped, _ = run(name, np.zeros(5), [0.1 * grad for grad in gradients], **hyper)
        long_run = path[-1] - path[-11]
        np.testing.assert_allclose(clipped[-1] - clipped[-11], factor * long_run, rtol=1e-9)

    @pytest.mark.parametrize("batch_size", [1, 4])
    def test_p10_no_step_is_longer_than_its_bound(self, batch_size):
        """P10: R6 without momentum, lam = kap = 0: |dW| <= b1/(2 sqrt((1-b2) s alpha b2)).

        s is the statistic before the step; the bound is attained at G^2 = (1-b2) s/(alpha b2).
        """
        b1, b2, s = 0.1, 0.03, 0.4
        hyper = HYPER | {
            "lr": b1,
            "precond_lr": b2,
            "damping": 0,
            "weight_decay": 0,
            "batch_size": batch_size,
        }
        bound = b1 / (2 * math.sqrt((1 - b2) * s * batch_size * b2))
        largest = math.sqrt((1 - b2) * s / (batch_size * b2))
        grad = largest * np.concatenate([[1.0], 10 ** np.linspace(-3, 3, 601)])
        param = np.zeros_like(grad)
        state = init("rf_rmsprop", param, init_scale=s, with_momentum=False)
        moved, _ = step("rf_rmsprop", param, grad, state, **hyper)
        close(moved[0], -bound)
        assert np.all(np.abs(moved) <= bound * (1 + 1e-12))
        assert np.all(np.abs(moved[[1, -1]]) < 0.01 * bound)


class TestReparameterisation:
    """w = a v + c entry by entry, on the loss sum(log cosh(slope w)) whose curvature varies."""

    slope = np.array([0.5, -4.0, 30.0])
    a = np.array([0.2, 3.0, -7.0])
    c = np.array([1.0, -0.5, 0.1])

    def trajectory(self, name, init_scale=1.0, a=1.0, c=0.0, **changed):
        """w(t) when the method runs on v; without a and c that is w itself."""
        v = (np.ones(3) - c) / a
        state = init(name, v)
        state["statistic"] = init_scale * np.ones(3)
        hyper = HYPER | {"damping": 0, "weight_decay": 0} | changed
        path = []
        for _ in range(20):
            gradient = self.slope * np.tanh(self.slope * (a * v + c))
            v, state = step(name, v, a * gradient, state, **hyper)
            path.append(a * v + c)
        return np.array(path)

    @pytest.mark.parametrize("name", ROOT_FREE)
    def test_p12_root_free_trajectories_are_the_same(self, name):
        """P12: identical for s_0^v = a^2 s_0^w and lam = kap = 0; a heavy ball is allowed."""
        close(self.trajectory(name, self.a**2, self.a, self.c), self.trajectory(name))

    @pytest.mark.parametrize("name", ROOT_FREE)
    def test_p12_needs_its_conditions(self, name):
        """P12 fails with equal s_0, with lam > 0, and with kap > 0 if there is a shift c.

        Weight decay is not preconditioned: without a shift a kap v = kap w, and P12 holds.
        """
        path = self.trajectory(name, 1.0, self.a, self.c)
        assert np.max(np.abs(path - self.trajectory(name))) > 1e-2
        for broken in ({"damping": 0.1}, {"weight_decay": 0.1}):
            path = self.trajectory(name, self.a**2, self.a, self.c, **broken)
            assert np.max(np.abs(path - self.trajectory(name, **broken))) > 1e-2
        path = self.trajectory(name, self.a**2, self.a, weight_decay=0.1)
        close(path, self.trajectory(name, weight_decay=0.1))

    @pytest.mark.parametrize("name", ["adagrad", "rmsprop", "adamw"])
    def test_p12_is_false_with_the_root(self, name):
        """P12: a root method moves differently in v, even with s_0^v = a^2 s_0^w."""
        path = self.trajectory(name, self.a**2, self.a, self.c)
        assert np.max(np.abs(path - self.trajectory(name))) > 0.1


def test_p15_the_inverse_free_factor_tracks_the_statistic():
    """P15: with S^-1 = k^2 and k <- k (1 - b2/2 (k^2 h - 1)), 1/k^2 tracks s to first order in b2.

    h = alpha G^2 + lam: the damping lies inside the average, so it is part of the curvature that R6
    is given. Over 2/b2 steps with a smooth h the largest error is halved with b2.
    """
    errors = []
    for b2 in (0.1, 0.05, 0.025):
        k, largest, state = 1.0, 0.0, init("rf_rmsprop", np.ones(1), with_momentum=False)
        for t in range(round(2 / b2)):
            grad = np.array([1 + 0.5 * math.sin(3 * b2 * t)])
            h = 2 * grad**2 + 0.1
            _, state = step(
                "rf_rmsprop",
                np.ones(1),
                grad,
                state,
                curvature=h,
                **HYPER | {"precond_lr": b2, "damping": 0},
            )
            k = k * (1 - b2 / 2 * (k * k * h.item() - 1))
            largest = max(largest, abs(1 / k**2 - state["statistic"].item()))
        errors.append(largest)
    assert errors[0] < 0.5
    assert 1.7 < errors[0] / errors[1] < 2.4
    assert 1.7 < errors[1] / errors[2] < 2.4


class TestQuadratic:
    """P24, l = h w^2/2 in one dimension: G = h w."""

    def test_p24_true_curvature_contracts_at_the_rate_of_newton(self):
        """P24: with the true h fed in, s_0 = h, no momentum, lam = kap = 0: w <- (1 - b1) w."""
        h = np.array([0.01, 3.0, 200.0])
        w = np.array([1.0, -2.0, 5.0])
        hyper = HYPER | {"damping": 0, "weight_decay": 0}
        state = init("rf_rmsprop", w, with_momentum=False)
        state["statistic"] = h
        for _ in range(20):
            new, state = step("rf_rmsprop", w, h * w, state, curvature=h, **hyper)
            close(new, 0.9 * w)
            w = new

    def test_p24_squared_gradients_go_to_the_edge_of_stability(self):
        """P24: with alpha G^2, full batch, s falls until b1 h/s = 2, not to the Hessian h.

        There w changes its sign in every step, and alpha G^2 = s holds both where they are. With
        b1 = 0.1, h = 1 and alpha = 1 that is s = 0.05 and w^2 = 0.05. On the way s falls lower,
        until the small w has grown again.
        """
        w, state = np.array([1.0]), init("rf_rmsprop", np.ones(1), with_momentum=False)
        hyper = HYPER | {"precond_lr": 0.01, "damping": 0, "weight_decay": 0, "batch_size": 1}
        for _ in range(10_000):
            w, state = step("rf_rmsprop", w, w, state, **hyper)
        flipped, _ = step("rf_rmsprop", w, w, state, **hyper)
        close(state["statistic"], [0.05])
        close(np.abs(w), [math.sqrt(0.05)])
        close(flipped, -w)


class TestFrame:
    """What holds for every method, whatever it divides by."""

    @pytest.mark.parametrize("name", DIAGONAL)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_any_shape(self, name, shape):
        """Section 4.8: entries do not see each other; no axes and no entries are shapes as well."""
        param = np.random.default_rng(3).standard_normal(shape)
        path, state = run(name, param, random_gradients(shape), **HYPER)
        assert path[-1].shape == shape
        assert path[-1].dtype == np.float64
        assert isinstance(path[-1], np.ndarray)
        assert state.pop("step") == 20
        for array in state.values():
            assert isinstance(array, np.ndarray)
            assert array.shape == shape
            assert array.dtype == np.float64
        flat, _ = run(
            name, param.reshape(-1), [g.reshape(-1) for g in random_gradients(shape)], **HYPER
        )
        np.testing.assert_array_equal(path[-1].reshape(-1), flat[-1])

    @pytest.mark.parametrize("name", DIAGONAL)
    @pytest.mark.parametrize("mode", ["coupled", "decoupled"])
    @pytest.mark.parametrize("lr", [0.1, 0.0])
    def test_arguments_stay_as_they_are(self, name, mode, lr):
        """The step is a function: read-only arguments suffice, and the results are new arrays."""
        param, grad = np.array([1.0, -2.0]), np.array([0.5, 0.0])
        _, state = step(name, param, grad, init(name, param), **HYPER)
        arrays = [param, grad, *(role for role in state.values() if isinstance(role, np.ndarray))]
        copies, keys = [array.copy() for array in arrays], dict(state)
        for array in arrays:
            array.flags.writeable = False
        new_param, new_state = step(
            name, param, grad, state, weight_decay_mode=mode, **HYPER | {"lr": lr}
        )
        for array, copy in zip(arrays, copies, strict=True):
            np.testing.assert_array_equal(array, copy)
        assert list(state) == list(keys)
        assert all(state[role] is keys[role] for role in keys)
        assert new_state["step"] == state["step"] + 1
        results = [new_param, *(r for r in new_state.values() if isinstance(r, np.ndarray))]
        for result in results:
            assert not any(np.shares_memory(result, array) for array in arrays)

    @pytest.mark.parametrize("name", DIAGONAL)
    def test_without_learning_rate_every_bit_stays(self, name):
        """Section 4.6: lr = 0 leaves the parameter bit-identical, signs of zero included.

        The state still changes.
        """
        param = np.array([0.0, -0.0, 1.0, -3.5, 5e-324, 1e308])
        grad = np.array([1.0, -1.0, 0.0, 2.0, -2.0, 1e-3])
        start = init(name, param)
        path, state = run(name, param, [grad, -grad, grad], **HYPER | {"lr": 0.0})
        for moved in path:
            np.testing.assert_array_equal(moved.view(np.uint64), param.view(np.uint64))
        changed = [role for role in start if role != "step"]
        assert all(not np.array_equal(state[role], start[role]) for role in changed)

    @pytest.mark.parametrize("name", DIAGONAL)
    @pytest.mark.parametrize("damping", [0.0, 1e-3])
    def test_zero_gradients(self, name, damping):
        """Section 4.5: the direction is 0, also over a denominator of 0; s decays by (1 - b2)^t."""
        param = np.array([0.0, -0.0, 2.0])
        hyper = HYPER | {"damping": damping, "weight_decay": 0}
        path, state = run(name, param, [np.zeros(3)] * 20, **hyper)
        np.testing.assert_array_equal(path[-1].view(np.uint64), param.view(np.uint64))
        decayed = {"rf_adagrad": 1.0, "rf_rmsprop": 0.95**20, "rf_adamw": 0.95**20}
        if name != "sgd":
            close(state["statistic"], np.full(3, decayed.get(name, 0.0)))

    def test_a_vanished_denominator_is_the_smallest_normal_number(self):
        """Section 2.1: U = x / max(s^p + lam, tiny), here where the square of G underflows to 0."""
        grad = np.array([2.0**-600])
        hyper = HYPER | {"damping": 0, "weight_decay": 0, "lr": 1.0}
        path, _ = run("rf_rmsprop", np.zeros(1), [grad], init_scale=0, **hyper)
        assert path[0].item() == -(2.0**-600) / 2.0**-1022

    @pytest.mark.parametrize("name", DIAGONAL)
    def test_weight_decay_modes(self, name):
        """Section 2.0: the modes differ only by a heavy ball, and the defaults are those of 2.1."""
        own = "decoupled" if name in ("adamw", "rf_adamw") else "coupled"
        assert inspect.signature(STEPS[name]).parameters["weight_decay_mode"].default == own
        gradients = random_gradients((3,))
        hyper = HYPER | {"weight_decay": 0.5}
        default, _ = run(name, np.ones(3), gradients, **hyper)
        coupled, _ = run(name, np.ones(3), gradients, weight_decay_mode="coupled", **hyper)
        decoupled, _ = run(name, np.ones(3), gradients, weight_decay_mode="decoupled", **hyper)
        np.testing.assert_array_equal(default, {"coupled": coupled, "decoupled": decoupled}[own])
        assert np.array_equal(coupled, decoupled) == (own == "decoupled")
        bare = [
            run(name, np.ones(3), gradients, with_momentum=False, weight_decay_mode=mode, **hyper)[
                0
            ]
            for mode in ("coupled", "decoupled")
        ]
        np.testing.assert_array_equal(*bare)

    @pytest.mark.parametrize("name", DIAGONAL)
    def test_weight_decay_is_not_preconditioned(self, name):
        """Section 2.0: with G = 0 and no buffer, W <- (1 - lr kap) W whatever s is."""
        path, _ = run(
            name, np.array([1.0, -4.0]), [np.zeros(2)], with_momentum=False, init_scale=9, **HYPER
        )
        close(path[0], (1 - 0.1 * 0.01) * np.array([1.0, -4.0]))

    def test_averaging_before_or_after_is_a_learning_rate(self):
        """Section 2.0: a heavy ball of rate lr (1 - a1) is the preconditioned average of rate lr.

        With a statistic that stands still (b2 = 0) R7's average is preconditioned by the same s in
        every step, so R7 is R6 with lr (1 - a1).
        """
        gradients = random_gradients((4,))
        hyper = HYPER | {"precond_lr": 0.0, "weight_decay": 0}
        average, _ = run("rf_adamw", np.ones(4), gradients, **hyper | {"lr": 1.0})
        ball, _ = run("rf_rmsprop", np.ones(4), gradients, **hyper | {"lr": 0.1})
        close(average, ball)

    def test_scale_of_the_loss_is_read_by_root_free_methods_only(self):
        """Section 2.1: alpha enters R5, R6, R7; the others do not take it."""
        gradients = random_gradients((3,))
        for name in DIAGONAL:
            one, _ = run(name, np.ones(3), gradients, **HYPER | {"batch_size": 1})
            four, _ = run(name, np.ones(3), gradients, **HYPER | {"batch_size": 4})
            assert np.array_equal(one, four) == (name not in ROOT_FREE)


class TestInterface:
    """Names, roles and errors."""

    def test_names_in_order(self):
        """From simple to complex, roots first."""
        assert DIAGONAL == [
            "sgd",
            "adagrad",
            "rmsprop",
            "adamw",
            "rf_adagrad",
            "rf_rmsprop",
            "rf_adamw",
        ]

    @pytest.mark.parametrize("name", DIAGONAL)
    @pytest.mark.parametrize("with_momentum", [True, False])
    def test_roles(self, name, with_momentum):
        """A role that a method does not keep is absent, at the start and after a step."""
        roles = {"step"}
        if name != "sgd":
            roles.add("statistic")
        if with_momentum:
            roles.add("first_moment" if name in ("adamw", "rf_adamw") else "momentum")
        state = init(name, np.ones(2), with_momentum=with_momentum)
        assert set(state) == roles
        _, state = step(name, np.ones(2), np.ones(2), state, **HYPER)
        assert set(state) == roles

    def test_first_states(self):
        """Row 23 of the differences: s_0 is 0 with the root and 1 without, unless it is given."""
        for name in WITH_STATISTIC:
            own = init(name, np.ones((2, 3)))
            np.testing.assert_array_equal(
                own["statistic"], np.full((2, 3), float(name in ROOT_FREE))
            )
            given = init(name, np.ones((2, 3)), init_scale=0.25)
            np.testing.assert_array_equal(given["statistic"], np.full((2, 3), 0.25))
            assert own["step"] == 0

    def test_functions_can_be_called_without_the_dispatcher(self):
        """`step` adds nothing to the functions."""
        param, grad = np.ones(2), np.array([1.0, -2.0])
        for function in (adagrad, adamw):
            name = function.__name__
            hyper = {key: value for key, value in HYPER.items() if key != "batch_size"}
            expected, _ = function(param, grad, init(name, param), **hyper)
            moved, _ = step(name, param, grad, init(name, param), **HYPER)
            np.testing.assert_array_equal(moved, expected)

    def test_errors(self):
        """Unknown methods, unknown modes, negative starts and missing arguments are errors."""
        one = np.ones(1)
        with pytest.raises(ValueError, match="unknown method 'lion'"):
            init("lion", one)
        with pytest.raises(ValueError, match="unknown method 'lion'"):
            step("lion", one, one, {"step": 0}, **HYPER)
        with pytest.raises(ValueError, match="`weight_decay_mode` must be"):
            step("sgd", one, one, init("sgd", one), weight_decay_mode="l2", **HYPER)
        with pytest.raises(ValueError, match="`init_scale` must be >= 0, got -1"):
            init("adagrad", one, init_scale=-1)
        with pytest.raises(TypeError, match="momentum"):
            step("sgd", one, one, init("sgd", one), lr=0.1, weight_decay=0)
