"""What `make gpu` found, as lines of a file, as a page, and in the words of docs/measured.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.pages.results import markdown

Line: TypeAlias = dict[str, Any]

# What the page judges by. Of ideal: time saved over FLOPs saved, as on the CPU (docs/measured.md, Time and memory).
BARS = {"of ideal, hidden and output": 0.97, "of ideal, module": 0.89, "memory, of the buffers": 1.05,
        "of the copy's bandwidth, module": 0.7}
TITLES = {
    "checks": "Is it right on this GPU?",
    "profile": "How much of the memory's bandwidth does a predicted step use?",
    "flux": "FLUX.1-dev at its real size, random weights",
    "kernels": "Is a kernel of our own worth it?",
    "narrow": "What do launches cost where the network is small?",
}
ROW = ("engine", "method", "site", "interval", "order")


class Found:
    """Lines of JSON in a file, each written at once: what a run that is cut short found counts."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def device(self) -> str:
        return next((line["name"] for line in self.lines() if line["kind"] == "device"), "?")

    def add(self, stage: str, kind: str, **values: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, "kind": kind, **values}) + "\n")

    def lines(self) -> list[Line]:
        """A last line that was cut off in mid-write is left out."""
        found = []
        for text in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ():
            try:
                found.append(json.loads(text))
            except json.JSONDecodeError:
                continue
        return found

    def forget(self, stage: str) -> None:
        kept = [json.dumps(line) + "\n" for line in self.lines() if line["stage"] != stage]
        self.path.write_text("".join(kept), encoding="utf-8")


def of(lines: list[Line], stage: str, kind: str) -> list[Line]:
    return [line for line in lines if (line["stage"], line["kind"]) == (stage, kind)]


def page(lines: list[Line]) -> str:
    device = of(lines, "device", "device")[0]
    parts = [f"# {device['name']}", f"`make gpu`, PyTorch {device['torch']}, CUDA {device['cuda'] or 'none'}. Random "
             "weights: how long a step takes does not depend on them."]
    for stage, title in TITLES.items():
        ends = of(lines, stage, "end")
        end = ends[0] if ends else {"how": "not run"}
        parts.append(f"## {title}")
        if end["how"] != "done":
            parts.append(f"**{end['how'].capitalize()}**: what follows is what was found until then." +
                         (f"\n\n```\n{end['said'].strip()}\n```" if end.get("said") else ""))
        parts.append(BODIES[stage](lines))
        parts += [f"Not measured: {line['what']} ({line['said']})" for line in of(lines, stage, "missing")]
    return "\n\n".join(part for part in parts if part) + "\n"


def _checks(lines: list[Line]) -> str:
    return markdown(("check", "", "what it said"), [
        (line["name"], "yes" if line["ok"] else "**no**", line["said"].replace("|", "/").replace("\n", " "))
        for line in of(lines, "checks", "check")])


def _profile(lines: list[Line]) -> str:
    copies = of(lines, "profile", "copy")
    if not copies:
        return ""
    steps = of(lines, "profile", "step")
    body = [(line["site"], f"{line['ms']:.3f}", f"{line['busy_ms']:.3f}", str(line["launches"]), f"{line['mb']:.1f}",
             f"{100 * line['share']:.0f} %", f"{100 * line['busy_share']:.0f} %") for line in steps]
    head = ("site", "ms", "ms in kernels", "kernels", "MB it must move", "of the copy's bandwidth", "while kernels run")
    text = [f"A copy moves {copies[0]['bytes_per_second'] / 1e12:.3f} TB/s, read and written. A predicted step of "
            f"{steps[0]['model'] if steps else '?'} at O = 1 must read its buffers and the weights of what still runs, "
            "and write features:", markdown(head, body)]
    for line in steps:
        if line["site"] == "module":
            bar = BARS["of the copy's bandwidth, module"]
            text.append(f"The bar at module is {100 * bar:.0f} %: {_verdict(line['share'] >= bar)}.")
        text.append(f"At {line['site']}: " + "; ".join(
            f"{name} {ms:.3f} ms ({count})" for name, ms, count in line["kernels"]) + ".")
    return "\n\n".join(text)


def _flux(lines: list[Line]) -> str:
    return _rows([line["row"] for line in of(lines, "flux", "row")])


