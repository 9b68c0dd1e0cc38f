"""Spout (Windows) and Syphon (macOS): the picture for other programs of this computer, by the graphics card."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from vcam.devices.cameras import OUR_NAME
from vcam.errors import DeviceError
from vcam.frames import Picture

_GL_RGBA = 0x1908


class SpoutSink:
    """A Spout sender; its calls belong to the thread that made it. Raises DeviceError."""

    watching = None  # Spout does not tell

    def __init__(self, size: tuple[int, int], fps: float) -> None:
        try:
            import SpoutGL
        except ImportError as error:
            raise DeviceError(f"Spout needs the package SpoutGL ({error}): pip install SpoutGL") from error
        self._sender: Any = SpoutGL.SpoutSender()
        self._sender.setSenderName(OUR_NAME)
        self.size, self.name = size, f"Spout ({OUR_NAME})"

    def send(self, picture: Picture, tick: int) -> None:
        """Show the picture to whoever receives it."""
        pixels = np.ascontiguousarray(cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA))
        if not self._sender.sendImage(pixels, *self.size, _GL_RGBA, False, 0):
            raise DeviceError("Spout takes no pictures: its sender could not share a texture (see the graphics driver)")

    def close(self) -> None:
        """Take the sender away."""
        self._sender.releaseSender()


class SyphonSink:
    """A Syphon server on Metal. watching: 1 while somebody receives it. Raises DeviceError."""

    def __init__(self, size: tuple[int, int], fps: float) -> None:
        try:
            import syphon
            from syphon.utils.numpy import copy_image_to_mtl_texture
            from syphon.utils.raw import create_mtl_texture
        except ImportError as error:
            raise DeviceError(f"Syphon needs the package syphon-python ({error}): pip install syphon-python") from error
        try:
            self._server: Any = syphon.SyphonMetalServer(OUR_NAME)
        except RuntimeError as error:
            raise DeviceError(f"Syphon could not be started ({error})") from error
        self._texture, self._copy = create_mtl_texture(self._server.device, *size), copy_image_to_mtl_texture
        self.size, self.name, self.watching = size, f"Syphon ({OUR_NAME})", 0

    def send(self, picture: Picture, tick: int) -> None:
        """Show the picture to whoever receives it."""
        self._copy(cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA), self._texture)
        self._server.publish_frame_texture(self._texture, is_flipped=True)
        self.watching = int(self._server.has_clients)

    def close(self) -> None:
        """Take the server away."""
        self._server.stop()
