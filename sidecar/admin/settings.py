"""The settings of the admin room: where it listens and how it writes logs."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from sidecar.units import Address


class AdminSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The admin API, for this machine only."""

    listen: Annotated[Address | None, Meta(description="Loopback address of the admin API; `null` turns it off.")] = (
        "127.0.0.1:19900"
    )
    probe_listen: Annotated[
        Address | None,
        Meta(description="A second address, such as 0.0.0.0:19901, that answers only GET /ready, /live and /metrics."),
    ] = None


class LogSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Logs go to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least important line that is written.")
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "text"], Meta(description="auto: text on a terminal, otherwise one JSON object a line.")
    ] = "auto"
    access: Annotated[
        Literal["failures", "all", "off"], Meta(description="Which RPCs get a line of their own, with their attempts.")
    ] = "failures"
