"""The usual folders, and a user who has no home."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core import folders
from core.errors import SettingsError
from core.models.catalogue import models_folder
from vcam.cli.service import this_systems_service
from vcam.client import state_folder
from vcam.control.thumbnails import thumbnails_folder
from vcam.log_file import log_folder
from vcam.obs.places import config_folders
from vcam.settings.config import config_folder

NOBODY = 54321  # an id without an account
OURS = ("STATE", "CONFIG", "LOG", "MODELS", "ENGINES", "PROFILES")


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "OBS_CONFIG_FOLDER", "XDG_CONFIG_HOME", *(f"VCAM_{one}_FOLDER" for one in OURS)):
        monkeypatch.delenv(name, raising=False)
    if sys.platform != "win32":
        monkeypatch.setattr(os, "getuid", lambda: NOBODY)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows a home by other means")
@pytest.mark.parametrize(
    "where",
    [
        folders.home,
        folders.state,
        folders.config,
        folders.data,
        folders.cache,
        folders.log,
        models_folder,
        state_folder,
        config_folder,
        log_folder,
        thumbnails_folder,
        config_folders,
        this_systems_service,
    ],
)
@pytest.mark.usefixtures("homeless")
def test_without_a_home_the_remedy_is_named(where: Callable[[], object]) -> None:
    with pytest.raises(SettingsError, match=r"this user has no home folder .* set HOME to a folder"):
        where()
    assert list(Path.cwd().iterdir()) == [], "no folder named ~"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows a home by other means")
@pytest.mark.parametrize("own", [False, True], ids=["nothing set", "our folders set"])
@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["stop"],
        ["use", "ink"],
        ["profiles"],
        ["models", "list"],
        ["engines", "list"],
        ["service", "status"],
        ["obs", "setup"],
        ["panel"],
    ],
)
def test_no_verb_of_a_user_without_a_home_shows_a_traceback(words: list[str], own: bool, tmp_path: Path) -> None:
    kept = {key: value for key, value in os.environ.items() if key not in ("HOME", "OBS_CONFIG_FOLDER")}
    if own:
        kept |= {f"VCAM_{one}_FOLDER": str(tmp_path / one.lower()) for one in OURS}
    code = f"import os, sys; os.getuid = lambda: {NOBODY}; from vcam.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, env=kept, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    assert done.returncode in (0, 1)
    if done.returncode == 1:
        assert any(words in done.stderr for words in ("set HOME to a folder", "no StreamV2V Camera is running", "OBS"))
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "~").exists()
