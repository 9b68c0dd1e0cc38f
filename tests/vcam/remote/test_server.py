"""The server's application without a network: who is let in, at which pace, and what the others notice of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.asgi_camera import AsgiCamera
from tests.support.engine_server import fake_offer, wait_long
from tests.support.fake_engine import FACTORY
from tests.support.patience import PATIENCE_S
from vcam.remote.allowance import MOST_FPS, Allowance
from vcam.remote.clients import FILE, ClientBook
from vcam.remote.host import EngineHost, engine_maker
from vcam.remote.protocol import Loaded, Refusal
from vcam.remote.server import EngineServer

CROWD = 200


class Clock:
    """Seconds that pass only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[EngineServer]:
    wait_long(monkeypatch)
    made = EngineServer(EngineHost(fake_offer(2), engine_maker(FACTORY, 1)), ClientBook(tmp_path), clock, clock.sleep)
    yield made
    made.close()


def test_two_hundred_that_connect_at_once_are_refused_in_words_and_cost_nobody_a_picture(server: EngineServer) -> None:
    own, other, crowd = (server.book.add(name) for name in ("own", "other", "crowd"))

    async def all_of_them() -> None:
        two = [await AsgiCamera(server).hello(token).loaded() for token in (own, other)]
        pictures = [asyncio.ensure_future(one.run(100, window=1)) for one in two]
        many = [AsgiCamera(server).hello(crowd, str(number)) for number in range(CROWD)]
        said = await asyncio.gather(*(one.refusal() for one in many))
        assert {(one.code, one.text) for one in said} == {
            (Refusal.BUSY, "the server is busy: all 2 of its streams are taken")
        }
        await asyncio.gather(*pictures)
        for one in two:
            assert [answer.answers for answer in one.answers] == list(range(100))
            assert all(answer.coded for answer in one.answers)
            await one.end()

    asyncio.run(all_of_them())
    assert server.counts.refused == {"busy": CROWD}
    assert server.host.cameras == 0


def test_the_oldest_of_too_many_that_say_nothing_gives_way(
    server: EngineServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcam.remote.server.MOST_WAITING", 3)
    token = server.book.add("own")

    async def all_of_them() -> None:
        silent = [AsgiCamera(server) for _ in range(3)]
        await asyncio.sleep(0)
        own = await AsgiCamera(server).hello(token).loaded()
        assert (await silent[0].refusal()).text == "the server is busy: too many connect at once"
        for one in (*silent[1:], own):
            await one.end()

    asyncio.run(all_of_them())


def test_who_says_nothing_is_not_waited_for(server: EngineServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcam.remote.session.HELLO_S", 0.01)

    async def silent() -> None:
        await asyncio.wait_for(AsgiCamera(server)._task, PATIENCE_S)

    asyncio.run(silent())


def test_two_hundred_of_one_client_get_what_one_client_may_have(server: EngineServer) -> None:
    token = server.book.add("greedy")

    async def all_of_them() -> None:
        first = await AsgiCamera(server).hello(token, "first").loaded()
        said = await asyncio.gather(
            *(AsgiCamera(server).hello(token, str(number)).refusal() for number in range(CROWD))
        )
        assert all("the client 'greedy' has 1 of the 2 streams, and may have 1" in one.text for one in said)
        await AsgiCamera(server).hello(server.book.add("other")).loaded()
        await first.end()

    asyncio.run(all_of_them())


def test_a_camera_of_more_pictures_a_second_than_are_taken_is_held_back_told_so_and_loses_none(
    server: EngineServer, clock: Clock
) -> None:
    token = server.book.add("quick")

    async def quick() -> None:
        camera = await AsgiCamera(server).hello(token).loaded()
        await camera.run(3 * MOST_FPS)  # as quickly as it is answered: no time passes meanwhile
        assert [one.answers for one in camera.answers] == list(range(3 * MOST_FPS))
        assert all(one.coded or one.replaced for one in camera.answers)  # the newest wins
        assert 2.8 < clock.now < 3.0
        notes = [one.facts.note for one in camera.heard if isinstance(one, Loaded)]
        assert len(notes) == 2
        assert notes[0] == ""
        assert "the server takes at most 120 pictures and 32 MB a second of a camera" in notes[1]
        assert "--fps" in notes[1]
        clock.now += 60  # it asks for less
        await camera.run(3 * MOST_FPS + 5)
        notes = [one.facts.note for one in camera.heard if isinstance(one, Loaded)]
        assert notes[2:] == [""]
        await camera.end()

    asyncio.run(quick())


def test_a_camera_that_does_not_wait_for_answers_is_refused_in_words(
    server: EngineServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, over = server.book.add("flood"), threading.Event()
    monkeypatch.setattr(server.host.work, "do", lambda *order: over.wait(PATIENCE_S))  # nothing is answered meanwhile

    async def flood() -> None:
        camera = await AsgiCamera(server).hello(token).loaded()
        for _ in range(3):
            camera.give()
        said = await camera.refusal()
        over.set()
        assert (said.code, said.text) == (
            Refusal.LIMIT,
            "the camera sends pictures without waiting for answers; 2 may be on their way",
        )

    asyncio.run(flood())
    assert server.host.cameras == 0


def test_a_clients_file_that_cannot_be_read_lets_nobody_in_and_its_place_is_not_told(
    server: EngineServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = server.book.add("anna")
    (tmp_path / FILE).write_text("{")

    async def stranger() -> None:
        said = await AsgiCamera(server).hello(token).refusal()
        assert said.code is Refusal.BUSY  # it is not the camera's fault, and trying again may help
        assert said.text == "the server cannot tell at the moment who is let in; whoever runs it finds why in its log"

    asyncio.run(stranger())
    assert str(tmp_path / FILE) in caplog.text


def test_an_allowance_lets_so_much_come_at_once_and_the_rest_at_its_pace() -> None:
    own = Allowance(10, 5)
    assert [own.wait_s(1, 1.0) for _ in range(7)] == [0, 0, 0, 0, 0, 0.1, 0.2]
    assert own.wait_s(1, 1.5) == 0
    assert [Allowance(10, 5).take(amount, 0.0) for amount in (5, 6)] == [True, False]
