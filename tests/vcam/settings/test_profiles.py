"""Profiles: what is shipped, what a user may write, and what each mistake is answered with."""

from __future__ import annotations

import os
import re
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.models.description import describe
from core.settings import EngineSettings, Framing, Guidance, Look, Lora, OnSwitch, Policy, Region
from vcam.errors import OptionError, ProfileError
from vcam.settings import profiles as under_test
from vcam.settings.config import DEFAULT_PROFILE
from vcam.settings.engine_options import EngineOptions
from vcam.settings.profiles import (
    Profile,
    find_profile,
    load_profiles,
    parse_profile,
    save_profile,
    shipped_folder,
    to_toml,
)
from vcam.settings.toml_schema import LARGEST_FILE, LONGEST_LINE

FULL = """
name = "Ink"
description = "Brush and ink"
badge = true
[look]
prompt = "ink, a person talking"
negative_prompt = "colour"
strength = 0.6
seed = 7
guidance = 1.5
residual = 0.5
skip_difference = 2.5
skip_limit = 3
transition_ms = 250
on_switch = "flush"
framing = "face"
region = "person"
elsewhere = "pictures/sea.jpg"
[look.bank]
fusion_strength = 0.75
similarity_threshold = 0.9
interval = 4
[engine]
model = "sd15-lcm"
steps = 4
width = 512
height = 384
policy = "merge"
slots = 2
guidance = "self-negative"
loras = [{ path = "loras/ink.safetensors", weight = 0.5 }, { path = "/abs/x.safetensors" }]
"""
SMALL = 'name = "Ink"\n[look]\nprompt = "ink"\n'


