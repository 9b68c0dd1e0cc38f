"""The one exception for everything that a user can mend."""

from __future__ import annotations


class VcamError(Exception):
    """An expected failure; the message is one line that names the thing, what is wrong and what to do."""
