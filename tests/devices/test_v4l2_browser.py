"""Chromium lists "StreamV2V Camera", opens it, and draws its picture; minutes in an emulated machine."""

from __future__ import annotations

import base64
import http.server
import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from core.settings import EngineSettings
from vcam.daemon.daemon import Daemon, RunParts
from vcam.devices.sinks import find_device
from vcam.errors import VcamError
from vcam.settings.run_options import RunOptions

pytestmark = [pytest.mark.v4l2, pytest.mark.slow]
SIZE = (320, 240)
WAIT_S = 600.0
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# a separate network process does not live through emulation
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--in-process-gpu", "--no-zygote", "--no-first-run",
    "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    "--use-fake-ui-for-media-stream", "--enable-features=NetworkServiceInProcess2", "--disable-features=Vulkan",
]  # fmt: skip
PAGE = """<!doctype html><video muted></video><script>
const tell = (what) => fetch("/told", { method: "POST", body: JSON.stringify(what) });
async function look() {
  const video = document.querySelector("video");
  video.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
  await video.play();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  const all = await navigator.mediaDevices.enumerateDevices();
  return {
    cameras: all.filter((one) => one.kind === "videoinput").map((one) => one.label),
    track: video.srcObject.getVideoTracks()[0].label,
    picture: canvas.toDataURL("image/png"),
  };
}
look().then(tell, (error) => tell({ error: String(error) }));
</script>"""


@pytest.fixture
def published(tmp_path: Path) -> Iterator[Daemon]:
    """The test picture by way of an engine that inverts it, on the virtual camera."""
    try:
        find_device()
    except VcamError as error:
        pytest.skip(str(error))
    options = RunOptions(source="pattern", sink="camera", size=SIZE, fps=5, panel=False, idle_after_s=0.0)
    parts = RunParts(
        engine="tests.support.fake_engine:make",
        settings_of=lambda profile, options: EngineSettings(model="fake", width=128, height=96, steps=1),
        state_folder=lambda: tmp_path,
        signals=False,
    )
    stop = threading.Event()
    daemon = Daemon(options, parts, stop)
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        yield daemon
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def told() -> Iterator[tuple[str, queue.SimpleQueue[dict[str, Any]]]]:
    """The address of the page, and what it tells."""
    answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(PAGE.encode())

        def do_POST(self) -> None:
            answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", answers
        finally:
            server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_chromium_lists_the_camera_and_shows_its_picture(
    published: Daemon, told: tuple[str, queue.SimpleQueue[dict[str, Any]]], tmp_path: Path
) -> None:
    address, answers = told
    with subprocess.Popen(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'chromium'}", address],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as browser:  # fmt: skip
        try:
            answer = answers.get(timeout=WAIT_S)
        finally:
            browser.kill()
    assert "error" not in answer, answer
    assert any("StreamV2V Camera" in label for label in answer["cameras"]), answer["cameras"]
    print(f"cameras: {answer['cameras']}, track: {answer['track']}")
    coded = np.frombuffer(base64.b64decode(answer["picture"].partition(",")[2]), np.uint8)
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert decoded is not None
    shown = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    assert shown.shape == (SIZE[1], SIZE[0], 3)
    now = published.preview
    assert now is not None
    # the person moves between the two; the room does not
    assert np.median(np.abs(shown.astype(int) - now.astype(int))) <= 6
