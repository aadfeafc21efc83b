"""The frame of the matrix methods: names, roles, shapes, arguments and the last stage of a step.

The diagonal methods have the same tests in `test_diagonal`.
"""

import inspect

import numpy as np
import pytest
from rootfree_textbook import STEPS, init, step

MATRIX = list(STEPS)[7:]
ROOT = ["full_adagrad", "shampoo"]
FACTORS = ["rf_full_matrix_factor", "sirf_shampoo"]
HYPER = {
    "lr": 0.1,
    "precond_lr": 0.05,
    "momentum": 0.9,
    "precond_momentum": 0.5,
    "damping": 1e-3,
    "weight_decay": 0.01,
    "batch_size": 4,
}
PACKED = {
    "dense": [(7, 7)],
    "diagonal": [(7,)],
    "block_diagonal(3)": [(2, 3, 3), (1, 1)],
    "block_diagonal(7)": [(1, 7, 7)],
    "block_diagonal": [(7, 7)],
    "tril": [(7, 7)],
    "triu": [(7, 7)],
    "tril_toeplitz": [(7,)],
    "triu_toeplitz": [(7,)],
    "hierarchical(2,1)": [(2, 2), (2, 5), (4,), (1, 4), (1, 1)],
    "hierarchical(4,4)": [(4, 4), (4, 3), (3, 3)],
    "hierarchical": [(7, 7)],
    "arrowhead": [(7,), (6,)],
}


def gradients(shape, steps=3, seed=0):
    """Independent normal gradients."""
    return [np.random.default_rng((seed, t)).standard_normal(shape) for t in range(steps)]


def run(name, param, grads, *, start=None, **hyper):
    """Parameters after each of the steps, and the last state."""
    state = init(name, param, **(start or {}))
    path = []
    for grad in grads:
        param, state = step(name, param, np.asarray(grad), state, **hyper)
        path.append(param)
    return path, state


def arrays(state):
    """The arrays of a state by role."""
    return {role: value for role, value in state.items() if role != "step"}


