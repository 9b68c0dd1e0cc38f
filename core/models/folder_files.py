"""The JSON of a model folder: read with bounds, the keys that are used checked, and what would run code refused.

Nothing of a model folder is ever executed. What a library might take for code, or for the address of code, is refused
by name before a library sees the folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.errors import ModelError

LARGEST = 4_000_000  # bytes of a configuration; the included ones have 2 kB
DEEPEST = 16  # levels of lists and objects
FOLDERS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
_CONFIGURATIONS = (
    "model_index.json",
    *(f"{part}/config.json" for part in FOLDERS),
    *(f"{part}/tokenizer_config.json" for part in ("tokenizer", "tokenizer_2")),
    "scheduler/scheduler_config.json",
)
_RUNS_CODE = {  # a key of a configuration: what a library would do
    "auto_map": "names code for a library to run",
    "custom_pipeline": "names code for a library to run",
    "trust_remote_code": "asks for code to be run",
    "_attn_implementation": "may name code on the hub",
    "_attn_implementation_internal": "may name code on the hub",
    "_experts_implementation_internal": "may name code on the hub",
    "quantization_config": "asks for another library to read the weights",
}
_Check = Callable[[object], bool]


def refuse_code(folder: Path) -> None:
    """Raise ModelError if the folder holds code, or a configuration that leads a library to code."""
    for place in (folder, *(folder / name for name in FOLDERS)):
        for path in sorted([*place.glob("*.py"), *place.glob("*.pyc"), *place.glob("adapter_config.json")]):
            raise ModelError(
                f"{path}: a model folder with {'an adapter' if path.suffix == '.json' else 'code'} in it is refused; "
                "nothing of a model is ever run. Take a plain diffusers folder, or remove the file"
            )
    for name in _CONFIGURATIONS:
        if (folder / name).exists():
            config = read_json(folder / name)
            for key in sorted(_RUNS_CODE.keys() & config.keys()):
                if config[key] is not None:
                    raise ModelError(
                        f"{folder / name}: {key} {_RUNS_CODE[key]}, which is refused; take a plain folder, or "
                        "remove the key"
                    )


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file. Raises ModelError, also where it is large or nested deeply."""
    try:
        if path.stat().st_size > LARGEST:
            raise ModelError(f"{path}: it is larger than {LARGEST // 1_000_000} MB; no configuration is")
        value = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ModelError(_too_deep(path)) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({one_line(error)}); fetch the model again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: it holds no JSON object; fetch the model again")
    if _deeper_than(value, DEEPEST):
        raise ModelError(_too_deep(path))
    return value


def _too_deep(path: Path) -> str:
    return f"{path}: it is nested more than {DEEPEST} deep; fetch the model again"


def _deeper_than(value: object, levels: int) -> bool:
    here: list[Any] = [value]
    for _ in range(levels):
        here = [
            child
            for one in here
            for child in (one.values() if isinstance(one, dict) else one)
            if isinstance(child, dict | list)
        ]
    return bool(here)


def one_line(error: BaseException) -> str:
    """Return the error's text as one line of at most 300 letters."""
    return " ".join(str(error).split())[:300]


def shown(value: object) -> str:
    """Return the value for a message: at most 60 letters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_keys(path: Path, config: Mapping[str, Any], table: Mapping[str, tuple[_Check, str]]) -> None:
    """Raise ModelError unless each key of the table that the configuration has holds what the table allows."""
    for key, (allowed, meaning) in table.items():
        if config.get(key) is not None and not allowed(config[key]):
            raise ModelError(f"{path}: {key} is {shown(config[key])}; it must be {meaning}")


def part_config(folder: Path, name: str) -> dict[str, Any]:
    """Return the configuration of one of the folder's parts, its known keys checked. Raises ModelError."""
    path = folder / name / "config.json"
    config = read_json(path)
    check_keys(path, config, PART_KEYS[name])
    return config


def known_config(folder: Path, name: str) -> dict[str, Any]:
    """Return only the known keys of the part's configuration, and of these the ones that are set. Raises ModelError."""
    config = part_config(folder, name)
    return {key: config[key] for key in PART_KEYS[name] if config.get(key) is not None}


