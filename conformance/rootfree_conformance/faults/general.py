"""Faults of the diagonal family, of what all rules share, of adapters, ports and the suite."""

from __future__ import annotations

from typing import Final

from rootfree_conformance.faults._fault import Fault

_DIAGONAL = "rootfree/diagonal.py"
_DESCENT = "rootfree/descent.py"
_PRECISION = "rootfree/precision.py"
_UPDATE = "rootfree/_update.py"
_CURVATURE = "rootfree/curvature.py"

GENERAL: Final = (
    Fault(
        "M12",
        "the textbook forgets the weight of the new curvature in RF-RMSProp",
        "rootfree_textbook/diagonal.py",
        """    s = (1 - precond_lr * decay) * state["statistic"] + precond_lr * fisher
    direction = grad / np.maximum(s + damping, TINY)
    new = {**state, "statistic": np.asarray(s), "step": state["step"] + 1}
    return descend(param, direction, new, lr, weight_decay, weight_decay_mode, momentum)


def rf_adamw(""",
        """    s = (1 - precond_lr * decay) * state["statistic"] + fisher
    direction = grad / np.maximum(s + damping, TINY)
    new = {**state, "statistic": np.asarray(s), "step": state["step"] + 1}
    return descend(param, direction, new, lr, weight_decay, weight_decay_mode, momentum)


def rf_adamw(""",
        "A0",
        "suite",
        ("rf_rmsprop",),
    ),
    Fault(
        "M16",
        "precond_lr x 1.001",
        _DIAGONAL,
        "s = s + hyper.precond_lr * h",
        "s = s + 1.001 * hyper.precond_lr * h",
        "L3.2",
        rules=("rf_rmsprop",),
    ),
    Fault(
        "M20",
        "sign of the coupled weight decay",
        _DESCENT,
        'if weight_decay_mode == "coupled":\n        direction = direction + ',
        'if weight_decay_mode == "coupled":\n        direction = direction - ',
        "L3.2",
        rules=("rf_rmsprop",),
    ),
    Fault(
        "M21",
        "coupled weight decay ignored",
        _DESCENT,
        'if weight_decay_mode == "coupled":\n',
        'if weight_decay_mode == "nowhere":\n',
        "L3.2",
        rules=("sgd",),
    ),
    Fault(
        "M22",
        "momentum x 0.99",
        _DESCENT,
        "momentum = hyper.momentum * momentum",
        "momentum = 0.99 * hyper.momentum * momentum",
        "L3.2",
        rules=("sgd",),
    ),
    Fault(
        "M23",
        "heavy ball damped by 1 - momentum",
        _DESCENT,
        "momentum = hyper.momentum * momentum + direction",
        "momentum = hyper.momentum * momentum + (1 - hyper.momentum) * direction",
        "L3.2",
        rules=("rf_rmsprop",),
    ),
    Fault(
        "M24",
        "lr x 1.0005",
        _DESCENT,
        "return -hyper.lr * direction",
        "return -1.0005 * hyper.lr * direction",
        "L3.2",
        rules=("rf_rmsprop",),
    ),
    Fault(
        "M29",
        "the root left in",
        _DIAGONAL,
        "root = xp.sqrt(s) if self.power == 0.5 else s",
        "root = xp.sqrt(s)",
        "L3.2",
        rules=("rf_rmsprop",),
    ),
    Fault(
        "M30",
        "1 - precond_lr x 0.999",
        _DIAGONAL,
        "s = (1 - hyper.precond_lr) * s",
        "s = 0.999 * (1 - hyper.precond_lr) * s",
        "L3.2",
        rules=("rf_rmsprop",),
    ),
    Fault(
        "M31",
        "no weight on the squared gradient",
        _DIAGONAL,
        "s = s + hyper.precond_lr * h",
        "s = s + h",
        "L3.2",
        rules=("rf_rmsprop",),
    ),
    Fault(
        "M32",
        "alpha missing",
        _CURVATURE,
        "return square if scale is None else scale * square",
        "return square",
        "L3.2",
        rules=("rf_adagrad",),
    ),
    Fault(
        "M33",
        "damping dropped",
        _DIAGONAL,
        "xp.maximum(root + hyper.damping,",
        "xp.maximum(root,",
        "L3.2",
        rules=("rf_rmsprop",),
    ),
    Fault(
        "M34",
        "damping x 1.1",
        _DIAGONAL,
        "xp.maximum(root + hyper.damping,",
        "xp.maximum(root + 1.1 * hyper.damping,",
        "L3.2",
        rules=("rf_rmsprop",),
        policies=("float32", "bfloat16"),
    ),
    Fault(
        "M35",
        "sign of the decoupled decay",
        _DESCENT,
        'if weight_decay_mode == "decoupled":\n        direction = direction + ',
        'if weight_decay_mode == "decoupled":\n        direction = direction - ',
        "L3.2",
        rules=("adamw",),
    ),
    Fault(
        "M36",
        "decoupled decay missing",
        _DESCENT,
        'if weight_decay_mode == "decoupled":\n',
        'if weight_decay_mode == "nowhere":\n',
        "L3.2",
        rules=("rf_adamw",),
    ),
    Fault(
        "M39",
        "state kept in bfloat16 though the policy says float32",
        "rootfree_array/_precision.py",
        "state_dtype=dtypes[self.state],",
        "state_dtype=dtypes['bfloat16'],",
        "L6.1",
        policies=("bfloat16",),
    ),
    Fault(
        "M43",
        "`zeros` without `device=`",
        _DIAGONAL,
        "return xp.zeros((n,), dtype=xp.int32, device=where)",
        "return xp.zeros((n,), dtype=xp.int32)",
        "L3.2",
        "array_api_strict",
        rules=("adamw",),
    ),
    Fault(
        "M47",
        "the statistic is changed in place",
        _DIAGONAL,
        "s = s + hyper.precond_lr * h",
        "statistic += hyper.precond_lr * h; s = statistic",
        "L3.2",
        "numpy_readonly",
        rules=("rf_adagrad",),
    ),
    Fault(
        "M52",
        "torch forgets the momentum buffer when it loads",
        "rootfree_torch/_state.py",
        "for role, value in saved.items()}\n\n\ndef _placed(",
        'for role, value in saved.items() if role != "momentum"}\n\n\ndef _placed(',
        "L5.1",
        "torch",
        rules=("rf_rmsprop",),
    ),
    Fault(
        "M59",
        "the gradient's shape is not checked",
        "rootfree/validation.py",
        "if tuple(grad.shape) != tuple(param.shape):",
        "if False:",
        "L8.3",
    ),
    Fault(
        "M71",
        "the comparator says that everything is within its bound",
        "rootfree_conformance/judges/ratio.py",
        "ratios = np.where(error == 0, 0.0,",
        "ratios = np.where(error == error, 0.0,",
        "A4",
        "suite",
    ),
    Fault(
        "M72",
        "a case is missing from the must-pass list",
        "rootfree_conformance/mustpass.txt",
        "L3.2/rf_rmsprop/balanced/3x5@float32\n",
        "",
        "A5",
        "suite",
    ),
    Fault(
        "M73",
        "stochastic rounding is rounding to nearest",
        _PRECISION,
        'if precision.rounding == "nearest" or salt is None',
        'if True or precision.rounding == "nearest" or salt is None',
        "L6.4",
        policies=("bfloat16-stochastic",),
    ),
    Fault(
        "M78",
        "bias correction counts from zero",
        _DIAGONAL,
        "t = per_member(cast(step, like.dtype), like) + 1",
        "t = per_member(cast(step, like.dtype), like) + 0",
        "L3.2",
        rules=("adamw",),
    ),
    Fault(
        "M79",
        "root-free statistics start at zero",
        _DIAGONAL,
        "statistic=filled(self.init_scale) if self.power else None",
        "statistic=filled(0.0) if self.power else None",
        "L3.2",
        rules=("rf_rmsprop",),
    ),
    Fault(
        "M80",
        "the average of gradients has weight 1 on the new gradient",
        _DIAGONAL,
        "cast(first_moment, dtype) + (1 - hyper.momentum) * grad",
        "cast(first_moment, dtype) + grad",
        "L3.2",
        rules=("rf_adamw",),
    ),
    Fault(
        "M81",
        "a sum decays like an average",
        _DIAGONAL,
        "            if self.decay:\n",
        "            if True:\n",
        "L3.2",
        rules=("adagrad",),
    ),
    Fault(
        "M82",
        "the direction is made with the statistic of the step before",
        _UPDATE,
        """    if observe:
        state = rule.observe(grad, state, hyper, curvature)
    momentum = None if state.momentum is None else cast(state.momentum, dtype)
    step, momentum = descend(
        rule.direction(grad, state, hyper),""",
        """    before = state
    if observe:
        state = rule.observe(grad, state, hyper, curvature)
    momentum = None if state.momentum is None else cast(state.momentum, dtype)
    step, momentum = descend(
        rule.direction(grad, before, hyper),""",
        "L3.2",
        rules=("rf_rmsprop",),
    ),
    Fault(
        "M83",
        "rounding bits do not change from step to step",
        _PRECISION,
        "clock = cast(per_member(count, x), xp.int32) * _int32(_C2)",
        "clock = 0 * cast(per_member(count, x), xp.int32)",
        "L6.4",
        policies=("bfloat16-stochastic",),
    ),
    Fault(
        "M84",
        "the count stands still, so bias correction never fades",
        _UPDATE,
        "step=state.step + 1",
        "step=state.step + 0",
        "L4.0",
        rules=("adamw",),
    ),
    Fault(
        "M85",
        "JAX keeps the learning rate of the first step",
        "rootfree_jax/_stages.py",
        "lr=rate(state.count) if callable(rate) else rate",
        "lr=0.45",
        "L4.0",
        "jax",
        rules=("sgd",),
    ),
    Fault(
        "M86",
        "nothing keeps 0/0 out of the denominator",
        _DIAGONAL,
        "return x / xp.maximum(root + hyper.damping, xp.full_like(x, _tiny(x)))",
        "return x / (root + hyper.damping)",
        "L3.2",
        rules=("rmsprop", "rf_rmsprop"),
    ),
    Fault(
        "M87",
        "the count advances by two where no bias is corrected",
        _UPDATE,
        "step=state.step + 1",
        "step=state.step + 2",
        "L3.2",
        rules=("rf_rmsprop",),
    ),
    Fault(
        "M88",
        "every parameter has the same rounding bits",
        "rootfree_array/_precision.py",
        "return key - 2**32 if key >= 2**31 else key",
        "return 0",
        "L6.4",
        policies=("bfloat16-stochastic",),
    ),
)
