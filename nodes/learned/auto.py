"""What FeMo Auto does in a run: learns the model, or goes by what it has learned, or by nothing but noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...femo_core.plans.full_steps import FullSteps
from ...femo_core.profiles.decision import Decision, RunFacts
from ...femo_core.profiles.decision import decide as decide_by
from ...femo_core.profiles.quality import FULL_AT, unknown
from ..cache_config import AutoConfig
from .profiles import Kept, find

_unlearnable: dict[tuple[str, str], str] = {}  # why no run of a model (its file) by a sampler could be learned from


def decide(config: AutoConfig, model: Any, run: RunFacts) -> FullSteps:
    """model: ComfyUI's BaseModel. What can't be used costs a notice, never the run."""
    if config.learn == "off" or len(run.sigmas) - 1 <= FULL_AT or run.obstacle:
        return Decision(unknown(run.sigmas, config.quality.speedup), config.learn).full_steps()
    kept = find(model)
    decision = decide_by(kept.profile, kept.path.name, run, config.quality,
                         _unlearnable.get((kept.path.name, run.sampler), ""))
    return decision.after(kept.notice).full_steps(kept.path.name)


def without_profile(config: AutoConfig, sigmas: Sequence[float], error: Exception) -> FullSteps:
    """For a model of which not even its profile can be looked for."""
    notice = f"no profile can be used, and a rule without it serves: {type(error).__name__}: {error}"
    return Decision(unknown(sigmas, config.quality.speedup), "no", (notice,)).full_steps()


def could_not_learn(kept: Kept, run: RunFacts, why: str) -> None:
    """Until the server ends, runs of the model by this sampler go without."""
    _unlearnable[kept.path.name, run.sampler] = why
