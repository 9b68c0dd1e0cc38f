"""Makes docs/benchmarks.md from the files of benchmarks/results: `python benchmarks/report.py`.

A result file is one run or one table of figures that were really seen, as JSON:

    machine   its heading; files of the same machine stand under one, in the order of the files' names
    date      "22 November 2026"
    setting   what all its figures have in common: system, versions, model, size, runtime
    tables    a list of {title, command, before, columns, rows, after}: command stands in the heading, before and after
              are sentences around the table; columns and rows hold texts, and all but title may be left out
    raw       what a program wrote, as it wrote it (vcam bench --json, benchmarks/gpu.py); it is not shown

`python benchmarks/report.py bench FILE` turns what `vcam bench --json` wrote into such a file, on stdout.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
_HEAD = """# Measured

Every figure was seen on the machine that is named beside it, by the command that is named beside it. The machines were
shared with others: compare figures of one table, not across tables. This page is made by `benchmarks/report.py` from
the files in `benchmarks/results`.
"""


def document(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the page of those results, in their order."""
    parts = [_HEAD]
    for machine, group in itertools.groupby(results, lambda result: result["machine"]):
        parts.append(f"## {machine}\n")
        said = ""
        for result in group:
            setting = f"{result['date']}; {result['setting']}."
            if setting != said:
                parts.append(f"{setting}\n")
            said = setting
            parts += [shown(table) for table in result["tables"]]
    return "\n".join(parts)


