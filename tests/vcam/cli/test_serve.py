"""`vcam serve`, its clients, and `vcam pair`, up to where Ray begins."""

from __future__ import annotations

import builtins
import getpass
import io
import json
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vcam.cli import main as cli
from vcam.daemon import daemon
from vcam.remote import cluster
from vcam.remote.clients import ClientBook, Pairing
from vcam.remote.paired import paired_server
from vcam.settings.config import RemoteFallback, load_config
from vcam.settings.run_options import RunOptions


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VCAM_CONFIG_FOLDER", str(tmp_path / "config"))
    monkeypatch.setenv("VCAM_STATE_FOLDER", str(tmp_path / "state"))
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> tuple[str, str]:
    assert cli.main(argv) == status
    out, err = capsys.readouterr()
    return out.strip(), err.strip()


def test_a_client_is_added_paired_listed_and_revoked(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairing, told = said(capsys, "serve", "clients", "add", "laptop")
    assert "this is shown once" in told
    out, _ = said(capsys, "pair", "wss://studio:8790", pairing)
    assert out == "paired with wss://studio:8790; vcam run --remote wss://studio:8790"
    server = paired_server(home / "config", "wss://studio:8790")
    book = ClientBook(home / "state" / "serve")
    assert book.check(server.token) == ("laptop", None)
    assert server.fingerprint == Pairing.from_text(pairing).fingerprint != ""
    assert "laptop  let in, since" in said(capsys, "serve", "clients", "list")[0]
    said(capsys, "serve", "clients", "revoke", "laptop")
    listed = json.loads(said(capsys, "serve", "clients", "list", "--json")[0])
    assert [(one["name"], one["revoked"]) for one in listed["clients"]] == [("laptop", True)]


def test_the_pairing_text_may_come_by_the_terminal(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(Pairing("a", "").to_text() + "\n"))
    said(capsys, "pair", "studio")
    assert paired_server(home / "config", "studio").token == "a"


def test_the_pairing_text_need_not_stand_on_the_command_line_where_others_see_it(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = home / "pairing.txt"
    kept.write_text(Pairing("b", "").to_text() + "\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(Pairing("a", "").to_text() + "\n"))
    assert said(capsys, "pair", "one", "-")[1] == ""
    assert said(capsys, "pair", "two", "--from", str(kept))[1] == ""
    assert "is seen by other users of this machine" in said(capsys, "pair", "three", Pairing("c", "").to_text())[1]
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(getpass, "getpass", lambda prompt: Pairing("d", "").to_text())
    assert said(capsys, "pair", "four")[1] == ""
    places = "one", "two", "three", "four"
    assert [paired_server(home / "config", place).token for place in places] == ["a", "b", "c", "d"]


class Terminal(io.StringIO):
    """A standard input that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["serve", "clients"], "clients list | add NAME | revoke NAME"),
        (["serve", "clients", "add"], "clients list | add NAME | revoke NAME"),
        (["serve", "clients", "invite", "x"], "clients list | add NAME | revoke NAME"),
        (["serve", "clients", "list", "x"], "clients list | add NAME | revoke NAME"),
        (["serve", "clients", "revoke", "x"], "there is no client 'x'; there are: none"),
        (["serve", "--certificate", "a.pem"], "--certificate and --key go together"),
        (["serve", "--streams", "0"], "--streams is 0; it must be a whole number between 1 and 64"),
        (["serve", "--lora", "none.safetensors"], "there is no LoRA none.safetensors"),
        (["pair", "ws://studio", "x"], "pictures of you go over TLS alone"),
        (["pair", "studio", "x"], "this is no pairing text"),
        (["pair", "studio", "x", "--from", "y"], "--from and TEXT exclude each other"),
        (["pair", "studio", "--from", "absent.txt"], "absent.txt cannot be read (No such file or directory)"),
        (["run", "--remote", "ws://studio"], "pictures of you go over TLS alone"),
        (["run", "--remote-codec", "av1"], "--remote-codec is 'av1'; it must be auto, jpeg or h264"),
        (["run", "--remote-fallback", "raw"], "--remote-fallback is 'raw'; it must be none or local"),
    ],
)
def test_what_cannot_be_is_refused_in_words(capsys: pytest.CaptureFixture[str], argv: list[str], words: str) -> None:
    assert words in said(capsys, *argv, status=1)[1]


def test_without_the_extra_serve_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "ray":
            raise ImportError("No module named 'ray'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    _, told = said(capsys, "serve", status=1)
    assert "vcam serve needs Ray Serve, which cannot be loaded" in told
    assert 'pip install "streamv2v-camera[serve]"' in told
    assert "starting Ray" not in told


def test_serve_offers_what_it_was_started_with_alone(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[cluster.ServeOptions] = []

    def start(options: cluster.ServeOptions, begins: Callable[[], None]) -> Namespace:
        started.append(options)
        return Namespace(port=options.port)

    monkeypatch.setattr(cluster, "start", start)
    monkeypatch.setattr(cluster, "stop", lambda front: None)
    monkeypatch.setattr(cluster, "wait_until_told", lambda: None)
    lora = home / "ink.safetensors"
    lora.write_bytes(b"")
    argv = ["serve", "--streams", "3", "--replicas", "2", "--most-replicas", "5", "--lora", str(lora), "--port", "9000"]
    said(capsys, *argv, "--engine-size", "128x96", "--threads", "1", "--per-client", "2")
    (options,) = started
    assert (options.offer.streams, options.replicas, options.most_replicas, options.port) == (3, 2, 5, 9000)
    assert options.offer.most_per_client == 2
    assert options.offer.models == ("embedded",)
    assert options.offer.loras == {"ink.safetensors": str(lora)}
    assert (options.offer.usual.width, options.offer.usual.height, options.threads) == (128, 96, 1)


def test_the_server_is_asked_for_on_the_command_line_or_in_config_toml(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[RunOptions] = []

    def run(options: RunOptions) -> Any:
        asked.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(daemon, "run", run)
    (home / "config").mkdir()
    (home / "config" / "config.toml").write_text('[remote]\nserver = "studio"\nfallback = "local"\n')
    config = load_config()
    assert (config.remote, config.remote_fallback) == ("wss://studio:8790", RemoteFallback.LOCAL)
    cli.main(["run"])
    cli.main(["run", "--remote", "wss://other:1", "--remote-fallback", "none"])
    cli.main(["run", "--remote", "none"])
    assert [(one.remote, one.remote_fallback) for one in asked] == [
        ("wss://studio:8790", RemoteFallback.LOCAL),
        ("wss://other:1", RemoteFallback.NONE),
        ("", RemoteFallback.LOCAL),
    ]
