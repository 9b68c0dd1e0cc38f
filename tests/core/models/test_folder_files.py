"""A model folder runs no code and raises nothing but ModelError, whatever its JSON holds."""

from __future__ import annotations

import inspect
import io
import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from transformers import CLIPTextConfig

from core.errors import ModelError, StreamV2VError
from core.models.description import EMBEDDED, describe
from core.models.folder_files import DEEPEST, LARGEST, PART_KEYS, known_config, read_json
from core.models.tokenizer import load_tokenizer
from core.runtimes.onnx.runtime import read_manifest
from tests.support.model_faults import Fault, faults, files_of
from tests.support.model_folders import load_model, make_folder, settings

pytestmark = pytest.mark.usefixtures("quick_layout")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("models") / "small", description={"steps": 2})


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        describe(str(folder))
    return str(caught.value).replace("\\", "/")


@pytest.mark.parametrize("name", ["pipeline.py", "tokenizer/tokenization_mine.py", "unet/unet.py", "vae/x.pyc"])
def test_a_folder_with_code_is_refused_by_the_files_name(folder: Path, name: str) -> None:
    (folder / name).write_text("raise SystemExit('it ran')")
    assert name in refused(folder)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("tokenizer/tokenizer_config.json", "auto_map", {"AutoTokenizer": ["mine.Mine", None]}),
        ("text_encoder/config.json", "auto_map", {"AutoModel": "mine.Mine"}),
        ("text_encoder/config.json", "_attn_implementation_internal", "somebody/kernel"),
        ("unet/config.json", "quantization_config", {"quant_method": "gguf"}),
        ("scheduler/scheduler_config.json", "trust_remote_code", True),
        ("model_index.json", "custom_pipeline", "mine"),
    ],
)
def test_a_key_that_leads_to_code_is_refused_by_name(folder: Path, file: str, key: str, value: Any) -> None:
    if not (folder / file).exists():
        (folder / file).write_text("{}")
    edit(folder / file, **{key: value})
    message = refused(folder)
    assert file in message
    assert key in message


def test_a_tokenizer_with_code_asks_nothing_and_runs_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    (folder / "tokenizer" / "mine.py").write_text(f"open({str(ran)!r}, 'w')\nclass Mine: pass\n")
    edit(
        folder / "tokenizer" / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["mine.Mine", None]},
        tokenizer_class="Mine",
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 10))
    assert load_tokenizer(folder)("ink").input_ids
    assert not ran.exists()


def test_the_class_that_a_tokenizer_names_does_not_matter(folder: Path) -> None:
    before = load_tokenizer(folder)("red ink").input_ids
    edit(folder / "tokenizer" / "tokenizer_config.json", tokenizer_class="T5Tokenizer", extra=[1], model_max_length=-1)
    assert load_tokenizer(folder)("red ink").input_ids == before


def test_keys_that_nobody_knows_are_not_passed_on(folder: Path) -> None:
    edit(folder / "text_encoder" / "config.json", surprise={"a": 1}, torchscript=True)
    assert {"surprise", "torchscript", "architectures"}.isdisjoint(known_config(folder, "text_encoder"))
    load_model(settings(folder))


@pytest.mark.parametrize("kind", ["UNet2DConditionModel", "AutoencoderKL", "AutoencoderTiny"])
def test_every_argument_of_the_classes_has_its_check(kind: str) -> None:
    arguments = inspect.signature(getattr(diffusers, kind).__init__).parameters.keys() - {"self"}
    assert arguments - PART_KEYS["unet" if "UNet" in kind else "vae"].keys() == set()


def test_every_argument_of_the_text_encoder_has_its_check() -> None:
    own = {name for name in vars(CLIPTextConfig).get("__annotations__", {}) if not name.startswith("_")}
    others = {"model_type", "base_config_key", "attribute_map", "sub_configs", "base_model_tp_plan"}
    assert own - others - PART_KEYS["text_encoder"].keys() == set()


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 900 + "1" + "}" * 900, "{" * 3, "[]", "1", ""])
def test_a_file_that_is_no_shallow_object_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        read_json(path)


