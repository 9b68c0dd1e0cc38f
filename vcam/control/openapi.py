"""The API's description for programs (OpenAPI 3.1)."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from core.settings import Framing, Look, OnSwitch, Region
from vcam.commands import PROMPT_LIMIT, Status, verbs

_JSON = "application/json"
_WORDS: dict[str, Any] = {
    "on_switch": {"enum": list(OnSwitch)},
    "framing": {"enum": [None, *Framing]},
    "region": {"enum": list(Region)},
}
_KINDS = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


def document() -> dict[str, Any]:
    """Return the description of version 1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "StreamV2V Camera",
            "version": "1.0.0",
            "description": "On 127.0.0.1 only. Port and token are in session.json in the state folder; send it as "
            "`Authorization: Bearer TOKEN`. A WebSocket at /api/v1/events sends the status whenever it changes. "
            "What changes something is a POST, PUT or DELETE with a JSON body of at most 64 KiB, 50 a second.",
        },
        "security": [{"token": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }


def _paths() -> dict[str, Any]:
    api, id = "/api/v1", _id()
    status, profile = _ref("Status"), _ref("ProfileDetail")
    return {
        f"{api}/status": {"get": _operation("The state of everything", status)},
        f"{api}/command": {"post": _operation("Carry out a command", status, _ref("Command"))},
        f"{api}/look": {
            "get": _operation("The look as it is now", {"type": "object"}),
            "post": _operation("Change some fields of the look", status, _ref("LookChanges")),
        },
        f"{api}/try": {
            "post": _operation("The newest camera picture in another look, privately", "image/jpeg", _ref("Try"))
        },
        f"{api}/profiles": {"get": _operation("All profiles", {"type": "object"})},
        f"{api}/profiles/{{id}}": {
            "parameters": [id],
            "get": _operation("One profile, in the shape of its file", profile),
            "put": _operation("Write a profile into the user's folder", profile, _ref("Profile")),
            "delete": _operation("Remove one of the user's profiles", {"type": "object"}, {"type": "object"}),
        },
        f"{api}/profiles/{{id}}/thumbnail.jpg": {
            "parameters": [id],
            "get": _operation("The test picture in the profile's look", "image/jpeg"),
        },
        f"{api}/profiles/{{id}}/file": {
            "parameters": [id],
            "get": _operation("One profile as the text of its file", "application/toml"),
            "put": _operation("Write a profile's file into the user's folder", profile, _ref("ProfileFile")),
        },
        f"{api}/engine": {"get": _operation("What the engine is built from; sizes without bars", {"type": "object"})},
        f"{api}/words": {"get": _operation("The styles and words that the model knows", {"type": "object"})},
        f"{api}/first-steps": {"get": _operation("How it stands with a new user's first steps", {"type": "object"})},
        f"{api}/page": {
            "get": _operation("What the page remembers of its user", _ref("Page")),
            "post": _operation("Change that", _ref("Page"), _ref("Page")),
        },
        f"{api}/sources": {"get": _operation("What can be translated", {"type": "object"})},
        f"{api}/log": {"get": _operation("What happened, newest last", {"type": "object"})},
        f"{api}/link": {"post": _operation("A one-time link to the panel", _ref("Link"), {"type": "object"})},
        f"{api}/picture-link": {
            "post": _operation("The live picture's address with a key", _ref("Link"), {"type": "object"})
        },
        f"{api}/view-key": {
            "post": _operation(
                "A key with which a page may ask for pictures for a minute", _ref("Key"), {"type": "object"}
            )
        },
        f"{api}/picture.jpg": {"get": _operation("What is published now", "image/jpeg")},
        f"{api}/input.jpg": {"get": _operation("What the camera sees now", "image/jpeg")},
        f"{api}/picture.mjpeg": {"get": _operation("What is published, live", "multipart/x-mixed-replace")},
        f"{api}/input.mjpeg": {"get": _operation("What the camera sees, live", "multipart/x-mixed-replace")},
    }


def _operation(summary: str, answer: dict[str, Any] | str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    content = {answer: {}} if isinstance(answer, str) else {_JSON: {"schema": answer}}
    refusal = {"description": "Refused; the text says why", "content": {_JSON: {"schema": _ref("Error")}}}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": "Done", "content": content}, "4XX": refusal, "503": refusal},
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": body}}}
    return operation


def _schemas() -> dict[str, Any]:
    text = {"type": "string", "maxLength": PROMPT_LIMIT}
    number = {"type": "number"}
    look = {f.name: _WORDS.get(f.name, text if f.type == "str" else {"type": ["number", "null"]}) for f in fields(Look)}
    return {
        "Command": {
            "type": "object",
            "required": ["command"],
            "properties": {
                "command": {"enum": verbs()},
                "profile": text,
                "prompt": text,
                "transition_ms": {"type": ["integer", "null"], "minimum": 0, "maximum": 60_000},
                "source": text,
                "on": {"type": ["boolean", "null"]},
                "changes": {"type": "object"},
            },
        },
        "LookChanges": {"type": "object", "properties": look},
        "Try": {"type": "object", "properties": {**look, "profile": text}},
        "Profile": {
            "type": "object",
            "required": ["name", "look"],
            "properties": {
                "name": text,
                "description": text,
                "badge": {"type": "boolean"},
                "look": {"type": "object", "required": ["prompt"], "properties": {"prompt": text, "strength": number}},
                "engine": {"type": "object"},
            },
        },
        "ProfileFile": {"type": "object", "required": ["toml"], "properties": {"toml": {"type": "string"}}},
        "Page": {
            "type": "object",
            "properties": {
                "favourites": {"type": "array", "maxItems": 9, "items": {"type": "string"}},
                "set_up": {"type": "boolean"},
                "told": {"type": "boolean"},
            },
        },
        "ProfileDetail": {
            "type": "object",
            "required": ["id", "yours", "profile"],
            "properties": {"id": text, "yours": {"type": "boolean"}, "profile": _ref("Profile")},
        },
        "Status": {"type": "object", "properties": {f.name: _kind(str(f.type)) for f in fields(Status)}},
        "Link": {"type": "object", "required": ["link"], "properties": {"link": {"type": "string"}}},
        "Key": {"type": "object", "required": ["key"], "properties": {"key": {"type": "string"}}},
        "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    }


def _kind(annotation: str) -> dict[str, Any]:
    kind, _, rest = annotation.partition(" | ")
    if kind.startswith("tuple"):
        return {"type": "array", "items": {"type": "string"}}
    if kind.startswith("dict"):
        return {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "number"}}}
    return {"type": [_KINDS[kind], "null"] if rest else _KINDS[kind]}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _id() -> dict[str, Any]:
    schema = {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"}
    return {"name": "id", "in": "path", "required": True, "schema": schema}
