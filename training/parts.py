"""The stock classes, untyped: the annotations that diffusers and transformers ship hide most of their methods."""

from typing import Any, TypeAlias

import diffusers
import transformers

AutoencoderTiny: Any = diffusers.AutoencoderTiny
LCMScheduler: Any = diffusers.LCMScheduler
UNet2DConditionModel: Any = diffusers.UNet2DConditionModel
CLIPTextConfig: Any = transformers.CLIPTextConfig
CLIPTextModel: Any = transformers.CLIPTextModel
PreTrainedTokenizerFast: Any = transformers.PreTrainedTokenizerFast

Vae: TypeAlias = Any  # an AutoencoderTiny
Unet: TypeAlias = Any  # a UNet2DConditionModel
Text: TypeAlias = Any  # a CLIPTextModel
Words: TypeAlias = Any  # a PreTrainedTokenizerFast
Scheduler: TypeAlias = Any  # an LCMScheduler