def test_depth_and_size_have_limits(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"a":' * DEEPEST + "1" + "}" * DEEPEST)
    assert read_json(path)
    path.write_text('{"a":' * (DEEPEST + 1) + "1" + "}" * (DEEPEST + 1))
    with pytest.raises(ModelError, match="nested"):
        read_json(path)
    path.write_text('{"a": "' + "x" * LARGEST + '"}')
    with pytest.raises(ModelError, match="larger"):
        read_json(path)


@pytest.mark.parametrize(
    ("file", "key", "value", "allowed"),
    [
        ("unet/config.json", "block_out_channels", "wide", "a list of such"),
        ("unet/config.json", "down_block_types", [3], "a list of texts"),
        ("unet/config.json", "norm_eps", [], "a number"),
        ("unet/config.json", "in_channels", 10**30, "between 1 and 65536"),
        ("vae/config.json", "latent_channels", {}, "a whole number"),
        ("vae/config.json", "force_upcast", "yes", "true or false"),
        ("text_encoder/config.json", "num_hidden_layers", 10**6, "between 1 and 200"),
        ("text_encoder/config.json", "hidden_act", ["gelu"], "a text"),
        ("scheduler/scheduler_config.json", "beta_schedule", [], "a text"),
        ("scheduler/scheduler_config.json", "num_train_timesteps", 10**9, "between 50 and 100000"),
    ],
)
def test_a_value_of_another_type_is_named_with_what_is_allowed(
    folder: Path, file: str, key: str, value: Any, allowed: str
) -> None:
    (folder / "streamv2v.json").unlink()
    edit(folder / file, **{key: value})
    with pytest.raises(ModelError) as caught:
        load_model(settings(folder))
    message = str(caught.value).replace("\\", "/")
    assert f"{file}: {key} is" in message
    assert allowed in message


def test_an_unknown_special_token_is_named(folder: Path) -> None:
    edit(folder / "tokenizer" / "tokenizer_config.json", pad_token=[1])
    with pytest.raises(ModelError, match="pad_token is"):
        load_tokenizer(folder)


@pytest.mark.parametrize("key", ["factor", "length", "layout", "weights", "folded"])
@pytest.mark.parametrize("value", [[], "x", -1, {"a": [1, "b"]}, 10**9])
def test_a_manifest_of_wrong_types_is_named(tmp_path: Path, key: str, value: Any) -> None:
    copy = Path(shutil.copytree(EMBEDDED, tmp_path / "model"))
    if key == "folded" and isinstance(value, dict):
        value = [value]
    edit(copy / "onnx" / "graphs.json", **{key: value})
    with pytest.raises(ModelError, match=f"{key} is"):
        read_manifest(describe(str(copy)))


def said(folder: Path) -> str:
    """Return what is said of the folder, "" if nothing is wrong with it."""
    try:
        describe(str(folder))
        load_tokenizer(folder)
    except StreamV2VError as error:
        return str(error)
    return ""


def test_any_fault_of_any_json_is_an_error_in_words(made: Path, tmp_path: Path) -> None:
    assert len(files_of(made)) >= 7

    @hypothesis_settings(
        max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(fault=faults(made))
    def check(fault: Fault) -> None:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(made, copy)
        fault.put(copy)
        message = said(copy)
        assert "\n" not in message
        assert len(message) < 1000

    check()


@pytest.mark.parametrize("name", ["dreamshaper.safetensors", "sd-v1-5.ckpt", "model.GGUF"])
def test_a_single_file_is_said_to_be_one_with_the_way_to_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelError, match=r"is a single file.*from_single_file"):
        describe(str(tmp_path / name))


def test_a_folder_of_the_hubs_cache_is_said_to_be_one(made: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--someone--model"
    (cache / "blobs").mkdir(parents=True)
    with pytest.raises(ModelError, match="no snapshots/"):
        describe(str(cache))
    shutil.copytree(made, cache / "snapshots" / "abc")
    with pytest.raises(ModelError, match=r"snapshots.abc"):
        describe(str(cache))
    assert describe(str(cache / "snapshots" / "abc"))


def test_a_missing_scheduler_is_explained(folder: Path) -> None:
    shutil.rmtree(folder / "scheduler")
    with pytest.raises(ModelError, match=r"scheduler_config\.json: is missing; it says how noise"):
        load_model(settings(folder))
