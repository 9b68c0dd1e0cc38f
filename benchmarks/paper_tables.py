"""What StreamV2V's paper (arXiv 2405.15757v3) says of itself and of others, as it prints it: nothing of it is ours."""

from __future__ import annotations

PAPER_SYSTEMS = ("StreamDiffusion (each picture alone)", "CoDeF", "Rerender", "TokenFlow", "FlowVid", "StreamV2V")
PAPER_TABLE = {
    "CLIP score (consecutive pictures), higher is better": (95.24, 96.33, 96.20, 97.04, 96.68, 96.58),
    "warp error, lower is better": (117.01, 116.17, 107.00, 114.25, 111.09, 102.99),
}
PAPER_ABLATIONS = {
    "no bank; FF only; EA only; both": "85.2; 80.4; 74.0; 73.4",
    "queue of 1; 2; 4; DyMe": "76.4; 74.8; 72.4; 73.4 (at 70; 79; 100; 75 ms a picture, none 60 ms, A100)",
    "interval 1; 2; 4; 8; 16": "78.1; 75.3; 73.4; 72.4; 72.5",
    "threshold 0; 0.8; 0.9; 1": "74.0; 73.5; 73.4; 74.0",
    "split random; grid; now as destination": "73.4; 73.7; 74.2",
    "steps 4; 2; 1": "75; 50; 41 ms a picture",
}
