"""`python -m training`: make the data, train autoencoder, text encoder and UNet, and write the model folder."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

import torch

from training import detail, lessons, triples, unet, vae
from training.export import export
from training.log import recorder
from training.parts import AutoencoderTiny, Text, Unet

STAGES = ("data", "vae", "unet", "decoder", "triples", "detail", "export")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("python -m training", description=__doc__)
    made.add_argument("stages", nargs="*", help=f"which stages, of {', '.join(STAGES)} (default: all)", metavar="STAGE")
    made.add_argument("--cache", type=Path, default=Path("training/cache"), help="pictures, checkpoints and logs")
    made.add_argument("--out", type=Path, default=Path("core/embedded_model"), help="the model folder to write")
    made.add_argument("--shards", type=int, default=26, help="shards of pictures to make")
    made.add_argument("--pictures", type=int, default=20, help="pictures in a shard")
    made.add_argument("--photos", type=Path, help="an outer folder with films, kodak and portraits, to learn from too")
    made.add_argument("--share", type=float, default=1, help="of the styles, in the lessons of each picture")
    made.add_argument("--vae-minutes", type=float, default=15)
    made.add_argument("--vae-crop", type=int, default=64, help="pixels")
    made.add_argument("--unet-minutes", type=float, default=60, help="a run that was cut short goes on where it was")
    made.add_argument(
        "--warm", type=Path, help="a finished model folder that the UNet goes on from, if it has not begun"
    )
    made.add_argument("--pace", type=float, default=1, help="of the UNet's learning; less after a warm start")
    made.add_argument("--decoder-minutes", type=float, default=8)
    made.add_argument("--triples", type=int, default=28, help="files of 96 triples for the detail stage")
    made.add_argument("--detail-minutes", type=float, default=40)
    made.add_argument(
        "--pairs", type=int, default=1000, help="of the UNet's pictures and its teachers', for the decoder"
    )
    made.add_argument("--batch-factor", type=int, default=1, help="multiplies all batch sizes; 16 for a large GPU")
    made.add_argument("--save-minutes", type=float, default=4)
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return made


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    stages = given.stages or list(STAGES)
    if unknown := sorted(set(stages) - set(STAGES)):
        print(f"training: unknown stage {', '.join(unknown)}; choose from {', '.join(STAGES)}", file=sys.stderr)
        return 2
    device, cache = torch.device(given.device), given.cache
    cache.mkdir(parents=True, exist_ok=True)

    def write(text: Text, net: Unet) -> None:
        sharp = detail.trained(cache / "detail.pt") if (cache / "detail.pt").exists() else None
        size = export(given.out, text, net, AutoencoderTiny.from_pretrained(cache / "vae"), sharp)
        print(f"wrote {given.out}: {size / 1e6:.2f} MB", file=sys.stderr)

    if "data" in stages:
        plan = given.seed, given.shards, given.pictures, 256, given.workers, given.photos, given.share
        lessons.make(cache / "data", *plan)
    settings = {"batch": 8 * given.batch_factor, "size": given.vae_crop, "seed": given.seed, "device": device}
    if "vae" in stages:
        vae.train(
            lessons.load(cache / "data"),
            cache / "vae",
            seconds=given.vae_minutes * 60,
            log=recorder(cache / "vae.jsonl"),
            **settings,
        )
    if "unet" in stages:
        if given.warm and not (cache / "unet.pt").exists():
            shutil.copytree(given.warm / "vae", cache / "vae", dirs_exist_ok=True)
            unet.begin_with(given.warm, cache / "unet.pt")
        unet.train(
            lessons.load(cache / "data"),
            cache,
            seconds=given.unet_minutes * 60,
            phases=unet.times(unet.PHASES, given.batch_factor),
            seed=given.seed,
            device=device,
            log=recorder(cache / "unet.jsonl"),
            save_every=given.save_minutes * 60,
            export=write,
            pace=given.pace,
        )
    if "decoder" in stages:
        shards = lessons.load(cache / "data")
        vae.train(
            shards,
            cache / "vae",
            seconds=given.decoder_minutes * 60,
            log=recorder(cache / "decoder.jsonl"),
            pairs=unet.pairs(shards, cache, given.pairs, given.seed, device),
            **settings,
        )
    if "triples" in stages:
        write(*unet.averaged(cache / "unet.pt"))
        where = ["--lessons", str(cache / "data"), "--model", str(given.out), "--out", str(cache / "triples")]
        triples.main([*where, "--shards", str(given.triples), "--seed", str(given.seed), "--device", given.device])
    if "detail" in stages:
        where = ["--triples", str(cache / "triples"), "--state", str(cache / "detail.pt")]
        detail.main([*where, "--minutes", str(given.detail_minutes), "--batch-factor", str(given.batch_factor)])
    if "export" in stages:
        write(*unet.averaged(cache / "unet.pt"))
    if {"unet", "export"} & set(stages):
        from core.runtimes.onnx.export import export as export_graphs  # late: it takes minutes, and needs onnx

        export_graphs(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
