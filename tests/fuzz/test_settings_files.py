"""Profiles and config.toml of any content: read, or an error in words, at little cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.support.fuzzing import said, search
from vcam.settings.config import load_config
from vcam.settings.profiles import parse_profile, shipped_folder

pytestmark = pytest.mark.fuzz
CPU_S = 1.0  # what a bad file may cost its reader
KEYS = st.sampled_from(
    [
        "name",
        "look",
        "look.prompt",
        "look.strength",
        "look.on_switch",
        "engine",
        "engine.model",
        "engine.loras",
        "engine.steps",
        "engine.policy",
        "profile",
        "camera",
        "obs",
        "obs.allow",
        "obs.host",
        "obs.port",
        "obs.scenes",
        "size",
        "fps",
        "model",
        "runtime",
        "device",
        "dtype",
    ]
)
WORDS = st.text(max_size=12) | st.sampled_from(["~nouser/x", "C:\\Users", "a" * 5000, "512x512", "cuda:99", "\0"])
VALUES = st.recursive(
    st.one_of(
        st.integers().map(str),
        st.floats().map(str),
        st.sampled_from(["true", "false", "inf", "-nan", "1979-05-27", "07:32:00", "0x" + "f" * 300, "1e999", '"""']),
        WORDS.map(lambda text: f"'{text}'"),
        WORDS.map(lambda text: f'"{text}"'),
    ),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda parts: f"[{', '.join(parts)}]")
        | st.lists(inner, max_size=3).map(
            lambda parts: "{" + ", ".join(f"k{i} = {p}" for i, p in enumerate(parts)) + "}"
        )
    ),
    max_leaves=6,
)
LINES = st.one_of(
    st.tuples(KEYS, VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}"),
    KEYS.map(lambda key: f"[{key}]"),
    KEYS.map(lambda key: f"[[{key}]]"),
    st.integers(1, 3000).map(lambda depth: ".".join("a" * depth) + " = 1"),
    st.integers(1, 3000).map(lambda depth: "a = " + "[" * depth),
    st.text(max_size=30),
)
SHIPPED = sorted(path.read_bytes() for path in shipped_folder().glob("*.toml"))
CHANGED = st.tuples(st.sampled_from(SHIPPED), st.integers(0, 2000), st.integers(0, 20), st.binary(max_size=20)).map(
    lambda one: one[0][: one[1]] + one[3] + one[0][one[1] + one[2] :]
)
FILES = st.one_of(
    st.lists(LINES, max_size=8).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")),
    CHANGED,
    st.binary(max_size=200),
)


@pytest.mark.parametrize("read", [parse_profile, load_config])
def test_any_file_of_settings_is_read_or_refused_in_words(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "mine.toml"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        begin = time.process_time()
        said(lambda: read(path))
        assert time.process_time() - begin < CPU_S

    search(FILES, check)
