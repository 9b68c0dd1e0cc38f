"""`vcam setup camera` and `vcam uninstall`: the scripts are found and called, and what was put there is taken back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from core import folders
from vcam import client
from vcam.cli import main as cli
from vcam.cli import service, setup, uninstall
from vcam.cli.uninstall import Removable
from vcam.commands import Status
from vcam.errors import VcamError


def test_the_script_of_each_system_is_called_with_its_words() -> None:
    line = setup.command(["yes", "dry-run"], "linux")
    assert (line[0], Path(line[1]).name, line[2:]) == ("bash", "camera.sh", ["--yes", "--dry-run"])
    line = setup.command(["undo", "dry-run"], "win32")
    assert (line[0], Path(line[-3]).name, line[-2:]) == ("powershell", "camera.ps1", ["-Undo", "-DryRun"])
    assert Path(line[-3]).is_file()


def test_its_exit_status_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Sequence[str]] = []

    def call(line: Sequence[str]) -> int:
        called.append(line)
        return 3

    monkeypatch.setattr(setup.carry_out, "__defaults__", (call,))
    assert cli.main(["setup", "camera", "--dry-run"]) == 3
    assert called == [setup.command(["dry-run"])]


def test_a_system_without_the_shell_is_told() -> None:
    def call(line: Sequence[str]) -> int:
        raise FileNotFoundError(line[0])

    with pytest.raises(VcamError, match="on this system"):
        setup.carry_out([], call)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, folder in (("CONFIG", "config"), ("STATE", "state"), ("LOG", "log")):
        monkeypatch.setenv(f"VCAM_{name}_FOLDER", str(tmp_path / folders.NAME / folder))
    for name in ("data", "cache"):
        monkeypatch.setattr(folders, name, lambda name=name: tmp_path / folders.NAME / name)
    monkeypatch.setattr(folders, "videos", lambda: tmp_path / "videos")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("OBS_CONFIG_FOLDER", str(tmp_path / "obs"))
    monkeypatch.setattr(service, "_run", lambda command: (0, ""))
    monkeypatch.setattr(uninstall, "_camera_was_set_up", lambda: False)
    return tmp_path


def fill(home: Path) -> None:
    ours = home / folders.NAME
    for path in (
        ours / "config" / "config.toml",
        ours / "config" / "profiles" / "mine.toml",
        ours / "state" / "page.json",
        ours / "log" / "vcam.log",
        ours / "data" / "models" / "weights.safetensors",
        ours / "cache" / "thumbnails" / "a.jpg",
        home / "obs" / "scripts" / "streamv2v-camera.lua",
        home / "obs" / "scripts" / "streamv2v-profiles.json",
        home / "obs" / "scripts" / "somebody-elses.lua",
        home / "videos" / "film.mp4",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of Linux")
def test_nothing_is_left_but_what_is_the_users(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(home)
    service.install(service.this_systems_service())
    assert cli.main(["uninstall", "--yes"]) == 0
    left = sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())
    assert left == ["obs/scripts/somebody-elses.lua", "videos/film.mp4"]
    assert not (home / folders.NAME).exists()
    out, err = capsys.readouterr()
    assert "the program itself: " in out
    assert "the start at login" in err
    assert cli.main(["uninstall", "--yes"]) == 0
    assert capsys.readouterr().err == "", "there is nothing more to remove"


def test_what_is_not_agreed_to_stays(home: Path) -> None:
    fill(home)
    asked: list[str] = []

    def ask(question: str) -> bool:
        asked.append(question)
        return "log" in question

    left = uninstall.uninstall(ask, lambda text: None)
    assert len(asked) == 6
    assert len(left) == 5
    assert (home / folders.NAME / "config" / "config.toml").exists()
    assert not (home / folders.NAME / "log").exists()


def test_a_folder_of_another_name_is_left_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has set VCAM_CONFIG_FOLDER to their home folder keeps it."""
    (home / "mine").mkdir()
    monkeypatch.setenv("VCAM_CONFIG_FOLDER", str(home / "mine"))
    said: list[str] = []
    assert len(uninstall.uninstall(lambda question: True, said.append)) == 1
    assert "delete it yourself" in said[0]
    assert (home / "mine").is_dir()


def place(monkeypatch: pytest.MonkeyPatch, home: Path, **where: str) -> None:
    """Lay our folders where a system has them: in each other, or in one."""
    for name, folder in where.items():
        (home / folder).mkdir(parents=True, exist_ok=True)
        (home / folder / f"of_{name}").touch()
        if name in ("data", "cache"):
            monkeypatch.setattr(folders, name, lambda folder=folder: home / folder)
        else:
            monkeypatch.setenv(f"VCAM_{name.upper()}_FOLDER", str(home / folder))


OURS = folders.NAME
LINUX = {"config": f"c/{OURS}", "data": f"d/{OURS}", "cache": f"e/{OURS}", "log": f"s/{OURS}/log", "state": f"s/{OURS}"}
WINDOWS = {"config": f"r/{OURS}", "data": OURS, "cache": f"{OURS}/Cache", "log": f"{OURS}/Logs", "state": OURS}
MAC = {"config": OURS, "data": OURS, "cache": f"Caches/{OURS}", "log": f"Logs/{OURS}", "state": OURS}


