"""A model folder of random weights, in the layout and, as size `full`, in the very shapes of Stable Diffusion 1.5.

`python benchmarks/random_model.py FOLDER [--size full|sd-turbo|sdxl-turbo|small] [--dtype float16]`: for what depends
on shapes alone, as speed and memory do, where no weights can be fetched. The text encoder is CLIP-L's shape (the turbo
models': their own, and their own UNets), the autoencoder TAESD's; the tokenizer, made here, knows a few words. A part
is born in the wanted precision, so that SDXL's UNet takes 5 GB of RAM and not 10. Needs diffusers, transformers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

WORDS = ("ink", "clay", "red", "blue", "a", "person", "talking", "neon", "claymation", "sketch", "oil", "painting")
_DOWN = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
_UP = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")


class Shape(NamedTuple):
    """The configurations of the parts, by diffusers' and transformers' names.

    text_encoder_2: of SDXL's shape alone. own: what streamv2v.json says, of turbo models.
    """

    unet: dict[str, Any]
    vae: dict[str, Any]
    text_encoder: dict[str, Any]
    text_encoder_2: dict[str, Any] | None = None
    own: dict[str, Any] | None = None


# read from the config.json files of stable-diffusion-v1-5, madebyollin/taesd and CLIP ViT-L/14
FULL = Shape(
    unet={
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": _DOWN,
        "up_block_types": _UP,
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "attention_head_dim": 8,  # the number of heads, in spite of its name
        "cross_attention_dim": 768,
    },
    vae={
        "encoder_block_out_channels": (64, 64, 64, 64),
        "decoder_block_out_channels": (64, 64, 64, 64),
        "num_encoder_blocks": (1, 3, 3, 3),
        "num_decoder_blocks": (3, 3, 3, 1),
        "latent_channels": 4,
    },
    text_encoder={
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
    },
)
# read from the config.json files of stabilityai/sd-turbo: SD 2.1's shape
SD_TURBO = Shape(
    unet=FULL.unet
    | {"attention_head_dim": (5, 10, 20, 20), "cross_attention_dim": 1024, "use_linear_projection": True},
    vae=FULL.vae,
    text_encoder=FULL.text_encoder
    | {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
        "projection_dim": 512,
    },
)
# read from the config.json files of stabilityai/sdxl-turbo
SDXL_TURBO = Shape(
    unet={
        "sample_size": 64,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    vae=FULL.vae,
    text_encoder=FULL.text_encoder | {"projection_dim": 768},
    text_encoder_2=FULL.text_encoder
    | {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "hidden_act": "gelu",
        "projection_dim": 1280,
    },
    own={"schedule": "turbo", "steps": 1, "strength": 0.5},
)
SMALL = Shape(
    unet=FULL.unet
    | {
        "sample_size": 8,
        "block_out_channels": (16, 32, 32, 32),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": (2, 4, 4, 4),
        "cross_attention_dim": 16,
    },
    vae=FULL.vae
    | {
        "encoder_block_out_channels": (8, 8, 8, 8),
        "decoder_block_out_channels": (8, 8, 8, 8),
        "num_encoder_blocks": (1, 1, 1, 1),
        "num_decoder_blocks": (1, 1, 1, 1),
    },
    text_encoder={
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 8,
    },
)
SHAPES = {"full": FULL, "sd-turbo": SD_TURBO, "sdxl-turbo": SDXL_TURBO, "small": SMALL}


def tokenizer(words: Sequence[str], length: int) -> Any:
    """Return a word-level tokenizer that knows those words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")
    vocabulary = {word: number for number, word in enumerate((*special, *words))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 2), ("[EOS]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        model_max_length=length,
    )


def carry_pictures(vae: nn.Module) -> None:
    """Scales the weights so that what goes in decides what comes out; as born, a small random VAE gives one grey."""
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    for name, weight in vae.named_parameters():
        if weight.dim() == 4:
            weight.data *= (6 / weight[0].numel()) ** 0.5 / weight.abs().amax()
            weight.data *= 0.3 if len(weight) == 3 else 1  # the picture itself: few of its pixels black or white
        elif name.endswith("bias"):
            # inside, a TAESD's picture is 0..1
            weight.data.fill_(0.5 if len(weight) == 3 and isinstance(vae, AutoencoderTiny) else 0)


@torch.no_grad()
def level(vae: Any) -> None:
    """Scale a TAESD's last layers so that pictures give latents of spread 1, and such latents pictures in grey levels.

    The blocks of a large one add up: without this nearly all of its pixels are black or white, and hide what differs.
    """
    chance = torch.Generator().manual_seed(0)
    noise = torch.rand(1, 3, 64, 64, generator=chance) * 2 - 1
    vae.encoder.layers[-1].weight /= vae.encode(noise).latents.std()
    latents = torch.randn(1, vae.config.latent_channels, 8, 8, generator=chance)
    vae.decoder.layers[-1].weight *= 0.4 / vae.decode(latents).sample.std()


def born(kind: Callable[[], Any], dtype: torch.dtype) -> Any:
    """Return a net whose weights are made in that type, layer by layer: never twice and never in a larger type."""
    with torch.device("meta"):
        net = kind().to(dtype)
    net = net.to_empty(device="cpu")
    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.Embedding, nn.GroupNorm, nn.LayerNorm)):
            layer.reset_parameters()
    return net


def make(folder: Path, shape: Shape, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """Write the model to the folder."""
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_lcm import LCMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = born(lambda: UNet2DConditionModel(**shape.unet), dtype)
        for name, weight in unet.named_parameters():
            if name.endswith(("to_q.weight", "to_k.weight")):
                weight.data *= 3  # logits of about 3: some tokens matter, others do not
        unet.save_pretrained(folder / "unet")
        del unet  # 3.4 GB at full size
        vae = AutoencoderTiny(**shape.vae)
        carry_pictures(vae)
        level(vae)
        vae.to(dtype).save_pretrained(folder / "vae")
        special: dict[str, Any] = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
        encoders = {"": (CLIPTextModel, shape.text_encoder), "_2": (CLIPTextModelWithProjection, shape.text_encoder_2)}
        for which, (kind, config) in encoders.items():
            if config is not None:
                given = CLIPTextConfig(**config, **special)
                encoder = born(lambda kind=kind, given=given: kind(given), dtype)  # type: ignore[misc]
                encoder.save_pretrained(folder / f"text_encoder{which}")
                tokenizer(WORDS, config["max_position_embeddings"]).save_pretrained(folder / f"tokenizer{which}")
    spacing = {"timestep_spacing": "trailing"} if shape.own else {}
    LCMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        **spacing,
    ).save_pretrained(folder / "scheduler")
    if shape.own:
        (folder / "streamv2v.json").write_text(json.dumps(shape.own))
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=sorted(SHAPES), default="full")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    print(make(args.folder, SHAPES[args.size], dtype=getattr(torch, args.dtype), seed=args.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