def _rows(rows: list[dict[str, Any]]) -> str:
    parts = []
    for model in dict.fromkeys(row["model"] for row in rows):
        body = []
        for row in (row for row in rows if row["model"] == model):
            body.append([
                *(str(row[name]) for name in ROW), f"{row['full_ms']:.2f}",
                f"{row['recording_ms'] / row['full_ms']:.3f}×", f"{row['predicted_ms']:.3f}",
                f"{100 * row['predicted_ms'] / row['full_ms']:.2f} %", f"{row['flops_speedup']:.2f}×",
                f"{row['latency_speedup']:.2f}×", f"{row['efficiency']:.3f}", f"{row['peak_mb']:.1f}",
                f"{row['theory_mb']:.1f}" if row["theory_mb"] else "–", ", ".join(missed(row)) or "–"])
        parts.append(f"{model}:\n\n" + markdown(
            ("engine", "method", "site", "N", "O", "full step, ms", "with recording", "predicted step, ms",
             "of a full one", "FLOPs", "latency", "of ideal", "memory, MB", "buffers, MB", "bars missed"), body))
    return "\n\n".join(parts)


def missed(row: dict[str, Any]) -> list[str]:
    """The bars that a row of ours misses."""
    if not row["theory_mb"]:
        return []
    ideal = BARS["of ideal, module" if row["site"] == "module" else "of ideal, hidden and output"]
    found = ["of ideal"] if row["efficiency"] < ideal else []
    return [*found, *["memory"] * (row["peak_mb"] > BARS["memory, of the buffers"] * row["theory_mb"])]


def _kernels(lines: list[Line]) -> str:
    sums = of(lines, "kernels", "sum")
    body = []
    for name, shape in dict.fromkeys((line["name"], tuple(line["shape"])) for line in sums):
        found = {line["engine"]: line for line in sums if (line["name"], tuple(line["shape"])) == (name, shape)}
        best = min(found, key=lambda engine: found[engine]["ms"])
        cells = [f"{1e3 * found[engine]['ms']:.1f} ({100 * found[engine]['share']:.0f} %)" if engine in found else "–"
                 for engine in ("fused", "torch.compile", "PyTorch")]
        chosen = found.get("fused", found.get("PyTorch"))
        right = chosen is None or chosen["ms"] <= 1.05 * found[best]["ms"]
        body.append((name, " × ".join(map(str, shape)), *cells, best, "yes" if right else "**no**"))
    return "" if not body else "Microseconds, and the share of a copy's bandwidth.\n\n" + markdown(
        ("sum", "feature", "our kernel", "torch.compile", "PyTorch's own", "fastest", "our choice is right, to 5 %"),
        body)


def _narrow(lines: list[Line]) -> str:
    graphs = [(line["site"], *(f"{ms:.3f}" for ms in line["ms"].values())) for line in of(lines, "narrow", "graph")]
    parts = [_rows([line["row"] for line in of(lines, "narrow", "row")])]
    if graphs:
        parts.append("A step by itself, in ms; in a CUDA graph, launches cost next to nothing:\n\n" + markdown(
            ("site", "full", "predicted", "full, in a graph", "predicted, in a graph"), graphs))
    return "\n\n".join(part for part in parts if part)


BODIES = {"checks": _checks, "profile": _profile, "flux": _flux, "kernels": _kernels, "narrow": _narrow}


def _verdict(met: bool) -> str:
    return "met" if met else "**missed**"


NOT_YET = ("Not yet taken are the figures on a GPU: `make gpu`, one command of 6 minutes at most without a network,\n"
           "takes them with FLUX.1-dev at its real size, and writes them here and to a page beside the others.")


def with_figures(text: str, lines: list[Line], slug: str) -> str:
    """docs/measured.md with the figures between its marks."""
    return re.sub(r"(<!-- gpu -->\n).*?(<!-- end -->)",
                  lambda found: f"{found[1]}{in_words(lines, slug)}\n{found[2]}", text, flags=re.S)


def in_words(lines: list[Line], slug: str) -> str:
    """Of FLUX.1-dev at N = 8, O = 1, by size and site."""
    rows = [line["row"] for line in of(lines, "flux", "row")]
    wanted = [row for row in rows if (row["method"], row["interval"], row["order"]) == ("FeMo", 8, 1)]
    if not wanted:
        return NOT_YET
    body = [(row["model"], row["site"], f"{row['full_ms']:.1f}", f"{row['predicted_ms']:.2f}",
             f"{row['latency_speedup']:.2f}× of {row['flops_speedup']:.2f}×", f"{row['efficiency']:.2f}",
             f"{row['peak_mb']:.0f} of {row['theory_mb']:.0f}") for row in wanted]
    device = of(lines, "device", "device")[0]["name"]
    return (f"On one {device} (`make gpu`, [all of it](../benchmarks/results/gpu_{slug}.md)), FLUX.1-dev's size, "
            "random weights, bfloat16, FeMo, O = 1, N = 8:\n\n" + markdown(
                ("", "site", "full step, ms", "predicted step, ms", "faster, of fewer FLOPs", "of ideal",
                 "memory, MB, of buffers"), body))
