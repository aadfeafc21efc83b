"""Parameters that are spread over devices, in a process of their own: two CPU devices."""

import os
import subprocess
import sys

SCRIPT = """
import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import rootfree_jax

MATRIX = {
    rootfree_jax.sirf_shampoo: {"structure": {1: "dense", 2: ("tril", "arrowhead")}},
    rootfree_jax.rf_shampoo: {},
    rootfree_jax.shampoo: {"damping": 0.1},
    rootfree_jax.rf_full_matrix_inverse: {"precond_lr": 0.01},
}

for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((2,), ("x",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        sharding = NamedSharding(mesh, P("x", None))
        whole = jnp.arange(8.0).reshape(4, 2)
        param = {"w": jax.device_put(whole, sharding)}
        grad = {"w": jax.device_put(jnp.cos(whole), sharding)}
        for make in (rootfree_jax.rf_rmsprop, rootfree_jax.adamw):
            for options in ({}, {"state_dtype": "bfloat16", "rounding": "stochastic"}):
                tx = make(0.1, precond_lr=0.25, **options)
                for jit in (False, True):
                    step = jax.jit(tx.update) if jit else tx.update
                    update, state = step(grad, tx.init(param), param)
                    update, state = step(grad, state, param)
                    one, slope = {"w": whole}, {"w": jnp.cos(whole)}
                    alone, kept = tx.update(slope, tx.init(one), one)
                    alone, kept = tx.update(slope, kept, one)
                    assert update["w"].sharding.is_equivalent_to(sharding, 2), update["w"].sharding
                    assert jnp.allclose(jax.device_get(update["w"]), alone["w"], rtol=1e-6)
                    statistic = state[0].statistic["w"]
                    assert statistic.sharding.is_equivalent_to(sharding, 2), statistic.sharding
        # Matrices are whole on every device, also where a product or reshape crosses the mesh.
        for make, options in MATRIX.items():
            for more in ({}, {"update_every": 2}) if make is rootfree_jax.sirf_shampoo else ({},):
                tx = make(0.1, **options, **more)
                alone, kept = tx.update(slope, tx.init(one), one)
                alone, kept = tx.update(slope, kept, one)
                for jit in (False, True):
                    step = jax.jit(tx.update) if jit else tx.update
                    state = tx.init(param)
                    update, after = step(grad, state, param)
                    update, after = step(grad, after, param)
                    assert update["w"].sharding.is_equivalent_to(sharding, 2), update["w"].sharding
                    near = jnp.max(jnp.abs(alone["w"])) * 1e-5
                    assert jnp.allclose(jax.device_get(update["w"]), alone["w"], atol=near, rtol=0)
                    types = [[jax.typeof(x) for x in jax.tree.leaves(s)] for s in (state, after)]
                    assert kind is AxisType.Auto or types[0] == types[1]
    if kind is AxisType.Explicit:  # without a mesh in the context, that of the gradient counts
        tx = rootfree_jax.sirf_shampoo(0.1, update_every=2)
        step = jax.jit(tx.update)
        update, state = step(grad, tx.init(param), param)
        update, state = step(grad, state, param)
        assert update["w"].sharding.is_equivalent_to(sharding, 2), update["w"].sharding
"""


def test_sharded_parameters_get_sharded_state_and_updates() -> None:
    """JX21, JX22: on Auto and Explicit meshes, eager and jitted, as one device computes it."""
    flags = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
