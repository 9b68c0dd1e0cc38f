"""Whether a camera is let in by the first thing that it says, and whether it may stay: its token before all else."""

from __future__ import annotations

import logging
from typing import NamedTuple

from vcam.errors import RemoteError
from vcam.remote.clients import ClientBook
from vcam.remote.protocol import VERSION, Hello, Refusal, Refused, from_camera, version_of

LOG = logging.getLogger("vcam.serve")
UNREADABLE = "the server cannot tell at the moment who is let in; whoever runs it finds why in its log"


class Admitted(NamedTuple):
    """A camera that is let in. client: whose token it has."""

    client: str
    hello: Hello


def admitted(book: ClientBook, text: str) -> Admitted | Refused:
    """Return what the first message of a camera says, or why it is not let in: token before everything else."""
    version = version_of(text)
    if version != VERSION:
        theirs = "none" if version is None else version
        return Refused(
            Refusal.VERSION,
            f"the camera speaks version {theirs} of the protocol, the server version {VERSION}; "
            "install the same version of StreamV2V Camera on both",
        )
    try:
        hello = from_camera(text)
        if not isinstance(hello, Hello):
            raise RemoteError("the first message says not who the camera is")
    except RemoteError as error:
        return Refused(Refusal.PROTOCOL, str(error))
    try:
        name, why = book.check(hello.token)
    except RemoteError as error:  # it names a path of this machine, which is no business of strangers
        LOG.error("%s", error)
        return Refused(Refusal.BUSY, UNREADABLE)
    if why is Refusal.TOKEN:
        return Refused(
            why, "the server does not know this camera's token; pair anew: vcam serve clients add NAME there"
        )
    if why is not None:
        return Refused(why, f"the server has revoked the client {name!r}; pair anew: vcam serve clients add NAME there")
    return Admitted(name, hello)


def revoked(book: ClientBook, token: str) -> Refused | None:
    """Return why a camera that was let in may not stay, None where it may."""
    try:
        name, why = book.check(token)
    except RemoteError as error:
        LOG.error("%s", error)  # those who were let in stay until it can be read again
        return None
    if why is None:
        return None
    return Refused(Refusal.REVOKED, f"the server has revoked this client{f' {name!r}' if name else ''}")
