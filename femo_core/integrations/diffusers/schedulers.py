"""Facts about diffusers' schedulers, as data, and what they come to in one run: noise levels as profiles have them.

These are ComfyUI's: σ of flow models, 1 … 0, with x = (1 − σ) · picture + σ · noise, and of others the ratio of noise
to picture, with x = picture + σ · noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

# How a scheduler has its samples: as flow models do; as picture + σ · noise; as that, scaled to a variance of 1.
FLOW, ADDED, SCALED = "flow", "added", "scaled"
FORMS = {
    "DDIMScheduler": SCALED,
    "DDPMScheduler": SCALED,
    "DEISMultistepScheduler": SCALED,
    "DPMSolverMultistepScheduler": SCALED,
    "EulerAncestralDiscreteScheduler": ADDED,
    "EulerDiscreteScheduler": ADDED,
    "FlowMatchEulerDiscreteScheduler": FLOW,
    "FlowMatchHeunDiscreteScheduler": FLOW,
    "HeunDiscreteScheduler": ADDED,
    "LMSDiscreteScheduler": ADDED,
    "UniPCMultistepScheduler": SCALED,
}
DRAW_NOISE = ("DDPMScheduler", "EulerAncestralDiscreteScheduler")  # anew, at each step
PREDICTIONS = ("epsilon", "flow_prediction", "sample", "v_prediction")


@dataclass(frozen=True)
class Levels:
    """Of one run, from the evaluation that it begins with.

    steps: the step of each of the scheduler's evaluations, counted from there; those before are negative. sigmas: one
    more than there are steps. form, prediction: how to read what the scheduler gets. unknown: why the levels are not
    known, or "": then they are all 0.
    """

    steps: tuple[int, ...]
    sigmas: tuple[float, ...]
    form: str = ""
    prediction: str = ""
    stochastic: bool = False
    unknown: str = ""

    @property
    def total(self) -> int:
        return len(self.sigmas) - 1

    @property
    def last_evaluation(self) -> int:
        return max((index for index, step in enumerate(self.steps) if step < self.total), default=-1)

    @property
    def signals(self) -> tuple[float, ...]:
        """The picture's factor in x at each level."""
        return tuple(1 - sigma if self.form == FLOW else 1.0 for sigma in self.sigmas)

    def read(self, step: int, output: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """(x − denoised) / σ and denoised, from what the scheduler gets at a step."""
        sigma, output, sample = self.sigmas[step], output.float(), sample.float()
        if self.form == SCALED:
            sample = sample * math.hypot(1, sigma)
        if self.prediction in ("epsilon", "flow_prediction"):
            return output, sample - sigma * output
        denoised = output
        if self.prediction == "v_prediction":
            denoised = sample / (1 + sigma**2) - output * (sigma / math.hypot(1, sigma))
        return (sample - denoised) / sigma, denoised


def levels_of(scheduler: Any, until: float = 0.0) -> Levels:
    """Of the run that the scheduler is ready for. until: where another transformer goes on."""
    steps = steps_of(scheduler.timesteps)
    begin = index_of(scheduler) or 0
    first = steps[begin] if begin < len(steps) else 0
    steps = [step - first for step in steps]
    total = max(steps, default=-1) + 1
    try:
        form, prediction = _form_of(scheduler)
        found = _sigmas(scheduler)
        if len(found) != len(steps) + 1 or not all(map(math.isfinite, found)):
            raise ValueError(f"{type(scheduler).__name__} has noise levels that are not one for each timestep")
    except ValueError as error:
        return Levels(tuple(steps), (0.0,) * (total + 1), unknown=str(error))
    sigmas = [found[steps.index(step)] for step in range(total)] + found[-1:]
    own = sum(sigma >= until for sigma in sigmas[:-1]) or total
    return Levels(tuple(steps), tuple(sigmas[: own + 1]), form, prediction, _draws_noise(scheduler))


def steps_of(timesteps: Any) -> list[int]:
    """By evaluation. A solver that evaluates the model twice at a noise level has that level's timestep twice."""
    steps: list[int] = []
    values = timesteps.tolist()
    for i, value in enumerate(values):
        steps.append(steps[-1] + (value != values[i - 1]) if i else 0)
    return steps


def index_of(scheduler: Any) -> int | None:
    """Which evaluation comes, or None from a scheduler that does not count them."""
    if not hasattr(scheduler, "step_index"):
        return None
    index = scheduler.step_index
    return index if index is not None else getattr(scheduler, "begin_index", None) or 0


def _form_of(scheduler: Any) -> tuple[str, str]:
    """How it has its samples, and what the model predicts. Raises ValueError where that is not known here."""
    name = type(scheduler).__name__
    if name not in FORMS:
        raise ValueError(f"what {name} makes of noise levels is not known")
    config: Mapping[str, Any] = scheduler.config
    form, prediction = FORMS[name], config.get("prediction_type", "flow_prediction")
    if config.get("use_flow_sigmas"):
        form = FLOW
    if prediction not in PREDICTIONS or (form == FLOW) != (prediction == "flow_prediction"):
        raise ValueError(f"what {name} makes of prediction_type {prediction} is not known")
    return form, prediction


def _sigmas(scheduler: Any) -> list[float]:
    """By evaluation, and that of the end."""
    if hasattr(scheduler, "sigmas"):
        return scheduler.sigmas.tolist()
    shares = [float(scheduler.alphas_cumprod[int(timestep)]) for timestep in scheduler.timesteps]
    shares.append(float(getattr(scheduler, "final_alpha_cumprod", 1.0)))
    return [math.sqrt((1 - share) / share) if share > 0 else math.inf for share in shares]


def _draws_noise(scheduler: Any) -> bool:
    config: Mapping[str, Any] = scheduler.config
    return (type(scheduler).__name__ in DRAW_NOISE or bool(config.get("stochastic_sampling"))
            or str(config.get("algorithm_type", "")).startswith("sde"))
