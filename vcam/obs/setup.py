"""`vcam obs setup`: our picture as a source of OBS, and the microphone in step with it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from vcam.commands import Status
from vcam.errors import ObsError, ObsRefused
from vcam.obs import answers
from vcam.obs.event_commands import SOURCE_NAME

Ask = Callable[..., dict[str, Any]]
"""(request, **data) -> answer: vcam.obs.library.ask at one address."""
MEDIA = "ffmpeg_source"
PICTURE_PATH = "/api/v1/picture.mjpeg"
LARGEST_OFFSET_MS = 20_000  # OBS's own limit
_CAMERA_NAMES = (SOURCE_NAME, "OBS Virtual Camera")  # the second: its name is fixed on Windows and macOS


class CameraKind(NamedTuple):
    """OBS's kind of source for cameras, and its setting that holds the device."""

    kind: str
    device: str


def camera_kind(platform: str = sys.platform) -> CameraKind:
    """Return the kind of camera source that this system's OBS has."""
    if platform == "win32":
        return CameraKind("dshow_input", "video_device_id")
    if platform == "darwin":
        return CameraKind("macos-avcapture", "device")
    return CameraKind("v4l2_input", "device_id")


def set_up(ask: Ask, picture_link: Callable[[], str], camera: CameraKind) -> str:
    """Put the source "StreamV2V Camera" into the current scene, once however often it is called; return what was done.

    The virtual camera if OBS lists it, else the live picture as a media source. Raises ObsError.
    """
    scene = _current_scene(ask)
    kind = source_kinds(ask).get(SOURCE_NAME)
    if kind is None:
        return _created(ask, scene, picture_link, camera)
    if kind not in (MEDIA, camera.kind):
        raise ObsError(f'OBS has a source "{SOURCE_NAME}" of another kind ({kind}); rename it, then try again')
    done = [f'the source "{SOURCE_NAME}" is there']
    if kind == MEDIA and refresh_picture(ask, picture_link):
        done.append("its address was renewed")
    if not _in_scene(ask, scene):
        ask("CreateSceneItem", sceneName=scene, sourceName=SOURCE_NAME)
        done.append(f'it was added to the scene "{scene}"')
    return "; ".join(done)


def refresh_picture(ask: Ask, picture_link: Callable[[], str]) -> bool:
    """Give our media source, if there is one, the address of the running camera; return whether that was needed."""
    before = media_address(ask)
    if before is None:
        return False
    link = picture_link()
    if before == link or urlsplit(before).path not in ("", PICTURE_PATH):
        return False  # as it should be; or the user shows something else under that name
    ask("SetInputSettings", inputName=SOURCE_NAME, inputSettings=_media(link))
    return True


def media_address(ask: Ask) -> str | None:
    """Return the address that our media source in OBS shows; None where there is no such source."""
    if source_kinds(ask).get(SOURCE_NAME) != MEDIA:
        return None
    return str(answers.settings(ask("GetInputSettings", inputName=SOURCE_NAME)).get("input", ""))


def renewed_link(link: str, port: int) -> str | None:
    """Return the address of our picture with the port of this run; None where it is not one that `setup` wrote."""
    try:
        parts = urlsplit(link)
        if parts.path != PICTURE_PATH or parts.hostname != "127.0.0.1":
            return None
        return urlunsplit(parts._replace(netloc=f"127.0.0.1:{port}"))
    except ValueError:
        return None


def set_sync_offset(ask: Ask, microphone: str | None, status: Status) -> str:
    """Delay the microphone (None: OBS's first) by the measured latency, so that lips match; return what was done.

    Raises ObsError where nothing was measured yet, ObsError.
    """
    if status.latency_ms <= 0:
        raise ObsError("nothing was translated yet, so no latency was measured; try again when the picture is live")
    name = microphone or microphone_of(ask)
    offset_ms = min(LARGEST_OFFSET_MS, round(status.latency_now_ms or status.latency_ms))
    ask("SetInputAudioSyncOffset", inputName=name, inputAudioSyncOffset=offset_ms)
    return f'the sync offset of "{name}" is {offset_ms} ms now, the measured latency'


def _created(ask: Ask, scene: str, picture_link: Callable[[], str], camera: CameraKind) -> str:
    if camera.kind in answers.texts(ask("GetInputKindList"), "inputKinds"):
        ask("CreateInput", sceneName=scene, inputName=SOURCE_NAME, inputKind=camera.kind, inputSettings={})
        device = _device(ask, camera)
        if device is not None:
            ask("SetInputSettings", inputName=SOURCE_NAME, inputSettings={camera.device: device})
            return f'the source "{SOURCE_NAME}" (the virtual camera) was added to the scene "{scene}"'
        ask("RemoveInput", inputName=SOURCE_NAME)
    link = picture_link()
    _create_when_free(ask, sceneName=scene, inputName=SOURCE_NAME, inputKind=MEDIA, inputSettings=_media(link))
    return (
        f'the source "{SOURCE_NAME}" (the live picture, because OBS lists no virtual camera of ours) was added to the '
        f'scene "{scene}"'
    )


def _create_when_free(ask: Ask, **wanted: Any) -> None:
    """CreateInput; a source that was just removed keeps its name until OBS has let go of it."""
    for attempt in range(20):
        try:
            ask("CreateInput", **wanted)
            return
        except ObsRefused as error:
            if error.code != _EXISTS or attempt == 19:
                raise
            time.sleep(0.1)


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


def _device(ask: Ask, camera: CameraKind) -> Any | None:
    try:
        answer = ask("GetInputPropertiesListPropertyItems", inputName=SOURCE_NAME, propertyName=camera.device)
    except ObsRefused:
        return None
    items = answers.objects(answer, "propertyItems")
    for name in _CAMERA_NAMES:
        for item in items:
            if name in str(item.get("itemName")) and item.get("itemEnabled", True):
                return item.get("itemValue")
    return None


def _current_scene(ask: Ask) -> str:
    return answers.text(ask("GetCurrentProgramScene"), "currentProgramSceneName")


def source_kinds(ask: Ask) -> dict[str, str]:
    """Return the kind of each of OBS's inputs, by name."""
    inputs = answers.objects(ask("GetInputList"), "inputs")
    return {str(one.get("inputName")): str(one.get("unversionedInputKind", one.get("inputKind"))) for one in inputs}


def _in_scene(ask: Ask, scene: str) -> bool:
    items = answers.objects(ask("GetSceneItemList", sceneName=scene), "sceneItems")
    return any(one.get("sourceName") == SOURCE_NAME for one in items)


def microphone_of(ask: Ask) -> str:
    """Return the name of OBS's first microphone; raises ObsError where it has none."""
    special = ask("GetSpecialInputs")
    for place in ("mic1", "mic2", "mic3", "mic4"):
        if special.get(place):
            return str(special[place])
    raise ObsError('OBS has no microphone among its audio devices; name one: vcam obs setup --microphone "NAME"')
