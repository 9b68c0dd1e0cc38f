"""Makes docs/evaluation.md from the figures' definitions and the reports of `vcam suite` in benchmarks/evaluations.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py rows rows.json --name NAME --date "30 November 2026" [--remark TEXT]
    python benchmarks/evaluation.py add report.json --date "29 November 2026" --command "vcam suite ..." [--remark TEXT]

`add` keeps what the page needs of a report (benchmarks/evaluations/NAME.json, by its content) and makes the page anew;
`rows` does the same with what `benchmarks/bank_rows.py --out` wrote, its rows that have all films. The trials of the
page (benchmarks/trials) have the form of benchmarks/report.py's result files.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import report as results  # noqa: E402  the path first
from benchmarks.paper_tables import PAPER_ABLATIONS, PAPER_SYSTEMS, PAPER_TABLE  # noqa: E402
from core.measure.definitions import DEFINITIONS  # noqa: E402
from vcam.offline.suite.results import CLAIMS  # noqa: E402

EVALUATIONS = Path(__file__).with_name("evaluations")
TRIALS = Path(__file__).with_name("trials")
DOCUMENT = ROOT / "docs" / "evaluation.md"
TABLE = ("warp_error", "warp_error_input", "frame_consistency", "prompt_alignment", "edit_strength", "edit_structure")
MORE = (
    *("sharpness", "flicker", "ghosting", "drift_sharpness"),
    *("drift_edit", "drift_colour", "faces_kept", "landmark_error"),
)
_HEAD = """# Evaluation

How translations are measured, what was measured, and what the figures do not say. This page is made by
`benchmarks/evaluation.py` from the figures' definitions (`core/measure/definitions.py`) and reports of `vcam suite`
(`benchmarks/evaluations`), and from the figures of what was tried (`benchmarks/trials`).

## How to measure

```
vcam eval holiday.mp4 clay.mp4 [--prompt "claymation"] [--region person] [--clip clip] [--flow raft] [--json]
vcam suite CLIPS --out FOLDER [--profiles ink,neon] [--settings default off four:slots=4] [--noise 8]
                 [--flow farneback] [--other NAME=FOLDER]
```

`eval` measures one film. An output that is late is shifted (a stream batch of n steps is n - 1 pictures late), one of
another rate is paired in time, one of another size is brought to the source's, and it is found out whether another
shape was cropped, stretched or boxed in; what was done is said among the notes. What does not belong together is
refused in one line before anything is measured.

`suite` measures clips x profiles x settings, and folders of other systems' films that are named like the clips
(`walk.mp4`, `walk-ink.mp4`, `ink/walk.mp4`; also folders of pictures), in one table. It writes `report.json`, and
`report.html`: one file with tables, plots, strips, players that run together, and a blind test. Ended in the middle
it goes on where it was, to the same report; a film that was made on another machine is taken as it is, and its row
names that machine. Where another system's film is ahead of its clip, the report's player shows it that much early;
its figures are not touched by that. Ours is measured as it leaves the engine, at the engine's size; other
systems' films as they lie in their files, brought to the same size: their codec's errors are theirs. On a GPU with
the real model the same command gives the table of that model: `--model sd15-lcm --clip clip --flow raft`.

"""
_NOT_SAID = """## What the figures do not say

- Whether a picture is beautiful, or true to its prompt: without CLIP, prompt alignment is a stand-in that only asks
  whether the included model's own style is there.
- Whether a small difference can be seen: the report's blind test is for that. No votes are on this page.
- Anything of other models: the included model is small, its pictures are 256 pixels wide, and settings that pay with it
  need not pay with Stable Diffusion.
- A low warp error is no merit by itself: an output equal to its source has the lowest. Compare at one edit strength.
- Our own setting `steady` mixes each picture with the one before along the motion, by a flow of the kind with which
  the warp error is measured: that figure rewards just this. Judge it by the spectrum, sharpness, ghosting and the
  blind test, and by another flow: `--flow farneback` needs nothing, `--flow raft` its weights.
- CLIP's and RAFT's real weights could not be had where these reports were made (no name of their hosts resolves there,
  and no package of the registries was found to hold them): frame consistency and prompt alignment are the stand-ins.
