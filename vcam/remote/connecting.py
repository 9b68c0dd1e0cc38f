"""Reaches an engine server: TLS and its certificate before anything is said; why it failed, in words for the user."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vcam.errors import RemoteError, RemoteRefused
from vcam.remote.certificate import fingerprint_of
from vcam.remote.paired import PairedServer
from vcam.remote.protocol import LARGEST_PICTURE, PATH, WINDOW

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

OPEN_S = 5.0  # until a server has answered


@dataclass(frozen=True)
class End:
    """Why a connection has ended; final: trying again will not help."""

    why: str = ""
    final: bool = False


async def connected(server: PairedServer) -> ClientConnection:
    """Return a connection within OPEN_S; raises whatever `told` has words for."""
    from websockets.asyncio.client import ClientConnection, connect

    begun: list[asyncio.Transport] = []

    class Checked(ClientConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            begun.append(cast(asyncio.Transport, transport))
            super().connection_made(transport)

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
    opening = Connect(
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
    try:
        async with asyncio.timeout(OPEN_S):
            return await opening
    except BaseException:
        for transport in begun:  # asyncio would wait for the other side's farewell, longer than this loop lives
            transport.abort()
        raise


def is_far(address: Any) -> bool:
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


def told(error: Exception, server: PairedServer) -> End:
    """Return what to tell the user of an error of a connection."""
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
    from websockets.frames import CloseCode

    name = server.name
    match error:
        case RemoteError():
            return End(str(error), isinstance(error, RemoteRefused))
        case ssl.SSLCertVerificationError():
            return End(
                f"no CA that this machine knows vouches for the certificate of {name} ({error.verify_message})", True
            )
        case ssl.SSLError():
            return End(f"{name} answers, but without TLS, which vcam serve always has; nothing was sent")
        case TimeoutError():
            return End(f"{name} has not answered for {OPEN_S:g} s")
        case ConnectionRefusedError():
            return End(f"nobody answers at {name}; is vcam serve running there?")
        case ConnectionResetError() | ConnectionAbortedError() | BrokenPipeError():
            return End(
                f"{name} ends the connection before it is secured: no TLS there, or no vcam serve; nothing was sent"
            )
        case socket.gaierror():
            return End(f"there is no machine called {server.host} in this network; check the address")
        case InvalidStatus() if error.response.status_code in (403, 429, 503):
            return End(f"{name} takes no connection now: it is starting, or busy")
        case InvalidMessage() | InvalidHandshake():
            return End(f"{name} answers, but not as a vcam serve does; is it the right port?")
        case ConnectionClosed() if error.sent is not None and error.rcvd is None:
            return End(f"{name} sends what is no message of ours ({error.sent.reason or error.sent.code})")
        case ConnectionClosed() if error.rcvd is not None and error.rcvd.code == CloseCode.MESSAGE_TOO_BIG:
            return End(f"{name} takes no message as large as this camera sent; take a smaller --engine-size")
        case ConnectionClosed():
            return End(f"{name} has ended the connection")
        case OSError():
            return End(f"{name} cannot be reached ({error.strerror or error})")
    return End(f"the connection to {name} failed ({type(error).__name__}: {error})")
