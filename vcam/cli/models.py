"""`vcam models`: what there is, fetching a model once its licences are accepted, and deleting it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from vcam.cli.output import counted, print_note
from vcam.errors import VcamError

if TYPE_CHECKING:
    from core.models.catalogue import CatalogueModel
    from core.models.hub import DownloadProgress, DownloadReport


def carry_out(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Do what `vcam models` was asked for; return the JSON object and the text. Raises VcamError, ModelError."""
    if args.action == "list":
        return _listed()
    entry = _entry(args.action, args.name)
    return _download(entry, args.yes) if args.action == "download" else _remove(entry)


def agree_to_named(model: str | None) -> None:
    """Show the licences of a model that the user named, once, and ask for them where somebody can answer.

    Raises VcamError where the answer is no, ModelError.
    """
    from core.models.catalogue import ENTRIES

    entry = ENTRIES.get(model or "")
    if entry is not None and not entry.is_here():
        _agree(entry, yes=not _somebody())


def fetch_agreed(model: str) -> None:
    """Fetch the model, with a progress bar, if it has to be and its licences are accepted. Raises ModelError."""
    from core.models.hub import ensure

    with _bar(model) as report:
        ensure(model, report)


def _entry(action: str, name: str | None) -> CatalogueModel:
    from core.models.catalogue import ENTRIES, HELPERS

    entries = {**ENTRIES, **HELPERS}
    known = ", ".join(sorted(entries))
    if name is None:
        raise VcamError(f"vcam models {action}: which one? There are {known}")
    if name not in entries:
        raise VcamError(f"vcam models {action}: no model {name!r} is known; there are {known}")
    return entries[name]


def _listed() -> tuple[dict[str, Any], str]:
    from dataclasses import asdict

    from core.models.catalogue import ENTRIES, HELPERS, in_gb
    from core.models.description import available, describe
    from core.models.hub import bytes_here

    rows, found = [], []
    for one in map(describe, available()):
        entry = ENTRIES.get(one.name)
        here = entry is None or entry.is_here()
        size = None if entry is None else bytes_here(entry)
        found.append({**asdict(one), "folder": str(one.folder), "here": here, "bytes_here": size})
        rows.append(
            f"{one.name}: {one.width}x{one.height}, {counted(one.steps, 'step')}, bank {one.policy}; "
            f"licence: {one.licence}" + (f"\n  styles: {', '.join(one.styles)}" if one.styles else "")
        )
        if entry is not None:
            begun = f", {in_gb(size)} of it are here" if size else ""
            missing = f"not here{begun}: `vcam models download {one.name}` fetches {in_gb(entry.size)}"
            rows.append(f"  {in_gb(size or 0)} in {one.folder}" if here else f"  {missing}")
    small = []
    for helper in HELPERS.values():
        here = helper.is_here()
        small.append({"name": helper.name, "purpose": helper.purpose, "folder": str(helper.folder), "here": here})
        licence = ", ".join(one.name for one in helper.licences)
        missing = f"not here: `vcam models download {helper.name}` fetches {in_gb(helper.size)}"
        rows.append(f"{helper.name}: {helper.purpose}; licence: {licence}")
        rows.append(f"  {in_gb(bytes_here(helper))} in {helper.folder}" if here else f"  {missing}")
    rows.append("--model also takes a folder in diffusers format: SD 1.5-shaped, safetensors")
    return {"models": found, "small_models": small}, "\n".join(rows)


def _download(entry: CatalogueModel, yes: bool) -> tuple[dict[str, Any], str]:
    from core.models import hub
    from core.models.catalogue import in_gb

    before = hub.bytes_here(entry)
    if not entry.is_here():
        _agree(entry, yes)
        with _bar(entry.name) as report:
            hub.fetch(entry, report)
    size = hub.bytes_here(entry)
    data = {"model": entry.name, "folder": str(entry.folder), "bytes": size, "was_here_bytes": before}
    use = entry.purpose or f"vcam run --model {entry.name}"
    return data, f"{entry.name} is ready: {in_gb(size)} in {entry.folder}; {use}"


def _remove(entry: CatalogueModel) -> tuple[dict[str, Any], str]:
    from core.models import hub
    from core.models.catalogue import in_gb

    freed = hub.remove(entry)
    text = f"{entry.name}: {in_gb(freed)} freed" if freed else f"{entry.name}: there was nothing to delete"
    return {"model": entry.name, "bytes": freed}, text


def _agree(entry: CatalogueModel, yes: bool) -> None:
    from core.models import hub
    from core.models.catalogue import in_gb

    if hub.accepted(entry):
        return
    places = sorted({urlsplit(file.address).hostname or "the hub" for file in entry.files})
    print_note(
        f"{entry.name} is fetched from {', '.join(places)} ({in_gb(entry.size)}); its parts are under licences of "
        "their own:"
    )
    for licence in entry.licences:
        print_note(f"  {licence.part}: {licence.name}, {licence.url}")
    if entry.purpose:  # under a licence that asks for nothing
        return
    if not yes:
        if not _somebody():
            raise VcamError(f"nobody is here to accept the licences of {entry.name}; say --yes if you do")
        print(f"vcam: do you accept them, and fetch {entry.name}? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise VcamError(f"{entry.name} was not fetched, for its licences were not accepted")
    hub.accept(entry)


def _somebody() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


@contextmanager
def _bar(name: str) -> Iterator[DownloadReport]:
    """Show a progress bar on stderr from the first report on; without a terminal, a line for each tenth."""
    from tqdm import tqdm

    from core.models.catalogue import in_gb

    bar: tqdm[Any] | None = None
    told = -1

    def report(progress: DownloadProgress) -> None:
        nonlocal bar, told
        if bar is None:
            bar = tqdm(desc=name, unit="B", unit_scale=True, unit_divisor=1000, disable=None, leave=False)
        bar.total, bar.n = progress.total, progress.done
        bar.set_postfix_str(progress.doing.rpartition("/")[2])
        tenth = 10 * progress.done // max(1, progress.total)
        if bar.disable and tenth > told:
            told = tenth
            print_note(f"{name}: {progress.done / max(1, progress.total):.0%} of {in_gb(progress.total)}")

    try:
        yield report
    finally:
        if bar is not None:
            bar.close()
