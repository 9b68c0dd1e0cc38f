"""The engine on a server, in the place of a child process: one WebSocket, on a thread of its own.

Nobody waits for the network: what is to be sent waits in an outbox, in which of pictures the window alone has room, and
what has come is fetched when it is asked for. Whatever becomes of the connection is a sentence in `death`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import multiprocessing
import socket
import ssl
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from core.settings import CAMERA, EngineSettings, Look, Lora
from vcam.errors import CodecError, RemoteError, RemoteRefused
from vcam.frames import Picture, Spread
from vcam.remote import names
from vcam.remote.certificate import fingerprint_of
from vcam.remote.codecs import PictureCodec, codecs
from vcam.remote.names import PatientLoop
from vcam.remote.paired import PairedServer
from vcam.remote.protocol import (
    ALIVE_S,
    LARGEST_PICTURE,
    LARGEST_TEXT,
    LATE_S,
    NO_RECEIPT,
    PATH,
    SILENT_S,
    WINDOW,
    Alive,
    Answer,
    Codec,
    Failed,
    ForgetAll,
    GivenPicture,
    Hello,
    Loaded,
    Loading,
    LorasUsed,
    Prompts,
    Refusal,
    Refused,
    UseLook,
    UseLoraNames,
    from_server,
    packed,
    packed_picture,
    unpacked_answer,
)
from vcam.worker.messages import (
    EmptyBank,
    EncodePrompts,
    EngineLoaded,
    Exit,
    FrameDone,
    LoadFailed,
    LoadingProgress,
    LorasFused,
    Order,
    OrderFailed,
    SetLook,
    TranslateFrame,
    UseLoras,
)

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

OPEN_S = 5.0  # until a server has answered
MOST_SERVER_S = 10.0  # that a server may say a picture was with it
MEASURED = 256  # pictures of which times are told
FORESEEN_BY = 8  # of the last pictures it is foreseen when the engine is free
EARLY_MS = 2.0  # by so much a picture shall be there before that
CUT = "the connection was cut"
PARTS = ("round trip", "encode", "network", "engine", "decode")


class HeldPictures:
    """The picture to be sent, and the translation that came: RGB uint8 [height, width, 3]."""

    def __init__(self, settings: EngineSettings) -> None:
        shape = (settings.height, settings.width, 3)
        self.given: Picture = np.zeros(shape, np.uint8)
        self.result: Picture = np.zeros(shape, np.uint8)


@dataclass
class WantedCodec:
    """How pictures shall go to a server. asked: None for what suits the way there; failed: whether H.264 did not work.

    JPEG costs less work at either end, and its pictures are a little nearer; H.264 has a quarter or less of the bytes.
    """

    asked: Codec | None = None
    failed: bool = False

    def codec(self, far: bool) -> Codec:
        """Return how the next picture shall go. far: whether the server is outside this network."""
        if self.failed:
            return Codec.JPEG
        return self.asked or (Codec.H264 if far else Codec.JPEG)


class _Sent(NamedTuple):
    """A picture on its way. sent_s: seconds of our clock; encode_ms: what writing it took."""

    order: TranslateFrame
    sent_s: float
    encode_ms: float


class _Turn(NamedTuple):
    """What a picture took: engine_ms in the engine, way_ms all else but its wait for the engine."""

    engine_ms: float
    way_ms: float


def pause_ms(turns: Sequence[_Turn]) -> float:
    """Return how long after an answer the next picture is to be sent, if another one is on its way.

    The engine begins that one about when it sends the answer, so the next must be there one engine's time later: what
    is sent sooner waits there, and what is shown is older by that. Turns that differ are taken so that the engine
    rather has a picture waiting than that it has none.
    """
    engine_ms = sorted(one.engine_ms for one in turns)[len(turns) // 4]
    way_ms = sorted(one.way_ms for one in turns)[(3 * len(turns)) // 4]
    return max(0.0, engine_ms - max(0.0, way_ms) - EARLY_MS)


@dataclass(frozen=True)
class _End:
    """Why a connection has ended; final: trying again will not help."""

    why: str = ""
    final: bool = False


class ServerEngine:
    """An EngineChild on a server; it connects when this is built. camera: the name of this run's.

    wanted: how pictures go. arrived: called on another thread when there is a message. `cut` and `times` are for any
    thread, all else for one.
    """

    window = WINDOW
    here = False
    pid = 0

    def __init__(
        self,
        server: PairedServer,
        camera: str,
        settings: EngineSettings,
        look: Look,
        arrived: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
        wanted: WantedCodec | None = None,
    ) -> None:
        self._wanted, self._coding = wanted or WantedCodec(), PictureCodec()
        self._taken: tuple[Codec, ...] = (Codec.JPEG,)  # in which the server takes pictures
        self.pictures = HeldPictures(settings)
        self._size = settings.width, settings.height
        self._server, self._arrived, self._clock = server, arrived, clock
        self._loras: dict[str, Lora] = {}
        self._sent: dict[int, _Sent] = {}  # of which a translation may still come
        self._open: set[int] = set()  # that are not answered
        self._number, self._receipt = 0, NO_RECEIPT
        self._turns = deque[_Turn](maxlen=FORESEEN_BY)
        self._next_s = -math.inf  # when the next picture is to be sent, seconds of our clock
        self._times = {part: deque[float](maxlen=MEASURED) for part in PARTS}
        named = replace(settings, loras=self._named(settings.loras))
        hello = Hello(server.token, camera, named, _sent_look(look))
        self._wire = _Wire(server, hello, self._ring)
        self._bell, self._ringing = multiprocessing.Pipe(duplex=False)
        self._rung = threading.Event()
        self._wire.start()

    # ---- from any thread

    @property
    def times(self) -> Mapping[str, Spread]:
        """What the way of the last pictures took, by PARTS; empty before the first."""
        return {part: _spread(list(ms)) for part, ms in self._times.items() if ms}

    def cut(self) -> None:
        """End the connection at once, with what is on its way."""
        self._wire.cut()

    # ---- from the translating thread

    @property
    def pause_s(self) -> float:
        """How long the next picture shall wait here for a newer one: what is early waits for the engine there."""
        return max(0.0, self._next_s - self._clock())

    @property
    def waitable(self) -> list[Any]:
        """What is ready when a message has come, or when the connection has ended."""
        return [self._bell]

    def send(self, order: Order) -> None:
        """Have an order sent; a picture is encoded here."""
        match order:
            case TranslateFrame():
                began_s, codec = self._clock(), self._codec
                try:
                    coded = b"" if order.imagined else self._coding.encode(self.pictures.given, codec)
                except CodecError as error:
                    self._wire.fail(_End(self._by_jpeg(str(error))))
                    return
                now = self._clock()
                self._sent[self._number] = _Sent(order, now, 1000 * (now - began_s))
                self._open.add(self._number)
                given = GivenPicture(self._number, self._receipt, coded, codec)
                self._number += 1
                self._wire.put(packed_picture(given))
            case SetLook(look, frames):
                self._wire.put(packed(UseLook(_sent_look(look), frames)))
            case UseLoras(loras, frames):
                self._wire.put(packed(UseLoraNames(self._named(loras), frames)))
            case EncodePrompts(prompts):
                self._wire.put(_fitting(prompts))
            case EmptyBank():
                self._wire.put(packed(ForgetAll()))
            case Exit():
                self._wire.end()

    def messages(self) -> Iterator[object]:
        """Yield what has come, in the words of a child process."""
        if self._bell.poll():
            self._bell.recv_bytes()
            self._rung.clear()
        while (message := self._wire.next()) is not None:
            try:
                yield from self._heard(message)
            except CodecError as error:
                self._wire.fail(_End(self._by_jpeg(str(error))))
                return
            except RemoteError as error:
                self._wire.fail(_End(f"{self._server.name}: {error}"))
                return
            except Exception as error:  # noqa: BLE001  whatever a stranger sends, it ends this connection and no more
                what = f"sends what cannot be read ({type(error).__name__})"
                self._wire.fail(_End(f"{self._server.name} {what}"))
                return
        end = self._wire.ended
        if end is not None and end.final:
            yield LoadFailed(end.why, True)

    def death(self, wait_s: float = 0.0) -> str:
        """Return why the connection has ended, "" while it lives."""
        end = self._wire.ended
        return "" if end is None else end.why

    def close(self, grace_s: float) -> None:
        """End the connection: in order if there is time for it."""
        if grace_s:
            self._wire.end()
        else:
            self._wire.cut()
        self._wire.join(max(grace_s, 2.0))
        self._bell.close()
        self._ringing.close()

    def _ring(self) -> None:
        if not self._rung.is_set():
            self._rung.set()
            with contextlib.suppress(OSError, ValueError):  # it is closed already
                self._ringing.send_bytes(b"!")
        self._arrived()

    def _named(self, loras: tuple[Lora, ...]) -> tuple[Lora, ...]:
        """Return the LoRAs by the names of their files: what paths this machine has is no business of the server's."""
        named = tuple(Lora(PurePath(one.path).name, one.weight) for one in loras)
        self._loras |= {one.path: own for one, own in zip(named, loras, strict=True)}
        return named

    def _heard(self, message: str | bytes) -> Iterator[object]:
        if isinstance(message, bytes):
            yield self._answered(unpacked_answer(message))
            return
        match from_server(message):
            case Loading(text, fraction):
                yield LoadingProgress(f"{self._server.name}: {text}"[:300], min(1.0, max(0.0, fraction)))
            case Loaded(facts, taken):
                self._taken = taken
                yield EngineLoaded(facts)
            case Failed("picture", text, number):
                yield OrderFailed("picture", text[:300], self._closed(number).order)
                self._sent.pop(number, None)
            case Failed(kind, text):
                yield OrderFailed("loras" if kind == "loras" else "look", text[:300])
            case LorasUsed(loras):
                known = tuple(
                    replace(self._loras[one.path], weight=one.weight) for one in loras if one.path in self._loras
                )
                yield LorasFused(known)
            case Refused(Refusal.CODEC, text):
                self._wire.fail(_End(self._by_jpeg(text[:300])))
            case Refused(code, text):
                end = _End(f"{self._server.name}: {text[:300]}", code.final)
                self._wire.fail(end)
                yield LoadFailed(end.why, end.final)
            case Alive():
                pass

    def _answered(self, answer: Answer) -> FrameDone:
        """Take note of an answer; what was too long on its way is not shown."""
        shown = None if answer.shows is None else self._sent.get(answer.shows)
        if answer.shows is not None and shown is None:
            raise RemoteError("the server answers a picture that it was not given")
        sent = self._closed(answer.answers)
        self._receipt = answer.receipt
        now = self._clock()
        trip_ms = 1000 * (now - sent.sent_s)
        self._turns.append(_Turn(answer.engine_ms, sent.encode_ms + trip_ms - answer.waited_ms - answer.engine_ms))
        self._next_s = now + pause_ms(self._turns) / 1000 if self._open and not answer.replaced else -math.inf
        late = trip_ms - min(answer.server_ms, 1000 * MOST_SERVER_S) > 1000 * LATE_S
        if shown is not None and (not late or answer.codec is Codec.H264):  # of which every one must be decoded
            came = self._coding.decode(answer.coded, answer.codec, self._size)
        if shown is None or late:
            unshown = sent.order if answer.replaced else None if shown is None else shown.order
            self._forget_before(answer.answers, answer.shows)
            if answer.replaced:
                self._sent.pop(answer.answers, None)
            return FrameDone(None, answer.bank_bytes, answer.refreshes, unshown)
        self.pictures.result[:] = came
        decode_ms = 1000 * (self._clock() - now)
        own = (
            trip_ms + sent.encode_ms + decode_ms,
            sent.encode_ms + answer.encode_ms,
            max(0.0, trip_ms - answer.server_ms),
            answer.waited_ms + answer.engine_ms,
            decode_ms + answer.decode_ms,
        )
        for part, ms in zip(PARTS, own, strict=True):
            self._times[part].append(ms)
        self._forget_before(answer.answers, answer.shows)
        return FrameDone(shown.order, answer.bank_bytes, answer.refreshes)

    @property
    def _codec(self) -> Codec:
        """How the next picture goes there."""
        wanted = self._wanted.codec(self._wire.far)
        return wanted if wanted in self._taken and wanted in codecs() else Codec.JPEG

    def _by_jpeg(self, why: str) -> str:
        """Have pictures go as JPEG from the next connection on, and return what to tell of it."""
        self._wanted.failed = True
        return f"{self._server.name}: {why}; pictures go there as JPEG from now on"

    def _closed(self, number: int) -> _Sent:
        """Return the picture of that number, which is answered now: once; raises RemoteError."""
        if number not in self._open:
            raise RemoteError("the server answers a picture that it was not given, or twice")
        self._open.discard(number)
        return self._sent[number]

    def _forget_before(self, answered: int, shown: int | None) -> None:
        """Forget pictures that no answer will name again."""
        kept = shown if shown is not None else answered - 64  # more than any engine is behind
        for number in [one for one in self._sent if one <= kept and one not in self._open]:
            del self._sent[number]