@pytest.mark.parametrize("refused", ["the settings", "what was fetched", "made again", "the log", "the page remembers"])
@pytest.mark.parametrize("system", [LINUX, WINDOWS, MAC], ids=["linux", "windows", "macos"])
def test_what_is_refused_stays_whatever_it_lies_in(
    home: Path, monkeypatch: pytest.MonkeyPatch, system: dict[str, str], refused: str
) -> None:
    place(monkeypatch, home, **system)
    asked: list[str] = []

    def ask(question: str) -> bool:
        asked.append(question)
        return refused not in question

    left = uninstall.uninstall(ask, lambda text: None)
    assert len(left) == 1
    assert refused in left[0]
    assert len(asked) == len(set(system.values()))
    name = dict(zip(("the settings", "what was fetched", "made again", "the log"), system, strict=False))
    theirs = system[name.get(refused, "state")]
    stays = {f"{theirs}/of_{one}" for one, folder in system.items() if folder == theirs}
    assert {path.relative_to(home).as_posix() for path in home.rglob("of_*")} == stays


def test_a_folder_that_only_held_another_is_removed_with_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, home, log=LINUX["log"])
    monkeypatch.setenv("VCAM_STATE_FOLDER", str(home / LINUX["state"]))
    assert uninstall.uninstall(lambda question: True, lambda text: None) == []
    assert not (home / LINUX["state"]).exists()


@pytest.mark.parametrize("sign", [".git", "pyproject.toml"])
@pytest.mark.parametrize("folder", [OURS, f"{OURS}/state"])
def test_a_checkout_that_bears_our_name_is_left_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch, sign: str, folder: str
) -> None:
    place(monkeypatch, home, state=folder)
    (home / OURS / sign).touch()
    (home / OURS / "work.py").touch()
    said: list[str] = []
    assert len(uninstall.uninstall(lambda question: True, said.append)) == 1
    assert f"{sign} tells that somebody works there" in said[0]
    assert (home / OURS / "work.py").exists()
    assert (home / folder / "of_state").exists()


def test_a_folder_of_checkouts_that_bears_our_name_is_left_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(monkeypatch, home, state=OURS)
    (home / OURS / "checkout" / ".git").mkdir(parents=True)
    assert len(uninstall.uninstall(lambda question: True, lambda text: None)) == 1
    assert (home / OURS / "checkout" / ".git").exists()


def test_a_link_and_what_it_leads_to_stay(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = home / "disk" / OURS
    place(monkeypatch, home, data=OURS, cache=f"disk/{OURS}")
    (home / OURS / "Cache").symlink_to(elsewhere, target_is_directory=True)
    monkeypatch.setattr(folders, "cache", lambda: home / OURS / "Cache")
    left = uninstall.uninstall(lambda question: True, lambda text: None)
    assert len(left) == 1
    assert "made again" in left[0]
    assert (home / OURS / "Cache" / "of_cache").exists()
    assert not (home / OURS / "of_data").exists()


def test_one_that_cannot_be_removed_does_not_keep_the_others(home: Path) -> None:
    def fails() -> None:
        raise PermissionError(13, "Permission denied")

    done: list[str] = []
    there = [Removable("one", fails), Removable("two", lambda: done.append("two"))]
    assert uninstall.uninstall(lambda question: True, lambda text: None, there) == ["one"]
    assert done == ["two"]


def test_not_while_the_camera_runs_and_not_without_anybody_to_ask(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(home)
    assert cli.main(["uninstall"]) == 1
    assert "nobody can be asked" in capsys.readouterr().err
    monkeypatch.setattr(client, "status", lambda: Status())
    assert cli.main(["uninstall", "--yes"]) == 1
    assert "vcam stop" in capsys.readouterr().err
    assert (home / folders.NAME / "config" / "config.toml").exists()


@pytest.mark.parametrize("somebodys", [False, True])
def test_the_folders_above_ours_go_where_we_made_them_and_they_are_empty(
    home: Path, monkeypatch: pytest.MonkeyPatch, somebodys: bool
) -> None:
    there = home / "home" / ".cache"
    there.mkdir(parents=True)
    state, cache = home / "home" / ".local" / "state" / OURS, there / OURS
    monkeypatch.setenv("VCAM_STATE_FOLDER", str(state))
    monkeypatch.setenv("VCAM_LOG_FOLDER", str(state / "log"))
    monkeypatch.setattr(folders, "cache", lambda: cache)
    for folder in (client.state_folder(), state / "log", folders.cache() / "engines"):
        folders.make(folder)
        (folder / "of_ours").touch()
    if somebodys:
        (state.parent / "theirs").touch()
    assert uninstall.uninstall(lambda question: True, lambda text: None) == []
    assert there.is_dir(), "it was there before"
    assert not any(there.iterdir())
    assert (home / "home" / ".local").exists() == somebodys
    assert (state.parent / "theirs").exists() == somebodys


def test_a_folder_above_several_of_ours_goes_with_the_last_of_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = home / "home" / ".local"
    local.parent.mkdir()
    state, data = local / "state" / OURS, local / "share" / OURS
    monkeypatch.setenv("VCAM_STATE_FOLDER", str(state))
    monkeypatch.setenv("VCAM_LOG_FOLDER", str(state / "log"))
    monkeypatch.setattr(folders, "data", lambda: data)
    for folder in (state, data):  # the first of them alone knows that .local was not there
        folders.make(folder)
        (folder / "of_ours").touch()
    assert uninstall.uninstall(lambda question: True, lambda text: None) == []
    assert local.parent.is_dir()
    assert not local.exists()
