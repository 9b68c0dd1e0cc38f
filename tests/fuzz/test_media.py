"""Pictures and films whose bytes are anything: probed, or an error in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fuzz_inputs import ChangedFile, media
from tests.support.fuzzing import said, search
from vcam.video.reading import probe

pytestmark = [pytest.mark.fuzz, pytest.mark.filterwarnings("default")]  # what libraries warn of is no fault


def test_any_bytes_are_probed_or_refused_in_words(tmp_path: Path) -> None:
    whole, damaged = media(tmp_path)

    def check(example: ChangedFile) -> None:
        path = example.put(whole, tmp_path)
        said(lambda: probe(path))

    search(damaged, check)
