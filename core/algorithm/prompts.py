"""Text to embeddings: a cache of what was encoded, and blending from one prompt to the next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from core.algorithm import conditions, emphasis
from core.errors import ModelError

_CACHED = 256  # prompts; one of SD 1.5 takes 118 kB in fp16


class PromptEncoder:
    """Encodes prompts as embeddings [1, words, width], and keeps what it has encoded."""

    def __init__(
        self,
        embed: Callable[[str], Tensor],
        known: Callable[[str], bool],
        spans: Callable[[str], Sequence[tuple[int, int]]] = lambda text: (),
        length: int = 0,
        further: int = 0,
    ) -> None:
        """Encode by `embed`; known: whether the text encoder has a token for a word.

        spans: where in the text each token lies, the special ones (0, 0), none cut off; without it nothing is weighed.
        length: the tokens that the encoder reads, its own two included; 0 for any number. further: rows of what `embed`
        gives that are no words (core.algorithm.conditions) and stay as they are.
        """
        self._embed = embed
        self._known = known
        self._spans = spans
        self._length = length
        self._further = further
        self._cache: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, prompt: str) -> Tensor:
        """Return the prompt's embedding, its words weighed as their brackets say (core.algorithm.emphasis).

        Text beyond the encoder's length is cut off, as diffusers does; `notes` says so.
        """
        if prompt in self._cache:
            self._cache.move_to_end(prompt)
            return self._cache[prompt]
        embedding = self._weighed(emphasis.read(prompt))
        self._cache[prompt] = embedding
        if len(self._cache) > _CACHED:
            self._cache.popitem(last=False)
        return embedding

    def _weighed(self, pieces: Sequence[emphasis.Piece]) -> Tensor:
        """Return the embedding of the pieces' text, each token's row times its piece's weight.

        The mean size of all numbers is restored, so that weights move emphasis from one word to another and do not make
        the whole text stronger.
        """
        text = "".join(piece.text for piece in pieces)
        embedding = self._embed(text)
        if all(piece.weight == 1 for piece in pieces):
            return embedding
        letters = [piece.weight for piece in pieces for _ in piece.text]
        words = embedding.shape[1] - self._further
        rows = torch.ones(words)
        for row, (begin, end) in enumerate(self._spans(text)[: words - 1]):
            if begin < end:
                rows[row] = letters[end - 1]
        before = embedding[:, :words].float()
        after = before * rows.to(before.device)[None, :, None]
        size = after.abs().mean()
        weighed = (after * (before.abs().mean() / size) if size > 0 else before).to(embedding.dtype)
        return torch.cat([weighed, embedding[:, words:]], dim=1)

    def notes(self, prompt: str) -> list[str]:
        """Return what is to be said of the prompt: marks that mean nothing here, and text that is cut off."""
        text = emphasis.plain(prompt)
        return emphasis.notes(prompt) + emphasis.cut_off(text, self._spans(text), self._length)

    def forget(self) -> None:
        """Drop what was encoded: the text encoder has changed."""
        self._cache.clear()

    def unknown_words(self, prompt: str) -> list[str]:
        """Return the words that the text encoder ignores; none where it reads bytes, as SD 1.5's does."""
        return [word for word in dict.fromkeys(emphasis.words(prompt)) if not self._known(word)]


class TextPart(NamedTuple):
    """transformers' tokenizer and text encoder, which belong together."""

    tokenizer: Any
    encoder: Any

    @property
    def length(self) -> int:
        """Tokens that the encoder reads."""
        return int(self.encoder.config.max_position_embeddings)

    def ids(self, prompt: str) -> Tensor:
        """Return the prompt's tokens, int64 [1, length]. Raises ModelError where the encoder does not know one."""
        found = self.tokenizer(
            prompt, padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        )
        ids: Tensor = found.input_ids
        known = self.encoder.get_input_embeddings().num_embeddings
        if int(ids.max()) >= known or int(ids.min()) < 0:
            raise ModelError(
                f"the tokenizer gives token {int(ids.max())}, the text encoder knows {known}: they are not of one "
                "model; fetch it again"
            )
        return ids.to(self.encoder.device)


def clip_encoder(tokenizer: Any, text_encoder: Any, dtype: torch.dtype) -> PromptEncoder:
    """Return an encoder by transformers' tokenizer and CLIPTextModel."""
    part = TextPart(tokenizer, text_encoder)

    @torch.no_grad()
    def embed(prompt: str) -> Tensor:
        embedding: Tensor = text_encoder(part.ids(prompt))[0].to(dtype)
        return embedding

    return _encoder(part, embed)


def clip_pair_encoder(first: TextPart, second: TextPart, dtype: torch.dtype, size: tuple[int, int]) -> PromptEncoder:
    """Return an encoder as SDXL has it: what two encoders make of a prompt, beside each other, then its conditions.

    size: (height, width) of the pictures. second: of a CLIPTextModelWithProjection, which gives the pooled text.
    """

    @torch.no_grad()
    def embed(prompt: str) -> Tensor:
        words = before_last(first.encoder, first.ids(prompt))
        others, pooled = before_last_and_pooled(second.encoder, second.ids(prompt))
        return conditions.joined(torch.cat([words, others], dim=-1).to(dtype), pooled, *size)

    return _encoder(first, embed, embed("").shape[1] - first.length)


def before_last(text_encoder: Any, ids: Tensor) -> Tensor:
    """Return what comes of all layers of a CLIP text encoder but its last, [1, words, width], as SDXL takes it."""
    found: Tensor = text_encoder(ids, output_hidden_states=True).hidden_states[-2]
    return found


def before_last_and_pooled(text_encoder: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return `before_last` of a CLIPTextModelWithProjection, and the pooled text [1, pooled]."""
    found = text_encoder(ids, output_hidden_states=True)
    return found.hidden_states[-2], found.text_embeds


def _encoder(part: TextPart, embed: Callable[[str], Tensor], further: int = 0) -> PromptEncoder:
    tokenizer = part.tokenizer
    unknown = None if tokenizer.unk_token == tokenizer.eos_token else tokenizer.unk_token_id

    def known(word: str) -> bool:
        return unknown is None or unknown not in tokenizer(word, add_special_tokens=False).input_ids

    def spans(text: str) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = tokenizer(text, return_offsets_mapping=True, verbose=False).offset_mapping
        return found

    return PromptEncoder(embed, known, spans, part.length, further)


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
