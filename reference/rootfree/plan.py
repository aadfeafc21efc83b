"""What a rule costs for given shapes: bytes of its state and operations of its steps.

The rule's own text is run on arrays that have a shape and a dtype but no numbers, so that a plan
says what the rule does and not what a second description of it claims. Nothing is allocated.

References:
    Golub, Van Loan, Matrix Computations, 4th edition, 2013: sections 3.1, 3.2 (operations of a
    solve) and 8.3 (of eigenvectors).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from rootfree._shapes_only import ShapesOnly
from rootfree._typing import DType, Hyper, Rule
from rootfree._update import update
from rootfree.state import roles
from rootfree.structures import STRUCTURES, Structure
from rootfree.validation import check_period


@dataclass(frozen=True)
class PlanRow:
    """What one parameter costs.

    Attributes:
        name: of the parameter.
        shape: of the parameter.
        dims: lengths of the axes that have a matrix or a statistic, after merging.
        structure: the name of every such axis's structure; empty for a rule that has none.
        state_bytes: of the state, counters included.
        observe_flops: floating-point operations by which the curvature enters the preconditioner.
        direction_flops: those of every step besides: direction, weight decay, heavy ball, learning
            rate; not the addition of the step to the parameter.
    """

    name: str
    shape: tuple[int, ...]
    dims: tuple[int, ...]
    structure: tuple[str, ...]
    state_bytes: int
    observe_flops: int
    direction_flops: int


@dataclass(frozen=True)
class Plan:
    """What all parameters cost; ``str`` of it is a table.

    Attributes:
        rows: one for each parameter, in order.
    """

    rows: tuple[PlanRow, ...]

    @property
    def state_bytes(self) -> int:
        """Bytes of all state."""
        return sum(row.state_bytes for row in self.rows)

    @property
    def observe_flops(self) -> int:
        """Operations of `observe` for all parameters."""
        return sum(row.observe_flops for row in self.rows)

    @property
    def direction_flops(self) -> int:
        """Operations of a step without `observe` for all parameters."""
        return sum(row.direction_flops for row in self.rows)

    def per_step(self, update_every: int = 1) -> float:
        """Return the mean number of operations of a step.

        Args:
            update_every: period of `observe`, >= 1.

        Raises:
            TypeError, ValueError: if it is not.
        """
        check_period("update_every", update_every)
        return self.direction_flops + self.observe_flops / update_every

    def __str__(self) -> str:
        head = ("name", "shape", "axes", *_UNITS)
        body = [(row.name, str(row.shape), _axes(row), *_numbers(row)) for row in self.rows]
        lines = [head, *body, ("total", "", "", *_numbers(self))]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        bars = tuple("-" * width for width in widths)
        return "\n".join(_line(cells, widths) for cells in (head, bars, *body, bars, lines[-1]))


def plan(
    rule: Rule[Any],
    shapes: Mapping[str, Any] | Iterable[Any],
    *,
    param_dtype: DType = None,
    damping: float = 1.0,
) -> Plan:
    """Return what a rule costs for parameters of given shapes, without allocating anything.

    A product of (m, n) and (n, k) counts 2 m n k, an elementwise function 1 for each number of its
    result, a sum 1 for each number it is taken over, a solve 2/3 n^3 and 2 n^2 for each right-hand
    side, eigenvectors 9 n^3; casts and copies nothing. The curvature is the gradient outer product.
    A parameter without elements has no state and no work.

    Args:
        rule: with its static configuration, from `rootfree.Method.rule` for example.
        shapes: a shape for each parameter by name, or a sequence of shapes, which are named by
            number. What has a shape, such as an array, will do as one.
        param_dtype: of parameters and gradients; the working dtype by default.
        damping: as in `rootfree.Hyper`. Only whether it is 0 matters: some products are then left
            out, and an `exact` rule asks for it.

    Raises:
        TypeError: for a shape that is none, or a dtype whose size is not known.
        ValueError: for a negative length, or what the rule itself refuses.

    Example:
        >>> import array_api_compat.numpy as xp
        >>> from rootfree import Precision, SIRFShampoo, plan
        >>> rule = SIRFShampoo(Precision.uniform(xp.float32), max_dim=1000)
        >>> print(plan(rule, {"w": (5000, 64), "b": (64,)}))
        name   shape       axes                      state (bytes)  observe (flop)  direction (flop)
        -----  ----------  ------------------------  -------------  --------------  ----------------
        w      (5000, 64)  5000 diagonal x 64 dense      1,352,772      84,074,126        43,724,289
        b      (64,)       64 dense                         33,028       1,130,502            16,705
        -----  ----------  ------------------------  -------------  --------------  ----------------
        total                                            1,385,800      85,204,628        43,740,994
    """
    named = shapes.items() if isinstance(shapes, Mapping) else enumerate(shapes)
    pairs = [(str(name), _shape(name, entry)) for name, entry in named]
    dtype = rule.precision.working_dtype if param_dtype is None else param_dtype
    hyper = Hyper(1.0, 0.5, 0.5, 0.5, damping, 1.0, 1.0)
    costs = {shape: _cost(rule, shape, dtype, hyper) for shape in {shape for _, shape in pairs}}
    return Plan(tuple(PlanRow(name, shape, *costs[shape]) for name, shape in pairs))


class _Cost(NamedTuple):
    """The fields of a row that a shape decides."""

    dims: tuple[int, ...]
    structure: tuple[str, ...]
    state_bytes: int
    observe_flops: int
    direction_flops: int


def _cost(rule: Rule[Any], shape: tuple[int, ...], dtype: DType, hyper: Hyper) -> _Cost:
    """Return what a parameter of this shape costs."""
    if 0 in shape:
        return _Cost((), (), 0, 0, 0)
    xp = ShapesOnly()
    param = xp.array((1, *shape), dtype)
    state = rule.init(param)
    arrays: Any = roles(state)

    def spent(*, observe: bool) -> int:
        xp.flops.clear()
        update(rule, param, state, param, hyper, observe)
        return xp.flops.total()

    direction = spent(observe=False)
    structures = getattr(rule, "structures", None)
    return _Cost(
        dims=rule.dims(shape),
        structure=() if structures is None else tuple(map(_name, structures(shape))),
        state_bytes=sum(array.nbytes for array in arrays.values()),
        observe_flops=spent(observe=True) - direction,
        direction_flops=direction,
    )


def _name(space: Structure) -> str:
    """Return the name of a structure with what it takes, as a user would write it."""
    word = next(word for word, kind in STRUCTURES.items() if kind is type(space))
    taken = [str(getattr(space, field.name)) for field in fields(space)[2:]]  # size, precision
    return f"{word}({', '.join(taken)})" if taken else word


def _shape(name: object, entry: Any) -> tuple[int, ...]:
    """Return a parameter's shape as a tuple."""
    try:
        shape = tuple(map(operator.index, getattr(entry, "shape", entry)))
    except TypeError:
        raise TypeError(
            f"`shapes` must have a shape for every parameter, a tuple of integers; got {entry!r} "
            f"for {name!r}"
        ) from None
    if any(length < 0 for length in shape):
        raise ValueError(f"lengths in a shape must be >= 0, got {shape} for {name!r}")
    return shape


_UNITS = ("state (bytes)", "observe (flop)", "direction (flop)")


def _numbers(counts: Plan | PlanRow) -> tuple[str, ...]:
    found = (counts.state_bytes, counts.observe_flops, counts.direction_flops)
    return tuple(f"{number:,}" for number in found)


def _axes(row: PlanRow) -> str:
    """Return the axes of a row with their structures, ``"64 dense x 9 diagonal"``."""
    names = row.structure or ("",) * len(row.dims)
    return " x ".join(
        f"{length} {name}".strip() for length, name in zip(row.dims, names, strict=True)
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return a row of the table: words to the left, numbers to the right."""
    words = [cell.ljust(width) for cell, width in zip(cells[:3], widths[:3], strict=True)]
    numbers = [cell.rjust(width) for cell, width in zip(cells[3:], widths[3:], strict=True)]
    return "  ".join([*words, *numbers])
