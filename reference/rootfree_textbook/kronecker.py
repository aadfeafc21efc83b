"""Kronecker methods: every axis of the parameter has a matrix, the preconditioner is their product.

A parameter with axes d_1, ..., d_N and D = d_1 ... d_N entries is g = vec(G), row by row, so that
the first axis belongs to the first factor of a Kronecker product. Axes of length 1 are dropped, a
scalar keeps one; `merge_dims` multiplies neighbouring axes, from the last one leftwards and never
into the first, while the product is not larger than it.

    Shampoo              U = (R_1 kron ... kron R_N) g              R_j = (L_j + lam I)^(-1/(2N))
    root-free Shampoo    U = (S_1 kron ... kron S_N)^-1 g
    SIRF-Shampoo         U = (K_1 K_1^T kron ... kron K_N K_N^T) g

The two root-free methods are natural-gradient descent on Gaussians of this covariance. They see the
curvature H (D x D, module `curvature`) through partial traces: with T a D x D matrix,

    (partial trace over the axes i != j of T)[a, b] = sum of T[.. a .., .. b ..] over equal other
                                                      indices of row and column

Arguments, state and the last stage of a step are those of `diagonal` and `full_matrix`; the buffer
of the heavy ball has the parameter's own shape. Besides there are

    structure    of the factors of SIRF-Shampoo, see `structures_of`
    max_dim      axes longer than this have diagonal factors, see `structures_of`
    merge_dims   above; None: no axes are merged

    "statistic.j"        L_j or S_j, (d_j, d_j)
    "root.j"             R_j, (d_j, d_j); Shampoo
    "factor.j"           K_j, in the storage of its structure; "factor.j.0", "factor.j.1", ... where
                         that has several arrays
    "factor_momentum.j"  m_j, the same. Absent: the last direction itself, as with a2 = 0

In a parameter without entries nothing is observed.

References:
    W. Lin and others. Can We Remove the Square-Root in Adaptive Gradient Methods? A Second-Order
    Perspective. ICML 2024. arXiv 2402.03496, poster.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rootfree_textbook.curvature import Curvature, curvature_matrix, kron
from rootfree_textbook.descent import Array, State, WeightDecayMode, descend
from rootfree_textbook.structures import (
    Structure,
    pack,
    packed_shapes,
    project,
    structures_of,
    unpack,
)


def shampoo(
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
    merge_dims: int | None = None,
    update_now: bool = True,
) -> tuple[Array, State]:
    """Shampoo: a matrix statistic per axis, divided out with the exponent 1/(2N), L_j = 0 at first.

        L_j <- (1 - b2 gam) L_j + b2 mat_j(G) mat_j(G)^T
        R_j <- (L_j + lam I)^(-1/(2N))            by eigenvalues, negative ones taken as 0
        W   <- W - lr (R_1 kron ... kron R_N) g

    mat_j(G) has axis j as its rows. Neither grafted nor corrected for its start. The first roots
    are I.

    References:
        V. Gupta, T. Koren, Y. Singer. Shampoo: Preconditioned Stochastic Tensor Optimization. ICML
        2018. arXiv 1802.09568, algorithm 2. Poster of arXiv 2402.03496, Shampoo.
    """
    shape = axes(param.shape, merge_dims)
    N = len(shape)
    G = grad.reshape(shape)
    new = _copy(state)
    for j in range(N if update_now and param.size > 0 else 0):
        rows = np.moveaxis(G, j, 0).reshape(shape[j], -1)
        L = (1 - precond_lr * decay) * state[f"statistic.{j}"] + precond_lr * rows @ rows.T
        eigenvalues, V = np.linalg.eigh(L)
        powers = (np.maximum(eigenvalues, 0) + damping) ** (-1 / (2 * N))
        new[f"statistic.{j}"], new[f"root.{j}"] = L, V @ np.diag(powers) @ V.T
    roots = [new[f"root.{j}"] for j in range(N)]
    direction = (kron(roots) @ grad.reshape(-1)).reshape(param.shape)
    return descend(param, direction, new, lr, weight_decay, weight_decay_mode, momentum)


def rf_shampoo(
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
    merge_dims: int | None = None,
    update_now: bool = True,
    curvature: Curvature | None = None,
) -> tuple[Array, State]:
    """Root-free Shampoo: natural-gradient descent in the factors S_j of S, S_j = I at first.

        P_j  = S_1^-1 kron ... kron I (in place j) kron ... kron S_N^-1
        H_j  = (d_j/D) partial trace over i != j of P_j H
        S_j <- (1 - b2 gam) S_j + b2 H_j          all from the old factors
        W   <- W - lr (S_1 kron ... kron S_N)^-1 g

    For a p x d parameter and H = alpha g g^T + lam I that is (C for rows, K for columns)

        S_C <- (1 - b2 gam) S_C + (b2/d) (alpha G S_K^-1 G^T + lam tr(S_K^-1) I)
        S_K <- (1 - b2 gam) S_K + (b2/p) (alpha G^T S_C^-1 G + lam tr(S_C^-1) I)

    H_j is symmetric; its rounding is made so.

    References:
        Poster of arXiv 2402.03496, root-free Shampoo.
    """
    shape = axes(param.shape, merge_dims)
    N, D = len(shape), param.size
    new = _copy(state)
    if update_now and D > 0:
        H = curvature_matrix(grad, batch_size, damping, curvature)
        inverses = [np.linalg.inv(state[f"statistic.{j}"]) for j in range(N)]
        for j, d in enumerate(shape):
            P = kron([np.eye(d) if i == j else inverses[i] for i in range(N)])
            H_j = d / D * partial_trace(P @ H, shape, j)
            S = (1 - precond_lr * decay) * state[f"statistic.{j}"]
            new[f"statistic.{j}"] = S + precond_lr * (H_j + H_j.T) / 2
    inverses = [np.linalg.inv(new[f"statistic.{j}"]) for j in range(N)]
    direction = (kron(inverses) @ grad.reshape(-1)).reshape(param.shape)
    return descend(param, direction, new, lr, weight_decay, weight_decay_mode, momentum)


def sirf_shampoo(
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
    structure: Structure = "dense",
    max_dim: int | None = 4096,
    merge_dims: int | None = None,
    update_now: bool = True,
    trust_clip: bool = True,
    curvature: Curvature | None = None,
) -> tuple[Array, State]:
    """SIRF-Shampoo: natural-gradient descent in structured factors K_j of S^-1, K_j = I at first.

        T    = (K_1 kron ... kron K_N)^T H (K_1 kron ... kron K_N)
        N_j  = (d_j/D) partial trace over i != j of T
        m_j <- a2 m_j + (1 - a2) (1/2) (Pi_j(N_j) - gam I)
        eta  = b2 / max(1, ||m_j||)                            b2 without `trust_clip`
        K_j <- K_j - eta K_j m_j                               all from the old factors
        W   <- W - lr (K_1 K_1^T kron ... kron K_N K_N^T) g

    Pi_j is the projection onto the structure of axis j (`project`); it keeps I. The norm is that of
    the d_j x d_j matrix, also where fewer numbers are stored.

    References:
        Poster of arXiv 2402.03496, inverse-free Shampoo, and the released code. W. Lin and others.
        Structured Inverse-Free Natural Gradient Descent. ICML 2024. arXiv 2312.05705.
    """
    shape = axes(param.shape, merge_dims)
    D = param.size
    structures = structures_of(structure, shape, max_dim)
    new = _copy(state)
    K = [_read(state, f"factor.{j}", structures[j], d) for j, d in enumerate(shape)]
    if update_now and D > 0:
        H = curvature_matrix(grad, batch_size, damping, curvature)
        old = kron(K)
        T = old.T @ H @ old
        for j, d in enumerate(shape):
            N_j = project(structures[j], d / D * partial_trace(T, shape, j))
            m = (N_j - decay * np.eye(d)) / 2
            if _roles(f"factor_momentum.{j}", structures[j], d)[0] in state:
                before = _read(state, f"factor_momentum.{j}", structures[j], d)
                m = precond_momentum * before + (1 - precond_momentum) * m
                new |= _stored(f"factor_momentum.{j}", structures[j], m)
            eta = precond_lr / max(1.0, np.sqrt(np.sum(m * m))) if trust_clip else precond_lr
            K[j] = K[j] - eta * K[j] @ m
            new |= _stored(f"factor.{j}", structures[j], K[j])
    direction = (kron([k @ k.T for k in K]) @ grad.reshape(-1)).reshape(param.shape)
    return descend(param, direction, new, lr, weight_decay, weight_decay_mode, momentum)


def axes(shape: Sequence[int], merge_dims: int | None = None) -> tuple[int, ...]:
    """Lengths of the axes that have factors.

    Example:
        >>> axes((64, 1, 64, 3, 3)), axes((64, 64, 3, 3), merge_dims=16), axes(())
        ((64, 64, 3, 3), (64, 64, 9), (1,))
    """
    lengths = [d for d in shape if d != 1] or [1]
    if merge_dims is None:
        return tuple(lengths)
    merged = [lengths.pop()]
    while len(lengths) > 1:
        d = lengths.pop()
        if d * merged[0] <= merge_dims:
            merged[0] *= d
        else:
            merged.insert(0, d)
    return (*lengths, *merged)


def partial_trace(T: Array, shape: Sequence[int], j: int) -> Array:
    """Sum over equal row and column indices of all axes but the j-th: (D, D) -> (d_j, d_j).

    Example:
        >>> partial_trace(np.kron(np.diag([1.0, 2.0]), np.ones((2, 2))), (2, 2), 0)
        array([[2., 0.],
               [0., 4.]])
    """
    traced = T.reshape(*shape, *shape)
    for axis in reversed(range(len(shape))):  # so that the axes still to come keep their numbers
        if axis != j:
            traced = np.trace(traced, axis1=axis, axis2=axis + traced.ndim // 2)
    return traced


def first_factors(
    name: str,
    param: Array,
    init_scale: float,
    *,
    with_factor_momentum: bool,
    structure: Structure,
    max_dim: int | None,
    merge_dims: int | None,
) -> State:
    """The matrices of a Kronecker method before its first step, from s_0 = `init_scale`.

    L_j = s_0 I and R_j = I; S_j = s_0^(1/N) I; K_j = s_0^(-1/(2N)) I and m_j = 0.
    """
    shape = axes(param.shape, merge_dims)
    structures = structures_of(structure, shape, max_dim)
    N = len(shape)
    state: State = {}
    for j, d in enumerate(shape):
        eye = np.eye(d)
        if name == "shampoo":
            state[f"statistic.{j}"] = init_scale * eye
            state[f"root.{j}"] = eye
        elif name == "rf_shampoo":
            state[f"statistic.{j}"] = init_scale ** (1 / N) * eye
        else:
            K = init_scale ** (-1 / (2 * N)) * eye
            state |= _stored(f"factor.{j}", structures[j], K)
            if with_factor_momentum:
                state |= _stored(f"factor_momentum.{j}", structures[j], np.zeros((d, d)))
    return state


def _copy(state: Mapping[str, Any]) -> State:
    """The state with the count of this step; arrays that the step does not replace are copies."""
    copied = {role: array.copy() for role, array in state.items() if role != "step"}
    return {"step": state["step"] + 1, **copied}


def _roles(role: str, structure: str, d: int) -> list[str]:
    """Names of the arrays of a factor: numbered where its structure has several."""
    count = sum(0 not in shape for shape in packed_shapes(structure, d))
    return [role] if count == 1 else [f"{role}.{i}" for i in range(count)]


def _stored(role: str, structure: str, matrix: Array) -> State:
    """The part of the state that holds a factor."""
    roles = _roles(role, structure, len(matrix))
    return dict(zip(roles, pack(structure, matrix), strict=True))


def _read(state: Mapping[str, Any], role: str, structure: str, d: int) -> Array:
    """The factor that `_stored` stored, as a d x d matrix."""
    return unpack(structure, [state[name] for name in _roles(role, structure, d)], d)
