"""The bound is a bound (A1) and not a vacuous one (A2), in small (conformance 8.3).

An emulated arithmetic rounds after every operation, to nearest, upward, towards zero or to either
side at random, and the core runs on it unchanged. Its distance from the value that
`namespaces.bound` carries must never exceed the error that goes with it.

Rounding to nearest errs by at most half a spacing, ``u = 2**-p`` of a normal number with p
significant bits. The other roundings err by less than a spacing, ``2u``: the bound is then that of
a format marked ``stochastic``, whose unit is 2u for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import rootfree
from hypothesis import given, settings
from hypothesis import strategies as st
from rootfree import METHODS, Hyper, Precision
from rootfree_conformance.cases.expand import Case
from rootfree_conformance.cases.families import CORNERS, STRUCTURED, Corner, Policy
from rootfree_conformance.judges.ratio import ratio
from rootfree_conformance.namespaces.bound import BOOL, INT32, BoundArray, BoundNamespace, Kind
from rootfree_conformance.numeric import FORMATS, Format, NumericModel
from rootfree_conformance.thresholds import RATIO

TIGHT = 0.05  # A2: the share of its bound that every output reaches somewhere
SINGLE, BRAIN = FORMATS["float32"], FORMATS["bfloat16"]
ROUNDINGS = ("nearest", "upward", "towards_zero", "random", "contracted")
WRITES = ("fused", "returned")
BELOW_ONE = 1 - 2.0**-6  # what is nearer may be rounded to 1 in 8 bits, and out of its range


class Formats(NamedTuple):
    """Formats of the parameter, of the state and of the arithmetic."""

    param: Format
    state: Format
    working: Format


FORMATS_BY_NAME = {
    "24 bits": Formats(SINGLE, SINGLE, SINGLE),
    "8 bits": Formats(BRAIN, BRAIN, BRAIN),
    "8 bits computed in 24": Formats(BRAIN, BRAIN, SINGLE),
}


class Emulated:
    """An array of float64 numbers, all of them values of its format."""

    __slots__ = ("dtype", "value", "xp")
    __array_ufunc__ = None
    device = "cpu"

    def __init__(self, value: Any, dtype: Format | Kind, xp: Emulator) -> None:
        self.value, self.dtype, self.xp = np.asarray(value), dtype, xp

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.value.ndim

    def __array_namespace__(self, *, api_version: str | None = None) -> Emulator:
        return self.xp

    def _with(self, other: Any, function: Callable[[Any, Any], Any], *, swap: bool = False) -> Any:
        if not isinstance(other, Emulated):
            other = self.xp.rounded(other, self.dtype)
        assert other.dtype == self.dtype, f"{self.dtype} and {other.dtype} are mixed"
        pair = (other.value, self.value) if swap else (self.value, other.value)
        return self.xp.rounded(function(*pair), self.dtype)

    def __add__(self, other: Any) -> Emulated:
        return self._with(other, np.add)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Emulated:
        return self._with(other, np.subtract)

    def __rsub__(self, other: Any) -> Emulated:
        return self._with(other, np.subtract, swap=True)

    def __mul__(self, other: Any) -> Emulated:
        product = self._with(other, np.multiply)
        if self.xp.rounding == "contracted" and not isinstance(self.dtype, Kind):
            factor = other if isinstance(other, Emulated) else self.xp.rounded(other, self.dtype)
            product.value = self.value * factor.value
        return product

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Emulated:
        return self._with(other, np.divide)

    def __rtruediv__(self, other: Any) -> Emulated:
        return self._with(other, np.divide, swap=True)

    def __getitem__(self, key: Any) -> Emulated:
        return Emulated(self.value[key], self.dtype, self.xp)

    def __neg__(self) -> Emulated:
        return Emulated(-self.value, self.dtype, self.xp)

    def __lt__(self, other: float) -> Emulated:
        return Emulated(self.value < self.xp.rounded(other, self.dtype).value, BOOL, self.xp)

    def __eq__(self, other: object) -> Emulated:  # type: ignore[override]  # elementwise
        return Emulated(self.value == self.xp.rounded(other, self.dtype).value, BOOL, self.xp)

    __hash__ = None


class _Layout:
    """Functions that round nothing."""

    def _moved(self, function: Callable[..., Any], x: Emulated, *args: Any) -> Emulated:
        return Emulated(function(x.value, *args), x.dtype, x.xp)

    def reshape(self, x: Emulated, shape: tuple[int, ...], /) -> Emulated:
        """Rounds nothing."""
        return self._moved(np.reshape, x, shape)

    def permute_dims(self, x: Emulated, axes: tuple[int, ...], /) -> Emulated:
        """Rounds nothing."""
        return self._moved(np.transpose, x, axes)

    def matrix_transpose(self, x: Emulated, /) -> Emulated:
        """Rounds nothing."""
        return self._moved(np.swapaxes, x, -1, -2)

    def expand_dims(self, x: Emulated, /, *, axis: int) -> Emulated:
        """Rounds nothing."""
        return self._moved(np.expand_dims, x, axis)

    def broadcast_to(self, x: Emulated, /, shape: tuple[int, ...]) -> Emulated:
        """Rounds nothing."""
        return self._moved(np.broadcast_to, x, shape)

    def flip(self, x: Emulated, /, *, axis: int) -> Emulated:
        """Rounds nothing."""
        return self._moved(np.flip, x, axis)

    def tril(self, x: Emulated, /, *, k: int = 0) -> Emulated:
        """Rounds nothing."""
        return self._moved(np.tril, x, k)

    def triu(self, x: Emulated, /, *, k: int = 0) -> Emulated:
        """Rounds nothing."""
        return self._moved(np.triu, x, k)

    def concat(self, arrays: Any, /, *, axis: int = 0) -> Emulated:
        """Rounds nothing."""
        first = arrays[0]
        return Emulated(np.concatenate([x.value for x in arrays], axis=axis), first.dtype, first.xp)


class Emulator(_Layout):
    """A namespace whose every result is rounded; ``contracted`` leaves products unrounded (FMA).

    Sums are rounded term by term, in a random order.
    """

    __name__ = "emulator"
    int32 = INT32

    def __init__(self, rounding: str, seed: int = 0) -> None:
        self.rounding = rounding
        self._draws = np.random.default_rng(seed)
        self._round = {
            "nearest": np.rint,
            "contracted": np.rint,
            "upward": np.ceil,
            "towards_zero": np.trunc,
            "random": self._either_side,
        }[rounding]

    def _either_side(self, x: Any) -> Any:
        return np.where(self._draws.random(np.shape(x)) < 0.5, np.floor(x), np.ceil(x))

    def rounded(self, value: Any, dtype: Format | Kind) -> Emulated:
        """Round float64 numbers to a format; integers stay."""
        if isinstance(dtype, Kind):
            return Emulated(value, dtype, self)
        value = np.asarray(value, dtype=np.float64)
        last = np.maximum(np.frexp(value)[1], dtype.min_exponent + 1) - dtype.bits
        return Emulated(np.ldexp(self._round(np.ldexp(value, -last)), last), dtype, self)

    def _inexact(self, value: Any, ulps: float, dtype: Format) -> Emulated:
        """Round a number that is already off by up to ``ulps - 1`` units in the last place."""
        reach = 0.9 * (ulps - 1) * 2.0 ** (1 - dtype.bits)
        return self.rounded(value * (1 + reach * self._draws.uniform(-1, 1, value.shape)), dtype)

    def astype(self, x: Emulated, dtype: Format | Kind, /, *, copy: bool = True) -> Emulated:
        """Round to another format."""
        return self.rounded(x.value, dtype)

    def where(self, condition: Emulated, x: Emulated, y: Emulated, /) -> Emulated:
        """Choose."""
        assert x.dtype == y.dtype
        return Emulated(np.where(condition.value, x.value, y.value), x.dtype, self)

    def maximum(self, x: Emulated, y: Emulated, /) -> Emulated:
        """Rounds nothing."""
        return Emulated(np.maximum(x.value, y.value), x.dtype, self)

    def sqrt(self, x: Emulated, /) -> Emulated:
        """Correctly rounded."""
        return self.rounded(np.sqrt(x.value), x.dtype)

    def log1p(self, x: Emulated, /) -> Emulated:
        """Off by up to 2 units in the last place, as the model's default allows."""
        return self._inexact(np.log1p(x.value), NumericModel().log1p, x.dtype)

    def expm1(self, x: Emulated, /) -> Emulated:
        """Off by up to 3 units in the last place, as the model's default allows."""
        return self._inexact(np.expm1(x.value), NumericModel().expm1, x.dtype)

    def sum(self, x: Emulated, /, *, axis: int) -> Emulated:
        """Add up in a random order."""
        terms = np.moveaxis(x.value, axis, 0)
        total = Emulated(np.zeros(terms.shape[1:]), x.dtype, self)
        for index in self._draws.permutation(len(terms)):
            total = total + Emulated(terms[index], x.dtype, self)
        return total

    def matmul(self, x: Emulated, y: Emulated, /) -> Emulated:
        """Multiply and add up in a random order."""
        assert x.dtype == y.dtype
        total: Any = None
        for k in self._draws.permutation(x.shape[-1]):
            column = Emulated(x.value[..., :, k, np.newaxis], x.dtype, self)
            term = column * Emulated(y.value[..., np.newaxis, k, :], x.dtype, self)
            total = term if total is None else total + term
        return self.rounded(total.value, x.dtype)

    @property
    def linalg(self) -> Any:
        """Elimination in this arithmetic, and eigenvalues as a library has them."""
        return SimpleNamespace(solve=self._solve, eigh=self._eigh)

    def _solve(self, a: Emulated, b: Emulated) -> Emulated:
        answers = []
        for m, r in zip(a.value, b.value, strict=True):
            one = lambda v: Emulated(np.asarray(v), a.dtype, self)  # noqa: E731
            m, r, n = m.copy(), r.copy(), len(m)
            for k in range(n):
                best = k + int(np.argmax(np.abs(m[k:, k])))
                m[[k, best]], r[[k, best]] = m[[best, k]], r[[best, k]]
                factor = one(m[k + 1 :, k, np.newaxis]) / one(m[k, k])
                m[k + 1 :] = (one(m[k + 1 :]) - factor * one(m[k])).value
                r[k + 1 :] = (one(r[k + 1 :]) - factor * one(r[k])).value
            for k in reversed(range(n)):
                for other in range(k + 1, n):
                    r[k] = (one(r[k]) - one(m[k, other]) * one(r[other])).value
                r[k] = (one(r[k]) / one(m[k, k])).value
            answers.append(r)
        return self.rounded(np.stack(answers), a.dtype)

    def _eigh(self, a: Emulated) -> tuple[Emulated, Emulated]:
        w, v = np.linalg.eigh(np.tril(a.value) + np.swapaxes(np.tril(a.value, -1), -1, -2))
        return self.rounded(w, a.dtype), self.rounded(v, a.dtype)

    def pow(self, x: Emulated, y: Emulated, /) -> Emulated:
        """Off by up to 4 units in the last place."""
        return self._inexact(x.value**y.value, 4.0, x.dtype)

    def arange(self, start: int, /, stop: int, *, dtype: Any, device: Any = None) -> Emulated:
        """Return integers."""
        return Emulated(np.arange(start, stop, dtype=float), dtype, self)

    def eye(self, size: int, /, *, dtype: Any, device: Any = None) -> Emulated:
        """Return the identity."""
        return Emulated(np.eye(size), dtype, self)

    def full(self, shape: Any, value: float, *, dtype: Any, device: Any = None) -> Emulated:
        """Return an array of one number."""
        return self.rounded(np.full(shape, value), dtype)

    def zeros(self, shape: Any, *, dtype: Any, device: Any = None) -> Emulated:
        """Return zeros."""
        return self.full(shape, 0, dtype=dtype)

    def full_like(self, x: Emulated, value: float, /, *, dtype: Any = None) -> Emulated:
        """Return an array of one number."""
        return self.full(x.shape, value, dtype=dtype or x.dtype)

    def zeros_like(self, x: Emulated, /, *, dtype: Any = None) -> Emulated:
        """Return zeros."""
        return self.full_like(x, 0, dtype=dtype)

    def ones_like(self, x: Emulated, /) -> Emulated:
        """Return ones."""
        return self.full_like(x, 1)

    def finfo(self, dtype: Format, /) -> SimpleNamespace:
        """Return the smallest normal number."""
        return SimpleNamespace(smallest_normal=dtype.smallest_normal)


