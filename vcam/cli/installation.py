"""What this installation is: a checkout, or a package in an environment, and where it came from."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from vcam.log_file import environment_maker

PACKAGE = "streamv2v-camera"


@dataclass(frozen=True)
class Installation:
    """A program as it is installed.

    kind: "checkout" (runs from its own folder), or who made the environment: "pipx", "uv", "pip". folder: of the
    checkout, or of the environment. version: the package's, "unknown" where it is not installed as one. source: the
    address it was installed from, empty for a checkout and for what came from a registry. commit: of that address,
    where it is a repository's. changelog: None where it is not there.
    """

    kind: str
    folder: Path
    version: str
    source: str = ""
    commit: str = ""
    changelog: Path | None = None

    def __str__(self) -> str:
        if self.kind == "checkout":
            return f"a checkout in {self.folder}"
        how = {"pipx": "installed by pipx", "uv": "installed by uv"}.get(self.kind, "installed by pip")
        return f"{how} in {self.folder}{f', from {self.source}' if self.source else ''}"

    def removal(self) -> str:
        """Return how the program itself is removed."""
        if self.kind == "checkout" or self.kind == "pip":
            prefix = Path(sys.prefix)
            return f"delete {prefix}" + (f", or its folder {prefix.parent}" if prefix.name == ".venv" else "")
        return f"{'pipx' if self.kind == 'pipx' else 'uv tool'} uninstall {PACKAGE}"

    def upgrade(self) -> str:
        """Return how a newer one is installed, as the user types it."""
        if self.kind == "checkout":
            return f"git -C {self.folder} pull, then start it as ever: what is missing is installed then"
        if self.kind == "pip":
            return f"{sys.executable} -m pip install --upgrade {self.source or PACKAGE}"
        return f"{'pipx' if self.kind == 'pipx' else 'uv tool'} upgrade {PACKAGE}"


def this_installation(package: Path = Path(__file__).parents[1]) -> Installation:
    """Return what runs here. package: the folder `vcam`."""
    version, source, commit = _metadata()
    root = package.parent
    if (root / "pyproject.toml").is_file():
        return Installation("checkout", root, version, changelog=_if_there(root / "CHANGELOG.md"))
    changelog = _if_there(package / "CHANGELOG.md")
    return Installation(environment_maker(), Path(sys.prefix), version, source, commit, changelog)


def _if_there(path: Path) -> Path | None:
    return path if path.is_file() else None


def _metadata() -> tuple[str, str, str]:
    """Return the package's version, the address it was installed from, and that address's commit (PEP 610)."""
    try:
        found = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return "unknown", "", ""
    try:
        told = json.loads(found.read_text("direct_url.json") or "{}")
        return found.version, str(told.get("url", "")), str(told.get("vcs_info", {}).get("commit_id", ""))
    except (OSError, ValueError, AttributeError):  # damaged, or of another form: where it came from is not known
        return found.version, "", ""
