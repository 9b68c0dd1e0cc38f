"""An engine on a server, over real TLS on this machine, as the translating thread sees it."""

from __future__ import annotations

import asyncio
import itertools
import math
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection

from core.settings import EngineSettings, Look, Lora
from tests.support.engine_server import FAKE, TlsServer, fake_offer, serving, wait_long
from tests.support.fake_children import QUICK, ScriptedChild, frame
from tests.support.fake_engine import FACTORY, FakeEngine
from tests.support.patience import PATIENCE_S, until
from vcam.frames import Picture, Translation
from vcam.remote.codecs import WantedCodec
from vcam.remote.connecting import connected, is_far
from vcam.remote.engines import ServerEngines, server_limits
from vcam.remote.h264 import Decoder, Encoder
from vcam.remote.paired import PairedServer
from vcam.remote.protocol import Answer, Codec
from vcam.remote.turns import EARLY_MS, Turn, pause_ms
from vcam.remote.wire import oldest
from vcam.worker import priority
from vcam.worker.limits import LIMITS, Activity
from vcam.worker.messages import EmptyBank
from vcam.worker.process import EngineProcess
from vcam.worker.translator import StartEngine, WorkerTranslator, engine_starters

LOOK = Look("ink")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_long(monkeypatch)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TlsServer]:
    with serving(tmp_path / "server") as running:
        yield running


def engines(server: PairedServer, codec: Codec | None = None) -> ServerEngines:
    return ServerEngines(server, QUICK, time.perf_counter, lambda: None, codec)


def loaded(engine: EngineProcess) -> EngineProcess:
    def ready() -> bool:
        engine.step()
        assert not engine.failure
        return engine.ready

    until(ready, "it has not loaded")
    return engine


def step(engine: EngineProcess) -> Translation | None:
    """One step of an engine that must not fail."""
    shown = engine.step()
    assert not engine.failure
    return shown


def translated(engine: EngineProcess, index: int, grey: int = 100) -> Translation:
    """The translation of a grey frame; waits for it."""
    engine.give(frame(index, grey))
    results: list[Translation] = []

    def done() -> bool:
        shown = engine.step()
        assert not engine.failure
        results.extend([shown] if shown is not None else [])
        return bool(results) and results[-1].index == index

    until(done, "no translation came")
    return results[-1]


def test_a_picture_goes_there_and_its_translation_comes_back(server: TlsServer, tmp_path: Path) -> None:
    engine = loaded(engines(server.paired(tmp_path)).show(FAKE, LOOK))
    shown = translated(engine, 3)
    assert shown.picture.shape == (64, 96, 3)
    assert np.abs(shown.picture.astype(int) - 155).max() <= 2  # inverted, and twice JPEG
    assert (shown.index, shown.captured_s, shown.look) == (3, 0.3, LOOK)
    assert set(engine.times) == {"round trip", "encode", "network", "engine", "decode"}
    assert all(0 <= one.p50_ms <= one.p95_ms for one in engine.times.values())
    facts = engine.report.facts
    assert facts is not None
    assert (facts.model, facts.pid, facts.to_build) == ("fake", None, False)
    engine.close(1.0)
    until(lambda: not server.server.host.cameras, "the server still has its stream")


