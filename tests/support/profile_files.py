"""Profiles written for a test."""

from __future__ import annotations

from pathlib import Path


def write_profile(folder: Path, id: str, prompt: str = "", seed: int = 0, more: str = "") -> Path:
    """A profile's file: named after its id, as is its prompt unless one is given; more: lines of TOML."""
    path = folder / f"{id}.toml"
    path.write_text(f'name = "{id.title()}"\n[look]\nprompt = "{prompt or id}"\nseed = {seed}\n{more}')
    return path
