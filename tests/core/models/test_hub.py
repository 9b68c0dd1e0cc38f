"""core.models.hub and `vcam models` against a hub on this machine: what comes, what goes wrong, what is kept."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from core.engine import Engine
from core.errors import ModelError
from core.models import catalogue, hub, loras
from core.models.catalogue import CatalogueModel, File, Licence
from core.models.description import describe
from core.models.hub import DownloadProgress
from core.settings import EngineSettings, Look, Lora
from tests.support.hub_server import Hub
from tests.support.model_folders import layout_once, load_model, make_folder, make_full_shapes
from tests.support.patience import PATIENCE_S
from vcam.cli import main as cli
from vcam.worker.factories import core_engine

REVISION = "0123456789abcdef0123456789abcdef01234567"
UNET, TEXT, VAE = "unet/diffusion_pytorch_model", "text_encoder/model", "vae/diffusion_pytorch_model"
BIG = f"{UNET}.fp16.safetensors"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder with a LoRA beside it."""
    folder = make_folder(tmp_path_factory.mktemp("original") / "model")
    shapes = {name: tensor.shape for name, tensor in load_file(folder / f"{UNET}.safetensors").items()}
    generator = torch.Generator().manual_seed(0)
    lora = {}
    for name in ("mid_block.attentions.0.proj_in", "down_blocks.1.resnets.0.conv1", "time_embedding.linear_1"):
        out, *rest = shapes[f"{name}.weight"]
        key = f"lora_unet_{name.replace('.', '_')}"
        lora[f"{key}.lora_up.weight"] = torch.randn(out, 2, *[1] * (len(rest) - 1), generator=generator) / 5
        lora[f"{key}.lora_down.weight"] = torch.randn(2, *rest, generator=generator) / 5
        lora[f"{key}.alpha"] = torch.tensor(2.0)
    save_file(lora, folder / "lora.safetensors")
    return folder


def remote(original: Path) -> tuple[dict[str, bytes], CatalogueModel]:
    """What the hub holds, and the entry for it: two repositories, weights in float16, a LoRA to fuse."""
    small = [p.relative_to(original).as_posix() for p in original.rglob("*.json")]
    small = [path for path in small if not path.startswith("vae/")]
    held = {f"lab/model/{path}": (original / path).read_bytes() for path in small}
    files = [File("lab/model", REVISION, path, path) for path in small]
    for part in (UNET, TEXT):
        content = (original / f"{part}.safetensors").read_bytes()
        held[f"lab/model/{part}.fp16.safetensors"] = content
        sha256 = hashlib.sha256(content).hexdigest()
        target = f"{part}.safetensors"
        files.append(File("lab/model", REVISION, f"{part}.fp16.safetensors", target, len(content), sha256))
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        held[f"lab/tiny/{name}"] = (original / "vae" / name).read_bytes()
        files.append(File("lab/tiny", REVISION, name, f"vae/{name}"))
    held["lab/lora/weights.safetensors"] = (original / "lora.safetensors").read_bytes()
    held["lab/model/unet/diffusion_pytorch_model.bin"] = b"\x80\x04never asked for"
    files.append(File("lab/lora", REVISION, "weights.safetensors", "lora.safetensors"))
    licences = (Licence("Lab model", "LAB-1", "https://example.org/lab"),)
    own = {"schedule": "lcm", "steps": 2, "strength": 0.3, "width": 64, "height": 64}
    return held, CatalogueModel("lab", tuple(files), licences, own, lora="lora.safetensors")


@pytest.fixture
def entry(original: Path, server: Hub, monkeypatch: pytest.MonkeyPatch) -> CatalogueModel:
    held, made = remote(original)
    server.files.update(held)
    monkeypatch.setattr(catalogue, "ENTRIES", {"lab": made})
    for module in (hub, sys.modules["core.models.description"]):
        monkeypatch.setattr(module, "ENTRIES", {"lab": made})
    return made


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    made = Hub(REVISION)
    address = made.start()
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setenv("VCAM_MODELS_FOLDER", str(tmp_path / "models"))
    monkeypatch.setattr("core.algorithm.unet.layout", layout_once)
    yield made
    made.close()


class Watch:
    """Takes progress, and the waits between tries, which last no time."""

    def __init__(self) -> None:
        self.seen: list[DownloadProgress] = []
        self.waits: list[float] = []

    def __call__(self, progress: DownloadProgress) -> None:
        self.seen.append(progress)


