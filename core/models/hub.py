"""Models by name: fetched from the hub once, checked, put together as a local folder, and never asked for again.

A model is fetched into a folder of its own beside the finished ones, file by file; what has come of a file is kept, so
that a broken download goes on where it stopped. Only a complete model gets its name (one rename), and using it makes no
call to the network. huggingface_hub is the client (addresses, metadata, tokens, proxies); its own downloads start a
file anew after an end of the program, so the bytes are taken here.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from core import folders
from core.errors import ModelError
from core.models.catalogue import ENTRIES, SOURCE, CatalogueModel, File, in_gb, models_folder
from core.models.description import DESCRIPTION
from core.models.folder_files import one_line

_ACCEPTED = "accepted.json"  # beside the folders: whose licences the user has accepted
_UNFINISHED = ".incomplete"  # the end of a file's name until all of it is here and checked
_SPARE = 200_000_000  # bytes to leave free
_SILENCE_S = 30.0  # without a byte: the connection is broken
_WAITS_S = (1.0, 2.0, 4.0, 8.0)  # between tries that bring nothing
_PASSING = {408, 429, 500, 502, 503, 504}  # statuses that may be others a moment later
_CHUNK = 1 << 20


class DownloadProgress(NamedTuple):
    """How much of a model is here: bytes of all files, and what is being done."""

    done: int
    total: int
    doing: str


DownloadReport = Callable[[DownloadProgress], None]
Sleep = Callable[[float], object]
_T = TypeVar("_T")


class _Head(NamedTuple):
    """What the hub says of a file. digest: sha256, or git's sha1 of a small file."""

    url: str
    size: int
    digest: str


def _unfinished(entry: CatalogueModel) -> Path:
    return models_folder() / f".{entry.name}.incomplete"


def bytes_here(entry: CatalogueModel) -> int:
    """Bytes on the disk, of a model that is finished or on its way."""
    return sum(path.stat().st_size for top in (entry.folder, _unfinished(entry)) for path in _all_files(top))


def _all_files(top: Path) -> list[Path]:
    return [path for path in top.rglob("*") if path.is_file()] if top.is_dir() else []


def accepted(entry: CatalogueModel) -> bool:
    """Whether the user has accepted the model's licences, as they are now."""
    return _accepted().get(entry.name, {}).get("licences") == _licences(entry)


def accept(entry: CatalogueModel) -> None:
    """Record that the user has accepted the model's licences. Raises ModelError."""
    path = models_folder() / _ACCEPTED
    when = datetime.now(UTC).isoformat(timespec="seconds")
    with _writing(path.parent):
        folders.make(path.parent)
        known = {**_accepted(), entry.name: {"licences": _licences(entry), "when": when}}
        _write(path, json.dumps(known, indent=2))


