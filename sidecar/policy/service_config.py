"""gRPC's own service config (JSON) as settings of an upstream: retries, hedging, timeouts by method, and the throttle.

What breaks gRFC A6's rules is refused as a whole, every problem with its place. What it says of other things is
ignored, and listed.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from msgspec import Struct

from sidecar.policy.method_settings import (
    HedgeSettings,
    MethodSettings,
    RetrySettings,
    StatusName,
    ThrottleSettings,
    TimeoutSettings,
)
from sidecar.rpc.status import STATUS_NAMES

_DURATION: Final = re.compile(r"([0-9]{1,12})(\.[0-9]{1,9})?s", re.ASCII)
_MOST_TOKENS: Final = 1000  # gRFC A6


class ServiceConfig(Struct, frozen=True, kw_only=True):
    """What of it is put in force, and what is not."""

    own: MethodSettings = MethodSettings()  # of the entry with an empty name: every method without one of its own
    methods: dict[str, MethodSettings] = {}
    throttle: ThrottleSettings | None = None
    ignored: tuple[str, ...] = ()


class ServiceConfigError(ValueError):
    """`problems` holds a sentence for each, which begins with its place."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def parse_service_config(text: str) -> ServiceConfig:
    """The settings in a JSON document. Raises ServiceConfigError."""
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ServiceConfigError([f"this is no JSON: {error}"]) from None
    parser = _Parser()
    found = parser.parse(document)
    if parser.problems:
        raise ServiceConfigError(parser.problems)
    return found