def fetch(entry: CatalogueModel) -> Watch:
    watch = Watch()
    hub.fetch(entry, watch, watch.waits.append)
    return watch


def refused(entry: CatalogueModel) -> str:
    with pytest.raises(ModelError) as caught:
        fetch(entry)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def gets(server: Hub, path: str) -> list[str]:
    """The ranges with which the file was asked for."""
    return [asked for method, name, asked in server.asked if (method, name) == ("GET", path)]


# ------------------------------------------------------------------------------------------------- what is fetched


def test_a_fetched_model_is_the_one_with_its_lora_fused(entry: CatalogueModel, original: Path, server: Hub) -> None:
    watch = fetch(entry)
    assert entry.is_here()
    chosen = EngineSettings(model="lab", width=64, height=64, steps=1, device="cpu")
    lora = Lora(str(original / "lora.safetensors"))
    here = Engine(chosen, Look("ink"))._model.weights
    there = Engine(replace(chosen, model=str(original), loras=(lora,)), Look("ink"))._model.weights
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)
    plain = Engine(replace(chosen, model=str(original)), Look("ink"))._model.weights
    assert sum(not torch.equal(here[name], plain[name]) for name in here) == 3
    own = describe("lab")
    assert (own.name, own.steps, own.strength, own.licence) == ("lab", 2, 0.3, "Lab model: LAB-1")
    kept = {path.suffix for path in entry.folder.rglob("*") if path.is_file()}
    assert kept == {".json", ".safetensors"}
    assert not (entry.folder / "lora.safetensors").exists()
    done = [progress.done for progress in watch.seen]
    assert done == sorted(done)
    total = sum(len(content) for path, content in server.files.items() if not path.endswith(".bin"))
    assert watch.seen[-1].done == watch.seen[-1].total == total


def test_afterwards_no_call_is_made_and_a_closed_hub_is_no_matter(entry: CatalogueModel, server: Hub) -> None:
    fetch(entry)
    asked = len(server.asked)
    assert fetch(entry).seen == []
    assert len(server.asked) == asked
    server.close()
    load_model(EngineSettings(model="lab", width=64, height=64, device="cpu"))
    assert fetch(entry).seen == []


def test_each_file_is_asked_for_once_and_pickles_never(entry: CatalogueModel, server: Hub) -> None:
    fetch(entry)
    paths = [path for method, path, _ in server.asked if method == "GET"]
    assert sorted(paths) == sorted(file.path for file in entry.files)
    assert not [path for _, path, _ in server.asked if path.endswith(".bin")]


def test_before_it_is_fetched_it_is_described_but_not_loaded(entry: CatalogueModel) -> None:
    assert describe("lab").steps == 2
    with pytest.raises(ModelError, match="`vcam models download lab`"):
        load_model(EngineSettings(model="lab", width=64, height=64))


def test_the_real_entries_are_pinned_and_hold_no_pickle() -> None:
    real = {entry.name: entry for entry in (catalogue.SD15_LCM, catalogue.SD_TURBO, catalogue.SDXL_TURBO)}
    assert list(real) == ["sd15-lcm", "sd-turbo", "sdxl-turbo"]
    for entry in real.values():
        for file in entry.files:
            assert len(file.revision) == 40
            assert set(file.revision) <= set("0123456789abcdef")
            assert file.path.rpartition(".")[2] in ("json", "safetensors", "txt")
            if file.path.endswith(".safetensors"):
                assert file.sha256 is not None
                assert len(file.sha256) == 64
                assert file.size
        targets = {file.target for file in entry.files}
        assert {f"{part}/config.json" for part in ("unet", "vae", "text_encoder")} <= targets
        assert {f"{UNET}.safetensors", f"{TEXT}.safetensors", f"{VAE}.safetensors"} <= targets
        describe(entry.name)
    assert 2.0e9 < real["sd15-lcm"].size < 2.2e9
    two = {"text_encoder_2/config.json", "text_encoder_2/model.safetensors", "tokenizer_2/vocab.json"}
    assert two <= {file.target for file in real["sdxl-turbo"].files}
    assert all("Stability AI" in real[name].licences[0].name for name in ("sd-turbo", "sdxl-turbo"))


