"""The small models that lie elsewhere than at the hub: fetched once, checked, and no engine's."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import ModelError
from core.models import catalogue, hub
from core.models.catalogue import CatalogueModel, File, Licence
from core.models.description import available, describe
from core.models.hub import DownloadProgress
from tests.support.hub_server import Hub
from vcam.cli import main as cli

REVISION = "0123456789abcdef0123456789abcdef01234567"
CONTENT = os.urandom(50_000)


@pytest.fixture
def server() -> Iterator[Hub]:
    made = Hub(REVISION, {"lab/eyes/face.onnx": CONTENT})
    yield made
    made.close()


@pytest.fixture
def entry(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CatalogueModel:
    monkeypatch.setenv("VCAM_MODELS_FOLDER", str(tmp_path / "models"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    address = f"{server.start()}/lab/eyes/resolve/{REVISION}/face.onnx"
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    file = File("lab/eyes", REVISION, "face.onnx", "eyes.onnx", len(CONTENT), sha256, address)
    made = CatalogueModel("face", (file,), (Licence("Eyes", "LAB-2.0", "https://example.org"),), purpose="finds faces")
    monkeypatch.setattr(catalogue, "HELPERS", {"face": made})
    return made


def fetch(entry: CatalogueModel) -> list[DownloadProgress]:
    seen: list[DownloadProgress] = []
    hub.fetch(entry, seen.append, lambda seconds: None)
    return seen


def test_it_is_fetched_once_as_it_is_without_the_hubs_token(entry: CatalogueModel, server: Hub) -> None:
    fetch(entry)
    assert (entry.folder / "eyes.onnx").read_bytes() == CONTENT
    assert sorted(path.name for path in entry.folder.iterdir()) == ["eyes.onnx", "source.json"]
    assert server.asked == [("GET", "face.onnx", "")]
    assert server.tokens == [""]
    fetch(entry)
    assert len(server.asked) == 1


def test_a_broken_download_of_it_goes_on(entry: CatalogueModel, server: Hub) -> None:
    server.faults["face.onnx"].append("GET cut 20000")
    fetch(entry)
    assert [asked for _, _, asked in server.asked] == ["", "bytes=20000-"]
    assert entry.is_here()


def test_another_file_is_refused(entry: CatalogueModel, server: Hub) -> None:
    server.faults["face.onnx"].append("GET other")
    with pytest.raises(ModelError, match="wrong hash"):
        fetch(entry)
    server.files["lab/eyes/face.onnx"] = CONTENT + bytes(100)
    with pytest.raises(ModelError, match=f"more than its {len(CONTENT)} bytes came"):
        fetch(entry)
    assert hub.bytes_here(entry) == 0
    assert not entry.is_here()


@pytest.mark.parametrize(
    ("status", "said"),
    [("404", "not found at 127.0.0.1"), ("403", "127.0.0.1 refuses"), ("500", "127.0.0.1 is in trouble")],
)
def test_what_the_other_place_says_is_not_taken_for_the_hubs(
    entry: CatalogueModel, server: Hub, status: str, said: str
) -> None:
    server.faults["face.onnx"].extend([f"GET {status}"] * 6)
    with pytest.raises(ModelError, match=said):
        fetch(entry)


def test_a_file_that_lies_elsewhere_is_known_in_advance(entry: CatalogueModel) -> None:
    unknown = replace(entry, files=(entry.files[0]._replace(sha256=None),))
    with pytest.raises(ValueError, match="must be known"):
        fetch(unknown)


def test_the_real_ones_are_pinned_and_no_engines() -> None:
    assert list(catalogue.HELPERS) == ["face", "person", "clip"]
    for one in (catalogue.FACE, catalogue.PERSON):
        (file,) = one.files
        assert file.revision in file.address
        assert file.address.startswith("https://")
        assert file.size is not None
        assert file.size < 400_000
        assert file.sha256 is not None
        assert len(file.sha256) == 64
        assert {licence.name for licence in one.licences} == {"Apache-2.0"}
        assert one.name not in available()
        with pytest.raises(ModelError, match="neither a known name"):
            describe(one.name)


def test_the_command_fetches_lists_and_deletes_it(entry: CatalogueModel, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    assert "not here: `vcam models download face` fetches 0.1 MB" in capsys.readouterr().out
    assert cli.main(["models", "download", "face", "--json"]) == 0, "nobody is asked for what asks for nothing"
    said = capsys.readouterr()
    assert "Eyes: LAB-2.0, https://example.org" in said.err
    assert "127.0.0.1" in said.err
    assert json.loads(said.out)["folder"] == str(entry.folder)
    assert cli.main(["models", "--json"]) == 0
    small = json.loads(capsys.readouterr().out)["small_models"]
    assert small == [{"name": "face", "purpose": "finds faces", "folder": str(entry.folder), "here": True}]
    assert cli.main(["models", "remove", "face"]) == 0
    assert not entry.is_here()


def test_clip_is_pinned_and_comes_from_the_hub_without_a_question() -> None:
    clip = catalogue.CLIP
    assert clip.purpose, "its licence asks for nothing"
    (weights,) = [file for file in clip.files if file.path.endswith(".safetensors")]
    assert weights.size == clip.size > 1e9
    assert len(weights.sha256 or "") == 64
    assert {(file.repository, file.revision, file.address) for file in clip.files} == {(*weights[:2], "")}
    assert {file.target for file in clip.files} >= {"config.json", "preprocessor_config.json", "tokenizer.json"}
    assert clip.name not in available()
