"""A program that runs an engine in a child, says both and goes on until it is killed. Its argument: the prompt."""

from __future__ import annotations

import sys

from core.settings import Look
from tests.support.fake_children import SMALL, engine_pid, frame
from tests.support.fake_engine import FACTORY
from tests.support.patience import until
from vcam.worker.process import ChildProcess
from vcam.worker.translator import WorkerTranslator, engine_starters


def main(prompt: str) -> None:
    """Print the child's process id and the name of the shared memory, in one line."""
    translator = WorkerTranslator(SMALL, Look(prompt=prompt), engine_starters(FACTORY))
    until(lambda: translator.state.facts, meanwhile=lambda: translator.translate(None))
    current = translator._engines.current
    assert current is not None
    child = current._child
    assert isinstance(child, ChildProcess)
    print(engine_pid(translator), child.pictures.name, flush=True)
    while True:
        translator.translate(frame(0) if translator.ready else None)


if __name__ == "__main__":
    main(sys.argv[1])
