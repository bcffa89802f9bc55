"""FeMo Auto's sampling runs: one that is unknown is recorded, and what it tells is kept for the next."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.utils
from torch import Tensor

from ...femo_core import Recording
from ...femo_core.plans.full_steps import FullSteps
from ...femo_core.profiles.decision import RunFacts, forecast
from ...femo_core.profiles.thorough import StoppedError, try_out
from ...femo_core.tuning import MOST_TRIES
from ..cache_config import AutoConfig
from ..learned import profiles
from ..learned.auto import could_not_learn, decide, without_profile
from .attach import Sampling, attach_sampling, with_callback
from .obstacles import obstacle_of
from .recorder import RunRecording, draws_noise, name_of, signals_of
from .reporting import log, say

KEY = "femo_auto"


def attach_auto(model: Any, config: AutoConfig) -> Any:
    """A clone of a ModelPatcher that is learned and accelerated. A cache of this pack that is on it is replaced."""
    return attach_sampling(model, AutoSampling(config))


@dataclass(frozen=True)
class AutoSampling(Sampling):
    config: AutoConfig

    def outer_sample(self, executor: Any, noise: Tensor, latent_image: Any, sampler: Any, sigmas: Tensor,
                     *args: Any, **kwargs: Any) -> Any:
        guider = executor.class_obj

        def sample(full_steps: FullSteps, args: tuple[Any, ...], kwargs: dict[str, Any], silent: bool = False) -> Any:
            return self.sample(full_steps, executor, noise, latent_image, sampler, sigmas, *args, silent=silent,
                               **kwargs)

        try:
            facts = _facts(guider, sampler, sigmas)
            full_steps = decide(self.config, guider.model_patcher.model, facts)
        except Exception as error:  # a model unlike others still samples
            return sample(without_profile(self.config, sigmas.tolist(), error), args, kwargs)
        if not full_steps.learns:
            return sample(full_steps, args, kwargs)
        recording = RunRecording(guider, sampler, sigmas)
        conds = _copied(guider.conds)
        with recording.listening(KEY):
            result = sample(full_steps, *with_callback(recording.told, args, kwargs))
        # The picture is there and must not be lost: what goes wrong from here on is only said.
        learned = self._keep(recording, facts)
        if learned and self.config.learn == "thorough":
            def again(full_steps: FullSteps) -> Any:
                guider.conds = _copied(conds)
                return sample(full_steps, *_unseen(args, kwargs), silent=True)
            self._try_out(learned, facts, guider, result, again)
        return result

    def _keep(self, recording: RunRecording, facts: RunFacts) -> Recording | None:
        model = recording.guider.model_patcher.model
        try:
            learned = recording.result()
            path = profiles.add(model, learned)
        except Exception as error:
            if not recording.peer:
                with suppress(Exception):
                    could_not_learn(profiles.find(model), facts, str(error))
            self._say(f"nothing was learned of this model, and a rule without it serves: {error}", warns=True)
            return None
        self._say(f"learned from {learned.steps} steps: {forecast(learned, facts, self.config.quality)} ({path.name})")
        return learned

    def _try_out(self, learned: Recording, facts: RunFacts, guider: Any, wanted: Tensor,
                 again: Callable[[FullSteps], Any]) -> None:
        """In closed loop on the same noise."""
        progress = comfy.utils.ProgressBar(MOST_TRIES)

        def sample(schedule: Any, predictor: Any, attempt: int) -> Tensor:
            try:
                result = again(FullSteps(schedule, predictor))
            except comfy.model_management.InterruptProcessingException as interrupt:
                raise StoppedError("trying out was interrupted") from interrupt
            progress.update_absolute(attempt, MOST_TRIES)
            return result

        seconds = self.last.report.seconds_full_step if self.last.report else 0.0
        try_out(learned, facts, self.config.quality, wanted, sample,
                lambda recording: profiles.add(guider.model_patcher.model, recording), self._say, seconds)

    def _say(self, message: str, warns: bool = False) -> None:
        (log.warning if warns else log.info)("%s: %s", self.config.node, message)
        say(message, self.config.node_id)


def _facts(guider: Any, sampler: Any, sigmas: Tensor) -> RunFacts:
    levels = tuple(sigmas.tolist())
    model = guider.model_patcher
    return RunFacts(
        name_of(sampler), levels, tuple(signals_of(model.get_model_object("model_sampling"), levels)),
        draws_noise(sampler), obstacle_of(guider.model_options, model.model.diffusion_model))


def _copied(conds: dict[str, Any]) -> dict[str, Any]:
    """A run replaces and fills in what is in them."""
    return {name: [one.copy() for one in of_name] for name, of_name in conds.items()}


def _unseen(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """denoise_mask, callback, disable_pbar, seed: of the steps of a trial nobody is to see anything."""
    if len(args) > 2:
        return (args[0], None, True, *args[3:]), kwargs
    return args[:1], {**kwargs, "callback": None, "disable_pbar": True}
