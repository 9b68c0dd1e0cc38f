"""The engines of a server: what is loaded, how often, on which thread, and who has which place."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from core.errors import MemoryShort, ModelError
from core.settings import EngineSettings, Look
from tests.support.engine_server import FAKE, fake_offer
from tests.support.fake_engine import FakeEngine
from tests.support.patience import PATIENCE_S, until
from vcam.frames import Picture
from vcam.remote import host as host_module
from vcam.remote.host import BESIDE, EngineHost
from vcam.remote.offer import Offer
from vcam.remote.protocol import Failed, FromServer, Loaded, Prompts, Refusal, Refused
from vcam.remote.stream_work import RAISES
from vcam.remote.streams import Made, PictureOrder, Stream
from vcam.worker.factories import ReportProgress

LOOK = Look("ink")
GREY: Picture = np.full((64, 96, 3), 100, np.uint8)
OTHER = replace(FAKE, model="busy")


class Noted(FakeEngine):
    """Notes which thread calls it, and what is called after what."""

    def __init__(self, settings: EngineSettings, look: Look, calls: list[tuple[str, str]], streams: int = 99) -> None:
        super().__init__(settings, look)
        self.noted, self.streams = calls, streams

    def note(self, what: str) -> None:
        self.noted.append((what, threading.current_thread().name))

    def another(self, look: Look) -> Noted:
        self.note("another")
        return Noted(self.settings, look, self.noted)

    def translate(self, picture: Picture) -> Picture | None:
        self.note("translate")
        return super().translate(picture)

    def check_streams(self, count: int) -> int:
        if count > self.streams:
            raise MemoryShort(f"{count} streams of fake need more than is free; take --streams {self.streams}")
        return count


class Loads:
    """Makes engines, or what `trouble` raises for their model; counts them by model. gate: waits for it, if any."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.trouble: dict[str, Exception] = {}
        self.gate: threading.Event | None = None
        self.calls: list[tuple[str, str]] = []
        self.streams = 99

    def __call__(self, settings: EngineSettings, look: Look, report: ReportProgress) -> Noted:
        self.count[settings.model] += 1
        if self.gate is not None:
            assert self.gate.wait(PATIENCE_S)
        if (trouble := self.trouble.get(settings.model)) is not None:
            raise trouble
        return Noted(settings, look, self.calls, self.streams)


class Camera:
    """A camera of the host: what it was told, and the stream that it has."""

    def __init__(self, host: EngineHost, asked: EngineSettings = FAKE, client: str = "", name: str = "one") -> None:
        self.host = host
        self.told: list[FromServer | Made] = []
        opened = host.open(client or name, name, asked, LOOK, self.told.append)
        self.stream = opened if isinstance(opened, Stream) else None
        self.refused = opened if isinstance(opened, Refused) else None

    def loaded(self) -> Camera:
        until(lambda: any(isinstance(one, Loaded) for one in self.told), f"it has not loaded: {self.refused}")
        return self

    def refusal(self) -> str:
        """Why it has no stream; waits for it."""
        until(lambda: self.refused or [one for one in self.told if isinstance(one, Refused)], "it was not refused")
        one = self.refused or next(one for one in self.told if isinstance(one, Refused))
        assert one.code is Refusal.ENGINE
        return one.text

    def picture(self, number: int) -> None:
        """Have a picture translated; waits for it."""
        assert self.stream is not None
        self.host.give(self.stream, PictureOrder(number, GREY))
        until(lambda: number in self.made, "no translation came")

    @property
    def made(self) -> list[int]:
        return [one.answers for one in self.told if isinstance(one, Made) and one.picture is not None]

    def end(self) -> None:
        if self.stream is not None:
            self.host.end(self.stream)


Open = Callable[[Offer], EngineHost]


@pytest.fixture
def loads() -> Loads:
    return Loads()


@pytest.fixture
def now() -> list[float]:
    return [100.0]


@pytest.fixture
def host_of(loads: Loads, now: list[float]) -> Iterator[Open]:
    hosts: list[EngineHost] = []

    def made(offer: Offer) -> EngineHost:
        hosts.append(EngineHost(offer, loads, lambda: now[0]))
        hosts[0].preload()
        return hosts[0]

    yield made
    if loads.gate is not None:
        loads.gate.set()
    for one in hosts:
        one.close()


@pytest.fixture
def host(host_of: Open) -> EngineHost:
    return host_of(fake_offer(4))


def test_a_load_that_fails_is_remembered_with_its_reason_and_tried_again_after_a_while_that_grows(
    host: EngineHost, loads: Loads, now: list[float]
) -> None:
    loads.trouble["absent"] = ModelError("absent: its unet is damaged")
    absent = replace(FAKE, model="absent")
    assert Camera(host, absent).refusal() == "absent: its unet is damaged"
    for wait_s in (5, 10, 20, 40, 80, 160, 300, 300):
        for _ in range(3):  # a camera tries again every 2 s
            assert (
                Camera(host, absent).refusal()
                == f"absent: its unet is damaged; the server tries it again in {wait_s} s"
            )
        tried = loads.count["absent"]
        now[0] += wait_s
        assert Camera(host, absent).refusal() == "absent: its unet is damaged"
        assert loads.count["absent"] == tried + 1
    del loads.trouble["absent"]
    now[0] += 300
    Camera(host, absent).loaded()
    assert not host._failed_loads


