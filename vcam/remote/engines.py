"""Starts engines on a server for one run of the camera, and cuts all of its connections at once."""

from __future__ import annotations

import secrets
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace

from core.settings import EngineSettings, Look
from vcam.remote.codecs import WantedCodec
from vcam.remote.connection import ServerEngine, load
from vcam.remote.paired import PairedServer
from vcam.remote.protocol import Codec
from vcam.settings.config import RemoteCodec
from vcam.worker.limits import Clock, Limits
from vcam.worker.process import EngineProcess
from vcam.worker.translator import EngineStarters

LONGEST_WAIT_S = 2.0  # between two tries to reach the server


def server_limits(limits: Limits) -> Limits:
    """Return the limits of an engine on a server: what a network does is never given up, and soon tried again."""
    return replace(limits, tries=sys.maxsize, longest_wait_s=min(limits.longest_wait_s, LONGEST_WAIT_S))


class ServerEngines:
    """Starts engines on one server. arrived: called on another thread when one has something to say. codec: how
    pictures go there, None for what suits the way; one that fails is not taken again.

    `cut` and `mend` may be called from any thread.
    """

    def __init__(
        self,
        server: PairedServer,
        limits: Limits,
        clock: Clock,
        arrived: Callable[[], None],
        codec: Codec | None = None,
    ) -> None:
        load()
        self._wanted = WantedCodec(codec)
        self.server, self.limits = server, server_limits(limits)
        self._clock, self._arrived = clock, arrived
        self._camera = secrets.token_hex(8)
        self._connections: weakref.WeakSet[ServerEngine] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._cut = False

    def starters(self, here: EngineStarters, stands_in: bool) -> EngineStarters:
        """Return what starts the engines that show. stands_in: whether `here` does while the server's fail."""
        return replace(
            here, start=self.show, build=self.show, server=self.server.name, stand_in=here.start if stands_in else None
        )

    def show(self, settings: EngineSettings, look: Look) -> EngineProcess:
        """Start an engine whose pictures are to be published."""
        return self._engine(settings, look, self._arrived)

    def trial(self, settings: EngineSettings, look: Look) -> EngineProcess:
        """Start an engine for looks that are tried."""
        return self._engine(settings, look, lambda: None)

    def cut(self) -> None:
        """End every connection at once; those that are begun until `mend` end at once too."""
        with self._lock:
            self._cut = True
            connections = list(self._connections)
        for one in connections:
            one.cut()

    def mend(self) -> None:
        """Let connections be made again."""
        with self._lock:
            self._cut = False

    def _engine(self, settings: EngineSettings, look: Look, arrived: Callable[[], None]) -> EngineProcess:
        def start(settings: EngineSettings, look: Look, _factory: str, _threads: int) -> ServerEngine:
            made = ServerEngine(self.server, self._camera, settings, look, arrived, self._clock, self._wanted)
            with self._lock:
                self._connections.add(made)
                cut = self._cut
            if cut:
                made.cut()
            return made

        return EngineProcess(settings, look, "", 1, self.limits, self._clock, start)


def codec_of(asked: RemoteCodec) -> Codec | None:
    """Return the codec that was asked for, None for what suits the way."""
    return None if asked is RemoteCodec.AUTO else Codec(asked.value)
