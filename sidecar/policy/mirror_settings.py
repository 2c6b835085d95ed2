"""Which RPCs of an upstream are sent a second time, to where, and within which bounds."""

from typing import Annotated

from msgspec import Meta, Struct

from sidecar.policy.match import MatchSettings
from sidecar.units import Count, Name, Size


class MirrorSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A copy of RPCs for another upstream, whose answers nobody waits for or reads."""

    upstream: Annotated[
        Name, Meta(description="The name of the upstream of this file that gets the copies.", examples=["orders"])
    ]
    match: Annotated[MatchSettings, Meta(description="Which RPCs are meant.")] = MatchSettings()
    percent: Annotated[float, Meta(ge=0, le=100, description="How many of them are copied, by chance.")] = 100.0
    max_size: Annotated[
        Size, Meta(description="Octets of a request that are kept for its copy; a larger request is not copied.")
    ] = 65_536  # as limits.replay_size
    max_in_flight: Annotated[
        Count, Meta(description="Copies at a time that are not answered yet; above it none are made.")
    ] = 100  # Envoy: the cluster's own limits
