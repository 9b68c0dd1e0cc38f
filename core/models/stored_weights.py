"""A part's weights as they lie in its safetensors files: each is read when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from core.errors import ModelError
from core.models.description import header, loaded_files
from core.models.folder_files import one_line


class StoredWeights(Mapping[str, Tensor]):
    """name -> its values on the CPU; nothing is kept."""

    def __init__(self, where: Path, dtype: torch.dtype) -> None:
        """where: a part's folder; dtype: that values are given in. Raises ModelError."""
        self._dtype = dtype
        self._places = {
            name: (where / file, tuple(one["shape"]))
            for file in loaded_files(where)
            for name, one in header(where / file)[0].items()
            if name != "__metadata__"
        }

    def __getitem__(self, name: str) -> Tensor:
        path, _ = self._places[name]
        try:
            with safe_open(path, framework="pt") as file:
                value: Tensor = file.get_tensor(name)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"{path}: cannot be read ({one_line(error)}); fetch the model again") from error
        return value.to(self._dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a weight's shape, by the file's header."""
        return self._places[name][1]
