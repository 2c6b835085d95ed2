"""The few settings that a flag or an environment variable may set over the file: flag, then variable, then file.

They are those that differ between two starts of the same file. Light to import: the command line makes its flags of it.
"""

from __future__ import annotations

from typing import NamedTuple


class Override(NamedTuple):
    """`key` is the dotted name in the file, and the name in the mapping that the command line hands to the loader."""

    key: str
    flag: str
    variable: str
    help: str


OVERRIDES = (
    Override("log.level", "--log-level", "SIDECAR_LOG_LEVEL", "the least important line that is logged"),
    Override("log.format", "--log-format", "SIDECAR_LOG_FORMAT", "auto, json or text"),
    Override("admin.listen", "--admin-listen", "SIDECAR_ADMIN_LISTEN", "where the admin API listens"),
    Override("http2.codec", "--codec", "SIDECAR_CODEC", "auto, native or reference"),
)
