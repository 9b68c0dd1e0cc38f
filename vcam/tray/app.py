"""The tray icon itself (PySide6, the one file that imports it)."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import webbrowser
from collections import deque
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QLibraryInfo, QRectF, Qt, QTimer
from PySide6.QtGui import QAction, QActionGroup, QColor, QIcon, QPainter, QPen, QPixmap
from PySide6.QtWidgets import QApplication, QMenu, QSystemTrayIcon

from vcam import client
from vcam.commands import (
    Command,
    Panic,
    Pause,
    Resume,
    Snapshot,
    Stop,
    Toggle,
    ToggleRecording,
    UseMicrophone,
    UseProfile,
)
from vcam.errors import VcamError
from vcam.tray import display
from vcam.tray.model import GONE, Light, View, view

ASK_S = 1.0  # how often the camera is asked for its status
LOOK_MS = 200  # how often the icon looks for news
HOST_S = 2.0  # how often a tray host is looked for, until there is one
_LOG = logging.getLogger("vcam.tray")
FetchView = Callable[[], View]
SendCommand = Callable[[Command], object]


class CameraClient:
    """The running camera, asked and told in threads of their own: the menu never waits for it.

    fetch: returns the view; raises VcamError where no camera runs. send: carries out a command; raises VcamError.
    `view` is the newest, `refusals` what it refused since they were last taken.
    """

    def __init__(self, fetch: FetchView, send: SendCommand) -> None:
        self._fetch, self._send = fetch, send
        self.view = GONE
        self.refusals: deque[str] = deque(maxlen=10)
        self._stop = threading.Event()
        self._again = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def tell(self, command: Command) -> None:
        """Have it carry out a command."""
        threading.Thread(target=self._told, args=(command,), daemon=True).start()

    def close(self) -> None:
        """Ask no more."""
        self._stop.set()
        self._again.set()
        self._thread.join(2)

    def _told(self, command: Command) -> None:
        try:
            self._send(command)
        except VcamError as error:
            self.refusals.append(str(error))
        except Exception as error:  # noqa: BLE001  a fault of ours costs this command
            _LOG.exception("a command failed")
            self.refusals.append(f"{type(command).__name__} failed ({type(error).__name__}: {error})")
        self._again.set()

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self.view = self._fetch()
            except VcamError:
                self.view = GONE
            except Exception:  # noqa: BLE001  a fault of ours costs this look: what was once true is not shown for ever
                _LOG.exception("the camera could not be asked")
                self.view = GONE
            self._again.wait(ASK_S)
            self._again.clear()


class TrayMenu(QMenu):
    """The menu: what it shows is set by `show_view`; a click tells the camera."""

    def __init__(self, camera: CameraClient, open_panel: Callable[[], object], leave: Callable[[], object]) -> None:
        super().__init__()
        self._camera = camera
        self._view = GONE
        self.line = self.addAction("")
        self.line.setEnabled(False)
        self.addSeparator()
        self.on = self._action("On", lambda: camera.tell(Toggle()))
        self.on.setCheckable(True)
        self.profiles = self.addMenu("Profile")
        self._group = QActionGroup(self.profiles)
        self.panic = self._action("Panic: show nothing", self._toggle_panic)
        self.panic.setCheckable(True)
        self.record = self._action("Record", lambda: camera.tell(ToggleRecording()))
        self.record.setCheckable(True)
        self.microphone = self._action("Record with the microphone", lambda: camera.tell(UseMicrophone()))
        self.microphone.setCheckable(True)
        self.snapshot = self._action("Keep a picture", lambda: camera.tell(Snapshot()))
        self.panel = self._action("Open panel", open_panel)
        self.addSeparator()
        self.end = self._action("End the camera", lambda: camera.tell(Stop()))
        self.quit = self._action("Quit this icon", leave)

    def show_view(self, now: View) -> None:
        """Show this."""
        self.line.setText(now.line)
        self.on.setChecked(now.on)
        self.panic.setChecked(now.panic)
        self.record.setChecked(now.recording)
        self.microphone.setChecked(now.hears)
        keeping = (self.record, self.microphone, self.snapshot)
        ours = (self.on, self.panic, *keeping, self.panel, self.end, self.profiles.menuAction())
        for action in ours:
            action.setEnabled(now.alive)
        if [one.id for one in now.profiles] != [one.id for one in self._view.profiles]:
            self._list_profiles(now)
        for action, one in zip(self.profiles.actions(), now.profiles, strict=True):
            action.setText(one.name.replace("&", "&&"))
            action.setChecked(one.current)
        self._view = now

    def _list_profiles(self, now: View) -> None:
        self.profiles.clear()
        for one in now.profiles:
            action = QAction(one.name, self.profiles)
            action.setCheckable(True)
            action.triggered.connect(lambda _=False, id=one.id: self._camera.tell(UseProfile(id)))
            self._group.addAction(action)
            self.profiles.addAction(action)

    def _action(self, text: str, done: Callable[[], object]) -> QAction:
        action = self.addAction(text)
        action.triggered.connect(lambda _=False: done())
        return action

    def _toggle_panic(self) -> None:
        self._camera.tell(Resume() if self._view.panic else Panic())


class Tray:
    """The icon with its menu, kept as the camera is."""

    def __init__(self, camera: CameraClient, open_panel: Callable[[], object], leave: Callable[[], object]) -> None:
        self._camera = camera
        self.menu = TrayMenu(camera, open_panel, leave)
        self.icon = QSystemTrayIcon(drawn(GONE.light))
        self.icon.setContextMenu(self.menu)
        self.icon.activated.connect(self._clicked)
        self.view = GONE
        self.show(GONE)
        # looked at from this thread: Qt's objects belong to it
        self._timer = QTimer()
        self._timer.timeout.connect(self._look)
        self._timer.start(LOOK_MS)

    def show(self, now: View) -> None:
        """Show this."""
        if now.light != self.view.light or self.icon.icon().isNull():
            self.icon.setIcon(drawn(now.light))
        self.icon.setToolTip(f"StreamV2V Camera\n{now.line}")
        self.menu.show_view(now)
        self.view = now

    def _look(self) -> None:
        self.show(self._camera.view)  # always: a click has set a mark that may not have come true
        while self._camera.refusals:
            self.icon.showMessage("StreamV2V Camera", self._camera.refusals.popleft())

    def _clicked(self, how: QSystemTrayIcon.ActivationReason) -> None:
        if how == QSystemTrayIcon.ActivationReason.MiddleClick:
            self._camera.tell(Pause() if self.view.on else Resume())


def drawn(light: Light) -> QIcon:
    """Draw the icon: a camera's lens in the colour of the light."""
    picture = QPixmap(64, 64)
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(QColor("#f4f5f8"), 4))
    painter.setBrush(QColor("#1c2230"))
    painter.drawEllipse(QRectF(4, 4, 56, 56))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(light.value))
    painter.drawEllipse(QRectF(17, 17, 30, 30))
    painter.setBrush(QColor("#ffffff"))
    painter.drawEllipse(QRectF(23, 22, 8, 8))
    painter.end()
    return QIcon(picture)


