"""What vcam serve does before and around Ray; Ray itself is in tests/programs/test_ray_serve.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.models import device_memory
from core.settings import EngineSettings, Runtime
from vcam.errors import RemoteError
from vcam.remote import cluster
from vcam.remote.certificate import Certificate
from vcam.remote.cluster import ServeOptions, no_room
from vcam.remote.host import Offer

SMALL = EngineSettings("embedded", 128, 96, 1, runtime=Runtime.EAGER, device="cpu")


class HereRay:
    """Ray, as far as it is asked before the server is started: calls functions here."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.over = False

    def remote(self, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        self.asked.append(options)

        class Remote:
            def __init__(self, call: Callable[..., Any]) -> None:
                self.remote = call

        return Remote

    def get(self, result: Any) -> Any:
        return result

    def shutdown(self) -> None:
        self.over = True


def test_too_little_memory_for_the_streams_ends_the_start_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    offer = Offer(SMALL, 4)
    assert no_room(offer, 1) == ""
    monkeypatch.setattr(device_memory, "free", lambda device: 400_000_000)
    own = Certificate(Path(), Path(), "")
    options = ServeOptions(replace(offer, streams=64), own, Path(), replicas=8)
    ray = HereRay()
    with pytest.raises(RemoteError, match=r"8 engines, each with 64 streams, needs .* are free on cpu"):
        cluster._predict(ray, options)
    assert ray.over
    cards = HereRay()
    cluster._predict(cards, replace(options, gpus=1.0, offer=offer))  # each has its own memory
    assert cards.asked == [{"num_cpus": 1, "num_gpus": 1.0, "max_calls": 1}]
    assert not cards.over


def test_a_model_that_cannot_be_had_ends_the_start_in_a_sentence() -> None:
    assert "model 'absent' is neither a known name" in no_room(Offer(replace(SMALL, model="absent")), 1)
