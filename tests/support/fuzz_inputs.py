"""What the searches for faults try: settings files, what OBS sends, pictures and films."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from tests.support.model_faults import JSON
from vcam.settings.profiles import shipped_folder

_KEYS = st.sampled_from(
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
_WORDS = st.text(max_size=12) | st.sampled_from(["~nouser/x", "C:\\Users", "a" * 5000, "512x512", "cuda:99", "\0"])
_VALUES = st.recursive(
    st.one_of(
        st.integers().map(str),
        st.floats().map(str),
        st.sampled_from(["true", "false", "inf", "-nan", "1979-05-27", "07:32:00", "0x" + "f" * 300, "1e999", '"""']),
        _WORDS.map(lambda text: f"'{text}'"),
        _WORDS.map(lambda text: f'"{text}"'),
    ),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda parts: f"[{', '.join(parts)}]")
        | st.lists(inner, max_size=3).map(
            lambda parts: "{" + ", ".join(f"k{i} = {p}" for i, p in enumerate(parts)) + "}"
        )
    ),
    max_leaves=6,
)
_LINES = st.one_of(
    st.tuples(_KEYS, _VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}"),
    _KEYS.map(lambda key: f"[{key}]"),
    _KEYS.map(lambda key: f"[[{key}]]"),
    st.integers(1, 3000).map(lambda depth: ".".join("a" * depth) + " = 1"),
    st.integers(1, 3000).map(lambda depth: "a = " + "[" * depth),
    st.text(max_size=30),
)
_SHIPPED = sorted(path.read_bytes() for path in shipped_folder().glob("*.toml"))
_CHANGED = st.tuples(st.sampled_from(_SHIPPED), st.integers(0, 2000), st.integers(0, 20), st.binary(max_size=20)).map(
    lambda one: one[0][: one[1]] + one[3] + one[0][one[1] + one[2] :]
)
SETTINGS_FILES = st.one_of(
    st.lists(_LINES, max_size=8).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")),
    _CHANGED,
    st.binary(max_size=200),
)

OBS_EVENTS = st.sampled_from(
    [
        "CurrentSceneCollectionChanging",
        "CurrentSceneCollectionChanged",
        "CustomEvent",
        "InputSettingsChanged",
        "InputCreated",
        "CurrentProgramSceneChanged",
        "SceneItemEnableStateChanged",
        "SourceFilterEnableStateChanged",
        "ExitStarted",
        "X",
    ]
)
_NAMES = st.sampled_from(["StreamV2V: pause", "StreamV2V: use oil", "StreamV2V: prompt ink", "StreamV2V prompt", "x"])
_FIELDS = st.sampled_from(
    [
        "inputName",
        "inputSettings",
        "text",
        "sceneName",
        "sceneItemId",
        "sceneItemEnabled",
        "filterName",
        "filterEnabled",
        "vendorName",
        "eventData",
        "streamv2v",
        "command",
        "value",
        "sceneItems",
        "inputs",
        "inputKind",
        "inputSettings",
        "obsWebSocketVersion",
    ]
)
OBS_DATA = st.dictionaries(_FIELDS, JSON | _NAMES | st.dictionaries(_FIELDS, JSON | _NAMES, max_size=3), max_size=5)

_FILMS = (".mp4", ".mkv", ".avi")


def _pictures() -> dict[str, bytes]:
    """Return a small picture in several formats, by its ending."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    made = {}
    for ending, kind in ((".png", "PNG"), (".jpg", "JPEG"), (".webp", "WEBP"), (".gif", "GIF"), (".tiff", "TIFF")):
        file = io.BytesIO()
        picture.save(file, kind)
        made[ending] = file.getvalue()
    return made


def _films(folder: Path) -> dict[str, bytes]:
    """Return a small film in several containers, by its ending."""
    import av

    made = {}
    for ending in _FILMS:
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


class ChangedFile(NamedTuple):
    """A picture or film that was damaged. kind: its ending before; ending: the one that it has now."""

    kind: str
    ending: str
    changes: list[tuple[int, int, bytes]]

    def put(self, whole: dict[str, bytes], folder: Path) -> Path:
        """Write it into the folder; return its path."""
        content = whole[self.kind]
        for place, taken, put in self.changes:
            place %= len(content) + 1
            content = content[:place] + put + content[place + taken :]
        path = folder / f"changed{self.ending}"
        path.write_bytes(content)
        return path


def media(folder: Path) -> tuple[dict[str, bytes], st.SearchStrategy[ChangedFile]]:
    """Return pictures and films by their endings, and damaged ones. folder: where films are made."""
    whole = _pictures() | _films(folder)
    names = st.sampled_from(sorted(whole))
    changes = st.lists(
        st.tuples(st.integers(0, 4000), st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=6
    )
    return whole, st.builds(ChangedFile, names, names, changes)
