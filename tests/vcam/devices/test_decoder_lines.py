"""libjpeg's and OpenCV's own lines on file descriptor 2: to the log, counted; everything else as it was."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.patience import PATIENCE_S

PROGRAM = """
import logging, os, sys
import cv2, numpy as np
from vcam.devices.decoder_lines import decoders_in_log
from vcam.log_file import JOURNAL

JOURNAL.setLevel(logging.INFO)
JOURNAL.addHandler(logging.StreamHandler(sys.stdout))
whole = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8))[1].tobytes()
damaged = np.frombuffer(whole[:9000] + bytes(800) + whole[9900:], np.uint8)
tiff = np.frombuffer(cv2.imencode(".tif", np.zeros((40, 60, 3), np.uint8))[1].tobytes()[:90], np.uint8)
with decoders_in_log() as lines:
    for _ in range(230):
        assert cv2.imdecode(damaged, cv2.IMREAD_COLOR) is not None
    assert cv2.imdecode(tiff, cv2.IMREAD_COLOR) is None
    os.write(2, b"from a library\\n")
    print("from python", file=sys.stderr)
    os.system("echo from a child >&2")
assert lines.count == 230 + lines.kinds["OpenCV"] > 230
cv2.imdecode(damaged, cv2.IMREAD_COLOR)
"""


def test_a_damaged_cameras_lines_go_to_the_log_and_all_else_stays() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert sorted(lines[:3]) == ["from a child", "from a library", "from python"]
    assert lines[3:], "outside of it libjpeg prints as ever"
    assert all("JPEG" in line for line in lines[3:])
    assert [line.split(" so far")[0] for line in done.stdout.splitlines()] == [
        *(f"damaged pictures (JPEG): {count}" for count in (1, 100, 200)),
        "damaged pictures (OpenCV): 1",
    ]


HELD = """
import os, subprocess, sys
from vcam.devices import decoder_lines

decoder_lines.PASSED_ON_S = 10**6
with decoder_lines.decoders_in_log():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    os.write(2, b"the last line\\n")
print("over")
child.communicate(b"\\n")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="pipes that can be waited for")
def test_a_child_that_keeps_stderr_does_not_hold_up_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert (done.stdout, done.stderr) == ("over\n", "the last line\n")
