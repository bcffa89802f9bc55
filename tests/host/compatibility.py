"""docs/compatibility.md: which family works at which site of which ComfyUI, and how near it comes to the full run.

`make compatibility`: test_families.py measures, for every ComfyUI, and `python tests/host/compatibility.py` writes.
"""

from __future__ import annotations

import ast
import json
import os
from dataclasses import asdict, dataclass

from hosts import ROOT, this_host, version

WANTED = bool(os.environ.get("FEMO_COMPATIBILITY"))
SEEN = ROOT / "out" / "compatibility"
PAGE = ROOT / "docs" / "compatibility.md"


@dataclass(frozen=True)
class Seen:
    """Distances to the full run, as parts of its norm."""

    model: str
    site: str
    forecast: float
    reuse: float
    fewer: float
    part: str = ""  # of latents that are sampled together, the one that these are of


def keep(seen: Seen) -> None:
    host = this_host()
    assert host is not None
    SEEN.mkdir(parents=True, exist_ok=True)
    path = SEEN / f"{version(host)}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | {f"{seen.model} · {seen.part} · {seen.site}": asdict(seen)}, indent=1))


def main() -> None:
    by_version = {path.stem: json.loads(path.read_text()) for path in SEEN.glob("*.json")}
    versions = sorted(by_version, key=lambda text: tuple(map(int, text.split("."))), reverse=True)
    models = list(dict.fromkeys(row["model"] for name in versions for row in by_version[name].values()
                                if not row.get("part")))
    head = ["model", *(f"{name}" for name in versions)]
    sites = [[model, *(_sites(by_version[name], model) for name in versions)] for model in models]
    newest = versions[0]
    figures = [[": ".join(filter(None, (row["model"], row.get("part")))), row["site"],
                *(f"{row[name]:.4f}" for name in ("forecast", "reuse", "fewer"))]
               for row in by_version[newest].values()]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(TEXT.format(
        sites=_table(head, sites), newest=newest,
        at_output="\n".join(f"- {name}: {why}." for name, why in at_output()),
        figures=_table(["model", "site", "forecast", "reuse", "fewer steps"], figures)), encoding="utf-8")


def at_output() -> list[tuple[str, str]]:
    """Names of models that are known to have no other site, and why, from the files of their families."""
    found = []
    for path in sorted((ROOT / "nodes" / "families").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Family":
                values = {word.arg: word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)}
                if "at_output" in values:
                    found.append((values["name"], values["at_output"]))
    return sorted(found)


def _sites(rows: dict[str, dict[str, str]], model: str) -> str:
    found = [row["site"] for row in rows.values() if row["model"] == model and not row.get("part")]
    return ", ".join(found) or "–"


def _table(head: list[str], body: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))


TEXT = """# What works with what

A model that is listed was tried at the sites named and works there; FeMo Auto takes hidden where there is one.
Finetunes count as their base. A model that is not here works at site output, where pictures change more; asked for
another site, it falls back to that and says so. –: this ComfyUI does not have it.

Tried means: built small, with random weights, of ComfyUI's own classes, and sampled on the CPU; interval 1 is
bit-equal, the network runs on the schedule's steps only, and what comes out is finite. Made by
`make compatibility`, from what the tests measure then.

{sites}

At site output only, as far as is known:

{at_output}

## Distances on random weights

On ComfyUI {newest}: of 12 Euler steps at N = 3 (TaylorSeer O=1, warm-up 3) to the full run, as parts of its norm,
beside reuse (O=0) and as many plain steps as network runs. Random weights need not be smooth: figures, not promises.
Of latents that are sampled together, as a video and its audio, each has a row of its own too.

{figures}
"""

if __name__ == "__main__":
    main()
