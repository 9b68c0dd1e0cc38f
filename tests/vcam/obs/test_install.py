"""`vcam obs install`: the script lies where OBS loads it, and nothing else of OBS's is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vcam.errors import VcamError
from vcam.obs import install

COLLECTION = {
    "name": "Untitled",
    "sources": [{"name": "Scene"}],
    "modules": {"scripts-tool": [{"path": "/x/other.lua"}]},
}


def test_the_script_is_installed_and_added_once(tmp_path: Path) -> None:
    scenes = tmp_path / "basic" / "scenes"
    scenes.mkdir(parents=True)
    (scenes / "Untitled.json").write_text(json.dumps(COLLECTION))
    (scenes / "Two.json").write_text(json.dumps({"name": "Two"}))
    profiles = [("ink", "Ink"), ("oil", 'Oil "painting"')]
    first = install.install(tmp_path, profiles, add_to_scenes=True)
    assert [path.name for path in first.added_to] == ["Two.json", "Untitled.json"]
    assert "Tools > WebSocket Server Settings" in install.steps(first)
    assert "+ >" not in install.steps(first)
    second = install.install(tmp_path, profiles, add_to_scenes=True)
    assert second.added_to == []
    after = json.loads((scenes / "Untitled.json").read_text())
    assert [one["path"] for one in after["modules"]["scripts-tool"]] == ["/x/other.lua", first.script.as_posix()]
    assert after["sources"] == COLLECTION["sources"]
    assert json.loads((scenes / "Untitled.json.before-streamv2v").read_text()) == COLLECTION
    told = json.loads((first.script.parent / install.PROFILES).read_text())
    assert told["profiles"][1] == {"id": "oil", "name": 'Oil "painting"'}
    assert install.installed_in([tmp_path, tmp_path / "no"]) == [first.script.parent]


def test_without_being_asked_no_scene_collection_is_touched(tmp_path: Path) -> None:
    scene = tmp_path / "basic" / "scenes" / "Untitled.json"
    scene.parent.mkdir(parents=True)
    scene.write_text(json.dumps(COLLECTION))
    done = install.install(tmp_path, [], add_to_scenes=False)
    assert json.loads(scene.read_text()) == COLLECTION
    assert "Tools > Scripts > +" in install.steps(done)
    assert str(done.script) in install.steps(done)


def test_what_is_no_scene_collection_is_named(tmp_path: Path) -> None:
    scene = tmp_path / "basic" / "scenes" / "Broken.json"
    scene.parent.mkdir(parents=True)
    scene.write_text("[1, 2")
    with pytest.raises(VcamError, match=r"Broken\.json is no scene collection"):
        install.install(tmp_path, [], add_to_scenes=True)
    assert scene.read_text() == "[1, 2"
