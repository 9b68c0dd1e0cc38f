"""What a run says of itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path


def recorder(path: Path) -> Callable[[dict[str, float]], None]:
    """Append each record to a JSON-lines file and show it."""

    def record(values: dict[str, float]) -> None:
        line = json.dumps({name: round(value, 5) for name, value in values.items()})
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(path.stem, line, file=sys.stderr, flush=True)

    return record
