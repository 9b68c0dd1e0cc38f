"""The sound in step with the picture: within 20 ms, without a jump, against a stand-in for OBS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clock import Clock
from tests.support.controlled_daemon import ControlledDaemon
from tests.support.obs_stand_in import PASSWORD, StandIn, standing_in
from tests.support.patience import until
from vcam.control.server import Server
from vcam.errors import ObsError, ObsGone, ObsRefused
from vcam.obs.bridge import Orders
from vcam.obs.supervisor import BridgeProcess
from vcam.obs.sync import BEAT_S, LOOK_AGAIN_S, STEP_MS, WITHIN_MS, AudioSync, next_offset_ms, stepped
from vcam.settings.config import ObsSettings

JUMP_MS, STEP_WITHIN_MS = 5, 20


class Sound:
    """OBS's audio, as far as `ask` goes: one microphone and its offset."""

    def __init__(self, offset_ms: int = 0) -> None:
        self.offset_ms = offset_ms
        self.offsets: list[int] = []

    def __call__(self, request: str, **data: Any) -> dict[str, Any]:
        if request == "GetSpecialInputs":
            return {"mic1": "Mic/Aux"}
        if data["inputName"] != "Mic/Aux":
            raise ObsRefused(f"OBS refused {request}: no source was found", 600)
        if request == "SetInputAudioSyncOffset":
            self.offset_ms = data["inputAudioSyncOffset"]
            self.offsets.append(self.offset_ms)
        return {"inputAudioSyncOffset": self.offset_ms}


@given(st.floats(-900, 19_000), st.floats(1, 19_000))
def test_step_by_step_the_offset_comes_near_and_then_stays(offset: float, latency: float) -> None:
    moving = False
    for _ in range(5000):
        after = next_offset_ms(offset, latency, moving)
        assert abs(after - offset) <= STEP_MS + 1e-6 <= JUMP_MS + 1e-6
        moving = after != offset
        if not moving:
            break
        offset = after
    assert abs(offset - latency) <= WITHIN_MS < STEP_WITHIN_MS


def test_the_offset_follows_a_latency_that_changes_and_ignores_one_that_trembles() -> None:
    clock, sound = Clock(), Sound()
    sync = AudioSync(sound, clock=clock)

    def after(latency_ms: float, seconds: float) -> int:
        for _ in range(int(seconds / 0.1)):
            clock.now += 0.1
            sync.step(latency_ms)
        return sound.offset_ms

    assert abs(after(120, 30) - 120) <= STEP_WITHIN_MS
    moves = len(sound.offsets)
    for tremble in (112, 126, 119, 114):
        after(tremble, 3)
    assert len(sound.offsets) == moves
    assert after(0, 10) == sound.offset_ms  # nothing is translated: what is right now is not known
    assert len(sound.offsets) == moves
    assert abs(after(320, 60) - 320) <= STEP_WITHIN_MS
    assert abs(after(60, 60) - 60) <= STEP_WITHIN_MS
    steps = [abs(b - a) for a, b in zip([0, *sound.offsets], sound.offsets, strict=False)]
    assert max(steps) <= JUMP_MS


def test_an_offset_that_its_user_changes_is_moved_back_in_steps() -> None:
    clock, sound = Clock(), Sound(100)
    sync = AudioSync(sound, "Mic/Aux", clock)
    sync.step(100)
    sound.offset_ms = 0
    for _ in range(int(2 * LOOK_AGAIN_S / BEAT_S) + 40):
        clock.now += BEAT_S
        sync.step(100)
    assert abs(sound.offset_ms - 100) <= STEP_WITHIN_MS
    assert sound.offsets[0] == STEP_MS


def test_what_obs_refuses_is_said_and_what_is_no_answer_ends_the_connection() -> None:
    said: list[str] = []
    stepped(AudioSync(Sound(), "Desk"), 100, said.append)
    assert "the sound cannot be kept in step: OBS refused GetInputAudioSyncOffset" in said[0]
    with pytest.raises(ObsGone, match="no number"):
        AudioSync(lambda request, **data: {"inputAudioSyncOffset": "x"}, "Desk").step(100)
    with pytest.raises(ObsError, match="OBS has no microphone"):
        AudioSync(lambda request, **data: {}).step(100)


def test_the_bridge_keeps_the_sound_in_step_with_what_the_camera_tells_it(tmp_path: Path) -> None:
    obs = StandIn()
    obs.answers |= {
        "GetSpecialInputs": {"mic1": "Mic/Aux"},
        "GetInputAudioSyncOffset": {"inputAudioSyncOffset": 0},
        "SetInputAudioSyncOffset": {},
    }
    daemon = ControlledDaemon()
    with standing_in(obs) as port, Server(daemon, None, tmp_path) as server:
        settings = ObsSettings(port=port, password=PASSWORD, sync_audio=True)
        session = server.bridge_session()
        orders = Orders(session.door, session.token, None, settings)
        with BridgeProcess(orders, lambda text: None, tmp_path, latency_ms=lambda: 25.0):
            until(lambda: len(obs.asked("SetInputAudioSyncOffset")) >= 3, "the offset was not moved")
    moved = obs.asked("SetInputAudioSyncOffset")
    assert [one["inputAudioSyncOffset"] for one in moved][:3] == [5, 10, 15]
    assert {one["inputName"] for one in moved} == {"Mic/Aux"}
