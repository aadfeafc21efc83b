"""Equal leaves as one stack, turns within a period, and what a program costs (JX10, JX14, JX19)."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rootfree
import rootfree_jax
from rootfree import METHODS, Hyper, Precision

MATRIX = [name for name, method in METHODS.items() if method.matrix]
HYPER = {
    "precond_lr": 0.0625,
    "momentum": 0.875,
    "precond_momentum": 0.5,
    "damping": 0.25,
    "weight_decay": 0.125,
}
SHAPES = {
    "l0": {"w": (4, 3), "b": (4,)},
    "l1": {"w": (4, 3), "b": (4,)},
    "l2": {"w": (4, 3), "b": (4,)},
    "gain": (),
    "scale": (),
}
# As in test_matrix_methods: some thousand roundings, conditions of some tens.
BOUND = 2.0**16
every = pytest.mark.parametrize("name", METHODS)
matrices = pytest.mark.parametrize("name", MATRIX)
FLAGS = (False, True)


class Run(NamedTuple):
    """What steps lead to."""

    params: Any
    state: Any


def make(name: str, learning_rate: Any = 0.125, **options: Any) -> Any:
    """Return an optimizer whose hyper-parameters are all away from 0."""
    given = {key: value for key, value in HYPER.items() if key in METHODS[name].hyper}
    return getattr(rootfree_jax, name)(learning_rate, **given, **options)


def march(tx: Any, tree: Any, count: int = 5, dtype: str = "float32", shapes: Any = SHAPES) -> Run:
    """Return where jitted steps lead."""
    params = tree(0, dtype, shapes)
    state = tx.init(params)

    @jax.jit
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params, batch_size=4)
        return optax.apply_updates(params, updates), state

    for t in range(count):
        params, state = step(params, state, tree(t + 1, dtype, shapes))
    return Run(params, state)


def assert_close(found: Any, expected: Any, unit: float) -> None:
    """Compare every array, relative to its largest number."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = (np.asarray(x, np.float64) for x in (a, b))
        np.testing.assert_allclose(a, b, rtol=0, atol=BOUND * unit * np.max(np.abs(b), initial=0))


def primitives(tx: Any, tree: Any, shapes: Any = SHAPES) -> list[str]:
    """Return the names of a step's equations, those of inner programs included."""

    def walk(jaxpr: Any) -> None:
        for equation in jaxpr.eqns:
            found.append(equation.primitive.name)
            for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
                if _is_program(inner):
                    walk(getattr(inner, "jaxpr", inner))

    found: list[str] = []
    params = tree(0, shapes=shapes)
    walk(jax.make_jaxpr(tx.update)(params, tx.init(params), params).jaxpr)
    return found


def _is_program(value: Any) -> bool:
    return hasattr(value, "jaxpr") or hasattr(value, "eqns")


@pytest.mark.parametrize(
    ("name", "stagger"),
    [(name, False) for name in METHODS] + [(name, True) for name in MATRIX],
)
def test_a_stack_steps_as_its_members(tree, name, stagger):
    """Same state, in the same places, whether equal leaves go together or one by one."""
    options = {"update_every": 3, "stagger": stagger} if name in MATRIX else {}
    with jax.enable_x64(True):
        alone, together = (
            march(make(name, **options, stack=stack), tree, dtype="float64") for stack in FLAGS
        )
        assert_close(together, alone, 2.0**-53)


@pytest.mark.parametrize("name", ["rf_rmsprop", "adamw", "sgd"])
def test_members_of_a_stack_draw_their_own_bits(tree, name):
    """Rounding of a leaf's state depends on its name, not on what it is stacked with.

    A compiler may fuse a stack's arithmetic otherwise, so a few numbers round to the neighbour;
    with bits of another leaf about half of them would.
    """
    options = {"state_dtype": "bfloat16", "rounding": "stochastic"}
    shapes = {f"l{i}": (16, 16) for i in range(3)}
    alone, together = (march(make(name, **options, stack=s), tree, 3, shapes=shapes) for s in FLAGS)
    for a, b in zip(*map(jax.tree.leaves, (alone.state, together.state)), strict=True):
        if a.dtype == jnp.bfloat16:
            assert np.count_nonzero(np.asarray(a != b)) <= a.size / 50
            assert a.size == 256


@matrices
@pytest.mark.parametrize("stack", FLAGS)
def test_turns_equal_the_core(tree, name, stack):
    """Every leaf observes at its first step, and then when its phase says."""
    period = 3
    with jax.enable_x64(True):
        tx = make(name, update_every=period, stack=stack)
        params = tree(0, "float64", SHAPES)
        phase = tx.init(params)[0].phase
        assert len({int(x) for x in jax.tree.leaves(phase)}) == period
        ours = march(tx, tree, 7, "float64")

        rule = METHODS[name].rule(Precision.uniform(np.dtype("float64")))
        given = {key: value for key, value in HYPER.items() if key in METHODS[name].hyper}
        hyper = Hyper(lr=0.125, curvature_scale=4.0, **given)

        def alone(param: Any, phase: Any, *grads: Any) -> Any:
            param = np.asarray(param)[None]
            state = rule.init(param)
            for t, grad in enumerate(grads):
                observes = rootfree.observes(period, t, int(phase))
                grad = np.asarray(grad)[None]
                step, state = rootfree.update(rule, grad, state, param, hyper, observes)
                param = rootfree.add_step(param, step)
            return param[0]

        grads = [tree(t + 1, "float64", SHAPES) for t in range(7)]
        assert_close(ours.params, jax.tree.map(alone, params, phase, *grads), 2.0**-53)