def march(
    case: Case, make: Callable[[Any, Any], Any], formats: Formats, scalar: Any, write: str
) -> Iterator[dict[str, Any]]:
    """Yield the arrays of the core after each step, whatever namespace ``make`` makes them of."""
    given, stored, working = formats
    rule = case.rule(Precision(working, stored, working))
    param = make(case.param[np.newaxis], given)
    state = rule.init(param)
    if case.state:
        kept = {role: make(case.state[role][np.newaxis], stored) for role in case.roles}
        count = make(np.asarray([case.state["step"]]), INT32)
        state = rootfree.with_roles(state, {**kept, "step": count})
    for grad, values in zip(case.grads, case.hypers, strict=True):
        hyper = Hyper(**{name: scalar(value) for name, value in values.items()})
        hyper = hyper._replace(**{k: 0.0 for k, v in values.items() if not v})
        step, state = rootfree.update(rule, make(grad[np.newaxis], given), state, param, hyper)
        if write == "fused":
            param = rootfree.add_step(param, step)
        else:
            param = param + rootfree.as_update(step, param.dtype)
        held = rootfree.roles(state)
        yield {**{role: held[role] for role in case.roles}, "param": param}


def bound_of(case: Case, formats: Formats, write: str) -> list[dict[str, Any]]:
    """Return values with bounds."""
    xp = BoundNamespace(
        NumericModel(
            write=write,
            accumulator_bits=formats.working.bits,
            accumulator_rounding="truncate" if formats.working.stochastic else "nearest",
        )
    )

    def make(host: Any, dtype: Any) -> BoundArray:
        return BoundArray(host, 0.0, dtype, xp)

    def scalar(value: float) -> BoundArray:
        return xp.scalar(value, formats.working)

    return list(march(case, make, formats, scalar, write))


