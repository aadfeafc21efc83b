"""Pytrees taken apart into named leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import optax
import rootfree
from rootfree import CURVATURES, Curvature

from rootfree_jax._precision import as_array


@dataclass(frozen=True)
class Leaves:
    """A pytree taken apart. Absent leaves, ``None`` and optax's masked nodes, keep their places."""

    kind: str  # what they are, for errors: "parameter", "gradient"
    names: tuple[str, ...]  # key paths, "layer.w"
    arrays: Sequence[Any]  # JAX arrays, or what is absent as it came
    treedef: Any

    @classmethod
    def of(
        cls,
        tree: Any,
        kind: str,
        *,
        taken: Callable[[Any, str], Any] = as_array,
        whole: tuple[type[Any], ...] = (),
    ) -> Leaves:
        """Take a pytree apart.

        Args:
            tree: the pytree.
            kind: what its leaves are.
            taken: gives what is kept of a leaf, from it and what to call it in errors.
            whole: nodes of these types are leaves.

        Raises:
            TypeError: if a leaf is not an array; the message names it.
        """

        def is_leaf(node: Any) -> bool:
            return is_absent(node) or isinstance(node, whole)

        flat, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
        names = tuple(jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in flat)
        leaves = zip(names, (leaf for _, leaf in flat), strict=True)
        arrays = [x if is_absent(x) else taken(x, f"{kind} {name!r}") for name, x in leaves]
        return cls(kind, names, arrays, treedef)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Iterate over names and arrays."""
        return zip(self.names, self.arrays, strict=True)

    def parallel(self, other: Leaves) -> Sequence[Any]:
        """Return the leaves of another tree, in this one's order.

        Raises:
            ValueError: if it is built in another way; the message names the first leaf that only
                one of the two has.
        """
        if other.treedef != self.treedef:
            raise ValueError(_difference(self, other))
        return other.arrays

    def subtrees(self, tree: Any, kind: str) -> Sequence[Any]:
        """Return what another tree has in the places of this one's leaves: arrays, tuples of them.

        Raises:
            ValueError: as `parallel`.
        """
        try:
            found: list[Any] = self.treedef.flatten_up_to(tree)
        except ValueError:
            other = Leaves.of(tree, kind)
            above = (self._above(name) for name in other.names)
            message = _difference(self, replace(other, names=tuple(dict.fromkeys(above))))
            raise ValueError(message) from None
        return found

    def tree(self, leaves: Sequence[Any]) -> Any:
        """Return a tree like the one taken apart, with other leaves."""
        return self.treedef.unflatten(leaves)

    def _above(self, name: str) -> str:
        """Return the name of the leaf that ``name`` lies under, if there is one."""
        return next((mine for mine in self.names if name.startswith(f"{mine}.")), name)


def is_absent(leaf: object) -> bool:
    """Return whether a leaf stands for nothing: ``None``, or what optax masks out."""
    return leaf is None or isinstance(leaf, optax.MaskedNode)


def takes_part(leaf: Any) -> bool:
    """Return whether a leaf is there and has elements; one that has none gets no state."""
    return not is_absent(leaf) and 0 not in leaf.shape


def check_gradients(grads: Leaves, params: Sequence[Any], *, same_dtype: bool) -> None:
    """Check that gradients fit their parameters. A gradient that is absent fits any.

    Raises:
        ValueError: for a shape, or a dtype unless ``same_dtype`` is false, that is not the
            parameter's, and for a gradient without parameter; the message names the leaf.
    """
    for (name, grad), param in zip(grads, params, strict=True):
        if is_absent(grad):
            continue
        if is_absent(param):
            raise ValueError(f"there is a gradient {name!r} but no parameter of that name")
        # A traced array has no device yet, so that of an array is JAX's to check.
        rootfree.check_gradient(name, grad, param, kinds=("dtype",) if same_dtype else ())


def curvatures(grads: Leaves, tree: Any) -> Sequence[Any]:
    """Return the curvature of each gradient, absent ones as they came; a bare array is a diagonal.

    Raises:
        ValueError: if the tree is not like that of the gradients.
        TypeError: if something in it is not an array.
    """
    if tree is None:
        return [None] * len(grads.names)
    kinds = tuple(CURVATURES.values())
    return grads.parallel(Leaves.of(tree, "curvature", taken=_curvature, whole=kinds))


def _curvature(leaf: Any, name: str) -> Curvature:
    return rootfree.mapped(rootfree.as_curvature(leaf), lambda array: as_array(array, name))


def _difference(one: Leaves, two: Leaves) -> str:
    for here, there in ((one, two), (two, one)):
        for name in here.names:
            if name not in there.names:
                return (
                    f"there is a {here.kind} {name!r} but no {there.kind} of that name; pass trees "
                    "of the same structure"
                )
    return (
        f"the {one.kind} tree is {one.treedef}, the {two.kind} tree is {two.treedef}; pass trees "
        "of the same structure"
    )
