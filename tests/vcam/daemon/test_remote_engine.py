"""A whole daemon whose engine is on a server, over real TLS: what is shown while the server comes, goes, and lies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.settings import Look
from tests.support.engine_server import FAKE, TlsServer, serving, wait_long
from tests.support.fake_children import frame
from tests.support.fake_engine import FACTORY, FakeEngine
from tests.support.fake_sink import near
from tests.support.patience import PATIENCE_S, until
from tests.support.pictures import RAW
from tests.support.running_daemon import SwitchedDaemon
from vcam.commands import ChangeEngine, Forget, Panic, Resume, UseProfile
from vcam.control.previews import Previews
from vcam.errors import RemoteError
from vcam.remote.certificate import made_certificate
from vcam.remote.clients import ClientBook, Pairing
from vcam.remote.engines import ServerEngines
from vcam.remote.paired import pair
from vcam.settings.config import RemoteFallback
from vcam.settings.engine_options import EngineOptions
from vcam.worker.limits import Limits

QUICK = Limits(first_wait_s=0.02, longest_wait_s=0.1)


class AwayDaemon(SwitchedDaemon):
    """Has its engine on a server; its settings are in the folder itself."""

    def __init__(self, folder: Path, address: str, **options: Any) -> None:
        given = {"remote": address, **options}
        super().__init__(folder, given, config_folder=lambda: folder, limits=QUICK)

    def shows_about(self, seed: int) -> bool:
        """Whether the translation of this seed was published last; JPEG changes a grey level or two."""
        return near(self.sink.colour, (245 + seed, 55, 225))

    @property
    def width(self) -> int:
        """Of the engine whose pictures are shown; 0 before there is one."""
        work = self.daemon._pipeline.translator.state.work
        return 0 if work is None else work.settings.width

    def never_showed_the_camera(self) -> bool:
        return not any(near(one.colour, RAW) for one in self.sink.sent)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_long(monkeypatch)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TlsServer]:
    with serving(tmp_path / "server") as running:
        yield running


def test_film_in_translation_out_looks_and_sizes_change_and_the_status_tells_the_way(
    server: TlsServer, tmp_path: Path
) -> None:
    server.paired(tmp_path)
    with AwayDaemon(tmp_path, server.address) as away:
        away.until(lambda: away.shows_about(0), "the translation is shown")
        away.tell(UseProfile("p3"))
        away.until(lambda: away.shows_about(3), "the other look is shown")
        away.tell(Forget())
        away.tell(ChangeEngine({"width": 128}))  # another engine beside this one
        away.until(lambda: away.width == 128 and not away.daemon.status().notes, "changed")
        status = away.daemon.status()
        assert status.server == server.address.removeprefix("wss://")
        assert set(status.server_ms) == {"round trip", "encode", "network", "engine", "decode"}
        assert (status.model, status.runtime) == ("fake", "auto")
    until(lambda: not server.server.host.cameras, "the server still has a stream of ours")
    assert away.never_showed_the_camera()


def test_forgetting_empties_the_servers_bank(
    server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the stream remembers there is gone before the next picture is translated; the others keep theirs."""
    emptied: list[tuple[FakeEngine, int, int]] = []
    forget = FakeEngine.forget

    def noted(self: FakeEngine) -> None:
        before = len(self.pictures)
        forget(self)
        emptied.append((self, before, len(self.pictures)))

    monkeypatch.setattr(FakeEngine, "forget", noted)
    server.paired(tmp_path)
    other = ServerEngines(server.paired(tmp_path / "other", "other"), QUICK, time.perf_counter, lambda: None)
    with closing(other.show(replace(FAKE, steps=4), Look("ink"))) as theirs:
        until(lambda: (theirs.step(), theirs.ready)[1], "the other camera has no engine")
        for index in range(3):
            theirs.give(frame(index))
            until(lambda: (theirs.step(), not theirs.activity.in_flight)[1], "it was not answered")
        with AwayDaemon(tmp_path, server.address, engine=EngineOptions(steps=4)) as away:
            away.until(lambda: away.shows_about(0), "the translation is shown")
            away.tell(Forget())
            away.until(lambda: emptied, "the server was told")
            ((engine, before, after),) = emptied
            assert (before, after) == (3, 0)
            translated = away.daemon.status().translated
            away.until(lambda: away.daemon.status().translated > translated + 5, "it goes on")
        until(lambda: server.server.host.cameras == 1, "the server still has a stream of the one that has ended")
        (kept,) = (one.engine for one in server.server.host._streams)
        assert kept is not engine
        assert len(kept.pictures) == 3  # type: ignore[union-attr]


def test_a_look_is_tried_on_the_server_before_it_is_live(server: TlsServer, tmp_path: Path) -> None:
    server.paired(tmp_path)
    with AwayDaemon(tmp_path, server.address) as away, closing(Previews(away.daemon._start_preview_engine)) as previews:
        away.until(lambda: away.shows_about(0), "the translation is shown")
        tried = Look("ink", seed=40)
        grey = np.full((64, 96, 3), 100, np.uint8)
        made = previews.translate(away.daemon.choice.settings, tried, grey).result(PATIENCE_S)
        assert near(tuple(made[32, 48]), (195, 155, 155))
        assert [one.look for one in server.server.host._streams][1:] == [tried]  # of this camera, beside what is shown
        assert server.server.host.cameras == 1
        published = away.daemon.status().published
        away.until(lambda: away.daemon.status().published > published + 5, "it goes on publishing")
        assert away.shows_about(0)


