"""Samplers that run the network several times a step: forecasting at N = 4 beside as many network runs in fewer steps.

The tiny Flux through ComfyUI, 24 drawings, 50 steps, one cool-down step, the nodes' defaults. PSNR to the full run of
the same sampler and noise; where the sampler is deterministic, also to the limit of very many steps. In
results/samplers.md.
"""

from __future__ import annotations

from tqdm import tqdm

from benchmarks.engines.hosted import Hosted, hosts
from benchmarks.pages.results import RESULTS, markdown
from benchmarks.sampling.jobs import LIMIT_STEPS, STEPS, random_prompts
from benchmarks.sampling.metrics import METRICS
from benchmarks.sampling.subjects import Job, TinyFlux
from femo_core import FeMo, Schedule
from femo_core.presets import MEASURED

# name -> is the result the same for the same noise, however many steps there are
SAMPLERS = {
    "euler": True, "heun": True, "heunpp2": True, "dpm_2": True, "dpmpp_2m": True, "res_multistep": True,
    "uni_pc": True, "sa_solver_pece": True, "dpmpp_2s_ancestral": False, "dpmpp_sde": False, "dpmpp_2m_sde": False,
    "dpmpp_3m_sde": False, "seeds_2": False,
}
INTERVAL = 4
SAMPLES = 24


def main() -> None:
    host = hosts.this_host()
    if host is None:
        raise SystemExit(hosts.MISSING)
    subject = TinyFlux()
    hosted, job = Hosted(subject, host), Job(random_prompts(0, SAMPLES))
    predictor = MEASURED["FLUX"].predictor
    assert isinstance(predictor, FeMo)
    schedule = Schedule(INTERVAL, subject.warmup, 1)
    limit, _, _ = hosted.run(hosted.model, job, LIMIT_STEPS, "dpmpp_2m")

    def quality(pixels, reference) -> str:
        return f"{METRICS['psnr'](pixels, reference):.1f}"

    body = []
    for sampler, deterministic in tqdm(SAMPLERS.items()):
        full, full_runs, _ = hosted.run(hosted.model, job, STEPS, sampler)
        cached, runs, _ = hosted.run(hosted.cached(predictor, schedule), job, STEPS, sampler)
        steps = max(1, round(STEPS * runs / full_runs))
        fewer, fewer_runs, _ = hosted.run(hosted.model, job, steps, sampler)
        body.append([
            sampler, str(full_runs), str(runs), quality(cached, full), f"{steps} ({fewer_runs})", quality(fewer, full),
            *((quality(cached, limit), quality(fewer, limit)) if deterministic else ("–", "–"))])
    table = markdown(
        ("sampler", f"runs of {STEPS} steps", f"with N = {INTERVAL}", "to the full run", "fewer steps (runs)",
         "to the full run", f"to the limit, N = {INTERVAL}", "to the limit, fewer steps"), body)
    (RESULTS / "samplers.md").write_text(f"{__doc__.strip()}\n\n{table}\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
