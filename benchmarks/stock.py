"""One step of a model at its full shape by our eager engine without a bank, against stock diffusers' own pipeline.

`python benchmarks/stock.py FOLDER --size 512x512`: a folder of SDXL-Turbo's or SD-Turbo's shape (random_model.py makes
one), for tests compare small ones only. The same picture, prompt, noise and precision; the stock side is diffusers'
StableDiffusionXLImg2ImgPipeline (StableDiffusionImg2ImgPipeline) with the turbo models' own scheduler, which shares no
line with ours. They run one after the other, each in a process of its own: SDXL's UNet takes 10 GB in float32, unless
the folder has it in that precision, and then hardly any, for it is used where it lies. Exit status 1 where a pixel is
further off than --levels, grey levels of 255.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from core.algorithm.net import Picture  # noqa: E402  the path first
from core.engine import Engine  # noqa: E402
from core.settings import EngineSettings, Look, Policy, Runtime  # noqa: E402

LOOK = Look("ink person talking", seed=7, strength=0.5, steady=0.0)


def picture(width: int, height: int) -> Picture:
    """Waves and edges in three colours."""
    y, x = np.mgrid[:height, :width]
    waves = (np.sin(x / 37), np.sin(y / 29) * np.cos(x / 11), np.sign(np.sin((x + 2 * y) / 53)))
    return np.stack([(127.5 + 110 * wave).astype(np.uint8) for wave in waves], axis=-1)


def ours(wanted: EngineSettings) -> Picture:
    """Translate the picture by our engine."""
    shown = Engine(wanted, LOOK).translate(picture(wanted.width, wanted.height))
    if shown is None:
        sys.exit("the engine gave no picture")
    return shown


def stock(wanted: EngineSettings) -> Picture:
    """Translate it by diffusers' pipeline, in two steps of which the strength leaves the last."""
    import diffusers
    import transformers

    library: Any = diffusers
    others: Any = transformers
    folder, dtype = Path(wanted.model), getattr(torch, wanted.dtype)
    xl = (folder / "text_encoder_2").is_dir()
    texts = {"text_encoder": others.CLIPTextModel}
    texts |= {"text_encoder_2": others.CLIPTextModelWithProjection} if xl else {}
    parts = {"vae": library.AutoencoderTiny}
    kind = library.StableDiffusionXLImg2ImgPipeline if xl else library.StableDiffusionImg2ImgPipeline
    absent: dict[str, Any] = {} if xl else {"safety_checker": None, "feature_extractor": None}
    scheduler = library.EulerAncestralDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        steps_offset=1,
    )

    def pipeline(**given: Any) -> Any:
        names = ["unet", *parts, *texts, *(name.replace("text_encoder", "tokenizer") for name in texts)]
        told = dict.fromkeys(names) | absent | given
        one = kind(**told, scheduler=scheduler, **({} if xl else {"requires_safety_checker": False}))
        one.set_progress_bar_config(disable=True)
        return one

    def read(kinds: dict[str, Any]) -> dict[str, Any]:
        return {name: one.from_pretrained(folder / name, torch_dtype=dtype).eval() for name, one in kinds.items()}

    def unet() -> Any:
        """Where the file has that precision its weights are used where they lie, without 10 GB of RAM."""
        where, own = folder / "unet", library.UNet2DConditionModel
        with torch.device("meta"):
            net = own.from_config(own.load_config(where))
        (file,) = where.glob("*.safetensors")
        net.load_state_dict(load_file(file), assign=True)
        return net.to(dtype).eval()

    tokenizers = {name.replace("text_encoder", "tokenizer"): others.PreTrainedTokenizerFast for name in texts}
    tokenizers = {name: one.from_pretrained(folder / name) for name, one in tokenizers.items()}
    with torch.no_grad():
        said = pipeline(**read(texts), **tokenizers).encode_prompt(
            LOOK.prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
    text = {"prompt_embeds": said[0]} | ({"pooled_prompt_embeds": said[2]} if xl else {})
    del said
    gc.collect()
    shown = pipeline(unet=unet(), **read(parts))(
        **text,
        image=torch.from_numpy(picture(wanted.width, wanted.height)).permute(2, 0, 1)[None].to(dtype) / 255,
        strength=LOOK.strength,
        num_inference_steps=2,
        guidance_scale=0.0,
        generator=torch.Generator().manual_seed(LOOK.seed),
        output_type="np",
    ).images[0]
    found: Picture = (shown * 255).round().astype(np.uint8)
    return found


SIDES = {"ours": ours, "stock": stock}


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--levels", type=int, default=1)
    parser.add_argument("--side", choices=SIDES, help="of the two processes: one of them, alone")
    parser.add_argument("--out", type=Path, help="of the two processes: where its picture goes")
    args = parser.parse_args(argv)
    width, height = (int(one) for one in args.size.split("x"))
    if args.side:
        wanted = EngineSettings(
            str(args.folder), width, height, 1, Policy.OFF, dtype=args.dtype, device="cpu", runtime=Runtime.EAGER
        )
        np.save(args.out, SIDES[args.side](wanted))
        print(json.dumps({"gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 1)}))
        return 0
    told: dict[str, Any] = {"size": args.size, "dtype": args.dtype}
    with tempfile.TemporaryDirectory() as scratch:
        shown = {}
        for side in SIDES:
            began, out = time.monotonic(), Path(scratch) / f"{side}.npy"
            command = [sys.executable, __file__, str(args.folder), "--size", args.size, "--dtype", args.dtype]
            done = subprocess.run([*command, "--side", side, "--out", out], check=True, stdout=subprocess.PIPE)
            told[side] = json.loads(done.stdout.splitlines()[-1]) | {"seconds": round(time.monotonic() - began)}
            shown[side] = np.load(out).astype(int)
    apart = np.abs(shown["ours"] - shown["stock"])
    told |= {
        "largest": int(apart.max()),
        "differ": round(float((apart > 0).mean()), 6),
        "neither black nor white": round(float(((shown["stock"] > 0) & (shown["stock"] < 255)).mean()), 3),
        "spread": round(float(shown["stock"].std()), 1),
    }
    print(json.dumps(told))
    return int(apart.max() > args.levels)


if __name__ == "__main__":
    sys.exit(main())
