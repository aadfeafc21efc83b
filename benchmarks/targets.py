"""The targets S1 to S10 that compare contestants of a race, as a table; S11 to S13 are counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

Measure: TypeAlias = Literal["time", "spread", "state", "temporary"]

NAMES: Final = tuple(f"S{number}" for number in range(1, 14))
"""All targets, those that are counts included."""

_STAND_IN: Final = "a stand-in for Meta's"
_BOTH: Final = ("4x2048^2", "gpt4x256")
_DENSE: Final = ("mlp3x512", "gpt4x256")


@dataclass(frozen=True)
class Target:
    """What must not be above a limit, in one race.

    Attributes:
        id: S1 to S10.
        what: is compared, for readers.
        event: the race's, without the shape set.
        where: the shape set.
        limit: what it must not exceed.
        ours: the key of who is judged.
        peer: the key of who it is compared with, but for a spread or temporary memory.
        measure: ``"time"``, the ratio of steps of the same round; ``"spread"``, the longest step
            over the median one; ``"state"``, the ratio of the states' bytes; ``"temporary"``, the
            peak of temporary memory over the largest stack of equal parameters.
        remark: what a reader must know of it.
    """

    id: str
    what: str
    event: str
    where: str
    limit: float
    ours: str
    peer: str = ""
    measure: Measure = "time"
    remark: str = ""


def _on(
    limits: Mapping[str, float] | tuple[str, ...], id_: str, what: str, event: str, **rest: Any
) -> Iterator[Target]:
    """Yield the target of each shape set: of a tuple of them, or a mapping that has limits."""
    for where in limits:
        own = {"limit": limits[where]} if isinstance(limits, Mapping) else {}
        yield Target(id_, what, event, where, **{**rest, **own})


def _table() -> Iterator[Target]:
    yield from _on(
        {"4x2048^2": 1.05, "gpt4x256": 1.10},
        "S1",
        "RF-RMSProp compiled / AdamW fused",
        "elementwise",
        ours="rf_rmsprop_compiled",
        peer="adamw",
    )
    yield from _on(
        _BOTH,
        "S2",
        "RF-RMSProp eager / RMSprop foreach",
        "elementwise",
        ours="rf_rmsprop_eager",
        peer="rmsprop",
        limit=0.90,
    )
    for damping in ("0.001", "0"):
        what, ours = f"SIRF-Shampoo compiled, damping {damping}", f"sirf_{damping}"
        for peer, title, limit in (
            (f"sirfshampoo_{damping}", "sirfshampoo", 0.85),
            (f"floor_taken_{damping}_1", "products it takes", 1.05),
        ):
            whole = f"{what} / {title}"
            yield from _on(_DENSE, "S3", whole, "every_step", ours=ours, peer=peer, limit=limit)
    for peer, title, remark in (
        ("meta_shampoo", "Meta's Shampoo", ""),
        ("pytorch_optimizer_shampoo", "pytorch_optimizer's Shampoo, by SVD", _STAND_IN),
        ("shampoo", "rootfree's own Shampoo, by eigenvectors", _STAND_IN),
    ):
        yield from _on(
            _DENSE,
            "S4",
            f"SIRF-Shampoo compiled, every step / {title}",
            "every_step",
            ours="sirf_0.001",
            peer=peer,
            limit=0.33,
            remark=remark,
        )
    what = "SIRF-Shampoo compiled, every 10"
    for package in ("pytorch_optimizer", "heavyball"):
        yield from _on(
            _DENSE,
            "S5",
            f"{what} / {package}'s SOAP",
            "every_10",
            ours="sirf_10",
            peer=f"{package}_soap_10",
            limit=0.35,
        )
    whole = f"{what}: longest / median step"
    yield from _on(_DENSE, "S5", whole, "every_10", ours="sirf_10", limit=1.3, measure="spread")
    for ours, title in (
        ("sirf_rounded", "bfloat16 inputs, float32 products"),
        ("sirf_native", "bfloat16 products"),
    ):
        what = f"SIRF-Shampoo eager, {title} / float32"
        yield from _on(
            ("mlp3x512",), "S6", what, "bfloat16", ours=ours, peer="sirf_float32", limit=1.15
        )
    for ours, title in (
        ("sirf_merged", "compiled, kernel axes merged"),
        ("sirf_merged_eager", "eager, kernel axes merged"),
        ("sirf_joined_eager", "eager, kernel joins its input axis"),
    ):
        yield from _on(
            ("conv",),
            "S7",
            f"SIRF-Shampoo {title} / sirfshampoo",
            "convolution",
            ours=ours,
            peer="sirfshampoo_0.001",
            limit=0.25,
        )
    counter = "4 bytes a parameter count its steps"
    for event, ours, title, limit, remark in (
        ("every_step", "sirf_0.001", "in float32", 1.0, counter),
        ("bfloat16", "sirf_stored", "in bfloat16, stochastic,", 0.5, f"{counter}, 4 are a key"),
    ):
        yield from _on(
            ("mlp3x512",),
            "S8",
            f"state of SIRF-Shampoo {title} / of sirfshampoo",
            event,
            ours=ours,
            peer="sirfshampoo_0.001",
            limit=limit,
            measure="state",
            remark=remark,
        )
    yield from _on(
        _BOTH,
        "S9",
        "RF-RMSProp / optax RMSProp, both jitted",
        "jax_elementwise",
        ours="rf_rmsprop_jax",
        peer="rmsprop_optax",
        limit=1.10,
    )
    for peer, title in (("floor12_jax", "in JAX"), ("floor12", "in torch")):
        what = f"SIRF-Shampoo jitted / 12 products {title}"
        yield from _on(_DENSE, "S9", what, "jax_every_step", ours="sirf_jax", peer=peer, limit=1.25)
    for event, where, ours, title in (
        ("elementwise", "gpt4x256", "rf_rmsprop_eager", "RF-RMSProp"),
        ("every_step", "mlp3x512", "sirf_eager", "SIRF-Shampoo"),
        ("convolution", "conv", "sirf_merged_eager", "SIRF-Shampoo"),
    ):
        what = f"temporary memory of {title}, eager / largest stack"
        yield from _on((where,), "S10", what, event, ours=ours, limit=4.0, measure="temporary")


TARGETS: Final = tuple(_table())
"""Every comparison that is judged, in order."""
