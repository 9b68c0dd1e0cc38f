"""A Windows path between double quotes is no TOML: the error names the backslash and what to write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import StreamV2VError
from vcam.settings.config import load_config
from vcam.settings.profiles import parse_profile

LINES = [r'model = "C:\Users\me\model"', r'model = "C:\models"', r'model = "D:\x"']
VALID_LINES = [r"C:\temp", r"D:\films\new", r"\temp", r"\new", r"C:\bin", r"C:\re", r"\temp\bin"]


@pytest.mark.parametrize("line", LINES)
def test_a_backslash_is_named_with_the_remedy(tmp_path: Path, line: str) -> None:
    for name, read in (("config.toml", load_config), ("mine.toml", parse_profile)):
        path = tmp_path / name
        path.write_text(line)
        with pytest.raises(StreamV2VError, match=r"backslash.*with / or in single quotes"):
            read(path)


@pytest.mark.parametrize("path", VALID_LINES)
def test_a_path_that_toml_reads_as_a_tab_or_a_line_end_is_told_the_same(tmp_path: Path, path: str) -> None:
    files: dict[str, tuple[Callable[[Path], object], str]] = {
        "config.toml": (load_config, f'[engine]\nmodel = "{path}"'),
        "other.toml": (load_config, f'source = "{path}"'),
        "mine.toml": (parse_profile, f'name = "Mine"\n[look]\nprompt = "ink"\n[engine]\nmodel = "{path}"'),
        "loras.toml": (parse_profile, f'name = "Mine"\n[look]\nprompt = "ink"\n[[engine.loras]]\npath = "{path}"'),
    }
    for name, (read, text) in files.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(StreamV2VError, match=r"control characters; a backslash.*with / or in single quotes"):
            read(tmp_path / name)


def test_another_fault_has_no_such_hint(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("model = [")
    with pytest.raises(StreamV2VError) as caught:
        load_config(path)
    assert "backslash" not in str(caught.value)
