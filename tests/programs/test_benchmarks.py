"""benchmarks/: what is published is made of what was measured; the peer is a fair one; the GPU's script runs."""

from __future__ import annotations

import copy
import functools
import importlib
import itertools
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks import bank_rows, faces, gpu, random_model, report, scale_model, second_start, side_by_side, wheels
from benchmarks.paper_way import PaperAttention, PaperNet
from benchmarks.rig import PROMPT, Run
from core.algorithm import stream
from core.algorithm.unet import BankedUNet, default_places, layout
from core.engine import Engine
from core.measure import flops
from core.models.description import ModelDescription, describe
from core.models.resolved import Resolved
from core.runtimes.choice import resolve
from core.runtimes.tensorrt import readiness
from core.settings import BANK_RULES, BankPreset, EngineSettings, Guidance, Look, Policy, Runtime
from tests.support import trt_stand_in
from tests.support.model_folders import make_folder
from tests.support.small_models import DEVICE, LATENT, moving_latents, random_text, small_unet
from tests.support.small_sampling import sampling
from tests.support.tensorrt_model import tiny_unet

ROOT = Path(__file__).parents[2]


def test_the_model_of_many_cameras_is_what_its_assumptions_make() -> None:
    page = scale_model.PAGE.read_text(encoding="utf-8")
    assert scale_model.page() == page
    for assumed in (value for value in vars(scale_model).values() if isinstance(value, scale_model.Assumption)):
        assert assumed.name in page
        assert assumed.source in page


def test_the_page_is_what_the_results_make() -> None:
    assert report.document(report.load()) == report.DOCUMENT.read_text(encoding="utf-8")


def test_a_page_groups_machines_and_says_a_setting_once() -> None:
    first = {
        "machine": "A",
        "date": "today",
        "setting": "x",
        "tables": [{"title": "T", "columns": ["c"], "rows": [["1"]]}],
    }
    second = {
        "machine": "A",
        "date": "today",
        "setting": "x",
        "tables": [{"title": "U", "command": "do", "after": ["z"]}],
    }
    page = report.document([first, second, {**first, "machine": "B"}])
    assert page.count("today; x.") == 2
    assert [line for line in page.splitlines() if line.startswith("#")] == [
        "# Measured",
        "## A",
        "### T",
        "### U: `do`",
        "## B",
        "### T",
    ]
    assert "| c |\n|---|\n| 1 |\n" in page


@torch.inference_mode()
def test_the_peer_does_what_the_engine_does_where_both_do_the_same() -> None:
    # one step and a queue of one, every frame kept: what is concatenated is what lies in our ring
    own, unet = sampling(Policy.FIFO, 1)._replace(interval=1, threshold=0.6), small_unet(0)
    places = default_places(unet)
    ours = BankedUNet(copy.deepcopy(unet), places)
    peer = PaperNet(unet, policy=Policy.FIFO, slots=1, interval=1, strength=0.75, threshold=0.6)
    shapes = layout(unet.config, places, 8, 8)
    state, other = (
        stream.initial_state(one, 1, 1, Guidance.NONE, LATENT, torch.float64, DEVICE) for one in (shapes, {})
    )
    for latent in moving_latents(1, 5):
        expected, state = stream.step(ours, own, state, latent[None])
        found, other = stream.step(peer, own, other, latent[None])
        torch.testing.assert_close(found, expected)


@torch.inference_mode()
@pytest.mark.parametrize(("policy", "slots", "frames"), [(Policy.FIFO, 2, 2), (Policy.MERGE, 1, 1), (Policy.OFF, 1, 0)])
def test_the_peers_bank_grows_to_what_the_paper_says(policy: Policy, slots: int, frames: int) -> None:
    peer = PaperNet(small_unet(0), policy=policy, slots=slots, interval=1, strength=0.75, threshold=0.6)
    for latent in moving_latents(1, 4):
        peer(latent[None], torch.tensor([499]), random_text(2)[None], {}, None)
    held = [p.keys for p in peer.unet.attn_processors.values() if isinstance(p, PaperAttention)]
    assert {len(keys) for keys in held} == {frames}
    assert {key.shape[1] for keys in held for key in keys} == ({64, 16, 4, 1} if frames else set())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model.make(tmp_path_factory.mktemp("random") / "model", random_model.SMALL)


