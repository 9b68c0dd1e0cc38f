"""How many cards, how much network and what price for many cameras: arithmetic from named assumptions.

    python -m benchmarks.scale_model            writes docs/scale.md anew

Nothing here was measured but what its line says; change an assumption and run it again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
CAMERAS = (10, 1_000, 100_000)


@dataclass(frozen=True)
class Assumption:
    """A number that the arithmetic stands on. source: where it is from, or why it was taken."""

    name: str
    value: float
    unit: str
    source: str


FPS = Assumption("pictures a second of a camera", 30, "1/s", "what a call shows")
BUSY = Assumption("share of cameras that are live at once", 0.6, "", "taken: a studio's day; 1 for a broadcast")
FILL = Assumption("share of a card that is planned for", 0.7, "", "taken: room for bursts and a card that fails")
JPEG = Assumption("a 512x512 picture as JPEG, quality 92", 90, "kB", "taken: 0.34 byte a pixel")
HEADER = Assumption("TLS, WebSocket, TCP and IP beside a picture", 5, "%", "taken: 1,448 bytes a packet")
DECODE = Assumption("a CPU core's time for a picture: TLS, JPEG in and out", 6, "ms", "taken: 2 ms each way and TLS")
PROXY = Assumption("pictures a second through one Ray proxy", 1_500, "1/s", "taken: 5 ms of one core, 8 cores")

FRONT = Assumption("a core's time in a server's front for a picture", 0.5, "ms", "measured: 30 kB there and back")


@dataclass(frozen=True)
class Card:
    """A card. tflops: sustained in half precision on such a network; price: a rented hour."""

    name: str
    tflops: float
    memory_gb: float
    price: float
    source: str


CARDS = (
    Card("RTX 4090", 110, 24, 0.45, "93.9 pictures a second at 1 step, published for StreamDiffusion; price taken"),
    Card("L40S", 120, 48, 0.90, "taken: a tenth more than the RTX 4090, the same chip; price taken"),
    Card("H100", 300, 80, 2.50, "taken: 31 % of 989 dense (an A100 with TensorRT reached 31 %); price taken"),
)


@dataclass(frozen=True)
class Way:
    """A model and its steps. tflop: of a picture; weights_gb once, stream_gb for each camera, in half precision."""

    name: str
    tflop: float
    weights_gb: float
    stream_gb: float


# SD 1.5 at 512x512 (docs/benchmarks.md counts its arithmetic): bank of one frame, and what a stream works in
WAYS = (
    Way("SD 1.5, 1 step", 1.19, 2.8, 0.15),
    Way("SD 1.5, 2 steps", 2.12, 2.8, 0.25),
    Way("SD 1.5, 4 steps", 3.97, 2.8, 0.45),
)


HEAD = """\
Written by `python -m benchmarks.scale_model` from the assumptions below. **None of the cards was measured** for it.
What was measured with a real Ray Serve on two CPU cores is in [remote.md](remote.md)."""
SAYS = """\
What it says: the cards are the price at every size. A `vcam serve` has one front and one proxy, which carry some 50
live cameras; for more take several, each with machines of its own, and pair each camera with one. Through the proxy go
only the pictures of replicas on other machines than the front's. At 100,000 the network decides: have a small one a
rack, near its cameras. The table is for JPEG; H.264 takes less ([remote.md](remote.md) has what was seen)."""
BATCHES = """\
A server takes a picture of each camera in turn. Would one call of the UNet for the pictures of several cameras cost
less? `python -m benchmarks.batching --repeats 30`, the included model at 256x192 with a bank of one frame, one thread,
processor time, on two cores that other programs kept busy:

| runtime | UNet, 1 picture | 2 in one call, of two calls | 4, of four | whole frame: 2, of two | 4, of four |
| --- | ---: | ---: | ---: | ---: | ---: |
| eager | 67.0 ms | 0.72 | 0.64 | 0.87 | 0.83 |
| onnx | 35.4 ms | 0.92 | 0.85 | 0.96 | 0.93 |

