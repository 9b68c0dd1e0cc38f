"""Both directions of a connection, and handing over what comes on one to another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from vcam.errors import MessageTooLarge
from vcam.remote.lengths import ANY, TOO_LARGE, MessageLengths

STALLED_S = 10.0  # that one side may take nothing
CLOSE_S = 2.0  # that a connection lasts after behind has closed its WebSocket
CHUNK = 64 * 1024  # bytes


class Pipe(NamedTuple):
    """Both directions of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def joined(stranger: Pipe, behind: Pipe, lengths: MessageLengths) -> None:
    """Hand over what each side says until one ends. lengths: of the camera's messages."""
    answers = MessageLengths(ANY, ANY)  # for their end alone
    both = [
        asyncio.ensure_future(_handed_over(behind.reader, stranger.writer, answers)),
        asyncio.ensure_future(_handed_over(stranger.reader, behind.writer, lengths)),
    ]
    try:
        done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if any(isinstance(one.exception(), MessageTooLarge) for one in done):
            stranger.writer.write(TOO_LARGE)
        for one in done:
            if (error := one.exception()) is not None and not isinstance(error, MessageTooLarge):
                raise error
    finally:
        for one in both:
            one.cancel()
        await asyncio.gather(*both, return_exceptions=True)


async def _handed_over(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lengths: MessageLengths) -> None:
    """Hand over until one side ends, takes nothing for STALLED_S, or has closed CLOSE_S ago. Raises MessageTooLarge."""
    with contextlib.suppress(OSError, TimeoutError):
        while data := await asyncio.wait_for(reader.read(CHUNK), CLOSE_S if lengths.closes else None):
            lengths.take(data)
            writer.write(data)
            async with asyncio.timeout(STALLED_S):  # wait_for makes a task of each
                await writer.drain()


async def ended(writer: asyncio.StreamWriter) -> None:
    """End a connection in order, if the other side has time for it."""
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        await asyncio.wait_for(writer.wait_closed(), 2.0)


@contextlib.contextmanager
def aborted_at_the_end(writer: asyncio.StreamWriter) -> Iterator[None]:
    """Hold nothing of a connection after the body."""
    try:
        yield
    finally:
        writer.transport.abort()
