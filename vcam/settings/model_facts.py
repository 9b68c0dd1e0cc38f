"""What is told of a model: its own values where a look has none, the words that it knows, whether it imagines."""

from __future__ import annotations

from typing import Any

from core.errors import StreamV2VError
from vcam.commands import IMAGINE as IMAGINE

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


def imagines(model: str) -> bool:
    """Return whether the model makes pictures of a text alone; not where it cannot be read, as its use will say."""
    from core.models.description import describe

    try:
        return describe(model).text_to_image
    except StreamV2VError:
        return False


def check_source(source: str, model: str) -> None:
    """Raise SettingsError where the source asks for pictures of the prompt alone, which that model does not make.

    Also core.errors.ModelError.
    """
    if source == IMAGINE:
        from core.models.description import check_imagines, describe

        check_imagines(describe(model))