def largest_ratios(
    case: Case, formats: Formats, rounding: str, write: str, *, arrays: bool, doubled: bool = True
) -> dict[str, float]:
    """Return the largest R of each output over the steps of a case.

    Args:
        case: inputs; its formats are `formats`'.
        formats: of the emulated arithmetic.
        rounding: of the emulated arithmetic.
        write: how the parameters are written.
        arrays: whether hyper-parameters are 0-d arrays, rounded at once, or Python numbers, rounded
            where they meet an array.
        doubled: whether the bound is told that the rounding is not to nearest.
    """
    xp = Emulator(rounding)

    def make(host: Any, dtype: Any) -> Emulated:
        return Emulated(host, dtype, xp)

    def scalar(value: float) -> Any:
        return xp.rounded(value, formats.working) if arrays else value

    directed = rounding not in ("nearest", "contracted")
    marked = [replace(form, stochastic=directed and doubled) for form in formats]
    found: dict[str, float] = {}
    with np.errstate(all="ignore"):
        came = list(march(case, make, formats, scalar, write))
        bounds = bound_of(case, Formats(*marked), write)
    for mine, bound in zip(came, bounds, strict=True):
        for role, b in bound.items():
            if not np.all(np.isfinite(b.error)):
                continue  # nothing is said, so nothing is exceeded
            r = ratio(mine[role].value, b.value, b.error).ratio
            found[role] = max(found.get(role, 0.0), r)
    return found


