"""The last stage of every step: weight decay, heavy ball, learning rate.

    coupled        U <- U + kap W
    heavy ball     buf <- a1 buf + U;  U <- buf
    decoupled      U <- U + kap W
    W <- W - lr U

References:
    B. T. Polyak. Some Methods of Speeding Up the Convergence of Iteration Methods. 1964.
    I. Loshchilov, F. Hutter. Decoupled Weight Decay Regularization. 2017. arXiv 1711.05101.
"""

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
State: TypeAlias = dict[str, Any]
WeightDecayMode: TypeAlias = Literal["coupled", "decoupled"]


def descend(
    param: Array,
    direction: Array,
    new: State,
    lr: float,
    weight_decay: float,
    weight_decay_mode: WeightDecayMode,
    momentum: float = 0.0,
) -> tuple[Array, State]:
    """Move a parameter along its preconditioned direction.

    Args:
        param: W, any shape.
        direction: U, shape of `param`.
        new: the new state with the old buffer of the heavy ball, which is replaced. Without
            "momentum" there is no heavy ball.
        lr: factor of the step, >= 0.
        weight_decay: kap >= 0.
        weight_decay_mode: "coupled" adds kap W before the heavy ball, "decoupled" after it.
        momentum: a1 in [0, 1).

    Returns:
        The new parameter and the new state.

    Raises:
        ValueError: the mode is neither of the two.
    """
    if weight_decay_mode not in ("coupled", "decoupled"):
        msg = f"`weight_decay_mode` must be 'coupled' or 'decoupled', got {weight_decay_mode!r}"
        raise ValueError(msg)
    if weight_decay_mode == "coupled":
        direction = direction + weight_decay * param
    if "momentum" in new:
        direction = momentum * new["momentum"] + direction
        new["momentum"] = np.asarray(direction)
    if weight_decay_mode == "decoupled":
        direction = direction + weight_decay * param
    change = -lr * direction
    # -0.0 + 0.0 is +0.0: where there is no step, nothing may be added.
    return np.where(change == 0, param, param + change), new
