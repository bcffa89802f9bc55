"""FeMo Auto's `thorough` for pipelines, which only the caller can run again."""

from __future__ import annotations

import logging
from collections.abc import Callable

from torch import Tensor, nn

from ...plans.full_steps import FullSteps
from ...predictor import AbstractPredictor
from ...profiles.thorough import StoppedError, try_out
from ...schedule import AbstractSchedule
from .hook import hook_on, last_report
from .run import Chosen

log = logging.getLogger(__name__)


def learn_thoroughly(transformer: nn.Module, sample: Callable[[], Tensor]) -> Tensor:
    """After `enable_auto`: learns the model in one full run, and then tries out candidates in closed loop, to keep the
    best in the profile. The full run's result. How long it takes is logged beforehand (INFO).

    sample: runs the pipeline and returns its latents, of any shape: of the same noise and prompt each time, so that it
        has to seed its generator anew (and output_type is "latent").

    Ctrl+C while it tries keeps the best so far. Raises ValueError where `enable_auto` is not on the transformer with a
    profile, and where nothing could be learned, saying why.
    """
    hook = hook_on(transformer)
    auto = hook and hook.auto
    if hook is None or auto is None or auto.path is None:
        raise ValueError("transformer must have enable_auto on it, with learn once and a profile")
    usual = hook.choose
    try:
        hook.choose = auto.teaching()
        wanted, report, taught = sample(), last_report(transformer), auto.taught
        if taught is None:
            raise ValueError(f"nothing was learned: {auto.unlearnable or 'the run did not come to its end'}")

        def again(schedule: AbstractSchedule, predictor: AbstractPredictor, _attempt: int) -> Tensor:
            def choose(_obstacle: str) -> Chosen:
                return Chosen(FullSteps(schedule, predictor))

            hook.choose = choose
            try:
                return sample()
            except KeyboardInterrupt as interrupt:
                raise StoppedError("trying out was interrupted") from interrupt

        try_out(*taught, auto.quality, wanted, again, auto.add, _say, report.seconds_full_step if report else 0.0)
    finally:
        hook.choose = usual
    return wanted


def _say(line: str, warns: bool) -> None:
    log.log(logging.WARNING if warns else logging.INFO, "FeMo Auto: %s", line)
