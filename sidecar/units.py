"""The units that settings are written in. A setting is a field with a type from here, a sentence, a default, a bound.

The loader in `config` turns `250ms` and `4MiB` into these numbers; the schema and the docs are made from them.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

# Seconds as a float; in YAML `250ms`, `1.5s`, `2m`, `1h`, or a plain number of seconds.
Duration = Annotated[float, Meta(extra={"unit": "duration"})]  # never negative: the grammar has no sign
# Octets; in YAML `16KiB`, `4MiB`, or a plain number.
Size = Annotated[int, Meta(extra={"unit": "size"})]  # never negative, likewise
Count = Annotated[int, Meta(ge=1)]
# 0.1 means ten per cent.
Fraction = Annotated[float, Meta(ge=0, le=1)]
Percent = Annotated[int, Meta(ge=0, le=100)]
Port = Annotated[int, Meta(ge=1, le=65_535)]
# `host:port`, `[::1]:port`, or `unix:/path` where the field's sentence says so.
Address = Annotated[str, Meta(min_length=3, extra={"unit": "address"})]
Name = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
