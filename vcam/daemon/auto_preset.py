"""The preset `auto`: measures what the running engine makes, and takes the sharpest preset that is quick enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from vcam.frames import EngineWork, TranslatorState
from vcam.settings.presets import BY_SHARPNESS, ENOUGH, Preset, cost, expectations, next_preset
from vcam.settings.run_options import RunOptions
from vcam.settings.selection import Choice, with_automatic
from vcam.settings.speeds import Speed, place, remember, remembered

WARM_UP = 5  # pictures of an engine that do not count: memory is taken, prompts are encoded
WINDOW_S = 2.0  # seconds of the engine's own work that count
LEAST, MOST = 4, 60  # pictures that a rate is made of


@dataclass(frozen=True)
class Measured:
    """What is known of one model in this run. rates: pictures a second, by preset. settled: the outcome, in words."""

    rates: dict[Preset, float] = field(default_factory=dict)
    settled: str = ""


class AutoPreset:
    """Watches the engine while the preset is `auto`. `look` belongs to the commands' thread.

    folder: where what was measured is kept between runs. say: tells the user. `says` may be read from any thread.
    """

    def __init__(self, options: RunOptions, folder: Path, say: Callable[[str], None]) -> None:
        self._place = place(options)
        self._asked = options.engine.preset
        self._folder, self._say = folder, say
        self._before = remembered(folder, self._place)
        self._measured: dict[tuple[str, str], Measured] = {}  # by model and runtime
        self._began: EngineWork | None = None
        self.says = ""

    @property
    def automatic(self) -> dict[str, Preset]:
        """What `auto` takes at the start, by model."""
        return {model: speed.preset for model, speed in self._before.items()}

    def look(self, choice: Choice, state: TranslatorState) -> Choice | None:
        """Return the choice that `auto` now makes, None while it stays."""
        asked, self._asked = self._asked, choice.options.engine.preset
        if self._asked is Preset.AUTO is not asked:  # the user wants it to be found anew
            self._measured.clear()
            self._before.clear()
        work, facts = state.work, state.facts
        if choice.preset is not Preset.AUTO or choice.look.skip_difference:  # what is skipped takes no time
            self._began, self.says = None, ""
            return None
        if state.changing or state.phase != "running" or work is None or facts is None:
            self._began = None
            return None
        key = (choice.settings.model, facts.runtime)
        known = self._measured.get(key, Measured())
        if known.settled:
            self.says = known.settled
            return None
        wanted, own = choice.settings, replace(work.settings, loras=choice.settings.loras)
        if own == wanted:
            rate = self._rate(work)
        elif state.refused and replace(own, width=wanted.width, height=wanted.height, steps=wanted.steps) == wanted:
            rate = 0.0  # a preset that cannot be had, for want of memory for one
        else:
            return None  # not begun yet, or another model was refused
        return None if rate is None else self._after(key, choice, _with(known, choice.taken, rate))

    def _rate(self, work: EngineWork) -> float | None:
        """Return the pictures a second that the engine makes, None while it is not known."""
        began = self._began
        if began is None or began.settings != work.settings or began.pictures > work.pictures:
            self.says = "measuring this machine"
            self._began = work if work.pictures >= WARM_UP else None
            return None
        pictures, busy_s = work.pictures - began.pictures, work.busy_s - began.busy_s
        enough = pictures >= MOST or (pictures >= LEAST and busy_s >= WINDOW_S)
        return pictures / max(busy_s, 1e-6) if enough else None

    def _after(self, key: tuple[str, str], choice: Choice, known: Measured) -> Choice | None:
        """Return what comes after a measurement, and keep it where it was the last one."""
        self._began = None
        now = choice.taken
        costs = {preset: cost(with_automatic(choice, preset).settings) for preset in BY_SHARPNESS}
        before = self._before.get(key[0])
        rates_before = before.rates if before is not None and before.runtime == key[1] else {}
        wanted = next_preset(now, known.rates, expectations(now, known.rates[now], costs, rates_before))
        if wanted is not now and wanted not in known.rates:
            self._measured[key] = known
            self._say(f"auto: {now} makes {known.rates[now]:.1f} pictures a second; trying {wanted}")
            return with_automatic(choice, wanted)
        self._settled(key, wanted, dict(rates_before) | known.rates)
        self._measured[key] = replace(known, settled=self.says)
        return None if wanted is now else with_automatic(choice, wanted)

    def _settled(self, key: tuple[str, str], preset: Preset, rates: dict[Preset, float]) -> None:
        model, runtime = key
        enough = "" if rates[preset] >= ENOUGH else f": fewer than {ENOUGH:g}, with the quickest preset"
        others = [f"{one} {rates[one]:.1f}" for one in BY_SHARPNESS if rates.get(one) and one is not preset]
        self.says = f"{preset} makes {rates[preset]:.1f} pictures a second on this machine{enough}" + (
            f" ({', '.join(others)})" if others else ""
        )
        speed = Speed(preset, runtime, {one: round(rate, 2) for one, rate in rates.items()})
        self._before[model] = speed
        self._say(f"auto: {self.says}")
        try:
            remember(self._folder, self._place, model, speed)
        except OSError as error:
            self._say(f"auto: the measurement cannot be kept ({error.strerror or error}); the next start repeats it")


def _with(known: Measured, preset: Preset, rate: float) -> Measured:
    return replace(known, rates=known.rates | {preset: rate})
