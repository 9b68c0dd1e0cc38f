"""What a surface shows of a model: its own values where a look has none, and the words that it knows."""

from __future__ import annotations

from typing import Any

from core.errors import StreamV2VError

OWN_VALUES = ("strength", "fusion_strength", "similarity_threshold", "interval")  # as core.settings.Look names them


def own_values(model: str) -> dict[str, Any]:
    """Return the model's own values of a look by name; none for a model that cannot be read, as its use will say."""
    from core.models.description import describe

    try:
        own = describe(model)
    except StreamV2VError:
        return {}
    return {name: getattr(own, name) for name in OWN_VALUES}


def words_of(model: str) -> dict[str, tuple[str, ...]]:
    """Return the model's styles and words; no words where it reads any, or cannot be read."""
    from core.models import catalogue
    from core.models.prompt_reading import vocabulary

    entry = catalogue.ENTRIES.get(model)
    try:
        styles, words = vocabulary(model) if entry is None or entry.is_here() else ((), ())
    except StreamV2VError:
        styles, words = (), ()
    return {"styles": styles, "words": words}
