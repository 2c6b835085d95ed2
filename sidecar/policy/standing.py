"""What ejection remembers of one endpoint: plain counters, and until when it is out. It ends with the endpoint.

Nothing here decides; `ejection` writes it, and makes it with the first attempt that ends.
"""

from __future__ import annotations

from sidecar.policy.window import Window


class Standing:
    """The record of one endpoint."""

    def __init__(self, span: float, now: float) -> None:
        self.window = Window(span, now)
        self.remote: int = 0  # failures in a row that it answered with
        self.local: int = 0  # lost connections in a row
        self.lost_at: float = -1e9  # when the newest of them was lost

        # gRFC A50: what ended since the last judgement, and its ejections in a row.
        self.successes: int = 0
        self.failures: int = 0
        self.multiplier: int = 0

        self.level: int = 0  # how often the time out has doubled, plus one; 0: never out, or long ago
        self.until: float = 0.0  # while it is out: when that ends; while on trial: when another RPC may try
        self.outlier: bool = False  # whether A50 put it out, whose times are others
        self.spared_until: float = 0.0  # an ejection was withheld: not judged again before
        self.told_until: float = 0.0  # nor said again before

    def succeed(self, now: float) -> None:
        """An attempt ended well."""
        self.remote = 0
        self.local = 0
        self.successes += 1
        self.window.add(False, False, now)

    def fail(self, late: bool, now: float) -> None:
        """An attempt ended in a way that speaks against the endpoint. Who failed is counted by the caller."""
        self.failures += 1
        self.window.add(True, late, now)

    def clear(self) -> None:
        """What was held against it is settled: it starts clean, but for how often that happened."""
        self.remote = 0
        self.local = 0
        self.window.clear()

    def resize(self, span: float, now: float) -> None:
        """Count over `span` seconds from now on."""
        self.window = Window(span, now)

    def __repr__(self) -> str:
        return f"<Standing remote={self.remote} local={self.local} level={self.level} {self.window!r}>"
