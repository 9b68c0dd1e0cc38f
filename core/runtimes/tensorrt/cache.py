"""The cache of TensorRT's plans on the disk: kept whole or not at all, checked before use, listed and removed.

A plan is executable code: it is built on this machine, never fetched, and its bytes are compared with the manifest's
hash before TensorRT sees them. This file imports neither torch nor tensorrt, so that a listing is quick.
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
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from core import folders
from core.errors import PlanError
from core.plans import ANY, VERSION, CachedPlan, Machine, PlanKey, PlanManifest, Verdict
from core.runtimes.tensorrt import library

MANIFEST = "manifest.json"
_HASHES = "weights.json"
_PART = ".part-"
_LOCK = ".lock"
_REBUILD = "vcam engines build makes it anew"
_REFUSED = ".refused"  # the end of the name of a file that says so
_FOR_OTHERS = "built for other cards"


def cache_folder() -> Path:
    """Return where plans are kept (VCAM_ENGINES_FOLDER, else the system's cache); the folder need not exist."""
    if folder := os.environ.get("VCAM_ENGINES_FOLDER"):
        return Path(folder)
    return folders.cache() / "engines"


def find(wanted: PlanKey, cache: Path | None = None, machine: Machine | None = None) -> CachedPlan | None:
    """Return the plan with that key, None if there is none; machine: this one, where the key's is less than that."""
    folder = (cache or cache_folder()) / wanted.folder_name
    return _plan(folder, machine or wanted.machine) if folder.is_dir() else None


def listing(machine: Machine | None, cache: Path | None = None) -> list[CachedPlan]:
    """Return every plan in the cache, newest first; machine: this one, None where it cannot run any."""
    cache = cache or cache_folder()
    folders = [path for path in _children(cache) if path.is_dir() and _PART not in path.name]
    return sorted((_plan(folder, machine) for folder in folders), key=lambda one: _built(one), reverse=True)


def _children(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.is_dir() else []


def _built(plan: CachedPlan) -> str:
    return plan.manifest.built if plan.manifest else ""


def _plan(folder: Path, machine: Machine | None) -> CachedPlan:
    try:
        manifest = PlanManifest.from_json(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return CachedPlan(folder, None, f"{MANIFEST} cannot be read ({_line(error)})")
    if machine is not None:
        manifest = manifest.seen_from(machine)
    problem = _problem(folder, manifest) or _elsewhere(manifest.key.machine, machine)
    elsewhere = problem.startswith(_FOR_OTHERS)
    wrong = f"wrong: {manifest.compared}" if manifest.verdict is Verdict.WRONG else ""
    return CachedPlan(folder, manifest, problem or wrong, elsewhere)


def _problem(folder: Path, manifest: PlanManifest) -> str:
    if manifest.version != VERSION:
        return f"of version {manifest.version}, {VERSION} is needed"
    if manifest.key.folder_name != folder.name:
        return "its manifest is another engine's"
    for name, (_, size) in manifest.files.items():
        found = (folder / name).stat().st_size if (folder / name).is_file() else -1
        if found != size:
            return f"{name} is missing" if found < 0 else f"{name} has {found} bytes of {size}"
    return ""


def _elsewhere(built: Machine, machine: Machine | None) -> str:
    """Return why a plan that is bound to `built` does not run on a machine, "" if it may."""
    if built.gpu == ANY and (machine is None or machine.library == built.library):
        fits = [] if machine is None else [one.capability for one in library.named(built.library).bound(machine)]
        if built.capability not in fits:
            return f"{_FOR_OTHERS} ({library.shown_target(built)})"
        if machine is not None and machine.tensorrt == built.tensorrt:
            return ""
    elif machine is not None and machine == built:
        return ""
    if machine is None:
        return "TensorRT cannot run here"
    ours, theirs = asdict(machine), asdict(built)
    other = [f"{name} {theirs[name]}, here {ours[name]}" for name in ours if theirs[name] not in (ours[name], ANY)]
    return f"built for {'; '.join(other)}"


def read_file(plan: CachedPlan, name: str) -> bytes:
    """Return the bytes of one of a plan's files, checked to be those that were built. Raises PlanError."""
    if plan.manifest is None or plan.problem:
        raise PlanError(f"engine {plan.folder.name}: {plan.problem}; {_REBUILD}")
    try:
        data = (plan.folder / name).read_bytes()
    except OSError as error:
        raise PlanError(f"{plan.folder / name}: cannot be read ({error.strerror}); {_REBUILD}") from error
    if hashlib.sha256(data).hexdigest() != plan.manifest.files[name][0]:
        raise PlanError(f"{plan.folder / name}: was changed since it was built, and is not loaded; {_REBUILD}")
    return data


def changed(plan: CachedPlan) -> str:
    """Return the name of a file that differs from what was built, which read_file would refuse; "" if none does."""
    files = {} if plan.manifest is None else plan.manifest.files
    return next((name for name, (digest, _) in files.items() if _hash(plan.folder / name) != digest), "")


def keep(
    wanted: PlanKey,
    model: str,
    files: Mapping[str, bytes | Path],
    constants: Mapping[str, str],
    seconds: float,
    cache: Path | None = None,
    now: datetime | None = None,
    *,
    layout: Mapping[str, tuple[int, int]],
    refittable: bool = True,
) -> CachedPlan:
    """Put a built plan into the cache, whole or not at all; what was there stays if that fails. Raises PlanError.

    files: name -> its bytes, or a file on the cache's disk (`scratch`), which is moved. layout: of the plan's bank.
    """
    cache = cache or cache_folder()
    manifest = PlanManifest(
        wanted,
        model,
        {name: _told(data) for name, data in files.items()},
        dict(constants),
        (now or datetime.now(UTC)).isoformat(timespec="seconds"),
        round(seconds, 1),
        refittable=refittable,
        layout=dict(layout),
    )
    target = cache / wanted.folder_name
    with _written(cache, sum(size for _, size in manifest.files.values())) as part:
        for name, data in files.items():
            if isinstance(data, Path):
                data.rename(part / name)
            else:
                (part / name).write_bytes(data)
        (part / MANIFEST).write_text(json.dumps(manifest.to_json(), indent=1) + "\n", encoding="utf-8")
        if target.exists():  # a folder cannot be replaced by one that holds files
            target.rename(part.with_name(f"{part.name}-old"))
        part.rename(target)
    shutil.rmtree(part.with_name(f"{part.name}-old"), ignore_errors=True)
    with suppress(OSError):
        (cache / f"{wanted.folder_name}{_REFUSED}").unlink(missing_ok=True)
    return CachedPlan(target, manifest)


def _told(data: bytes | Path) -> tuple[str, int]:
    """Return what a manifest says of a file: its hash and its size. Raises PlanError."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest(), len(data)
    return _hash(data), data.stat().st_size


def note_refusal(wanted: PlanKey, why: str, cache: Path | None = None) -> None:
    """Remember that the library refuses to build a plan, so that `auto` does not ask it at every start."""
    write_helper((cache or cache_folder()) / f"{wanted.folder_name}{_REFUSED}", why.encode())


def refusal(wanted: PlanKey, cache: Path | None = None) -> str:
    """Return what the library said when it refused to build the plan, "" if it did not."""
    try:
        return ((cache or cache_folder()) / f"{wanted.folder_name}{_REFUSED}").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def free_disk(cache: Path) -> int:
    """Return the free bytes on the disk of the cache, which need not exist yet."""
    return shutil.disk_usage(next(one for one in (cache, *cache.absolute().parents) if one.is_dir())).free


@contextmanager
def scratch(cache: Path) -> Iterator[Path]:
    """Make a folder for the graphs of a build on the cache's disk, removed at the end. Raises PlanError."""
    with _written(cache, 0) as folder:
        yield folder


@contextmanager
def _written(cache: Path, size: int) -> Iterator[Path]:
    """Make a new folder of that many bytes in the cache; it is removed unless the body renames it. Raises PlanError."""
    made = cache / f"{_PART}{uuid.uuid4().hex[:12]}"
    try:
        folders.make(cache, 0o700)
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
    """Keep the `sweep` of other processes off the folder while the body runs. Raises Timeout if another has it."""
    lock = part.with_name(f"{part.name}{_LOCK}")
    with FileLock(lock, timeout=0):  # the system gives it back, however this process ends
        try:
            yield
        finally:
            with suppress(OSError):  # on Windows it goes with the lock
                lock.unlink()


def sweep(cache: Path | None = None) -> None:
    """Remove what interrupted writes have left; what a running process is writing stays."""
    cache = cache or cache_folder()
    begun = {path.name.removesuffix(_LOCK) for path in _children(cache) if path.name.startswith(_PART)}
    for name in begun:
        with suppress(OSError, Timeout), _claimed(cache / name):
            shutil.rmtree(cache / name, ignore_errors=True)


def set_verdict(plan: CachedPlan, verdict: Verdict, compared: str, machine: Machine | None = None) -> CachedPlan:
    """Write the result of a comparison into the plan's manifest; machine: where, None for the plan's own.

    Raises PlanError.
    """
    assert plan.manifest is not None
    here = machine or plan.manifest.key.machine
    _rewrite(plan, replace(plan.manifest, verdict=verdict, compared=compared, compared_on=here.place))
    return _plan(plan.folder, here)


def set_unrefittable(plan: CachedPlan) -> None:
    """Remember that the library changes no weights of the plan: LoRAs get plans of their own. Raises PlanError."""
    assert plan.manifest is not None
    _rewrite(plan, replace(plan.manifest, refittable=False))


def _rewrite(plan: CachedPlan, manifest: PlanManifest) -> None:
    part = plan.folder / f"{_PART}{os.getpid()}"
    try:
        part.write_text(json.dumps(manifest.to_json(), indent=1) + "\n", encoding="utf-8")
        os.replace(part, plan.folder / MANIFEST)
    except OSError as error:
        raise PlanError(f"{plan.folder}: cannot be written ({error.strerror}); free some space there") from error


def clean(machine: Machine | None, *, everything: bool = False, cache: Path | None = None) -> list[CachedPlan]:
    """Remove the plans that cannot be used here, or all, and the rest of interrupted writes.

    What was built for other cards on purpose stays. Returns the plans that were removed. Raises PlanError.
    """
    cache = cache or cache_folder()
    useless = [plan for plan in listing(machine, cache) if plan.problem and not plan.elsewhere and machine is not None]
    gone = listing(machine, cache) if everything else useless
    sweep(cache)
    kept = [path for path in _children(cache) if _PART in path.name and not path.name.startswith(_PART)]
    kept += [cache / _HASHES, *cache.glob("timing-*.cache"), *cache.glob(f"*{_REFUSED}")] if everything else []
    try:
        for plan in gone:
            shutil.rmtree(plan.folder)
        for file in kept:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise PlanError(f"{error.filename}: cannot be removed ({error.strerror})") from error
    return gone


def timing_cache(machine: Machine, cache: Path | None = None) -> Path:
    """Return the file in which TensorRT keeps how long each kernel took here; it makes the next build quicker."""
    name = hashlib.sha256(json.dumps(asdict(machine), sort_keys=True).encode()).hexdigest()[:16]
    return (cache or cache_folder()) / f"timing-{name}.cache"


def write_helper(path: Path, data: bytes) -> None:
    """Write a file that only makes the next build or start quicker; a full disk is no error."""
    part = path.with_name(f"{path.name}{_PART}{os.getpid()}")
    with suppress(OSError):
        folders.make(path.parent, 0o700)
        part.write_bytes(data)
        os.replace(part, path)
    with suppress(OSError):
        part.unlink(missing_ok=True)


def fingerprint(configuration: str, files: Sequence[Path], cache: Path | None = None) -> str:
    """Return a hash of a model's configuration and weights.

    Files are read once; while their size and time of change stay the same, the hash kept in the cache is taken.
    """
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


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