# --------------------------------------------------------------------------------------------------- what goes wrong


def test_a_broken_download_goes_on_where_it_stopped(entry: CatalogueModel, server: Hub) -> None:
    server.faults[BIG].append("GET cut 100000")
    watch = fetch(entry)
    assert gets(server, BIG) == ["", "bytes=100000-"]
    assert watch.waits == [1.0]
    assert entry.is_here()


def test_it_goes_on_in_another_run_too(entry: CatalogueModel, server: Hub) -> None:
    server.faults[BIG].extend(["GET cut 100000", *["GET cut 0"] * 5])
    assert "start again to go on from there" in refused(entry)
    assert hub.bytes_here(entry) > 100_000
    assert not entry.is_here()
    server.asked.clear()
    first = fetch(entry).seen[0]
    assert gets(server, BIG) == ["bytes=100000-"]
    assert first.done > 0
    # what was complete is not even looked at
    assert ("HEAD", "unet/config.json", "") not in server.asked
    assert entry.is_here()


def test_as_long_as_something_comes_it_is_not_given_up(entry: CatalogueModel, server: Hub) -> None:
    server.faults[BIG].extend(["GET cut 50000"] * 9)
    fetch(entry)
    assert gets(server, BIG) == ["", *[f"bytes={n}-" for n in range(50_000, 500_000, 50_000)]]


def test_a_hub_without_ranges_sends_it_from_the_start(entry: CatalogueModel, server: Hub) -> None:
    server.ranges = False
    server.faults[BIG].append("GET cut 100000")
    fetch(entry)
    assert gets(server, BIG) == ["", "bytes=100000-"]
    assert entry.is_here()


def test_ctrl_c_keeps_what_has_come(entry: CatalogueModel, server: Hub) -> None:
    def stop(progress: DownloadProgress) -> None:
        if progress.doing == "weights.safetensors":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hub.fetch(entry, stop)
    server.asked.clear()
    fetch(entry)
    assert [path for method, path, _ in server.asked if method == "GET"] == ["weights.safetensors"]


@pytest.mark.parametrize("path", [BIG, "unet/config.json"])
def test_a_wrong_hash_is_refused_and_the_next_try_begins_anew(entry: CatalogueModel, server: Hub, path: str) -> None:
    server.faults[path].append("GET other")
    message = refused(entry)
    assert "wrong hash" in message
    assert path in message
    fetch(entry)
    assert gets(server, path) == ["", ""]
    assert entry.is_here()


def test_another_file_than_the_known_one_is_not_even_fetched(entry: CatalogueModel, server: Hub) -> None:
    server.files[f"lab/model/{BIG}"] += b"more"
    assert "offers another file" in refused(entry)
    assert gets(server, BIG) == []


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("status", ["500", "503", "429"])
def test_trouble_that_passes_is_waited_for(entry: CatalogueModel, server: Hub, method: str, status: str) -> None:
    server.faults[BIG].extend([f"{method} {status}"] * 3)
    assert fetch(entry).waits == [1.0, 2.0, 4.0]
    assert entry.is_here()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("500", "the hub is in trouble (status 500)"),
        ("401", "accept the terms at https://huggingface.co/lab/model and log in"),
        ("403", "accept the terms at https://huggingface.co/lab/model and log in"),
        ("404", "not found at the hub"),
        ("418", "refuses (status 418"),
    ],
)
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_trouble_that_stays_is_said(entry: CatalogueModel, server: Hub, method: str, status: str, said: str) -> None:
    server.faults[BIG].extend([f"{method} {status}"] * 6)
    assert said in refused(entry)
    assert not entry.is_here()


def test_a_revision_that_is_gone_is_said(entry: CatalogueModel, server: Hub) -> None:
    server.revision = "f" * 40
    assert f"(revision {REVISION})" in refused(entry)


def test_no_network_is_said_at_once(entry: CatalogueModel, server: Hub) -> None:
    server.close()
    watch = Watch()
    with pytest.raises(ModelError, match="cannot be reached"):
        hub.fetch(entry, watch, watch.waits.append)
    assert watch.waits == []