def test_loads_that_fail_put_out_nobodys_engine_and_cost_no_stream_a_picture(host: EngineHost, loads: Loads) -> None:
    loads.trouble |= {"absent": ModelError("damaged"), "buggy": ValueError("bug"), "busy": MemoryShort("8 GB needed")}
    live = Camera(host, name="live").loaded()
    for number, model in enumerate(("absent", "buggy", "busy")):
        camera = Camera(host, replace(FAKE, model=model))
        live.picture(number)
        camera.refusal()
    live.picture(3)
    assert live.made == [0, 1, 2, 3]
    Camera(host).loaded()
    assert loads.count["fake"] == 1


def test_a_model_of_which_no_camera_is_there_makes_room_and_comes_back_if_that_was_for_nothing(
    host: EngineHost, loads: Loads
) -> None:
    loads.trouble["busy"] = MemoryShort("8 GB needed")
    Camera(host, OTHER).refusal()
    assert loads.count == {"fake": 2, "busy": 2}  # beside the other, and in its place; then the usual one again
    until(lambda: FAKE in host._models, "the usual model is away")
    loads.trouble["absent"] = ModelError("damaged")
    Camera(host, replace(FAKE, model="absent")).refusal()  # no memory helps here
    assert (loads.count["fake"], loads.count["absent"]) == (2, 1)


def test_memory_that_is_given_back_is_a_reason_to_try_again_soon(
    host: EngineHost, loads: Loads, now: list[float]
) -> None:
    loads.trouble |= {"busy": MemoryShort("8 GB needed"), "absent": ModelError("damaged")}
    live = Camera(host, name="live").loaded()
    absent = replace(FAKE, model="absent")
    for asked in (OTHER, absent):
        Camera(host, asked).refusal()
    now[0] += 400
    for asked in (OTHER, absent):
        Camera(host, asked).refusal()  # the second failure in a row: 10 s
    now[0] += 6
    assert "tries it again" in Camera(host, OTHER).refusal()
    live.end()
    loads.trouble.clear()
    assert "tries it again" in Camera(host, absent).refusal()
    Camera(host, OTHER).loaded()


def test_a_model_that_nobody_uses_goes_once_another_has_loaded_but_for_the_usual_one(
    host: EngineHost, loads: Loads
) -> None:
    first = Camera(host, OTHER).loaded()
    first.end()
    Camera(host, replace(FAKE, width=128)).loaded()
    until(lambda: {one.model for one in list(host._models)} == {"fake"}, "the other model is still there")
    assert set(host._models) == {FAKE, replace(FAKE, width=128)}


def test_whoever_connects_again_and_again_while_a_model_loads_takes_no_thread_each(
    host: EngineHost, loads: Loads
) -> None:
    loads.gate = threading.Event()
    first = Camera(host, OTHER)
    until(lambda: loads.count["busy"], "it does not load")
    before = set(threading.enumerate())
    for _ in range(50):
        Camera(host, OTHER).end()
    assert set(threading.enumerate()) <= before  # one of an earlier test may have ended meanwhile
    loads.gate.set()
    first.loaded()
    assert loads.count["busy"] == 1


def test_cameras_that_wait_for_the_same_model_have_it_loaded_once_and_hear_together_that_it_fails(
    host: EngineHost, loads: Loads
) -> None:
    loads.gate, loads.trouble["busy"] = threading.Event(), ModelError("damaged")
    both = [Camera(host, OTHER, name=name) for name in ("a", "b")]
    loads.gate.set()
    assert [one.refusal() for one in both] == ["damaged", "damaged"]
    assert loads.count["busy"] == 1
    assert host.cameras == 0


def test_all_calls_of_an_engine_are_made_by_one_thread(host: EngineHost, loads: Loads) -> None:
    Camera(host).loaded().picture(0)
    assert loads.calls == [("another", "vcam-engines"), ("translate", "vcam-engines")]


def test_streams_that_begin_together_let_the_others_have_a_picture_in_between(host_of: Open, loads: Loads) -> None:
    host = host_of(fake_offer(12))
    live = Camera(host, name="live").loaded()
    stream = live.stream
    assert stream is not None
    tell = stream.tell

    def again(message: FromServer | Made) -> None:
        """A camera that always has a picture waiting."""
        tell(message)
        if isinstance(message, Made) and message.answers < 40:
            host.give(stream, PictureOrder(message.answers + 1, GREY))

    stream.tell = again
    with host._changed:  # so that they all are there before the next turn
        host.give(stream, PictureOrder(0, GREY))
        others = [Camera(host, name=str(number)) for number in range(8)]
    for one in others:
        one.loaded()
    until(lambda: 40 in live.made, "the camera that was there first gets no pictures")
    assert live.made == list(range(41))
    order = [what for what, _ in loads.calls][1:]
    first, last = order.index("another"), len(order) - order[::-1].index("another")
    assert order[first:last] == ["another", "translate"] * 7 + ["another"]


