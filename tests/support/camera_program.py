"""`vcam run` as users start it, but with the fake engine. Its arguments: those of `vcam`."""

from __future__ import annotations

import os
import sys

from core.settings import EngineSettings
from tests.support import stacks
from tests.support.fake_engine import FACTORY, MODEL
from vcam.cli.main import main
from vcam.daemon import daemon
from vcam.settings.run_options import RunOptions, RunReport

stacks.tell_when_asked()
run = daemon.run


def run_with_the_fake_engine(options: RunOptions, parts: daemon.RunParts | None = None) -> RunReport:
    """Run the camera as `vcam run` does."""
    settings = EngineSettings(model=os.environ.get(MODEL, "fake"), width=64, height=64, steps=1)
    return run(options, daemon.RunParts(engine=FACTORY, settings_of=lambda profile, options: settings))


if __name__ == "__main__":
    daemon.run = run_with_the_fake_engine
    sys.exit(main(sys.argv[1:]))