def test_those_who_hand_pictures_over_run_soon_and_engines_as_the_system_likes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine keeps every core busy: each hand-over would wait for it."""
    asked = set[str]()
    monkeypatch.setattr(priority, "_set_slice", lambda nanoseconds: asked.add(threading.current_thread().name))
    with serving(tmp_path / "server") as server:
        engine = loaded(engines(server.paired(tmp_path)).show(FAKE, LOOK))
        translated(engine, 0)
        engine.close()
    assert {re.sub(r"_\d$", "", name) for name in asked} == {"vcam-front", "vcam-codec", server.thread.name}


def test_looks_prompts_and_forgetting_reach_the_stream_and_a_refusal_comes_back(
    server: TlsServer, tmp_path: Path
) -> None:
    engine = loaded(engines(server.paired(tmp_path)).show(FAKE, LOOK))
    translated(engine, 0)
    engine.set_look(replace(LOOK, seed=7), 0)
    engine.send(EmptyBank())
    assert np.abs(translated(engine, 1).picture[..., 0].astype(int) - 162).max() <= 3
    engine.set_look(Look("refuse"), 0)
    translated(engine, 2)
    until(lambda: engine.step() or engine.refused, "no refusal came")
    assert "guidance is 2" in engine.refused
    engine.close()


def test_a_look_is_blended_in_over_as_many_pictures_as_was_asked_for(
    server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[int, int]] = []
    use = FakeEngine.set_look

    def noted(self: FakeEngine, look: Look, frames: int = 0) -> None:
        heard.append((look.seed, frames))
        use(self, look, frames)

    monkeypatch.setattr(FakeEngine, "set_look", noted)
    engine = loaded(engines(server.paired(tmp_path)).show(FAKE, LOOK))
    translated(engine, 0)
    engine.activity = replace(engine.activity, frame_s=0.04)
    engine.set_look(replace(LOOK, seed=7), 1000)
    translated(engine, 1)
    assert heard == [(7, 25)]
    engine.close()


def test_two_pictures_may_be_on_their_way_and_no_more(server: TlsServer, tmp_path: Path) -> None:
    engine = loaded(engines(server.paired(tmp_path)).show(replace(FAKE, model="busy"), LOOK))
    taken = []
    for index in range(2):
        engine.give(frame(index))
        taken.append(engine.idle)
    assert taken == [True, False]
    # on a busy machine the second may come before the engine took the first, and replace it: an answer, too
    until(lambda: (step(engine), engine.activity.in_flight == 0)[1], "both were not answered")
    assert engine.activity.pictures >= 1
    assert engine.idle
    engine.close()


def test_the_second_picture_waits_here_for_a_newer_one_while_it_would_wait_for_the_engine(
    server: TlsServer, tmp_path: Path
) -> None:
    now = [0.0]
    own = ServerEngines(server.paired(tmp_path), QUICK, lambda: now[0], lambda: None)
    engine = own.show(replace(FAKE, model="busy"), LOOK)
    assert engine.idle_in_s == math.inf  # while it loads: nobody turns round and round for it
    loaded(engine)

    given = itertools.count()

    def one_is_left() -> bool:
        while engine.idle:
            engine.give(frame(next(given)))
        step(engine)
        # on a busy machine the way there may be longer than the engine's 100 ms: then none has to wait
        return engine.activity.in_flight == 1 and not engine.idle

    until(one_is_left, "none was answered alone, by an engine that takes longer than the way there")
    assert 0 < engine.idle_in_s < PATIENCE_S
    now[0] += engine.idle_in_s
    assert engine.idle
    assert engine.idle_in_s == 0
    engine.give(frame(next(given)))
    assert engine.idle_in_s == math.inf  # both places are taken
    until(lambda: (step(engine), not engine.activity.in_flight)[1], "the others were not answered")
    assert engine.idle  # none is on its way: the engine waits
    engine.close()


def test_a_picture_is_sent_so_that_it_comes_just_before_the_engine_is_free() -> None:
    assert pause_ms([Turn(50.0, 8.0)]) == 50 - 8 - EARLY_MS
    assert pause_ms([Turn(10.0, 12.0)] * 8) == 0  # the way is longer than the engine's time
    assert pause_ms([Turn(50.0, -3.0)]) == 50 - EARLY_MS
    uneven = [Turn(50.0 + n, 8.0 + n * n) for n in range(7)]
    assert pause_ms(uneven) == 53 - 17 - EARLY_MS  # one that was slow makes none of the others older


def test_pictures_of_two_cameras_never_meet(server: TlsServer, tmp_path: Path) -> None:
    """Each gets its own pictures back, in its own look, whatever the other sends meanwhile."""
    both = [
        loaded(engines(server.paired(tmp_path / str(n), f"client {n}")).show(FAKE, Look("ink", seed=20 * n)))
        for n in range(2)
    ]
    seen: list[list[Translation]] = [[], []]
    given = [0, 0]

    def step() -> bool:
        for n, engine in enumerate(both):
            if engine.idle:  # as many as it takes: on a busy machine some are replaced, or too old to be shown
                engine.give(frame(given[n], 60 + 80 * n))
                given[n] += 1
            shown = engine.step()
            assert not engine.failure
            seen[n].extend([shown] if shown is not None else [])
        return all(len(one) >= 30 for one in seen)

    until(step, "too few translations came")
    for n, expected in enumerate((195, 115)):
        for shown in seen[n]:
            assert np.abs(shown.picture[..., 1].astype(int) - expected).max() <= 3
            assert np.abs(shown.picture[..., 0].astype(int) - expected - 20 * n).max() <= 4
        assert [one.index for one in seen[n]] == sorted(one.index for one in seen[n])
    for engine in both:
        engine.close()


def test_a_third_camera_is_told_that_all_streams_are_taken(server: TlsServer, tmp_path: Path) -> None:
    two = [loaded(engines(server.paired(tmp_path / name, name)).show(FAKE, LOOK)) for name in "ab"]
    third = engines(server.paired(tmp_path / "c", "c")).show(FAKE, LOOK)
    until(lambda: third.step() or third.failure, "it was not refused")
    assert "the server is busy: all 2 of its streams are taken" in third.failure
    assert not third.final  # trying again may help
    translated(two[0], 0)
    for engine in (*two, third):
        engine.close()


def test_a_camera_may_hold_an_engine_beside_and_one_to_try_but_no_more(tmp_path: Path) -> None:
    with serving(tmp_path / "server", fake_offer(streams=1)) as server:
        own = engines(server.paired(tmp_path))
        three = [loaded(own.show(FAKE, LOOK)), loaded(own.show(FAKE, LOOK)), loaded(own.trial(FAKE, LOOK))]
        fourth = own.show(FAKE, LOOK)
        until(lambda: fourth.step() or fourth.failure, "it was not refused")
        assert "this camera has 3 streams already" in fourth.failure
        for engine in (*three, fourth):
            engine.close()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (replace(FAKE, model="stranger"), "does not offer the model 'stranger'; it offers fake"),
        (replace(FAKE, model="/etc"), "does not offer the model '/etc'"),
        (replace(FAKE, loras=(Lora("/home/me/ink.safetensors"),)), "does not offer the LoRA 'ink.safetensors'"),
        (replace(FAKE, width=2048, height=2048), "translates at most"),
        (replace(FAKE, model="absent"), "there is no model 'absent'; there are: fake"),
        (replace(FAKE, model="buggy"), "the engine could not be loaded (ValueError)"),
    ],
)
def test_what_the_server_does_not_offer_is_refused_in_words(
    server: TlsServer, tmp_path: Path, asked: EngineSettings, words: str
) -> None:
    engine = engines(server.paired(tmp_path)).show(asked, LOOK)
    until(lambda: engine.step() or engine.failure, "it was not refused")
    assert words in engine.failure
    engine.close()
    until(lambda: not server.server.host.cameras, "the stream is still there")


def test_a_lora_that_is_offered_is_asked_for_by_its_name_alone(tmp_path: Path) -> None:
    offer = fake_offer(streams=1, loras={"ink.safetensors": "/srv/loras/ink.safetensors"})
    with serving(tmp_path / "server", offer) as server:
        engine = loaded(engines(server.paired(tmp_path)).show(FAKE, LOOK))
        assert engine.takes(replace(FAKE, loras=(Lora("/home/me/ink.safetensors", 0.5),)))
        engine.use_loras((Lora("/home/me/ink.safetensors", 0.5),), 0)
        assert np.abs(translated(engine, 0).picture[..., 1].astype(int) - 165).max() <= 3
        assert engine.settings.loras == (Lora("/home/me/ink.safetensors", 0.5),)
        engine.close()


def test_a_revoked_client_loses_its_stream_and_is_not_let_in_again(server: TlsServer, tmp_path: Path) -> None:
    own = engines(server.paired(tmp_path))
    engine = loaded(own.show(FAKE, LOOK))
    translated(engine, 0)
    server.book.revoke("laptop")
    until(lambda: engine.step() or engine.failure, "it was not ended")
    assert engine.final
    assert "has revoked this client 'laptop'" in engine.failure
    again = own.show(FAKE, LOOK)
    until(lambda: again.step() or again.failure, "it was let in")
    assert "has revoked the client 'laptop'" in again.failure
    for one in (engine, again):
        one.close()


def test_a_cut_connection_is_gone_at_once_and_none_is_made_until_it_is_mended(
    server: TlsServer, tmp_path: Path
) -> None:
    own = engines(server.paired(tmp_path))
    engine = loaded(own.show(FAKE, LOOK))
    own.cut()
    engine.step()
    assert engine.failure == "the connection was cut"
    engine.give(frame(1))  # the picture that was on its way to us: it goes nowhere
    later = own.show(FAKE, LOOK)
    until(lambda: later.step() or later.failure, "it was not cut")
    until(lambda: not server.server.host.cameras, "the server still has the stream")
    assert server.server.host.work.pictures == 0
    own.mend()
    mended = loaded(own.show(FAKE, LOOK))
    translated(mended, 2)
    for one in (engine, later, mended):
        one.close()


def test_what_a_cut_empties_just_as_it_is_looked_at_is_taken_or_gone() -> None:
    class CutNow(deque[str | bytes]):
        """Is emptied as soon as somebody has looked whether anything is there."""

        def __bool__(self) -> bool:
            there = len(self) > 0
            self.clear()
            return there

    waiting = CutNow(["one"])
    assert [oldest(waiting), oldest(waiting)] == ["one", None]


def test_a_connection_that_is_cut_while_it_is_made_leaves_no_socket(
    server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio says goodbye to the other side and waits for its answer, longer than the loop lives."""
    paired, sockets, tasks = server.paired(tmp_path), list[socket.socket](), list[asyncio.Task[object]]()
    begin = ClientConnection.connection_made

    def begun(self: ClientConnection, transport: asyncio.BaseTransport) -> None:
        begin(self, transport)
        sockets.append(transport.get_extra_info("socket"))
        tasks[0].cancel()  # TLS is agreed upon, and nobody has heard of it

    async def cut() -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        await connected(paired)

    monkeypatch.setattr(ClientConnection, "connection_made", begun)
    with pytest.raises(asyncio.CancelledError), asyncio.Runner() as runner:
        runner.run(cut())
    assert [one.fileno() for one in sockets] == [-1]


