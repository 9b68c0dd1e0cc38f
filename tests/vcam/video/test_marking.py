"""What finished films and pictures say of themselves, read back by C2PA's own reader, FFmpeg and Pillow."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import stat
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import av
import numpy as np
import pytest
from PIL import Image

from tests.support.carrying import carried, numbers
from tests.support.media_files import film, numbered
from vcam.devices.choose import load_readers
from vcam.devices.sinks import VideoFile
from vcam.errors import VideoError
from vcam.settings.config import MarkingSettings
from vcam.video import marking, probe, read, writing
from vcam.video.identity import Identity, own_identity
from vcam.video.marking import DIGITAL_SOURCE, SIGNED_SUFFIXES, TEXT, Marker, marker_for, xmp
from vcam.video.picture_files import encoded


class Notes(list[str]):
    def __call__(self, text: str) -> None:
        self.append(text)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return own_identity(tmp_path_factory.mktemp("own"))


def manifest_of(path: Path) -> dict[str, Any]:
    """What C2PA's reader says of the file, whose signature and hashes it has checked."""
    import c2pa

    with c2pa.Reader(str(path)) as reader:
        read = json.loads(reader.json())
    assert read["validation_state"] == "Valid"
    assert [one["code"] for one in read.get("validation_status", [])] == ["signingCredential.untrusted"]
    manifest: dict[str, Any] = read["manifests"][read["active_manifest"]]
    return manifest


def says_ai_translated(manifest: dict[str, Any]) -> bool:
    (actions,) = (one["data"]["actions"] for one in manifest["assertions"] if one["label"].startswith("c2pa.actions"))
    assert [one["action"] for one in actions] == ["c2pa.created"]
    assert actions[0]["softwareAgent"]["name"] == "StreamV2V Camera"
    return bool(actions[0]["digitalSourceType"] == DIGITAL_SOURCE and actions[0]["description"] == TEXT)


def unsigned(path: Path) -> bool:
    import c2pa

    return c2pa.Reader.try_create(str(path)) is None


# -------------------------------------------------------------------------------------------------------------- films


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm"])
def test_a_film_says_so_whatever_its_container(tmp_path: Path, identity: Identity, suffix: str) -> None:
    source, target, notes = film(tmp_path / "in.mp4", 12, sound="aac"), tmp_path / f"out{suffix}", Notes()
    with writing(target, probe(source), Notes(), Marker(identity, notes)) as writer:
        for picture in read(probe(source), Notes()):
            writer.write(picture)
        writer.finish()
    assert numbers(list(read(probe(target), Notes()))) == list(range(12))
    with av.open(str(target)) as container:
        said = {key.lower(): value for key, value in container.metadata.items()}
    assert said["comment"].startswith(TEXT)
    assert DIGITAL_SOURCE in said["comment"]
    if suffix in (".mkv", ".webm"):
        assert said["digitalsourcetype"] == DIGITAL_SOURCE
    if suffix in (".mp4", ".mov", ".m4v"):
        assert target.read_bytes().endswith(xmp())
    if suffix in SIGNED_SUFFIXES:
        assert says_ai_translated(manifest_of(target))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.mp4", target.name])
    assert notes == []


def test_what_was_changed_afterwards_is_found_out(tmp_path: Path, identity: Identity) -> None:
    import c2pa

    target = film(tmp_path / "a.mp4", 12)
    Marker(identity).finished(target)
    manifest_of(target)
    data = bytearray(target.read_bytes())
    data[data.index(b"mdat") + 400] ^= 1
    target.write_bytes(data)
    with c2pa.Reader(str(target)) as reader:
        assert reader.get_validation_state() == "Invalid"


def test_a_recording_is_marked_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    sink = VideoFile(path, (64, 48), 25, MarkingSettings())
    for tick in range(30):
        sink.send(numbered(tick), tick)
    sink.close()
    assert says_ai_translated(manifest_of(path))
    assert numbers(list(read(probe(path), Notes()))) == list(range(30))
    assert list(tmp_path.iterdir()) == [path]


def test_a_fragmented_recording_can_be_marked_too(tmp_path: Path, identity: Identity) -> None:
    fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    path = film(tmp_path / "a.mp4", 60, options={"g": "15"}, container_options=fragments)
    assert path.read_bytes().count(b"moof") > 2
    Marker(identity).finished(path)
    assert says_ai_translated(manifest_of(path))
    assert numbers(list(read(probe(path), Notes()))) == list(range(60))


