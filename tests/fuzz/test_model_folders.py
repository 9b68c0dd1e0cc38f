"""A model folder with any JSON in it: loaded, or an error in words."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.models import device_memory
from core.models.description import EMBEDDED, describe
from core.runtimes.choice import resolve
from core.runtimes.onnx.runtime import read_manifest
from core.settings import Runtime
from tests.support.fuzzing import said, search
from tests.support.model_faults import Fault, faults, files_of
from tests.support.model_folders import load_model, make_folder, settings

pytestmark = [pytest.mark.fuzz, pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("quick_layout")]


@contextmanager
def with_fault(folder: Path, fault: Fault) -> Iterator[None]:
    """Have the fault in the folder while the body runs."""
    path = folder / fault.file
    whole = path.read_bytes()
    fault.put(folder)
    try:
        yield
    finally:
        path.write_bytes(whole)


def test_a_folder_with_any_fault_is_loaded_or_refused_in_words(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", description={"steps": 2})
    asked = settings(folder, runtime=Runtime.EAGER)
    assert {"unet/config.json", "tokenizer/tokenizer.json", "streamv2v.json"} <= set(files_of(folder))

    def check(fault: Fault) -> None:
        with with_fault(folder, fault):
            # what is refused as it is read, or as its memory is worked out, is built by nobody
            if not said(lambda: device_memory.need(resolve(asked))):
                said(lambda: load_model(asked).encoder("(red:1.2) ink"))

    search(faults(folder), check, share=0.8)


def test_the_graphs_of_a_folder_with_any_fault_are_read_or_refused_in_words(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(EMBEDDED, folder)

    def check(fault: Fault) -> None:
        with with_fault(folder, fault):
            said(lambda: read_manifest(describe(str(folder))))

    search(faults(EMBEDDED), check, share=0.2)
