"""Every error that tells a user what to do differently; all are a `StreamV2VError`.

    StreamV2VError
    ├── SettingsError       a setting has a value that cannot be used
    │   └── MemoryShort     less memory is free than they need: fewer programs or models beside may help
    ├── ModelError          a model, or a LoRA for it, cannot be used
    │   └── ShapeError      its configurations cannot be run at the size asked for
    ├── PlaceError          a place that a bank was asked for is not one of the UNet's
    ├── PlanError           a TensorRT plan cannot be built, kept or used
    │   ├── PlanMemoryShort too little memory is free for it now: nothing is known of the plan itself
    │   ├── BuildCancelled  the build of a plan was told to stop
    │   └── BuildRefused    the library does not build a plan of this graph
    └── MetricError         a metric cannot be measured

The message is one line that names the thing, what is wrong with it and what to do. Anything else that is raised, a
ValueError too, is a bug of ours or of a library. A program adds its own errors beneath StreamV2VError (vcam.errors).
"""

from __future__ import annotations


class StreamV2VError(Exception):
    """An error that the user can do something about; the message is one line that says what."""


class SettingsError(StreamV2VError):
    """A setting has a value that cannot be used; the message names the setting, the value and what is allowed."""


class MemoryShort(SettingsError):
    """Less memory is free than the settings need; the message names both, and what to take instead."""


class ModelError(StreamV2VError):
    """A model, or a LoRA for it, cannot be used; the message names what is wrong and what to do."""


class ShapeError(ModelError):
    """The model's configurations cannot be run at that size."""


class PlaceError(StreamV2VError):
    """A place where features are to be fused is not one of the UNet's, or its tokens cannot be divided so."""


class PlanError(StreamV2VError):
    """A TensorRT plan cannot be built, kept or used; the message names what is wrong and what to do."""


class PlanMemoryShort(PlanError):
    """Too little memory is free to build, load or run a plan; nothing is known of the plan itself."""


class BuildCancelled(PlanError):
    """The build of a plan was told to stop."""


class BuildRefused(PlanError):
    """TensorRT does not take a graph, or builds no plan of it; it would say the same again."""


class MetricError(StreamV2VError):
    """A metric cannot be measured; the message says what is missing or does not fit."""
