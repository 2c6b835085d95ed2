"""The settings that may differ from method to method: each a section of an upstream, and of its `methods`.

A section that a method gives replaces the upstream's section of that name as a whole; nothing is mixed.
"""

from typing import Annotated

from msgspec import Meta, Struct

from sidecar.units import Duration


class TimeoutSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long an RPC may last. Nothing here is set by itself: without it, only the caller's own deadline counts."""

    total: Annotated[
        Duration,
        Meta(
            description="From its head to its end, all attempts together. The caller's deadline counts where it is"
            " earlier; 0: only that."
        ),
    ] = 0.0  # linkerd none; Envoy 15 s, which cuts streams


class MethodSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is different for one method, or for all methods of one service."""

    timeouts: Annotated[TimeoutSettings | None, Meta(description="In place of the upstream's.")] = None
