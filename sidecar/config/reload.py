"""Tells whether the file changed, and loads it anew. Knows no event loop: whoever polls decides when.

A Kubernetes ConfigMap changes by swapping a symlink, which file watchers miss; so the identity of the file behind the
path is compared first, and its content only when that differs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import NamedTuple

from sidecar.config.loader import build_config, read_file
from sidecar.config.model import Config
from sidecar.config.problem import ConfigErrors


class Stamp(NamedTuple):
    """What is cheap to know of a file, and changes when it does."""

    real_path: str
    inode: int
    size: int
    modified: int  # nanoseconds


class ConfigSource:
    """One file with the environment and the flags it is read with."""

    def __init__(self, path: str, environment: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.environment = environment
        self.overrides = overrides or {}
        self._stamp: Stamp | None = None
        self._digest = b""

    def load(self) -> Config:
        """Read the file now. Raises ConfigErrors; a file that was refused counts as seen until it changes again."""
        self._stamp = self._look()
        self._digest = b""
        data = read_file(self.path)
        self._digest = _digest(data)
        return build_config(self.path, data, self.environment, self.overrides)

    def changed(self) -> bool:
        """Whether the file differs from what `load` last read. A file that is away for a moment has not changed."""
        stamp = self._look()
        if stamp is None or stamp == self._stamp:
            return False
        try:
            if _digest(read_file(self.path)) != self._digest:
                return True
        except ConfigErrors:
            return True  # `load` says why
        self._stamp = stamp
        return False

    def _look(self) -> Stamp | None:
        try:
            real_path = os.path.realpath(self.path)
            status = os.stat(real_path)
        except (OSError, ValueError):
            return None
        return Stamp(real_path, status.st_ino, status.st_size, status.st_mtime_ns)

    def __repr__(self) -> str:
        return f"<ConfigSource {self.path} {self._digest.hex()[:12] or 'unread'}>"


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