def test_a_stream_that_cannot_begin_is_told_and_costs_nobody_else_anything(
    host: EngineHost, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Camera(host, name="live").loaded()

    def short(self: Noted, look: Look) -> Noted:
        raise MemoryShort("another stream needs 2 GB, but 1 GB are free")

    monkeypatch.setattr(Noted, "another", short)
    assert Camera(host).refusal() == "another stream needs 2 GB, but 1 GB are free"
    live.picture(0)
    assert host.cameras == 1


def test_one_client_cannot_have_every_place_whatever_its_cameras_are_called(host: EngineHost) -> None:
    greedy = [Camera(host, client="greedy", name=str(number)) for number in range(4)]
    assert [one.refused for one in greedy[:2]] == [None, None]
    refused = greedy[3].refused
    assert refused is not None
    assert refused.code is Refusal.BUSY
    assert "the client 'greedy' has 2 of the 4 streams, and may have 2" in refused.text
    assert Camera(host, client="other", name="0").loaded().stream is not None  # the same name, and another camera
    assert host.cameras == 3
    beside = [Camera(host, client="greedy", name="0") for _ in range(BESIDE + 1)]
    assert [one.refused is None for one in beside] == [True] * BESIDE + [False]


def test_how_many_places_a_client_may_have_is_the_servers_to_say() -> None:
    assert [fake_offer(streams).most_per_client for streams in (1, 2, 3, 8)] == [1, 1, 1, 4]
    assert fake_offer(8, per_client=8).most_per_client == 8


def test_too_little_memory_for_all_streams_is_found_at_the_start(loads: Loads) -> None:
    loads.streams = 3
    host = EngineHost(fake_offer(4), loads)
    with pytest.raises(MemoryShort, match="take --streams 3"):
        host.preload()
    host.close()


def test_an_order_that_finds_no_room_is_told(host: EngineHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "MOST_ORDERS", 1)
    camera = Camera(host).loaded()
    assert camera.stream is not None
    with host._changed:  # so that none is carried out meanwhile
        for _ in range(2):
            host.give(camera.stream, Prompts(("ink",)))
    assert [one.kind for one in camera.told if isinstance(one, Failed)] == ["look"]


def test_a_model_that_was_brought_back_serves_who_waited_for_it_and_is_not_loaded_again(
    host_of: Open, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = host_of(fake_offer(4))
    loads.trouble["busy"] = MemoryShort("busy needs 2 GB, but 1 GB are free")
    waited: list[Camera] = []
    # as the usual model has been put out for the large one
    monkeypatch.setattr(host_module, "give_memory_back", lambda: waited.append(Camera(host, name="waited")))
    assert "busy needs 2 GB" in Camera(host, OTHER, name="large").refusal()
    later = Camera(host, name="later").loaded()
    for one in (*waited, later):
        one.loaded().picture(0)
    assert (len(waited), loads.count) == (1, {"fake": 2, "busy": 2})


def test_a_load_that_fails_ends_none_of_those_that_run(host: EngineHost, loads: Loads) -> None:
    runs = Camera(host).loaded()
    with host._changed:
        host._models.clear()
    loads.trouble["fake"] = ModelError("the disk is gone")
    assert "the disk is gone" in Camera(host, name="two").refusal()
    runs.picture(0)


def test_models_that_end_slowly_hold_nobody_up(host: EngineHost, loads: Loads) -> None:
    """The lock is free while a model's memory is given back."""
    seen: list[bool] = []

    class Slow(Noted):
        def __del__(self) -> None:
            free = host._changed.acquire(blocking=False)
            seen.append(free)
            if free:
                host._changed.release()

    with host._changed:
        host._models[OTHER] = Slow(OTHER, LOOK, [])
    host._put_out(but=(FAKE,))
    assert seen == [True]


class Failing(Noted):
    """Fails at every picture with what nobody foresaw; what begins anew on it fails where `all_of_it` says so."""

    all_of_it = False

    def another(self, look: Look) -> Noted:
        return Failing(self.settings, look, self.noted) if self.all_of_it or look == LOOK else super().another(look)

    def translate(self, picture: Picture) -> Picture | None:
        raise RuntimeError("a bug")


@pytest.mark.parametrize("all_of_it", [False, True])
def test_one_streams_faults_end_it_alone_and_a_model_that_works_no_more_is_told(
    host: EngineHost, all_of_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "all_of_it", all_of_it)
    with host._changed:
        host._models[OTHER] = Failing(OTHER, LOOK, [])
    bad, good = Camera(host, OTHER, name="bad").loaded(), Camera(host, name="good").loaded()
    assert bad.stream is not None
    for number in range(RAISES):
        host.give(bad.stream, PictureOrder(number, GREY))
        until(lambda: sum(isinstance(one, Failed | Refused) for one in bad.told) > number, "it was not told")  # noqa: B023
    assert "the engine failed (RuntimeError)" in bad.refusal()
    assert bool(host.broken) is all_of_it
    good.picture(0)
