"""Each check has teeth of its own: a port that is broken in one way fails there and nowhere else.

The ports are NumPy's with one habit changed. What is changed shows which promise the check keeps.
"""

from __future__ import annotations

import numpy as np
import pytest
from rootfree_conformance import NumericModel
from rootfree_conformance.checks import CHECKS
from rootfree_conformance.numeric import FORMATS, quantise
from rootfree_conformance.port import NamespacePort, Snapshot
from rootfree_conformance.ports import numpy_port


class Broken(NamespacePort):
    """NumPy's port, to be broken."""

    def __init__(self, **changes):
        whole = numpy_port.port
        given = {
            "name": "broken",
            "device": "cpu",
            "xp": whole.xp,
            "dtypes": whole.dtypes,
            "to_device": whole.to_device,
            "to_host": whole.to_host,
        }
        super().__init__(**{**given, **changes})


def changed(snapshot, change):
    """Return a snapshot with every state array changed by role."""
    state = {
        name: {role: change(role, array) for role, array in roles.items()}
        for name, roles in snapshot.state.items()
    }
    return snapshot._replace(state=state)


class _CountsFromTheFirst(Broken):
    """Takes the count of the first snapshot that it ever loads for the count of all."""

    def load(self, handle, snapshot):
        self.count = getattr(self, "count", snapshot.state["weight"]["step"])
        return super().load(
            handle, changed(snapshot, lambda role, a: self.count if role == "step" else a)
        )


class _ForgetsMomentum(Broken):
    """Loads a run of several steps without its buffers."""

    def load(self, handle, snapshot):
        buffers = ("momentum", "first_moment") if snapshot.step > 5 else ()
        return super().load(
            handle, changed(snapshot, lambda role, a: 0 * a if role in buffers else a)
        )


class _MisnamesState(Broken):
    """Says that 16-bit state is kept in float32."""

    def read(self, handle):
        snapshot = super().read(handle)
        names = {r: "float32" if n == "bfloat16" else n for r, n in snapshot.dtypes.items()}
        return snapshot._replace(dtypes={**names, "param": snapshot.dtypes["param"]})


class _MisnamesParameters(Broken):
    """Does not say which dtype its parameters have."""

    def read(self, handle):
        snapshot = super().read(handle)
        return snapshot._replace(dtypes={k: v for k, v in snapshot.dtypes.items() if k != "param"})


class _KeepsNarrowState(Broken):
    """Keeps float32 state as bfloat16 and says float32."""

    def step(self, handle, grads, hyper):
        handle = super().step(handle, grads, hyper)
        for name, state in handle._states.items():
            kept = state.statistic
            if kept is not None and kept.dtype == np.float32:
                narrow = quantise(kept, FORMATS["bfloat16"]).astype(np.float32)
                handle._states[name] = state._replace(statistic=narrow)
        return handle


class _DrawsOtherKeys(Broken):
    """Starts with rounding keys that do not come from names."""

    def start(self, spec, params):
        handle = super().start(spec, params)
        for name, state in handle._states.items():
            if state.salt is not None:
                handle._states[name] = state._replace(salt=state.salt + np.int32(1))
        return handle


class _InventsState(Broken):
    """Shows an array that no rule keeps."""

    def read(self, handle):
        snapshot = super().read(handle)
        state = {name: {**roles, "extra": np.ones(2)} for name, roles in snapshot.state.items()}
        return snapshot._replace(state=state)


class _UsesOtherBits(Broken):
    """Shows the right keys and rounds with bits of its own: unbiased, and not the published."""

    def start(self, spec, params):
        self.shift = 0
        return super().start(spec, params)

    def load(self, handle, snapshot):
        self.shift = 1
        return super().load(handle, changed(snapshot, lambda r, a: a + 1 if r == "salt" else a))

    def read(self, handle):
        return changed(super().read(handle), lambda r, a: a - self.shift if r == "salt" else a)


