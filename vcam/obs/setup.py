"""`vcam obs setup`: our picture as a source of OBS, and the microphone in step with it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from vcam.commands import Status
from vcam.errors import VcamError
from vcam.obs.protocol import Obs, ObsRefused
from vcam.obs.words import SOURCE_NAME

MEDIA = "ffmpeg_source"
LARGEST_OFFSET_MS = 20_000  # OBS's own limit
_CAMERA_NAMES = (SOURCE_NAME, "OBS Virtual Camera")  # the second: its name is fixed on Windows and macOS


class CameraKind(NamedTuple):
    """OBS's kind of source for cameras, and its setting that holds the device."""

    kind: str
    device: str


def camera_kind(platform: str = sys.platform) -> CameraKind:
    """The kind of camera source that this system's OBS has."""
    if platform == "win32":
        return CameraKind("dshow_input", "video_device_id")
    if platform == "darwin":
        return CameraKind("macos-avcapture", "device")
    return CameraKind("v4l2_input", "device_id")


def set_up(obs: Obs, picture_link: Callable[[], str], camera: CameraKind) -> str:
    """Puts the source "StreamV2V Camera" into the current scene, once however often it is called; says what it did.

    The virtual camera if OBS lists it, else the live picture as a media source. Raises ObsError.
    """
    scene = _current_scene(obs)
    kind = _kinds(obs).get(SOURCE_NAME)
    if kind is None:
        return _created(obs, scene, picture_link, camera)
    if kind not in (MEDIA, camera.kind):
        raise VcamError(f'OBS has a source "{SOURCE_NAME}" of another kind ({kind}); rename it, then try again')
    done = [f'the source "{SOURCE_NAME}" is there']
    if kind == MEDIA and refresh_picture(obs, picture_link):
        done.append("its address was renewed")
    if not _in_scene(obs, scene):
        obs.request("CreateSceneItem", sceneName=scene, sourceName=SOURCE_NAME)
        done.append(f'it was added to the scene "{scene}"')
    return "; ".join(done)


def refresh_picture(obs: Obs, picture_link: Callable[[], str]) -> bool:
    """Gives our media source, if there is one, the address of the running camera; whether that was needed."""
    if _kinds(obs).get(SOURCE_NAME) != MEDIA:
        return False
    settings = obs.request("GetInputSettings", inputName=SOURCE_NAME)["inputSettings"]
    link = picture_link()
    if settings.get("input") == link:
        return False
    if urlsplit(str(settings.get("input", ""))).path not in ("", urlsplit(link).path):
        return False  # the user shows something else under that name
    obs.request("SetInputSettings", inputName=SOURCE_NAME, inputSettings=_media(link))
    return True


def set_sync_offset(obs: Obs, microphone: str | None, status: Status) -> str:
    """Delays the microphone (None: OBS's first) by the measured latency, so that lips match; says what it did.

    Raises VcamError where nothing was measured yet, ObsError.
    """
    if status.latency_ms <= 0:
        raise VcamError("nothing was translated yet, so no latency was measured; try again when the picture is live")
    name = microphone or _microphone(obs)
    offset_ms = min(LARGEST_OFFSET_MS, round(status.latency_ms))
    obs.request("SetInputAudioSyncOffset", inputName=name, inputAudioSyncOffset=offset_ms)
    return f'the sync offset of "{name}" is {offset_ms} ms now, the measured latency'


def _created(obs: Obs, scene: str, picture_link: Callable[[], str], camera: CameraKind) -> str:
    if camera.kind in obs.request("GetInputKindList")["inputKinds"]:
        obs.request("CreateInput", sceneName=scene, inputName=SOURCE_NAME, inputKind=camera.kind, inputSettings={})
        device = _device(obs, camera)
        if device is not None:
            obs.request("SetInputSettings", inputName=SOURCE_NAME, inputSettings={camera.device: device})
            return f'the source "{SOURCE_NAME}" (the virtual camera) was added to the scene "{scene}"'
        obs.request("RemoveInput", inputName=SOURCE_NAME)
    link = picture_link()
    _create_when_free(obs, sceneName=scene, inputName=SOURCE_NAME, inputKind=MEDIA, inputSettings=_media(link))
    return (
        f'the source "{SOURCE_NAME}" (the live picture, because OBS lists no virtual camera of ours) was added to the '
        f'scene "{scene}"'
    )


def _create_when_free(obs: Obs, **wanted: Any) -> None:
    """CreateInput; a source that was just removed keeps its name until OBS has let go of it."""
    for attempt in range(20):
        try:
            obs.request("CreateInput", **wanted)
            return
        except ObsRefused as error:
            if error.code != _EXISTS or attempt == 19:
                raise
            obs.event(0.1)


_EXISTS = 601  # obs-websocket's RequestStatus::ResourceAlreadyExists


def _media(link: str) -> dict[str, Any]:
    return {
        "is_local_file": False,
        "input": link,
        "input_format": "mpjpeg",
        "buffering_mb": 0,
        "reconnect_delay_sec": 1,
        "close_when_inactive": False,
        "restart_on_activate": False,
    }


def _device(obs: Obs, camera: CameraKind) -> Any | None:
    try:
        items = obs.request(
            "GetInputPropertiesListPropertyItems", inputName=SOURCE_NAME, propertyName=camera.device
        )["propertyItems"]  # fmt: skip
    except ObsRefused:
        return None
    for name in _CAMERA_NAMES:
        for item in items:
            if name in str(item["itemName"]) and item.get("itemEnabled", True):
                return item["itemValue"]
    return None


def _current_scene(obs: Obs) -> str:
    return str(obs.request("GetCurrentProgramScene")["currentProgramSceneName"])


def _kinds(obs: Obs) -> dict[str, str]:
    inputs = obs.request("GetInputList")["inputs"]
    return {str(one["inputName"]): str(one.get("unversionedInputKind", one["inputKind"])) for one in inputs}


def _in_scene(obs: Obs, scene: str) -> bool:
    items = obs.request("GetSceneItemList", sceneName=scene)["sceneItems"]
    return any(one["sourceName"] == SOURCE_NAME for one in items)


def _microphone(obs: Obs) -> str:
    special = obs.request("GetSpecialInputs")
    for place in ("mic1", "mic2", "mic3", "mic4"):
        if special.get(place):
            return str(special[place])
    raise VcamError('OBS has no microphone among its audio devices; name one: vcam obs setup --microphone "NAME"')
