"""Profiles and config.toml of any content: read, or an error in words, at little cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fuzz_inputs import SETTINGS_FILES
from tests.support.fuzzing import said, search
from vcam.settings.config import load_config
from vcam.settings.profiles import parse_profile

pytestmark = [pytest.mark.fuzz, pytest.mark.filterwarnings("default")]  # what libraries warn of is no fault
CPU_S = 1.0  # what a bad file may cost its reader


@pytest.mark.parametrize("read", [parse_profile, load_config])
def test_any_file_of_settings_is_read_or_refused_in_words(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "mine.toml"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        begin = time.process_time()
        said(lambda: read(path))
        assert time.process_time() - begin < CPU_S

    search(SETTINGS_FILES, check)