def _accepted() -> dict[str, dict[str, object]]:
    try:
        known: dict[str, dict[str, object]] = json.loads((models_folder() / _ACCEPTED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{models_folder() / _ACCEPTED}: cannot be read ({one_line(error)}); delete it, and accept again"
        ) from error
    return known


def _licences(entry: CatalogueModel) -> list[dict[str, str]]:
    return [licence._asdict() for licence in entry.licences]


def remove(entry: CatalogueModel) -> int:
    """Delete the model, or what has come of it; the bytes that were freed. Raises ModelError."""
    freed = bytes_here(entry)
    with _alone(entry), _writing(entry.folder):
        for top in (entry.folder, _unfinished(entry)):
            if top.is_dir():
                shutil.rmtree(top)
    return freed


def ensure(model: str, report: DownloadReport) -> None:
    """Fetch the model if it is one of the catalogue's, is not here, and the user has said yes to it before.

    Raises ModelError.
    """
    entry = ENTRIES.get(model)
    if entry is not None and not entry.is_here() and accepted(entry):
        fetch(entry, report)


def fetch(entry: CatalogueModel, report: DownloadReport, sleep: Sleep = time.sleep) -> Path:
    """Download the model unless it is here, and return its folder; a broken download is continued.

    Asks nobody: the caller knows that the licences are accepted. Raises ModelError; what has come stays.
    """
    if entry.is_here():
        return entry.folder
    part = _unfinished(entry)
    with _alone(entry), _writing(part):
        if entry.is_here():  # by another program, while we waited
            return entry.folder
        part.mkdir(parents=True, exist_ok=True)
        missing = [file for file in entry.files if not (part / file.target).is_file()]
        heads = {file: _patiently(partial(_head, file), lambda: 0, sleep) for file in missing}
        present = sum((part / file.target).stat().st_size for file in entry.files if file not in heads)
        total = present + sum(head.size for head in heads.values())
        _check_space(entry, part, heads)
        for file, head in heads.items():
            _fetch(file, head, part, _counted(report, present, total, file.path), sleep)
            present += head.size
        report(DownloadProgress(total, total, "putting it together"))
        _assemble(entry, part)
        part.rename(entry.folder)
    return entry.folder


def _counted(report: DownloadReport, before: int, total: int, doing: str) -> Callable[[int], None]:
    return lambda done: report(DownloadProgress(before + done, total, doing))


@contextmanager
def _alone(entry: CatalogueModel) -> Iterator[None]:
    """Against two programs that fetch or delete the same model at once."""
    from filelock import FileLock, Timeout

    with _writing(models_folder()):
        folders.make(models_folder())
    try:
        with FileLock(models_folder() / f".{entry.name}.lock", timeout=0):
            yield
    except Timeout as error:
        raise ModelError(f"model {entry.name}: another vcam is fetching it now; wait for that one") from error


@contextmanager
def _writing(where: Path) -> Iterator[None]:
    """Turn an OSError of the body into a ModelError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ModelError(f"{where}: the disk is full; what has come is kept: make room and start again") from error
        raise ModelError(f"{where}: cannot be written ({one_line(error)})") from error


def _check_space(entry: CatalogueModel, part: Path, heads: Mapping[File, _Head]) -> None:
    """Raise ModelError unless what is still to come fits on the disk, with the second UNet that fusing makes."""
    here = sum(path.stat().st_size for path in part.rglob(f"*{_UNFINISHED}"))
    needed = sum(head.size for head in heads.values()) - here + _SPARE
    if entry.lora is not None:
        needed += max(file.size or 0 for file in entry.files)
    free = shutil.disk_usage(part).free
    if needed > free:
        raise ModelError(
            f"model {entry.name}: {in_gb(needed)} are needed in {part.parent}, {in_gb(free)} are free; make room, or "
            "set VCAM_MODELS_FOLDER to a folder on another disk"
        )


# ------------------------------------------------------------------------------------------------------- one file


def _head(file: File) -> _Head:
    """Ask the hub for the file's size and hash. Raises ModelError where they are not those of the catalogue.

    Of a file that lies elsewhere the catalogue knows both.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    if file.address:
        if file.size is None or file.sha256 is None:
            raise ValueError(f"{_named(file)}: size and sha256 must be known")
        return _Head(file.address, file.size, file.sha256)
    url = hf_hub_url(file.repository, file.path, revision=file.revision)
    with _explained(file, ModelError):
        told = get_hf_file_metadata(url, timeout=_SILENCE_S)
    if told.size is None or told.etag is None:
        raise ModelError(f"{_named(file)}: the hub tells neither size nor hash; is HF_ENDPOINT right?")
    known = (told.commit_hash or file.revision, file.sha256 or told.etag, file.size or told.size)
    if known != (file.revision, told.etag, told.size):
        raise ModelError(
            f"{_named(file)}: the hub offers another file ({told.size} bytes, {told.etag}) than this version of vcam "
            f"knows ({known[2]} bytes, {known[1]}); update vcam"
        )
    return _Head(url, told.size, told.etag)


def _fetch(file: File, head: _Head, part: Path, report: Callable[[int], None], sleep: Sleep) -> None:
    """Download the file to its place in the part folder and check its hash. Raises ModelError."""
    target = part / file.target
    unfinished = target.with_name(target.name + _UNFINISHED)
    target.parent.mkdir(parents=True, exist_ok=True)
    _patiently(lambda: _receive(file, head, unfinished, report), lambda: _size(unfinished), sleep)
    if (found := _digest(unfinished, head.digest)) != head.digest:
        unfinished.unlink()
        raise ModelError(f"{_named(file)}: came with the wrong hash ({found}, not {head.digest}); fetch it again")
    unfinished.rename(target)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive(file: File, head: _Head, path: Path, report: Callable[[int], None]) -> None:
    """Download the rest of the file and append it to what is here."""
    from huggingface_hub import utils

    client: Any = utils  # its lazy module has no types
    if (have := _size(path)) > head.size:
        path.unlink()
        have = 0
    report(have)
    if have == head.size:
        return
    # the user's token is the hub's alone; a part of a compressed answer is of no use
    headers = {**({} if file.address else client.build_hf_headers()), "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with (
        _explained(file, _Passing),
        client.get_session().stream(
            "GET", head.url, headers=headers, timeout=_SILENCE_S, follow_redirects=True
        ) as answer,
    ):
        client.hf_raise_for_status(answer)
        if not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the whole file comes
        with path.open("ab" if have else "wb") as out:
            for chunk in answer.iter_bytes():
                out.write(chunk)
                have += len(chunk)
                if have > head.size:
                    break
                report(have)
    if have > head.size:
        path.unlink()
        raise ModelError(f"{_named(file)}: more than its {head.size} bytes came; it is not the file that vcam knows")
    if have != head.size:
        raise _Passing(f"{_named(file)}: {have} of {head.size} bytes came; start again to go on from there")


def _digest(path: Path, like: str) -> str:
    """Return the file's sha256, or git's sha1 of it where `like` is as short as a sha1."""
    kind = hashlib.sha256() if len(like) == 64 else hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            kind.update(chunk)
    return kind.hexdigest()


def _named(file: File) -> str:
    return f"{file.repository}: {file.path}"


class _Passing(ModelError):
    """An error that may be gone a moment later."""


def _patiently(call: Callable[[], _T], came: Callable[[], int], sleep: Sleep) -> _T:
    """Call until it succeeds; a passing error is tried again while bytes keep coming, and a few times more."""
    failures = 0
    while True:
        before = came()
        try:
            return call()
        except _Passing:
            failures = 0 if came() > before else failures + 1
            if failures > len(_WAITS_S):
                raise
        sleep(_WAITS_S[max(0, failures - 1)])


@contextmanager
def _explained(file: File, unreachable: type[ModelError]) -> Iterator[None]:
    """Turn the client's errors into ModelErrors that say what to do; `unreachable` where the hub does not answer."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    what, hub = _named(file), urlsplit(file.address).hostname or "the hub"
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ModelError(f"{what}: HF_HUB_OFFLINE is set, so nothing is fetched; unset it and start again") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in _PASSING:
            raise _Passing(f"{what}: {hub} is in trouble (status {status}); try again in a while") from error
        if status in (401, 403) and not file.address:
            raise ModelError(
                f"{what}: the hub asks who you are (status {status}); accept the terms at "
                f"https://huggingface.co/{file.repository} and log in: hf auth login"
            ) from error
        if status == 404:
            raise ModelError(f"{what}: not found at {hub} (revision {file.revision}); update vcam") from error
        raise ModelError(f"{what}: {hub} refuses (status {status}: {one_line(error)})") from error
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise unreachable(
            f"{what}: {hub} cannot be reached ({one_line(error)}); what has come is kept: look at the network and "
            "start again"
        ) from error
    except httpx2.TransportError as error:
        raise _Passing(f"{what}: the connection broke ({one_line(error)}); start again to go on from there") from error


# ------------------------------------------------------------------------------------------------- the whole folder


def _assemble(entry: CatalogueModel, part: Path) -> None:
    """Make of the files an SD 1.5-shaped folder that every runtime takes as it is; a small model stays as it came."""
    if entry.lora is not None and (part / entry.lora).exists():
        _fuse(part / "unet" / "diffusion_pytorch_model.safetensors", part / entry.lora)
        (part / entry.lora).unlink()
    if not entry.purpose:
        _write(part / DESCRIPTION, json.dumps(entry.own, indent=2))
    made = {"files": [file._asdict() for file in entry.files], "licences": _licences(entry), "fused": entry.lora}
    _write(part / SOURCE, json.dumps(made, indent=2))


def _fuse(unet: Path, lora: Path) -> None:
    """Add the LoRA to the UNet's file, once, so that every runtime finds plain weights in the folder."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    from core.models import loras
    from core.settings import Lora

    with safe_open(unet, framework="pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("fused") == lora.name:  # we were ended between this and the LoRA's removal
        return
    state = load_file(unet)
    weights = {f"unet.{name}": tensor for name, tensor in state.items() if tensor.dim() in (2, 4)}
    fused = loras.fused(weights, [Lora(str(lora))])
    state |= {name.removeprefix("unet."): tensor.contiguous() for name, tensor in fused.items()}
    unfinished = unet.with_name(unet.name + _UNFINISHED)
    save_file(state, unfinished, {**metadata, "format": "pt", "fused": lora.name})
    unfinished.replace(unet)


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + _UNFINISHED)
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
