"""The eager runtime works out what the layers make of a text once, and anew where the text or the weights change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from core.algorithm.net import Picture
from core.algorithm.unet import BankedUNet, PlainUNet
from core.engine import Engine
from core.settings import Look, Lora, Policy, Runtime
from tests.support.lora_files import kohya, random_change
from tests.support.model_folders import settings

pytestmark = pytest.mark.usefixtures("quick_layout")
POLICIES = pytest.mark.parametrize("policy", [Policy.OFF, Policy.FIFO])
CROSSING = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"


@pytest.fixture
def worked_out(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The texts of which the layers' keys and values were worked out."""
    texts: list[Tensor] = []

    def note(kind: type[BankedUNet | PlainUNet]) -> None:
        own: Any = kind.cross_attention

        def noted(net: BankedUNet | PlainUNet, text: Tensor) -> dict[str, Tensor]:
            texts.append(text)
            cross: dict[str, Tensor] = own(net, text)
            assert cross, "the layers take them"
            return cross

        monkeypatch.setattr(kind, "cross_attention", noted)

    note(BankedUNet)
    note(PlainUNet)
    return texts


def engine(tiny: Path, policy: Policy, *loras: Lora) -> Engine:
    given = settings(tiny, steps=1, policy=policy, runtime=Runtime.EAGER, loras=loras)
    return Engine(given, Look(prompt="ink"))


def picture(one: Engine) -> Picture:
    shape = (one.settings.height, one.settings.width, 3)
    return np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)


@POLICIES
def test_a_text_is_worked_out_once(tiny: Path, worked_out: list[Tensor], policy: Policy) -> None:
    one = engine(tiny, policy)
    for _ in range(3):
        one.translate(picture(one))
    assert len(worked_out) == 1
    one.set_look(replace(one.look, strength=0.4))
    one.translate(picture(one))
    assert len(worked_out) == 1
    one.set_look(replace(one.look, prompt="clay"), frames=3)
    for _ in range(6):
        one.translate(picture(one))
    assert len(worked_out) == 4, "one for each frame of the blend"


@POLICIES
def test_other_weights_make_other_keys_of_the_same_text(
    tiny: Path, tmp_path: Path, worked_out: list[Tensor], policy: Policy
) -> None:
    lora = Lora(str(kohya(random_change(tiny, 3, CROSSING), tmp_path / "a.safetensors")), 4.0)
    one, fresh = engine(tiny, policy), engine(tiny, policy, lora)
    plain = one.translate(picture(one))
    one.use_loras((lora,))
    one.forget()
    changed = one.translate(picture(one))
    assert changed is not None
    assert plain is not None
    assert (changed != plain).any()
    np.testing.assert_array_equal(changed, fresh.translate(picture(fresh)))
    assert len(worked_out) == 3
