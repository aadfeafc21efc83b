"""The batch size: a number, a callable, or given with the step; nothing is guessed."""

from __future__ import annotations

import re

import numpy as np
import pytest
from rootfree_array import SGD, AdamW, RFAdaGrad, RFAdamW, RFRMSProp

GRAD = np.asarray([1.0, -2.0])
ROOT_FREE = [RFAdaGrad, RFRMSProp, RFAdamW]


def statistic(optimizer):
    """Return the statistic of the only parameter."""
    return optimizer.state["w"]["statistic"].tolist()


def make(cls=RFRMSProp, **given):
    """Return an optimizer of one parameter whose statistic is easily told."""
    return cls({"w": np.zeros(2)}, precond_lr=0.5, decay=0, **given)


@pytest.mark.parametrize("cls", ROOT_FREE)
@pytest.mark.parametrize(
    ("given", "step", "scale"),
    [
        ({}, {}, 1),
        ({"batch_size": 8}, {}, 8),
        ({"batch_size": np.asarray(8.0)}, {}, 8),
        ({"batch_size": lambda: 6}, {}, 6),
        ({"batch_size": 8}, {"batch_size": 4}, 4),
        ({"batch_size": lambda: 8}, {"batch_size": 4}, 4),
        ({}, {"batch_size": lambda: 3}, 3),
        ({}, {"batch_size": 0.5}, 0.5),
        ({"batch_size": 8, "loss_reduction": "mean"}, {}, 8),
        ({"batch_size": 8, "loss_reduction": "sum"}, {}, 1),
        ({"loss_reduction": "sum"}, {"batch_size": 4}, 1),
    ],
    ids=range(11),
)
def test_forms(cls, given, step, scale):
    """The statistic is s + precond_lr * alpha * G**2, with alpha as given, and 1 for a sum."""
    optimizer = make(cls, **given)
    optimizer.step({"w": GRAD}, **step)
    assert statistic(optimizer) == [1 + 0.5 * scale * 1, 1 + 0.5 * scale * 4]


def test_a_callable_is_asked_at_each_step():
    """Once a step, and not at construction."""
    asked = []

    def batch_size():
        asked.append(len(asked) + 1)
        return asked[-1]

    optimizer = make(batch_size=batch_size)
    assert asked == []
    for _ in range(3):
        optimizer.step({"w": np.ones(2)})
    assert asked == [1, 2, 3]
    assert statistic(optimizer) == [4.0, 4.0]
    optimizer.step({"w": np.ones(2)}, batch_size=2)
    assert asked == [1, 2, 3]


def test_the_attribute_counts_from_the_next_step_on():
    """`optimizer.batch_size = n` is the same as giving it with every step."""
    optimizer = make(batch_size=2)
    optimizer.batch_size = 6
    optimizer.step({"w": np.ones(2)})
    assert statistic(optimizer) == [4.0, 4.0]


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (0, ValueError, "`batch_size` must be > 0, got 0"),
        (-1, ValueError, "`batch_size` must be > 0, got -1"),
        (lambda: 0, ValueError, "`batch_size` must be > 0, got 0"),
        (float("nan"), ValueError, "`batch_size` must be"),
        (float("inf"), ValueError, "`batch_size` must be"),
        ("8", TypeError, "`batch_size` must be a number or a 0-d array, got str"),
        (True, TypeError, "`batch_size` must be a number or a 0-d array, got bool"),
        (lambda: None, TypeError, "`batch_size` must be a number or a 0-d array, got NoneType"),
    ],
    ids=range(8),
)
def test_a_wrong_batch_size_changes_nothing(value, error, words, unchanged):
    """Refused at the step that gives it, before anything is written."""
    optimizer = make()
    with unchanged(optimizer), pytest.raises(error, match=re.escape(words)):
        optimizer.step({"w": GRAD}, batch_size=value)


@pytest.mark.parametrize("cls", [SGD, AdamW])
def test_methods_with_a_root_do_not_read_it(cls):
    """A step may give it to any method, so that one loop serves all."""
    results = []
    for terms in (1, 64):
        optimizer = cls({"w": np.zeros(2)})
        optimizer.step({"w": GRAD}, batch_size=terms)
        results.append(optimizer.params["w"])
    assert np.array_equal(*results)
