"""The composition root: builds every object in reading order and joins the rooms. Nothing below knows it."""

from __future__ import annotations

from sidecar.app.process import run

__all__ = ["run"]
