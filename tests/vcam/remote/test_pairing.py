"""Who is let in, and how the two machines come to know each other."""

from __future__ import annotations

import errno
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest
from filelock import FileLock

from vcam.errors import OptionError, RemoteError
from vcam.remote import clients
from vcam.remote.certificate import fingerprint_of, made_certificate, own_certificate
from vcam.remote.clients import ClientBook, Pairing
from vcam.remote.paired import pair, paired_server, servers_file
from vcam.remote.protocol import Refusal
from vcam.settings.config import check_address

PRIVATE = 0o600


def test_a_token_is_kept_as_a_hash_in_a_file_of_this_user_alone(tmp_path: Path) -> None:
    book = ClientBook(tmp_path / "serve")
    token = book.add("Annas laptop")
    path = tmp_path / "serve" / "clients.json"
    assert token not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == PRIVATE
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert book.check(token) == ("Annas laptop", None)
    assert book.check(token + "x") == ("", Refusal.TOKEN)
    assert book.check("") == ("", Refusal.TOKEN)


def test_what_another_process_revokes_is_revoked_here(tmp_path: Path) -> None:
    here, there = ClientBook(tmp_path), ClientBook(tmp_path)
    token = there.add("laptop")
    assert here.check(token) == ("laptop", None)
    there.revoke("laptop")
    assert here.check(token) == ("laptop", Refusal.REVOKED)
    again = there.add("laptop")  # the name is free again, the old token is not
    assert here.check(again) == ("laptop", None)
    assert here.check(token)[1] is Refusal.TOKEN


def test_clients_that_many_add_and_revoke_at_the_same_moment_are_all_kept(tmp_path: Path) -> None:
    ClientBook(tmp_path).add("old")

    def change(number: int) -> None:
        book = ClientBook(tmp_path)  # as each program has one
        book.add(f"new {number}")
        if number == 3:
            book.revoke("old")

    with ThreadPoolExecutor(8) as many:
        list(many.map(change, range(8)))
    found = {one.name: one.revoked for one in ClientBook(tmp_path).clients()}
    assert found == {"old": True} | {f"new {number}": False for number in range(8)}


def test_a_file_of_clients_that_another_program_holds_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "LOCK_S", 0.01)
    book = ClientBook(tmp_path)
    with FileLock(tmp_path / "clients.lock"), pytest.raises(RemoteError, match="another vcam serve clients has been"):
        book.add("laptop")


@pytest.mark.parametrize("name", ["", " x", "a/b", "x" * 61, "x\ny"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RemoteError, match="is no name for a client"):
        ClientBook(tmp_path).add(name)


def test_a_client_is_added_once_and_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    book = ClientBook(tmp_path)
    book.add("laptop")
    with pytest.raises(RemoteError, match="there is a client 'laptop' already"):
        book.add("laptop")
    with pytest.raises(RemoteError, match="there is no client 'desktop'; there are: laptop"):
        book.revoke("desktop")


def test_a_clients_file_that_is_none_lets_nobody_in_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "clients.json").write_text("{")
    with pytest.raises(RemoteError, match="cannot be read"):
        ClientBook(tmp_path).check("x")


def test_a_clients_file_that_goes_away_is_told_and_revokes_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shared folder that is not there for a while, in both ways that show it."""
    book = ClientBook(tmp_path)
    token = book.add("laptop")
    assert book.check(token) == ("laptop", None)
    there = (tmp_path / "clients.json").rename(tmp_path / "elsewhere")
    with pytest.raises(RemoteError, match="is gone; restore it, or pair anew"):
        book.check(token)
    there.rename(tmp_path / "clients.json")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", Mock(side_effect=OSError(errno.ESTALE, "Stale file handle")))
        with pytest.raises(RemoteError, match=r"cannot be read \(Stale file handle\)"):
            book.check(token)
    assert book.check(token) == ("laptop", None)


def test_the_certificate_is_made_once_and_its_key_is_private(tmp_path: Path) -> None:
    first = made_certificate(tmp_path / "serve")
    assert made_certificate(tmp_path / "serve") == first
    assert stat.S_IMODE(first.key.stat().st_mode) == PRIVATE
    assert len(first.fingerprint) == len(fingerprint_of(b"")) == 64
    assert made_certificate(tmp_path / "other").fingerprint != first.fingerprint


def test_ones_own_certificate_is_not_pinned_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    made = made_certificate(tmp_path / "a")
    other = made_certificate(tmp_path / "b")
    assert own_certificate(made.certificate, made.key).fingerprint == ""
    with pytest.raises(RemoteError, match="are no certificate and its key"):
        own_certificate(made.certificate, other.key)


def test_a_pairing_is_one_word_there_and_back() -> None:
    pairing = Pairing("a-token_of-chance", "0f" * 32)
    assert Pairing.from_text(f" {pairing.to_text()}\n") == pairing
    assert pairing.token not in repr(pairing)
    for text in (
        "",
        "vcam1.",
        "vcam1.e30",
        pairing.to_text()[:-9],
        pairing.to_text().removeprefix("vcam1."),
        "ünïcode",
    ):
        with pytest.raises(RemoteError, match="this is no pairing text"):
            Pairing.from_text(text)


def test_a_paired_server_is_known_by_its_address_alone(tmp_path: Path) -> None:
    pair(tmp_path, "wss://studio:8790", Pairing("t", "0f" * 32).to_text())
    pair(tmp_path, "[::1]:9000", Pairing("u", "").to_text())
    assert stat.S_IMODE(servers_file(tmp_path).stat().st_mode) == PRIVATE
    assert paired_server(tmp_path, "studio").token == "t"
    six = paired_server(tmp_path, "wss://[::1]:9000")
    assert (six.host, six.port, six.fingerprint, six.name) == ("::1", 9000, "", "[::1]:9000")
    assert "token" not in repr(paired_server(tmp_path, "studio"))
    with pytest.raises(RemoteError, match=r"not paired with wss://elsewhere:8790: run .vcam serve clients add NAME."):
        paired_server(tmp_path, "elsewhere")
    servers_file(tmp_path).write_text(json.dumps([1]))
    with pytest.raises(RemoteError, match="cannot be read"):
        paired_server(tmp_path, "studio")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ws://studio:8790", "pictures of you go over TLS alone: write wss://studio:8790"),
        ("https://studio", "it must be wss://host:port"),
        ("wss://user:secret@studio", "it must be wss://host:port"),
        ("wss://studio:99999", "it must be wss://host:port"),
        ("wss://studio/path", "it must be wss://host:port"),
        ("wss://", "it must be wss://host:port"),
        ("", "it must be wss://host:port"),
    ],
)
def test_an_address_that_is_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        check_address("--remote", text)