class _Parser:
    """One document. Each method takes a value and its place."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.ignored: list[str] = []

    def parse(self, document: Any) -> ServiceConfig:
        top = self._section(document, "", ("methodConfig", "retryThrottling"))
        methods: dict[str, MethodSettings] = {}
        for number, each in enumerate(self._list(top.get("methodConfig", []), "methodConfig")):
            self._method_config(each, f"methodConfig[{number}]", methods)
        throttle = None
        if "retryThrottling" in top:
            throttle = self._throttle(top["retryThrottling"], "retryThrottling")
        own = methods.pop("", MethodSettings())
        return ServiceConfig(own=own, methods=methods, throttle=throttle, ignored=tuple(self.ignored))

    # === one entry ===

    def _method_config(self, value: Any, place: str, methods: dict[str, MethodSettings]) -> None:
        entry = self._section(value, place, ("name", "timeout", "retryPolicy", "hedgingPolicy"))
        if "retryPolicy" in entry and "hedgingPolicy" in entry:
            self._note(place, "has retryPolicy and hedgingPolicy; an RPC is governed by one of them")
        retry = self._retry(entry["retryPolicy"], f"{place}.retryPolicy") if "retryPolicy" in entry else None
        hedge = self._hedge(entry["hedgingPolicy"], f"{place}.hedgingPolicy") if "hedgingPolicy" in entry else None
        timeouts = None
        if "timeout" in entry:
            timeouts = TimeoutSettings(total=self._duration(entry["timeout"], f"{place}.timeout"))
        settings = MethodSettings(retry=retry, hedge=hedge, timeouts=timeouts)
        for number, each in enumerate(self._list(entry.get("name", []), f"{place}.name")):
            where = f"{place}.name[{number}]"
            name = self._name(each, where)
            if name in methods:
                self._note(where, "was given already")
            methods[name] = settings

    def _name(self, value: Any, place: str) -> str:
        """`/service/method`, `/service/*`, or nothing for every method."""
        name = self._section(value, place, ("service", "method"))
        service, method = name.get("service") or "", name.get("method") or ""
        if method and not service:
            self._note(place, "has a method and no service")
        return f"/{service}/{method or '*'}" if service else ""

    def _retry(self, value: Any, place: str) -> RetrySettings:
        keys = ("maxAttempts", "initialBackoff", "maxBackoff", "backoffMultiplier", "retryableStatusCodes")
        policy = self._section(value, place, (*keys, "perAttemptRecvTimeout"), required=keys)
        codes = self._codes(policy.get("retryableStatusCodes", ["UNAVAILABLE"]), f"{place}.retryableStatusCodes")
        if not codes:
            self._note(f"{place}.retryableStatusCodes", "must not be empty")
        timeout = 0.0
        if "perAttemptRecvTimeout" in policy:
            timeout = self._duration(policy["perAttemptRecvTimeout"], f"{place}.perAttemptRecvTimeout")
        return RetrySettings(
            codes=codes,
            max_attempts=self._attempts(policy.get("maxAttempts", 2), f"{place}.maxAttempts"),
            backoff_base=self._duration(policy.get("initialBackoff", "1s"), f"{place}.initialBackoff", least=1e-9),
            backoff_max=self._duration(policy.get("maxBackoff", "1s"), f"{place}.maxBackoff", least=1e-9),
            backoff_factor=self._number(policy.get("backoffMultiplier", 1), f"{place}.backoffMultiplier"),
            per_try_timeout=timeout,
        )

    def _hedge(self, value: Any, place: str) -> HedgeSettings:
        keys = ("maxAttempts", "hedgingDelay", "nonFatalStatusCodes")
        policy = self._section(value, place, keys, required=("maxAttempts",))
        return HedgeSettings(
            max_attempts=self._attempts(policy.get("maxAttempts", 2), f"{place}.maxAttempts"),
            delay=self._duration(policy.get("hedgingDelay", "0s"), f"{place}.hedgingDelay"),
            codes=self._codes(policy.get("nonFatalStatusCodes", []), f"{place}.nonFatalStatusCodes"),
        )

    def _throttle(self, value: Any, place: str) -> ThrottleSettings:
        keys = ("maxTokens", "tokenRatio")
        section = self._section(value, place, keys, required=keys)
        most = self._number(section.get("maxTokens", 1), f"{place}.maxTokens")
        if most > _MOST_TOKENS or most != int(most):
            self._note(f"{place}.maxTokens", f"must be a whole number of at most {_MOST_TOKENS}")
        ratio = self._number(section.get("tokenRatio", 1), f"{place}.tokenRatio")
        return ThrottleSettings(max_tokens=int(most), token_ratio=ratio)

    # === values ===

    def _section(
        self, value: Any, place: str, known: tuple[str, ...], required: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """The known keys; the others are ignored, and listed."""
        if not isinstance(value, dict):
            self._note(place or "it", "must be an object")
            return {}
        self.ignored += [f"{place}.{key}".removeprefix(".") for key in value if key not in known]
        for key in required:
            if key not in value:
                self._note(place, f"has no {key}")
        return {key: value[key] for key in known if value.get(key) is not None}

    def _list(self, value: Any, place: str) -> list[Any]:
        if isinstance(value, list):
            return value
        self._note(place, "must be a list")
        return []

    def _attempts(self, value: Any, place: str) -> int:
        if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value) and value > 1:
            return int(value)
        self._note(place, f"must be a whole number above 1, not {value!r}")
        return 2

    def _number(self, value: Any, place: str) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return float(value)
        self._note(place, f"must be a number above 0, not {value!r}")
        return 1.0

    def _duration(self, value: Any, place: str, least: float = 0.0) -> float:
        seconds = -1.0
        if isinstance(value, str) and _DURATION.fullmatch(value):
            seconds = float(value[:-1])
        if seconds < least:
            self._note(place, f"must be a duration such as 0.1s, not {value!r}")
        return seconds

    def _codes(self, value: Any, place: str) -> tuple[StatusName, ...]:
        """Names in any case, or numbers."""
        found: list[Any] = []
        for number, each in enumerate(self._list(value, place)):
            name = each.upper() if isinstance(each, str) else each
            if isinstance(name, int) and not isinstance(name, bool) and 0 < name < len(STATUS_NAMES):
                name = STATUS_NAMES[name]
            if name in STATUS_NAMES[1:]:
                found.append(name)
            else:
                self._note(f"{place}[{number}]", f"is no status that an RPC can fail with: {each!r}")
        return tuple(found)

    def _note(self, place: str, sentence: str) -> None:
        self.problems.append(f"{place} {sentence}")
