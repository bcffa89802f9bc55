"""Watches an ordinary full run and saves what it tells as a calibration. The picture stays as it is, bit for bit."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ...femo_core import Profile, Recording, TrajectoryGram
from ..families import find_family
from ..learned.calibration_file import path_of, read, write
from ..learned.identity import fingerprint, signature
from ..reach import Handle, InReach
from .attach import make_outermost, own_options, with_callback, with_wrappers
from .obstacles import obstacle_of, watch_wrapper
from .reporting import log, show
from .run import run_of
from .steps import StepClock

KEY = "femo_calibrate"
NODE = "FeMo Calibrate"
NEVER_DRAWS = ("sample_res_multistep",)  # takes a noise sampler and leaves it alone


@dataclass(frozen=True)
class Recorder(InReach):
    """What FeMo Calibrate asks for. Raises ValueError for a name that is none of a file."""

    name: str
    average: bool = False
    node_id: str | None = None

    def __post_init__(self) -> None:
        path_of(self.name)

    def attach(self, model: Any) -> Any:
        """A clone of a ModelPatcher whose runs are recorded. A recorder that is on it already is replaced."""
        return with_wrappers(model, KEY, {WrappersMP.OUTER_SAMPLE: self.outer_sample})

    def outer_sample(self, executor: Any, noise: Tensor, latent_image: Any, sampler: Any, sigmas: Tensor,
                     *args: Any, **kwargs: Any) -> Any:
        guider = executor.class_obj
        recording = RunRecording(guider, sampler, sigmas)
        with recording.listening(KEY):
            recording.watch(guider.model_options)
            args, kwargs = with_callback(recording.told, args, kwargs)
            result = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        self._save(recording)  # a run that was interrupted or has failed does not come here
        return result

    def _save(self, recording: RunRecording) -> None:
        """The run is over and its picture must not be lost: what goes wrong here is only said."""
        try:
            saved = recording.result()
            model = recording.guider.model_patcher.model
            this = fingerprint(model)
            if self.average and path_of(self.name).is_file():
                earlier = read(self.name)
                if earlier.model != this:
                    raise ValueError(f"it is of another model ({earlier.model}; this one is {this})")
                saved = saved.averaged_into(earlier.recordings[0])
            write(self.name, Profile(this, (saved,), signature(model)))
        except Exception as error:
            message = f"nothing was saved as {self.name}: {error}"
            log.warning("%s: %s", NODE, message)
        else:
            message = f"saved as {self.name}: {saved.steps} steps, runs: {saved.runs}"
            log.info("%s: %s (%s)", NODE, message, path_of(self.name))
        show(message, self.node_id)


class RunRecording:
    """One sampling run: the guided derivative (x − denoised) / σ at each whole step.

    That is what the sampler goes by. Of flow models it is the guided velocity, of models that predict noise the guided
    noise: what guidance makes of the network's own outputs. Of others (v-prediction, x0, EDM) it is what these outputs
    come to, not themselves.

    Of samplers that evaluate the model several times a step, evaluations between two steps are left out, and of several
    at the same level the last counts, the one that the step itself starts from: as anchors are recorded. Features lie
    in main memory, so that the run has the device's to itself.
    """

    def __init__(self, guider: Any, sampler: Any, sigmas: Tensor):
        self.guider, self.sampler, self.sigmas = guider, sampler, sigmas.tolist()
        self.clock = StepClock(self.sigmas)
        self.features: dict[int, Tensor] = {}  # by step
        self.denoised: Tensor | None = None  # at the last of them
        self.obstacle = ""
        self.peer = ""  # the same, where it is another node's doing, and gone with it
        self.watched = False  # whether it was told of any evaluation

    @contextmanager
    def listening(self, key: str) -> Iterator[None]:
        """While open, it is told of the guider's evaluations. key: of the node's wrapper."""
        with own_options(self.guider) as transformer_options:
            handle = Handle(self.predict_noise)
            make_outermost(transformer_options, WrappersMP.PREDICT_NOISE, key, handle)
            try:
                yield
            finally:
                handle.held = None

    def watch(self, model_options: dict[str, Any]) -> None:
        """Those of this run alone, where no cache node does."""
        def found(obstacle: str) -> None:
            self.peer = self.peer or obstacle

        network = self.guider.model_patcher.model.diffusion_model
        watch_wrapper(model_options, network, find_family(network), found)

    def predict_noise(self, executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any], *args: Any,
                      **kwargs: Any) -> Any:
        denoised = executor(x, timestep, model_options, *args, **kwargs)
        self.watched = True
        try:
            self._keep(x, timestep, model_options, denoised)
        except Exception as error:  # who only watches never fails
            self.obstacle = self.obstacle or f"{type(error).__name__}: {error}"
        return denoised

    def told(self, step: int) -> None:
        """The sampler's callback is called."""
        self.clock.told(step)

    def _keep(self, x: Tensor, timestep: Tensor, model_options: dict[str, Any], denoised: Any) -> None:
        self.peer = self.peer or _why_not_full(model_options, self.guider.model_patcher.model.diffusion_model)
        if not isinstance(denoised, Tensor):
            self.obstacle = self.obstacle or (
                f"this guider gives the sampler a {type(denoised).__name__} instead of a latent; take another")
        step = self.clock.step(float(timestep.max()))
        if step.is_integer() and step < self.clock.total_steps and not (self.obstacle or self.peer):
            sigma = timestep.float().reshape(-1, *[1] * (x.ndim - 1))
            self.features[int(step)] = ((x - denoised).float() / sigma).cpu()
            self.denoised = denoised

    def result(self) -> Recording:
        """Raises ValueError, saying why, where there is nothing to save."""
        total = self.clock.total_steps
        if self.peer or self.obstacle:
            raise ValueError(f"a calibration needs a full run: {self.peer or self.obstacle}")
        if not self.watched:
            raise ValueError("this guider goes past ComfyUI's PREDICT_NOISE, so that no evaluation of the model could "
                             "be watched; calibrate with another one, CFGGuider for example")
        if len(self.features) < total:
            raise ValueError(f"this sampler ran the model at the noise levels of {len(self.features)} of its {total} "
                             "steps only; calibrate with another one, euler for example")
        gram = TrajectoryGram()
        for step in range(total):
            gram.record(step, self.features.pop(step))
        model_sampling = self.guider.model_patcher.get_model_object("model_sampling")
        size = 1.0 if self.denoised is None else float(self.denoised.float().square().mean().sqrt())
        return Recording(
            sigmas=self.sigmas, signals=signals_of(model_sampling, self.sigmas), matrix=gram.matrix.tolist(), size=size,
            stochastic=draws_noise(self.sampler),
            sampler=name_of(self.sampler),
            shift=_number(getattr(model_sampling, "shift", None)), guidance=_number(getattr(self.guider, "cfg", None)))


