"""What a server gives to cameras that ask for an engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.settings import EngineSettings, Lora, Runtime
from vcam.errors import RemoteError
from vcam.remote.offer import Offer

INK = "/srv/loras/ink.safetensors"
OWN = EngineSettings("sd15", 512, 512, 1, runtime=Runtime.COMPILED, device="cuda", dtype="float16")
OFFER = Offer(OWN, 4, ("sd15", "/srv/models/house"), {"ink.safetensors": INK})


def test_a_camera_gets_what_it_asks_for_on_the_servers_device_in_the_servers_way() -> None:
    asked = EngineSettings("/srv/models/house", 256, 192, 2, loras=(Lora("ink.safetensors", 0.5),))
    assert OFFER.settings_for(asked) == replace(
        asked, loras=(Lora(INK, 0.5),), runtime=Runtime.COMPILED, device="cuda", dtype="float16"
    )


@pytest.mark.parametrize("path", [INK, "../ink.safetensors", "/etc/passwd", "", "INK.safetensors"])
def test_a_lora_is_known_by_its_name_alone_and_a_servers_path_opens_nothing(path: str) -> None:
    with pytest.raises(RemoteError, match=r"does not offer the LoRA .*; it offers ink\.safetensors"):
        OFFER.settings_for(replace(OWN, loras=(Lora(path),)))
    with pytest.raises(RemoteError, match="does not offer the LoRA"):
        OFFER.loras_for((Lora("ink.safetensors"), Lora(path)))


def test_a_model_is_one_of_those_that_it_was_started_with() -> None:
    for model in ("house", "/srv/models", "/srv/models/house/", "embedded"):
        with pytest.raises(RemoteError, match="does not offer the model"):
            OFFER.settings_for(replace(OWN, model=model))


def test_a_picture_has_a_size_that_is_offered() -> None:
    assert OFFER.settings_for(replace(OWN, width=1024, height=1024)).width == 1024
    with pytest.raises(RemoteError, match="at most 1048576 pixels, not 1024x1040; take a smaller --engine-size"):
        OFFER.settings_for(replace(OWN, width=1024, height=1040))
