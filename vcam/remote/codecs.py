"""How pictures travel between camera and server, for both of them: JPEG, or H.264 where both can and it is wanted."""

from __future__ import annotations

from dataclasses import dataclass

from vcam.errors import CodecError
from vcam.frames import Picture
from vcam.remote import h264
from vcam.remote.jpegs import from_jpeg, to_jpeg
from vcam.remote.protocol import Codec


def codecs() -> tuple[Codec, ...]:
    """Return those that this machine can encode and decode, JPEG first."""
    return (Codec.JPEG, Codec.H264) if h264.available() else (Codec.JPEG,)


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


class PictureCodec:
    """The pictures of one connection, RGB uint8 [height, width, 3], all of one size.

    `encode` is called by one thread at a time, `decode` by one; they need not be the same. came: the codec of the
    newest picture that came, or in which one of the prompt alone is wanted.
    """

    def __init__(self) -> None:
        self.came = Codec.JPEG
        self._encoder: h264.Encoder | None = None
        self._decoder: h264.Decoder | None = None

    def encode(self, picture: Picture, codec: Codec) -> bytes:
        """Return the picture in that codec, which the other side must decode; raises CodecError."""
        if codec is Codec.JPEG:
            return to_jpeg(picture)
        height, width, _ = picture.shape
        self._encoder = self._encoder or h264.Encoder((width, height))
        return self._encoder.encode(picture)

    def wants(self, codec: Codec) -> None:
        """Take note that the other side speaks this codec; raises CodecError where this machine does not."""
        if codec not in codecs():
            raise CodecError("H.264 came, which this machine cannot encode and decode")
        self.came = codec

    def decode(self, coded: bytes, codec: Codec, size: tuple[int, int]) -> Picture:
        """Return the picture that came, of that width and height; raises RemoteError, CodecError where it is H.264."""
        self.wants(codec)
        if codec is Codec.JPEG:
            return from_jpeg(coded, size)
        self._decoder = self._decoder or h264.Decoder(size)
        return self._decoder.decode(coded)


class CameraCodec:
    """The pictures of one connection at a camera's end. taken: the codecs in which the server takes pictures.

    size: width and height of those that come. One thread calls it.
    """

    def __init__(self, wanted: WantedCodec, size: tuple[int, int]) -> None:
        self.taken: tuple[Codec, ...] = (Codec.JPEG,)
        self._wanted, self._size, self._coding = wanted, size, PictureCodec()

    def next(self, far: bool) -> Codec:
        """Return how the next picture goes there. far: whether the server is outside this network."""
        wanted = self._wanted.codec(far)
        return wanted if wanted in self.taken and wanted in codecs() else Codec.JPEG

    def give_up_h264(self) -> None:
        """Have pictures go as JPEG from the next connection on."""
        self._wanted.failed = True

    def encode(self, picture: Picture, codec: Codec) -> bytes:
        """Return the picture in that codec; raises CodecError."""
        return self._coding.encode(picture, codec)

    def decode(self, coded: bytes, codec: Codec) -> Picture:
        """Return the picture that came; raises RemoteError, CodecError where it is H.264."""
        return self._coding.decode(coded, codec, self._size)
