"""A user's function that judges answers for ejection, kept at arm's length: what it raises costs no RPC.

It is called with grpc-status, seconds and path of each answer, and says True (a failure), False (a success) or None
(neither). What it raises is logged, and the answer then counts as neither.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping

from sidecar.config.model import UpstreamEntry
from sidecar.policy.judge import Classifier

log = logging.getLogger("sidecar.app")


class OwnClassifier:
    """`inner` as the configuration names it."""

    def __init__(self, inner: Callable[[int, float, bytes], object], label: str) -> None:
        self.inner = inner
        self.label = label

    def __call__(self, status: int, seconds: float, path: bytes) -> bool | None:
        try:
            told = self.inner(status, seconds, path)
        except Exception:
            log.exception("the classifier %s failed; the answer is not judged, and the RPC is not affected", self.label)
            return None
        return None if told is None else bool(told)


def load_classifier(name: str) -> Classifier:
    """The function named `module:function`. Raises ValueError with a sentence."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise ValueError(f"classifier {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise ValueError(f"classifier {name!r} is not a function")
    return OwnClassifier(found, name)


def load_classifiers(entries: Mapping[str, UpstreamEntry]) -> tuple[dict[str, Classifier], list[str]]:
    """A classifier for each entry that names one, and a sentence for each that cannot be had."""
    classifiers: dict[str, Classifier] = {}
    problems: list[str] = []
    for service, entry in entries.items():
        if entry.ejection.enabled and entry.ejection.classifier is not None:
            try:
                classifiers[service] = load_classifier(entry.ejection.classifier)
            except ValueError as error:
                problems.append(f"upstream {service}: {error}")
    return classifiers, problems
