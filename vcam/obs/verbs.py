"""`vcam obs install | setup | sync | test`."""

from __future__ import annotations

import contextlib
import secrets
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from typing import Any

from vcam import client
from vcam.errors import ObsError, ObsGone
from vcam.obs import answers, install, library, places
from vcam.settings.config import ObsSettings, load_config
from vcam.settings.profiles import load_profiles

_ANSWER_S = 5.0


def carry_out(args: Namespace) -> tuple[dict[str, Any], str]:
    """Carry out args.action; return its result for a program and for a person. Raises ObsError."""
    return {"install": _install, "setup": _setup, "sync": _sync, "test": _test}[args.action](args)


def _install(args: Namespace) -> tuple[dict[str, Any], str]:
    folders = places.config_folders()
    if not folders:
        raise ObsError(
            "no settings of OBS Studio were found; start OBS once, then try again "
            "(or set OBS_CONFIG_FOLDER to its folder obs-studio)"
        )
    if args.add_to_scenes and places.obs_runs():
        raise ObsError("OBS is running and would overwrite its scene collections; close it first")
    profiles = [(one.id, one.name) for one in load_profiles().profiles.values()]
    done = [install.install(folder, profiles, args.add_to_scenes) for folder in folders]
    return (
        {"scripts": [str(one.script) for one in done], "added_to": [str(p) for one in done for p in one.added_to]},
        "\n\n".join(install.steps(one) for one in done),
    )


def _setup(args: Namespace) -> tuple[dict[str, Any], str]:
    from vcam.obs.setup import camera_kind, set_sync_offset, set_up

    status = client.status()  # first: without a running camera there is nothing to show
    ask = partial(library.ask, _address(load_config().obs))
    with _hint():
        lines = [set_up(ask, client.picture_link, camera_kind())]
        if args.sync_audio or args.microphone:
            lines.append(set_sync_offset(ask, args.microphone, status))
    return {"done": lines}, "\n".join(lines)


def _sync(args: Namespace) -> tuple[dict[str, Any], str]:
    from vcam.obs.sync import BEAT_S, AudioSync

    client.status()  # first: without a running camera there is nothing to be in step with
    offset = 0.0
    with _hint(), contextlib.suppress(KeyboardInterrupt):
        sync = AudioSync(partial(library.ask, _address(load_config().obs)), args.microphone or "")
        while True:
            moved = sync.step(client.status().latency_now_ms)
            if moved is not None:
                offset = moved
                print(f"vcam: the sync offset is {offset:.0f} ms", file=sys.stderr, flush=True)
            time.sleep(BEAT_S)
    return {"offset_ms": offset}, f"the sync offset stays at {offset:.0f} ms; [obs] sync_audio = true keeps it in step"


def _test(args: Namespace) -> tuple[dict[str, Any], str]:
    from vcam.obs.listener import PING, PONG

    status = client.status()
    at = _address(load_config().obs)
    with _hint(), contextlib.closing(library.Events(at, library.Subscription.GENERAL)) as events:
        hotkeys = answers.texts(library.ask(at, "GetHotkeyList"), "hotkeys")
        keys = [one for one in hotkeys if one.startswith("streamv2v.")]
        mark = secrets.token_hex(8)
        start_s = time.perf_counter()
        library.ask(at, "BroadcastCustomEvent", eventData={PING: mark})
        while time.perf_counter() < start_s + _ANSWER_S:
            heard = events.next(_ANSWER_S)
            if heard is not None and heard[0] == "CustomEvent" and heard[1].get(PONG) == mark:
                break
        else:
            raise ObsError(f"OBS answers, but the running camera does not hear it; it says: OBS {status.obs or 'off'}")
        took_ms = (time.perf_counter() - start_s) * 1000
        version = events.version
    words = [
        f"OBS answers (obs-websocket {version}), and the running camera hears it: {took_ms:.0f} ms there and back",
        f"the script is loaded: {len(keys)} hotkeys" if keys else "the script is not loaded: vcam obs install",
    ]
    return {"obs_websocket": version, "there_and_back_ms": round(took_ms, 1), "hotkeys": keys}, "\n".join(words)


def _address(settings: ObsSettings) -> places.Address:
    at = places.address(settings)
    if stranger := places.stranger_at(at, settings):
        raise ObsError(stranger)
    return at


@contextlib.contextmanager
def _hint() -> Iterator[None]:
    try:
        yield
    except ObsGone as error:
        hint = "; start OBS, and there Tools > WebSocket Server Settings > Enable WebSocket server"
        raise ObsError(f"{error}{hint}") from error
