"""`vcam suite`: what is measured, that a suite that was ended goes on to the same report, and other systems' films."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from core.errors import ModelError
from core.measure.identity import MarkedFace
from core.measure.motion import Pixels
from core.models.catalogue import FACE, PERSON, SOURCE
from core.models.description import EMBEDDED
from core.settings import (
    BankPreset,
    EngineSettings,
    Framing,
    Look,
    Lora,
    Policy,
    Region,
)
from tests.support import synthetic_films as films
from tests.support.media_files import film
from tests.support.synthetic_films import Film
from vcam.errors import OptionError, VcamError
from vcam.offline.suite import inputs
from vcam.offline.suite.inputs import made_by, model_hashes, profile_hash, program_hash, sha256_of
from vcam.offline.suite.make import MadeReport, find_clips, make_report, others_of
from vcam.offline.suite.plan import OtherSystem, SuiteCell, SuitePlan, films_of, parse_setting
from vcam.offline.suite.results import CLAIMS, read_claims
from vcam.offline.suite.run import SuiteInstruments
from vcam.settings.engine_options import EngineOptions
from vcam.settings.profiles import Profile
from vcam.video import probe

FRAMES, LONG = 16, 26  # pictures that are measured, and that a clip has
PALE = Profile("pale", "Pale", look=Look(prompt="pale", strength=0.5))
DARK = Profile("dark", "Dark", look=Look(prompt="dark", strength=0.5))
SETTINGS = (parse_setting("steady: bank=fifo"), parse_setting("off"))


class PaintingEngine:
    """Turns a picture into a pale or dark negative by its look's prompt; without a bank it flickers; one step late."""

    built = 0

    def __init__(self, settings: EngineSettings, look: Look) -> None:
        type(self).built += 1
        self.settings, self.look = settings, look
        self.delay = settings.steps - 1
        self._waiting: list[Pixels] = []
        self._count = 0

    def translate(self, picture: Pixels) -> Pixels | None:
        level = 235.0 if self.look.prompt == "pale" else 160.0
        flicker = 0 if self.settings.policy is Policy.FIFO else 8 * (self._count % 2)
        self._count += 1
        self._waiting.append(films.whole(level - picture / 2.0 + flicker))
        return self._waiting.pop(0) if len(self._waiting) > self.delay else None

    def drain(self) -> Iterator[Pixels]:
        while self._waiting:
            yield self._waiting.pop(0)


class Ended(Exception):
    """The program's end in mid-suite."""