def test_an_answer_that_was_too_long_on_its_way_is_not_shown_and_the_next_one_is(
    server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loaded(engines(server.paired(tmp_path)).show(FAKE, LOOK))
    monkeypatch.setattr("vcam.remote.connection.LATE_S", -1.0)
    engine.give(frame(0))
    until(lambda: (step(engine), not engine.activity.in_flight)[1], "it was not answered")
    assert engine.activity.pictures == 0
    wait_long(monkeypatch)
    assert translated(engine, 1).index == 1
    engine.close()


def test_a_picture_of_the_prompt_alone_sends_none(server: TlsServer, tmp_path: Path) -> None:
    engine = loaded(engines(server.paired(tmp_path)).show(FAKE, LOOK))
    before = server.server.counts.received_bytes
    engine.give(replace(frame(0), imagined=True))
    until(lambda: (step(engine), not engine.activity.in_flight)[1], "it was not answered")
    assert server.server.counts.received_bytes < before + 100
    engine.close()


def test_two_cameras_on_an_engine_of_several_steps_both_get_their_pictures(server: TlsServer, tmp_path: Path) -> None:
    """Pictures are replaced while they wait, and those that the engine still has in it are shown nevertheless."""
    deep = replace(FAKE, model="busy", steps=3)
    both = [loaded(engines(server.paired(tmp_path / str(n), f"client {n}")).show(deep, LOOK)) for n in range(2)]
    seen: list[list[Translation]] = [[], []]
    given = [0, 0]

    def step() -> bool:
        for n, engine in enumerate(both):
            if engine.idle:
                engine.give(frame(given[n], 60 + given[n] % 100))
                given[n] += 1
            shown = engine.step()
            assert not engine.failure
            seen[n].extend([shown] if shown is not None else [])
        replaced = [given[n] - len(seen[n]) > 20 for n in range(2)]
        return all(replaced) and all(len(one) >= 5 for one in seen)

    until(step, "too few translations came")
    for shown in (*seen[0], *seen[1]):
        assert np.abs(shown.picture[..., 2].astype(int) - (195 - shown.index % 100)).max() <= 3  # of that very frame
    for engine in both:
        engine.close()


def test_a_picture_that_fails_costs_an_engine_of_several_steps_that_picture_alone(
    server: TlsServer, tmp_path: Path
) -> None:
    engine = loaded(engines(server.paired(tmp_path)).show(replace(FAKE, steps=3), Look("raise-once")))
    seen: list[Translation] = []
    for index in range(8):
        engine.give(frame(index, 60 + index))

        def answered() -> bool:
            shown = engine.step()
            seen.extend([shown] if shown is not None else [])
            assert not engine.failure
            return not engine.activity.in_flight

        until(answered, "no answer came")
    assert [one.index for one in seen] == [0, 2, 3, 4, 5]
    assert all(abs(int(one.picture[0, 0, 2]) - (195 - one.index)) <= 2 for one in seen)
    engine.close()


def test_a_server_that_is_away_for_weeks_is_tried_again() -> None:
    limits = server_limits(LIMITS)
    assert [limits.wait_s(failures) for failures in range(1, 6)] == [0.25, 0.5, 1.0, 2.0, 2.0]
    assert limits.wait_s(1025) == limits.wait_s(10**9) == limits.longest_wait_s
    assert limits.tries > 10**9


class NoneHere(ScriptedChild):
    """This machine's engine, which cannot be had."""

    here, ready = True, False

    def __init__(self, settings: EngineSettings, look: Look) -> None:
        super().__init__(settings, look)
        self.failure, self.final, self.ready, self.idle = "there is no model", True, False, False


def test_the_server_is_tried_on_where_this_machine_cannot_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path / "server") as first:
        paired = first.paired(tmp_path)
    own = engines(paired)
    starters = replace(own.starters(engine_starters(), False), stand_in=cast(StartEngine, NoneHere))
    translator = WorkerTranslator(FAKE, LOOK, starters, limits=own.limits, sleep=lambda s: time.sleep(0.01))
    told: list[str] = []

    def shown() -> Translation | None:
        given = frame(0) if translator.ready else None
        result = translator.translate(given)
        told.append(translator.state.text)
        return result

    until(lambda: shown() or any("cannot stand in for it: there is no model" in text for text in told), "not told")
    with TlsServer(tmp_path / "server", first.server.host.offer, FACTORY, first.port):
        until(shown, "the server is back, and not used")
        translator.close()


