"""Which models could not be loaded, why, and when each is to be tried again: told at once to who asks before that."""

from __future__ import annotations

from dataclasses import dataclass

from core.settings import EngineSettings
from vcam.remote.protocol import Refusal, Refused

LOAD_AGAIN_S, LONGEST_LOAD_AGAIN_S = 5.0, 300.0  # until a load that failed is tried again, at first and at the most
MOST_FAILED = 64  # loads that are remembered


@dataclass(frozen=True)
class _FailedLoad:
    """Why a model could not be loaded, how often in a row that was so, and when it was tried last.

    freed: how often memory had been given back until then, None unless it was short: more is a reason to try again.
    """

    text: str
    tries: int
    tried_s: float
    freed: int | None

    @property
    def again_s(self) -> float:
        """When it is to be tried again."""
        return self.tried_s + min(LONGEST_LOAD_AGAIN_S, LOAD_AGAIN_S * 2.0 ** min(self.tries - 1, 16))

    def due(self, now_s: float, freed: int) -> bool:
        """Return whether it is to be tried now."""
        more = self.freed is not None and freed > self.freed
        return now_s >= (self.tried_s + LOAD_AGAIN_S if more else self.again_s)


class FailedLoads:
    """The loads that failed last, by their settings. Whoever calls holds the lock of what they are part of."""

    def __init__(self) -> None:
        self._failed: dict[EngineSettings, _FailedLoad] = {}
        self.freed = 0  # how often memory was given back: a stream or a model was gone

    def __len__(self) -> int:
        return len(self._failed)

    def note(self, settings: EngineSettings, text: str, memory_short: bool, now_s: float) -> None:
        """Remember that this could not be loaded."""
        before = self._failed.pop(settings, None)
        tries = 1 if before is None else before.tries + 1
        self._failed[settings] = _FailedLoad(text, tries, now_s, self.freed if memory_short else None)
        while len(self._failed) > MOST_FAILED:
            del self._failed[next(iter(self._failed))]

    def loaded(self, settings: EngineSettings) -> None:
        """Forget that it could not be: it was."""
        self._failed.pop(settings, None)

    def refusal(self, settings: EngineSettings, now_s: float) -> Refused | None:
        """Return why this is not tried now, None where it is."""
        failed = self._failed.get(settings)
        if failed is None or failed.due(now_s, self.freed):
            return None
        wait_s = max(1, round(failed.again_s - now_s))
        return Refused(Refusal.ENGINE, f"{failed.text}; the server tries it again in {wait_s} s")
