"""The cache of TensorRT engines: what each was built for, whether its files are whole, and whether it was verified.

An engine file is executable: it is built on this machine, never fetched, and its bytes are compared with the manifest
before TensorRT sees them. This file imports neither torch nor tensorrt, so that a listing is quick.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from core.errors import PlanError
from core.settings import EngineSettings

MANIFEST = "manifest.json"
VERSION = 2  # of the manifest and of what the graphs take and give
_HASHES = "weights.json"
_PART = ".part-"
_LOCK = ".lock"
_REBUILD = "vcam engines build makes it anew"


class Verdict(StrEnum):
    """What a comparison with the eager runtime said; `auto` takes verified engines alone."""

    UNVERIFIED = "unverified"
    VERIFIED = "verified"
    WRONG = "wrong"


@dataclass(frozen=True)
class Machine:
    """What an engine is bound to. capability: the GPU's compute capability, such as 8.9."""

    tensorrt: str
    gpu: str
    capability: str
    driver: str


@dataclass(frozen=True)
class Key:
    """All that decides whether an engine fits. weights: `fingerprint`; LoRAs are no part of it, they are refitted."""

    machine: Machine
    weights: str
    width: int
    height: int
    steps: int
    slots: int
    policy: str
    guidance: str
    dtype: str

    @property
    def folder_name(self) -> str:
        """Of the engine's folder in the cache."""
        text = json.dumps([VERSION, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Manifest:
    """What is known of an engine. files: name -> (sha256, bytes). constants: initializer of the graph -> weight."""

    key: Key
    model: str
    files: Mapping[str, tuple[str, int]]
    constants: Mapping[str, str] = field(default_factory=dict)
    built: str = ""
    seconds: float = 0.0
    verdict: Verdict = Verdict.UNVERIFIED
    compared: str = ""
    version: int = VERSION


@dataclass(frozen=True)
class Entry:
    """An engine in the cache; problem says why it is of no use, "" if it may be used."""

    folder: Path
    manifest: Manifest | None
    problem: str = ""

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def cache_folder() -> Path:
    """Where engines are kept (VCAM_ENGINES_FOLDER overrides); need not exist."""
    import platformdirs

    if folder := os.environ.get("VCAM_ENGINES_FOLDER"):
        return Path(folder)
    return platformdirs.user_cache_path("streamv2v-camera", appauthor=False) / "engines"


def key(machine: Machine, weights: str, settings: EngineSettings) -> Key:
    """The key of an engine of those settings, which have nothing left to decide."""
    return Key(
        machine,
        weights,
        settings.width,
        settings.height,
        settings.steps,
        settings.slots,
        str(settings.policy),
        str(settings.guidance),
        settings.dtype,
    )


def find(wanted: Key, cache: Path | None = None) -> Entry | None:
    """The engine with that key, None if there is none."""
    folder = (cache or cache_folder()) / wanted.folder_name
    return _entry(folder, wanted.machine) if folder.is_dir() else None


def listing(machine: Machine | None, cache: Path | None = None) -> list[Entry]:
    """Every engine in the cache, newest first; machine: this one, None where it cannot run any."""
    cache = cache or cache_folder()
    folders = [path for path in _children(cache) if path.is_dir() and _PART not in path.name]
    return sorted((_entry(folder, machine) for folder in folders), key=lambda one: _built(one), reverse=True)


def _children(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.is_dir() else []


def _built(entry: Entry) -> str:
    return entry.manifest.built if entry.manifest else ""


def _entry(folder: Path, machine: Machine | None) -> Entry:
    try:
        manifest = _from_json(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return Entry(folder, None, f"{MANIFEST} cannot be read ({_line(error)})")
    return Entry(folder, manifest, _problem(folder, manifest, machine))


def _problem(folder: Path, manifest: Manifest, machine: Machine | None) -> str:
    if manifest.version != VERSION:
        return f"of version {manifest.version}, {VERSION} is needed"
    if manifest.key.folder_name != folder.name:
        return "its manifest is another engine's"
    for name, (_, size) in manifest.files.items():
        found = (folder / name).stat().st_size if (folder / name).is_file() else -1
        if found != size:
            return f"{name} is missing" if found < 0 else f"{name} has {found} bytes of {size}"
    if machine is None:
        return "TensorRT cannot run here"
    ours, built = asdict(machine), asdict(manifest.key.machine)
    other = [f"{name} {built[name]}, here {ours[name]}" for name in ours if ours[name] != built[name]]
    if other:
        return f"built for {'; '.join(other)}"
    return f"wrong: {manifest.compared}" if manifest.verdict is Verdict.WRONG else ""


def read_engine(entry: Entry, name: str) -> bytes:
    """An engine file's bytes, which are those that were built. Raises PlanError."""
    if entry.manifest is None or entry.problem:
        raise PlanError(f"engine {entry.folder.name}: {entry.problem}; {_REBUILD}")
    try:
        data = (entry.folder / name).read_bytes()
    except OSError as error:
        raise PlanError(f"{entry.folder / name}: cannot be read ({error.strerror}); {_REBUILD}") from error
    if hashlib.sha256(data).hexdigest() != entry.manifest.files[name][0]:
        raise PlanError(f"{entry.folder / name}: was changed since it was built, and is not loaded; {_REBUILD}")
    return data


def changed(entry: Entry) -> str:
    """Which of its files is not as it was built, "" if none: read_engine would refuse it."""
    files = {} if entry.manifest is None else entry.manifest.files
    return next((name for name, (digest, _) in files.items() if _hash(entry.folder / name) != digest), "")


def keep(
    wanted: Key,
    model: str,
    files: Mapping[str, bytes | memoryview],
    constants: Mapping[str, str],
    seconds: float,
    cache: Path | None = None,
    now: datetime | None = None,
) -> Entry:
    """Put a built engine into the cache, whole or not at all; what was there stays if it fails. Raises PlanError."""
    cache = cache or cache_folder()
    manifest = Manifest(
        wanted,
        model,
        {name: (hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()},
        dict(constants),
        (now or datetime.now(UTC)).isoformat(timespec="seconds"),
        round(seconds, 1),
    )
    target = cache / wanted.folder_name
    with _written(cache, sum(map(len, files.values()))) as part:
        for name, data in files.items():
            (part / name).write_bytes(data)
        (part / MANIFEST).write_text(json.dumps(_to_json(manifest), indent=1) + "\n", encoding="utf-8")
        if target.exists():  # a folder cannot be replaced by one that holds files
            target.rename(part.with_name(f"{part.name}-old"))
        part.rename(target)
    shutil.rmtree(part.with_name(f"{part.name}-old"), ignore_errors=True)
    return _entry(target, wanted.machine)


def free_disk(cache: Path) -> int:
    """Bytes that are free where the cache lies or will lie."""
    return shutil.disk_usage(next(one for one in (cache, *cache.absolute().parents) if one.is_dir())).free


@contextmanager
def scratch(cache: Path) -> Iterator[Path]:
    """A folder for the graphs of a build, on the cache's disk. Raises PlanError where that is full."""
    with _written(cache, 0) as folder:
        yield folder


@contextmanager
def _written(cache: Path, size: int) -> Iterator[Path]:
    """A new folder in the cache, which is gone where the body fails."""
    made = cache / f"{_PART}{uuid.uuid4().hex[:12]}"
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        sweep(cache)
        with _claimed(made):
            made.mkdir(mode=0o700)
            yield made
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(cache).free
            needed = f"an engine takes {size >> 20} MiB, " if size else ""
            raise PlanError(
                f"{cache}: the disk is full: {needed}{free >> 20} MiB are free; delete what is not needed "
                "(vcam engines clean removes engines of no use), or set VCAM_ENGINES_FOLDER"
            ) from error
        raise PlanError(f"{cache}: cannot be written ({error.strerror}); set VCAM_ENGINES_FOLDER") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _claimed(part: Path) -> Iterator[None]:
    """Nobody else's `sweep` takes the folder while the body runs. Raises Timeout where somebody has it."""
    lock = part.with_name(f"{part.name}{_LOCK}")
    with FileLock(lock, timeout=0):  # the system gives it back, however this process ends
        try:
            yield
        finally:
            with suppress(OSError):  # on Windows it goes with the lock
                lock.unlink()


def sweep(cache: Path | None = None) -> None:
    """Remove what unfinished writing has left; what somebody is writing stays."""
    cache = cache or cache_folder()
    begun = {path.name.removesuffix(_LOCK) for path in _children(cache) if path.name.startswith(_PART)}
    for name in begun:
        with suppress(OSError, Timeout), _claimed(cache / name):
            shutil.rmtree(cache / name, ignore_errors=True)


def judge(entry: Entry, verdict: Verdict, compared: str) -> Entry:
    """Write down what a comparison said. Raises PlanError."""
    assert entry.manifest is not None
    manifest = replace(entry.manifest, verdict=verdict, compared=compared)
    part = entry.folder / f"{_PART}{os.getpid()}"
    try:
        part.write_text(json.dumps(_to_json(manifest), indent=1) + "\n", encoding="utf-8")
        os.replace(part, entry.folder / MANIFEST)
    except OSError as error:
        raise PlanError(f"{entry.folder}: cannot be written ({error.strerror}); free some space there") from error
    return _entry(entry.folder, manifest.key.machine)


def clean(machine: Machine | None, *, everything: bool = False, cache: Path | None = None) -> list[Entry]:
    """Remove the engines of no use here, or all, and what unfinished writing left; gives those. Raises PlanError."""
    cache = cache or cache_folder()
    gone = [entry for entry in listing(machine, cache) if everything or (entry.problem and machine is not None)]
    sweep(cache)
    kept = [path for path in _children(cache) if _PART in path.name and not path.name.startswith(_PART)]
    kept += [cache / _HASHES, *cache.glob("timing-*.cache")] if everything else []
    try:
        for entry in gone:
            shutil.rmtree(entry.folder)
        for file in kept:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise PlanError(f"{error.filename}: cannot be removed ({error.strerror})") from error
    return gone


def timing_cache(machine: Machine, cache: Path | None = None) -> Path:
    """The file with how long each kernel took on this machine: it makes the next build quicker."""
    name = hashlib.sha256(json.dumps(asdict(machine), sort_keys=True).encode()).hexdigest()[:16]
    return (cache or cache_folder()) / f"timing-{name}.cache"


def write_helper(path: Path, data: bytes) -> None:
    """Keep what only makes the next build or start quicker; without room for it nothing is lost."""
    part = path.with_name(f"{path.name}{_PART}{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.write_bytes(data)
        os.replace(part, path)
    with suppress(OSError):
        part.unlink(missing_ok=True)


def fingerprint(configuration: str, files: Sequence[Path], cache: Path | None = None) -> str:
    """The hash of a model's weights, read once: later its files' sizes and times of change answer for them."""
    path = (cache or cache_folder()) / _HASHES
    try:
        known: dict[str, str] = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        known = {}
    stats = {file: file.stat() for file in files}
    names = {file: f"{file.resolve()}:{stat.st_size}:{stat.st_mtime_ns}" for file, stat in stats.items()}
    found = {name: known.get(name) or _hash(file) for file, name in names.items()}
    if found.items() - known.items():
        write_helper(path, json.dumps(known | found, indent=1).encode())
    return hashlib.sha256(json.dumps([configuration, list(found.values())]).encode()).hexdigest()


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _to_json(manifest: Manifest) -> dict[str, Any]:
    return asdict(manifest)


def _from_json(values: Mapping[str, Any]) -> Manifest:
    given = dict(values["key"])
    machine = Machine(**given.pop("machine"))
    files = {str(name): (str(digest), int(size)) for name, (digest, size) in values["files"].items()}
    rest = {name: values[name] for name in ("model", "constants", "built", "seconds", "compared", "version")}
    return Manifest(key=Key(machine, **given), files=files, verdict=Verdict(values["verdict"]), **rest)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
