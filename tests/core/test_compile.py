"""The text of a step is compiled as it stands (architecture 3)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rootfree import METHODS, Hyper, Precision, add_step, roles, update


# Dynamo looks behind a cache of array_api_compat and says so; the result does not depend on it.
@pytest.mark.filterwarnings(
    "ignore:Dynamo detected a call to a `functools.lru_cache`-wrapped function:UserWarning"
)
@pytest.mark.parametrize("name", METHODS)
def test_one_graph(name):
    """`torch.compile(fullgraph=True)` traces `update`: no graph breaks, equal bits, one graph.

    Hyper-parameters are 0-d arrays, so that a new value compiles nothing.
    """
    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    rule = METHODS[name].rule(Precision.uniform(torch.float32))
    rng = np.random.default_rng(0)
    param = torch.tensor(rng.normal(size=(3, 4)), dtype=torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(update, fullgraph=True, backend=backend)
    state, eager_state = rule.init(param), rule.init(param)
    for t in range(4):
        grad = torch.tensor(rng.normal(size=(3, 4)), dtype=torch.float32)
        values = (0.1 / (1 + t), 0.1, 0.9, 0.0, 1e-4, 1e-2, 8.0 + t)
        hyper = Hyper(*map(torch.tensor, values))
        step, state = compiled(rule, grad, state, param, hyper)
        eager, eager_state = update(rule, grad, eager_state, param, hyper)
        assert torch.equal(step, eager)
        pairs = zip(roles(state).values(), roles(eager_state).values(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
        param = add_step(param, eager)
    assert len(graphs) == 1