On a CPU it is not built: `onnx`, which runs there by itself, would gain 4 and 7 % of a frame, less than the 10 % that
were asked for, and `eager` in batches of four (118 ms a frame) is still slower than `onnx` one by one (76 ms). A
camera would also wait for the slowest of its batch. On a card it may pay, where one picture does not fill it. To be
measured there before it is built: the UNet with 1, 2 and 4 rows on `compiled` and `tensorrt` at 512x512
(`benchmarks.gpu` has their stages), encoder and decoder with as many pictures (their graphs take one now), and how
long a picture waits for others at 30 a second."""


def streams_of(card: Card, way: Way) -> int:
    """Return how many cameras a card takes: what its arithmetic and its memory allow."""
    by_speed = card.tflops * FILL.value / (way.tflop * FPS.value)
    by_memory = (card.memory_gb - way.weights_gb - 1.0) / way.stream_gb
    return int(min(by_speed, by_memory))


def megabits_of() -> float:
    """Return a camera's megabits a second, each way."""
    return JPEG.value * (1 + HEADER.value / 100) * 8 * FPS.value / 1000


def priced(card: Card) -> str:
    """Return what a card is and costs, in words."""
    return f"{card.tflops:g} TFLOP/s, {card.memory_gb:g} GB, ${card.price:.2f} an hour"


def needs(way: Way) -> str:
    """Return what a model takes, in words."""
    return f"{way.tflop:g} TFLOP a picture; {way.weights_gb:g} GB once, {way.stream_gb:g} GB a camera"


def assumptions() -> list[str]:
    """Return the table of what all of it stands on."""
    plain = (FPS, BUSY, FILL, JPEG, HEADER, DECODE, PROXY, FRONT)
    rows = [(one.name, f"{one.value:g} {one.unit}", one.source) for one in plain]
    rows += [(card.name, priced(card), card.source) for card in CARDS]
    rows += [(f"{way.name} at 512x512", needs(way), "arithmetic of the network; memory rounded up") for way in WAYS]
    return ["| what | value | from |", "| --- | --- | --- |", *("| " + " | ".join(row) + " |" for row in rows)]


def many(way: Way) -> list[str]:
    """Return the table of CAMERAS, on the card whose hour is cheapest for a camera."""
    best = min((one for one in CARDS if streams_of(one, way)), key=lambda one: one.price / streams_of(one, way))
    heads = (
        "cameras",
        "live",
        "cards",
        "cores for pictures",
        "Ray proxies",
        "fronts",
        "network each way",
        "an hour",
        "each, live",
    )
    lines = ["| " + " | ".join(heads) + " |", "|" + " ---: |" * len(heads)]
    for cameras in CAMERAS:
        live = math.ceil(cameras * BUSY.value)
        cards = math.ceil(live / streams_of(best, way))
        cores = math.ceil(live * FPS.value * DECODE.value / 1000)
        proxies = math.ceil(live * FPS.value / PROXY.value)
        fronts = math.ceil(live * FPS.value * FRONT.value / 1000)  # each is one core's work
        row = (
            f"{cameras:,}",
            f"{live:,}",
            f"{cards:,} x {best.name}",
            f"{cores:,}",
            f"{proxies:,}",
            f"{fronts:,}",
            f"{live * megabits_of() / 1000:,.1f} Gbit/s",
            f"${cards * best.price:,.2f}",
            f"${cards * best.price / live:.3f}",
        )
        lines.append("| " + " | ".join(row) + " |")
    return lines


def page() -> str:
    """Return docs/scale.md."""
    cores = 1000 / DECODE.value
    return "\n".join(
        [
            "# Many cameras: a model on paper",
            "",
            HEAD,
            "",
            "## Assumptions",
            "",
            *assumptions(),
            "",
            "## Cameras on one card",
            "",
            f"The lesser of speed, TFLOP/s x {FILL.value:g} / (TFLOP a picture x {FPS.value:g}), and memory.",
            "",
            "| | " + " | ".join(one.name for one in CARDS) + " |",
            "| --- |" + " ---: |" * len(CARDS),
            *(f"| {way.name} | " + " | ".join(str(streams_of(card, way)) for card in CARDS) + " |" for way in WAYS),
            "",
            f"0: not even one camera at {FPS.value:g} a second; take fewer pictures, steps or pixels.",
            "",
            "## Network and CPU of one camera",
            "",
            f"JPEG: {megabits_of():.0f} Mbit/s each way while it is live. A core does {cores:.0f} pictures a second, "
            f"{cores / FPS.value:.1f} cameras.",
            "",
            "## 10, 1,000 and 100,000 cameras",
            "",
            f"{BUSY.value:.0%} live at once; {WAYS[0].name}; the card whose hour is cheapest for a camera.",
            "",
            *many(WAYS[0]),
            "",
            SAYS,
            "",
            "## One call for several cameras",
            "",
            BATCHES,
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