- The flow is estimated on the source (by DIS, where nothing else is said); where it is wrong, all settings pay alike.
- Films of a few seconds have no drift to speak of: what stands there is mostly the scene.
- Spread is over films, not over runs: the same film gives the same figures.
"""


def document(reports: Sequence[Mapping[str, Any]], trials: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return the page of those reports and trials, in their order."""
    parts = [_HEAD, _definitions(), "## Measured\n"]
    parts += [_summary(reports)] if reports else []
    parts += [_report(one) for one in reports] or ["Nothing yet.\n"]
    if trials:
        parts.append("## What was tried, and what became of it\n")
        for trial in trials:
            parts.append(f"{trial['date']}; {trial['setting']}. Weights: {trial['weights']}.\n")
            parts += [results.shown(table) for table in trial["tables"]]
    return "\n".join([*parts, _beside_the_paper(), _NOT_SAID])


def _definitions() -> str:
    lines = ["## The figures\n", "| figure | unit | range | better | formula | source |", "|---|---|---|---|---|---|"]
    for one in DEFINITIONS:
        beware = f" **Beware:** {one.beware}" if one.beware else ""
        lines.append(
            f"| `{one.name}` | {one.unit} | {one.range} | {one.better} | {_cell(one.formula + beware)} | {one.source} |"
        )
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|b + f|", "\\|b + f\\|").replace("|b|", "\\|b\\|").replace("|f|", "\\|f\\|")


def _report(kept: Mapping[str, Any]) -> str:
    asked, table = kept["asked"], kept["table"]
    machine = ", ".join(f"{name} {value}" for name, value in kept["machine"].items())
    pictures = f"the first {asked['frames']} pictures" if asked["frames"] else "all pictures"
    films = sum(one["films"] for one in table.values())
    title = f"{kept['date']}: {len(asked['clips'])} clips, {len(asked['profiles'])} profiles, {', '.join(table)}"
    settings = "; ".join(f"`{name}`: {_changes(changes)}" for name, changes in asked["settings"].items())
    lines = [
        f"### {title}\n",
        f"`{kept['command']}`\n",
        f"Model {asked['model'] or '-'}; {films} films of {pictures} at about {asked['side']}x{asked['side']} "
        f"pixels{_noise(asked)}; flow "
        f"{asked['flow']}; frame consistency by {asked['consistency_by']}. {machine}. Settings: {settings}. Weights: "
        f"{kept['weights']}.\n",
    ]
    lines += [f"{kept['remark']}\n"] if kept.get("remark") else []
    for names in (TABLE, MORE):
        shown = [name for name in names if any(name in one["figures"] for one in table.values())]
        lines += [f"| by | {' | '.join(shown)} |", "|---" * (len(shown) + 1) + "|"]
        for by, one in table.items():
            lines.append(f"| {by} | {' | '.join(_figure(one['figures'].get(name)) for name in shown)} |")
        lines.append("")
    behind = "; ".join(f"{by} {', '.join(map(str, one['delay']))}" for by, one in table.items())
    lines.append(
        "Mean ± standard deviation over films (change to the same film by the first setting). Pictures behind the "
        f"source: {behind}.\n"
    )
    lines += [_spread(kept, "clip"), _spread(kept, "profile"), *_changed(kept), _inputs(kept)]
    return "\n".join(lines)


def _noise(asked: Mapping[str, Any]) -> str:
    return f", noise of sigma {asked['noise']:g} added" if asked.get("noise") else ""


COMPARED = ("warp_error", "edit_strength", "sharpness", "flicker")


def _changed(kept: Mapping[str, Any]) -> list[str]:
    """Return how each setting differs from the first one, by profile and by clip: mean, least and most over films."""
    first, *others = kept["table"]
    lines = []
    for other in others:
        lines.append(f"`{other}` against `{first}`: change of the same film, percent; mean (least to most).\n")
        lines += [f"| films | number | {' | '.join(COMPARED)} |", "|---" * (len(COMPARED) + 2) + "|"]
        for axis in ("profile", "clip"):
            for value in dict.fromkeys(row[axis] for row in kept["rows"]):
                lines.append(_change_row(kept, value or "-", {axis: value}, (first, other)))
        lines += [_change_row(kept, "**all**", {}, (first, other)), ""]
    return lines


def _change_row(kept: Mapping[str, Any], title: str, of: Mapping[str, Any], pair: tuple[str, str]) -> str:
    changes = {figure: _changes_of(kept, figure, of, pair) for figure in COMPARED}
    cells = [
        f"{statistics.fmean(some):+.1f} ({min(some):+.1f} to {max(some):+.1f})" if some else "-"
        for some in changes.values()
    ]
    return f"| {title} | {len(changes['warp_error'])} | {' | '.join(cells)} |"


def _changes_of(kept: Mapping[str, Any], figure: str, of: Mapping[str, Any], pair: tuple[str, str]) -> list[float]:
    """Return the changes of a figure, percent, from the first setting of the pair to the second, film by film."""
    rows = [row for row in kept["rows"] if all(row[axis] == value for axis, value in of.items())]
    before, now = (
        {(row["clip"], row["profile"]): row["figures"][figure] for row in rows if row["by"] == name} for name in pair
    )
    pairs = [(now[film], before[film]) for film in now if film in before]
    return [100 * (one / other - 1) for one, other in pairs if one is not None and other]


