"""What FeMo Auto does in a run: learns the model, or goes by what it has learned, or by nothing but noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...femo_core.profiles import decision
from ...femo_core.profiles.decision import RunFacts
from ...femo_core.profiles.quality import FULL_AT, Plan, unknown
from ..cache_config import AutoConfig
from .full_steps import FullSteps
from .profiles import Kept, find

_unlearnable: dict[tuple[str, str], str] = {}  # why no run of a model (its file) by a sampler could be learned from


def decide(config: AutoConfig, model: Any, run: RunFacts) -> FullSteps:
    """model: ComfyUI's BaseModel. What can't be used costs a notice, never the run."""
    if config.learn == "off" or len(run.sigmas) - 1 <= FULL_AT or run.obstacle:
        return _full_steps(unknown(run.sigmas, config.quality.speedup), {"learned": config.learn})
    kept = find(model)
    chosen = decision.decide(kept.profile, kept.path.name, run, config.quality,
                             _unlearnable.get((kept.path.name, run.sampler), ""))
    words = {"learned": chosen.learned, **({"profile": kept.path.name} if chosen.learned != "no" else {})}
    notices = (*filter(None, (kept.notice,)), *chosen.notices)
    return _full_steps(chosen.plan, words, notices)


def without_profile(config: AutoConfig, sigmas: Sequence[float], error: Exception) -> FullSteps:
    """For a model of which not even its profile can be looked for."""
    notice = f"no profile can be used, and a rule without it serves: {type(error).__name__}: {error}"
    return _full_steps(unknown(sigmas, config.quality.speedup), {"learned": "no"}, (notice,))


def could_not_learn(kept: Kept, run: RunFacts, why: str) -> None:
    """Until the server ends, runs of the model by this sampler go without."""
    _unlearnable[kept.path.name, run.sampler] = why


def _full_steps(chosen: Plan, words: dict[str, Any], notices: tuple[str, ...] = ()) -> FullSteps:
    if chosen.expected_change:
        words = {**words, "expected_change": round(chosen.expected_change, 4)}
    return FullSteps(chosen.schedule, chosen.predictor, expected_errors=chosen.expected_errors, guarded=True,
                     words=words, reason=chosen.reason, notices=notices)
