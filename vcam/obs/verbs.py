"""`vcam obs install | setup | test`."""

from __future__ import annotations

import secrets
import time
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from vcam import client
from vcam.errors import VcamError
from vcam.obs import install, places
from vcam.settings.config import ObsSettings, load_config
from vcam.settings.profiles import load_profiles

if TYPE_CHECKING:
    from vcam.obs.protocol import Obs

_ANSWER_S = 5.0


def carry_out(args: Namespace) -> tuple[dict[str, Any], str]:
    """Carries out args.action; its result for a program and for a person. Raises VcamError."""
    return {"install": _install, "setup": _setup, "test": _test}[args.action](args)


def _install(args: Namespace) -> tuple[dict[str, Any], str]:
    folders = places.config_folders()
    if not folders:
        raise VcamError(
            "no settings of OBS Studio were found; start OBS once, then try again "
            "(or set OBS_CONFIG_FOLDER to its folder obs-studio)"
        )
    if args.add_to_scenes and places.obs_runs():
        raise VcamError("OBS is running and would overwrite its scene collections; close it first")
    profiles = [(one.id, one.name) for one in load_profiles().profiles.values()]
    done = [install.install(folder, profiles, args.add_to_scenes) for folder in folders]
    return (
        {"scripts": [str(one.script) for one in done], "added_to": [str(p) for one in done for p in one.added_to]},
        "\n\n".join(install.steps(one) for one in done),
    )


def _setup(args: Namespace) -> tuple[dict[str, Any], str]:
    from vcam.obs.setup import camera_kind, set_sync_offset, set_up

    status = client.status()  # first: without a running camera there is nothing to show
    with _connected(load_config().obs) as obs:
        lines = [set_up(obs, client.picture_link, camera_kind())]
        if args.sync_audio or args.microphone:
            lines.append(set_sync_offset(obs, args.microphone, status))
    return {"done": lines}, "\n".join(lines)


def _test(args: Namespace) -> tuple[dict[str, Any], str]:
    from vcam.obs.link import PING, PONG
    from vcam.obs.protocol import Subscription

    status = client.status()
    with _connected(load_config().obs, Subscription.GENERAL) as obs:
        keys = [one for one in obs.request("GetHotkeyList")["hotkeys"] if str(one).startswith("streamv2v.")]
        mark = secrets.token_hex(8)
        start_s = time.perf_counter()
        obs.request("BroadcastCustomEvent", eventData={PING: mark})
        while time.perf_counter() < start_s + _ANSWER_S:
            heard = obs.event(_ANSWER_S)
            if heard is not None and heard[0] == "CustomEvent" and heard[1].get(PONG) == mark:
                break
        else:
            raise VcamError(f"OBS answers, but the running camera does not hear it; it says: OBS {status.obs or 'off'}")
        took_ms = (time.perf_counter() - start_s) * 1000
        version = obs.version
    words = [
        f"OBS answers (obs-websocket {version}), and the running camera hears it: {took_ms:.0f} ms there and back",
        f"the script is loaded: {len(keys)} hotkeys" if keys else "the script is not loaded: vcam obs install",
    ]
    return {"obs_websocket": version, "there_and_back_ms": round(took_ms, 1), "hotkeys": keys}, "\n".join(words)


def _connected(settings: ObsSettings, events: int = 0) -> Obs:
    from vcam.obs.protocol import Obs, ObsGone

    at = places.address(settings)
    try:
        return Obs(at.host, at.port, at.password, events)
    except ObsGone as error:
        hint = "; start OBS, and there Tools > WebSocket Server Settings > Enable WebSocket server"
        raise VcamError(f"{error}{hint}") from error
