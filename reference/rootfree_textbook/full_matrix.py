"""Full-matrix methods: the parameter is one vector of length D, its preconditioner a D x D matrix.

The root method divides by the square root of a matrix statistic of gradients. Without the root the
statistic S is an inverse covariance, and natural-gradient descent on a Gaussian may keep S itself,
its inverse Sigma, or a factor B with Sigma = B B^T. With curvature H and rate b2 that is

    {mu, S}       S     <- (1 - b2 gam) S + b2 H                       U = S^-1 g
    {mu, S^-1}    Sigma <- (1 + b2 gam) Sigma - b2 Sigma H Sigma       U = Sigma g
    {mu, B}       B     <- B (I - (b2/2) (B^T H B - gam I))            U = B B^T g

and the three agree to first order in b2. g = vec(G) row by row, and H is as `curvature` says:
alpha g g^T + lam I, unless the caller gives another. Arguments, state and the last stage of a step
are those of `diagonal`; besides there are

    update_now         False: the step sees no curvature, the old matrices serve
    precond_momentum   a2 in [0, 1): momentum of the factor's direction m, factor form only
    trust_clip         divide a step of the factor by the norm of m where that is larger than 1
    curvature          a mapping, see `curvature`; no such argument in the root method

    "statistic"          S in full_adagrad and rf_full_matrix, Sigma in rf_full_matrix_inverse
    "root"               (S + lam I)^-1/2; full_adagrad
    "factor.0"           B; rf_full_matrix_factor
    "factor_momentum.0"  m, symmetric. Absent: the last direction itself, as with a2 = 0

All matrices are (D, D). S, Sigma and m are symmetric, B is not.

References:
    W. Lin and others. Can We Remove the Square-Root in Adaptive Gradient Methods? A Second-Order
    Perspective. ICML 2024. arXiv 2402.03496, poster. M. E. Khan, H. Rue. The Bayesian Learning
    Rule. 2021. arXiv 2107.04562.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rootfree_textbook.curvature import Curvature, curvature_matrix
from rootfree_textbook.descent import Array, State, WeightDecayMode, descend


def full_adagrad(
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
    update_now: bool = True,
) -> tuple[Array, State]:
    """Full-matrix AdaGrad: the inverse root of the sum of all gradient outer products, S_0 = 0.

        S <- (1 - b2 gam) S + b2 g g^T
        R <- (S + lam I)^-1/2                 by eigenvalues, negative ones taken as 0
        W <- W - lr R g

    S has no full rank before D gradients: lam > 0 is needed. The first root is I.

    References:
        J. Duchi, E. Hazan, Y. Singer. Adaptive Subgradient Methods for Online Learning and
        Stochastic Optimization. JMLR 2011, full-matrix form. Poster of arXiv 2402.03496.
    """
    g = grad.reshape(-1)
    S, R = state["statistic"].copy(), state["root"].copy()
    if update_now:
        S = (1 - precond_lr * decay) * S + precond_lr * np.outer(g, g)
        eigenvalues, V = np.linalg.eigh(S)
        R = V @ np.diag((np.maximum(eigenvalues, 0) + damping) ** -0.5) @ V.T
    direction = (R @ g).reshape(param.shape)
    new = {**state, "statistic": S, "root": R, "step": state["step"] + 1}
    return descend(param, direction, new, lr, weight_decay, weight_decay_mode, momentum)


def rf_full_matrix(
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
    update_now: bool = True,
    improved: bool = False,
    curvature: Curvature | None = None,
) -> tuple[Array, State]:
    """Root-free, S form: natural-gradient descent in the inverse covariance S, S_0 = I.

        S <- (1 - b2 gam) S + b2 H
        W <- W - lr S^-1 g

    A caller's indefinite H may make S indefinite. `improved` adds the second-order term of the
    geodesic, after which S_new >= S/2 for every symmetric H (Dl = H - gam S):

        S <- S + b2 Dl + (b2^2/2) Dl S^-1 Dl

    References:
        Poster of arXiv 2402.03496, {mu, S}. W. Lin, M. Schmidt, M. E. Khan. Handling the
        Positive-Definite Constraint in the Bayesian Learning Rule. ICML 2020. arXiv 2002.10060.
    """
    g = grad.reshape(-1)
    S = state["statistic"].copy()
    if update_now:
        H = curvature_matrix(grad, batch_size, damping, curvature)
        if improved:
            Dl = H - decay * S
            S = S + precond_lr * Dl + precond_lr**2 / 2 * Dl @ np.linalg.inv(S) @ Dl
        else:
            S = (1 - precond_lr * decay) * S + precond_lr * H
    direction = (np.linalg.inv(S) @ g).reshape(param.shape)
    new = {**state, "statistic": S, "step": state["step"] + 1}
    return descend(param, direction, new, lr, weight_decay, weight_decay_mode, momentum)


def rf_full_matrix_inverse(
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
    update_now: bool = True,
    exact: bool = False,
    curvature: Curvature | None = None,
) -> tuple[Array, State]:
    """Root-free, inverse-S form: natural-gradient descent in the covariance Sigma, Sigma_0 = I.

        Sigma <- (1 + b2 gam) Sigma - b2 Sigma H Sigma
        W     <- W - lr Sigma g

    Sigma stays positive definite only while b2 lmax(Sigma^1/2 H Sigma^1/2) < 1 + b2 gam. `exact`
    takes the inverse of the S form's new S instead; it is for H = alpha g g^T alone, of rank one:

        c     = 1 - b2 gam;  v = Sigma g
        Sigma <- (Sigma - b2 alpha v v^T / (c + b2 alpha g^T v)) / c

    References:
        Poster of arXiv 2402.03496, {mu, S^-1}. J. Sherman, W. J. Morrison. Adjustment of an Inverse
        Matrix Corresponding to a Change in One Element of a Given Matrix. 1950.

    Raises:
        ValueError: `exact` with damping or with a caller's curvature.
    """
    if exact and (damping != 0 or curvature is not None):
        msg = "`exact` is for the gradient outer product without damping"
        raise ValueError(msg)
    g = grad.reshape(-1)
    Sigma = state["statistic"].copy()
    if update_now:
        if exact:
            c, weight, v = 1 - precond_lr * decay, precond_lr * batch_size, Sigma @ g
            Sigma = (Sigma - weight * np.outer(v, v) / (c + weight * (g @ v))) / c
        else:
            H = curvature_matrix(grad, batch_size, damping, curvature)
            Sigma = (1 + precond_lr * decay) * Sigma - precond_lr * Sigma @ H @ Sigma
    direction = (Sigma @ g).reshape(param.shape)
    new = {**state, "statistic": Sigma, "step": state["step"] + 1}
    return descend(param, direction, new, lr, weight_decay, weight_decay_mode, momentum)


def rf_full_matrix_factor(
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
    precond_momentum: float = 0.0,
    decay: int = 1,
    weight_decay_mode: WeightDecayMode = "coupled",
    update_now: bool = True,
    trust_clip: bool = True,
    curvature: Curvature | None = None,
) -> tuple[Array, State]:
    """Root-free, factor form: natural-gradient descent in B with Sigma = B B^T, B_0 = I.

        m   <- a2 m + (1 - a2) (1/2) (B^T H B - gam I)
        eta  = b2 / max(1, ||m||)                            b2 without `trust_clip`
        B   <- B - eta B m
        W   <- W - lr B B^T g

    Sigma(M) = B Exp(M) Exp(M)^T B^T has the derivative B^T H B - gam I at M = 0 and the Fisher
    metric 2 ||dM||^2; Exp is cut behind its linear term. B B^T is positive semi-definite by
    construction. This is SIRF-Shampoo for a single dense axis.

    References:
        Poster of arXiv 2402.03496, {mu, B}. W. Lin and others. Structured Inverse-Free Natural
        Gradient Descent. ICML 2024. arXiv 2312.05705.
    """
    g = grad.reshape(-1)
    new = {**state, "step": state["step"] + 1}
    B = state["factor.0"].copy()
    if "factor_momentum.0" in state:
        new["factor_momentum.0"] = state["factor_momentum.0"].copy()
    if update_now:
        H = curvature_matrix(grad, batch_size, damping, curvature)
        m = (B.T @ H @ B - decay * np.eye(g.size)) / 2
        if "factor_momentum.0" in state:
            m = precond_momentum * state["factor_momentum.0"] + (1 - precond_momentum) * m
            new["factor_momentum.0"] = m
        eta = precond_lr / max(1.0, np.sqrt(np.sum(m * m))) if trust_clip else precond_lr
        B = B - eta * B @ m
    new["factor.0"] = B
    direction = (B @ B.T @ g).reshape(param.shape)
    return descend(param, direction, new, lr, weight_decay, weight_decay_mode, momentum)


def first_matrices(
    name: str, param: Array, init_scale: float, *, with_factor_momentum: bool
) -> State:
    """The matrices of a full-matrix method before its first step, from S_0 = `init_scale` I.

    R = I whatever S_0 is, Sigma = S_0^-1, B = S_0^-1/2, m = 0.
    """
    eye = np.eye(param.size)
    if name == "full_adagrad":
        return {"statistic": init_scale * eye, "root": eye}
    if name == "rf_full_matrix":
        return {"statistic": init_scale * eye}
    if name == "rf_full_matrix_inverse":
        return {"statistic": eye / init_scale}
    state: State = {"factor.0": init_scale**-0.5 * eye}
    if with_factor_momentum:
        state["factor_momentum.0"] = np.zeros_like(eye)
    return state
