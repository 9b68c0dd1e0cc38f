"""A model folder with any JSON in it: loaded, or an error in words."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from core.models import device_memory
from core.models.description import EMBEDDED, describe
from core.runtimes.choice import resolve
from core.runtimes.onnx.runtime import read_manifest
from core.settings import Runtime
from tests.support.fuzzing import said, search
from tests.support.model_faults import Fault, faults
from tests.support.model_folders import load_model, make_folder, settings

pytestmark = pytest.mark.fuzz


def test_a_folder_with_any_fault_is_loaded_or_refused_in_words(tmp_path: Path) -> None:
    whole = make_folder(tmp_path / "whole", description={"steps": 2})
    copy = tmp_path / "copy"

    def check(fault: Fault) -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        fault.put(copy)
        said(lambda: device_memory.need(resolve(settings(copy, runtime=Runtime.EAGER))))
        said(lambda: load_model(settings(copy, runtime=Runtime.EAGER)).encoder("(red:1.2) ink"))

    search(faults(whole), check, each=50)


def test_the_graphs_of_a_folder_with_any_fault_are_read_or_refused_in_words(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(EMBEDDED, copy)
    kept = {path: path.read_bytes() for path in copy.rglob("*.json")}

    def check(fault: Fault) -> None:
        fault.put(copy)
        said(lambda: read_manifest(describe(str(copy))))
        for path, content in kept.items():
            path.write_bytes(content)

    search(faults(EMBEDDED), check, each=50)
