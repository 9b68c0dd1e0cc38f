"""Text to embeddings: a cache of what was encoded, and blending from one prompt to the next."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

_CACHED = 256  # prompts; one of SD 1.5 takes 118 kB in fp16


class PromptEncoder:
    """Encodes prompts as embeddings [1, words, width], and keeps what it has encoded."""

    def __init__(self, embed: Callable[[str], Tensor], known: Callable[[str], bool]) -> None:
        """Encode by `embed`; known: whether the text encoder has a token for a word."""
        self._embed = embed
        self._known = known
        self._cache: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, prompt: str) -> Tensor:
        """Return the prompt's embedding; text beyond the encoder's length is cut off, as diffusers does."""
        if prompt in self._cache:
            self._cache.move_to_end(prompt)
            return self._cache[prompt]
        embedding = self._embed(prompt)
        self._cache[prompt] = embedding
        if len(self._cache) > _CACHED:
            self._cache.popitem(last=False)
        return embedding

    def forget(self) -> None:
        """Drop what was encoded: the text encoder has changed."""
        self._cache.clear()

    def unknown_words(self, prompt: str) -> list[str]:
        """Return the words that the text encoder ignores; none where it reads bytes, as SD 1.5's does."""
        words = dict.fromkeys(re.findall(r"\w+(?:['-]\w+)*", prompt))
        return [word for word in words if not self._known(word)]


def clip_encoder(tokenizer: Any, text_encoder: Any, dtype: torch.dtype) -> PromptEncoder:
    """Return an encoder by transformers' tokenizer and CLIPTextModel."""
    length = text_encoder.config.max_position_embeddings
    unknown = None if tokenizer.unk_token == tokenizer.eos_token else tokenizer.unk_token_id

    @torch.no_grad()
    def embed(prompt: str) -> Tensor:
        tokens = tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        embedding: Tensor = text_encoder(tokens.input_ids.to(text_encoder.device))[0].to(dtype)
        return embedding

    def known(word: str) -> bool:
        return unknown is None or unknown not in tokenizer(word, add_special_tokens=False).input_ids

    return PromptEncoder(embed, known)


class Blend(NamedTuple):
    """The way from one prompt's embedding to another's; `done` counts up to `frames`."""

    origin: Tensor
    target: Tensor
    done: int
    frames: int

    @property
    def share(self) -> float:
        """How far on the way, 0..1."""
        return 1.0 if self.done >= self.frames else self.done / self.frames

    @property
    def text(self) -> Tensor:
        """The embedding of this moment."""
        return self.target if self.share >= 1 else torch.lerp(self.origin, self.target, self.share)

    def next(self) -> Blend:
        """Return the blend one frame later."""
        return self if self.share >= 1 else self._replace(done=self.done + 1)


def constant(text: Tensor) -> Blend:
    """Return a blend that stays at that embedding."""
    return Blend(text, text, 0, 0)


def blend_towards(blend: Blend, target: Tensor, frames: int) -> Blend:
    """Return a blend from where this one is to the target in `frames` frames, the first step taken; 0 is at once."""
    return Blend(blend.text, target, min(1, frames), frames)
