"""rootfree for PyTorch: drop-in `torch.optim.Optimizer` classes.

Example:
    >>> import torch
    >>> from rootfree_torch import RFRMSProp
    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> optimizer = RFRMSProp([weight], lr=0.5, momentum=0.0, batch_size=8)
    >>> weight.grad = torch.tensor([1.0, -1.0])
    >>> optimizer.step()
    >>> [round(number, 3) for number in weight.tolist()]
    [0.561, 1.439]
"""

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise  # torch is there but broken: its own error says what is wrong
    raise ModuleNotFoundError(
        'rootfree_torch needs PyTorch: pip install "rootfree[torch]"', name="torch"
    ) from error

if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
    raise ImportError(f"rootfree_torch needs torch >= 2.6, found {torch.__version__}")

# What follows may use the torch that was just found.
from rootfree_array import StalledStateWarning

from rootfree_torch._distributed import global_batch_size
from rootfree_torch._optimizer import (
    SGD,
    AdaGrad,
    AdamW,
    FullAdaGrad,
    RFAdaGrad,
    RFAdamW,
    RFFullMatrix,
    RFFullMatrixFactor,
    RFFullMatrixInverse,
    RFRMSProp,
    RFShampoo,
    RMSProp,
    Shampoo,
    SIRFShampoo,
)
from rootfree_torch._precision import capabilities
from rootfree_torch._routing import ParamGroups, Routed, param_groups, plan

__all__ = [  # noqa: RUF022  # the catalogue's order
    "SGD",
    "AdaGrad",
    "RMSProp",
    "AdamW",
    "RFAdaGrad",
    "RFRMSProp",
    "RFAdamW",
    "FullAdaGrad",
    "RFFullMatrix",
    "RFFullMatrixInverse",
    "RFFullMatrixFactor",
    "Shampoo",
    "RFShampoo",
    "SIRFShampoo",
    "StalledStateWarning",
    "ParamGroups",
    "Routed",
    "param_groups",
    "plan",
    "global_batch_size",
    "capabilities",
]
