"""The last stage of every rule: weight decay, heavy ball, learning rate.

    coupled decay:    U <- U + kappa W                  (passes through the heavy ball)
    heavy ball:       buf <- alpha_1 buf + U;  U <- buf
    decoupled decay:  U <- U + kappa W
    step:             -beta_1 U

The decay never passes through the preconditioner. There is no ``1 - alpha_1`` and no Nesterov step:
a preconditioned average is the same trajectory with lr multiplied by ``1 - momentum``.

References:
    Lin et al., 2024, arXiv 2402.03496 (coupled, as released). Loshchilov, Hutter, Decoupled Weight
    Decay Regularization, 2017, arXiv 1711.05101.
"""

from __future__ import annotations

from rootfree._typing import Array, Hyper, WeightDecayMode
from rootfree.precision import is_zero


def descend(
    direction: Array,
    param: Array,
    momentum: Array | None,
    hyper: Hyper,
    *,
    weight_decay_mode: WeightDecayMode = "coupled",
) -> tuple[Array, Array | None]:
    """Turn a preconditioned direction into the step that is added to the parameter.

    Args:
        direction: U, ``(n, *shape)``, in the working dtype.
        param: W, ``(n, *shape)``, in the working dtype.
        momentum: heavy-ball buffer in the working dtype, or ``None`` for no heavy ball.
        hyper: ``lr``, ``momentum`` and ``weight_decay`` are read.
        weight_decay_mode: the decay enters before (``"coupled"``) or after the heavy ball.

    Returns:
        The step, ``(n, *shape)``, and the new buffer, both in the working dtype.
    """
    decays = not is_zero(hyper.weight_decay)
    if decays and weight_decay_mode == "coupled":
        direction = direction + hyper.weight_decay * param
    if momentum is not None:
        momentum = hyper.momentum * momentum + direction
        direction = momentum
    if decays and weight_decay_mode == "decoupled":
        direction = direction + hyper.weight_decay * param
    return -hyper.lr * direction, momentum
