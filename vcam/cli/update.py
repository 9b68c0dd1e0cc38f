"""`vcam update`: what this installation is and what is new in it; when told to, whether there is a newer one.

Nothing is asked of the network unless `--check` says so, and nothing is ever installed: the command that does is said.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vcam.cli.installation import PACKAGE, Installation
from vcam.errors import VcamError

REGISTRY = "https://pypi.org/simple"
"""Where packages come from; PIP_INDEX_URL names another."""
_ANSWER_S = 8.0  # for all of the registry's answer
_GIT_S = 15.0
_LARGEST = 8 << 20  # bytes of an answer
_SHOWN = 12  # entries of the changelog

Git = Callable[[Sequence[str]], tuple[int, str, str]]
"""Runs git with these arguments; exit status, what it printed, and its complaint. Raises OSError, TimeoutExpired."""


@dataclass(frozen=True)
class Newest:
    """What there is elsewhere. what: a version, or a commit. newer: than what is installed."""

    what: str
    newer: bool


def carry_out(installation: Installation, check: bool) -> tuple[dict[str, Any], str]:
    """Return what to print, as data and as text. Raises VcamError where --check cannot be answered."""
    title, entries = news(installation.changelog)
    newest = look(installation) if check else None
    data: dict[str, Any] = {
        "version": installation.version,
        "kind": installation.kind,
        "folder": str(installation.folder),
        "source": installation.source,
        "changelog": installation.changelog and str(installation.changelog),
        "new": entries,
        "newest": newest and newest.what,
        "newer": newest and newest.newer,
        "upgrade": installation.upgrade(),
    }
    lines = [f"StreamV2V Camera {installation.version}, {installation}"]
    if newest is None:
        lines += _what_is_new(installation, title, entries)
        lines.append(f"`vcam update --check` asks whether there is a newer one: {_whom(installation)}")
    elif newest.newer:
        lines.append(f"there is a newer one: {newest.what}; {installation.upgrade()}")
    else:
        lines.append(f"there is none newer: {newest.what}")
    return data, "\n".join(lines)


def _what_is_new(installation: Installation, title: str, entries: list[str]) -> list[str]:
    if not entries:
        return []
    more = len(entries) - _SHOWN
    lines = [f"what is new ({title}):", *(f"- {entry}" for entry in entries[:_SHOWN])]
    return [*lines, f"{f'and {more} more, all ' if more > 0 else 'all of it '}in {installation.changelog}"]


def _whom(installation: Installation) -> str:
    if installation.kind == "checkout":
        return "the repository that the checkout comes from"
    if installation.commit:
        return installation.source
    return f"the registry at {_host(_registry())}, for the name {PACKAGE}"


def news(changelog: Path | None) -> tuple[str, list[str]]:
    """Return the title of the changelog's newest part that has entries, and each entry's first sentence."""
    if changelog is None:
        return "", []
    try:
        text = changelog.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return "", []
    for part in re.split(r"^## ", text, flags=re.M)[1:]:
        title, _, body = part.partition("\n")
        if entries := re.findall(r"^- (.+(?:\n  .+)*)", body, flags=re.M):
            return title.strip(" []"), [_first_sentence(" ".join(entry.split())) for entry in entries]
    return "", []


def _first_sentence(text: str) -> str:
    # not within brackets, which a line may not leave open
    found = re.match(r"(?:\((?:[^()]|\([^()]*\))*\)|[^(])+?(?=[.;](?: |$))", text)
    return found.group() if found else text


def look(installation: Installation, git: Git | None = None) -> Newest:
    """Ask whether there is a newer one. Raises VcamError where nobody can be asked, or nobody answers."""
    run = git or _git
    if installation.kind == "checkout":
        return _newest_of_checkout(installation.folder, run)
    if installation.commit:
        return _newest_commit(installation.source, installation.commit, run)
    if installation.source:
        raise VcamError(f"it was installed from {installation.source}; look there for a newer one, and install that")
    return newest_of_registry(_registry(), installation.version)


def _newest_of_checkout(folder: Path, git: Git) -> Newest:
    there = ["-C", str(folder)]
    if not (folder / ".git").exists():
        raise VcamError(f"{folder} is no git checkout; look for a newer one where you got it")
    mine = _told(git, [*there, "rev-parse", "HEAD"])
    status, upstream, _ = _asked(git, [*there, "rev-parse", "--abbrev-ref", "@{upstream}"])
    remote, _, branch = upstream.partition("/") if status == 0 else ("origin", "", "")
    if remote not in _told(git, [*there, "remote"]).split():
        raise VcamError(
            f"the checkout in {folder} follows no repository elsewhere; look for a newer one where you got it"
        )
    theirs = _first_commit(
        _told(git, [*there, "ls-remote", remote, f"refs/heads/{branch}" if branch else "HEAD"]), remote
    )
    held, _, _ = _asked(git, [*there, "merge-base", "--is-ancestor", theirs, mine])
    return Newest(f"commit {theirs[:12]} of {remote}", held != 0)  # not 0: it is another, or not even known here


def _newest_commit(address: str, commit: str, git: Git) -> Newest:
    theirs = _first_commit(_told(git, ["ls-remote", address, "HEAD"]), address)
    return Newest(f"commit {theirs[:12]}", theirs != commit)


def _first_commit(listed: str, where: str) -> str:
    if found := re.match(r"[0-9a-f]{40,64}", listed):
        return found.group()
    raise VcamError(f"{where} has no branch of that name any more; look there for a newer one")


def _told(git: Git, arguments: Sequence[str]) -> str:
    status, out, complaint = _asked(git, arguments)
    if status != 0:
        last = complaint.strip().splitlines()[-1:] or [f"exit status {status}"]
        raise VcamError(f"the repository cannot be asked ({last[0]}); is this machine online?")
    return out


def _asked(git: Git, arguments: Sequence[str]) -> tuple[int, str, str]:
    try:
        return git(arguments)
    except FileNotFoundError:
        raise VcamError("there is no git on this machine, which asks the repository") from None
    except subprocess.TimeoutExpired:
        raise VcamError(f"the repository has not answered for {_GIT_S:.0f} s; is this machine online?") from None


def _git(arguments: Sequence[str]) -> tuple[int, str, str]:
    nobody_asked = {"GIT_TERMINAL_PROMPT": "0", "GCM_INTERACTIVE": "never", "GIT_SSH_COMMAND": "ssh -oBatchMode=yes"}
    done = subprocess.run(
        ["git", *arguments],
        env=os.environ | nobody_asked,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_GIT_S,
    )
    return done.returncode, done.stdout.strip(), done.stderr


def _registry() -> str:
    return (os.environ.get("PIP_INDEX_URL") or REGISTRY).rstrip("/")


def _host(address: str) -> str:
    try:
        host = urlsplit(address).hostname
    except ValueError:  # no address at all
        host = None
    return host or "the address in PIP_INDEX_URL"  # no more of it: it may hold a password


def newest_of_registry(registry: str, installed: str) -> Newest:
    """Ask the registry (its simple JSON form, PEP 691) for the newest version. Raises VcamError."""
    from packaging.version import InvalidVersion, Version

    versions = _released(_answer(registry))
    if not versions:
        raise VcamError(f"{_host(registry)} has no version of {PACKAGE} that could be installed")
    newest = max(versions)
    try:
        newer = newest > Version(installed)
    except InvalidVersion:
        newer = True
    return Newest(f"version {newest}", newer)


def _answer(registry: str) -> bytes:
    import httpx2

    host = _host(registry)
    form = {"Accept": "application/vnd.pypi.simple.v1+json"}
    until = time.monotonic() + _ANSWER_S
    try:
        with httpx2.stream(
            "GET", f"{registry}/{PACKAGE}/", headers=form, timeout=_ANSWER_S, follow_redirects=True
        ) as response:
            if response.status_code == 404:
                raise VcamError(f"{host} does not know {PACKAGE}; look for a newer one where you got it")
            response.raise_for_status()
            body = bytearray()
            for piece in response.iter_bytes():
                body += piece
                if len(body) > _LARGEST:
                    raise VcamError(f"{host} answers with more than a registry would")
                if time.monotonic() > until:
                    raise VcamError(f"{host} has not answered for {_ANSWER_S:.0f} s; try again later")
    except httpx2.TimeoutException:
        raise VcamError(f"{host} has not answered for {_ANSWER_S:.0f} s; is this machine online?") from None
    except httpx2.HTTPStatusError as error:
        raise VcamError(f"{host} answers {error.response.status_code}; try again later") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise VcamError(f"{host} cannot be reached ({type(error).__name__}); is this machine online?") from None
    return bytes(body)


def _released(body: bytes) -> list[Any]:
    """Return the versions that have a file which was not taken back, without those before a release."""
    import json

    from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename

    try:
        files = json.loads(body)["files"]
        names = [str(file["filename"]) for file in files if not file.get("yanked", False)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise VcamError("the registry's answer is not in the form of PEP 691; look for a newer one there") from None
    found = []
    for name in names:
        try:
            version = parse_wheel_filename(name)[1] if name.endswith(".whl") else parse_sdist_filename(name)[1]
        except (InvalidWheelFilename, InvalidSdistFilename):
            continue  # a signature, an egg
        if not version.is_prerelease:
            found.append(version)
    return found
