"""docs/evaluation.md is what benchmarks/evaluation.py makes of the figures' definitions and of the kept reports."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from benchmarks import evaluation
from core.measure.definitions import BY_NAME, DEFINITIONS
from vcam.offline.evaluate import EvalReport
from vcam.offline.suite.results import FIGURES


def report() -> dict[str, Any]:
    figures = dict.fromkeys(FIGURES, 1.5) | {"frames": 8, "faces": 0, "curve": {}, "flicker_spectrum": {}}
    told = {"mean": 1.5, "sd": 0.25, "least": 1, "most": 2, "films": 2, "change_percent": -8.25}
    return {
        "machine": {"processor": "a small one"},
        "asked": {
            "clips": ["walk.mp4"],
            "profiles": {"ink": "ink drawing"},
            "settings": {"default": {}, "off": {"policy": "off"}},
            "frames": 8,
            "side": 256,
            "flow": "dis",
            "consistency_by": "descriptor",
            "model": "embedded",
        },
        "inputs": [
            {"name": "walk.mp4", "sha256": "0123456789abcdef" * 4},
            {"name": "model embedded: unet", "sha256": "fedcba9876543210" * 4},
        ],
        "table": {
            name: {"films": 1, "delay": [1], "figures": dict.fromkeys(FIGURES, told)} for name in ("default", "off")
        },
        "rows": [
            {"clip": "walk.mp4", "profile": "ink", "by": name, "delay": 1, "speed": None, "figures": figures}
            for name in ("default", "off")
        ],
    }


def test_every_figure_of_a_report_is_defined() -> None:
    named = {field.name for field in fields(EvalReport)}
    assert {one.name for one in DEFINITIONS} <= named
    assert set(FIGURES) | {"latency_frames"} == set(BY_NAME)
    told = {"frames", "faces", "flicker_spectrum", "curve", "delay", "flow", "region", "width", "height", "rate"}
    told |= {"source", "output", "notes", "consistency_by", "alignment_by"}
    assert named - set(BY_NAME) == told
    for one in DEFINITIONS:
        assert all((one.title, one.unit, one.range, one.formula, one.source))
        assert one.better in ("lower", "higher", "near", "none")


def test_the_page_is_the_scripts() -> None:
    assert evaluation.DOCUMENT.read_text(encoding="utf-8") == evaluation.document(
        evaluation.load(), evaluation.load(evaluation.TRIALS)
    )


def test_of_every_figure_it_is_told_which_weights_made_it() -> None:
    page = evaluation.DOCUMENT.read_text(encoding="utf-8")
    shown = [*evaluation.load(), *evaluation.load(evaluation.TRIALS)]
    assert len(shown) >= 10
    for one in shown:
        assert f"Weights: {one['weights']}." in page


def test_a_report_is_kept_and_shown_with_spread_and_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "EVALUATIONS", tmp_path / "kept")
    monkeypatch.setattr(evaluation, "TRIALS", tmp_path / "trials")
    monkeypatch.setattr(evaluation, "DOCUMENT", tmp_path / "page.md")
    (tmp_path / "report.json").write_text(json.dumps(report()))
    argv = ["add", str(tmp_path / "report.json"), "--name", "one", "--date", "1 May 2026", "--command", "vcam suite"]
    assert evaluation.main(argv) == 0
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert page == evaluation.document(evaluation.load(tmp_path / "kept"))
    for text in (
        "1 May 2026",
        "1.5 ± 0.25 (-8.2 %)",
        "`0123456789abcdef`",
        "policy off",
        "Pictures behind the source: default 1; off 1.",
        "Weights: model embedded: unet fedcba9876543210 (SHA-256",
        "20 (claimed)",
        "102.99",
    ):
        assert text in page, text


def test_of_the_papers_rows_those_with_all_films_are_kept_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "EVALUATIONS", tmp_path / "kept")
    monkeypatch.setattr(evaluation, "TRIALS", tmp_path / "trials")
    monkeypatch.setattr(evaluation, "DOCUMENT", tmp_path / "page.md")
    figures = {"warp_error": 8.0, "edit_strength": 20.0, "sharpness": 700.0, "ghosting": None, "ms": 90.0}
    steadier = figures | {"warp_error": 6.0, "ghosting": 0.125}
    found = {
        "off | a | ink": figures,
        "paper | a | ink": steadier,
        "off | b | ink": figures,
        "paper | b | ink": figures,
    }
    parts = {"model embedded: unet": "fedcba9876543210" * 4, "model embedded: vae": "0" * 64}
    asked = {"frames": 8, "noise": 0, "model": "embedded", "runtime": "eager", "parts": parts}
    (tmp_path / "rows.json").write_text(json.dumps({"asked": asked, "found": found | {"own | a | ink": figures}}))
    argv = [
        "rows",
        str(tmp_path / "rows.json"),
        "--name",
        "rows",
        "--date",
        "1 May 2026",
        "--remark",
        "A busy day.",
    ]
    assert evaluation.main(argv) == 0
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| off | 8 | 20 | 700 | - | 90 |" in page
    assert "| paper | 7 (-12.5 %) | 20 (+0.0 %) | 700 (+0.0 %) | 0.125 | 90 |" in page
    assert "2 translations a row: a, ink; b, ink." in page
    assert "A busy day." in page
    assert "1 May 2026; model embedded. Weights: model embedded: unet fedcba9876543210 (SHA-256" in page
    assert "| own |" not in page


def test_the_default_is_compared_with_the_papers_bank_film_by_film() -> None:
    found = report()
    found["table"] = {"paper": found["table"]["off"], "default": found["table"]["default"]}
    found["asked"]["noise"] = 8.0
    found["rows"] = [
        {
            "clip": clip,
            "profile": "ink",
            "by": by,
            "delay": 1,
            "speed": None,
            "figures": dict.fromkeys(FIGURES, 1.0) | {"warp_error": error},
        }
        for clip, by, error in (
            ("walk.mp4", "paper", 10.0),
            ("walk.mp4", "default", 5.0),
            ("talk.mp4", "paper", 4.0),
            ("talk.mp4", "default", 3.0),
        )
    ]
    page = evaluation.document([evaluation.kept_of(found, "1 May 2026", "vcam suite", "")])
    assert "| 1 profiles, flow dis, noise of sigma 8 added | 2 | -37.5 (-50.0 to -25.0) | +0.0" in page
    assert "| walk.mp4 | 1 | -50.0 (-50.0 to -50.0) |" in page
    assert "| **all** | 2 | -37.5 (-50.0 to -25.0) |" in page
    assert "pixels, noise of sigma 8 added;" in page
