"""What every test shares: the reasons why a test for absent hardware or programs is skipped."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# A small model is slower with threads than without, and two tests may run at once; torch reads it when imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Messages name commands as they can be called here (vcam.log_file.callable_here): plainly, where vcam is on the path.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

# A busy machine is no failure: examples count, seconds do not.
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")


def _no_gpu() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "no CUDA device"


def _no_v4l2() -> str | None:
    virtual = Path("/sys/devices/virtual/video4linux")  # where v4l2loopback's devices live
    return None if virtual.is_dir() and any(virtual.iterdir()) else "no v4l2loopback device"


def _no_obs() -> str | None:
    return None if os.environ.get("OBS_HOST") else "no OBS Studio: OBS_HOST is not set"


def _no_browser() -> str | None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return None if chromium and shutil.which("chromedriver") else "no chromium with chromedriver on the PATH"


def _no_tray() -> str | None:
    return None if os.environ.get("TRAY_PROBE") else "no tray host: TRAY_PROBE is not set"


@pytest.fixture(scope="session", autouse=True)
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test, and no program that one starts, keeps a certificate in the folders of who runs them."""
    os.environ["XDG_DATA_HOME"] = str(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def usual_priority() -> Iterator[None]:
    """No test leaves this process before others: what it starts later would starve what other tests have started."""
    before = _priority()
    yield
    assert _priority() == before, "the test has changed the priority of the process that it runs in"


def _priority() -> int:
    return 0 if sys.platform == "win32" else os.getpriority(os.PRIO_PROCESS, 0)


@pytest.fixture
def quick_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models load quickly (see layout_once)."""
    from tests.support.model_folders import layout_once

    monkeypatch.setattr("core.algorithm.unet.layout", layout_once)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small random model, to be left as it is."""
    from tests.support.model_folders import make_folder

    return make_folder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy of `tiny` to spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


_ABSENT = {"gpu": _no_gpu, "v4l2": _no_v4l2, "obs": _no_obs, "browser": _no_browser, "tray": _no_tray}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests whose marker names something that this machine does not have."""
    used = {name for name in _ABSENT if any(item.get_closest_marker(name) for item in items)}
    reasons = {name: reason for name in used if (reason := _ABSENT[name]())}
    for item in items:
        for name, reason in reasons.items():
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))
