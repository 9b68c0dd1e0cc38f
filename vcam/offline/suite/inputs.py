"""What a suite's films and figures depend on, by SHA-256: nothing that changes a film may be missing in its key."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict, replace
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from core.measure.clip import clip_folder
from core.measure.motion import raft_weights
from core.models.catalogue import FACE, PERSON, CatalogueModel
from core.settings import BLUR, CAMERA, EngineSettings, Framing, Look, Region
from vcam.errors import VcamError
from vcam.settings.profiles import Profile
from vcam.video.media import reason

_MAKING = {"core": ("",), "vcam": ("fit", "video", "settings", "offline")}  # packages, and of each what makes films
_SHOWING = ("page.py", "results.py", "make.py")  # of vcam/offline/suite
_Stamp = tuple[tuple[str, int, int], ...]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files with their names. Raises VcamError."""
    try:
        return _sha256(path, _stamp(path))
    except OSError as error:
        raise VcamError(f"{path}: cannot be read ({reason(error)})") from error


def _stamp(path: Path) -> _Stamp:
    """Return the name, size and time of change of every file: while these are the same, so is what is in them."""
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    found = [(one, one.stat()) for one in files]
    return tuple((one.relative_to(path).as_posix(), stat.st_size, stat.st_mtime_ns) for one, stat in found)


@functools.lru_cache(maxsize=4096)  # a suite has many films of one model
def _sha256(path: Path, stamp: _Stamp) -> str:
    if not path.is_dir():
        return _digest(path)
    listed = "".join(f"{_digest(path / name)} {name}\n" for name, _, _ in stamp)
    return hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_hashes(settings: EngineSettings) -> dict[str, str]:
    """Return the SHA-256 of each part of the model and of each LoRA, by a name for it.

    Its own description, tokenizers, schedule, detail stage and graphs are parts, too. Raises ModelError, VcamError.
    """
    from core.models.description import DESCRIPTION, DETAIL, describe, tokenizer_of

    model = describe(settings.model)
    tokenizers = [tokenizer_of(one) for one in model.text_encoders]
    more = [name for name in (DESCRIPTION, *tokenizers, "scheduler", DETAIL, "onnx") if (model.folder / name).exists()]
    names = [*model.parts, *more]
    parts = {f"model {Path(settings.model).name}: {name}": sha256_of(model.folder / name) for name in names}
    return parts | {f"LoRA {Path(one.path).name}": sha256_of(Path(one.path)) for one in settings.loras}


def look_hashes(look: Look) -> dict[str, str | None]:
    """Return the SHA-256 of the files by which a look is made, by a name for each; None: not here. Raises VcamError."""
    found: dict[str, str | None] = {}
    if look.region is not Region.ALL:
        found[f"model {PERSON.name}"] = small_model_hash(PERSON)
        if look.elsewhere not in (CAMERA, BLUR):
            found[f"picture {Path(look.elsewhere).name}"] = sha256_of(Path(look.elsewhere))
    if look.framing is Framing.FACE:
        found[f"model {FACE.name}"] = small_model_hash(FACE)
    return found


def small_model_hash(entry: CatalogueModel) -> str | None:
    """Return the SHA-256 of a small model's file, None where it is not here. Raises VcamError."""
    return sha256_of(entry.folder / entry.files[0].target) if entry.is_here() else None


def made_by(settings: EngineSettings, look: Look) -> dict[str, Any]:
    """Return what makes the pictures besides the settings: files of model, LoRAs and look, runtime and device.

    Raises ModelError, SettingsError, VcamError.
    """
    from core.runtimes.choice import resolve  # torch: only when it is needed

    chosen = resolve(settings).settings
    return {
        "model": list(model_hashes(replace(settings, loras=())).values()),
        "loras": [sha256_of(Path(lora.path)) for lora in settings.loras],
        "look": look_hashes(look),
        "runtime": [str(chosen.runtime), str(chosen.provider), chosen.device, chosen.dtype],
    }


def aligned_by() -> dict[str, str]:
    """Return what the stand-in for prompt alignment is made by: the parts of the included model. Raises VcamError."""
    return model_hashes(EngineSettings("embedded"))


def instruments(flow: str, clip: str | None) -> dict[str, str]:
    """Return the SHA-256 of the weights of the flow and of CLIP, by a name for each. Raises MetricError, VcamError."""
    kind, _, weights = flow.partition(":")
    paths = [raft_weights(Path(weights) if weights else None)] if kind == "raft" else []
    paths += [clip_folder(clip)] if clip else []
    return {f"measured by {path.name}": sha256_of(path) for path in paths}


def profile_hash(profile: Profile) -> str:
    """Return the SHA-256 of what a profile says of look and engine."""
    told = {"look": asdict(profile.look), "engine": asdict(profile.engine)}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


@functools.cache  # what was loaded stays what it was
def program_hash() -> str:
    """Return the SHA-256 of the program's version and of its files that make and measure films."""
    lines = [metadata.version("streamv2v-camera")]
    for package, parts in _MAKING.items():
        folder = Path(str(resources.files(package)))
        files = sorted({file for part in parts for file in (folder / part).rglob("*.py") if file.name not in _SHOWING})
        lines += [f"{_digest(file)} {file.relative_to(folder).as_posix()}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
