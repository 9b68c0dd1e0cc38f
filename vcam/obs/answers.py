"""What is read out of OBS's answers: pure functions that raise ObsGone where an answer has not the documented shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vcam.errors import ObsGone


def text(answer: Mapping[str, Any], key: str) -> str:
    """Return the text under a key."""
    value = answer.get(key)
    if not isinstance(value, str):
        raise ObsGone(f"OBS's answer has no text {key!r}")
    return value


def number(answer: Mapping[str, Any], key: str) -> float:
    """Return the number under a key."""
    value = answer.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ObsGone(f"OBS's answer has no number {key!r}")
    return float(value)


def objects(answer: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the list of objects under a key."""
    value = answer.get(key)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ObsGone(f"OBS's answer has no list of objects {key!r}")
    return value


def texts(answer: Mapping[str, Any], key: str) -> list[str]:
    """Return the list of texts under a key."""
    value = answer.get(key)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ObsGone(f"OBS's answer has no list of texts {key!r}")
    return value


def settings(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return an input's settings."""
    value = answer.get("inputSettings")
    if not isinstance(value, dict):
        raise ObsGone("OBS's answer has no input's settings")
    return value
