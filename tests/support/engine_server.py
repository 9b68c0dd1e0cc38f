"""An engine server behind its front in threads of this process, with the fake engine; Ray Serve hosts the same one.

    python -m tests.support.engine_server FOLDER FACTORY

serves in a process of its own, which can be killed and stopped, and writes its port on a line.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
import websockets.exceptions

from core.settings import EngineSettings
from tests.support.fake_engine import FACTORY
from tests.support.patience import PATIENCE_S
from vcam.remote.certificate import Certificate, made_certificate
from vcam.remote.clients import ClientBook, Pairing
from vcam.remote.front import Front
from vcam.remote.host import EngineHost, engine_maker
from vcam.remote.offer import Offer
from vcam.remote.paired import PairedServer, pair, paired_server
from vcam.remote.server import EngineServer

LIMITS_S = {
    "vcam.remote.connecting": ("OPEN_S",),
    "vcam.remote.connection": ("LATE_S",),
    "vcam.remote.wire": ("SILENT_S",),
    "vcam.remote.behind": ("ANSWER_S", "BEHIND_S"),
    "vcam.remote.front": ("HANDSHAKE_S", "HEAD_S", "HELLO_S"),
    "vcam.remote.pipes": ("CLOSE_S", "STALLED_S"),
    "vcam.remote.incoming": ("CAMERA_SILENT_S",),
    "vcam.remote.outgoing": ("SEND_S",),
    "vcam.remote.session": ("HELLO_S",),
}
FAKE = EngineSettings(model="fake", width=96, height=64, steps=1)


def wait_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no limit of time end what a busy machine is slow at."""
    for module, names in LIMITS_S.items():
        for name in names:
            monkeypatch.setattr(f"{module}.{name}", PATIENCE_S)


def fake_offer(streams: int = 2, **values: object) -> Offer:
    """The fake engine for so many cameras; its models misbehave as tests.support.fake_engine says."""
    models = ("fake", "busy", "absent", "buggy", "slow-start")
    return Offer(**({"usual": FAKE, "streams": streams, "models": models} | values))  # type: ignore[arg-type]


class TlsServer:
    """The application on a port of this machine, from `with` to its end. server: the application."""

    def __init__(
        self,
        folder: Path,
        offer: Offer,
        factory: str = FACTORY,
        port: int = 0,
        clock: Callable[[], float] = time.monotonic,
        host: str = "127.0.0.1",
        threads: int = 1,
    ) -> None:
        self.folder = folder
        self.certificate: Certificate = made_certificate(folder)
        self.book = ClientBook(folder)
        self.server = EngineServer(EngineHost(offer, engine_maker(factory, threads)), self.book, clock)
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(256)
        self.front = Front(host, port, self.certificate, int(self._socket.getsockname()[1]))
        self.port = self.front.port
        config = uvicorn.Config(
            self.server,
            log_level="critical",
            access_log=False,
            lifespan="off",
            loop="asyncio",
            ws="websockets-sansio",
            timeout_graceful_shutdown=1,
        )
        self._uvicorn = uvicorn.Server(config)
        self.thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def address(self) -> str:
        return f"wss://127.0.0.1:{self.port}"

    def paired(self, config_folder: Path, name: str = "laptop") -> PairedServer:
        """Let a client in, and pair its camera, whose settings are in config_folder."""
        config_folder.mkdir(parents=True, exist_ok=True)
        text = Pairing(self.book.add(name), self.certificate.fingerprint).to_text()
        pair(config_folder, self.address, text)
        return paired_server(config_folder, self.address)

    def _serve(self) -> None:
        # uvicorn closes at its end what is closing already
        with contextlib.suppress(websockets.exceptions.InvalidState):
            self._uvicorn.run([self._socket])

    def __enter__(self) -> TlsServer:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.front.close()
        self._uvicorn.should_exit = True
        self.thread.join(30)
        self._socket.close()
        self.server.close()


@contextlib.contextmanager
def serving(folder: Path, offer: Offer | None = None, factory: str = FACTORY) -> Iterator[TlsServer]:
    """Serve while the body runs."""
    with TlsServer(folder, offer or fake_offer(), factory) as server:
        yield server


def main() -> None:
    folder, factory, port, model = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    usual = EngineSettings(model=model, width=96, height=64, steps=1)
    with TlsServer(folder, Offer(usual, 2, (model,)), factory, port) as server:
        print(server.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
