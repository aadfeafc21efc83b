"""rootfree's methods for JAX, as optax transformations.

Example:
    >>> import jax.numpy as jnp
    >>> import optax
    >>> from rootfree_jax import rf_rmsprop
    >>> params = {"w": jnp.ones(2)}
    >>> optimizer = rf_rmsprop(0.5, precond_lr=0.5, momentum=0.0, damping=0.0)
    >>> state = optimizer.init(params)
    >>> grads = {"w": jnp.asarray([1.0, -1.0])}
    >>> updates, state = optimizer.update(grads, state, params, batch_size=3)
    >>> optax.apply_updates(params, updates)["w"].tolist()
    [0.75, 1.25]
"""

try:
    import jax  # noqa: F401  # only to say what is missing
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    raise ModuleNotFoundError(
        'rootfree_jax needs JAX: pip install "rootfree[jax]"', name="jax"
    ) from None

try:
    import optax  # noqa: F401  # only to say what is missing
except ModuleNotFoundError as error:
    if error.name != "optax":
        raise
    raise ModuleNotFoundError(
        'rootfree_jax needs optax: pip install "rootfree[jax]"', name="optax"
    ) from None

from rootfree_array import StalledStateWarning

from rootfree_jax._optimizer import (
    adagrad,
    adamw,
    descend,
    full_adagrad,
    rf_adagrad,
    rf_adamw,
    rf_full_matrix,
    rf_full_matrix_factor,
    rf_full_matrix_inverse,
    rf_rmsprop,
    rf_shampoo,
    rmsprop,
    scale_by_adagrad,
    scale_by_adamw,
    scale_by_full_adagrad,
    scale_by_rf_adagrad,
    scale_by_rf_adamw,
    scale_by_rf_full_matrix,
    scale_by_rf_full_matrix_factor,
    scale_by_rf_full_matrix_inverse,
    scale_by_rf_rmsprop,
    scale_by_rf_shampoo,
    scale_by_rmsprop,
    scale_by_shampoo,
    scale_by_sirf_shampoo,
    sgd,
    shampoo,
    sirf_shampoo,
)
from rootfree_jax._precision import capabilities
from rootfree_jax._state import DescendState, ScaleState

__all__ = [  # noqa: RUF022  # the catalogue's order
    "sgd",
    "adagrad",
    "rmsprop",
    "adamw",
    "rf_adagrad",
    "rf_rmsprop",
    "rf_adamw",
    "full_adagrad",
    "rf_full_matrix",
    "rf_full_matrix_inverse",
    "rf_full_matrix_factor",
    "shampoo",
    "rf_shampoo",
    "sirf_shampoo",
    "scale_by_adagrad",
    "scale_by_rmsprop",
    "scale_by_adamw",
    "scale_by_rf_adagrad",
    "scale_by_rf_rmsprop",
    "scale_by_rf_adamw",
    "scale_by_full_adagrad",
    "scale_by_rf_full_matrix",
    "scale_by_rf_full_matrix_inverse",
    "scale_by_rf_full_matrix_factor",
    "scale_by_shampoo",
    "scale_by_rf_shampoo",
    "scale_by_sirf_shampoo",
    "descend",
    "DescendState",
    "ScaleState",
    "StalledStateWarning",
    "capabilities",
]
