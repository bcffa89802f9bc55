"""FLUX.1-dev on several GPUs, with and without FeMo: `make bench-scaling` writes results/scaling.md.

On paper: FLOPs are counted on a FLUX.1-dev without weights, through the hooks that a real one has; bytes are those of
diffusers' Ulysses attention (four all-to-alls each) and of the gather at the end. Where several GPUs are at hand, steps
are timed on them too, with random weights: what a step costs does not depend on them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.pages.results import RESULTS, markdown
from femo_core import FeMo, Schedule
from femo_core.integrations.diffusers import disable_femo, enable_femo, last_report
from femo_core.integrations.diffusers.sites import HOOK

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from diffusers import ContextParallelConfig, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

RANKS = (1, 2, 4, 8)
SIDES = (1024, 2048)  # pixels
SITES = ("hidden", "module", "output")
STEPS, SCHEDULE = 50, Schedule(6, 3)  # the papers' for FLUX; 10 full steps
TEXT = 512  # tokens
BYTES = 2  # of a number in bfloat16
LINK = 450e9  # bytes a second that leave a GPU over NVLink 4, which is 900 GB/s both ways together
H20 = 148e12  # FLOPS in bfloat16 of the papers' GPU, as is commonly given
PAPER = {1: 26.46, 2: 13.70, 4: 8.54}  # seconds at 2048², all with FeMo (ICLR 2026 manuscript, App. A.3)


@dataclass(frozen=True)
class Cost:
    """Of one image, in one step."""

    divided: float  # FLOPs that the ranks share
    repeated: float = 0.0  # FLOPs that each rank does: of what is computed from the timestep alone
    sent: Callable[[int], float] = lambda ranks: 0.0  # bytes that leave each of so many ranks

    def flops(self, ranks: int) -> float:
        return self.divided / ranks + self.repeated


def flux(device: str = "meta", **size: Any) -> FluxTransformer2DModel:
    with torch.device(device):
        return FluxTransformer2DModel(guidance_embeds=True, **size).to(torch.bfloat16).eval()


def inputs(model: FluxTransformer2DModel, side: int, text: int = TEXT, device: str = "meta") -> dict[str, Tensor]:
    """Of one image, all but the timestep."""
    config, tokens = model.config, (side // 16) ** 2
    make = {"dtype": torch.bfloat16, "device": device}
    return {
        "hidden_states": torch.ones(1, tokens, config.in_channels, **make),
        "encoder_hidden_states": torch.ones(1, text, config.joint_attention_dim, **make),
        "pooled_projections": torch.ones(1, config.pooled_projection_dim, **make),
        "guidance": torch.ones(1, device=device), "img_ids": torch.zeros(tokens, 3, device=device),
        "txt_ids": torch.zeros(text, 3, device=device)}


def steps_of(model: FluxTransformer2DModel, side: int, steps: int, scheduler: Any, text: int = TEXT,
             device: str = "meta", around: Callable[[int], Any] = lambda step: nullcontext()) -> None:
    """The first `steps` steps of a run, each within `around(step)`."""
    arguments = inputs(model, side, text, device)
    scheduler.set_timesteps(STEPS)
    with torch.inference_mode():
        for step in range(steps):
            scheduler._step_index = step
            with around(step):
                model(**arguments, timestep=torch.ones(1, device=device), return_dict=False)


def costs(model: FluxTransformer2DModel, side: int, text: int = TEXT) -> tuple[dict[str, Cost], dict[str, int]]:
    """Of a full step and of a predicted one by site; and the bytes of the cache by site, on one rank."""
    tokens, width = (side // 16) ** 2, model.inner_dim
    attentions = len(model.transformer_blocks) + len(model.single_transformer_blocks)
    times = _parameters(model.time_text_embed) + _parameters(model.norm_out)
    gates = sum(_parameters(module) for name, module in model.named_modules()
                if name.endswith(("norm1", "norm1_context", "norm")) and hasattr(module, "linear"))

    def gathered(ranks: int) -> float:
        """Each rank's tokens of the output go to all others."""
        return (ranks - 1) * tokens / ranks * model.config.in_channels * BYTES

    def everything(ranks: int) -> float:
        exchanged = 4 * (tokens + text) / ranks * width * BYTES * (ranks - 1) / ranks
        return attentions * exchanged + gathered(ranks)

    found, cache = {}, {}
    for site in SITES:
        scheduler = FlowMatchEulerDiscreteScheduler()
        enable_femo(model, Schedule(2, 2), FeMo(1), scheduler=scheduler, site=site)
        # Full, full, predicted. Counting takes its time, and full steps are alike at every site: one is counted.
        counted = [nullcontext(), nullcontext() if found else FlopCounterMode(display=False),
                   FlopCounterMode(display=False)]
        steps_of(model, side, 3, scheduler, text, around=counted.__getitem__)
        # At β fixed and O = 1, as everywhere, two buffers: the second full step's are there.
        cache[site] = model._diffusers_hook.get_hook(HOOK).run.session.cache.nbytes
        disable_femo(model)
        if not found:
            full = counted[1].get_total_flops()
            found["full"] = Cost(full - 2 * (times + gates), 2 * (times + gates), everything)
        predicted = counted[2].get_total_flops()
        repeated = {"hidden": 2 * times, "module": 2 * (times + gates), "output": 0}[site]
        found[site] = Cost(predicted - repeated, repeated, gathered if predicted else lambda ranks: 0.0)
    return found, cache


