"""OSC in: each message is a command or an error in words, floods and nonsense cost themselves alone."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pythonosc.osc_message_builder import OscMessageBuilder

from tests.support.patience import until
from vcam.commands import (
    ChangeLook,
    Command,
    NextProfile,
    Panic,
    SetPrompt,
    StartRecording,
    Stop,
    UseProfile,
)
from vcam.control.controllers import Hand, newest_levels
from vcam.control.guard import RateLimit
from vcam.control.osc import OscReceiver, command_of
from vcam.errors import CommandError, DeviceError, VcamError
from vcam.settings.config import MidiSettings, ObsSettings, OscSettings


@pytest.mark.parametrize(
    ("address", "values", "command"),
    [
        ("/streamv2v/use", ["ink"], UseProfile("ink")),
        ("/streamv2v/use/ink", [1.0], UseProfile("ink")),
        ("/streamv2v/use/oil_painting", [], UseProfile("oil painting")),
        ("/streamv2v/use/ink", [0.0], None),
        ("/streamv2v/next", [], NextProfile()),
        ("/streamv2v/panic", [1], Panic()),
        ("/streamv2v/panic", [True], Panic()),
        ("/streamv2v/panic", [0], None),
        ("/streamv2v/prompt", ["a person of clay"], SetPrompt("a person of clay")),
        ("/streamv2v/strength", [0.5], ChangeLook({"strength": 0.5})),
        ("/streamv2v/strength", [0.0], ChangeLook({"strength": 0.03})),
        ("/streamv2v/strength", [7], ChangeLook({"strength": 1.0})),
        ("/streamv2v/detail", [0.0], ChangeLook({"detail": 0.0})),
        ("/mixer/1/fader", [0.5], None),
        ("/", [], None),
    ],
)
def test_a_message_is_a_command(address: str, values: list[Any], command: Command | None) -> None:
    assert command_of(address, values) == command


@pytest.mark.parametrize(
    ("address", "values"),
    [
        ("/streamv2v/strength", []),
        ("/streamv2v/strength", ["much"]),
        ("/streamv2v/strength", [True]),
        ("/streamv2v/strength", [float("nan")]),
        ("/streamv2v/strength/2", [0.5]),
        ("/streamv2v/seed", [0.5]),
        ("/streamv2v/look", [{"strength": 1}]),
        ("/streamv2v/use", []),
        ("/streamv2v/prompt", [1.0]),
        ("/streamv2v/prompt", ["x" * 3000]),
        ("/streamv2v/next", ["now"]),
        ("/streamv2v/next/2", [1]),
        ("/streamv2v/", []),
        ("/streamv2v/stopp", [1]),
    ],
)
def test_what_says_nothing_is_refused_in_words(address: str, values: list[Any]) -> None:
    with pytest.raises(CommandError):
        command_of(address, values)


def test_of_a_faders_values_the_newest_counts_and_the_order_stays() -> None:
    strength, detail = ({"strength": 0.1}, {"strength": 0.2}), {"detail": 1.0}
    given: list[Command] = [ChangeLook(strength[0]), ChangeLook(detail), ChangeLook(strength[1]), Panic()]
    assert list(newest_levels([*given, ChangeLook(detail)])) == [
        ChangeLook({"strength": 0.2, "detail": 1.0}),
        Panic(),
        ChangeLook(detail),
    ]


class Camera:
    """Takes commands; `refuses` is what each is answered with."""

    def __init__(self) -> None:
        self.given: list[Command] = []
        self.refuses: Exception | None = None

    def submit(self, command: Command) -> Future[None]:
        self.given.append(command)
        done: Future[None] = Future()
        if self.refuses is None:
            done.set_result(None)
        else:
            done.set_exception(self.refuses)
        return done


class Sender:
    def __init__(self, sock: socket.socket, port: int) -> None:
        self._socket, self._port = sock, port

    def send_message(self, address: str, *values: Any) -> None:
        message = OscMessageBuilder(address)
        for value in values:
            message.add_arg(value)
        self.send(message.build().dgram)

    def send(self, packet: bytes) -> None:
        self._socket.sendto(packet, ("127.0.0.1", self._port))


Heard = tuple[OscReceiver, Camera, list[str], Sender]


@pytest.fixture
def heard() -> Iterator[Heard]:
    camera, said = Camera(), list[str]()
    settings = OscSettings(port=0)
    hand = Hand("OSC", "osc", settings.allow, camera.submit, said.append)
    with OscReceiver(settings, hand) as receiver, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        yield receiver, camera, said, Sender(sock, receiver.port)


def test_what_is_sent_is_carried_out_and_what_it_may_not_is_said(heard: Heard) -> None:
    _, camera, said, client = heard
    client.send_message("/streamv2v/use", "ink")
    until(lambda: camera.given == [UseProfile("ink")])
    for verb in ("stop", "record", "reload"):
        client.send_message(f"/streamv2v/{verb}", 1)
    until(lambda: len(said) >= 3)
    client.send_message("/streamv2v/panic", 1)
    until(lambda: camera.given[-1] == Panic())
    assert not any(isinstance(one, Stop | StartRecording) for one in camera.given)
    assert "OSC: may not give the command 'stop'; allow under [osc] in config.toml says what it may" in said


def test_what_the_camera_refuses_is_said(heard: Heard) -> None:
    _, camera, said, client = heard
    camera.refuses = VcamError("there is no profile 'inkk'")
    client.send_message("/streamv2v/use", "inkk")
    until(lambda: said == ["OSC: there is no profile 'inkk'"])


NONSENSE = [
    b"",
    b"/",
    b"\xff" * 100,
    b"#bundle\0" + b"\0" * 8 + (b"\x7f" * 4),
    b"#bundle\0" + b"\0" * 7 + b"\1" + (b"\0\0\0\x14#bundle\0" + b"\0" * 8) * 200,
    b"/streamv2v/strength\0,f\0\0",
    b"/streamv2v/strength\0,[[[[\0\0\0",
    b"/streamv2v/use\0\0,s\0\0\xff\xfe\0\0",
]


def test_nonsense_costs_itself_alone_and_is_said_seldom(heard: Heard) -> None:
    _, camera, said, client = heard
    for one in NONSENSE * 12:
        client.send(one)
    until(lambda: camera.given[-1:] == [NextProfile()], meanwhile=lambda: client.send_message("/streamv2v/next"))
    assert 1 <= len(said) <= 7


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda rest: b"/streamv2v/" + rest)))
def test_whatever_a_packet_holds_the_next_one_is_read(packet: bytes) -> None:
    said: list[str] = []
    receiver = OscReceiver(OscSettings(port=0), Hand("OSC", "osc", (), Camera().submit, said.append))
    try:
        assert len(list(receiver._commands(packet))) <= 20
    finally:
        receiver._socket.close()


def bundle_of(packets: list[bytes]) -> bytes:
    return b"#bundle\0" + b"\0" * 7 + b"\1" + b"".join(len(one).to_bytes(4, "big") + one for one in packets)


def test_what_one_packet_holds_is_limited_like_what_many_hold() -> None:
    following = OscMessageBuilder("/streamv2v/next").build().dgram
    camera, said = Camera(), list[str]()
    hand = Hand("OSC", "osc", OscSettings().allow, camera.submit, said.append)
    receiver = OscReceiver(OscSettings(port=0), hand)
    with contextlib.closing(receiver._socket):
        commands = list(receiver._commands(bundle_of([following] * 2_000)))
    assert 200 <= len(commands) < 1_000
    for one in [NextProfile()] * 1_000:
        hand.give(one)
    assert 50 <= len(camera.given) < 500
    assert any("next" in one for one in said)
    hand.give(Panic())
    assert camera.given[-1] == Panic(), "each command has a limit of its own"


def test_a_flood_keeps_no_panic_out(heard: Heard) -> None:
    receiver, camera, _, client = heard
    panic = OscMessageBuilder("/streamv2v/panic").build().dgram
    following = OscMessageBuilder("/streamv2v/next").build().dgram
    receiver._limit = receiver._messages = RateLimit(0.0, 0)  # a flood that goes on for ever
    client.send(panic)
    until(lambda: camera.given == [Panic()])
    assert list(receiver._commands(bundle_of([following] * 300 + [panic]))) == [Panic()]


def test_what_a_stranger_sends_is_said_on_one_line_without_control_characters() -> None:
    camera, said = Camera(), list[str]()
    hand = Hand("OSC", "osc", OscSettings().allow, camera.submit, said.append)
    receiver = OscReceiver(OscSettings(port=0), hand)
    message = OscMessageBuilder("/streamv2v/x/\x1b]0;owned\a\nvcam: all is well").build().dgram
    with contextlib.closing(receiver._socket):
        assert list(receiver._commands(message)) == []
    camera.refuses = VcamError("there is no profile '\x1b[2J\n\u202e'")
    hand.give(UseProfile("x"))
    assert len(said) == 2
    assert all(one.isprintable() for one in said), said


def test_a_bundle_is_taken_at_once_whenever_it_is_meant_for() -> None:
    message = OscMessageBuilder("/streamv2v/panic").build().dgram
    bundle = b"#bundle\0" + b"\xee" * 8 + len(message).to_bytes(4, "big") + message
    receiver = OscReceiver(OscSettings(port=0), Hand("OSC", "osc", (), Camera().submit, lambda text: None))
    assert list(receiver._commands(bundle)) == [Panic()]
    receiver._socket.close()


def test_a_port_that_is_taken_and_a_package_that_is_missing_are_said(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = Hand("OSC", "osc", (), Camera().submit, lambda text: None)
    with pytest.raises(DeviceError, match=r"\[osc\] port \d+ at 127.0.0.1 cannot be used"):
        OscReceiver(OscSettings(port=heard[0].port), hand)
    for name in ("pythonosc", "pythonosc.osc_packet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DeviceError, match="pip install python-osc"):
        OscReceiver(OscSettings(port=0), hand)


def test_nobody_but_this_machine_is_heard_unless_the_config_says_so() -> None:
    assert OscSettings().host == "127.0.0.1"
    assert OscSettings().port is None
    for allowed in (OscSettings().allow, MidiSettings().allow):
        assert not {"stop", "source", "engine", "reload"} & set(allowed)
        assert not {one for one in allowed if "record" in one or "snapshot" in one}, "keeps pictures"


@pytest.mark.parametrize(("page", "allowed"), [("controllers", OscSettings().allow), ("obs", ObsSettings().allow)])
def test_what_a_controller_may_do_is_what_its_page_says(page: str, allowed: tuple[str, ...]) -> None:
    text = (Path(__file__).parents[3] / "docs" / f"{page}.md").read_text(encoding="utf-8")
    listed = text.partition("# allow = [")[2].partition("]")[0]
    assert tuple(re.findall(r'"([a-z-]+)"', listed)) == allowed
