"""PyTorch on the CPU, every step compiled by `torch.compile`."""

from rootfree_conformance.ports.torch_port import TorchPort

port = TorchPort("torch_compiled", scope="compiled", compile=True)
