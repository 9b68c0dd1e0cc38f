"""An RTSP camera by the package `rtsp` whose pictures carry their number, as a program: PORT."""

from __future__ import annotations

import sys
import time

import rtsp

from tests.support.media_files import numbered

FPS, PICTURES = 25, 200  # after so many it begins again


def main(port: str) -> None:
    pictures = [numbered(n, 160, 120) for n in range(PICTURES)]
    with rtsp.Source(f"rtsp://127.0.0.1:{port}/live", fps=FPS, frame_buffer=pictures) as source:
        assert source.wait_encoding_started()
        print("ready", flush=True)
        time.sleep(300)  # who started it ends it before


if __name__ == "__main__":
    main(sys.argv[1])