class TestInterface:
    """Names, roles and errors."""

    def test_names_in_order(self):
        """From simple to complex: diagonal, full matrix, one matrix an axis; roots first."""
        assert MATRIX == [
            "full_adagrad",
            "rf_full_matrix",
            "rf_full_matrix_inverse",
            "rf_full_matrix_factor",
            "shampoo",
            "rf_shampoo",
            "sirf_shampoo",
        ]

    @pytest.mark.parametrize("name", MATRIX)
    @pytest.mark.parametrize("with_momentum", [True, False])
    @pytest.mark.parametrize("with_factor_momentum", [True, False])
    def test_roles(self, name, with_momentum, with_factor_momentum):
        """A role that a method does not keep is absent, at the start and after a step."""
        shapes = {
            "full_adagrad": {"statistic": (6, 6), "root": (6, 6)},
            "rf_full_matrix": {"statistic": (6, 6)},
            "rf_full_matrix_inverse": {"statistic": (6, 6)},
            "rf_full_matrix_factor": {"factor.0": (6, 6)},
            "shampoo": {
                "statistic.0": (2, 2),
                "statistic.1": (3, 3),
                "root.0": (2, 2),
                "root.1": (3, 3),
            },
            "rf_shampoo": {"statistic.0": (2, 2), "statistic.1": (3, 3)},
            "sirf_shampoo": {"factor.0": (2, 2), "factor.1": (3, 3)},
        }[name]
        if with_factor_momentum and name in FACTORS:
            shapes |= {role.replace("factor", "factor_momentum"): shapes[role] for role in shapes}
        if with_momentum:
            shapes["momentum"] = (2, 3, 1)
        param = np.ones((2, 3, 1))
        start = {"with_momentum": with_momentum, "with_factor_momentum": with_factor_momentum}
        state = init(name, param, **start)
        for _ in range(2):
            assert {role: array.shape for role, array in arrays(state).items()} == shapes
            assert all(array.dtype == np.float64 for array in arrays(state).values())
            param, state = step(name, param, np.ones((2, 3, 1)), state, **HYPER)

    @pytest.mark.parametrize(("structure", "shapes"), PACKED.items())
    @pytest.mark.parametrize("with_factor_momentum", [True, False])
    def test_roles_of_structures(self, structure, shapes, with_factor_momentum):
        """One array is "factor.j", several are "factor.j.0", ...; none of them is empty."""
        param = np.ones((7, 2))
        names = [""] if len(shapes) == 1 else [f".{i}" for i in range(len(shapes))]
        expected = {f"factor.0{name}": shape for name, shape in zip(names, shapes, strict=True)}
        expected["factor.1"] = (2, 2)
        if with_factor_momentum:
            for role in list(expected):
                expected[role.replace("factor", "factor_momentum")] = expected[role]
        structures = (structure, "dense")
        state = init(
            "sirf_shampoo",
            param,
            structure=structures,
            with_momentum=False,
            with_factor_momentum=with_factor_momentum,
        )
        for _ in range(3):
            assert {role: array.shape for role, array in arrays(state).items()} == expected
            param, state = step("sirf_shampoo", param, param, state, structure=structures, **HYPER)
        assert any(np.any(array != 0) for array in arrays(state).values())

    def test_riemannian_momentum_of_zero_is_none(self):
        """R11, R14: m without a memory, kept or not, is one method."""
        for name in FACTORS:
            hyper = HYPER | {"precond_momentum": 0}
            kept, state = run(name, np.ones((2, 3)), gradients((2, 3)), **hyper)
            absent, other = run(
                name,
                np.ones((2, 3)),
                gradients((2, 3)),
                start={"with_factor_momentum": False},
                **HYPER,
            )
            np.testing.assert_array_equal(kept, absent)
            assert set(state) - set(other) == {
                role for role in state if role.startswith("factor_momentum")
            }

    def test_scale_of_the_loss_is_read_by_root_free_methods_only(self):
        """Section 2: alpha enters R9-R11, R13, R14; the others do not take it."""
        for name in MATRIX:
            one, _ = run(name, np.ones(3), gradients((3,)), **HYPER | {"batch_size": 1})
            four, _ = run(name, np.ones(3), gradients((3,)), **HYPER | {"batch_size": 4})
            assert np.array_equal(one, four) == (name in ROOT)

    def test_sums_and_averages(self):
        """Section 2.4: gam is 0 in R8 and otherwise 1."""
        for name in MATRIX:
            default = inspect.signature(STEPS[name]).parameters["decay"].default
            assert default == (0 if name == "full_adagrad" else 1)
            own, _ = run(name, np.ones(3), gradients((3,)), **HYPER)
            given, _ = run(name, np.ones(3), gradients((3,)), decay=default, **HYPER)
            other, _ = run(name, np.ones(3), gradients((3,)), decay=1 - default, **HYPER)
            np.testing.assert_array_equal(own, given)
            assert not np.array_equal(own, other)

    def test_settings_of_other_methods_are_dropped(self):
        """One record serves all: a diagonal method reads no `structure` and no `update_now`."""
        settings = {"structure": "tril", "max_dim": 2, "merge_dims": 4, "update_now": True}
        settings |= {"improved": False, "exact": False, "trust_clip": True}
        for name in STEPS:
            start = {key: settings[key] for key in ("structure", "max_dim", "merge_dims")}
            path, _ = run(
                name, np.ones((2, 3)), gradients((2, 3)), start=start, **HYPER, **settings
            )
            assert np.all(np.isfinite(path))

    def test_errors(self):
        """An inverse covariance cannot start from 0; missing arguments are missed."""
        one = np.ones(1)
        for name in MATRIX:
            if name in ROOT:
                init(name, one, init_scale=0)
            else:
                with pytest.raises(ValueError, match=f"`init_scale` must be > 0 in {name}"):
                    init(name, one, init_scale=0)
            with pytest.raises(ValueError, match="`init_scale` must be >= 0, got -1"):
                init(name, one, init_scale=-1)
            with pytest.raises(ValueError, match="`weight_decay_mode` must be"):
                step(name, one, one, init(name, one), weight_decay_mode="l2", **HYPER)
            with pytest.raises(TypeError, match="damping"):
                step(name, one, one, init(name, one), lr=0.1, weight_decay=0)
        with pytest.raises(ValueError, match="unknown structure 'lower'"):
            init("sirf_shampoo", one, structure="lower")


