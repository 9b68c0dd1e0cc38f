"""Where OBS is: what its own files say, and whether it is this user's."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from vcam.errors import ConfigError
from vcam.obs import places
from vcam.settings.config import ObsSettings, load_config


def test_obs_own_files_tell_port_and_password(tmp_path: Path) -> None:
    (tmp_path / "global.ini").write_text(
        "\ufeff[OBSWebSocket]\nServerEnabled=true\nServerPort=4460\nAuthRequired=true\nServerPassword=pa%ss\n"
    )
    at = places.address(ObsSettings(), [tmp_path])
    assert (at.port, at.password, at.enabled) == (4460, "pa%ss", True)
    newer = tmp_path / "plugin_config" / "obs-websocket" / "config.json"
    newer.parent.mkdir(parents=True)
    newer.write_text(json.dumps({"server_enabled": False, "server_port": 4461, "server_password": "other"}))
    at = places.address(ObsSettings(), [tmp_path])
    assert (at.port, at.password, at.enabled) == (4461, "other", False)
    assert "other" not in repr(at)
    at = places.address(ObsSettings(port=1, password="mine", host="h"), [tmp_path])
    assert (at.host, at.port, at.password) == ("h", 1, "mine")


@pytest.mark.parametrize("content", ["", "[General]\n", "[OBSWebSocket]\nServerPort=x\n", "\x00", "[OBS"])
def test_files_that_say_nothing_leave_the_usual_port(tmp_path: Path, content: str) -> None:
    (tmp_path / "global.ini").write_text(content)
    assert places.address(ObsSettings(), [tmp_path]).port == 4455


def test_folders_of_every_packaging_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OBS_CONFIG_FOLDER", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    wanted = [
        tmp_path / ".config/obs-studio",
        tmp_path / ".var/app/com.obsproject.Studio/config/obs-studio",
        tmp_path / "snap/obs-studio/current/.config/obs-studio",
    ]
    assert places.config_folders(tmp_path) == []
    for folder in wanted:
        folder.mkdir(parents=True)
    assert places.config_folders(tmp_path) == wanted


@pytest.mark.parametrize(
    ("written", "password"),
    [
        (r"pa\\ss;w#ord%1", r"pa\ss;w#ord%1"),
        (r"\\n is no new line", r"\n is no new line"),
        (r"two\nlines", "two\nlines"),
        (r"one\rtwo", "one\rtwo"),
        (r"unknown \t escape", r"unknown \t escape"),
    ],
)
def test_a_password_is_read_as_obs_escapes_it(tmp_path: Path, written: str, password: str) -> None:
    (tmp_path / "global.ini").write_text(f"[OBSWebSocket]\nServerEnabled=true\nServerPassword={written}\n")
    assert places.address(ObsSettings(), [tmp_path]).password == password


def test_of_several_obs_the_one_that_listens_is_taken(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        folders = []
        for name, port in (("flatpak", 1), ("usual", listening.getsockname()[1]), ("snap", 2)):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "global.ini").write_text(
                f"[OBSWebSocket]\nServerEnabled=true\nServerPort={port}\nServerPassword={name}\n"
            )
            folders.append(folder)
        assert places.address(ObsSettings(), folders).password == "usual"
    assert places.address(ObsSettings(), folders).password == "flatpak"


# ------------------------------------------------------------------------------------------------------ whose OBS it is

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def table(folder: Path, uid: int, state: str = "0A", name: str = "tcp") -> Path:
    """Write what Linux tells of a socket at port 4455."""
    folder.mkdir(exist_ok=True)
    line = f"   0: 0100007F:1167 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  {uid}        0 123 1\n"
    (folder / name).write_text(HEAD + line)
    return folder


def test_another_users_program_is_no_obs_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "listens_for_us", lambda port: False)
    at = places.address(ObsSettings(), [])
    assert "another user's program listens at OBS's port 4455" in places.stranger_at(at, ObsSettings())
    named = ObsSettings(port=4455)
    assert places.stranger_at(places.address(named, []), named) == ""
    elsewhere = ObsSettings(host="192.168.1.20")
    assert places.stranger_at(places.address(elsewhere, []), elsewhere) == ""


@pytest.mark.parametrize("name", ["tcp", "tcp6"])
def test_the_owner_of_a_listening_socket_is_found(tmp_path: Path, name: str) -> None:
    assert places.linux_owners(4455, table(tmp_path, 1234, name=name)) == {1234}
    assert places.linux_owners(4456, tmp_path) == set()
    assert places.linux_owners(4455, table(tmp_path, 1234, state="01", name=name)) == set()
    assert places.linux_owners(4455, tmp_path / "nowhere") == set()


def test_a_port_of_our_own_is_ours_and_a_free_one_nobodys() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        assert places.listens_for_us(port) is None
        listening.listen()
        assert places.listens_for_us(port) is True
        assert places.process_of_ours_listens(port) is True
    assert places.process_of_ours_listens(port) is None


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become another"
)
def test_a_real_program_of_another_user_is_seen() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        theirs = socket.socket()
        theirs.bind(("127.0.0.1", port))
        theirs.listen()
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        assert places.listens_for_us(port) is False
    finally:
        os.write(done[1], b"x")
        os.waitpid(child, 0)


@pytest.mark.parametrize("host", ["ws://192.168.1.20", "192.168.1.20:4455", "wss://obs/", "http://x"])
def test_a_host_that_is_more_than_a_host_is_answered_plainly(tmp_path: Path, host: str) -> None:
    (tmp_path / "config.toml").write_text(f'[obs]\nhost = "{host}"\n')
    with pytest.raises(ConfigError, match=r"a name or an address alone.*the port goes into obs\.port"):
        load_config(tmp_path / "config.toml")


@pytest.mark.parametrize("host", ["::1", "[::1]", "192.168.1.20", "obs.local"])
def test_names_and_addresses_of_both_kinds_are_hosts(tmp_path: Path, host: str) -> None:
    (tmp_path / "config.toml").write_text(f'[obs]\nhost = "{host}"\n')
    assert load_config(tmp_path / "config.toml").obs.host == host.strip("[]")


def test_what_obs_may_give_is_a_list_of_known_commands(tmp_path: Path) -> None:
    assert not {"stop", "look", "engine", "source"} & set(ObsSettings().allow)
    (tmp_path / "config.toml").write_text('[obs]\nallow = ["use", "look"]\n')
    assert load_config(tmp_path / "config.toml").obs.allow == ("use", "look")
    (tmp_path / "config.toml").write_text('[obs]\nallow = ["explode"]\n')
    with pytest.raises(ConfigError, match="explode"):
        load_config(tmp_path / "config.toml")
