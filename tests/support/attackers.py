"""What attacks a running camera: each a search of tests/fuzz, aimed at the camera's own folder, port, door and OBS.

python -m tests.support.attackers NAME FOLDER     (started by live_camera.py, for FUZZ_SECONDS)
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from hypothesis import strategies as st

from tests.support import api_requests, fuzz_inputs, fuzzing
from tests.support.fuzz_inputs import OBS_DATA, OBS_EVENTS, SETTINGS_FILES, ChangedFile
from tests.support.model_faults import JSON, Fault, faults
from tests.support.model_folders import make_folder
from tests.support.obs_stand_in import StandIn, standing_in
from vcam import client
from vcam.commands import ChangeEngine, Command, Reload, UseProfile, UseSource
from vcam.errors import VcamError
from vcam.settings.config import load_config

STATE, CONFIG, OBS_PORT = "state", "config", "obs-port"
PAUSE_S = 0.2  # between two attacks of a kind: what is tried is what they hold, not how many a machine can make
MODEL_PAUSE_S = 10.0  # a folder that is tried is another process, which loads PyTorch


def tell(folder: Path, command: Command) -> str:
    """Give the camera a command; return what it refuses it with, "" where it does not. A fault of its own is raised."""
    refused = ""
    try:
        client.send(command, folder / STATE)
    except VcamError as error:
        refused = str(error)
    time.sleep(PAUSE_S)
    assert "unexpected" not in refused, f"{command}: {refused}"
    return refused


def profiles(folder: Path) -> None:
    """Lay any file into the folder of profiles, and use it."""
    names = itertools.cycle(["mine", "yours", "ink"])

    def check(content: bytes) -> None:
        name = next(names)
        path = folder / CONFIG / "profiles" / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        tell(folder, Reload())
        tell(folder, UseProfile(name))
        path.unlink(missing_ok=True)
        tell(folder, UseProfile("claymation"))

    fuzzing.search(SETTINGS_FILES, check)


def config(folder: Path) -> None:
    """Read any file as config.toml: only another program does, since the camera has read its own."""
    path = folder / "config-tried.toml"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        fuzzing.said(lambda: load_config(path))
        time.sleep(PAUSE_S)

    fuzzing.search(SETTINGS_FILES, check)


def api(folder: Path) -> None:
    """Send requests as the API describes them, and otherwise; `stop` and `size`, which end the daemon, are left out."""

    class Careful(api_requests.Running):
        def call(self, case: Any) -> None:
            if isinstance(case.body, dict) and case.body.get("command") in ("stop", "size"):
                return
            with contextlib.suppress(
                api_requests.requests.ConnectionError
            ):  # strangers took its place before it said a key
                super().call(case)
            time.sleep(PAUSE_S / 2)

    session = json.loads((folder / STATE / client.SESSION_FILE).read_text())
    running = Careful(psutil.Process(session["pid"]), session)
    end = time.monotonic() + fuzzing.SECONDS
    while time.monotonic() < end:
        running.try_all(3)
        assert not [status for status in running.seen if status >= 500 and status != 503], running.seen
    print(dict(sorted(running.seen.items())))


def strangers(folder: Path) -> None:
    """Open connections that say nothing, or anything, without a key: one by one, and in bursts."""
    port = json.loads((folder / STATE / client.SESSION_FILE).read_text())["port"]
    end, chance = time.monotonic() + fuzzing.SECONDS, random.Random()
    heads = [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"GET /api/v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"POST /api/v1/command HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
        b"GET /api/v1/events HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ]
    while time.monotonic() < end:
        with contextlib.ExitStack() as opened:
            for _ in range(chance.choice([1, 5, 200])):
                with contextlib.suppress(OSError):
                    one = opened.enter_context(socket.create_connection(("127.0.0.1", port), 5))
                    one.sendall(chance.choice([*heads, chance.randbytes(chance.randrange(2000))]))
            time.sleep(chance.choice([0.1, 1, 7]))


def obs(folder: Path) -> None:
    """Be the OBS that the camera connects to, and say anything, in place of events and of answers."""
    stand_in = StandIn()
    hello, port = stand_in.hello, int((folder / OBS_PORT).read_text())
    texts = JSON.map(json.dumps) | st.text(max_size=40) | st.just('{"op": 5, "d": ' + "[" * 100_000)
    events = st.tuples(OBS_EVENTS, OBS_DATA).map(
        lambda one: json.dumps({"op": 5, "d": {"eventType": one[0], "eventData": one[1]}})
    )

    def check(example: tuple[list[str], str | None, str | None]) -> None:
        sent, stand_in.malformed, greeting = example
        stand_in.hello = hello if greeting is None else greeting
        for text in sent:
            with contextlib.suppress(Exception):  # nobody listens: the bridge connects again when it likes
                stand_in.send(text)
            time.sleep(PAUSE_S)
        with contextlib.suppress(VcamError):
            state = client.status(folder / STATE).obs
            assert isinstance(state, str)

    with standing_in(stand_in, port):
        seldom = st.none() | st.none() | st.none() | texts
        fuzzing.search(st.tuples(st.lists(events | texts, max_size=4), seldom, seldom), check)


def media(folder: Path) -> None:
    """Give broken pictures and films as sources."""
    whole, damaged = fuzz_inputs.media(folder)

    def check(example: ChangedFile) -> None:
        tell(folder, UseSource(str(example.put(whole, folder))))
        tell(folder, UseSource("pattern"))

    fuzzing.search(damaged, check)


def models(folder: Path) -> None:
    """Ask for engines of faulty model folders."""
    whole = make_folder(folder / "whole", description={"steps": 2})
    copy = folder / "model"

    def check(fault: Fault) -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        fault.put(copy)
        if not tell(folder, ChangeEngine({"model": str(copy), "runtime": "eager"})):
            time.sleep(MODEL_PAUSE_S)
        tell(folder, UseProfile("claymation"))
        time.sleep(1)

    fuzzing.search(faults(whole), check, each=50)


ATTACKS: dict[str, Callable[[Path], None]] = {
    attack.__name__: attack for attack in (profiles, config, api, strangers, obs, media, models)
}

if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(5)
    ATTACKS[sys.argv[1]](Path(sys.argv[2]))
