"""The lock that says that a camera runs: one a user, in a folder of that user alone."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from vcam import client
from vcam.daemon.instance_lock import only_one
from vcam.errors import VcamError

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")


@on_posix
@pytest.mark.parametrize("before", [None, 0o755, 0o777])
def test_folder_and_lock_are_this_users_alone_whatever_made_them_first(tmp_path: Path, before: int | None) -> None:
    folder = tmp_path / "state"
    if before is not None:
        folder.mkdir()
        folder.chmod(before)
        (folder / client.LOCK_FILE).touch()
        (folder / client.LOCK_FILE).chmod(0o644)
    with only_one(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / client.LOCK_FILE).stat().st_mode) == 0o600


@on_posix
def test_a_folder_of_somebody_else_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 4321)
    with pytest.raises(VcamError, match=r"belongs to another user.*VCAM_STATE_FOLDER"), only_one(tmp_path):
        pass


def test_a_second_camera_is_told_of_the_first(tmp_path: Path) -> None:
    with only_one(tmp_path), pytest.raises(VcamError, match=r"runs already \(pid \d+\)"), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass
