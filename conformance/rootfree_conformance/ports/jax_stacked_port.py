"""JAX on the CPU, equal parameters stacked."""

from rootfree_conformance.ports.jax_port import JaxPort

port = JaxPort("jax_stacked", scope="stacked", stack=True)