def _why_not_full(model_options: dict[str, Any], network: nn.Module) -> str:
    """Why a run that is under way may not run the network on every step, or ""."""
    run = run_of(model_options.get("transformer_options"))
    if run is not None and run.forecasts:
        return f"{run.config.node} is on the same model and skips steps; switch it off for this run"
    return run.obstacle if run is not None and run.obstacle else obstacle_of(model_options, network)


def name_of(sampler: Any) -> str:
    function = getattr(sampler, "sampler_function", sampler)
    return getattr(function, "__name__", type(function).__name__).removeprefix("sample_")


def signals_of(model_sampling: Any, sigmas: Sequence[float]) -> list[float]:
    """The picture's factor in x at each noise level: what becomes of a picture of ones without noise."""
    return [float(model_sampling.noise_scaling(torch.tensor([sigma]), torch.zeros(1), torch.ones(1)))
            for sigma in sigmas]


def draws_noise(sampler: Any) -> bool:
    """Whether a sampler renews noise on the way, so that its paths are rough: by what its function takes."""
    function = getattr(sampler, "sampler_function", None)
    asked = getattr(sampler, "extra_options", {})
    try:
        takes = inspect.signature(function).parameters if function else {}
    except (TypeError, ValueError):
        return False
    if asked.get("s_churn", 0):
        return True
    if "noise_sampler" not in takes or (function.__name__.startswith(NEVER_DRAWS) and "eta" not in takes):
        return False
    return bool(asked.get("eta", takes["eta"].default if "eta" in takes else 1.0))


def _number(value: Any) -> float | None:
    """Of what other packs may have there."""
    return float(value) if isinstance(value, int | float) else None
