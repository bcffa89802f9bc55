"""How the cost of forecasts and of recording grows: `make bench-speed` writes results/cost_growth_<device>.md and .png.

Features (batch, tokens, 1024) in bfloat16, FeMo, recorded and forecast again and again; medians. A slope is that of
log time over log size: 1 is linear growth, 0 none.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.pages.results import RESULTS, markdown
from femo_core import FeMo

WIDTH, REPEATS = 1024, 15
TOKENS = (256, 512, 1024, 2048, 4096, 8192, 16384)
BATCHES = (1, 2, 4, 8)
ORDERS = (1, 2, 3, 4)
STEPS = (10, 20, 40, 80, 160)  # of a run: whether its length matters


@dataclass(frozen=True)
class Cost:
    predicted: float  # seconds
    recorded: float


def timed(call: Callable[[], object], device: torch.device) -> float:
    def once() -> float:
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    once()
    return statistics.median(once() for _ in range(REPEATS))


def cost(device: torch.device, batch: int = 1, tokens: int = 1024, order: int = 1, steps: int = 20) -> Cost:
    """After so many full steps, one every fourth."""
    predictor = FeMo(order, beta=0.2)
    feature = torch.randn(batch, tokens, WIDTH, device=device).bfloat16()
    state = predictor.init()
    for step in range(0, steps, 4):
        state = predictor.update(state, feature, step)
    return Cost(timed(lambda: predictor.predict(state, steps + 2), device),
                timed(lambda: predictor.update(state, feature, steps + 4, reuse=True), device))


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    kind = parser.parse_args().device
    device = torch.device(kind)
    series = {
        "tokens": (TOKENS, lambda size: cost(device, tokens=size)),
        "batch": (BATCHES, lambda size: cost(device, batch=size)),
        "order": (ORDERS, lambda size: cost(device, order=size)),
        "steps of the run": (STEPS, lambda size: cost(device, steps=size)),
    }
    figure, panels = plt.subplots(1, len(series), figsize=(13, 3.4), sharey=True)
    body = []
    with torch.inference_mode():
        for panel, (name, (sizes, measure)) in zip(panels, series.items(), strict=True):
            costs = [measure(size) for size in sizes]
            for label, seconds in (("forecast", [one.predicted for one in costs]),
                                   ("recording", [one.recorded for one in costs])):
                fitted = slope(sizes, seconds)
                panel.loglog(sizes, [1e3 * value for value in seconds], "o-", label=f"{label}, slope {fitted:.2f}")
                ends = " to ".join(f"{1e3 * value:.3g}" for value in (seconds[0], seconds[-1]))
                body.append([name, label, f"{sizes[0]} to {sizes[-1]}", ends, f"{fitted:.2f}"])
            panel.set(xlabel=name)
            panel.legend(fontsize=8)
    panels[0].set(ylabel="ms")
    figure.savefig(RESULTS / f"cost_growth_{kind}.png", dpi=130, bbox_inches="tight")
    text = f"{__doc__.strip()}\n\n{markdown(('grows', 'what', 'from … to', 'ms', 'slope'), body)}\n"
    (RESULTS / f"cost_growth_{kind}.md").write_text(f"{text}\n![](cost_growth_{kind}.png)\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
