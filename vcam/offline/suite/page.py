"""Makes the report of a suite: one HTML file that holds everything, asks nothing of the network, and opens anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from core.measure.definitions import DEFINITIONS
from vcam.video import probe


def page(result: Mapping[str, Any], cells: Path) -> str:
    """Return the page of a suite's result; cells: where the films and strips lie that it names.

    What the clock told is not part of its identity, so a suite that was resumed keeps the counts of its blind test.
    """
    shown = [*result["rows"], *result["sources"].values()]
    films = {one["shown"]: _text(cells / one["shown"]) for one in shown}
    strips = {one["strip"]: _text(cells / one["strip"]) for one in shown}
    rates = {clip: float(probe(cells / one["shown"]).rate) for clip, one in result["sources"].items()}
    identity = hashlib.sha256("".join(row["key"] for row in result["rows"]).encode()).hexdigest()[:12]
    data = {
        "id": identity,
        "names": list(result["table"]),  # in their order: a script's object has keys like numbers first
        "result": result,
        "definitions": [one._asdict() for one in DEFINITIONS],
        "films": films,
        "strips": strips,
        "rates": rates,
    }
    text = json.dumps(data).replace("<", "\\u003c")  # a prompt must not end the script that holds it
    return files("vcam.offline.suite").joinpath("page.html").read_text(encoding="utf-8").replace("/*DATA*/", text)


def _text(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