class _AcceptsAnyShape(Broken):
    """Cuts a gradient to the shape of its parameter."""

    def step(self, handle, grads, hyper):
        cut = {
            name: grad[tuple(slice(n) for n in handle.params[name].shape)]
            for name, grad in grads.items()
        }
        return super().step(handle, cut, hyper)


class _Broadcasts(Broken):
    """Takes a gradient that can be stretched to the shape of its parameter."""

    def step(self, handle, grads, hyper):
        stretched = {
            name: np.broadcast_to(grad, handle.params[name].shape) if grad.shape[0] == 1 else grad
            for name, grad in grads.items()
        }
        return super().step(handle, stretched, hyper)


class _RaisesAnything(Broken):
    """Refuses a wrong shape with an error of no particular kind."""

    def step(self, handle, grads, hyper):
        try:
            return super().step(handle, grads, hyper)
        except ValueError as error:
            raise RuntimeError(str(error)) from error


class _NamesNothing(Broken):
    """Refuses a wrong shape without saying which parameter's."""

    def step(self, handle, grads, hyper):
        try:
            return super().step(handle, grads, hyper)
        except ValueError:
            raise ValueError("wrong shape") from None


class _WritesFirst(Broken):
    """Counts the step before it looks at the gradient."""

    def step(self, handle, grads, hyper):
        for name, grad in grads.items():
            if grad.shape != handle.params[name].shape:
                state = handle._states[name]
                handle._states[name] = state._replace(step=state.step + 1)
        return super().step(handle, grads, hyper)


class _ReadsTheFirstRate(Broken):
    """Keeps the learning rate of the first step of a run."""

    def start(self, spec, params):
        self.rate = None
        return super().start(spec, params)

    def step(self, handle, grads, hyper):
        self.rate = hyper["lr"] if self.rate is None else self.rate
        return super().step(handle, grads, {**hyper, "lr": self.rate})


class _Miscounts(Broken):
    """Takes the number of its calls for the number of updates."""

    def read(self, handle):
        return super().read(handle)._replace(step=1)


class _HidesState(Broken):
    """Keeps its state to itself."""

    def read(self, handle):
        return super().read(handle)._replace(state={})


class _ShowsFrozenState(Broken):
    """Shows the state that it was given, for ever."""

    def load(self, handle, snapshot):
        self.shown = snapshot.state
        return super().load(handle, snapshot)

    def read(self, handle):
        return super().read(handle)._replace(state=self.shown)


class _LosesParameters(Broken):
    """Returns no parameters."""

    def read(self, handle):
        return super().read(handle)._replace(params={})


class _ReturnsText(Broken):
    """Returns arrays of another kind."""

    def read(self, handle):
        return changed(super().read(handle), lambda role, a: np.full(np.shape(a), "a number"))


class _ReturnsNothing(Broken):
    """Returns no snapshot at all."""

    def read(self, handle):
        super().read(handle)


SINGLE_AS_DOUBLE = {
    "dtypes": {"float64": NumericModel()},
    "to_device": lambda host, dtype: host.astype(np.float32),
}
DOUBLE_AS_SINGLE = {
    "dtypes": {"float32": NumericModel()},
    "to_device": lambda host, dtype: host.astype(np.float64),
}


