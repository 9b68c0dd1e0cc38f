"""What a film's pictures cost on their way to an engine server and back: JPEG, and H.264.

    python -m benchmarks.codecs FILM [--pictures 240] [--sizes 256x192,512x384]

For each codec: bytes a second at 30 pictures a second, the first picture (whole) and the median of the others, the
processor's time to encode and to decode one (median, one way), and how near it is to what it was (PSNR in dB, mean and
worst). What an own thread takes is counted, so that what else the machine does changes little.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import cv2
import numpy as np

from core.verify import psnr
from vcam import fit
from vcam.frames import Picture
from vcam.remote.codecs import PictureCodec
from vcam.remote.protocol import Codec


def pictures_of(film: Path, count: int, size: tuple[int, int]) -> list[Picture]:
    """Return the first pictures of a film as an engine of that size gets them."""
    reader, pictures = cv2.VideoCapture(str(film)), list[Picture]()
    while len(pictures) < count and (read := reader.read())[0]:
        rgb = np.asarray(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB), np.uint8)
        pictures.append(fit.viewed(rgb, size))
    return pictures


def measured(pictures: list[Picture], codec: Codec) -> str:
    """Return the figures of one codec."""
    height, width, _ = pictures[0].shape
    way, lengths, near = PictureCodec(), list[int](), list[float]()
    encode_ms, decode_ms = list[float](), list[float]()
    for picture in pictures:
        began_s = time.thread_time()
        coded = way.encode(picture, codec)
        encoded_s = time.thread_time()
        shown = way.decode(coded, codec, (width, height))
        decode_ms.append(1000 * (time.thread_time() - encoded_s))
        encode_ms.append(1000 * (encoded_s - began_s))
        lengths.append(len(coded))
        near.append(psnr(picture, shown))
    return (
        f"{width}x{height}  {codec:<5} {30 * statistics.mean(lengths) / 1000:7.0f} kB/s; first {lengths[0]}, others "
        f"{statistics.median(lengths[1:]):.0f} bytes; encode {statistics.median(encode_ms):.2f}, decode "
        f"{statistics.median(decode_ms):.2f} ms; PSNR {statistics.mean(near):.1f}, at worst {min(near):.1f} dB"
    )


def main() -> None:
    """Carry out the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("film", type=Path)
    parser.add_argument("--pictures", type=int, default=240)
    parser.add_argument("--sizes", default="256x192,512x384")
    args = parser.parse_args()
    print(f"{args.film.name}, load {os.getloadavg()[0]:.1f}")
    for text in args.sizes.split(","):
        width, _, height = text.partition("x")
        pictures = pictures_of(args.film, args.pictures, (int(width), int(height)))
        for codec in Codec:
            print(measured(pictures, codec), flush=True)


if __name__ == "__main__":
    main()