def _summary(reports: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for each report's pair of `paper` and `default`: what was asked of the default."""
    lines = [
        "Our default bank against the paper's in our own engine: change of the same film by the same model, percent; "
        "mean (least to most). Asked for: a warp error at least 8 % lower, an edit strength within 2 %, a sharpness "
        "that is equal or better.\n",
        f"| report | films | {' | '.join(COMPARED)} |",
        "|---" * (len(COMPARED) + 2) + "|",
    ]
    for kept in reports:
        if {"paper", "default"} <= set(kept["table"]):
            title = f"{len(kept['asked']['profiles'])} profiles, flow {kept['asked']['flow']}{_noise(kept['asked'])}"
            lines.append(_change_row(kept, title, {}, ("paper", "default")))
    return "\n".join([*lines, ""])


def _changes(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in changes.items()) or "the model's and the profile's own"


def _figure(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    change = found["change_percent"]
    told = f" ({change:+.1f} %)" if change else ""
    return f"{found['mean']:.4g} ± {found['sd']:.3g}{told}"


def _spread(kept: Mapping[str, Any], axis: str) -> str:
    """Return the warp error and edit strength by clip, or by profile."""
    names = list(kept["table"])
    values = list(dict.fromkeys(row[axis] for row in kept["rows"]))
    heads = " | ".join(f"{name}: warp error, edit" for name in names)
    lines = [f"| {axis} | {heads} |", "|---" * (len(names) + 1) + "|"]
    for value in values:
        cells = []
        for name in names:
            rows = [row for row in kept["rows"] if row[axis] == value and row["by"] == name]
            cells.append(", ".join(_mean(rows, figure) for figure in ("warp_error", "edit_strength")))
        lines.append(f"| {value or '-'} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _mean(rows: Sequence[Mapping[str, Any]], figure: str) -> str:
    values = [row["figures"][figure] for row in rows if row["figures"][figure] is not None]
    return f"{statistics.fmean(values):.4g}" if values else "-"


def _inputs(kept: Mapping[str, Any]) -> str:
    told = "; ".join(f"{one['name']} `{one['sha256'][:16]}`" for one in kept["inputs"])
    return f"Inputs (SHA-256, its first 16 digits; the report has all): {told}.\n"


def _beside_the_paper() -> str:
    lines = [
        "## Beside the paper\n",
        "What the paper says of itself and of others (StreamV2V, arXiv 2405.15757v3; DAVIS, 19 clips, 67 prompts; "
        "Stable Diffusion 1.5 at 512x512, 4 steps, noise strength 0.4). **Claimed: none of "
        "it was "
        "measured here**, and it does not compare with the figures above: another model, other clips, another flow. A "
        "report made with the real model, `--flow raft` and `--clip clip` on the paper's clips would.\n",
        "| | " + " | ".join(PAPER_SYSTEMS) + " |",
        "|---" * (len(PAPER_SYSTEMS) + 1) + "|",
        *(f"| {name} | {' | '.join(f'{value:g}' for value in values)} |" for name, values in PAPER_TABLE.items()),
        "",
        "The paper's ablations (clips of its own, warp error), beside the same rows by the included model (above, "
        '"The rows of the paper"):\n',
        "| row | the paper's warp error |",
        "|---|---|",
        *(f"| {name} | {told} |" for name, told in PAPER_ABLATIONS.items()),
        "",
        "Frames per second that others **claim**, on their machines; none was measured here:\n",
        "| system | frames/s | hardware | source |",
        "|---|---|---|---|",
    ]
    lines += [f"| {one.system} | {one.fps:g} (claimed) | {one.hardware} | {one.source} |" for one in CLAIMS]
    return "\n".join([*lines, ""])


def kept_of(report: Mapping[str, Any], date: str, command: str, remark: str) -> dict[str, Any]:
    """Return what the page needs of a report: no curves, no names of files."""
    left_out = ("curve", "flicker_spectrum")
    rows = [
        {
            **{name: row[name] for name in ("clip", "profile", "by", "delay", "speed")},
            "figures": {name: value for name, value in row["figures"].items() if name not in left_out},
        }
        for row in report["rows"]
    ]
    told = {name: report[name] for name in ("machine", "asked", "inputs", "table")}
    parts = {one["name"]: one["sha256"] for one in report["inputs"]}
    return {"date": date, "command": command, "remark": remark, "weights": weights_told(parts), **told, "rows": rows}


def weights_told(parts: Mapping[str, str]) -> str:
    """Return of which weights figures are, by the hashes of the parts of the models that made them."""
    told = [f"{name} {digest[:16]}" for name, digest in parts.items() if name.endswith((": unet", ": detail"))]
    return f"{'; '.join(told)} (SHA-256, its first digits)" if told else "none, no film is ours"


def rows_of(found: Mapping[str, Any], date: str, remark: str) -> dict[str, Any]:
    """Return the trial of what `bank_rows --out` wrote: its rows that have as many films and prompts as the first.

    Changes are means over films and prompts, to the same one by the first row.
    """
    asked, cells = found["asked"], found["found"]
    by: dict[str, dict[str, Mapping[str, float | None]]] = {}
    for key, figures in cells.items():
        name, _, film = key.partition(" | ")
        by.setdefault(name, {})[film] = figures
    first = next(iter(by))
    whole = {name: films for name, films in by.items() if films.keys() == by[first].keys()}
    lines = [
        [
            name,
            *(f"{_average(films, figure)}{_apart(films, by[first], figure)}" for figure, _ in _ROWS),
            _average(films, "ghosting", ".3f"),
            _average(films, "ms", ".0f"),
        ]
        for name, films in whole.items()
    ]
    command = f"python benchmarks/bank_rows.py FILMS --frames {asked['frames']} --runtime {asked['runtime']}"
    table = {
        "title": "The rows of the paper",
        "command": command + (f" --noise {asked['noise']:g}" if asked["noise"] else ""),
        "before": f"{len(by[first])} translations a row: {'; '.join(by[first]).replace(' | ', ', ')}. In brackets the "
        "mean change to the same translation by the first row.",
        "columns": ["row", *(title for _, title in _ROWS), "ghosting", "CPU ms a picture"],
        "rows": lines,
        "after": [remark] if remark else [],
    }
    weights = weights_told(asked["parts"])
    return {"date": date, "weights": weights, "setting": f"model {asked['model']}", "tables": [table]}


_ROWS = (("warp_error", "warp error"), ("edit_strength", "edit strength"), ("sharpness", "sharpness (Laplacian)"))


def _average(films: Mapping[str, Mapping[str, float | None]], figure: str, form: str = ".4g") -> str:
    values = [value for one in films.values() if (value := one[figure]) is not None]
    return format(statistics.fmean(values), form) if values else "-"


def _apart(
    films: Mapping[str, Mapping[str, float | None]], first: Mapping[str, Mapping[str, float | None]], figure: str
) -> str:
    if films is first:
        return ""
    pairs = [(one[figure], first[film][figure]) for film, one in films.items()]
    changes = [100 * (now / before - 1) for now, before in pairs if now is not None and before]
    return f" ({statistics.fmean(changes):+.1f} %)" if changes else ""


def load(folder: Path | None = None) -> list[dict[str, Any]]:
    """Return the kept reports, by their files' names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder or EVALUATIONS).glob("*.json"))]


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, and keep a report before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb")
    add = verbs.add_parser("add", help="keep a report of `vcam suite`")
    add.add_argument("report", type=Path)
    add.add_argument("--name", required=True, help="of its file; the page is in the order of these")
    add.add_argument("--date", required=True, help='"29 November 2026"')
    add.add_argument("--command", required=True, help="with which it was made")
    add.add_argument("--remark", default="", help="what a reader must know of it")
    rows = verbs.add_parser("rows", help="keep what benchmarks/bank_rows.py --out wrote")
    rows.add_argument("file", type=Path)
    rows.add_argument("--name", required=True, help="of its file; the page is in the order of these")
    rows.add_argument("--date", required=True, help='"29 November 2026"')
    rows.add_argument("--remark", default="", help="what a reader must know of it")
    args = parser.parse_args(argv)
    if args.verb == "add":
        report = json.loads(args.report.read_text(encoding="utf-8"))
        EVALUATIONS.mkdir(exist_ok=True)
        kept = json.dumps(kept_of(report, args.date, args.command, args.remark), indent=1)
        (EVALUATIONS / f"{args.name}.json").write_text(kept + "\n", encoding="utf-8")
    elif args.verb == "rows":
        found = json.loads(args.file.read_text(encoding="utf-8"))
        TRIALS.mkdir(exist_ok=True)
        trial = json.dumps(rows_of(found, args.date, args.remark), indent=1)
        (TRIALS / f"{args.name}.json").write_text(trial + "\n", encoding="utf-8")
    DOCUMENT.write_text(document(load(), load(TRIALS)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
