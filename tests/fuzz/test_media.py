"""Pictures and films whose bytes are anything: probed, or an error in words."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from tests.support.fuzzing import said, search
from vcam.video.reading import probe

pytestmark = pytest.mark.fuzz
FILMS = (".mp4", ".mkv", ".avi")


def pictures() -> dict[str, bytes]:
    """Return a small picture in several formats, by its ending."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    made = {}
    for ending, kind in ((".png", "PNG"), (".jpg", "JPEG"), (".webp", "WEBP"), (".gif", "GIF"), (".tiff", "TIFF")):
        file = io.BytesIO()
        picture.save(file, kind)
        made[ending] = file.getvalue()
    return made


def films(folder: Path) -> dict[str, bytes]:
    """Return a small film in several containers, by its ending."""
    import av

    made = {}
    for ending in FILMS:
        path = folder / f"whole{ending}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            for shade in range(5):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), shade * 40, np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        made[ending] = path.read_bytes()
    return made


def test_any_bytes_are_probed_or_refused_in_words(tmp_path: Path) -> None:
    whole = pictures() | films(tmp_path)
    changes = st.lists(
        st.tuples(st.integers(0, 4000), st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=6
    )

    def check(example: tuple[str, str, list[tuple[int, int, bytes]]]) -> None:
        kind, ending, changed = example
        content = whole[kind]
        for place, taken, put in changed:
            place %= len(content) + 1
            content = content[:place] + put + content[place + taken :]
        path = tmp_path / f"changed{ending}"
        path.write_bytes(content)
        said(lambda: probe(path))

    names = st.sampled_from(sorted(whole))
    search(st.tuples(names, names, changes), check)