class TestFrame:
    """What holds for every method, whatever it multiplies with."""

    @pytest.mark.parametrize("name", MATRIX)
    @pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (2, 3, 2), (0,), (2, 0, 3)])
    def test_any_shape(self, name, shape):
        """Section 4.8: no axes and no entries are shapes as well."""
        param = np.asarray(np.random.default_rng(3).standard_normal(shape))
        path, state = run(name, param, gradients(shape), **HYPER)
        assert path[-1].shape == shape
        assert path[-1].dtype == np.float64
        assert isinstance(path[-1], np.ndarray)
        assert state["momentum"].shape == shape
        assert state["step"] == 3
        assert np.all(np.isfinite(path))
        assert param.size == 0 or np.any(path[-1] != param)

    @pytest.mark.parametrize("name", MATRIX)
    @pytest.mark.parametrize("update_now", [True, False])
    @pytest.mark.parametrize("structure", ["dense", "hierarchical(1,1)"])
    def test_arguments_stay_as_they_are(self, name, update_now, structure):
        """The step is a function: read-only arguments suffice, and the results are new arrays."""
        param, grad = np.ones((3, 2)), np.arange(6.0).reshape(3, 2)
        given = HYPER | {"structure": structure}
        _, state = step(name, param, grad, init(name, param, structure=structure), **given)
        inputs = [param, grad, *arrays(state).values()]
        copies, keys = [array.copy() for array in inputs], dict(state)
        for array in inputs:
            array.flags.writeable = False
        moved, new = step(name, param, grad, state, update_now=update_now, **given)
        for array, copy in zip(inputs, copies, strict=True):
            np.testing.assert_array_equal(array, copy)
        assert list(state) == list(keys)
        assert all(state[role] is keys[role] for role in keys)
        assert set(new) == set(state)
        assert new["step"] == state["step"] + 1
        for result in (moved, *arrays(new).values()):
            assert not any(np.shares_memory(result, array) for array in inputs)

    @pytest.mark.parametrize("name", MATRIX)
    def test_without_observation_the_old_matrices_serve(self, name):
        """Section 2.0: a step that sees no curvature moves along the old preconditioner.

        It is linear in G: with the buffer at 0 and kap = 0, twice the gradient is twice the step.
        """
        param, (first, second, _) = np.zeros((2, 3)), gradients((2, 3))
        hyper = HYPER | {"weight_decay": 0}
        start = init(name, param, with_momentum=False)
        _, state = step(name, param, first, start, **hyper)
        one, after = step(name, param, second, state, update_now=False, **hyper)
        two, _ = step(name, param, 2 * second, state, update_now=False, **hyper)
        np.testing.assert_allclose(two, 2 * one, rtol=1e-14)
        for role, array in arrays(state).items():
            np.testing.assert_array_equal(after[role], array)
        assert after["step"] == 2
        seen, _ = step(name, param, second, state, **hyper)
        assert np.max(np.abs(seen - one)) > 1e-4
        # At the start every preconditioner is the identity, the roots' too.
        plain, _ = step(name, param, first, start, update_now=False, **hyper)
        np.testing.assert_allclose(plain, -0.1 * first, rtol=1e-14)

    @pytest.mark.parametrize("name", MATRIX)
    def test_without_learning_rate_every_bit_stays(self, name):
        """Section 4.6: lr = 0 leaves the parameter bit-identical; the state still changes."""
        param = np.array([0.0, -0.0, 1.0, -3.5, 5e-324, 1e308])
        grad = np.array([1.0, -1.0, 0.0, 2.0, -2.0, 1e-3])
        start = init(name, param)
        path, state = run(name, param, [grad, -grad, grad], **HYPER | {"lr": 0.0})
        for moved in path:
            np.testing.assert_array_equal(moved.view(np.uint64), param.view(np.uint64))
        assert all(not np.array_equal(state[role], start[role]) for role in arrays(start))

    @pytest.mark.parametrize("name", MATRIX)
    def test_zero_gradients(self, name):
        """Section 4.5: the direction is 0, and with lam > 0 every matrix stays finite."""
        param = np.array([0.0, -0.0, 2.0])
        path, state = run(name, param, [np.zeros(3)] * 20, **HYPER | {"weight_decay": 0})
        np.testing.assert_array_equal(path[-1].view(np.uint64), param.view(np.uint64))
        assert all(np.all(np.isfinite(array)) for array in arrays(state).values())

    @pytest.mark.parametrize("name", MATRIX)
    def test_weight_decay_modes(self, name):
        """Section 2.0: the modes differ only by a heavy ball; coupled is the default."""
        hyper = HYPER | {"weight_decay": 0.5}
        for with_momentum in (True, False):
            default, coupled, decoupled = (
                run(
                    name,
                    np.ones(3),
                    gradients((3,)),
                    start={"with_momentum": with_momentum},
                    **hyper,
                    **mode,
                )[0]
                for mode in (
                    {},
                    {"weight_decay_mode": "coupled"},
                    {"weight_decay_mode": "decoupled"},
                )
            )
            np.testing.assert_array_equal(default, coupled)
            assert np.array_equal(coupled, decoupled) == (not with_momentum)

    @pytest.mark.parametrize("name", MATRIX)
    def test_weight_decay_is_not_preconditioned(self, name):
        """Section 2.0: with G = 0 and no buffer, W <- (1 - lr kap) W whatever the matrices are."""
        start = {"with_momentum": False, "init_scale": 9}
        path, _ = run(name, np.array([1.0, -4.0]), [np.zeros(2)], start=start, **HYPER)
        np.testing.assert_allclose(path[0], 0.999 * np.array([1.0, -4.0]), rtol=1e-14)