def _parameters(module: torch.nn.Module) -> int:
    """Numbers in its matrices."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim == 2)


def on_paper(model: FluxTransformer2DModel) -> list[str]:
    lines: list[str] = []
    for side in SIDES:
        cost, cache = costs(model, side)
        lines += [
            "", f"## {side} × {side}, on paper", "",
            "Of one step and GPU: TFLOPs and GB sent to the others in a full step; GFLOPs and MB sent in a predicted "
            "one, and GB of the cache at O = 1, each at site hidden / module / output.", "",
            markdown(("GPUs", "full: TFLOPs", "full: GB", "predicted: GFLOPs", "predicted: MB", "cache: GB"), [
                (str(ranks), f"{cost['full'].flops(ranks) / 1e12:.2f}", f"{cost['full'].sent(ranks) / 1e9:.2f}",
                 " / ".join(f"{cost[site].flops(ranks) / 1e9:.1f}" for site in SITES),
                 " / ".join(f"{cost[site].sent(ranks) / 1e6:.1f}" for site in SITES),
                 " / ".join(f"{cache[site] / (1 if site == 'output' else ranks) / 1e9:.3f}" for site in SITES))
                for ranks in RANKS]),
            "", f"Of a run of {STEPS} steps and GPU: in full, and with FeMo at site hidden (N = {SCHEDULE.interval}, "
            f"{len(SCHEDULE.full_steps(STEPS))} full steps).", "",
            markdown(("GPUs", "in full: PFLOPs", "in full: GB", "FeMo: PFLOPs", "FeMo: GB"),
                     [of_run(cost, ranks) for ranks in RANKS])]
    return lines


def of_run(cost: dict[str, Cost], ranks: int) -> list[str]:
    row = [str(ranks)]
    for full in (STEPS, len(SCHEDULE.full_steps(STEPS))):
        flops, sent = (full * of_full + (STEPS - full) * of_predicted for of_full, of_predicted in (
            (cost["full"].flops(ranks), cost["hidden"].flops(ranks)),
            (cost["full"].sent(ranks), cost["hidden"].sent(ranks))))
        row += [f"{flops / 1e15:.2f}", f"{sent / 1e9:.1f}"]
    return row


def against_the_paper(full: Cost) -> list[str]:
    """full: at 2048²."""
    possible = PAPER[1] * H20 / full.flops(1)
    steps = int(possible)
    fewer = {ranks: full.flops(1) / full.flops(ranks) for ranks in PAPER}
    sending = {ranks: steps * full.sent(ranks) / LINK for ranks in PAPER}
    return [
        "", "## Against the paper's figures", "",
        f"At 2048² the ICLR manuscript (App. A.3) has {PAPER[1]:.2f} s on one GPU, {PAPER[2]:.2f} s on two and "
        f"{PAPER[4]:.2f} s on four. (The MM manuscript has 2739.40 and 1707.35 where this one has {PAPER[1]:.2f}, "
        "which its own factors, 1.93 and 3.10, contradict.) "
        "It names neither the interval nor the number of steps. Its FLUX experiments ran on "
        f"H20, whose {H20 / 1e12:.0f} TFLOPS in bfloat16 make at most {possible:.1f} full steps in {PAPER[1]:.2f} s: "
        f"all three must be with FeMo. The rows below take {steps} full steps, and {LINK / 1e9:.0f} GB/s out of "
        "each GPU.", "",
        markdown(("GPUs", "paper: s", "times faster", "FLOPs: times fewer", "sending: s", "explained by neither: s"), [
            (str(ranks), f"{seconds:.2f}", f"{PAPER[1] / seconds:.2f}", f"{fewer[ranks]:.2f}", f"{sending[ranks]:.2f}",
             f"{seconds - PAPER[1] / fewer[ranks] - sending[ranks]:.2f}")
            for ranks, seconds in PAPER.items()]), "",
        "By this neither arithmetic nor bandwidth keeps four GPUs from being four times as fast. What does not shrink "
        "with the tokens may: the latency of launches and messages, text encoders, VAE; the paper does not say which "
        "of these its figures hold. In a full step FeMo leaves the ratio of sending to computing as it is; in a "
        "predicted one there is next to nothing of either."]


# Measured, where there are GPUs

def time_steps(rank: int, ranks: int, folder: Path, device: str, sides: tuple[int, ...], size: dict[str, Any],
               text: int) -> None:
    """One of the processes. Rank 0 writes the medians, in seconds, by side and site: of a full step, a predicted one.
    """
    cuda = device == "cuda"
    if cuda:
        torch.cuda.set_device(rank)
    dist.init_process_group("nccl" if cuda else "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank,
                            world_size=ranks)
    torch.manual_seed(0)
    model = flux(device, **size)
    if ranks > 1:
        # diffusers counts accelerators, which processes on the CPU have none of.
        with nullcontext() if cuda else mock.patch("torch.accelerator.device_count", return_value=1):
            model.enable_parallelism(config=ContextParallelConfig(ulysses_degree=ranks))
    found = {(side, site): _timed(model, side, site, text, device) for side in sides for site in SITES}
    if rank == 0:
        torch.save(found, folder / "seconds.pt")
    dist.barrier()
    dist.destroy_process_group()


def _timed(model: FluxTransformer2DModel, side: int, site: str, text: int, device: str) -> tuple[float, float]:
    scheduler, seconds = FlowMatchEulerDiscreteScheduler(), {}

    class Clock:
        def __init__(self, step: int):
            self.step = step

        def __enter__(self) -> None:
            self._wait()
            self.started = time.perf_counter()

        def __exit__(self, *_: object) -> None:
            self._wait()
            seconds[self.step] = time.perf_counter() - self.started

        def _wait(self) -> None:
            if device == "cuda":
                torch.cuda.synchronize()

    enable_femo(model, SCHEDULE, FeMo(1, gamma=0.015), scheduler=scheduler, site=site)
    steps_of(model, side, STEPS, scheduler, text, device, Clock)
    report = last_report(model)
    disable_femo(model)
    assert report
    return (statistics.median(seconds[step] for step in report.full_steps[1:]),  # the first one warms up
            statistics.median(seconds[step] for step in report.predicted_steps))


def measured(ranks: int, device: str, sides: tuple[int, ...] = SIDES, size: dict[str, Any] | None = None,
             text: int = TEXT) -> dict[tuple[int, str], tuple[float, float]]:
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            time_steps, args=(ranks, Path(folder), device, sides, size or {}, text), nprocs=ranks)
        return torch.load(Path(folder) / "seconds.pt", weights_only=False)


def on_gpus() -> list[str]:
    count = torch.cuda.device_count()
    if count < 2:
        return ["", "## Measured", "", "Not measured: where this was written there were not several GPUs."]
    return [
        "", "## Measured", "", f"{torch.cuda.get_device_name()}, bfloat16, random weights; medians, in ms.", "",
        markdown(("GPUs", "side", "site", "full step", "predicted step"), [
            (str(ranks), str(side), site, f"{1e3 * full:.1f}", f"{1e3 * predicted:.2f}")
            for ranks in RANKS if ranks <= count
            for (side, site), (full, predicted) in measured(ranks, "cuda").items()])]


def main() -> None:
    model = flux()
    path = RESULTS / "scaling.md"
    lines = [
        "FLUX.1-dev on several GPUs that share the tokens of one image (Ulysses attention). `make bench-scaling`",
        *on_paper(model), *against_the_paper(costs(model, 2048)[0]["full"]), *on_gpus()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