def _sent_look(look: Look) -> Look:
    """Return the look without the path of this machine's picture, which is put around the translation here."""
    return replace(look, elsewhere=CAMERA)


def _spread(ms: list[float]) -> Spread:
    ordered = sorted(ms)
    at = [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.95)]
    return Spread(round(at[0], 2), round(at[1], 2))


def _fitting(prompts: tuple[str, ...]) -> str:
    """Return the message that has prompts encoded: the first ones, as many as fit into one."""
    while len(text := packed(Prompts(prompts))) > LARGEST_TEXT:
        prompts = prompts[: len(prompts) // 2]
    return text


class _Wire:
    """The WebSocket and its thread. put, next, fail, cut and end may be called from any thread."""

    def __init__(self, server: PairedServer, hello: Hello, ring: Callable[[], None]) -> None:
        self._server, self._hello, self._ring = server, hello, ring
        self._outbox: deque[str | bytes] = deque()
        self._inbox: deque[str | bytes] = deque()
        self._end: _End | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: ClientConnection | None = None
        self._stirred: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._lock = threading.Lock()  # of what tells whether it has ended
        self.far = False  # whether the server is outside this network, once connected
        self._thread = threading.Thread(target=self._work, name="vcam-server", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def ended(self) -> _End | None:
        """Why it has ended; None while it lives, or while there are messages to be read."""
        return None if self._inbox else self._end

    def put(self, message: str | bytes) -> None:
        """Have a message sent; of one that has ended nothing is."""
        if self._end is None:
            self._outbox.append(message)
            self._in_loop(self._stir)

    def next(self) -> str | bytes | None:
        """Return the oldest message that came and was not read."""
        return _oldest(self._inbox)

    def fail(self, end: _End) -> None:
        """End it at once, for this reason unless it has ended already."""
        with self._lock:
            self._end = self._end or end
        self._outbox.clear()
        self._inbox.clear()
        self._in_loop(self._abort)

    def cut(self) -> None:
        """End it at once."""
        self.fail(_End(CUT))

    def end(self) -> None:
        """End it in order."""
        with self._lock:
            self._end = self._end or _End("the connection was ended")
        self._in_loop(self._stir)

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _in_loop(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # its loop has ended
            if self._loop is not None:
                self._loop.call_soon_threadsafe(call)

    def _stir(self) -> None:
        if self._stirred is not None:
            self._stirred.set()

    def _abort(self) -> None:
        if self._connection is not None:
            reset(self._connection)
        if self._task is not None:
            self._task.cancel()

    # ---- its thread

    def _work(self) -> None:
        try:
            with asyncio.Runner(loop_factory=PatientLoop) as runner:
                runner.run(self._run())
        except Exception as error:  # noqa: BLE001  whatever it is: the connection has ended, and the user hears why
            self._over(told(error, self._server))
        else:
            self._over(_End(CUT))
        self._ring()

    def _over(self, end: _End) -> None:
        with self._lock:
            self._end = self._end or end

    async def _run(self) -> None:
        self._loop, self._stirred = asyncio.get_running_loop(), asyncio.Event()
        self._task = asyncio.ensure_future(self._converse())
        if self._end is not None:
            return
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _converse(self) -> None:
        from websockets.exceptions import ConnectionClosed

        async with asyncio.timeout(OPEN_S):
            connection = await _connected(self._server)
        self._connection, self.far = connection, _is_far(connection.remote_address)
        try:
            with contextlib.suppress(ConnectionClosed):  # why it was closed may be there to be read
                await connection.send(packed(self._hello))
            writing = asyncio.ensure_future(self._write(connection))
            try:
                await self._read(connection)
            finally:
                writing.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await writing
        finally:
            connection.transport.abort()

    async def _read(self, connection: ClientConnection) -> None:
        while self._end is None:
            try:
                message = await asyncio.wait_for(connection.recv(), SILENT_S)
            except TimeoutError:
                raise RemoteError(
                    f"{self._server.name} has said nothing for {SILENT_S:g} s; is the network gone?"
                ) from None
            if len(self._inbox) > 64:
                raise RemoteError(f"{self._server.name} sends more than was asked for")
            if message != _ALIVE:
                self._inbox.append(message)
                self._ring()

    async def _write(self, connection: ClientConnection) -> None:
        assert self._stirred is not None
        while True:
            try:
                await asyncio.wait_for(self._stirred.wait(), ALIVE_S)
            except TimeoutError:
                await connection.send(_ALIVE)
            self._stirred.clear()
            while (message := _oldest(self._outbox)) is not None:
                await connection.send(message)
            if self._end is not None:
                await connection.close()
                return


def _oldest(waiting: deque[str | bytes]) -> str | bytes | None:
    """Take the oldest message, None where there is none: `fail` empties what waits at any moment, on another thread."""
    try:
        return waiting.popleft()
    except IndexError:
        return None


_ALIVE = packed(Alive())


def load() -> None:
    """Load what a connection needs, before pictures are due: a library that is loaded holds everything up."""
    import websockets.asyncio.client  # noqa: F401

    codecs()
    names.load()


def reset(connection: ClientConnection) -> None:
    """End a connection so that not even what the kernel holds leaves this machine."""
    own = connection.transport.get_extra_info("socket")
    if own is not None:
        fields = "hh" if sys.platform == "win32" else "ii"
        with contextlib.suppress(OSError):  # it has ended
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(fields, 1, 0))
    connection.transport.abort()


async def _connected(server: PairedServer) -> ClientConnection:
    from websockets.asyncio.client import ClientConnection, connect

    class Checked(ClientConnection):
        async def handshake(self, *args: Any, **kwargs: Any) -> None:
            _check_certificate(self, server)  # before the first byte of a request
            await super().handshake(*args, **kwargs)

    class Connect(connect):
        def process_redirect(self, exc: Exception) -> Exception | str:
            return exc  # a token is for the server that it was made by

    if server.fingerprint:  # compared before anything is said
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    else:
        context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return await Connect(
        f"wss://{server.name}{PATH}",
        create_connection=Checked,
        ssl=context,
        proxy=None,
        compression=None,  # JPEG is compressed
        max_size=LARGEST_PICTURE,
        max_queue=2 * WINDOW,
        user_agent_header=None,
        open_timeout=OPEN_S,
        ping_interval=None,  # both sides say that they live
        close_timeout=0.5,
    )


def _is_far(address: Any) -> bool:
    """Return whether an address (host, port, ...) is one of the world, not of this machine or its own network."""
    try:
        return ipaddress.ip_address(str(address[0]).partition("%")[0]).is_global
    except (ValueError, TypeError, IndexError):
        return False


def _check_certificate(connection: ClientConnection, server: PairedServer) -> None:
    tls = connection.transport.get_extra_info("ssl_object")
    der = None if tls is None else tls.getpeercert(binary_form=True)
    if der is None or (server.fingerprint and fingerprint_of(der) != server.fingerprint):
        raise RemoteRefused(
            f"{server.name} shows another certificate than at pairing: somebody may stand between, and nothing was "
            f"sent; if the server was set up anew, pair again: vcam pair wss://{server.name}",
            "certificate",
        )


def told(error: Exception, server: PairedServer) -> _End:
    """Return what to tell the user of an error of a connection."""
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

    name = server.name
    match error:
        case RemoteError():
            return _End(str(error), isinstance(error, RemoteRefused))
        case ssl.SSLCertVerificationError():
            return _End(
                f"no CA that this machine knows vouches for the certificate of {name} ({error.verify_message})", True
            )
        case ssl.SSLError():
            return _End(f"{name} answers, but without TLS, which vcam serve always has; nothing was sent")
        case TimeoutError():
            return _End(f"{name} has not answered for {OPEN_S:g} s")
        case ConnectionRefusedError():
            return _End(f"nobody answers at {name}; is vcam serve running there?")
        case ConnectionResetError() | ConnectionAbortedError() | BrokenPipeError():
            return _End(
                f"{name} ends the connection before it is secured: no TLS there, or no vcam serve; nothing was sent"
            )
        case socket.gaierror():
            return _End(f"there is no machine called {server.host} in this network; check the address")
        case InvalidStatus() if error.response.status_code in (403, 429, 503):
            return _End(f"{name} takes no connection now: it is starting, or busy")
        case InvalidMessage() | InvalidHandshake():
            return _End(f"{name} answers, but not as a vcam serve does; is it the right port?")
        case ConnectionClosed() if error.sent is not None and error.rcvd is None:
            return _End(f"{name} sends what is no message of ours ({error.sent.reason or error.sent.code})")
        case ConnectionClosed():
            return _End(f"{name} has ended the connection")
        case OSError():
            return _End(f"{name} cannot be reached ({error.strerror or error})")
    return _End(f"the connection to {name} failed ({type(error).__name__}: {error})")
