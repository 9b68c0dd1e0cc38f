"""Small random models in diffusers' folder layout, SD 1.5-shaped: what a user's model folder looks like."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, LCMScheduler
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from tests.small_models import TEXT_WIDTH, small_unet

WORDS = ("ink", "clay", "red", "blue", "a", "person", "talking", "neon")
LENGTH = 8


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer that knows WORDS."""
    special = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(special + WORDS)}, unk_token="[UNK]"))
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
        model_max_length=LENGTH,
    )


def make_folder(folder: Path, *, seed: int = 0, kl: bool = False, description: dict[str, object] | None = None) -> Path:
    """Writes a random model to the folder; its VAE is an AutoencoderTiny, or an AutoencoderKL with kl=True."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kl:
            vae = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=(8, 8, 8, 8),
                norm_num_groups=4,
                latent_channels=4,
            )
        else:
            vae = AutoencoderTiny(
                encoder_block_out_channels=(8, 8, 8, 8),
                decoder_block_out_channels=(8, 8, 8, 8),
                num_encoder_blocks=(1, 1, 1, 1),
                num_decoder_blocks=(1, 1, 1, 1),
                latent_channels=4,
            )
        config = CLIPTextConfig(
            vocab_size=4 + len(WORDS),
            hidden_size=TEXT_WIDTH,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=LENGTH,
            bos_token_id=2,
            eos_token_id=3,
            pad_token_id=0,
        )
        text_encoder = CLIPTextModel(config)
    small_unet(seed).float().save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    text_encoder.save_pretrained(folder / "text_encoder")
    tokenizer().save_pretrained(folder / "tokenizer")
    LCMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(
        folder / "scheduler"
    )
    if description is not None:
        (folder / "streamv2v.json").write_text(json.dumps(description))
    return folder
