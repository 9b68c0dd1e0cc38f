"""A model folder's tokenizers, by classes that are chosen here; of its configuration the special tokens are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.errors import ModelError
from core.models.folder_files import one_line, read_json, shown

_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"  # CLIP's
_LARGEST = 64_000_000  # bytes of tokenizer.json or vocab.json; CLIP's have 2 and 1 MB


def special_tokens(folder: Path, tokenizer: str = "tokenizer") -> dict[str, str]:
    """Return the special tokens that a tokenizer of the folder names, by transformers' names. Raises ModelError."""
    found: dict[str, str] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / tokenizer / name
        config = read_json(path) if path.exists() else {}
        for key in _SPECIAL:
            value = config.get(key)
            text = value.get("content") if isinstance(value, dict) else value
            if text is None:
                continue
            if not isinstance(text, str) or not 0 < len(text) <= 100:
                raise ModelError(f"{path}: {key} is {shown(value)}; it must be a text, or an object with its content")
            found[key] = text
    return found


def pad_token(folder: Path, tokenizer: str = "tokenizer") -> str:
    """Return what a tokenizer of the folder fills a prompt up with, "" for nothing. Raises ModelError."""
    own = "" if (folder / tokenizer / "tokenizer.json").exists() else _END  # CLIP's, if nothing else is named
    return special_tokens(folder, tokenizer).get("pad_token", own)


def light_tokenizer(folder: Path, tokenizer: str = "tokenizer") -> tuple[Any, int | None]:
    """Return the tokenizer by the `tokenizers` package, which loads at once, and the id of what it does not know.

    None: it knows everything, as CLIP's, which reads bytes. Nothing is cut off or filled up. Raises ModelError.
    """
    from tokenizers import Tokenizer

    where, special = folder / tokenizer, special_tokens(folder, tokenizer)
    whole = where / "tokenizer.json"
    try:
        _refuse_large(where)
        found = Tokenizer.from_file(str(whole)) if whole.exists() else _clip(where)
        found.no_truncation()
        found.no_padding()
    except Exception as error:  # tokenizers raises plain Exception
        raise ModelError(f"{where}: cannot be loaded ({one_line(error)}); fetch the model again") from error
    name = special.get("unk_token")
    return found, None if name is None or name == special.get("eos_token") else found.token_to_id(name)


def _clip(where: Path) -> Any:
    """Return CLIP's tokenizer by its two files: bytes of words, in pairs."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    pairs = models.BPE.from_file(
        str(where / "vocab.json"), str(where / "merges.txt"), end_of_word_suffix="</w>", unk_token=_END
    )
    tokenizer = Tokenizer(pairs)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    ids = tokenizer.get_vocab()
    tokenizer.post_processor = processors.RobertaProcessing(
        (_END, ids[_END]), (_BEGIN, ids[_BEGIN]), add_prefix_space=False, trim_offsets=False
    )
    return tokenizer


def _refuse_large(where: Path) -> None:
    """Raise ValueError for a file that no tokenizer needs."""
    for path in (where / name for name in ("tokenizer.json", "vocab.json", "merges.txt")):
        if path.exists() and path.stat().st_size > _LARGEST:
            raise ValueError(f"{path.name} is larger than {_LARGEST // 1_000_000} MB")


def load_tokenizer(folder: Path, tokenizer: str = "tokenizer") -> Any:
    """Return transformers' tokenizer in that part of the folder: tokenizer.json's, or CLIP's. Raises ModelError.

    Other files of the folder, and the class that its configuration names, are not looked at.
    """
    from transformers import CLIPTokenizer, PreTrainedTokenizerFast

    where = folder / tokenizer
    special = special_tokens(folder, tokenizer)
    whole, words, merges = (where / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    try:
        _refuse_large(where)
        if whole.exists():
            return _usable(PreTrainedTokenizerFast(tokenizer_file=str(whole), **special))
        return _usable(CLIPTokenizer(vocab=str(words), merges=str(merges), **special))
    except Exception as error:  # tokenizers raises plain Exception
        raise ModelError(f"{where}: cannot be loaded ({one_line(error)}); fetch the model again") from error


def _usable(tokenizer: Any) -> Any:
    """Return the tokenizer, after a word; raises what it raises."""
    tokenizer("a word")
    if tokenizer.pad_token_id is None:
        raise ValueError("it has no pad_token to fill a prompt up with")
    return tokenizer
