"""`vcam update`: it says what is new, asks nobody unless told to, and answers in words whatever becomes of that."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vcam.cli import installation, main, update
from vcam.cli.installation import Installation, this_installation
from vcam.errors import VcamError

ROOT = Path(__file__).parents[3]


@dataclass
class Registry:
    """A registry on this machine. status, body: its answer; silent: it gives none until this is set."""

    status: int = 200
    body: bytes = b"{}"
    asked: list[tuple[str, str]] = field(default_factory=list)  # path, Accept
    silent: threading.Event | None = None
    address: str = ""

    def offers(self, *names: str, yanked: tuple[str, ...] = ()) -> None:
        files = [{"filename": name, "yanked": False} for name in names]
        files += [{"filename": name, "yanked": "broken"} for name in yanked]
        self.body = json.dumps({"meta": {"api-version": "1.1"}, "files": files}).encode()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    held = Registry()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            held.asked.append((self.path, self.headers["Accept"]))
            if held.silent is not None:
                held.silent.wait(60.0)
                return
            self.send_response(held.status)
            self.send_header("Content-Length", str(len(held.body)))
            self.end_headers()
            self.wfile.write(held.body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    held.address = f"http://127.0.0.1:{server.server_port}/simple"
    monkeypatch.setenv("PIP_INDEX_URL", held.address.replace("//", "//somebody:s3cret@") + "/")
    yield held
    if held.silent is not None:
        held.silent.set()
    server.shutdown()
    server.server_close()
    thread.join()


def packaged(version: str = "0.1.0", kind: str = "pipx", **more: Any) -> Installation:
    return Installation(kind, Path("/somewhere"), version, **more)


def test_the_registry_is_asked_for_this_package_and_its_newest_release_is_told(registry: Registry) -> None:
    registry.offers(
        "streamv2v_camera-0.1.0-py3-none-any.whl",
        "streamv2v_camera-0.10.0-py3-none-any.whl",
        "streamv2v_camera-0.9.0.tar.gz",
        "streamv2v_camera-2.0rc1-py3-none-any.whl",
        "streamv2v_camera-0.10.0.tar.gz.asc",
        yanked=("streamv2v_camera-1.0.0-py3-none-any.whl",),
    )
    data, text = update.carry_out(packaged(), check=True)
    assert registry.asked == [("/simple/streamv2v-camera/", "application/vnd.pypi.simple.v1+json")]
    assert (data["newest"], data["newer"]) == ("version 0.10.0", True)
    assert "pipx upgrade streamv2v-camera" in text
    data, text = update.carry_out(packaged("0.10.0", "uv"), check=True)
    assert data["newer"] is False
    assert "none newer" in text
    assert update.carry_out(packaged("0.11.0"), check=True)[0]["newer"] is False


def test_nobody_is_asked_unless_told_to(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> Any:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "run", run)
    for one in (packaged(), packaged(source="https://example.org/it.git", commit="a" * 40), this_installation()):
        data, text = update.carry_out(one, check=False)
        assert data["newest"] is None
        assert "vcam update --check" in text
    assert registry.asked == []


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b"", "does not know streamv2v-camera"),
        (503, b"", "answers 503"),
        (200, b"<html>", "not in the form"),
        (200, b'{"files": [1]}', "not in the form"),
        (200, b"[" * 100_000, "not in the form"),
        (200, b'{"files": []}', "no version"),
    ],
)
def test_what_the_registry_says_amiss_is_told_without_its_password(
    registry: Registry, status: int, body: bytes, words: str
) -> None:
    registry.status, registry.body = status, body
    with pytest.raises(VcamError, match=words) as raised:
        update.carry_out(packaged(), check=True)
    assert "s3cret" not in str(raised.value)


def test_an_answer_without_end_is_not_read_to_it(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.body = b" " * 5000
    monkeypatch.setattr(update, "_LARGEST", 4096)
    with pytest.raises(VcamError, match="more than a registry would"):
        update.carry_out(packaged(), check=True)


def test_a_registry_that_is_silent_is_not_waited_for(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.silent = threading.Event()
    monkeypatch.setattr(update, "_ANSWER_S", 0.2)
    with pytest.raises(VcamError, match="has not answered"):
        update.carry_out(packaged(), check=True)


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/simple", "nowhere", "http://[/", "file:///tmp"])
def test_without_a_network_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", address)
    monkeypatch.setattr(installation, "this_installation", packaged)
    assert main.main(["update", "--check"]) == 1
    assert "cannot be reached" in capsys.readouterr().err


def test_what_came_from_a_file_is_looked_for_there() -> None:
    with pytest.raises(VcamError, match="file:///there"):
        update.carry_out(packaged(source="file:///there"), check=True)


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    run = ["git", *who, "-C", str(folder), *words]
    return subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Installation:
    """A checkout of a repository on this machine, as new as that is."""
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    git(theirs, "init", "--quiet")
    git(theirs, "commit", "--quiet", "--allow-empty", "-m", "first")
    git(tmp_path, "clone", "--quiet", str(theirs), str(ours))
    return Installation("checkout", ours, "0.1.0")


def test_a_checkout_is_compared_with_what_it_follows(checkout: Installation) -> None:
    theirs = checkout.folder.parent / "theirs"
    before = git(checkout.folder, "rev-parse", "HEAD", "origin/main")
    assert not update.look(checkout).newer
    git(checkout.folder, "commit", "--quiet", "--allow-empty", "-m", "mine")
    assert not update.look(checkout).newer, "it has all that there is, and more"
    git(theirs, "commit", "--quiet", "--allow-empty", "-m", "second")
    data, text = update.carry_out(checkout, check=True)
    assert data["newer"]
    assert git(theirs, "rev-parse", "HEAD")[:12] in text
    assert f"git -C {checkout.folder} pull" in text
    assert git(checkout.folder, "rev-parse", "origin/main") == before.splitlines()[1], "nothing was fetched"


def test_a_checkout_that_follows_nobody_says_so(checkout: Installation, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    with pytest.raises(VcamError, match="follows no repository"):
        update.look(Installation("checkout", theirs, "0.1.0"))
    with pytest.raises(VcamError, match="no git checkout"):
        update.look(Installation("checkout", tmp_path, "0.1.0"))
    theirs.rename(tmp_path / "gone")
    with pytest.raises(VcamError, match="cannot be asked"):
        update.look(checkout)


def test_a_branch_that_is_gone_is_told(checkout: Installation) -> None:
    git(checkout.folder.parent / "theirs", "branch", "-m", "other")
    with pytest.raises(VcamError, match="no branch of that name"):
        update.look(checkout)


def test_what_was_installed_from_a_repository_is_compared_with_it(checkout: Installation) -> None:
    theirs = checkout.folder.parent / "theirs"
    mine = packaged(kind="pip", source=str(theirs), commit=git(theirs, "rev-parse", "HEAD"))
    assert not update.look(mine).newer
    git(theirs, "commit", "--quiet", "--allow-empty", "-m", "second")
    assert update.look(mine).newer


def test_git_that_is_missing_or_hangs_is_told(checkout: Installation) -> None:
    def missing(words: Any) -> Any:
        raise FileNotFoundError("git")

    def hangs(words: Any) -> Any:
        raise subprocess.TimeoutExpired("git", 15.0)

    with pytest.raises(VcamError, match="no git on this machine"):
        update.look(checkout, missing)
    with pytest.raises(VcamError, match="has not answered"):
        update.look(checkout, hangs)


def test_the_changelogs_newest_entries_are_told_by_their_first_sentence(tmp_path: Path) -> None:
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text(
        "# Changelog\n\n## [Unreleased]\n\n## [0.2.0]\n\n### Added\n\n"
        "- One thing\n  of 1.5 metres. And more.\n- Two (by A; extra `b` (c. 3 MB)), at once; no more\n"
        "- Three (open. Or not\n\n"
        "## [0.1.0]\n\n- Old\n"
    )
    assert update.news(changelog) == (
        "0.2.0",
        ["One thing of 1.5 metres", "Two (by A; extra `b` (c. 3 MB)), at once", "Three (open. Or not"],
    )
    _, text = update.carry_out(packaged(changelog=changelog), check=False)
    assert "what is new (0.2.0):\n- One thing of 1.5 metres\n- Two (by A; extra `b` (c. 3 MB)), at once\n" in text
    assert str(changelog) in text
    changelog.write_bytes(b"\xff")
    assert update.news(changelog) == ("", [])
    assert update.news(tmp_path / "none") == ("", [])


def test_this_checkout_knows_itself() -> None:
    mine = this_installation()
    assert (mine.kind, mine.folder, mine.changelog) == ("checkout", ROOT, ROOT / "CHANGELOG.md")
    assert update.news(mine.changelog)[1]


@pytest.mark.parametrize(("sign", "kind"), [("pipx_metadata.json", "pipx"), ("uv-receipt.toml", "uv"), ("x", "pip")])
def test_a_packages_environment_tells_who_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sign: str, kind: str
) -> None:
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    (tmp_path / "site" / "vcam").mkdir(parents=True)
    (tmp_path / sign).touch()
    found = this_installation(tmp_path / "site" / "vcam")
    assert (found.kind, found.folder) == (kind, tmp_path)
    words = {
        "pipx": "pipx upgrade streamv2v-camera",
        "uv": "uv tool upgrade streamv2v-camera",
        "pip": "-m pip install --upgrade ",
    }
    assert words[kind] in found.upgrade()
