"""The onnx runtime: equal to eager, and clear about what it cannot do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from core.engine import Engine
from core.errors import ModelError, SettingsError
from core.models.description import EMBEDDED
from core.runtimes.choice import resolve
from core.settings import BANK_RULES, BankPreset, EngineSettings, Guidance, Look, Lora, Policy, Provider, Runtime
from tests.support.model_folders import make_folder, parts_of, replace_parts
from tests.support.small_models import TEXT_WIDTH

SMALL, SD15 = 6_000_000, 860_000_000  # numbers of the included model's UNet, about, and of SD 1.5's


def films(settings: EngineSettings, look: Look, frames: int) -> list[np.ndarray]:
    """`frames` translations of a picture that drifts."""
    engine = Engine(settings, look)
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (settings.height // 8 + 2, settings.width // 8 + 8, 3), dtype=np.uint8)
    scene = scene.repeat(8, axis=0).repeat(8, axis=1)
    pictures = [scene[4 : 4 + settings.height, 2 * i : 2 * i + settings.width] for i in range(frames)]
    found = [engine.translate(picture) for picture in pictures]
    return [picture for picture in [*found, *engine.drain()] if picture is not None]


def mean_squares(one: list[np.ndarray], other: list[np.ndarray]) -> list[float]:
    """The mean squared difference of each pair, grey levels squared."""
    return [float(np.square(a.astype(float) - b).mean()) for a, b in zip(one, other, strict=True)]


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": Policy.FIFO, "slots": 1, "steps": 2},
        {"policy": Policy.FIFO, "slots": 3, "steps": 1},
        {"policy": Policy.MERGE, "steps": 2},
        {"policy": Policy.OFF, "steps": 2},
        {"policy": Policy.FIFO, "steps": 4, "guidance": Guidance.FULL},
        {"policy": Policy.FIFO, "steps": 2, "width": 160, "height": 96},
        {"policy": Policy.FIFO, "steps": 2, "width": 144, "height": 112},
    ],
    ids=lambda changes: "-".join(str(value) for value in changes.values()),
)
def test_equals_eager_over_twelve_frames(changes: dict[str, object]) -> None:
    settings = {"width": 128, "height": 128, "device": "cpu", "dtype": "float32"} | changes
    look = Look(prompt="claymation, a person", interval=2, fusion_strength=0.8)
    eager, onnx = (
        films(EngineSettings(runtime=runtime, **settings), look, 12)  # type: ignore[arg-type]
        for runtime in (Runtime.EAGER, Runtime.ONNX)
    )
    assert len(eager) == len(onnx) == 12
    errors = mean_squares(eager, onnx)
    # up to three levels: the detail stage computes in 8 bits; all before it is held to 0.05 by `equals_eager`
    assert max(errors) < 9, errors
    assert eager[-1].std() > 5


def test_a_bank_that_its_graphs_have_not_is_refused_and_auto_takes_eager() -> None:
    paper = EngineSettings(policy=Policy.MERGE, rules=BANK_RULES[BankPreset.PAPER], device="cpu", dtype="float32")
    with pytest.raises(SettingsError, match=r"model's own bank, not fusion at blocks, plain features") as refused:
        Engine(replace(paper, runtime=Runtime.ONNX), Look())
    assert str(refused.value).endswith("; --runtime eager (which auto takes) or compiled runs it")
    resolved = resolve(paper)
    assert resolved.runtime is Runtime.EAGER
    assert "own bank, not fusion at blocks" in resolved.why
    assert resolve(replace(paper, policy=Policy.OFF)).runtime is Runtime.ONNX


def test_knows_the_same_words() -> None:
    engines = [Engine(EngineSettings(runtime=runtime), Look()) for runtime in (Runtime.EAGER, Runtime.ONNX)]
    for prompt in ("", "Claymation, a person!", "xylograph of a zebra", "claymation " * 40):
        assert engines[0].unknown_words(prompt) == engines[1].unknown_words(prompt)
        texts = [engine._model.encoder(prompt) for engine in engines]
        assert float((texts[0] - texts[1]).abs().max()) < 1e-4


def test_weighs_words_and_notes_marks_and_what_is_cut_off_as_eager_does() -> None:
    engines = [Engine(EngineSettings(runtime=runtime), Look()) for runtime in (Runtime.EAGER, Runtime.ONNX)]
    plain = engines[1]._model.encoder("claymation, a person")
    for prompt in ("(claymation:1.4), a person", "claymation, [a person]", "((claymation), a person:0.6)"):
        texts = [engine._model.encoder(prompt) for engine in engines]
        assert float((texts[0] - texts[1]).abs().max()) < 1e-4
        assert float((texts[1] - plain).abs().max()) > 0.01
        assert [engine.prompt_notes(prompt) for engine in engines] == [[], []]
    for prompt, said in (("<lora:x:1> ink AND clay", 2), ("claymation " * 40, 1), ("(ink:9)", 1)):
        notes = [engine.prompt_notes(prompt) for engine in engines]
        assert notes[0] == notes[1]
        assert len(notes[1]) == said


def test_auto_takes_the_graphs_where_they_fit(tmp_path: Path) -> None:
    cpu = EngineSettings(device="cpu")
    assert resolve(cpu).runtime is Runtime.ONNX
    assert resolve(EngineSettings(device="cpu", dtype="bfloat16")).runtime is Runtime.EAGER
    lora = EngineSettings(device="cpu", loras=(Lora("x.safetensors"),))
    assert resolve(lora).runtime is Runtime.EAGER
    assert resolve(EngineSettings(device="cpu", runtime=Runtime.EAGER)).runtime is Runtime.EAGER


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dtype": "bfloat16", "device": "cpu"}, "float32 on the cpu"),
        ({"loras": (Lora("x.safetensors"),)}, "LoRAs need the eager runtime"),
    ],
)
def test_says_what_it_cannot_do(changes: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Engine(EngineSettings(runtime=Runtime.ONNX, **changes), Look())  # type: ignore[arg-type]


def test_broken_or_missing_graphs_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED, folder)
    settings = EngineSettings(model=str(folder), runtime=Runtime.ONNX)
    (folder / "onnx" / "decoder.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"decoder\.onnx: cannot be loaded"):
        Engine(settings, Look())
    (folder / "onnx" / "decoder.onnx").unlink()
    with pytest.raises(ModelError, match="no onnx/ graphs"):
        Engine(settings, Look())


GRAPHS = ("encoder", "decoder", "text_encoder", "unet")


def tiny(folder: Path, seed: int) -> Path:
    """A random model with attention in its only up block, whose export takes seconds."""
    make_folder(folder, seed=seed, description={"fusion": {"places": ["up_blocks.0"], "threshold": 0.2}})
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D",),
        mid_block_type=None,
        up_block_types=("CrossAttnUpBlock2D",),
        block_out_channels=(16,),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=TEXT_WIDTH,
    )
    for name, weight in unet.named_parameters():  # biases are born zero, norms one, which would match anything
        weight.data += 0.1 * torch.randn_like(weight) * (1 if weight.dim() == 1 else 0)
        assert weight.isfinite().all(), name
    unet.save_pretrained(folder / "unet")
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from core.runtimes.onnx.export import export

    folder = tiny(tmp_path_factory.mktemp("exported") / "model", seed=0)
    export(folder)
    return folder


def equals_eager(folder: Path, steps: int = 2) -> None:
    look = Look(prompt="ink", interval=2)
    eager, onnx = (
        films(
            EngineSettings(model=str(folder), width=96, height=64, steps=steps, runtime=runtime, device="cpu"), look, 7
        )
        for runtime in (Runtime.EAGER, Runtime.ONNX)
    )
    assert len(eager) == len(onnx) == 7
    assert max(mean_squares(eager, onnx)) < 0.05
    assert eager[-1].std() > 5


def test_an_exported_model_equals_eager(exported: Path) -> None:
    assert resolve(EngineSettings(model=str(exported), device="cpu")).runtime is (Runtime.ONNX)
    equals_eager(exported)


def test_other_weights_need_no_other_graphs(exported: Path, tmp_path: Path) -> None:
    other = tiny(tmp_path / "other", seed=1)
    shutil.copytree(exported / "onnx", other / "onnx")
    equals_eager(other)


def test_no_number_of_the_weights_is_in_the_graphs(exported: Path) -> None:
    import onnx
    from onnx import numpy_helper

    for graph in GRAPHS:
        proto = onnx.load(str(exported / "onnx" / f"{graph}.onnx"), load_external_data=False).graph
        referred = [constant for constant in proto.initializer if constant.data_location]
        assert len(referred) > 10, graph
        for constant in (constant for constant in proto.initializer if not constant.data_location):
            values = numpy_helper.to_array(constant)
            if values.dtype != np.float32 or values.size == 1:
                continue
            # what is left: the norms' ones and zeros, upsampling's twos, the causal mask, the timestep's frequencies
            frequencies = 10_000 ** (-np.arange(values.size) / values.size)
            plain = set(np.unique(values)) <= {0, 1, 2, np.finfo(np.float32).min}
            assert plain or np.allclose(values.ravel(), frequencies), constant.name


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("vae/config.json", {"scaling_factor": 3.0}),
        ("unet/config.json", {"attention_head_dim": 4}),
        ("streamv2v.json", {"fusion": {"places": []}}),
    ],
)
def test_graphs_of_another_configuration_are_refused(
    exported: Path, tmp_path: Path, part: str, change: dict[str, object]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    path = folder / part
    # another way of writing the same is no change
    path.write_text(
        json.dumps(json.loads(path.read_text()) | ({} if part == "streamv2v.json" else {"_by": "x"}), indent=7)
    )
    Engine(EngineSettings(model=str(folder), width=64, height=64, runtime=Runtime.ONNX), Look())
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match="made for another configuration"):
        Engine(EngineSettings(model=str(folder), width=64, height=64, runtime=Runtime.ONNX), Look())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "not of version 2"),
        ('{"version": 1}', "not of version 2"),
        ('{"version": 2, "factor": 8}', "folded, layout, length, made_for, weights missing"),
    ],
)
def test_a_broken_manifest_is_named(exported: Path, tmp_path: Path, content: str, said: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    (folder / "onnx" / "graphs.json").write_text(content)
    with pytest.raises(ModelError, match=rf"graphs\.json: {said}.*export the graphs again"):
        Engine(EngineSettings(model=str(folder), width=64, height=64, runtime=Runtime.ONNX), Look())


def test_a_manifest_that_does_not_fit_the_weights_is_named(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    path = folder / "onnx" / "graphs.json"
    whole = json.loads(path.read_text())
    for name in ("conv_nowhere.weight", "conv_in.weight:1x2"):
        path.write_text(json.dumps(whole | {"weights": whole["weights"] | {"unet": [name]}}))
        with pytest.raises(ModelError, match="does not fit the weights"):
            Engine(EngineSettings(model=str(folder), width=64, height=64, runtime=Runtime.ONNX), Look())


def test_a_broken_tokenizer_is_named(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer: cannot be loaded"):
        Engine(EngineSettings(model=str(folder), width=64, height=64, runtime=Runtime.ONNX), Look())


def test_between_the_calls_one_thread_is_enough(exported: Path) -> None:
    engine = Engine(EngineSettings(model=str(exported), width=64, height=64, runtime=Runtime.ONNX), Look())
    net, threads = parts_of(engine).net, []

    def watched(*args: Any) -> Any:
        threads.append(torch.get_num_threads())
        return net(*args)

    replace_parts(engine, net=watched)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        engine.translate(np.zeros((64, 64, 3), np.uint8))
        assert (threads, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("weights", "steps", "guidance", "threads", "expected"),
    [
        (SMALL, 1, Guidance.NONE, 1, ((1, 1, 1), 1, False)),
        (SMALL, 1, Guidance.NONE, 2, ((2, 1, 1), 1, True)),
        (SMALL, 2, Guidance.NONE, 2, ((2, 1, 2), 2, False)),
        (SMALL, 4, Guidance.FULL, 2, ((2, 1, 2), 2, False)),
        (SMALL, 1, Guidance.FULL, 2, ((2, 1, 1), 2, True)),
        (SMALL, 1, Guidance.NONE, 8, ((8, 4, 4), 1, True)),
        (SMALL, 2, Guidance.NONE, 7, ((7, 2, 7), 2, False)),
        # what works at the moment has every core: nothing else runs beside the UNet of SD 1.5 most of the time
        (SD15, 1, Guidance.NONE, 1, ((1, 1, 1), 1, False)),
        (SD15, 1, Guidance.NONE, 2, ((2, 2, 2), 1, True)),
        (SD15, 2, Guidance.NONE, 2, ((2, 2, 2), 2, False)),
    ],
)
def test_how_the_threads_are_shared(
    weights: int, steps: int, guidance: Guidance, threads: int, expected: tuple[tuple[int, int, int], int, bool]
) -> None:
    from core.runtimes.onnx.runtime import _divided

    threads_of = _divided(EngineSettings(steps=steps, guidance=guidance, provider=Provider.CPU), threads, weights)
    apart = tuple(threads_of.sessions[graph] for graph in ("encoder", "unet", "decoder"))
    assert (apart, threads_of.workers, threads_of.beside) == expected
    assert not threads_of.rows_at_once


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("steps", [2, 3, 4])
def test_rows_that_are_shared_by_threads_keep_their_order(exported: Path, steps: int) -> None:
    equals_eager(exported, steps)


@pytest.mark.usefixtures("two_threads")
def test_with_one_step_a_picture_is_decoded_while_the_next_is_begun(exported: Path) -> None:
    def make(runtime: Runtime, steps: int = 1, look: Look | None = None) -> Engine:
        settings = EngineSettings(model=str(exported), width=64, height=64, runtime=runtime, steps=steps)
        return Engine(settings, look or Look(prompt="ink", interval=2))

    pictures = list(np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8))
    plain, engine = make(Runtime.EAGER), make(Runtime.ONNX)
    assert (plain.delay, engine.delay, make(Runtime.ONNX, 2).delay) == (0, 1, 1)
    for _ in range(2):  # what was drained starts anew
        expected = [plain.translate(picture) for picture in pictures]
        found = [engine.translate(picture) for picture in pictures]
        assert found.pop(0) is None
        found += list(engine.drain())
        list(plain.drain())
        plain.forget()
        assert max(mean_squares(expected, found)) < 0.05  # type: ignore[arg-type]
    engine.translate(pictures[0])
    assert engine.imagine() is None  # not what was translated before
    assert mean_squares([engine.imagine()], [plain.imagine()])[0] < 0.05  # type: ignore[list-item]


@pytest.mark.usefixtures("two_threads")
def test_a_decoder_that_fails_beside_is_told(exported: Path) -> None:
    engine = Engine(EngineSettings(model=str(exported), width=64, height=64, runtime=Runtime.ONNX, steps=1), Look())

    def broken(latent: torch.Tensor, source: object) -> np.ndarray:
        raise RuntimeError("out of memory")

    replace_parts(engine, decode=broken)
    assert engine.translate(np.zeros((64, 64, 3), np.uint8)) is None
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.translate(np.zeros((64, 64, 3), np.uint8))


def test_a_layer_that_is_no_level_of_the_picture_is_refused() -> None:
    from core.runtimes.onnx.export import _halved

    assert [_halved(tokens) for tokens in (4096, 1024, 64)] == [0, 1, 3]
    with pytest.raises(ModelError, match="5 tokens at 64x64 latents is no power-of-two level"):
        _halved(5)


def test_only_a_tiny_autoencoder_can_be_exported(tmp_path: Path) -> None:
    from core.runtimes.onnx.export import export

    folder = make_folder(tmp_path / "model", kl=True)
    with pytest.raises(ModelError, match="only an AutoencoderTiny can be exported"):
        export(folder)
    assert not (folder / "onnx").exists()


@pytest.mark.slow
def test_the_graphs_shipped_are_what_export_writes(tmp_path: Path) -> None:
    """A change of the model's definition without a new export would be a silent difference."""
    from core.runtimes.onnx.export import export

    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED, folder, ignore=shutil.ignore_patterns("onnx"))
    export(folder)
    for name in ("graphs.json", *(f"{graph}.onnx" for graph in (*GRAPHS, "detail"))):
        assert (folder / "onnx" / name).read_bytes() == (EMBEDDED / "onnx" / name).read_bytes(), name