def reference(prompt: str, size: tuple[int, int]) -> Callable[[Pixels], Pixels]:
    return lambda picture: np.asarray(255 - picture // 2, np.uint8)


def no_faces() -> Callable[[Pixels], list[MarkedFace]]:
    return lambda picture: []


def no_model() -> Callable[[Pixels], list[MarkedFace]]:
    raise ModelError("no face is looked for: the model for it is not here")


def lab(**changes: Any) -> SuiteInstruments:
    ticks = itertools.count()
    given: dict[str, Any] = {
        "make_engine": PaintingEngine,
        "open_landmarks": no_faces,
        "reference": reference,
        "clock": lambda: float(next(ticks)),
    }
    return SuiteInstruments(**{**given, **changes})


def written(path: Path, pictures: Film, rate: int = 24) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = (pictures[0].shape[1], pictures[0].shape[0])
    return film(path, pictures, rate=rate, size=size, options={"crf": "6"})


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("clips")
    return (
        written(folder / "walk.mp4", films.source(LONG)),
        written(folder / "talk.mp4", films.moving(films.texture(3), LONG)),
    )


def plan(clips: tuple[Path, ...], **changes: Any) -> SuitePlan:
    asked = EngineOptions(width=96, height=64, steps=2)
    return replace(SuitePlan(clips, (PALE, DARK), SETTINGS, asked=asked, side=80, frames=FRAMES), **changes)


def made(plan: SuitePlan, folder: Path, instruments: SuiteInstruments | None = None) -> MadeReport:
    return make_report(plan, folder, lab=instruments or lab(), progress=False, note=lambda text: None)


def without_clock(result: dict[str, Any]) -> dict[str, Any]:
    """A result less what the clock told."""
    text = json.loads(json.dumps(result))
    for row in [*text["rows"], *text["table"].values()]:
        del row["speed"]
    return dict(text)


@pytest.fixture(scope="module")
def whole(clips: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[MadeReport, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return made(plan(clips), folder), folder


def test_every_clip_profile_and_setting_is_measured(whole: tuple[MadeReport, Path], clips: tuple[Path, ...]) -> None:
    result = whole[0].result
    assert [(row["clip"], row["by"], row["profile"]) for row in result["rows"][:4]] == [
        ("walk.mp4", "steady", "pale"),
        ("walk.mp4", "steady", "dark"),
        ("walk.mp4", "off", "pale"),
        ("walk.mp4", "off", "dark"),
    ]
    assert len(result["rows"]) == 8
    inputs = {one["name"]: one["sha256"] for one in result["inputs"]}
    assert {name: inputs.get(name) for name in ("walk.mp4", "talk.mp4")} == {one.name: sha256_of(one) for one in clips}
    assert {"profile pale", "profile dark", "model embedded: unet", "model embedded: detail"} <= inputs.keys()
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in inputs.values())
    steady, off = (result["table"][name]["figures"] for name in ("steady", "off"))
    assert off["warp_error"]["mean"] > steady["warp_error"]["mean"] + 40
    assert off["flicker"]["mean"] > steady["flicker"]["mean"] + 1
    assert off["warp_error"]["change_percent"] > 50
    assert steady["warp_error"]["change_percent"] == 0
    assert off["warp_error"]["films"] == 4
    assert off["warp_error"]["least"] <= off["warp_error"]["mean"] <= off["warp_error"]["most"]
    assert all(row["figures"]["frames"] == FRAMES for row in result["rows"])
    assert all(row["figures"]["prompt_alignment"] is not None for row in result["rows"])
    assert all(row["delay"] == 1 for row in result["rows"])
    assert "steady" in whole[0].text


def test_a_suite_that_was_ended_goes_on_to_the_same_report(
    whole: tuple[MadeReport, Path], clips: tuple[Path, ...], tmp_path: Path
) -> None:
    calls = itertools.count()

    class EndsInTheMiddle(PaintingEngine):
        def translate(self, picture: Pixels) -> Pixels | None:
            if next(calls) == 3 * FRAMES + 9:
                raise Ended
            return super().translate(picture)

    with pytest.raises(Ended):
        made(plan(clips), tmp_path, lab(make_engine=EndsInTheMiddle))
    done = sorted((tmp_path / "cells").glob("*.json"))
    assert len(done) == 3
    assert not (tmp_path / "report.json").exists()
    torn = done[1]
    torn.write_text(torn.read_text()[:100])  # what was written when the power went
    before = PaintingEngine.built
    found = made(plan(clips), tmp_path)
    assert PaintingEngine.built - before == 6
    assert without_clock(found.result) == without_clock(whole[0].result)
    before = PaintingEngine.built
    assert without_clock(made(plan(clips), tmp_path).result) == without_clock(whole[0].result)
    assert PaintingEngine.built == before


def test_what_changed_is_made_anew(whole: tuple[MadeReport, Path], clips: tuple[Path, ...]) -> None:
    before = PaintingEngine.built
    other = made(plan(clips, settings=(parse_setting("off:strength=0.4"),)), whole[1])
    assert PaintingEngine.built > before
    assert len({row["key"] for row in other.result["rows"]} & {row["key"] for row in whole[0].result["rows"]}) == 0


def test_a_changed_profile_or_lora_has_another_hash(tmp_path: Path) -> None:
    other = replace(PALE, engine=EngineOptions(slots=2))
    assert len({profile_hash(one) for one in (PALE, DARK, other, replace(PALE, name="Of another name"))}) == 3
    (tmp_path / "a.safetensors").write_bytes(b"a")
    found = model_hashes(EngineSettings(loras=(Lora(str(tmp_path / "a.safetensors")),)))
    assert found["LoRA a.safetensors"] == sha256_of(tmp_path / "a.safetensors")


def test_the_time_left_is_told_by_the_films_that_were_made(
    clips: tuple[Path, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = itertools.count()

    class EndsInTheFourth(PaintingEngine):
        def translate(self, picture: Pixels) -> Pixels | None:
            if next(pictures) == 3 * FRAMES:
                raise Ended
            return super().translate(picture)

    with pytest.raises(Ended):
        make_report(plan(clips), tmp_path, lab=lab(make_engine=EndsInTheFourth), note=lambda text: None)
    assert re.search(r"3/8 \[\d\d:\d\d<\d\d:\d\d,", capsys.readouterr().err)
    make_report(plan(clips), tmp_path, lab=lab(), note=lambda text: None)
    told = capsys.readouterr().err
    assert "| 3/8 [00:00<?, ?film/s]" in told, "what was there took no time"
    assert re.search(r"8/8 \[\d\d:\d\d<00:00,", told)


def test_noise_is_added_to_the_clips_and_told(
    whole: tuple[MadeReport, Path], clips: tuple[Path, ...], tmp_path: Path
) -> None:
    asked = plan(clips[:1], profiles=(PALE,), settings=SETTINGS[:1], noise=8.0)
    noised, again = (made(asked, folder).result for folder in (tmp_path / "out", tmp_path / "again"))
    plain = next(row for row in whole[0].result["rows"] if row["clip"] == "walk.mp4" and row["profile"] == "pale")
    row = noised["rows"][0]
    assert noised["asked"]["noise"] == 8
    # of noise without a flow's part in it: two pictures' noise, of which the warp smooths one a little
    gained = row["figures"]["warp_error_input"] - plain["figures"]["warp_error_input"]
    assert 64 < gained < 1.2 * 2 * 64
    assert row["key"] != plain["key"]
    assert noised["sources"]["walk.mp4"]["shown"] != whole[0].result["sources"]["walk.mp4"]["shown"]
    assert without_clock(noised) == without_clock(again), "it is the same noise each time"


@pytest.mark.parametrize("sigma", [-1.0, 65.0, float("nan")])
def test_noise_that_cannot_be_is_named(clips: tuple[Path, ...], sigma: float) -> None:
    with pytest.raises(OptionError, match="--noise is"):
        plan(clips, noise=sigma)


def test_other_systems_films_were_made_without_noise(clips: tuple[Path, ...], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--noise with CoDeF's films"):
        plan(clips, noise=8.0, others=(OtherSystem("CoDeF", tmp_path),))


# ------------------------------------------------------------------------------------------------ other systems


def test_other_systems_are_in_the_same_table_whatever_their_rate_size_length_and_delay(
    clips: tuple[Path, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "TokenFlow"
    negative = films.edit(LONG)
    small = [np.asarray(cv2.resize(one, (80, 60), interpolation=cv2.INTER_AREA), np.uint8) for one in negative]
    written(folder / "walk-pale.mp4", small[: LONG - 1])
    written(folder / "dark" / "walk.mp4", films.late(negative, 2)[::2], rate=12)
    written(folder / "talk.mp4", films.moving(np.asarray(235 - films.texture(3) // 2, np.uint8), LONG))
    written(folder / "another.mp4", negative)
    asked = plan(clips, settings=SETTINGS[:1], others=(OtherSystem("TokenFlow", folder),), frames=LONG)
    result = made(asked, tmp_path / "out").result
    rows = {(row["clip"], row["profile"]): row for row in result["rows"] if row["by"] == "TokenFlow"}
    assert set(rows) == {("walk.mp4", "pale"), ("walk.mp4", "dark"), ("talk.mp4", None)}
    assert any("80x60" in text for text in rows["walk.mp4", "pale"]["said"])
    assert any("walk.mp4: its last picture has no partner" in text for text in rows["walk.mp4", "pale"]["said"])
    assert any("12 pictures a second" in text for text in rows["walk.mp4", "dark"]["said"])
    assert rows["walk.mp4", "dark"]["delay"] == 1
    assert rows["talk.mp4", None]["figures"]["prompt_alignment"] is None
    assert result["table"]["TokenFlow"]["speed"] is None
    ours = result["table"]["steady"]["figures"]["edit_strength"]["mean"]
    assert result["table"]["TokenFlow"]["figures"]["edit_strength"]["mean"] == pytest.approx(ours, rel=0.25)
    assert {one["name"] for one in result["inputs"]} >= {"TokenFlow: walk-pale.mp4", "walk.mp4"}
    assert str(tmp_path) not in json.dumps(result), "a report does not tell where files lie"


def test_a_film_that_is_not_there_is_said(clips: tuple[Path, ...], tmp_path: Path) -> None:
    written(tmp_path / "CoDeF" / "walk.mp4", films.edit(LONG))
    asked = plan(clips, settings=(), profiles=(), others=(OtherSystem("CoDeF", tmp_path / "CoDeF"),))
    notes = made(asked, tmp_path / "out").result["notes"]
    assert [note.endswith("no film named like talk.mp4") for note in notes] == [True]


def test_a_film_that_cannot_be_measured_is_left_out_and_said(clips: tuple[Path, ...], tmp_path: Path) -> None:
    folder = tmp_path / "CoDeF"
    written(folder / "walk.mp4", films.edit(LONG))
    (folder / "walk-pale.mp4").write_bytes(b"no film")
    written(folder / "talk.mp4", films.edit(LONG)[:5])
    seen: list[int] = []

    class Counts(PaintingEngine):
        def __init__(self, settings: EngineSettings, look: Look) -> None:
            super().__init__(settings, look)
            seen.append(len(list((tmp_path / "out" / "cells").glob("*.json"))))

    asked = plan(clips, profiles=(PALE,), settings=SETTINGS[:1], others=(OtherSystem("CoDeF", folder),), frames=None)
    result = made(asked, tmp_path / "out", lab(make_engine=Counts)).result
    assert [(row["clip"], row["by"]) for row in result["rows"]] == [
        ("walk.mp4", "steady"),
        ("walk.mp4", "CoDeF"),
        ("talk.mp4", "steady"),
    ]
    assert {(one["clip"], one["profile"]) for one in result["left_out"]} == {("walk.mp4", "pale"), ("talk.mp4", None)}
    assert all(any(one["reason"] in note for note in result["notes"]) for one in result["left_out"])
    assert str(tmp_path) not in json.dumps(result["left_out"])
    assert seen[0] == 1, "other systems' films come before anything is translated"


def test_where_no_film_can_be_measured_there_is_no_report(clips: tuple[Path, ...], tmp_path: Path) -> None:
    (tmp_path / "walk.mp4").write_bytes(b"no film")
    asked = plan(clips[:1], profiles=(), settings=(), others=(OtherSystem("CoDeF", tmp_path),))
    with pytest.raises(VcamError, match="not one film could be measured: "):
        made(asked, tmp_path / "out")


def test_another_prompt_measures_another_systems_film_anew(clips: tuple[Path, ...], tmp_path: Path) -> None:
    written(tmp_path / "CoDeF" / "walk-pale.mp4", films.edit(LONG))
    asked = plan(clips[:1], settings=(), profiles=(PALE,), others=(OtherSystem("CoDeF", tmp_path / "CoDeF"),))
    other = replace(asked, profiles=(replace(PALE, look=Look(prompt="paler")),))
    keys = [made(one, tmp_path / "out").result["rows"][0]["key"] for one in (asked, other, asked)]
    assert keys[0] == keys[2] != keys[1]


def key_of(settings: EngineSettings, look: Look = PALE.look, **measured: Any) -> str:
    return SuiteCell(Path("walk.mp4"), "pale", "own", settings, look).key({Path("walk.mp4"): "1"}, measured)


def test_the_key_knows_the_files_that_make_the_pictures(tmp_path: Path) -> None:
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in paths:
        path.write_bytes(path.name.encode())
    one, two = (made_by(EngineSettings(loras=(Lora(str(path)),)), PALE.look) for path in paths)
    assert one["loras"] != two["loras"]
    assert one["model"] == two["model"] != []
    assert one["runtime"][2] != "auto"
    assert key_of(EngineSettings()) != key_of(EngineSettings(), program="another")


MODEL_FILES = sorted(one.relative_to(EMBEDDED) for one in EMBEDDED.rglob("*") if one.is_file())


@pytest.mark.parametrize("file", MODEL_FILES, ids=Path.as_posix)
def test_a_model_of_which_one_file_is_another_makes_other_films(file: Path, tmp_path: Path) -> None:
    """Each file of the model, the description with its bank's settings too: a resumed suite must not mix the two."""
    folder = tmp_path / "own"
    shutil.copytree(EMBEDDED, folder)
    settings = EngineSettings(str(folder))
    before, again = key_of(settings), key_of(settings)
    assert before == again
    if file.suffix == ".json":
        told = json.loads((folder / file).read_text(encoding="utf-8"))
        (folder / file).write_text(json.dumps(told, indent=3), encoding="utf-8")
    else:
        with (folder / file).open("ab") as end:
            end.write(b" ")
    assert (key_of(settings) != before) is (file.as_posix() != "model_index.json")  # of which nothing is read


def test_a_description_with_another_bank_makes_other_films(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(EMBEDDED, folder)
    before = key_of(EngineSettings(str(folder)))
    told = json.loads((folder / "streamv2v.json").read_text(encoding="utf-8"))
    told["fusion"]["strength"] = 0.5
    (folder / "streamv2v.json").write_text(json.dumps(told), encoding="utf-8")
    assert key_of(EngineSettings(str(folder))) != before


def test_the_key_knows_the_small_models_and_pictures_of_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCAM_MODELS_FOLDER", str(tmp_path))
    wall = tmp_path / "wall.png"
    cv2.imwrite(str(wall), films.source(1)[0])
    followed = replace(PALE.look, framing=Framing.FACE)
    alone = replace(PALE.look, region=Region.PERSON, elsewhere=str(wall))
    seen = [(key_of(EngineSettings(), followed), key_of(EngineSettings(), alone))]
    for entry in (FACE, PERSON):
        entry.folder.mkdir()
        (entry.folder / entry.files[0].target).write_bytes(b"one")
        (entry.folder / SOURCE).write_text("{}")
        seen.append((key_of(EngineSettings(), followed), key_of(EngineSettings(), alone)))
    cv2.imwrite(str(wall), films.edit(1)[0])
    seen.append((key_of(EngineSettings(), followed), key_of(EngineSettings(), alone)))
    followed_keys, alone_keys = zip(*seen, strict=True)
    assert [a != b for a, b in itertools.pairwise(followed_keys)] == [True, False, False]
    assert [a != b for a, b in itertools.pairwise(alone_keys)] == [False, True, True]


def test_another_face_model_measures_anew(
    clips: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCAM_MODELS_FOLDER", str(tmp_path / "models"))
    FACE.folder.mkdir(parents=True)
    (FACE.folder / SOURCE).write_text("{}")
    asked = plan(clips[:1], profiles=(PALE,), settings=SETTINGS[:1])
    keys = []
    for content in (b"one", b"another"):
        (FACE.folder / FACE.files[0].target).write_bytes(content)
        result = made(asked, tmp_path / "out").result
        keys.append(result["rows"][0]["key"])
        inputs = {one["name"]: one["sha256"] for one in result["inputs"]}
        assert inputs["model face"] == hashlib.sha256(content).hexdigest()
        assert inputs["program"] == program_hash()
    assert keys[0] != keys[1]


def test_a_program_of_which_one_line_is_another_makes_and_measures_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    before = program_hash.__wrapped__()
    for name in ("metrics.py", "engine.py", "pairing.py", "run.py", "crops.py"):
        monkeypatch.setattr(inputs, "_digest", lambda path, name=name: f"{path.name == name} {path.name}")
        assert program_hash.__wrapped__() != before
    monkeypatch.setattr(inputs, "_digest", lambda path: path.name)
    files = program_hash.__wrapped__()
    monkeypatch.setattr(inputs, "_digest", lambda path: "1" if path.name == "page.py" else path.name)
    assert program_hash.__wrapped__() == files, "a report that looks otherwise is of the same films"


def test_what_is_changed_while_a_film_is_made_of_it_ends_the_suite(clips: tuple[Path, ...], tmp_path: Path) -> None:
    clip = tmp_path / "walk.mp4"
    clip.write_bytes(clips[0].read_bytes())

    class Changing(PaintingEngine):
        def drain(self) -> Iterator[Pixels]:
            clip.write_bytes(clips[1].read_bytes())
            return super().drain()

    asked = plan((clip,), profiles=(PALE,))
    with pytest.raises(VcamError, match=r"walk, pale, steady: the clip, the model or another file .* was changed"):
        made(asked, tmp_path / "out", lab(make_engine=Changing))
    assert list((tmp_path / "out" / "cells").glob("*.json")) == []


def test_a_clip_of_another_length_has_a_film_of_its_own_in_the_report(clips: tuple[Path, ...], tmp_path: Path) -> None:
    asked = plan(clips[:1], profiles=(PALE,), settings=SETTINGS[:1])
    for frames in (8, 16):
        result = made(replace(asked, frames=frames), tmp_path).result
        shown = tmp_path / "cells" / result["sources"]["walk.mp4"]["shown"]
        assert probe(shown).frames == frames


def test_each_row_says_on_which_machine_it_was_made(whole: tuple[MadeReport, Path]) -> None:
    assert all(row["machine"]["processor"] for row in whole[0].result["rows"])


def test_what_was_said_while_a_clip_was_read_is_in_a_resumed_report_too(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, picture in enumerate(films.source(3)):
        cv2.imwrite(str(folder / f"{index}.png"), picture)
    (folder / "1.png").write_bytes(b"no picture")
    asked = plan((folder,), profiles=(PALE,))
    first, again = (made(asked, tmp_path / "out").result["notes"] for _ in range(2))
    assert any("1.png" in note for note in first)
    assert [note for note in first if "1.png" in note] == [note for note in again if "1.png" in note]


def test_films_are_found_by_the_clips_names(tmp_path: Path) -> None:
    for name in ("walk.mp4", "walk_ink.webm", "walk-noir.mp4", "walking.mp4", "ink/walk.mkv", "walk/1.png", "walk.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = films_of(tmp_path, Path("clips/walk.mov"), ["ink"])
    assert [(path.relative_to(tmp_path).as_posix(), profile) for path, profile in found] == [
        ("walk", None),
        ("walk.mp4", None),
        ("walk_ink.webm", "ink"),
        ("ink/walk.mkv", "ink"),
    ]


def test_claims_have_a_source_and_may_be_replaced(tmp_path: Path) -> None:
    assert all(claim.source for claim in CLAIMS)
    path = tmp_path / "claims.json"
    path.write_text('[{"system": "FlowVid", "fps": 2, "hardware": "H100", "source": "their page"}]')
    found = {claim.system: claim for claim in read_claims(path)}
    assert found["FlowVid"].fps == 2
    assert len(found) == len(CLAIMS)
    for wrong in ("{}", "[1]", '[{"system": "A", "fps": 1, "hardware": "B"}]', "no"):
        path.write_text(wrong)
        if wrong == "{}":
            assert read_claims(path) == CLAIMS
            continue
        with pytest.raises(OptionError, match=r"claims\.json: no list of claims"):
            read_claims(path)


# ------------------------------------------------------------------------------------------------ what is asked


@pytest.mark.parametrize(
    ("text", "engine", "look"),
    [
        ("default", {}, {}),
        ("merge", {"policy": Policy.MERGE}, {}),
        ("paper", {"bank": BankPreset.PAPER}, {}),
        ("theirs:bank=authors,steady=0.2", {"bank": BankPreset.AUTHORS}, {"steady": 0.2}),
        ("four: slots=4, bank=fifo", {"slots": 4, "policy": Policy.FIFO}, {}),
        ("sure:similarity-threshold=0.98,interval=2", {}, {"similarity_threshold": 0.98, "interval": 2}),
    ],
)
def test_settings_are_read(text: str, engine: dict[str, Any], look: dict[str, Any]) -> None:
    found = parse_setting(text)
    assert (dict(found.engine), dict(found.look)) == (engine, look)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fast", "'fast' is no setting; it must be default, fifo, merge, off, paper or authors"),
        ("a:intervall=2", "no key=value; did you mean interval"),
        ("a:slots", "no key=value"),
        ("a:slots=two", "slots is 'two'; it must be a number"),
        ("a:bank=ring", "bank is 'ring'; it must be one of own, paper, authors"),
        ("a:loras=x", "put it into a profile"),
    ],
)
def test_settings_that_are_none_are_named(text: str, said: str) -> None:
    with pytest.raises(OptionError, match=re.escape(said)):
        parse_setting(text)


def test_clips_and_folders_that_cannot_be_used_are_named(clips: tuple[Path, ...], tmp_path: Path) -> None:
    assert find_clips([clips[0].parent]) == tuple(sorted(clips))
    with pytest.raises(OptionError, match="no film in this folder"):
        find_clips([tmp_path])
    with pytest.raises(OptionError, match=r"gone\.mp4: there is no such film or folder"):
        find_clips([tmp_path / "gone.mp4"])
    with pytest.raises(OptionError, match="two clips are named walk"):
        find_clips([clips[0], clips[0]])
    with pytest.raises(OptionError, match="must be NAME=FOLDER"):
        others_of(["CoDeF"])
    with pytest.raises(OptionError, match="a name of its own"):
        made(plan(clips, settings=SETTINGS[:1] * 2), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_wrong_input_is_not_told_as_a_wrong_folder_for_the_report(clips: tuple[Path, ...], tmp_path: Path) -> None:
    for wrong in (tmp_path / "gone.mp4", tmp_path):
        with pytest.raises(VcamError) as told:
            made(plan((wrong,)), tmp_path / "out")
        assert str(told.value).startswith(f"{wrong}: ")
        assert "written" not in str(told.value)
    (tmp_path / "file").touch()
    with pytest.raises(VcamError, match="file: cannot be written"):
        made(plan(clips), tmp_path / "file")


# ------------------------------------------------------------------------------------------------ the page


def test_the_report_holds_all_it_shows_and_asks_nothing_of_the_network(whole: tuple[MadeReport, Path]) -> None:
    text = (whole[1] / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|fetch\(|XMLHttpRequest|url\(""", text)
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert data["names"] == list(data["result"]["table"]), "the first is the one that others are compared with"
    assert data["result"] == json.loads((whole[1] / "report.json").read_text(encoding="utf-8"))
    for row in [*data["result"]["rows"], *data["result"]["sources"].values()]:
        assert len(data["films"][row["shown"]]) > 1000
        assert len(data["strips"][row["strip"]]) > 1000


def test_a_blind_film_is_not_known_by_its_name_or_size(whole: tuple[MadeReport, Path]) -> None:
    from vcam.video import probe

    rows = whole[0].result["rows"]
    shapes = {(probe(whole[1] / "cells" / row["shown"]).width, row["figures"]["frames"]) for row in rows}
    assert len(shapes) == 1
    for row in rows:
        for word in (row["by"], row["profile"], "walk", "talk"):
            assert word not in row["shown"]


def test_the_included_model_gives_the_same_figures_whatever_was_measured_before(tmp_path: Path) -> None:
    clip = written(tmp_path / "walk.mp4", films.source(6))
    ink = Profile("ink", "Ink", look=Look(prompt="ink drawing", strength=0.5))
    clay = Profile("clay", "Clay", look=Look(prompt="claymation", strength=0.5))
    asked = EngineOptions(width=96, height=64)
    settings = (parse_setting("default"), parse_setting("merge"))
    both = SuitePlan((clip,), (clay, ink), settings, asked=asked, side=80, frames=6)
    real = SuiteInstruments(open_landmarks=no_model, reference=reference)
    together = made(both, tmp_path / "both", real).result["rows"]
    alone = made(replace(both, profiles=(ink,)), tmp_path / "alone", real).result["rows"]
    assert [row["figures"] for row in together if row["profile"] == "ink"] == [row["figures"] for row in alone]
    assert {row["runtime"] for row in together} != {None}
