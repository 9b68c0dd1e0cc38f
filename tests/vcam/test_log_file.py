"""The log: what is written, that it does not grow, and what must never be in it."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.one_at_a_time import meet
from vcam import log_file
from vcam.cli.arguments import build_parser, verbs_of
from vcam.log_file import JOURNAL


def test_what_happens_is_kept_with_its_time_and_the_folder_is_ours_alone(tmp_path: Path) -> None:
    with log_file.kept(tmp_path / "log") as path:
        assert path is not None
        JOURNAL.info("state: running")
        logging.getLogger("vcam.obs").warning("OBS is gone")
        try:
            raise ZeroDivisionError("nonsense")
        except ZeroDivisionError:
            JOURNAL.exception("capture failed")
        written = path.read_text()
    assert "INFO vcam.log_file: state: running" in written
    assert "WARNING vcam.obs: OBS is gone" in written
    assert "ZeroDivisionError: nonsense" in written
    JOURNAL.info("afterwards")
    assert "afterwards" not in path.read_text()


def test_it_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "LARGEST", 1000)
    with log_file.kept(tmp_path):
        for i in range(200):
            JOURNAL.info("the engine was killed %d", i)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["vcam.log", "vcam.log.1", "vcam.log.2", "vcam.log.3"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert "killed 199" in (tmp_path / "vcam.log").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "panel: http://127.0.0.1:8787/login?ticket=s3cr3t",
        "ReqClient(host='x', password='s3cr3t', port=4455)",
        "Authorization: Bearer s3cr3t",
        '{"token": "s3cr3t"}',
        "password: s3cr3t",
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str, tmp_path: Path) -> None:
    with log_file.kept(tmp_path) as path:
        assert path is not None
        JOURNAL.info(text)
        written = path.read_text()
    assert "s3cr3t" not in written
    assert "***" in written


def test_a_folder_that_cannot_be_written_is_told_and_nothing_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with log_file.kept(tmp_path / "file" / "log") as path:
        assert path is None
        JOURNAL.info("goes nowhere")
    assert "no log" in capsys.readouterr().err


def test_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VCAM_LOG_FOLDER", raising=False)
    assert "streamv2v-camera" in str(log_file.log_folder())
    monkeypatch.setenv("VCAM_LOG_FOLDER", str(tmp_path))
    assert log_file.log_folder() == tmp_path


def test_a_message_that_repeats_is_written_once_a_minute_with_its_count() -> None:
    now = [0.0]
    repeats = log_file.Repeats(lambda: now[0])

    def said(text: str, level: int = logging.ERROR) -> str | None:
        record = logging.LogRecord("asyncio", level, "", 0, text, None, None)
        return record.getMessage() if repeats.filter(record) else None

    assert said("out of files") == "out of files"
    assert [said("out of files") for _ in range(5000)] == [None] * 5000
    assert said("something else") == "something else"
    assert said("running", logging.INFO) == said("running", logging.INFO) == "running"
    now[0] = log_file.REPEAT_S + 1
    assert said("out of files") == "out of files (and 5000 times more since it was last said)"
    assert said("out of files") is None


def test_messages_without_end_are_not_remembered_without_end() -> None:
    now = [0.0]
    repeats = log_file.Repeats(lambda: now[0])
    for n in range(5000):
        now[0] += 1
        repeats.filter(logging.LogRecord("x", logging.ERROR, "", 0, f"message {n}", None, None))
    assert len(repeats._seen) <= 1001


def test_two_threads_that_log_are_remembered_one_after_the_other() -> None:
    def logging_by(clock: Callable[[], float]) -> Callable[[], object]:
        repeats = log_file.Repeats(clock)
        return lambda: repeats.filter(logging.LogRecord("x", logging.ERROR, "", 0, "out of files", None, None))

    assert not meet(logging_by)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is a full disk")
@pytest.mark.parametrize("buffering", [-1, 0], ids=["buffered", "unbuffered"])
def test_what_a_full_disk_does_not_take_is_lost_and_no_later_flush_fails(buffering: int) -> None:
    with open("/dev/full", "wb", buffering=buffering) as full:
        stream = io.TextIOWrapper(full, "ascii", write_through=not buffering)
        kept = log_file.lossy(stream)
        print("the panel: Zoë", file=kept, flush=True)
        kept.flush()  # as multiprocessing does when it starts a process
        assert (kept.fileno(), kept.isatty()) == (full.fileno(), False)
        assert log_file.lossy(kept) is kept
        kept.close()


def test_what_is_taken_is_written_whole_and_a_pipe_that_is_full_takes_no_time(tmp_path: Path) -> None:
    with (tmp_path / "said").open("w", encoding="ascii") as file:
        print("the panel: Zoë", file=log_file.lossy(file))
    assert (tmp_path / "said").read_text() == "the panel: Zo\\xeb\n"
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with open(reading, "rb"), open(writing, "w") as pipe:
        kept = log_file.lossy(pipe)
        for _ in range(100):
            print("x" * 10_000, file=kept, flush=True)


def test_what_lies_on_no_file_stays_as_it_is() -> None:
    stream = io.StringIO()
    assert log_file.lossy(stream) is stream


def test_commands_are_named_as_they_can_be_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After run.sh `vcam` is not on the path: what is to be typed then is the program's own path."""
    python = tmp_path / "a" / ".venv" / "bin" / "python"
    name = "vcam.exe" if sys.platform == "win32" else "vcam"
    python.parent.mkdir(parents=True)
    program = python.with_name(name)
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path / "a")
    near = Path(".venv", "bin", name)
    text = "no camera runs; start one with: vcam run (`vcam doctor` tells more); vcam.log, vcam: x, my/vcam run"
    assert log_file.callable_here(text) == (
        f"no camera runs; start one with: {near} run (`{near} doctor` tells more); vcam.log, vcam: x, my/vcam run"
    )
    assert f"{program} run" in log_file.callable_here(text, at_terminal=False)
    monkeypatch.chdir(tmp_path)
    assert f"{Path('a') / near} run" in log_file.callable_here(text)
    monkeypatch.setenv("PATH", str(python.parent))
    assert log_file.callable_here(text) == text
    monkeypatch.setattr(sys, "executable", str(tmp_path / "b c" / "python"))
    assert log_file.callable_here(text) == text, "there is no program vcam here at all"


@pytest.mark.parametrize(
    ("sign", "begin", "again"),
    [
        ("pipx_metadata.json", "pipx inject streamv2v-camera", "pipx inject --force streamv2v-camera"),
        ("uv-receipt.toml", "uv pip install --python /v/bin/python", "--python /v/bin/python --force-reinstall"),
        ("pyvenv.cfg", "/v/bin/python -m pip install", "/v/bin/python -m pip install --force-reinstall"),
    ],
)
def test_packages_go_into_the_programs_own_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sign: str, begin: str, again: str
) -> None:
    """What `pip` is on the path, and whether the environment has one, is another matter."""
    (tmp_path / sign).touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/v/bin/python")
    assert log_file.callable_here("x is missing: pip install x") == f"x is missing: {begin} x"
    assert log_file.callable_here("(python -m pip install x y)") == f"({begin} x y)"
    assert log_file.callable_here('/v/bin/python -m pip install "x>=2"') == f'{begin} "x>=2"'
    assert log_file.callable_here("broken; pip install --force-reinstall x").endswith(f"{again} x")
    assert log_file.callable_here("the user accepts it with pip install.") == "the user accepts it with pip install."


def test_every_verb_is_known_as_a_command() -> None:
    for verb in verbs_of(build_parser()):
        assert log_file._CALL.sub("X", f"vcam {verb}") == f"X {verb}"
