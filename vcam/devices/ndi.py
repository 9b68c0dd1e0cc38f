"""NDI: the picture in the local network, for OBS on another computer, mixers and the like (cyndilib)."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np

from vcam.devices.cameras import OUR_NAME
from vcam.errors import DeviceError
from vcam.frames import Picture

SOURCE_NAME = OUR_NAME  # receivers see "HOST (StreamV2V Camera)"
_MISSING = "NDI needs the package cyndilib, which brings NDI's own library (see docs/outputs.md): pip install cyndilib"


class NdiSink:
    """One NDI source for life. watching: how many receivers it has. Raises DeviceError."""

    def __init__(self, size: tuple[int, int], fps: float) -> None:
        try:
            from cyndilib.sender import Sender
            from cyndilib.video_frame import VideoSendFrame
            from cyndilib.wrapper import FourCC
        except ImportError as error:
            raise DeviceError(f"{_MISSING} ({error})") from error
        frame = VideoSendFrame()
        frame.set_resolution(*size)
        frame.set_frame_rate(Fraction(fps).limit_denominator(1001))
        frame.set_fourcc(FourCC.RGBX)
        self._sender = Sender(SOURCE_NAME, clock_video=False, clock_audio=False)
        self._sender.set_video_frame(frame)
        try:
            self._sender.open()
        except Exception as error:  # its own kind of error, of no common class
            raise DeviceError(f"NDI could not be started ({type(error).__name__}: {error})") from error
        self.size, self.watching = size, 0
        self.name = f"NDI ({SOURCE_NAME})"
        self._pixels = np.full((size[1], size[0], 4), 255, np.uint8)

    def send(self, picture: Picture, tick: int) -> None:
        """Send the picture to whoever receives it."""
        cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA, dst=self._pixels)
        if not self._sender.write_video(self._pixels.reshape(-1)):
            raise DeviceError("NDI does not send: its source is closed")
        self.watching = int(self._sender.get_num_connections(0))

    def close(self) -> None:
        """Take the source out of the network."""
        self._sender.close()
