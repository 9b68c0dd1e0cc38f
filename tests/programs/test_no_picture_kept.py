"""An engine server keeps no picture: what it left on the disk and what it wrote into its log hold no part of one.

Nor of a prompt, nor a token. The server is a program of its own, in folders that were empty; whatever it opens for
writing is noted, so that a file that is gone at its end is found, too.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from core.settings import Look
from tests.support.engine_server import FAKE
from tests.support.fake_engine import FACTORY
from tests.support.patience import PATIENCE_S
from tests.support.web_sockets import WebSocket, connected
from vcam.frames import Picture
from vcam.remote.clients import ClientBook
from vcam.remote.jpegs import from_jpeg, to_jpeg
from vcam.remote.protocol import (
    NO_RECEIPT,
    PATH,
    GivenPicture,
    Hello,
    Loaded,
    from_server,
    packed,
    packed_picture,
    unpacked_answer,
)

ROOT = Path(__file__).parents[2]
PROMPT = "an ink drawing of the marked one 7f3a91"
SIZE = (FAKE.width, FAKE.height)
PIECE, PIECES = 24, 8  # bytes of a picture that are looked for, and at how many places of it

# The server with all that it may say in its log, and a note of each file that is opened for writing once it serves.
PROGRAM = """
import logging, os, sys, tempfile
from tests.support import engine_server

logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND

def note(event, given):
    if event == "open" and serving and isinstance(given[2], int) and given[2] & WRITES:
        print(f"OPENED FOR WRITING {given[0]}", file=sys.stderr, flush=True)

serving = []
tempfile.gettempdir()  # the library tries it by a file, once
sys.addaudithook(note)
show = print

def printed(*words, **options):
    show(*words, **options)
    serving.append(True)

engine_server.print = printed
if SPOIL:
    from vcam.remote import jpegs, codecs
    sound = jpegs.from_jpeg

    def spoilt(data, size):
        exec(SPOIL)
        return sound(data, size)

    codecs.from_jpeg = spoilt
engine_server.main()
"""


class Left:
    """What a server left: its log, and the files of its folders with what is in them."""

    def __init__(self, log: bytes, folder: Path) -> None:
        self.log = log
        self.files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def places_of(self, pieces: Iterator[bytes]) -> list[str]:
        """Where one of these is, "log" for the log."""
        wanted = list(pieces)
        held = {"log": self.log} | {str(path): data for path, data in self.files.items()}
        return [name for name, data in held.items() if any(piece in data for piece in wanted)]


def pieces_of(picture: bytes) -> Iterator[bytes]:
    """Parts of it, as they are and as text has them: base64 however it is cut, hexadecimal digits, Python's own way."""
    for place in range(1, PIECES + 1):
        at = len(picture) * place // (PIECES + 2)
        piece = picture[at : at + PIECE]
        yield piece
        yield piece.hex().encode()
        yield repr(piece)[2:-1].encode()
        for shift in range(3):
            yield base64.b64encode(piece[shift:])[: PIECE - 4]


def noise() -> Picture:
    """A picture as no other is."""
    return np.random.default_rng(7).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)


def translated(camera: WebSocket, token: str) -> list[bytes]:
    """Have a picture translated; return it and its translation, as they were sent and as they were."""
    given = to_jpeg(noise())
    camera.send(packed(Hello(token, "camera", FAKE, Look(PROMPT))))
    while not isinstance(from_server(str(camera.recv())), Loaded):
        pass
    camera.send(packed_picture(GivenPicture(0, NO_RECEIPT, given)))
    while isinstance(said := camera.recv(), str):
        pass
    came = unpacked_answer(said).coded
    return [given, came, from_jpeg(given, SIZE).tobytes(), from_jpeg(came, SIZE).tobytes()]


def serve_one(folder: Path, spoil: str = "") -> tuple[Left, list[bytes], str]:
    """Serve a camera; return what is left of it, its pictures, and its token."""
    for name in ("home", "temp", "state"):
        (folder / name).mkdir()
    book = ClientBook(folder / "state")
    token = book.add("laptop")
    environment = {**os.environ, "HOME": str(folder / "home"), "TMPDIR": str(folder / "temp"), "PYTHONPATH": str(ROOT)}
    words = [str(folder / "state"), FACTORY, "0", FAKE.model]
    command = [sys.executable, "-c", f"SPOIL = {spoil!r}\n{PROGRAM}", *words]
    with subprocess.Popen(
        command,
        cwd=folder / "home",
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with connected(f"wss://127.0.0.1:{port}{PATH}") as camera:
            pictures = translated(camera, token)
        said, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, log
    return Left(log + said, folder), pictures, token


def test_nothing_of_a_picture_a_prompt_or_a_token_is_in_a_file_or_in_the_log(tmp_path: Path) -> None:
    left, pictures, token = serve_one(tmp_path)
    assert all(len(one) > 1000 for one in pictures)
    for picture in pictures:
        assert left.places_of(pieces_of(picture)) == []
    assert left.places_of(iter([b"\xff\xd8\xff"])) == []  # how every JPEG begins
    assert left.places_of(iter([PROMPT.encode(), token.encode()])) == []
    assert b"OPENED FOR WRITING" not in left.log
    assert {path.parent.name for path in left.files} <= {"state"}  # certificate, key, clients


@pytest.mark.parametrize(
    ("spoil", "where"),
    [
        ("open('kept.jpg', 'wb').write(data)", "kept.jpg"),
        ("import logging; logging.getLogger('vcam.serve').debug('%s', data)", "log"),
        ("import base64, logging; logging.warning(base64.b64encode(data).decode())", "log"),
        ("import logging; logging.warning(sound(data, size).tobytes().hex())", "log"),
    ],
)
def test_a_server_that_kept_one_would_be_found_out(spoil: str, where: str, tmp_path: Path) -> None:
    left, pictures, _ = serve_one(tmp_path, spoil)
    found = [place for picture in pictures for place in left.places_of(pieces_of(picture))]
    assert {Path(place).name for place in found} == {where}


def test_a_server_that_kept_one_for_a_moment_would_be_found_out(tmp_path: Path) -> None:
    left, _, _ = serve_one(tmp_path, "import os; open('gone', 'wb').write(data); os.remove('gone')")
    assert b"OPENED FOR WRITING gone" in left.log