def test_a_camera_that_is_not_paired_is_told_how(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=r"not paired with wss://studio:8790: run `vcam serve clients add NAME`"):
        AwayDaemon(tmp_path, "wss://studio:8790")


def test_panic_cuts_the_stream_at_once_and_resume_brings_it_back(server: TlsServer, tmp_path: Path) -> None:
    server.paired(tmp_path)
    with AwayDaemon(tmp_path, server.address) as away:
        away.until(lambda: away.shows_about(0), "the translation is shown")
        away.tell(Panic())
        until(lambda: not server.server.host.cameras, "the server still has the stream")
        received = server.server.counts.received_bytes
        away.until(lambda: away.daemon.status().state == "panic", "in panic")
        published = away.daemon.status().published
        away.until(lambda: away.daemon.status().published > published + 10, "it goes on publishing its card")
        assert not server.server.host.cameras
        assert server.server.counts.received_bytes == received
        away.tell(Resume())
        away.until(lambda: away.daemon.status().state == "running" and away.shows_about(0), "back")
    assert away.never_showed_the_camera()


def test_without_a_server_the_card_shows_until_it_is_back(tmp_path: Path) -> None:
    with serving(tmp_path / "server") as first:
        first.paired(tmp_path)
        port = first.port
        away = AwayDaemon(tmp_path, first.address)
        away.__enter__()
        away.until(lambda: away.shows_about(0), "the translation is shown")
    away.until(lambda: away.daemon.status().state == "restarting", "it knows that the server is gone")
    assert "127.0.0.1" in away.daemon.status().reason
    away.until(lambda: not away.shows_about(0), "the card is shown")
    published = away.daemon.status().published
    away.until(lambda: away.daemon.status().published > published + 10, "it goes on publishing")
    with TlsServer(tmp_path / "server", first.server.host.offer, FACTORY, port):
        away.until(lambda: away.daemon.status().state == "running" and away.shows_about(0), "back")
        away.end()
    assert away.never_showed_the_camera()


def test_this_machines_engine_stands_in_aloud_and_the_server_takes_over_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcam.worker.translator.ASK_AGAIN_S", 0.2)
    with serving(tmp_path / "server") as first:
        first.paired(tmp_path)
        away = AwayDaemon(tmp_path, first.address, remote_fallback=RemoteFallback.LOCAL)
        away.__enter__()
        away.until(lambda: away.daemon.status().server, "on the server")
    away.until(lambda: away.daemon.status().state == "running" and away.daemon.status().engine_pid, "it stands in")
    away.until(lambda: away.shows_about(0), "its translation is shown")
    status = away.daemon.status()
    assert status.server == ""
    assert any("this machine's engine stands in for 127.0.0.1" in note for note in status.notes)
    away.until(lambda: any("takes over until it is back" in one["text"] for one in away.daemon.log()), "said aloud")
    with TlsServer(tmp_path / "server", first.server.host.offer, FACTORY, first.port):
        away.until(lambda: away.daemon.status().server and not away.daemon.status().engine_pid, "the server's again")
        away.until(lambda: any("is back, and shows again" in one["text"] for one in away.daemon.log()), "said aloud")
        away.end()
    assert away.never_showed_the_camera()


@contextmanager
def server_program(folder: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The same server in a process of its own, which can be stopped and killed."""
    command = [sys.executable, "-m", "tests.support.engine_server", str(folder), FACTORY, str(port), "fake"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP")
def test_a_server_that_stands_still_or_is_killed_costs_the_translation_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "server"
    certificate, book = made_certificate(folder), ClientBook(folder)
    text = Pairing(book.add("laptop"), certificate.fingerprint).to_text()
    with server_program(folder) as (process, port):
        pair(tmp_path, f"127.0.0.1:{port}", text)
        with AwayDaemon(tmp_path, f"wss://127.0.0.1:{port}") as away:
            away.until(lambda: away.shows_about(0), "the translation is shown")
            monkeypatch.setattr("vcam.remote.wire.SILENT_S", 0.5)
            translated = away.daemon.status().translated
            away.until(lambda: away.daemon.status().translated > translated + 5, "it waits no longer than that now")
            os.kill(process.pid, signal.SIGSTOP)
            away.until(lambda: away.daemon.status().state == "restarting", "it knows that the server stands still")
            assert "has said nothing for 0.5 s; is the network gone?" in away.daemon.status().reason
            published = away.daemon.status().published
            away.until(lambda: away.daemon.status().published > published + 10, "it goes on publishing")
            wait_long(monkeypatch)
            os.kill(process.pid, signal.SIGCONT)
            away.until(lambda: away.daemon.status().state == "running" and away.shows_about(0), "back")
            process.kill()
            process.wait()
            away.until(lambda: away.daemon.status().state == "restarting", "it knows that the server is gone")
            with server_program(folder, port):
                away.until(lambda: away.daemon.status().state == "running" and away.shows_about(0), "back again")
    assert away.never_showed_the_camera()
