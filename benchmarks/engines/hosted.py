"""The small models in a real ComfyUI in this process: its samplers, our cache under them, EasyCache and LazyCache."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.engines.comfy_server import loads_small_fluxes
from benchmarks.models.tiny_dit import CHECKPOINT, classes_of
from benchmarks.models.tiny_flux import CHECKPOINTS, encode_prompts, from_latent
from benchmarks.sampling.subjects import Job, Subject, TinyDiT, TinyFlux, normal, runs_of
from femo_core import RunReport, Schedule
from femo_core.predictor import AbstractPredictor

sys.path.append(str(Path(__file__).parents[2] / "tests" / "host"))
import hosts

PACK = "femo_bench"  # the name that the pack is loaded under


class Hosted:
    """A small model in ComfyUI. Make one only where `hosts.this_host()` finds a ComfyUI."""

    def __init__(self, subject: Subject, host: Path):
        if str(host) not in sys.path:
            sys.path[:0] = [str(hosts.STUBS), str(host)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from comfy.cli_args import args

            args.cpu = True
            import comfy.sample
        logging.getLogger().setLevel(logging.WARNING)
        self.comfy, self.subject = comfy, subject
        if PACK not in sys.modules:
            hosts.load_pack(PACK)
        self.model = self.load(host)
        self.scheduler = "normal" if isinstance(subject, TinyDiT) else "simple"

    def load(self, host: Path) -> Any:
        """The subject as a ModelPatcher."""
        return load_tiny_dit() if isinstance(self.subject, TinyDiT) else load_tiny_flux(host)

    def cached(self, predictor: AbstractPredictor, schedule: Schedule, site: str = "hidden") -> Any:
        """The model with our cache on it."""
        attach, core = sys.modules[f"{PACK}.nodes.run.attach"], sys.modules[f"{PACK}.femo_core"]
        here = getattr(core, type(predictor).__name__)(**asdict(predictor))
        return attach.attach(self.model, attach.CacheConfig(here, core.Schedule(**asdict(schedule)), site))

    def last_report(self, model: Any) -> RunReport:
        """What our cache did in the last run."""
        return sys.modules[f"{PACK}.nodes.run.attach"].last_report(model)

    def rival(self, name: str, threshold: float, whole_run: bool = False) -> Any:
        """The model with ComfyUI's own EasyCache or LazyCache on it, by default in that part of the run that they
        choose by default.

        EasyCache changes what it is given in place, which in float32 is the sampler's own latent: it gets a copy, as
        it does in practice, where the network runs in half precision.
        """
        import comfy_extras.nodes_easycache as nodes
        from comfy.patcher_extension import WrappersMP

        model = self.model.clone()
        model.add_wrapper_with_key(
            WrappersMP.DIFFUSION_MODEL, "copy", lambda executor, x, *rest, **named: executor(x.clone(), *rest, **named))
        return getattr(nodes, f"{name}Node").execute(
            model=model, reuse_threshold=threshold, start_percent=0.0 if whole_run else 0.15,
            end_percent=1.0 if whole_run else 0.95, verbose=False).result[0]

    def run(self, model: Any, job: Job, steps: int, sampler: str) -> tuple[Tensor, int, float]:
        """Pixels, network runs (with guidance, of both streams together), seconds."""
        network = model.model.diffusion_model
        block = next(child for name, child in network.named_modules() if name.endswith("blocks.0"))
        noise = normal(job, self.subject.shape)
        positive, negative, guidance = self._conditioning(job)
        with runs_of(block) as ran, torch.inference_mode():
            started = time.perf_counter()
            result = self.comfy.sample.sample(
                model, noise, steps, guidance, sampler, self.scheduler, positive, negative, torch.zeros_like(noise),
                disable_pbar=True, seed=0)
            seconds = time.perf_counter() - started
        if isinstance(self.subject, TinyFlux):
            result = from_latent(result)
        return self.subject.pixels(result), len(ran), seconds

    def _conditioning(self, job: Job) -> tuple[Any, Any, float]:
        if isinstance(self.subject, TinyDiT):
            empty = torch.zeros(1, 1, 1)
            labels = classes_of(job.prompts), torch.tensor([-1])
            positive, negative = ([[empty, {"class_labels": each}]] for each in labels)
            return positive, negative, job.guidance
        prompt = [[encode_prompts(list(job.prompts)),
                   {"pooled_output": torch.zeros(1, 16), "guidance": job.guidance}]]
        return prompt, prompt, 1.0


def load_tiny_dit() -> Any:
    return sys.modules[f"{PACK}.nodes.dit.host"].load_dit(CHECKPOINT, torch.float32)


def load_tiny_flux(host: Path) -> Any:
    """Through the host's own loader, or, where that forces FLUX.1's head count, its class alone."""
    import comfy.sd

    path = CHECKPOINTS / "tiny_flux.safetensors"
    if loads_small_fluxes(hosts.version(host)):
        return comfy.sd.load_diffusion_model(str(path), model_options={"dtype": torch.float32})
    import folder_paths
    from femo_test_nodes import TinyFluxLoader

    folder_paths.add_model_folder_path("diffusion_models", str(path.parent))
    return TinyFluxLoader().load(path.name, "default")[0]
