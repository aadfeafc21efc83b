"""PyTorch on the CPU, through the optimizers that a user would make."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import rootfree_torch
import torch
from rootfree import method

from rootfree_conformance.numeric import NumericModel
from rootfree_conformance.port import HostArray, HostArrays, Snapshot, Spec, arguments

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


_NATIVE = bool(rootfree_torch.capabilities("cpu")["bfloat16_products"])


class TorchPort:
    """A black box around ``rootfree_torch``.

    Args:
        name: what it calls itself.
        scope: which cases it is judged on, see `rootfree_conformance.cases.left_out`.
        **arguments: of the optimizers, beside those of a case.
    """

    device = "cpu"
    dtypes: Mapping[str, NumericModel] = {
        name: NumericModel(native_products=name == "bfloat16" and _NATIVE) for name in DTYPES
    }

    def __init__(self, name: str = "torch", scope: str = "whole", **arguments: Any) -> None:
        self.name, self.scope, self._arguments = name, scope, arguments

    def start(self, spec: Spec, params: HostArrays) -> Any:
        """Return an optimizer of named parameters."""
        named = [
            (name, torch.nn.Parameter(torch.tensor(host).to(DTYPES[spec.dtype])))
            for name, host in params.items()
        ]
        cls = getattr(rootfree_torch, method(spec.rule).class_name)
        optimizer = cls(named, **arguments(spec), **self._arguments)
        optimizer.init_state()  # what the first step would create
        return optimizer

    def step(self, handle: Any, grads: HostArrays, hyper: Mapping[str, float]) -> Any:
        """Set gradients and hyper-parameters, and step."""
        (group,) = handle.param_groups
        for name, param in zip(group["param_names"], group["params"], strict=True):
            with torch.no_grad():
                param.grad = None
            if name not in grads:
                continue
            grad = torch.tensor(grads[name]).to(param.dtype)
            if grad.shape != param.shape:  # torch itself refuses this assignment
                raise ValueError(f"gradient of {name!r} has shape {tuple(grad.shape)}")
            param.grad = grad
        group.update({name: hyper[name] for name in method(group["rule"]).hyper})
        handle.set_batch_size(hyper["curvature_scale"])
        handle.step()
        return handle

    def read(self, handle: Any) -> Snapshot:
        """Return copies as float64."""
        (group,) = handle.param_groups
        named = dict(zip(group["param_names"], group["params"], strict=True))
        state = {name: dict(handle.state[p]) for name, p in named.items() if p in handle.state}
        dtypes = {"param": _name(group["params"][0].dtype)}
        for roles in state.values():
            dtypes |= {role: _name(array.dtype) for role, array in roles.items()}
        host = {name: {r: _host(a) for r, a in roles.items()} for name, roles in state.items()}
        steps = [int(roles["step"]) for roles in host.values() if "step" in roles]
        params = {name: _host(p) for name, p in named.items()}
        return Snapshot(params, host, max(steps, default=0), dtypes)

    def load(self, handle: Any, snapshot: Snapshot) -> Any:
        """Write the parameters, and load the state as a state dict."""
        (group,) = handle.param_groups
        handle.init_state()
        saved = handle.state_dict()
        for index, (name, param) in enumerate(
            zip(group["param_names"], group["params"], strict=True)
        ):
            with torch.no_grad():
                param.copy_(torch.tensor(snapshot.params[name]))
            if index in saved["state"]:
                roles = snapshot.state[name]
                saved["state"][index] = {
                    role: torch.tensor(roles[role]).to(old.dtype)
                    for role, old in saved["state"][index].items()
                }
        handle.load_state_dict(saved)
        return handle

    def proof(self) -> dict[str, str]:
        """Say which torch this is."""
        return {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}


def _host(tensor: torch.Tensor) -> HostArray:
    return np.array(tensor.detach().to(torch.float64).cpu().numpy())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


torch.set_num_threads(1)
port = TorchPort()
