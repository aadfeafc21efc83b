"""Diagonal methods: every entry of the parameter has its own step size. One function is one step.

A root method divides the gradient by the square root of a statistic s of squared gradients. The
root-free form (Lin et al., arXiv 2402.03496) drops the root. Then s estimates curvature: it needs
the scale alpha of the loss, and it starts from 1 and not from 0, being an inverse variance.

All formulas hold entry by entry. All arrays are float64 and have the shape of the parameter, which
may be any, without axes or without entries too. No argument is modified, and no array of the result
shares memory with one of the arguments.

    param              W, the parameter
    grad               G, the gradient of the loss at W
    state              what the method remembers, below
    lr                 >= 0; the step is `lr` times the direction
    precond_lr         b2 in [0, 1): weight of the new curvature in s; any b2 >= 0 if decay = 0
    momentum           a1 in [0, 1): coefficient of the heavy ball, or of the average of gradients
    damping            lam >= 0, added to the denominator: in units of |G| with the root, of
                       alpha G^2 without
    weight_decay       kap >= 0: kap W joins the direction after preconditioning
    batch_size         alpha > 0: how many terms the loss averages; 1 if it sums them
    decay              gam: 1 makes s a moving average, 0 a sum
    weight_decay_mode  "coupled" adds kap W before the heavy ball, "decoupled" after it
    curvature          h, the diagonal of a curvature matrix: replaces the (scaled) square of the
                       gradient and is not scaled itself; >= 0 in the root methods

The two modes of weight decay are the same where no heavy ball follows (AdamW, RF-AdamW, or no
buffer in `state`). Any other mode is a ValueError.

The state is a dict. A role that a method does not keep is absent; `init` makes the first state.

    "step"          int: updates applied so far
    "statistic"     s; all methods but SGD
    "momentum"      the heavy ball's buffer. Absent: no heavy ball
    "first_moment"  average of the raw gradients; AdamW and RF-AdamW. Absent: the gradient itself

Where the step is 0 the parameter keeps every bit, the sign of a zero included.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from rootfree_textbook.descent import Array, State, WeightDecayMode, descend

# A denominator of 0 is met with a gradient of 0, and 0/tiny is the 0 that is wanted.
TINY: Final = float(np.finfo(np.float64).tiny)


def sgd(
    param: Array,
    grad: Array,
    state: Mapping[str, Any],
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    weight_decay_mode: WeightDecayMode = "coupled",
) -> tuple[Array, State]:
    """Gradient descent with a heavy ball: the direction is G. Coupled decay is an L2 penalty here.

    References:
        B. T. Polyak. Some Methods of Speeding Up the Convergence of Iteration Methods. 1964.
    """
    new = {**state, "step": state["step"] + 1}
    return descend(param, grad, new, lr, weight_decay, weight_decay_mode, momentum)


def adagrad(
    param: Array,
    grad: Array,
    state: Mapping[str, Any],
    *,
    lr: float,
    precond_lr: float,
    momentum: float,
    damping: float,
    weight_decay: float,
    decay: int = 0,
    weight_decay_mode: WeightDecayMode = "coupled",
    curvature: Array | None = None,
) -> tuple[Array, State]:
    """AdaGrad: divide by the root of the sum of all squared gradients, s_0 = 0.

        s <- s + b2 G^2
        W <- W - lr G / (sqrt(s) + lam)

    The textbook has b2 = 1. The poster's b2 only multiplies the step by 1/sqrt(b2), if lam = 0.

    References:
        J. Duchi, E. Hazan, Y. Singer. Adaptive Subgradient Methods for Online Learning and
        Stochastic Optimization. JMLR 2011, diagonal form. Poster of arXiv 2402.03496, AdaGrad.
    """
    squared = grad * grad if curvature is None else curvature
    s = (1 - precond_lr * decay) * state["statistic"] + precond_lr * squared
    direction = grad / np.maximum(np.sqrt(s) + damping, TINY)
    new = {**state, "statistic": np.asarray(s), "step": state["step"] + 1}
    return descend(param, direction, new, lr, weight_decay, weight_decay_mode, momentum)


def rmsprop(
    param: Array,
    grad: Array,
    state: Mapping[str, Any],
    *,
    lr: float,
    precond_lr: float,
    momentum: float,
    damping: float,
    weight_decay: float,
    decay: int = 1,
    weight_decay_mode: WeightDecayMode = "coupled",
    curvature: Array | None = None,
) -> tuple[Array, State]:
    """RMSProp: divide by the root of a moving average of squared gradients, s_0 = 0.

        s <- (1 - b2) s + b2 G^2
        W <- W - lr G / (sqrt(s) + lam)

    Neither centred nor corrected for its start.

    References:
        T. Tieleman, G. Hinton. RMSProp. Lecture 6.5, 2012. Poster of arXiv 2402.03496, RmsProp.
    """
    squared = grad * grad if curvature is None else curvature
    s = (1 - precond_lr * decay) * state["statistic"] + precond_lr * squared
    direction = grad / np.maximum(np.sqrt(s) + damping, TINY)
    new = {**state, "statistic": np.asarray(s), "step": state["step"] + 1}
    return descend(param, direction, new, lr, weight_decay, weight_decay_mode, momentum)


def adamw(
    param: Array,
    grad: Array,
    state: Mapping[str, Any],
    *,
    lr: float,
    precond_lr: float,
    momentum: float,
    damping: float,
    weight_decay: float,
    weight_decay_mode: WeightDecayMode = "decoupled",
    curvature: Array | None = None,
) -> tuple[Array, State]:
    """AdamW: both moments are averages from 0, divided by the weight they have collected by step t.

        m <- beta1 m + (1 - beta1) G          m_hat = m / (1 - beta1^t)
        v <- beta2 v + (1 - beta2) G^2        v_hat = v / (1 - beta2^t)
        W <- W - lr (m_hat / (sqrt(v_hat) + lam) + kap W)

    beta1 is `momentum` and beta2 is 1 - `precond_lr`. `precond_lr` must be > 0 here: an average to
    which nothing is ever added has no correction. Without "first_moment" in the state m_hat is G.
    The code adds up the weights, (1 - beta) (1 + beta + ... + beta^(t-1)): it is the same number,
    and the difference 1 - beta^t would lose digits where beta is near 1.

    References:
        D. P. Kingma, J. Ba. Adam: A Method for Stochastic Optimization. 2014. arXiv 1412.6980,
        algorithm 1. I. Loshchilov, F. Hutter. Decoupled Weight Decay Regularization. 2017. arXiv
        1711.05101, algorithm 2; the rate multiplies the decay too.
    """
    beta1, beta2, t = momentum, 1 - precond_lr, state["step"] + 1
    new = {**state, "step": t}
    m_hat = grad
    if "first_moment" in state:
        m = beta1 * state["first_moment"] + (1 - beta1) * grad
        m_hat = m / ((1 - beta1) * np.sum(beta1 ** np.arange(t)))
        new["first_moment"] = np.asarray(m)
    squared = grad * grad if curvature is None else curvature
    v = beta2 * state["statistic"] + precond_lr * squared  # 1 - beta2, as it was given
    v_hat = v / (precond_lr * np.sum(beta2 ** np.arange(t)))
    new["statistic"] = np.asarray(v)
    direction = m_hat / np.maximum(np.sqrt(v_hat) + damping, TINY)
    return descend(param, direction, new, lr, weight_decay, weight_decay_mode)


def rf_adagrad(
    param: Array,
    grad: Array,
    state: Mapping[str, Any],
    *,
    lr: float,
    precond_lr: float,
    momentum: float,
    damping: float,
    weight_decay: float,
    batch_size: float = 1,
    decay: int = 0,
    weight_decay_mode: WeightDecayMode = "coupled",
    curvature: Array | None = None,
) -> tuple[Array, State]:
    """Root-free AdaGrad: an online Newton step with the diagonal empirical Fisher matrix, s_0 = 1.

        s <- s + b2 alpha G^2
        W <- W - lr G / (s + lam)

    References:
        Poster of arXiv 2402.03496, RF-AdaGrad.
    """
    fisher = batch_size * grad * grad if curvature is None else curvature
    s = (1 - precond_lr * decay) * state["statistic"] + precond_lr * fisher
    direction = grad / np.maximum(s + damping, TINY)
    new = {**state, "statistic": np.asarray(s), "step": state["step"] + 1}
    return descend(param, direction, new, lr, weight_decay, weight_decay_mode, momentum)


def rf_rmsprop(
    param: Array,
    grad: Array,
    state: Mapping[str, Any],
    *,
    lr: float,
    precond_lr: float,
    momentum: float,
    damping: float,
    weight_decay: float,
    batch_size: float = 1,
    decay: int = 1,
    weight_decay_mode: WeightDecayMode = "coupled",
    curvature: Array | None = None,
) -> tuple[Array, State]:
    """Root-free RMSProp: natural-gradient descent on a diagonal Gaussian, s_0 = 1.

        s   <- (1 - b2) s + b2 alpha G^2
        U   <- G / (s + lam) + kap W
        buf <- a1 buf + U
        W   <- W - lr buf

    The authors' code keeps s / alpha. That is the same as long as alpha does not change.

    References:
        Poster of arXiv 2402.03496, RF-RmsProp. Damping, heavy ball and weight decay are those of
        the authors' released code.
    """
    fisher = batch_size * grad * grad if curvature is None else curvature
    s = (1 - precond_lr * decay) * state["statistic"] + precond_lr * fisher
    direction = grad / np.maximum(s + damping, TINY)
    new = {**state, "statistic": np.asarray(s), "step": state["step"] + 1}
    return descend(param, direction, new, lr, weight_decay, weight_decay_mode, momentum)


def rf_adamw(
    param: Array,
    grad: Array,
    state: Mapping[str, Any],
    *,
    lr: float,
    precond_lr: float,
    momentum: float,
    damping: float,
    weight_decay: float,
    batch_size: float = 1,
    decay: int = 1,
    weight_decay_mode: WeightDecayMode = "decoupled",
    curvature: Array | None = None,
) -> tuple[Array, State]:
    """Root-free AdamW: precondition an average of raw gradients, s_0 = 1.

        e <- a1 e + (1 - a1) G
        s <- (1 - b2) s + b2 alpha G^2
        W <- W - lr (e / (s + lam) + kap W)

    Neither moment is corrected for its start: Adam's correction supposes s_0 = 0, and would
    multiply the present s_0 = 1 by (1 - b2)/b2 at the first step. Without "first_moment" in the
    state e is G.

    References:
        The authors' released code for arXiv 2402.03496.
    """
    new = {**state, "step": state["step"] + 1}
    e = grad
    if "first_moment" in state:
        e = momentum * state["first_moment"] + (1 - momentum) * grad
        new["first_moment"] = np.asarray(e)
    fisher = batch_size * grad * grad if curvature is None else curvature
    s = (1 - precond_lr * decay) * state["statistic"] + precond_lr * fisher
    new["statistic"] = np.asarray(s)
    direction = e / np.maximum(s + damping, TINY)
    return descend(param, direction, new, lr, weight_decay, weight_decay_mode)
