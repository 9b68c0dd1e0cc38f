"""The text encoder that needs no transformers: the same as transformers' own, file by file and prompt by prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from core.errors import ModelError
from core.models.clip import load_clip
from core.models.loading import banked, load_parts, quiet
from core.models.stored_weights import StoredWeights
from core.runtimes.tensorrt.beside import PlanWeights, TextLayers, TextParts
from core.settings import Lora, Policy
from tests.support.lora_files import TEXT, kohya, random_change
from tests.support.model_folders import as_given, make_folder, make_sdxl_folder, settings
from tests.support.tensorrt_model import tiny_unet

CROSSING = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
CPU = torch.device("cpu")
PROMPTS = (
    "",
    "ink person",
    "a (clay:1.3) of ink and clay, ink, clay, person and ink and clay, person",
    "nothing",
)


def text_folder(folder: Path, *, pooled: bool = False, **changes: Any) -> Path:
    """A model folder that has a text encoder alone."""
    plain = {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    more = {"num_attention_heads": 4, "max_position_embeddings": 12, "projection_dim": 20, "eos_token_id": 98}
    config = CLIPTextConfig(**plain | more | {"bos_token_id": 1, "pad_token_id": 98} | changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = CLIPTextModelWithProjection(config) if pooled else CLIPTextModel(config)
        for value in made.parameters():
            value.data = torch.randn_like(value) * 0.2  # biases are zero otherwise
    made.save_pretrained(folder / ("text_encoder_2" if pooled else "text_encoder"))
    return folder


@pytest.mark.parametrize("changes", [{}, {"hidden_act": "gelu"}, {"layer_norm_eps": 1e-2}])
def test_it_gives_what_transformers_gives(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = text_folder(tmp_path, **changes)
    ids = torch.tensor([[1, 7, 50, 3, 98, 98, 98, 98, 98, 98, 98, 98]])
    theirs = CLIPTextModel.from_pretrained(folder / "text_encoder")(ids, output_hidden_states=True)
    ours = load_clip(folder, "text_encoder", torch.float32, CPU)(ids)
    torch.testing.assert_close(ours.last, theirs.last_hidden_state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.before_last, theirs.hidden_states[-2], rtol=1e-5, atol=1e-5)
    assert ours.pooled is None


@pytest.mark.parametrize("end", [98, 2])
def test_it_pools_where_the_text_ends(tmp_path: Path, end: int) -> None:
    """An eos_token_id of 2, as older files have it, means the largest token."""
    folder = text_folder(tmp_path, pooled=True, eos_token_id=end)
    ids = torch.tensor([[1, 2, 50, 98, 7, 98, 3, 2, 2, 2, 2, 2]])
    theirs = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2")(ids, output_hidden_states=True)
    ours = load_clip(folder, "text_encoder_2", torch.float32, CPU)(ids)
    assert ours.pooled is not None
    torch.testing.assert_close(ours.pooled, theirs.text_embeds, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.before_last, theirs.hidden_states[-2], rtol=1e-5, atol=1e-5)


def test_files_of_older_versions_have_a_prefix(tmp_path: Path) -> None:
    folder = text_folder(tmp_path)
    ids = torch.arange(12)[None]
    file = folder / "text_encoder" / "model.safetensors"
    before = load_clip(folder, "text_encoder", torch.float32, CPU)(ids).last
    plain = {name.removeprefix("text_model."): value for name, value in load_file(file).items()}
    for prefix in ("", "text_model."):
        save_file({f"{prefix}{name}": value for name, value in plain.items()}, file, {"format": "pt"})
        assert torch.equal(load_clip(folder, "text_encoder", torch.float32, CPU)(ids).last, before)


@pytest.mark.parametrize(
    ("key", "value"), [("num_hidden_layers", 4), ("hidden_act", "unheard-of"), ("num_attention_heads", 5)]
)
def test_weights_of_another_shape_are_refused(tmp_path: Path, key: str, value: object) -> None:
    folder = text_folder(tmp_path)
    path = folder / "text_encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ModelError, match=r"text_encoder: the weights do not fit its config.json .*; fetch the model"):
        load_clip(folder, "text_encoder", torch.float32, CPU)


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("with_lora", [False, True])
def test_a_plan_gets_of_a_prompt_what_eager_gets(tmp_path: Path, kind: str, *, with_lora: bool) -> None:
    """Its embedding and what the cross-attentions make of it, with LoRAs and without; notes too."""
    folder = (make_folder if kind == "sd" else make_sdxl_folder)(tmp_path / "m")
    change = random_change(folder, 1, CROSSING, TEXT)
    loras = (Lora(str(kohya(change, tmp_path / "one.safetensors"))),) if with_lora else ()
    resolved = as_given(settings(folder, device="cpu", dtype="float32", policy=Policy.FIFO, loras=loras))
    ours = TextParts(resolved, CPU)
    with quiet():
        theirs = load_parts(resolved)
        net = banked(theirs.unet, resolved)
    crossing = net.cross_attention(theirs.encoder("ink"))
    layers = TextLayers(crossing, ours.weights, ours.pooled, CPU)
    for prompt in PROMPTS:
        text = theirs.encoder(prompt)
        torch.testing.assert_close(ours.encoder(prompt), text, rtol=1e-4, atol=1e-5)
        assert ours.encoder.notes(prompt) == theirs.encoder.notes(prompt)
        assert ours.encoder.unknown_words(prompt) == theirs.encoder.unknown_words(prompt)
        for layer, value in net.cross_attention(text).items():
            torch.testing.assert_close(layers(text)[layer], value, rtol=1e-4, atol=1e-5)
    assert len(ours.originals) == len(theirs.originals) == 2 * len(loras)


def test_what_a_lora_can_change_is_the_same_as_in_eager(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m", unet=tiny_unet())
    resolved = as_given(settings(folder, device="cpu", dtype="float16"))
    with quiet():
        theirs = load_parts(resolved).weights
    ours = TextParts(resolved, CPU).weights

    def plain(name: str) -> str:
        return name.replace("text_encoder.text_model.", "text_encoder.")

    assert {plain(name): value.shape for name, value in theirs.items()} == {
        plain(name): value.shape for name, value in ours.items()
    }
    assert all(torch.equal(value, ours[plain(name)]) for name, value in theirs.items())


def test_a_weight_that_the_engine_asks_for_must_be_there(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m", unet=tiny_unet())
    weights = PlanWeights({}, StoredWeights(folder / "unet", torch.float32))
    with pytest.raises(ModelError, match=r"has no weight unet\.of\.nobody\.to_k\.weight, which its engine asks for"):
        TextLayers(["of.nobody"], weights, 0, CPU)