def write(folder: Path, text: str | bytes, name: str = "ink.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def error_of(path: Path) -> str:
    with pytest.raises(ProfileError) as caught:
        parse_profile(path)
    assert caught.value.id == path.stem.lower()
    assert caught.value.path == path
    return str(caught.value)


# --- what is shipped ---------------------------------------------------------------------------------------------


def test_shipped_profiles_all_load(tmp_path: Path) -> None:
    profiles, problems = load_profiles(tmp_path / "none")
    assert problems == []
    assert len(profiles) >= 8
    assert [one.order for one in profiles.values()] == list(range(1, len(profiles) + 1))
    assert len({one.name.casefold() for one in profiles.values()}) == len(profiles)
    for id, one in profiles.items():
        assert one.id == id
        assert one.path == shipped_folder() / f"{id}.toml"
        assert one.description
        style, person, *more = one.look.prompt.split(", ")
        assert style
        assert person == "a person talking"
        assert more == (["vivid", "colourful", "bright"] if id == "neon" else [])
        assert one.engine == EngineOptions(), "shipped profiles run on any machine: the model's description decides"


def test_embedded_model_knows_every_word_of_the_shipped_profiles() -> None:
    words = set(describe("embedded").words)
    for one in load_profiles(Path("/nowhere")).profiles.values():
        assert set(re.findall(r"\w+", one.look.prompt)) <= words, one.id


def test_shipped_profile_that_changes_who_one_is_carries_the_badge(tmp_path: Path) -> None:
    profiles, _ = load_profiles(tmp_path)
    assert {id for id, one in profiles.items() if one.badge} == {"gold", "marble"}


# --- reading -----------------------------------------------------------------------------------------------------


def test_every_key_arrives(tmp_path: Path) -> None:
    path = write(tmp_path, FULL)
    assert parse_profile(path) == Profile(
        id="ink",
        name="Ink",
        description="Brush and ink",
        look=Look(
            prompt="ink, a person talking",
            negative_prompt="colour",
            strength=0.6,
            seed=7,
            guidance=1.5,
            residual=0.5,
            fusion_strength=0.75,
            similarity_threshold=0.9,
            interval=4,
            on_switch=OnSwitch.FLUSH,
            skip_difference=2.5,
            skip_limit=3,
            framing=Framing.FACE,
            region=Region.PERSON,
            elsewhere=str(tmp_path / "pictures/sea.jpg"),
        ),
        transition_ms=250,
        engine=EngineOptions(
            model="sd15-lcm",
            steps=4,
            width=512,
            height=384,
            policy=Policy.MERGE,
            slots=2,
            guidance=Guidance.SELF_NEGATIVE,
            loras=(Lora(str(tmp_path / "loras/ink.safetensors"), 0.5), Lora("/abs/x.safetensors")),
        ),
        badge=True,
        path=path,
    )


def test_every_field_of_a_look_has_a_key(tmp_path: Path) -> None:
    keys = {key.rpartition(".")[2] for key in under_test.SCHEMA if key.startswith("look.")}
    assert keys - {"transition_ms"} == set(Look.__dataclass_fields__)


def test_smallest_profile_takes_the_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    assert parse_profile(path) == Profile("ink", "Ink", look=Look(prompt="ink"), path=path)


def test_mark_of_windows_editors_and_their_line_ends_are_read(tmp_path: Path) -> None:
    assert parse_profile(write(tmp_path, b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())).name == "Ink"


def test_prompt_on_several_lines_is_folded(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "Ink"\n[look]\nprompt = """\nink,\n  a person\n"""\n')
    assert parse_profile(path).look.prompt == "ink, a person"


def test_model_folder_is_relative_to_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL + '[engine]\nmodel = "./mine"\n')
    assert parse_profile(path).engine == EngineOptions(model=str(tmp_path / "mine"))


BAD = {
    "look.framing is 'near'; it must be fill, fit or face": SMALL + "framing = 'near'",
    "look.region is 'persons'; it must be all, person or background; did you mean person?": SMALL
    + "region = 'persons'",
    "look.elsewhere is 'blurr'; it must be camera, blur or the path of a picture": SMALL + "elsewhere = 'blurr'",
    "look.elsewhere is 3; it must be text": SMALL + "elsewhere = 3",
    "look.strength is 1.7; it must be between 0.02 and 1": SMALL + "strength = 1.7",
    "look.strength is nan; it must be between 0.02 and 1": SMALL + "strength = nan",
    "look.strength is inf; it must be between 0.02 and 1": SMALL + "strength = inf",
    "look.strength is -0.5; it must be between 0.02 and 1": SMALL + "strength = -0.5",
    "look.strength is True; it must be a number between 0.02 and 1": SMALL + "strength = true",
    "look.strength is '0.5'; it must be a number": SMALL + "strength = '0.5'",
    "look.seed is 1.5; it must be a whole number between 0 and 4294967295": SMALL + "seed = 1.5",
    "look.seed is True; it must be a whole number between 0 and 4294967295": SMALL + "seed = true",
    "look.seed is -1; it must be between 0 and 4294967295": SMALL + "seed = -1",
    "look.transition_ms is -1; it must be a whole number between 0 and 10000": SMALL + "transition_ms = -1",
    "look.transition_ms is 1.5; it must be a whole number between 0 and 10000": SMALL + "transition_ms = 1.5",
    "look.on_switch is 'fade'; it must be keep, decay or flush": SMALL + "on_switch = 'fade'",
    "look.on_switch is 'flsh'; it must be keep, decay or flush; did you mean flush?": SMALL + "on_switch = 'flsh'",
    "look.on_switch is [1]; it must be keep, decay or flush": SMALL + "on_switch = [1]",
    "look.bank.interval is 0; it must be between 1 and 1000": SMALL + "bank.interval = 0",
    "look.bank.fusion_strength is 2; it must be between 0 and 1": SMALL + "[look.bank]\nfusion_strength = 2",
    "look.bank is 3; it must be a table: [look.bank]": SMALL + "bank = 3",
    "unknown key look.strenght; did you mean strength?": SMALL + "strenght = 0.5",
    "unknown key look.interval; did you mean look.bank.interval?": SMALL + "interval = 3",
    "unknown key strength; did you mean look.strength?": 'strength = 1\nname = "x"',
    "unknown key bagde; did you mean badge?": "bagde.x = 1",
    "unknown key look.xyzzy; known here: prompt, negative_prompt, strength, seed, guidance, residual, on_switch, "
    "skip_difference, skip_limit, wander, detail, framing, region, elsewhere, transition_ms and bank": SMALL
    + "xyzzy = 1",
    "unknown key look.bank.interval; known here: prompt, ": SMALL + '"bank.interval" = 3',
    "name is 3; it must be text in quotes": "name = 3",
    "name is empty; it must be a text": "name = '  '",
    "name is 'a\\tb'; it must be one line without control characters": 'name = "a\\tb"',
    "name has 61 characters; it must have at most 60": f"name = '{'x' * 61}'",
    'name is missing; write name = "..."': "[look]\nprompt = 'x'",
    'look.prompt is missing; write prompt = "..."': "name = 'x'",
    "look.prompt is empty; it must be a text": "name = 'x'\nlook.prompt = ''",
    "look.prompt has 1001 characters; it must have at most 1000": f"name = 'x'\nlook.prompt = '{'p' * 1001}'",
    "look.prompt is 'a\\x00b'; it must be one line without control": 'name = "x"\nlook.prompt = "a\\u0000b"',
    "badge is 1; it must be true or false": SMALL.replace("[look]", "badge = 1\n[look]"),
    "engine.width is 250; it must be a multiple of 16": SMALL + "[engine]\nwidth = 250",
    "engine.height is 100000; it must be between 64 and 2048": SMALL + "[engine]\nheight = 100000",
    "engine.steps is 0; it must be between 1 and 16": SMALL + "[engine]\nsteps = 0",
    "engine.policy is 'lifo'; it must be fifo, merge or off; did you mean fifo?": SMALL + "[engine]\npolicy = 'lifo'",
    "engine.loras is 'x'; it must be a list such as": SMALL + "[engine]\nloras = 'x'",
    "engine.loras[0] is 'x'; it must be { path =": SMALL + "[engine]\nloras = ['x']",
    "engine.loras[0].path is missing": SMALL + "[engine]\nloras = [{ weight = 1 }]",
    "engine.loras[0].path is 3; it must be text": SMALL + "[engine]\nloras = [{ path = 3 }]",
    "unknown key engine.loras[0].wieght; known here: path and weight": SMALL
    + "[engine]\nloras = [{ path = 'x', wieght = 1 }]",
    "engine.loras[0].weight is nan; it must be a number between -4 and 4": SMALL
    + "[engine]\nloras = [{ path = 'x', weight = nan }]",
    "engine.loras[0].weight is a number of thousands of digits; it must be a number": SMALL
    + f"[engine]\nloras = [{{ path = 'x', weight = 0x{'f' * 9000} }}]",
    "it is not valid TOML: Expected '=' after a key in a key/value pair (at line 2, column 5)": "name = 'x'\nlook\n",
    "it is not valid TOML: Cannot overwrite a value (at line 2, column 11)": "name = 'x'\nname = 'y'\n",
    "its keys or lists are nested more than 16 deep (about line 1)": "a = " + "[" * 20_000,
    "it is not valid TOML: nested too deep, or a number too long": "a = " + "9" * 5000,
    "look.seed is a number of thousands of digits; that is far too large": SMALL + "seed = 0x" + "f" * 9000,
    "look.strength is 1000": SMALL + "strength = 1" + "0" * 400,
}


@pytest.mark.parametrize("message", BAD, ids=range(len(BAD)))
def test_each_mistake_is_named_in_one_line(message: str, tmp_path: Path) -> None:
    said = error_of(write(tmp_path, BAD[message]))
    assert said.startswith(f"ink.toml: {message}")
    assert "\n" not in said
    assert len(said) <= LONGEST_LINE


def test_text_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    said = error_of(write(tmp_path, SMALL.encode() + b'negative_prompt = "\xe9"\n'))
    assert said == "ink.toml: it is not UTF-8 text (line 4); save it as UTF-8"
    assert "not UTF-8" in error_of(write(tmp_path, SMALL.encode("utf-16")))


def test_huge_file_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    os.truncate(path, 10 << 30)  # sparse
    assert error_of(path) == f"ink.toml: it is larger than {LARGEST_FILE // 1024} KiB; that is no settings file of ours"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert error_of(tmp_path / "ink.toml") == "ink.toml: no such file"
    (tmp_path / "ink.toml").mkdir()
    assert error_of(tmp_path / "ink.toml") == "ink.toml: it is not a file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ink.toml")
    assert error_of(tmp_path / "ink.toml") == "ink.toml: it is not a file"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    path.chmod(0)
    assert error_of(path) == "ink.toml: it cannot be read (Permission denied)"