@pytest.mark.parametrize(
    ("port", "fails"),
    [
        (Broken(), set()),
        (_CountsFromTheFirst(), {"L5.1"}),
        (_ForgetsMomentum(), {"L5.1"}),
        (_MisnamesState(), {"L6.1"}),
        (_MisnamesParameters(), {"L6.1"}),
        (_UsesOtherBits(), {"L6.4"}),
        (_DrawsOtherKeys(), {"L6.4"}),
        (_InventsState(), {"L3.2", "L4.0", "L5.1", "L8.2"}),
        (_AcceptsAnyShape(), {"L8.3"}),
        (_Broadcasts(), {"L8.3"}),
        (_RaisesAnything(), {"L8.3"}),
        (_NamesNothing(), {"L8.3"}),
        (_WritesFirst(), {"L8.3"}),
        (_ReadsTheFirstRate(), {"L4.0", "L5.1", "L8.2"}),
        (_Miscounts(), {"L3.2", "L4.0", "L8.2"}),
        (_KeepsNarrowState(), {"L3.2", "L4.0", "L6.1", "L8.2"}),
        (Broken(**SINGLE_AS_DOUBLE), {"L3.2", "L4.0", "L8.2"}),
        (_HidesState(), {"L3.2", "L4.0", "L5.1", "L6.1", "L6.4", "L8.2"}),
        (_ShowsFrozenState(), {"L3.2", "L4.0", "L5.1", "L6.4", "L8.2"}),
        (_LosesParameters(), {"L3.2", "L4.0", "L5.1", "L6.1", "L8.2", "L8.3"}),
        (_ReturnsText(), set(CHECKS)),
        (_ReturnsNothing(), set(CHECKS)),
    ],
    ids=lambda value: type(value).__name__.strip("_") if isinstance(value, NamespacePort) else "",
)
def test_broken_ports_fail_where_they_should(port, fails, judge):
    """The checks that fail are those whose promise is broken, and no port stops the suite."""
    failed = {result.id.split("/")[0] for result in judge(port) if not result.passed}
    assert failed == fails


@pytest.mark.parametrize("loose", [{"bits": 2}, {"div": 2.0**22}, {"sqrt": 2.0**22}], ids=str)
def test_a_declaration_that_allows_everything_fails(loose, judge):
    """A bound that lets a significant digit go judges nobody (vacuity): no way to a verdict."""
    port = Broken(dtypes={"float32": NumericModel(**loose)})
    results = judge(port, "L3.2", rules=("adamw",))
    assert not any(result.passed for result in results)
    assert all("says nothing" in result.message for result in results)


def test_wider_arithmetic_than_declared_is_fine(judge):
    """A port may compute better than it declares; what it stores is a matter of its own."""
    port = Broken(**DOUBLE_AS_SINGLE)
    assert all(result.passed for result in judge(port, "L3.2", "L4.0"))
    assert not any(result.passed for result in judge(port, "L6.1"))


def test_read_only_and_strict_ports_conform(judge):
    """The adversarial ports pass what NumPy passes."""
    from rootfree_conformance.ports import readonly_port, strict_port

    for port in (readonly_port.port, strict_port.port):
        assert all(result.passed for result in judge(port))


def test_a_check_that_meets_an_error_says_which(judge):
    """An error inside a port is its result: the class, the call and the words."""

    class Raises(Broken):
        def load(self, handle, snapshot):
            raise KeyError("salt")

    results = judge(Raises(), "L3.2")
    assert {result.message for result in results} == {"KeyError in Load: 'salt'"}
    assert not any(result.passed for result in results)


def test_the_first_bad_quantity_is_in_order_of_computation(judge):
    """A wrong statistic is named, not the parameter that it spoils; a run names the step too."""

    class Tilted(Broken):
        def step(self, handle, grads, hyper):
            return super().step(handle, grads, {**hyper, "precond_lr": 1.01 * hyper["precond_lr"]})

    def single(case):
        return case.corner.name == "balanced" and case.policy.label == "float32"

    step, run = judge(Tilted(), "L3.2", "L4.0", rules=("adamw",), wanted=single)
    assert step.first_bad == "statistic"
    assert run.first_bad == "statistic after step 1"
    assert step.per_output["param"] > 1


def test_snapshots_of_other_kinds_are_judged():
    """Lists and float32 arrays are numbers too: the suite compares values."""
    from rootfree_conformance import script

    class Lists(Broken):
        def read(self, handle):
            return changed(super().read(handle), lambda role, a: np.asarray(a, np.float32).tolist())

    case = next(
        case
        for case in CHECKS["L3.2"].cases("L3.2")
        if case.policy.label == "float32" and case.state
    )
    outcome = script.run(Lists(), CHECKS["L3.2"].script(case))
    assert outcome.error is None
    assert isinstance(outcome.answers[0], Snapshot)