def case_of(name: str, rule: str, corner: Corner) -> Case:
    """Return three steps on inputs that the formats hold."""
    dtype = "float32" if name == "24 bits" else "bfloat16"
    matrix = METHODS[rule].matrix
    shape, steps = ((3, 2), 1) if matrix else ((7, 9), 3)
    return Case("A1", METHODS[rule], corner, shape, Policy(name, dtype, dtype), steps)


@cache
def table(name: str, rounding: str, rule: str) -> dict[str, float]:
    """Return the largest R of each output over corners, kinds of scalars and ways of writing."""
    found: dict[str, float] = {}
    structured = STRUCTURED if rule == "sirf_shampoo" else ()
    plain = [corner for corner in CORNERS if corner.name in ("balanced", "first_step")]
    for corner in (*plain, *structured):
        for arrays, write in ((False, "fused"), (True, "returned")):
            case = case_of(name, rule, corner)
            ratios = largest_ratios(case, FORMATS_BY_NAME[name], rounding, write, arrays=arrays)
            found = {role: max(r, found.get(role, 0.0)) for role, r in ratios.items()}
    return found


@pytest.mark.parametrize("rule", METHODS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", FORMATS_BY_NAME)
def test_no_rounding_exceeds_the_bound(name, rounding, rule):
    """A1: R <= 1 for every output, rule, format and rounding, mid-run and fresh."""
    found = table(name, rounding, rule)
    assert max(found.values(), default=0.0) <= RATIO, found


@pytest.mark.parametrize("rule", METHODS)
@pytest.mark.parametrize("name", FORMATS_BY_NAME)
def test_every_output_comes_near_its_bound(name, rule):
    """A2: every output reaches R >= 0.05 in some rounding, else its bound would say nothing."""
    if METHODS[rule].decompositions:
        return  # the bound of a decomposition is sound and loose (conformance 4.2)
    tables = [table(name, rounding, rule) for rounding in ROUNDINGS]
    # Arrays that only one structure has are met in one case: too few to come near.
    roles = [role for role in tables[0] if role.count(".") < 2]
    found = {role: max(t[role] for t in tables) for role in roles}
    assert min(found.values()) >= TIGHT, found


@pytest.mark.parametrize("rounding", ["upward", "towards_zero", "random"])
def test_a_unit_that_is_too_small_is_seen(rounding):
    """The emulation is severe: against the unit of rounding to nearest, the others exceed it."""
    formats = FORMATS_BY_NAME["8 bits"]
    cases = [case_of("8 bits", rule, CORNERS[0]) for rule in METHODS]
    found = [
        largest_ratios(case, formats, rounding, "fused", arrays=True, doubled=False)
        for case in cases
    ]
    assert max(max(ratios.values(), default=0.0) for ratios in found) > RATIO


def numbers(high: float) -> st.SearchStrategy[float]:
    """Return positive numbers below ``high``, of all magnitudes down to 2**-20."""
    return st.floats(2.0**-20, high, exclude_max=True)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    name=st.sampled_from(list(FORMATS_BY_NAME)),
    rounding=st.sampled_from(ROUNDINGS),
    rule=st.sampled_from(list(METHODS)),
    write=st.sampled_from(WRITES),
    arrays=st.booleans(),
    start=st.sampled_from(["balanced", "fresh"]),
    gradient=st.sampled_from(["normal", "graded", "zero"]),
    hyper=st.fixed_dictionaries(
        {
            "lr": st.just(0.0) | numbers(4.0),
            "precond_lr": numbers(BELOW_ONE),
            "momentum": st.just(0.0) | numbers(BELOW_ONE),
            "damping": st.just(0.0) | numbers(16.0),
            "weight_decay": st.just(0.0) | numbers(4.0),
            "curvature_scale": st.floats(2.0**-6, 2.0**10),
        }
    ),
)
def test_no_hyper_parameter_exceeds_the_bound(
    name, rounding, rule, write, arrays, start, gradient, hyper
):
    """A1: R <= 1 wherever in their ranges the hyper-parameters lie."""
    if "eigh" in METHODS[rule].decompositions:
        hyper = {**hyper, "damping": max(hyper["damping"], 2.0**-10)}
    corner = Corner("drawn", hyper, state=start, gradient=gradient)
    case = case_of(name, rule, corner)
    found = largest_ratios(case, FORMATS_BY_NAME[name], rounding, write, arrays=arrays)
    assert max(found.values(), default=0.0) <= RATIO, found
