"""A surface that cannot be loaded, opened or closed costs that surface alone: the camera and the others go on."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.running_daemon import SwitchedDaemon
from vcam import client
from vcam.commands import UseProfile
from vcam.obs.supervisor import BridgeProcess
from vcam.settings.config import MidiSettings, ObsSettings, OscSettings

PAGE, OBS, OSC = "vcam.control.server", "vcam.obs.supervisor", "vcam.control.osc"
OPTIONS: dict[str, Any] = {"panel": True, "port": 0, "obs": ObsSettings(port=1), "osc": OscSettings(port=0)}


def goes_on(run: SwitchedDaemon) -> None:
    run.tell(UseProfile("p2"))
    run.until(lambda: run.shows(2))


def has_note(run: SwitchedDaemon, words: str) -> bool:
    return any(words in note for note in run.daemon.status().notes)


def was_told(run: SwitchedDaemon, words: str) -> bool:
    return any(words in line["text"] for line in run.daemon.log())


@pytest.mark.parametrize(
    ("module", "part"), [(PAGE, "the page cannot"), (OBS, "the bridge to OBS cannot"), (OSC, "OSC cannot")]
)
def test_one_that_cannot_be_loaded_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, part: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # its import raises
    with SwitchedDaemon(tmp_path, OPTIONS) as run:
        run.until(lambda: has_note(run, part))
        goes_on(run)
        run.until(lambda: module == OSC or was_told(run, "OSC: heard"))
        if module == PAGE:
            assert not (tmp_path / client.SESSION_FILE).exists()
        else:
            run.until(lambda: run.daemon.status().panel_port)  # the last thing that is known of the surfaces
            assert client.status(tmp_path).state == "running"
        assert (run.daemon.status().obs == "") == (module != OSC)


def test_one_that_cannot_be_opened_is_told_on_the_page(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        osc = OscSettings(port=taken.getsockname()[1])
        with SwitchedDaemon(tmp_path, OPTIONS | {"osc": osc}) as run:
            run.until(lambda: has_note(run, f"[osc] port {osc.port} at 127.0.0.1 cannot be used"))
            goes_on(run)
            assert client.status(tmp_path).state == "running"


def test_a_library_that_is_missing_costs_its_surface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mido", None)
    with SwitchedDaemon(tmp_path, OPTIONS | {"midi": MidiSettings("nanoPAD")}) as run:
        run.until(lambda: has_note(run, "[midi] needs the packages mido and python-rtmidi"))
        goes_on(run)


def test_one_that_cannot_be_closed_leaves_the_others_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = BridgeProcess.__exit__

    def fails(bridge: BridgeProcess, *told: object) -> None:
        closed(bridge, *told)
        raise OSError("it does not end")

    monkeypatch.setattr(BridgeProcess, "__exit__", fails)
    run = SwitchedDaemon(tmp_path, OPTIONS)
    with run:
        run.until(lambda: (tmp_path / client.SESSION_FILE).exists())
        assert json.loads((tmp_path / client.SESSION_FILE).read_text())["port"]
    assert was_told(run, "the bridge to OBS cannot be closed (OSError: it does not end)")
    assert not (tmp_path / client.SESSION_FILE).exists(), "the page was closed all the same"