@pytest.mark.parametrize("name", ["my ink.toml", "é.toml", "con.toml", "a.b.toml", "-x.toml", f"{'x' * 64}.toml"])
def test_odd_file_names_are_refused(name: str, tmp_path: Path) -> None:
    assert "this file name cannot be used; a profile's id is its file name" in error_of(write(tmp_path, SMALL, name))


@settings(max_examples=150)
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda t: (SMALL + t).encode(errors="surrogatepass")))
def test_any_bytes_give_a_profile_or_one_line(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = write(tmp_path_factory.getbasetemp() / "any", raw)
    said = "ink.toml: "
    try:
        parse_profile(path)
    except ProfileError as error:
        said = str(error)
    assert said.startswith("ink.toml: ")
    assert said.isprintable()
    assert len(said) <= LONGEST_LINE


# --- all of them -------------------------------------------------------------------------------------------------


def test_users_profile_goes_before_the_shipped_one(tmp_path: Path) -> None:
    write(tmp_path, SMALL.replace("Ink", "Mine"), "claymation.toml")
    profiles, problems = load_profiles(tmp_path)
    assert problems == []
    assert profiles["claymation"].name == "Mine"


def test_the_users_own_come_first_and_the_shipped_ones_in_the_order_that_was_looked_at(tmp_path: Path) -> None:
    write(tmp_path, SMALL.replace("Ink", "Mine"), "mine.toml")
    write(tmp_path, f"order = 900\n{SMALL.replace('Ink', 'Last')}", "last.toml")
    profiles, _ = load_profiles(tmp_path)
    assert list(profiles)[:3] == ["mine", DEFAULT_PROFILE, "claymation"]
    assert list(profiles)[-1] == "last"
    shipped = [one.order for one in profiles.values() if one.id not in ("mine", "last")]
    assert shipped == list(range(1, len(shipped) + 1)), "each has its place"
    path = save_profile(profiles["last"], tmp_path)
    assert parse_profile(path).order == 900


def test_broken_profile_hides_only_itself(tmp_path: Path) -> None:
    write(tmp_path, "name = \n", "claymation.toml")
    write(tmp_path, SMALL, "mine.toml")
    write(tmp_path, "not toml", "._mine.toml")
    write(tmp_path, "not toml", "notes.txt")
    profiles, problems = load_profiles(tmp_path)
    assert "mine" in profiles
    assert "claymation" not in profiles, "another look than the user wrote would be a silent fallback"
    assert len(profiles) >= 8
    assert [(one.id, one.path) for one in problems] == [("claymation", tmp_path / "claymation.toml")]
    with pytest.raises(ProfileError, match=r"claymation.toml: it is not valid TOML: .*line 1"):
        find_profile("Claymation", profiles, problems)


def test_same_id_twice_is_a_problem(tmp_path: Path) -> None:
    write(tmp_path, SMALL, "INK.toml")
    if (tmp_path / "ink.toml").exists():
        pytest.skip("file names here do not know small from capital letters")
    write(tmp_path, SMALL, "ink.toml")
    profiles, problems = load_profiles(tmp_path)
    assert profiles["ink"].path == tmp_path / "INK.toml"
    assert [str(one) for one in problems] == [
        f"ink.toml: INK.toml in {tmp_path} has the same id; rename one of the two"
    ]


def test_folder_that_is_a_file_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "profiles"
    path.write_text("x")
    profiles, problems = load_profiles(path)
    assert profiles
    assert [str(one) for one in problems] == [f"{path}: the folder of profiles cannot be read (Not a directory)"]


def test_users_folder_is_in_the_config_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCAM_CONFIG_FOLDER", str(tmp_path))
    write(tmp_path / "profiles", SMALL, "mine.toml")
    assert "mine" in load_profiles().profiles


def test_find_by_id_and_name_in_any_case() -> None:
    ink, oil = Profile("ink", "Brush and Ink"), Profile("oil", "Ink")
    both = {"ink": ink, "oil": oil}
    assert find_profile(" INK ", both) is ink, "an id goes before a name"
    assert find_profile("brush AND ink", both) is ink
    assert find_profile("oil", both) is oil


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("onk", "no profile 'onk'; did you mean ink?"),
        ("zzzzz", "no profile 'zzzzz'; there are ink, oil and pen"),
        ("", "no profile ''; there are ink, oil and pen"),
        ("Same", "'Same' is the name of more than one profile: oil and pen; use the id"),
        ("../../etc/passwd", "no profile '../../etc/passwd'; there are ink, oil and pen"),
        ("a\nb", "no profile 'a\\nb'; there are ink, oil and pen"),
    ],
)
def test_unknown_profile_is_answered_with_a_hint(text: str, said: str) -> None:
    known = {one.id: one for one in (Profile("ink", "Brush"), Profile("oil", "Same"), Profile("pen", "same"))}
    with pytest.raises(ProfileError) as caught:
        find_profile(text, known)
    assert str(caught.value) == said