def test_a_network_that_goes_away_is_waited_for_then_said(entry: CatalogueModel, server: Hub) -> None:
    def closing(progress: DownloadProgress) -> None:
        if progress.doing == BIG:
            server.close()

    server.faults[BIG].append("GET cut 1000")
    watch = Watch()
    with pytest.raises(ModelError, match="cannot be reached"):
        hub.fetch(entry, closing, watch.waits.append)
    assert watch.waits[-4:] == [1.0, 2.0, 4.0, 8.0]


def test_no_room_is_said_before_anything_comes(
    entry: CatalogueModel, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 150_000_000))
    assert "are needed in" in (message := refused(entry))
    assert "0.1 GB are free" in message or "0.2 GB are free" in message
    assert not [asked for asked in server.asked if asked[0] == "GET"]


def test_a_disk_that_fills_up_is_said_and_what_came_is_kept(
    entry: CatalogueModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() + len(data) > 500_000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    def opened(path: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        if path.name.startswith("diffusion") and "b" in mode and mode != "rb":
            return Full(str(path), mode)
        return real(path, mode, *args, **more)

    monkeypatch.setattr(Path, "open", opened)
    assert "the disk is full" in refused(entry)
    monkeypatch.setattr(Path, "open", real)
    assert hub.bytes_here(entry) > 300_000
    fetch(entry)


def test_ended_while_it_is_put_together_the_lora_is_not_fused_twice(
    entry: CatalogueModel, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def ended(path: Path, missing_ok: bool = False) -> None:
        if path.name == "lora.safetensors":
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", ended)
    with pytest.raises(KeyboardInterrupt):
        fetch(entry)
    monkeypatch.setattr(Path, "unlink", unlink)
    fetch(entry)
    state = load_file(original / f"{UNET}.safetensors")
    named = {f"unet.{name}": tensor for name, tensor in state.items() if tensor.dim() in (2, 4)}
    once = loras.fused(named, [Lora(str(original / "lora.safetensors"))])
    made = load_file(entry.folder / f"{UNET}.safetensors")
    assert all(torch.equal(made[name.removeprefix("unet.")], tensor) for name, tensor in once.items())


def test_two_at_once_are_one_too_many(entry: CatalogueModel) -> None:
    with hub._alone(entry):
        assert "another vcam is fetching it" in refused(entry)


@pytest.mark.slow
def test_a_model_of_full_size_is_broken_off_goes_on_and_is_put_together(server: Hub, tmp_path: Path) -> None:
    """2 GB, as sd15-lcm is: weights of zeros and a random LoRA in the form of LCM-LoRA, on every attention."""
    folder = make_full_shapes(tmp_path / "full")
    shapes = {name: tensor.shape for name, tensor in load_file(folder / f"{UNET}.safetensors").items()}
    named = [name.removesuffix(".weight") for name in shapes if ".attn" in name and name.endswith(".weight")]
    lora = {}
    for name in named:
        key = f"lora_unet_{name.replace('.', '_')}"
        lora[f"{key}.lora_up.weight"] = torch.randn(shapes[f"{name}.weight"][0], 64).half() / 8
        lora[f"{key}.lora_down.weight"] = torch.randn(64, shapes[f"{name}.weight"][1]).half() / 8
        lora[f"{key}.alpha"] = torch.tensor(32.0)
    save_file(lora, folder / "lora.safetensors")
    held, entry = remote(folder)
    server.files.update(held)
    server.faults[BIG].append("GET cut 1000000000")
    fetch(entry)
    (again,) = [asked for asked in gets(server, BIG) if asked]
    assert again == "bytes=1000000000-"
    made = load_file(entry.folder / f"{UNET}.safetensors")
    assert made.keys() == shapes.keys()
    for name, tensor in made.items():
        assert tensor.dtype is torch.float16
        if name.removesuffix(".weight") not in named or not name.endswith(".weight"):
            assert not tensor.any()
            continue
        key = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
        expected = lora[f"{key}.lora_up.weight"].float() @ lora[f"{key}.lora_down.weight"].float() / 2
        torch.testing.assert_close(tensor.float(), expected, atol=2e-3, rtol=2e-3)


# ------------------------------------------------------------------------------------------------ the user's word


def run(*words: str) -> int:
    return cli.main(["models", *words])


def test_nothing_is_fetched_without_the_users_word(
    entry: CatalogueModel, server: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.ensure("lab", Watch())
    assert run("download", "lab") == 1
    told = capsys.readouterr().err
    assert "Lab model: LAB-1, https://example.org/lab" in told
    assert "say --yes" in told
    assert server.asked == []
    assert not hub.accepted(entry)


def test_yes_fetches_shows_the_licence_once_and_is_remembered(
    entry: CatalogueModel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("download", "lab", "--yes", "--json") == 0
    said = capsys.readouterr()
    assert "LAB-1" in said.err
    told = json.loads(said.out)
    assert told["folder"] == str(entry.folder)
    assert told["bytes"] == hub.bytes_here(entry)
    assert "lab: 100%" in said.err
    assert run("remove", "lab", "--json") == 0
    assert json.loads(capsys.readouterr().out)["bytes"] > 1_000_000
    assert not entry.is_here()
    hub.ensure("lab", Watch())
    assert entry.is_here()
    assert run("download", "lab") == 0
    assert "LAB-1" not in capsys.readouterr().err


def test_other_licences_are_accepted_anew(entry: CatalogueModel) -> None:
    hub.accept(entry)
    assert hub.accepted(entry)
    assert not hub.accepted(replace(entry, licences=(Licence("Lab model", "LAB-2", "https://example.org/lab"),)))


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 1), ("", 1)])
def test_somebody_at_a_terminal_is_asked(
    entry: CatalogueModel, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    monkeypatch.setattr("vcam.cli.models._somebody", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert run("download", "lab") == status
    assert entry.is_here() == (status == 0)


def test_a_model_named_on_the_command_line_is_fetched_and_used(
    entry: CatalogueModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    monkeypatch.setenv("VCAM_CONFIG_FOLDER", str(tmp_path / "config"))
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "in.png"), picture)
    words = ["translate", str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--prompt", "ink", "--json"]
    assert cli.main([*words, "--model", "lab", "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert "LAB-1" in said.err
    assert json.loads(said.out)["model"] == "lab"
    assert (tmp_path / "out.png").exists()


def test_the_cameras_engine_fetches_what_was_agreed_to_and_tells_how_far_it_is(entry: CatalogueModel) -> None:
    told: list[tuple[str, float]] = []
    chosen = EngineSettings(model="lab", width=64, height=64, device="cpu")
    with pytest.raises(ModelError, match="not on this machine yet"):  # a profile's model, not one that was named
        core_engine(chosen, Look("ink"), 1, lambda text, share: told.append((text, share)))
    assert not [text for text, _ in told if text.startswith("fetching")]
    hub.accept(entry)
    core_engine(chosen, Look("ink"), 1, lambda text, share: told.append((text, share)))
    percents = [int(found[1]) for text, _ in told if (found := re.match(r"fetching the model lab: (\d+) % of ", text))]
    assert len(percents) > 10
    assert percents == sorted(set(percents))
    assert percents[-1] == 100
    assert all(0 < share <= 0.5 for text, share in told if text.startswith("fetching"))


def test_a_half_fetched_model_is_listed_as_such(
    entry: CatalogueModel, server: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults[BIG].extend(["GET cut 100000", *["GET cut 0"] * 5])
    refused(entry)
    assert run() == 0
    assert "MB of it are here: `vcam models download lab`" in capsys.readouterr().out
    assert run("list", "--json") == 0
    (lab,) = (one for one in json.loads(capsys.readouterr().out)["models"] if one["name"] == "lab")
    assert not lab["here"]
    assert lab["bytes_here"] > 100_000


@pytest.mark.parametrize("words", [["download"], ["download", "nonsense"], ["remove", "embedded"]])
def test_a_model_that_is_none_is_said(
    entry: CatalogueModel, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 1
    assert "lab" in capsys.readouterr().err


def test_the_program_as_it_is_asks_the_hub_that_the_environment_names(server: Hub, tmp_path: Path) -> None:
    from huggingface_hub import constants

    environment = {**os.environ, "HF_ENDPOINT": constants.ENDPOINT, "VCAM_MODELS_FOLDER": str(tmp_path / "m")}
    command = [sys.executable, "-m", "vcam", "models", "download", "sd15-lcm", "--yes"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == 1
    assert "not found at the hub (revision 451f4fe16113bff5a5d2269ed5ad43b0592e9a14)" in ended.stderr
    assert "CreativeML OpenRAIL-M" in ended.stderr
    assert ("HEAD", "scheduler/scheduler_config.json", "") in server.asked
