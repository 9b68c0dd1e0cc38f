"""Prompts encoded without transformers: a folder's tokenizers by the `tokenizers` package, its encoders as given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from core.algorithm import conditions
from core.algorithm.prompts import PromptEncoder
from core.errors import ModelError
from core.models.description import ModelDescription, tokenizer_of
from core.models.tokenizer import light_tokenizer, pad_token

# tokens, int64 [1, length] on the CPU -> [1, length, width], and from SDXL's second the pooled text [1, pooled]
TextEncoder = Callable[[Tensor], Sequence[Tensor]]


class _Text(NamedTuple):
    """A text encoder, and its tokenizer, which cuts off and fills up to the length that the encoder reads."""

    encoder: TextEncoder
    tokenizer: Any

    def __call__(self, prompt: str) -> Sequence[Tensor]:
        return self.encoder(torch.tensor([self.tokenizer.encode(prompt).ids], dtype=torch.int64))


def _text(folder: Path, name: str, encoder: TextEncoder, length: int) -> _Text:
    part = tokenizer_of(name)
    (tokenizer, _), padding = light_tokenizer(folder, part), pad_token(folder, part)
    pad = tokenizer.token_to_id(padding)
    if pad is None:
        raise ModelError(f"{folder / part}: it has no pad_token to fill a prompt up with; fetch the model again")
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=pad, pad_token=padding)
    return _Text(encoder, tokenizer)


def light_encoder(
    description: ModelDescription, encoders: Mapping[str, TextEncoder], length: int, size: tuple[int, int]
) -> PromptEncoder:
    """Return the model's prompt encoder, of all its text encoders by name.

    length: the tokens that they read. size: (height, width) of the pictures, of which an SDXL-shaped UNet is told.
    Raises ModelError.
    """
    folder = description.folder
    texts = [_text(folder, name, encoders[name], length) for name in description.text_encoders]
    whole_text, unknown = light_tokenizer(folder)

    @torch.no_grad()
    def embed(prompt: str) -> Tensor:
        found = [text(prompt) for text in texts]
        words = torch.cat([one[0] for one in found], dim=-1)
        return words if len(found) == 1 else conditions.joined(words, found[-1][1], *size)

    def known(word: str) -> bool:
        return unknown is None or unknown not in whole_text.encode(word, add_special_tokens=False).ids

    def spans(text: str) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = whole_text.encode(text).offsets
        return found

    further = embed("").shape[1] - length if len(texts) > 1 else 0
    return PromptEncoder(embed, known, spans, length, further)