def test_find_among_none() -> None:
    with pytest.raises(ProfileError, match="no profile 'ink'; there are none"):
        find_profile("ink", {})


# --- writing -----------------------------------------------------------------------------------------------------

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60).map(lambda t: " ".join(t.split()))
words = words.filter(lambda t: bool(t) and t.isprintable())
fraction = st.floats(0, 1)
looks = st.builds(
    Look,
    prompt=words,
    negative_prompt=words | st.just(""),
    strength=st.floats(0.02, 1),
    seed=st.integers(0, 2**32 - 1),
    guidance=st.floats(0, 30),
    residual=st.floats(0, 2),
    fusion_strength=st.none() | fraction,
    similarity_threshold=st.none() | st.floats(-1, 1),
    interval=st.none() | st.integers(1, 1000),
    on_switch=st.sampled_from(OnSwitch),
    skip_difference=st.floats(0, 255),
    skip_limit=st.integers(0, 100_000),
    wander=st.floats(0, 90),
    framing=st.none() | st.sampled_from(Framing),
    region=st.sampled_from(Region),
    elsewhere=st.sampled_from(["camera", "blur", "sea.jpg", "./sea", "/abs/sea"]),
)
side = st.integers(4, 128).map(lambda n: n * 16)
loras = st.lists(st.builds(Lora, st.sampled_from(["a.safetensors", "sub/b.safetensors"]), st.floats(-4, 4)), max_size=3)
engines = st.builds(
    EngineOptions,
    model=st.none() | st.sampled_from(["embedded", "sd15-lcm"]),
    width=st.none() | side,
    height=st.none() | side,
    steps=st.none() | st.integers(1, 16),
    slots=st.none() | st.integers(1, 16),
    policy=st.none() | st.sampled_from(Policy),
    guidance=st.none() | st.sampled_from(Guidance),
    loras=st.none() | loras.map(tuple),
)
made = st.builds(
    Profile,
    id=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True).filter(lambda t: t not in under_test._DEVICES),
    name=words,
    description=words | st.just(""),
    look=looks,
    transition_ms=st.integers(0, 10_000),
    engine=engines,
    badge=st.booleans(),
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(made)
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, profile: Profile) -> None:
    folder = tmp_path_factory.getbasetemp() / "round"
    if profile.engine.loras is not None:
        kept = tuple(Lora(str(folder / one.path), one.weight) for one in profile.engine.loras)
        profile = replace(profile, engine=replace(profile.engine, loras=kept))
    if profile.look.elsewhere not in ("camera", "blur"):
        profile = replace(profile, look=replace(profile.look, elsewhere=str(folder / profile.look.elsewhere)))
    path = save_profile(profile, folder)
    assert parse_profile(path) == replace(profile, path=path)
    assert [p.name for p in folder.iterdir()] == [path.name], "no temporary file stays"
    path.unlink()