def asked(folder: Path | None = None) -> View:
    """Return the running camera's view; raises VcamError if there is none."""
    return view(client.status(folder), client.profiles(folder))


def run() -> int:
    """Show the icon until it is quit; waits for a tray host. Raises VcamError where there is no display."""
    if wrong := display.why_not(Path(QLibraryInfo.path(QLibraryInfo.LibraryPath.PluginsPath)) / "platforms"):
        raise VcamError(wrong)
    probe = _probe()
    if probe.returncode not in (_HOST, _NO_HOST):  # Qt ends a program whose display it cannot use
        raise VcamError(display.refusal(probe.stderr))
    app = QApplication(sys.argv[:1])
    app.setQuitOnLastWindowClosed(False)
    app.setApplicationName("StreamV2V Camera")
    if not QSystemTrayIcon.isSystemTrayAvailable():
        return _wait_for_host(app)
    camera = CameraClient(asked, client.send)
    tray = Tray(camera, lambda: webbrowser.open(client.panel_link()), app.quit)
    tray.icon.show()
    try:
        return _until_quit(app)
    finally:
        camera.close()


def _wait_for_host(app: QApplication) -> int:
    """Wait for a tray host and begin again in a fresh process: Qt looks for one only once."""
    words = "vcam: this desktop shows no tray icons yet; waiting for it (Ctrl-C ends)"
    QTimer.singleShot(0, lambda: print(words, file=sys.stderr, flush=True))  # once Ctrl-C does end it
    timer = QTimer()
    found: list[bool] = []

    def look() -> None:
        if _probe().returncode == _HOST:
            found.append(True)
            app.quit()

    timer.timeout.connect(look)
    timer.start(int(HOST_S * 1000))
    status = _until_quit(app)
    if found:
        os.execv(sys.executable, [sys.executable, "-P", "-m", "vcam", "tray"])
    return status


_HOST, _NO_HOST = 3, 4  # exit statuses that no failure has
_PROBE = f"""
import sys
from PySide6.QtWidgets import QApplication, QSystemTrayIcon
app = QApplication([])
sys.exit({_HOST} if QSystemTrayIcon.isSystemTrayAvailable() else {_NO_HOST})
"""


def _probe() -> subprocess.CompletedProcess[str]:
    """Ask in another process whether Qt works here, and whether there is a tray host."""
    command = [sys.executable, "-P", "-c", _PROBE]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)


def _until_quit(app: QApplication) -> int:
    received: list[int] = []  # app.quit() does nothing before exec(): so a signal is kept until the loop runs
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: received.append(number))
    awake = QTimer()  # Python sees a signal only when it runs
    awake.timeout.connect(lambda: app.quit() if received else None)
    awake.start(300)
    return int(app.exec())