@matrices
def test_turns_spread_the_work(tree, name):
    """At no step but the first does more than one of three equal matrices observe."""
    tx = getattr(rootfree_jax, f"scale_by_{name}")(update_every=3)
    params = tree(0, shapes=SHAPES)
    state = tx.init(params)
    kept = [role for role in ("statistic", "factor") if getattr(state, role) != optax.MaskedNode()]
    step = jax.jit(lambda g, s: tx.update(g, s)[1])
    for t in range(7):
        new = step(tree(t + 1, shapes=SHAPES), state)
        moved = {
            layer
            for role in kept
            for layer in ("l0", "l1", "l2")
            if any(
                not np.array_equal(a, b)
                for a, b in zip(
                    jax.tree.leaves(getattr(state, role)[layer]["w"]),
                    jax.tree.leaves(getattr(new, role)[layer]["w"]),
                    strict=True,
                )
            )
        }
        assert len(moved) == (3 if t == 0 else 1)
        state = new


def test_phases_travel_with_the_state(tree, assert_same_bits):
    """A step takes the turns of the state that it is given, not those it would deal."""
    tx = rootfree_jax.scale_by_sirf_shampoo(update_every=3)
    params = tree(0, shapes=SHAPES)
    state = tx.init(params)
    turned = state._replace(
        count=state.count + 1, phase=jax.tree.map(lambda x: jnp.full_like(x, 2), state.phase)
    )
    _, new = tx.update(tree(1, shapes=SHAPES), turned)
    for a, b in zip(jax.tree.leaves(new.factor), jax.tree.leaves(state.factor), strict=True):
        assert not np.array_equal(a, b)
    other = turned._replace(phase=jax.tree.map(lambda x: jnp.full_like(x, 1), state.phase))
    _, new = tx.update(tree(1, shapes=SHAPES), other)
    assert_same_bits(new.factor, state.factor)


def test_without_turns_there_are_no_phases(tree):
    """Neither with `stagger=False` nor with a function nor with a period of 1."""
    for options in ({"stagger": False, "update_every": 3}, {"update_every": bool}, {}):
        state = rootfree_jax.scale_by_sirf_shampoo(**options).init(tree(0))
        assert state.phase == optax.MaskedNode()


def layers(count: int) -> Any:
    """Return shapes of equal layers."""
    return {f"l{i}": {"w": (4, 3), "b": (4,)} for i in range(count)}


@pytest.mark.parametrize(
    ("name", "period"),
    [
        ("rf_rmsprop", 1),
        ("adamw", 1),
        *((m, t) for m in ("sirf_shampoo", "shampoo") for t in (1, 3)),
    ],
)
def test_a_program_of_stacks_does_not_grow_with_the_layers(tree, name, period):
    """A further layer adds what puts it into the stack, and takes it out: no arithmetic."""
    options = {"update_every": period} if name in MATRIX else {}
    few, many = (
        primitives(getattr(rootfree_jax, f"scale_by_{name}")(stack=True, **options), tree, shapes)
        for shapes in (layers(6), layers(12))
    )
    handling = {"broadcast_in_dim", "concatenate", "slice", "squeeze", "split", "reshape", "jit"}
    assert [p for p in few if p not in handling] == [p for p in many if p not in handling]
    assert few.count("dot_general") > 0 or name not in MATRIX


def test_a_program_grows_linearly_without_stacks(tree):
    """Each further layer adds the same number of equations."""
    counts = [len(primitives(make("sirf_shampoo"), tree, layers(n))) for n in (2, 4, 6)]
    assert counts[2] - counts[1] == counts[1] - counts[0]


@every
@pytest.mark.parametrize("stack", FLAGS)
def test_a_second_call_compiles_nothing(tree, name, stack):
    """JX10: not with new numbers of learning rate and batch size, nor at off-steps, either."""

    def rate(count: Any) -> Any:
        return 0.1 / (1 + count)

    tx = make(name, rate, stack=stack, **({"update_every": 2} if name in MATRIX else {}))
    params = tree(0, shapes=SHAPES)
    state = tx.init(params)

    @jax.jit
    def step(params: Any, state: Any, grads: Any, batch_size: Any) -> Any:
        updates, state = tx.update(grads, state, params, batch_size=batch_size)
        return optax.apply_updates(params, updates), state

    for t in range(4):
        params, state = step(params, state, tree(t, shapes=SHAPES), jnp.asarray(1.0 + t))
    assert step._cache_size() == 1


@every
def test_donation_of_stacks(tree, name):
    """JX19: every buffer of parameters and state is consumed, without a warning."""
    tx = make(name, stack=True, **({"update_every": 2} if name in MATRIX else {}))

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = tree(0, shapes=SHAPES)
    state = tx.init(params)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.jit(step, donate_argnums=(0, 1))(params, state, tree(1, shapes=SHAPES))
    assert all(x.is_deleted() for x in jax.tree.leaves((params, state)))


def test_unequal_leaves_stay_apart(tree, assert_same_bits):
    """Dtypes, weak types and absent leaves are told apart; nothing is promoted."""
    params = {
        "a": jnp.ones((2, 3)),
        "b": jnp.ones((2, 3), jnp.bfloat16),
        "c": jnp.ones((2, 3)),
        "d": None,
        "e": jnp.zeros((0, 3)),
        "f": jnp.ones((3, 2)),
    }
    grads = jax.tree.map(lambda x: (x + 0.5).astype(x.dtype), params)
    found = []
    for stack in FLAGS:
        tx = make("rf_rmsprop", stack=stack)
        found.append(tx.update(grads, tx.init(params), params))
    assert_same_bits(found[1], found[0])


def test_stack_is_a_flag():
    """A typed error that names it."""
    with pytest.raises(TypeError, match="`stack`"):
        rootfree_jax.rf_rmsprop(stack="yes")