def test_shipped_profiles_are_written_as_they_were_read(tmp_path: Path) -> None:
    for one in load_profiles(tmp_path / "none").profiles.values():
        path = save_profile(one, tmp_path)
        assert parse_profile(path) == replace(one, path=path)


def test_written_file_is_short_and_has_relative_paths(tmp_path: Path) -> None:
    lora = Lora(str(tmp_path / "x.safetensors"), 0.5)
    profile = Profile(
        "ink", "Ink", look=Look(prompt="ink", interval=4), engine=EngineOptions(loras=(lora, Lora("/o.safetensors")))
    )
    assert to_toml(profile, tmp_path).split("\n") == [
        'name = "Ink"',
        "",
        "[look]",
        'prompt = "ink"',
        "strength = 0.5",
        "",
        "[look.bank]",
        "interval = 4",
        "",
        "[engine]",
        "loras = [",
        '    { path = "x.safetensors", weight = 0.5 },',
        '    { path = "/o.safetensors", weight = 1.0 },',
        "]",
        "",
    ]


@pytest.mark.parametrize("id", ["../x", "..", "a/b", "a\\b", "", "A", ".x", "x.toml", "nul", "x" * 64, "a\n", "/etc/x"])
def test_no_id_leaves_the_folder(id: str, tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be used"):
        save_profile(Profile(id, "Ink", look=Look(prompt="ink")), tmp_path / "in")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (Profile("ink", "", look=Look(prompt="x")), "ink: name is empty; it must be a text"),
        (Profile("ink", "a\nb", look=Look(prompt="x")), "ink: name is 'a\\nb'; it must be one line"),
        (Profile("ink", "Ink"), "ink: look.prompt is empty; it must be a text"),
        (Profile("ink", "Ink", look=Look("x"), engine=EngineOptions(device="cpu")), "ink: unknown key engine.device"),
        (
            Profile("ink", "Ink", look=Look("x"), engine=EngineOptions(steps=99)),
            "ink: engine.steps is 99; it must be between",
        ),
        (Profile("ink", "Ink", look=Look("x"), transition_ms=-1), "ink: look.transition_ms is -1; it must be"),
    ],
)
def test_what_could_not_be_read_is_not_written(profile: Profile, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    with pytest.raises(ProfileError) as caught:
        save_profile(profile, tmp_path)
    assert str(caught.value).startswith(said)
    assert path.read_text() == SMALL


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, SMALL)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ProfileError, match=r"ink.toml: the profile cannot be written \(No space left on device\)"):
        save_profile(Profile("ink", "New", look=Look(prompt="x")), tmp_path)
    assert path.read_text() == SMALL
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions on Windows")
def test_saved_profile_is_the_users_alone_to_write(tmp_path: Path) -> None:
    path = save_profile(Profile("ink", "Ink", look=Look(prompt="x")), tmp_path / "new" / "folder")
    assert not stat.S_IMODE(path.stat().st_mode) & 0o022


def test_the_page_of_keys_has_all_of_them_with_their_bounds_and_what_stands_where_they_are_left_out() -> None:
    page = (Path(__file__).parents[3] / "docs" / "profiles.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in page.splitlines() if line.startswith("| `")]
    documented = {key.strip("` "): (value, default) for keys, value, default in rows for key in keys.split(",")}
    assert documented.keys() == under_test.SCHEMA.keys()
    for key, (value, default) in documented.items():
        own = getattr(EngineSettings() if key.startswith("engine.") else Look(), key.rpartition(".")[2], None)
        if own not in (None, "", ()) and default not in ("", "the model's", "the preset's", "config.toml's"):
            assert default == (f"{own:g}" if isinstance(own, float | int) else own), key
        if bounds := re.search(r"(-?[\d.]+) to ([\d.]+)", value):
            low, high = (float(end) if "." in end else int(end) for end in bounds.groups())
            assert [under_test.SCHEMA[key](key, end) for end in (low, high)] == [low, high]
            with pytest.raises(OptionError, match=re.escape(key)):
                under_test.SCHEMA[key](key, int(high) + 16)