def load(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Return the results of a folder, by their files' names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def of_bench(report: Mapping[str, Any], date: str, machine: str) -> dict[str, Any]:
    """Return the result file of what `vcam bench --json` gave."""
    facts = report["machine"]
    told = ("system", "python", "torch", "cuda", "threads")
    setting = ", ".join(f"{key} {facts[key]}" for key in told if facts.get(key)) + f"; model {report['model']}"
    columns = ["size", "steps", "bank", "runtime", "frames/s", "p50 ms", "p95 ms", "compile s", "TFLOP", "of the floor"]
    rows = [
        [
            f"{row['width']}x{row['height']}",
            str(row["steps"]),
            row["bank"] + (f", {row['slots']} slots" if row["slots"] > 1 else ""),
            f"{row['runtime']} {row['device']} {row['dtype']}",
            f"{row['fps']:.1f}",
            f"{row['p50_ms']:.1f}",
            f"{row['p95_ms']:.1f}",
            f"{row['compile_s']:.1f}",
            "-" if row["tflop"] is None else f"{row['tflop']:.3f}",
            "-" if row["floor_share"] is None else f"{row['floor_share']:.0%}",
        ]
        for row in report["rows"]
    ]
    table = {"title": "The engine", "command": "vcam bench --json", "columns": columns, "rows": rows}
    return {"machine": machine, "date": date, "setting": setting, "tables": [table], "raw": report}


def of_gpu(raw: Mapping[str, Any], date: str) -> dict[str, Any]:
    """Return the result file of what benchmarks/gpu.py measured, as far as it came."""
    facts, run = raw["facts"], raw["run"]
    told = ", ".join(f"{key} {facts[key]}" for key in ("system", "python", "torch", "cuda") if facts.get(key))
    setting = f"{told}; {Path(run['model']).name}, {run['size']} x {run['size']}, {run['dtype']}"
    made = (
        _speed("The engine and the paper's way", raw.get("speed")),
        _speed("Other sizes", raw.get("sizes")),
        _stages(raw.get("stages")),
        _profile(raw.get("profile")),
        _remarks(raw),
    )
    tables = [table for table in made if table]
    machine = facts.get("gpu") or facts["processor"]
    return {"machine": machine, "date": date, "setting": setting, "tables": tables, "raw": raw}


_WAYS = {"paper": "the paper's, eager"}


def _speed(title: str, rows: Any) -> dict[str, Any] | None:
    if not isinstance(rows, list) or not rows:
        return None
    shown = [
        [
            f"{row['size']}x{row['size']}",
            str(row["steps"]),
            row["bank"] + (f", {row['slots']} slots" if row["slots"] > 1 else ""),
            _WAYS.get(row["way"], f"ours, {row['way']}"),
            *_figures(row),
        ]
        for row in rows
    ]
    columns = [
        "size",
        "steps",
        "bank",
        "way",
        "frames/s",
        "p50 ms",
        "p95 ms",
        "floor ms",
        "of the floor",
        "ready s",
    ]
    return {"title": title, "columns": columns, "rows": shown}


def _figures(row: Mapping[str, Any]) -> list[str]:
    if "error" in row:
        return [row["error"].split(":")[0], *["-"] * 5]
    times = [f"{row[name]:.2f}" for name in ("p50_ms", "p95_ms", "floor_ms")]
    return [f"{row['fps']:.1f}", *times, f"{row['floor_share']:.0%}", f"{row['ready_s']:.0f}"]


def _stages(found: Any) -> dict[str, Any] | None:
    if not found or "error" in found:
        return None
    names = list(next(iter(found.values())))
    rows = [[what, *(f"{times[name]:.3f}" for name in names)] for what, times in found.items()]
    return {"title": "Stages, each by itself, ms", "columns": ["setting", *names], "rows": rows}


def _profile(costs: Any) -> dict[str, Any] | None:
    if not isinstance(costs, list):
        return None
    rows = [[f"`{cost['what'][:70]}`", f"{cost['ms']:.3f}", f"{cost['calls']:.0f}"] for cost in costs]
    return {"title": "The largest costs of a frame", "columns": ["what", "ms", "calls"], "rows": rows}


def _against(rows: Any) -> list[str]:
    """Return what merging costs over no bank, and how much quicker it is than the paper's way, by steps."""
    measured = [row for row in rows if "error" not in row] if isinstance(rows, list) else []
    taken = {(row["steps"], row["bank"], row["way"]): row["p50_ms"] for row in measured if row["slots"] == 1}
    told = []
    for steps in dict.fromkeys(steps for steps, _, _ in taken):
        off, ours, paper = (
            taken.get((steps, *key)) for key in (("off", "compiled"), ("merge", "compiled"), ("merge", "paper"))
        )
        asked = f"{steps} step{'s' if steps > 1 else ''}"
        if off and ours:
            told.append(f"{asked}, compiled: merging costs {ours / off - 1:.0%} over no bank.")
        if ours and paper:
            told.append(f"{asked}, merging: compiled is {paper / ours:.1f} times as fast as the paper's way.")
    return told


def _remarks(raw: Mapping[str, Any]) -> dict[str, Any]:
    after = _against(raw.get("speed"))
    parity, long, tries = raw.get("parity", {}), raw.get("long", {}), raw.get("experiments")
    if "least" in parity:
        after.append(
            f"PSNR against eager float32 over {len(parity['psnr_db'])} frames: least {parity['least']:.1f} dB, "
            f"last {parity['last']:.1f} dB."
        )
    if "samples" in long:
        last, grown = long["samples"][-1], long["grown_mib"].items()
        told = ", ".join(f"{key} {value:+.1f}" for key, value in grown)
        after.append(f"{last['frames']:.0f} frames: grown by {told}; {last['fps']:.1f} frames/s at the end.")
    for row in tries if isinstance(tries, list) else []:
        told = row.get("error") or f"{row['times']:.2f} times as fast, PSNR {row['psnr_db']:.1f} dB"
        after.append(f"Tried: {row['what']}: {told}.")
    failed = [
        f"{part}: {found['error']}" for part, found in raw.items() if isinstance(found, dict) and "error" in found
    ]
    return {"title": "Parity, the long run, experiments", "after": [*after, *failed]}


def shown(table: Mapping[str, Any]) -> str:
    """Return a table of a result file as the page has it."""
    command = f": `{table['command']}`" if table.get("command") else ""
    lines = [f"### {table['title']}{command}{table.get('beside', '')}\n"]
    if table.get("before"):
        lines.append(f"{table['before']}\n")
    if table.get("rows"):
        head, *rows = ["| " + " | ".join(row) + " |" for row in [table["columns"], *table["rows"]]]
        lines += [head, "|---" * len(table["columns"]) + "|", *rows, ""]
    lines += [f"{after}\n" for after in table.get("after", ())]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or a result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb")
    bench = verbs.add_parser("bench", help="a result file of what `vcam bench --json` wrote")
    bench.add_argument("file", type=Path)
    bench.add_argument("--date", required=True, help='"22 November 2026"')
    bench.add_argument("--machine", required=True, help="its heading")
    args = parser.parse_args(argv)
    if args.verb == "bench":
        result = of_bench(json.loads(args.file.read_text(encoding="utf-8")), args.date, args.machine)
        json.dump(result, sys.stdout, indent=1)
        print()
    else:
        DOCUMENT.write_text(document(load()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