def test_a_random_model_is_one_that_an_engine_takes(folder: Path) -> None:
    engine = Engine(
        EngineSettings(str(folder), 64, 64, steps=1, policy=Policy.FIFO, runtime=Runtime.EAGER), Look("ink")
    )
    grey = torch.arange(64 * 64 * 3).remainder(251).to(torch.uint8).view(64, 64, 3).numpy()
    shown = engine.translate(grey)
    assert shown is not None
    assert shown.std() > 1
    assert engine.unknown_words("a claymation zebra") == ["zebra"]
    stages = engine.stages(grey, repeats=2)
    assert list(stages) == ["copy in", "encode", "unet", "bank", "decode", "copy out"]
    assert stages["unet"] > 0


def test_a_random_model_of_sdxls_kind_is_one_too(tmp_path: Path) -> None:
    small, turbo = random_model.SMALL, random_model.SDXL_TURBO
    conditions = {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 6 * 8 + 16}
    shape = small._replace(
        unet=small.unet | {"cross_attention_dim": 32, "addition_embed_type": "text_time"} | conditions,
        text_encoder_2=small.text_encoder | {"projection_dim": 16},
        own=turbo.own,
    )
    model = random_model.make(tmp_path / "model", shape, dtype=torch.float16)
    weights = load_file(model / "unet" / "diffusion_pytorch_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    wanted = EngineSettings(str(model), 64, 64, steps=1, policy=Policy.MERGE, runtime=Runtime.EAGER, dtype="float32")
    shown = Engine(wanted, Look("ink")).translate(torch.arange(64 * 64 * 3).to(torch.uint8).view(64, 64, 3).numpy())
    assert shown is not None
    assert shown.std() > 1


def test_the_arithmetic_of_the_full_shape_is_that_of_the_published_model(folder: Path, tmp_path: Path) -> None:
    shape = random_model.FULL
    for part, config, kind in (
        ("unet", shape.unet, "UNet2DConditionModel"),
        ("vae", shape.vae, "AutoencoderTiny"),
        ("text_encoder", shape.text_encoder, "CLIPTextModel"),
    ):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps({**config, "_class_name": kind}))
    own = ModelDescription("full", tmp_path)
    plain, banked = (
        flops.frame_flops(Resolved(own, EngineSettings(width=512, height=512, steps=1, policy=policy)))
        for policy in (Policy.OFF, Policy.MERGE)
    )
    # 803 GFLOP for a row of Stable Diffusion 1.5 without a bank, 926 with one, 122 and 141 for TAESD's halves; the
    # text's keys and values, 3 GFLOP a row, are not worked out for every frame
    assert plain == pytest.approx(803e9 + 263e9, rel=0.01)
    assert banked == pytest.approx(926e9 + 263e9, rel=0.01)


def test_a_model_that_fuses_nowhere_is_counted_as_such(folder: Path) -> None:
    """An empty list of places means none; it was taken for the paper's."""
    own = describe(str(folder))
    settings = EngineSettings(str(folder), width=64, height=64, steps=1, policy=Policy.FIFO)
    paper, nowhere = (flops.frame_flops(Resolved(replace(own, places=places), settings)) for places in (None, ()))
    assert nowhere < paper


def test_what_was_measured_on_a_gpu_is_told_as_far_as_it_came() -> None:
    def row(bank: str, way: str, p50_ms: float) -> dict[str, object]:
        return {
            "size": 512,
            "steps": 4,
            "bank": bank,
            "slots": 1,
            "way": way,
            "ready_s": 61.0,
            "fps": 1000 / p50_ms,
            "p50_ms": p50_ms,
            "p95_ms": p50_ms,
            "floor_ms": 5.0,
            "floor_share": 5 / p50_ms,
        }

    raw = {
        "facts": {"gpu": "A card", "processor": "A processor", "torch": "2.13.0"},
        "run": {"model": "/here/model", "size": 512, "dtype": "float16"},
        "speed": [row("off", "compiled", 10.0), row("merge", "compiled", 11.0), row("merge", "paper", 55.0)],
        "sizes": [row("merge", "paper", 55.0) | {"size": 768, "error": "OutOfMemoryError: none left"}],
        "stages": {"error": "OutOfMemoryError: none left"},
    }
    page = report.document([report.of_gpu(raw, "today")])
    assert "## A card" in page
    assert "/here" not in page
    assert "| 512x512 | 4 | merge | ours, compiled | 90.9 | 11.00 | 11.00 | 5.00 | 45% | 61 |" in page
    assert "| 768x768 | 4 | merge | the paper's, eager | OutOfMemoryError | - | - | - | - | - |" in page
    assert "4 steps, compiled: merging costs 10% over no bank." in page
    assert "4 steps, merging: compiled is 5.0 times as fast as the paper's way." in page
    assert "stages: OutOfMemoryError: none left" in page