def whole(least: int, most: int) -> tuple[_Check, str]:
    """Return the check of a whole number, and its meaning in words."""
    return lambda value: _is_whole(value, least, most), f"a whole number between {least} and {most}"


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _wholes(most: int) -> tuple[_Check, str]:
    def allowed(value: object) -> bool:
        return _is_whole(value, 0, most) or (
            isinstance(value, list) and 0 < len(value) <= 16 and all(allowed(one) or one is None for one in value)
        )

    return allowed, f"a whole number between 0 and {most}, or a list of such"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9 and math.isfinite(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 1000


_NUMBER = (_is_number, "a number")
_NUMBERS = (
    lambda value: isinstance(value, list) and len(value) <= 1024 and all(map(_is_number, value)),
    "a list of numbers",
)
_TEXT = (_is_text, "a text")
_TEXTS = (
    lambda value: isinstance(value, list) and 0 < len(value) <= 16 and all(map(_is_text, value)),
    "a list of texts",
)
_FLAG = (lambda value: isinstance(value, bool), "true or false")
_FLAGS = (
    lambda value: isinstance(value, bool) or (isinstance(value, list) and all(isinstance(v, bool) for v in value)),
    "true or false, or a list of such",
)
_WIDE, _COUNT = whole(1, 65_536), whole(0, 1_000)


def _table(**kinds: tuple[tuple[_Check, str], str]) -> dict[str, tuple[_Check, str]]:
    return {key: check for check, keys in kinds.values() for key in keys.split()}


_TEXT_ENCODER = _table(
    wide=(_WIDE, "hidden_size intermediate_size projection_dim max_position_embeddings num_attention_heads"),
    layers=(whole(1, 200), "num_hidden_layers"),
    vocabulary=(whole(1, 1_000_000), "vocab_size"),
    tokens=(whole(-1, 1_000_000), "pad_token_id bos_token_id eos_token_id"),
    number=(_NUMBER, "layer_norm_eps attention_dropout initializer_range initializer_factor"),
    text=(_TEXT, "hidden_act"),
)
# what each part's class is built of, by diffusers' and transformers' names; null is the class's own default
PART_KEYS: Mapping[str, Mapping[str, tuple[_Check, str]]] = {
    "unet": _table(
        wide=(
            _WIDE,
            "in_channels out_channels encoder_hid_dim addition_time_embed_dim num_class_embeds time_embedding_dim "
            "time_cond_proj_dim projection_class_embeddings_input_dim",
        ),
        count=(_COUNT, "freq_shift downsample_padding addition_embed_type_num_heads conv_in_kernel conv_out_kernel"),
        wides=(_wholes(65_536), "sample_size block_out_channels cross_attention_dim attention_head_dim"),
        counts=(
            _wholes(100),
            "layers_per_block transformer_layers_per_block reverse_transformer_layers_per_block num_attention_heads",
        ),
        groups=(whole(1, 4_096), "norm_num_groups"),
        number=(_NUMBER, "mid_block_scale_factor dropout norm_eps resnet_out_scale_factor"),
        text=(
            _TEXT,
            "_class_name mid_block_type act_fn encoder_hid_dim_type class_embed_type addition_embed_type "
            "resnet_time_scale_shift time_embedding_type time_embedding_act_fn timestep_post_act attention_type "
            "cross_attention_norm",
        ),
        texts=(_TEXTS, "down_block_types up_block_types"),
        flag=(
            _FLAG,
            "center_input_sample flip_sin_to_cos dual_cross_attention use_linear_projection upcast_attention "
            "resnet_skip_time_act class_embeddings_concat mid_block_only_cross_attention",
        ),
        flags=(_FLAGS, "only_cross_attention"),
    ),
    "vae": _table(
        wide=(_WIDE, "in_channels out_channels latent_channels sample_size norm_num_groups"),
        count=(whole(1, 100), "layers_per_block upsampling_scaling_factor latent_magnitude"),
        wides=(_wholes(65_536), "block_out_channels encoder_block_out_channels decoder_block_out_channels"),
        counts=(_wholes(100), "num_encoder_blocks num_decoder_blocks"),
        number=(_NUMBER, "scaling_factor shift_factor latent_shift"),
        numbers=(_NUMBERS, "latents_mean latents_std"),
        text=(_TEXT, "_class_name act_fn upsample_fn"),
        texts=(_TEXTS, "down_block_types up_block_types"),
        flag=(_FLAG, "force_upcast use_quant_conv use_post_quant_conv mid_block_add_attention"),
    ),
    "text_encoder": _TEXT_ENCODER,
    "text_encoder_2": _TEXT_ENCODER,
}
SCHEDULER_KEYS = _table(
    number=(_NUMBER, "beta_start beta_end"),
    count=(whole(50, 100_000), "num_train_timesteps"),
    text=(_TEXT, "beta_schedule prediction_type timestep_spacing"),
)