class StillLoading(ScriptedChild):
    """This machine's engine, which takes its time."""

    here = True

    def __init__(self, settings: EngineSettings, look: Look) -> None:
        super().__init__(settings, look)
        self.ready, self.idle, self.activity = False, False, Activity(0.0)


def test_a_server_that_is_back_is_shown_although_the_stand_in_still_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcam.worker.translator.ASK_AGAIN_S", 0.05)
    with serving(tmp_path / "server") as first:
        paired = first.paired(tmp_path)
    own = engines(paired)
    starters = replace(own.starters(engine_starters(), False), stand_in=cast(StartEngine, StillLoading))
    translator = WorkerTranslator(FAKE, LOOK, starters, limits=own.limits, sleep=lambda s: time.sleep(0.01))

    def shown() -> Translation | None:
        return translator.translate(frame(0) if translator.ready else None)

    until(lambda: shown() or translator.state.stands_in, "none stands in")
    with TlsServer(tmp_path / "server", first.server.host.offer, FACTORY, first.port):
        until(shown, "the server is back, and not used")
        translator.close()


def test_a_name_that_is_never_answered_holds_nothing_up(
    server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the connection's end nor the program's, which waits for the threads of executors; it is asked once."""
    answered, asked = threading.Event(), list[object]()

    def hang(*question: object) -> list[object]:
        asked.append(question)
        answered.wait(PATIENCE_S)
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr("vcam.remote.connecting.OPEN_S", 0.05)
    own = engines(replace(server.paired(tmp_path), host="studio.lan"))
    try:
        two = [own.show(FAKE, LOOK) for _ in range(2)]
        for engine in two:
            until(lambda one=engine: one.step() or one.failure, "nothing is told")  # type: ignore[misc]
            assert "studio.lan" in engine.failure
            assert "has not answered for" in engine.failure
            engine.close()
        until(lambda: not any(one.name == "vcam-server" for one in threading.enumerate()), "its thread waits")
        waiting = [one for one in threading.enumerate() if one.name == "vcam-name"]
        assert len(asked) == len(waiting) == 1
        assert waiting[0].daemon
        assert not any(one.name.startswith("asyncio_") for one in threading.enumerate())
    finally:
        answered.set()


def test_a_name_that_is_found_is_connected_to_and_one_that_is_not_is_told(server: TlsServer, tmp_path: Path) -> None:
    paired = server.paired(tmp_path)
    translated(there := loaded(engines(replace(paired, host="localhost")).show(FAKE, LOOK)), 0)
    there.close()
    away = engines(replace(paired, host="no-such-machine.invalid")).show(FAKE, LOOK)
    until(lambda: away.step() or away.failure, "nothing is told")
    assert "there is no machine called no-such-machine.invalid" in away.failure
    away.close()


def test_pictures_go_as_h264_both_ways_and_each_connection_begins_with_a_whole_one(
    server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoders: list[Decoder] = []
    begin = Decoder.__init__

    def begun(self: Decoder, size: tuple[int, int]) -> None:
        begin(self, size)
        decoders.append(self)

    monkeypatch.setattr(Decoder, "__init__", begun)
    own = engines(server.paired(tmp_path), Codec.H264)
    for connection in (1, 2):
        engine = loaded(own.show(FAKE, LOOK))
        for index in range(6):
            shown = translated(engine, index, 60 + 10 * index)
            assert np.abs(shown.picture.astype(int) - (195 - 10 * index)).max() <= 4
        engine.close()
        assert len(decoders) == 2 * connection  # the server's and ours


def test_an_h264_answer_that_comes_too_late_does_not_break_those_that_follow(
    server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = loaded(engines(server.paired(tmp_path), Codec.H264).show(FAKE, LOOK))
    translated(engine, 0)
    monkeypatch.setattr("vcam.remote.connection.LATE_S", -1.0)
    engine.give(frame(1))
    until(lambda: (engine.step(), not engine.activity.in_flight)[1], "it was not answered")
    wait_long(monkeypatch)
    assert translated(engine, 2).index == 2
    engine.close()


@pytest.mark.parametrize("side", ["the server's", "ours"])
def test_a_picture_that_cannot_be_decoded_is_told_and_pictures_go_as_jpeg_from_then_on(
    server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    """The newest-wins order is kept: it costs this connection, and the next one begins with JPEG."""
    own = engines(server.paired(tmp_path), Codec.H264)
    engine = loaded(own.show(FAKE, LOOK))
    translated(engine, 0)
    encode, spoilt = Encoder.encode, 1 if side == "the server's" else 2

    def spoil(self: Encoder, picture: Picture) -> bytes:
        nonlocal spoilt
        spoilt -= 1
        coded = encode(self, picture)
        return coded if spoilt else coded[:4] + b"\0\0\1\x65" + b"\xff" * 64

    monkeypatch.setattr(Encoder, "encode", spoil)
    engine.give(frame(1))
    if side == "the server's":  # why is told although the connection has ended when it is read
        until(lambda: not any(one.name == "vcam-server" for one in threading.enumerate()), "it was not ended")
    until(lambda: engine.step() or engine.failure, "nothing is told")
    assert "cannot be decoded" in engine.failure
    assert "pictures go there as JPEG from now on" in engine.failure
    assert not engine.final
    again = loaded(own.show(FAKE, LOOK))
    translated(again, 2)
    assert server.server.host.work.pictures >= 2
    assert spoilt <= 0
    left = spoilt
    translated(again, 3)
    assert spoilt == left  # nothing is encoded as H.264 any more
    for one in (engine, again):
        one.close()


def test_a_server_or_a_machine_without_h264_gets_jpeg(
    server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcam.remote.h264.available", lambda: False)
    engine = loaded(engines(server.paired(tmp_path), Codec.H264).show(FAKE, LOOK))
    translated(engine, 0)
    monkeypatch.undo()
    wait_long(monkeypatch)
    translated(engine, 1)  # this machine can now; the server has said that it cannot
    assert engine.activity.pictures == 2
    engine.close()


def test_what_suits_the_way_is_jpeg_in_this_network_and_h264_outside_it() -> None:
    assert (WantedCodec().codec(far=False), WantedCodec().codec(far=True)) == (Codec.JPEG, Codec.H264)
    assert WantedCodec(Codec.H264).codec(far=False) is Codec.H264
    assert WantedCodec(Codec.H264, failed=True).codec(far=True) is Codec.JPEG
    near = "127.0.0.1", "192.168.1.7", "10.0.0.2", "fe80::1%eth0", "fd00::1", "::1"
    assert [is_far((one, 8790)) for one in near] == [False] * 6
    assert [is_far((one, 8790)) for one in ("9.9.9.9", "2620:fe::fe")] == [True] * 2
    assert not is_far(None)


def test_paths_of_this_machine_are_not_sent(server: TlsServer, tmp_path: Path) -> None:
    look = replace(LOOK, elsewhere="/home/me/sea.jpg")
    engine = loaded(engines(server.paired(tmp_path)).show(FAKE, look))
    stream = server.server.host._streams[0]
    assert "sea.jpg" not in str(stream.look)
    engine.set_look(replace(look, seed=7), 0)
    assert translated(engine, 0).look.elsewhere == "/home/me/sea.jpg"  # it is put around the picture here
    assert "sea.jpg" not in str(stream.engine.look)  # type: ignore[union-attr]
    engine.close()


def test_a_way_that_is_too_slow_for_pictures_to_be_shown_is_told_until_it_is_quick_again(
    server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answered(index: int) -> str:
        engine.give(frame(index))
        until(lambda: (step(engine), not engine.activity.in_flight)[1], "it was not answered")
        assert engine.report.facts is not None
        return engine.report.facts.note

    engine = loaded(engines(server.paired(tmp_path)).show(FAKE, LOOK))
    assert answered(0) == ""
    monkeypatch.setattr("vcam.remote.connection.LATE_S", -1.0)
    note = answered(1)
    slow = r"the way to 127\.0\.0\.1:\d+ and back takes [\d.]+ s, too long for its pictures to be shown; "
    assert re.match(slow, note)
    assert engine.report.progress.text == note  # for a camera that has not shown any yet
    assert answered(2) == note  # as it was said first
    wait_long(monkeypatch)
    assert answered(3) == ""
    engine.close()


def test_a_servers_word_of_its_waits_excuses_no_picture_for_long(
    server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    own = ServerEngines(server.paired(tmp_path), QUICK, lambda: now[0], lambda: None)
    engine = loaded(own.show(FAKE, LOOK))
    monkeypatch.setattr("vcam.remote.connection.LATE_S", 1.0)
    monkeypatch.setattr(Answer, "server_ms", 1e9)
    engine.give(frame(0))
    now[0] = 12.0
    until(lambda: (step(engine), not engine.activity.in_flight)[1], "it was not answered")
    assert engine.activity.pictures == 0
    engine.close()