@pytest.mark.parametrize(
    "error", [RuntimeError("no C2PA library"), OSError("libc2pa_c.so: invalid ELF header"), ImportError("GLIBC_2.38")]
)
def test_a_package_that_does_not_load_costs_the_credentials_alone_and_is_named(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "c2pa":
                raise error

    monkeypatch.delitem(sys.modules, "c2pa", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    marking.load.cache_clear()
    notes = Notes()
    try:
        load_readers()
        marker = marker_for(MarkingSettings(), notes)
    finally:
        marking.load.cache_clear()
    assert marker.identity is None
    assert [str(error) in note and "missing" not in note for note in notes] == [True]


def test_without_the_package_there_is_the_metadata_and_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    marking.load.cache_clear()
    notes = Notes()
    try:
        marker = marker_for(MarkingSettings(), notes)
    finally:
        marking.load.cache_clear()
    assert marker.identity is None
    assert ["c2pa-python" in note for note in notes] == [True]
    path = film(tmp_path / "a.mp4", 12)
    marker.finished(path)
    assert xmp() in path.read_bytes()
    assert numbers(carried(path, tmp_path / "b.mp4")) == list(range(12))


def test_who_wants_no_credentials_is_told_nothing(tmp_path: Path) -> None:
    notes = Notes()
    path = film(tmp_path / "a.mp4", 12)
    marker_for(MarkingSettings(credentials=False), notes).finished(path)
    assert notes == []
    assert unsigned(path)


@pytest.mark.parametrize("free", [0, 10 << 40])
def test_a_film_that_cannot_be_signed_stays_whole_and_a_note_says_why(
    tmp_path: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    path, notes = film(tmp_path / "a.mp4", 12), Notes()

    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    monkeypatch.setattr(marking, "_signed", full)
    marker = Marker(identity, notes)
    for _ in range(2):
        marker.finished(path)
    assert numbers(list(read(probe(path), Notes()))) == list(range(12))
    assert len(notes) == 1, "it is said once"
    assert ("No space left" in notes[0]) == bool(free)
    assert list(tmp_path.iterdir()) == [path]


# ----------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"])
def test_a_picture_says_so_and_is_what_it_was(tmp_path: Path, identity: Identity, suffix: str, alpha: bool) -> None:
    rgb, path = numbered(77), tmp_path / f"a{suffix}"
    path.write_bytes(encoded(rgb, suffix, Marker(identity), np.full((48, 64), 200, np.uint8) if alpha else None))
    assert says_ai_translated(manifest_of(path))
    with Image.open(path) as picture:
        shown = np.asarray(picture)
        told = [picture.info.get(key) for key in ("xmp", "XML:com.adobe.xmp")]
        if suffix.startswith(".tif"):
            told = [cast(Any, picture).tag_v2[700]]
    assert DIGITAL_SOURCE in str(told)
    assert np.abs(shown[..., :3].astype(int) - rgb).max() <= (20 if suffix.startswith(".jp") else 0)
    if alpha and not suffix.startswith(".jp"):
        assert np.all(shown[..., 3] == 200)


def test_a_bitmap_holds_pixels_alone(identity: Identity) -> None:
    notes = Notes()
    with Image.open(io.BytesIO(encoded(numbered(7), ".bmp", Marker(identity, notes)))) as picture:
        assert np.array_equal(np.asarray(picture), numbered(7))
    assert notes == []


# ------------------------------------------------------------------------------------------------------- certificates


def test_the_machines_certificate_is_made_once_for_this_user_alone(tmp_path: Path) -> None:
    first = own_identity(tmp_path / "own")
    (kept,) = (tmp_path / "own").iterdir()
    assert own_identity(tmp_path / "own") == first
    if os.name == "posix":
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert own_identity(tmp_path / "another") != first
    assert "PRIVATE" not in repr(first)
    for spoilt in (b"", kept.read_bytes()[:300]):
        kept.write_bytes(spoilt)
        assert own_identity(tmp_path / "own") != first


def files_of(identity: Identity, folder: Path) -> tuple[Path, Path]:
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(identity.chain)
    key.write_bytes(identity.key)
    return chain, key


def test_a_certificate_of_the_users_signs(tmp_path: Path, identity: Identity) -> None:
    chain, key = files_of(identity, tmp_path)
    assert marker_for(MarkingSettings(certificate=chain, key=key), Notes()).identity == identity


def test_a_certificate_that_cannot_sign_is_refused_before_the_work(tmp_path: Path, identity: Identity) -> None:
    chain, key = files_of(identity, tmp_path)
    empty, other = tmp_path / "empty.pem", tmp_path / "other.pem"
    empty.write_bytes(b"")
    other.write_bytes(own_identity(tmp_path / "other").key)
    for certificate, secret, why in (
        (chain, None, "needs certificate and key together"),
        (None, key, "needs certificate and key together"),
        (tmp_path / "absent.pem", key, "absent.pem cannot be read"),
        (chain, tmp_path / "absent.pem", "absent.pem cannot be read"),
        (empty, key, "holds no certificate"),
        (chain, empty, "is no private key"),
        (chain, other, "cannot sign .*ignature"),
    ):
        with pytest.raises(VideoError, match=rf"^\[marking\].*{why}"):
            marker_for(MarkingSettings(certificate=certificate, key=secret), Notes())


def test_where_nothing_can_be_kept_the_work_goes_on_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    notes = Notes()
    assert marker_for(MarkingSettings(), notes).identity is None
    assert ["certificate cannot be kept" in note for note in notes] == [True]
