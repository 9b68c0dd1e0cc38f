"""Faults of a model folder's JSON, for hypothesis: whole files of any shape, and single values of any type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from([-1, 0, 1, 10**30])
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
DEEP = st.sampled_from(
    ['{"a":' * 900 + "1" + "}" * 900, "[" * 100_000, '{"a":' * 100_000, '{"a":' + "[" * 50 + "]" * 50 + "}"]
)
WHOLE = st.one_of(DEEP, JSON.map(lambda value: json.dumps(value)), st.text(max_size=50))


class Fault(NamedTuple):
    """A file that is replaced, or a key of it that gets another value (`missing`: none)."""

    file: str
    content: str | None  # of the whole file; None: the key
    key: int  # an index into the file's keys
    value: Any

    def put(self, folder: Path) -> None:
        """Write the fault into the folder."""
        path = folder / self.file
        if self.content is not None:
            path.write_text(self.content, encoding="utf-8", errors="surrogatepass")
            return
        config = json.loads(path.read_text(encoding="utf-8"))
        keys = sorted(config)
        key = keys[self.key % len(keys)]
        config[key] = self.value
        path.write_text(json.dumps(config), encoding="utf-8")


def files_of(folder: Path) -> list[str]:
    """Return the JSON files of a model folder, as it names them."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.json"))


def faults(folder: Path) -> st.SearchStrategy[Fault]:
    """Return any fault of any JSON file of that folder."""
    names, keys = st.sampled_from(files_of(folder)), st.integers(0, 100)
    whole = st.builds(Fault, names, WHOLE, keys, st.none())
    return whole | st.builds(Fault, names, st.none(), keys, JSON)