def test_wheels_are_imported_without_being_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    with zipfile.ZipFile(tmp_path / "brought_along-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("brought_along/__init__.py", "answer = 42\n")
    gpu.unpack(tmp_path, tmp_path / "site")
    assert importlib.import_module("brought_along").answer == 42


def test_a_run_that_was_cut_short_goes_on_where_it_was(tmp_path: Path) -> None:
    run = Run("model", "cpu", "float32", 64, 3, 4, 20, smoke=True, until_s=0)
    began = {"facts": {"processor": "one"}, "run": vars(run)}
    out = tmp_path / "gpu.json"
    assert gpu.resumed(out, began) is began
    out.write_text(json.dumps({"raw": began | {"parity": {"least": 40.0}}}))
    assert gpu.resumed(out, began)["parity"] == {"least": 40.0}
    with pytest.raises(SystemExit, match="on another machine"):
        gpu.resumed(out, began | {"facts": {"processor": "other"}})


def test_engines_take_turns_each_round_the_other_way_round() -> None:
    asked: list[tuple[str, int]] = []
    engines = {name: functools.partial(lambda name, picture: asked.append((name, picture)), name) for name in "abc"}
    pictures = itertools.count()
    ticks = itertools.count(1)

    def clock(run: Callable[..., object]) -> side_by_side.Taken:
        run()
        return side_by_side.Taken(next(ticks), 1.0)

    taken = side_by_side.take_turns(engines, lambda: next(pictures), 2, clock)  # type: ignore[arg-type]
    assert asked == [("a", 0), ("b", 0), ("c", 0), ("c", 1), ("b", 1), ("a", 1)]
    assert {name: [one.wall for one in own] for name, own in taken.items()} == {"a": [1, 6], "b": [2, 5], "c": [3, 4]}


def test_a_ratio_counts_what_comes_rarely_and_says_how_sure_it_is() -> None:
    steady = [side_by_side.Taken(10.0, 20.0)] * 40
    jerky = [side_by_side.Taken(20.0 if number % 4 == 0 else 10.0, 25.0) for number in range(40)]
    found = side_by_side.figures(jerky, steady, np.random.default_rng(0))
    assert (found.median, found.largest_over_median, found.ratio, found.cpu_ratio) == (10.0, 2.0, 1.25, 1.25)
    assert 1.1 < found.between[0] < 1.25 < found.between[1] < 1.4


def test_a_merge_that_jerks_and_a_bank_that_costs_too_much_are_called_broken_promises() -> None:
    def at(ratio: float, largest: float) -> side_by_side.Figures:
        return side_by_side.Figures(10.0, (9.0, 11.0), largest, ratio, (ratio, ratio), ratio)

    rows = {"plain": at(1.0, 1.3), "another's": at(2.0, 2.0), "eager, off": at(0.9, 1.02)}
    rows |= {"eager, fifo": at(0.93, 1.04), "eager, merge": at(0.963, 1.2)}
    found = {one.what: (round(one.found, 3), one.most) for one in side_by_side.promises(rows, 256)}
    assert found == {
        "eager, off over the plain loop": (0.9, 1.03),
        "eager, off, largest frame over the median": (1.02, 1.05),
        "eager, fifo, largest frame over the median": (1.04, 1.05),
        "eager, merge, largest frame over the median": (1.2, 1.05),
        "eager, merge over off": (1.07, 1.04),
        "eager, fifo over merge": (0.966, 1.0),
    }
    told = [one.told.split(":")[0] for one in side_by_side.promises(rows, 512)]
    assert told == ["holds", "holds", "holds", "FAILS", "holds", "holds"]


def test_a_mean_over_faces_says_how_well_it_is_known() -> None:
    assert faces.summary([0.02, 0.04, None, 0.03]) == {"found": 75.0, "error": 0.03, "doubt": 0.0058}
    assert faces.summary([None]) == {"found": 0.0, "error": 1.0, "doubt": 1.0}


def test_faces_are_looked_for_in_the_profiles_whole_look(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text('name = "One"\n[look]\nprompt = "ink"\nstrength = 0.4\ndetail = 0.1\n')
    assert faces.looks(tmp_path) == {"one": Look("ink", strength=0.4, detail=0.1)}


def test_rounds_end_with_the_time_that_is_given_but_one_is_always_taken() -> None:
    taken = side_by_side.take_turns({"a": print}, lambda: None, 5, lambda _: side_by_side.Taken(1.0, 1.0), until_s=0.0)  # type: ignore[arg-type,return-value]
    assert len(taken["a"]) == 1


@pytest.mark.parametrize("paper", [True, False])
def test_the_papers_way_can_be_left_out(folder: Path, paper: bool) -> None:
    run = Run(str(folder), "cpu", "float32", 64, 1, 0, 0, smoke=True, until_s=float("inf"))
    found = side_by_side.contenders(run, 1, [Runtime.EAGER], [Policy.MERGE], {}, paper=paper)
    assert list(found) == ["plain", *["paper's way, merge"] * paper, "eager, merge"]
    assert side_by_side.arguments(["--without-paper"] * (not paper)).without_paper is not paper


@torch.inference_mode()
@pytest.mark.parametrize("steps", [1, 2])
def test_the_plain_loop_shows_what_the_engine_shows_without_a_bank(folder: Path, steps: int) -> None:
    settings = EngineSettings(str(folder), 64, 64, steps, Policy.OFF, runtime=Runtime.EAGER)
    resolved = resolve(settings)
    plain, ours = side_by_side.plain(resolved), Engine(settings, Look(PROMPT, strength=resolved.description.strength))
    for number in range(3):
        picture = torch.arange(64 * 64 * 3).mul(number + 1).remainder(251).to(torch.uint8).view(64, 64, 3).numpy()
        found, expected = plain(picture), ours.translate(picture)
        if expected is not None:
            assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.slow
def test_wheels_in_parts_are_whole_again_or_told_not_to_be(tmp_path: Path) -> None:
    made, out = tmp_path / "made", tmp_path / "out"
    made.mkdir()
    with zipfile.ZipFile(made / "large-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("large.py", np.random.default_rng(0).bytes(3000))
    with zipfile.ZipFile(made / "small-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("small.py", "")
    written = wheels.split(made, out, 1000)
    assert all(one.stat().st_size <= 1000 for one in written)
    second = out / "large-1-py3-none-any.whl.part01"
    whole = second.read_bytes()
    second.write_bytes(whole[:-1] + b"?")
    with pytest.raises(SystemExit, match=r"large-1-py3-none-any\.whl is not whole: 4 parts"):
        wheels.join(out)
    second.write_bytes(whole)
    gpu.unpack(out, tmp_path / "site")
    sys.path.remove(str(tmp_path / "site"))
    assert {one.name for one in out.iterdir()} == {one.name for one in made.iterdir()}
    assert all((out / one.name).read_bytes() == one.read_bytes() for one in made.iterdir())
    assert {one.name for one in (tmp_path / "site").iterdir()} == {"large.py", "small.py"}


def test_the_gpus_script_runs_through(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    subprocess.run([sys.executable, "benchmarks/gpu.py", "--smoke", "--out", str(out)], cwd=ROOT, check=True)
    found = json.loads(out.read_text())
    assert {"facts", *gpu.PARTS} <= found["raw"].keys()
    assert not [part for part in found["raw"].values() if isinstance(part, dict) and "error" in part]
    assert not [row for part in ("speed", "experiments") for row in found["raw"][part] if "error" in row]
    assert {row["way"] for row in found["raw"]["speed"]} == {"compiled", "paper", "eager"}
    assert report.document([found])


@pytest.mark.slow
def test_the_gpus_script_measures_tensorrt_for_rtx_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the stand-in for the library: that the script builds, verifies and times its engines."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", trt_stand_in.module("1.7.1.116", "tensorrt_rtx"))
    monkeypatch.setattr(readiness, "DEVICES", ("cuda", "cpu"))
    monkeypatch.setenv("VCAM_ENGINES_FOLDER", str(tmp_path / "engines"))
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # the script sets it too, for good
    out = tmp_path / "gpu.json"
    assert gpu.main(["--smoke", "--out", str(out), "--parts", "speed"]) == 0
    rows = [row for row in json.loads(out.read_text())["raw"]["speed"] if row["way"] == "tensorrt"]
    assert {row["bank"] for row in rows} == {"merge", "fifo"}
    assert {row["library"] for row in rows} == {"TensorRT for RTX 1.7.1.116"}


@pytest.mark.slow
def test_a_second_start_is_measured_part_by_part(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = make_folder(tmp_path / "tiny", description={}, unet=tiny_unet())
    options = ["--model", str(model), "--size", "64x64", "--steps", "1", "--bank", "off", "--rounds", "1"]
    second_start.main([*options, "--stand-in"])
    told = json.loads(capfd.readouterr().out)
    parts = {"imports", "looked up", "the model's parts", "the engine's bytes and hash", "library"}
    assert told.keys() == parts | {"whole", "ours"}
    assert 0 < told["ours"] < told["whole"]


def test_transitions_are_measured_with_each_bank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import imagine

    folder = random_model.make(tmp_path / "model", random_model.SHAPES["small"])
    given = ["--size", "64", "--frames", "6", "--transition", "2", "--wander", "0", "--strip", str(tmp_path / "a.png")]
    assert imagine.main([str(folder), *given]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["bank"] for row in found["rows"]] == ["off", "fifo", "merge"]
    off = found["rows"][0]
    assert off["largest"] >= off["mean"] > off["rest"] == 0
    assert (tmp_path / "a.png").stat().st_size > 0


def test_every_row_of_the_paper_is_one_that_an_engine_takes() -> None:
    for name, row in bank_rows.ROWS.items():
        settings = EngineSettings(policy=row.policy or Policy.FIFO, slots=row.slots or 1, rules=row.rules)
        look = Look(**dict(row.look))
        assert settings.policy is not Policy.MERGE or settings.ring_slots == 1, name
        assert 0 < look.strength <= 1
        assert "," not in name, "it separates the names of --rows"
    assert bank_rows.ROWS["paper"].rules == BANK_RULES[BankPreset.PAPER]


def test_a_rows_means_leave_out_what_was_not_measured() -> None:
    plain: dict[str, float | None] = dict.fromkeys(bank_rows.FIGURES, 1.0)
    found = {"off | a | x": plain, "off | b | x": plain | {"ghosting": None, "ms": 3.0}, "own | a | x": plain}
    assert bank_rows.means(found, ["off"]) == {"off": plain | {"ms": 2.0}}


def test_a_frames_products_are_counted_by_their_shapes() -> None:
    from benchmarks.frame_costs import Products, floor_ms, table

    counter = Products()
    with torch.inference_mode(), counter:
        picture = torch.randn(1, 3, 16, 16)
        torch.nn.functional.conv2d(picture, torch.randn(8, 3, 3, 3), padding=1)
        torch.nn.functional.conv_transpose2d(torch.randn(1, 8, 8, 8), torch.randn(8, 4, 4, 4), stride=2, padding=1)
        torch.nn.functional.linear(torch.randn(1, 5, 7), torch.randn(9, 7), torch.randn(9))
        features = torch.randn(1, 2, 10, 4)
        torch.nn.functional.scaled_dot_product_attention(features, features, features)
    assert counter.found == {
        (256, 27, 8): 1,
        (64, 8, 64): 1,
        (5, 7, 9): 1,
        (10, 4, 10): 2,
        (10, 10, 4): 2,
    }
    assert floor_ms(counter.found) > 0
    rows = table({"whole": 10.0, "encode": 2.0, "rows": 6.0}, {"encode": 1.0, "rows": 3.0}, {"around": 1.0})
    assert [row[0] for row in rows] == ["encode", "rows", "the rest of the frame", "the frame", "around"]
    assert rows[3] == ["the frame", "10.00", "100%", "4.00", "40%"]
