"""What `enable_auto` does in a run: learns the model, or goes by its profile, or by a rule that needs none."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ...errors import check_number
from ...files import put_aside, write_whole
from ...parallel import first_ones, is_first
from ...profiles.decision import Decision, RunFacts, decide, forecast
from ...profiles.profile import Profile, Recording
from ...profiles.quality import FULL_AT, QUALITIES, Quality, unknown
from ...profiles.shapes import digest_of_shapes
from .learning import Outcome
from .run import Chosen, group_of
from .schedulers import Levels, levels_of

LEARN = ("once", "off")

log = logging.getLogger(__name__)


@dataclass
class Auto:
    """What `enable_auto` was given, and what it has come to since. Raises ValueError for what can't be.

    unlearnable: why runs by this scheduler tell nothing, or "". taught: what the last run that was learned from told.
    """

    transformer: nn.Module
    scheduler: Any
    quality: Quality
    path: Path | None
    until: float
    unlearnable: str = ""
    taught: tuple[Recording, RunFacts] | None = None

    @classmethod
    def checked(cls, transformer: nn.Module, scheduler: Any, quality: str | float, learn: str,
                profile: str | os.PathLike[str] | None, until: float) -> Auto:
        if learn not in LEARN:
            raise ValueError(f"learn must be one of {', '.join(LEARN)}; got {learn!r}")
        if profile is None and learn != "off":
            raise ValueError("profile must be the path of a JSON file, which the first run makes; got None: with learn "
                             "off there need be none")
        check_number("until", until, "0 or more", lambda value: 0.0 <= value < math.inf)
        path = None if profile is None or learn == "off" else Path(profile)
        found = cls(transformer, scheduler, _quality_of(quality), path, until)
        if path and path.is_dir():
            raise ValueError(f"profile must be the path of a file; {path} is a folder")
        why = ""
        with suppress(OSError, ValueError):  # of which the first run says more
            why = found._of_another(Profile.from_json(path.read_bytes())) if path else ""
        if why:
            raise ValueError(f"profile must be a file of this model's own; {why}")
        return found

    def choose(self, obstacle: str) -> Chosen:
        """For the run that the scheduler is ready for. obstacle: as of RunFacts. Waits for nobody but, in a group of
        processes, for the first one's choice."""
        levels = levels_of(self.scheduler, self.until)
        run = self._facts(levels, obstacle)
        if self.path is None or levels.total <= FULL_AT or obstacle:
            decision = Decision(unknown(run.sigmas, self.quality.speedup), "off" if self.path is None else "once")
        else:
            decision = self._decide(run, levels)
        if group := group_of(self.transformer):
            decision = first_ones(decision, group)
        return Chosen(decision.full_steps(self.path.name if self.path else ""), levels)

    def teaching(self) -> Callable[[str], Chosen]:
        """In the place of `choose`: for runs in full that are learned from, whatever is known. It raises ValueError,
        saying why, for one that can't be."""
        self.taught = None
        return self._teach

    def _teach(self, obstacle: str) -> Chosen:
        assert self.path
        levels = levels_of(self.scheduler, self.until)
        decision = decide(None, self.path.name, self._facts(levels, obstacle), self.quality, obstacle or levels.unknown)
        if decision.learned != "learning":
            raise ValueError("; ".join(decision.notices))
        return Chosen(decision.full_steps(), levels)

    def learned(self, levels: Levels, outcome: Outcome) -> str:
        """Keeps what a run has told. Returns why it could not, or "". The next runs are then not learned from."""
        assert self.path
        if isinstance(outcome, Recording):
            run = self._facts(levels, "")
            try:
                self.add(outcome)
            except (OSError, ValueError) as error:
                outcome = str(error)
            else:
                self.taught = outcome, run
                log.info("FeMo Auto: learned from %d steps: %s (%s)", outcome.steps,
                         forecast(outcome, run, self.quality), self.path.name)
                return ""
        self.unlearnable = str(outcome)
        return f"nothing was learned of this model, and a rule without it serves: {outcome}"

    def _decide(self, run: RunFacts, levels: Levels) -> Decision:
        assert self.path
        profile, notice, other = self._read()
        return decide(None if levels.unknown else profile, self.path.name, run, self.quality,
                      levels.unknown or other or self.unlearnable).after(notice)

    def _read(self) -> tuple[Profile | None, str, str]:
        """The profile; what was wrong with the one there was; why the one there is can't be this model's."""
        assert self.path
        try:
            profile = Profile.from_json(self.path.read_bytes())
        except FileNotFoundError:
            return None, "", ""
        except (OSError, ValueError) as error:
            return None, f"{self.path.name} is {error}: {put_aside(self.path)}, and the model is learned anew", ""
        other = self._of_another(profile)
        return None if other else profile, "", other

    def _of_another(self, profile: Profile) -> str:
        """Why it can't be this model's, or ""."""
        if profile.may_be_of(this := fingerprint(self.transformer)):
            return ""
        assert self.path
        return f"{self.path.name} is of another one ({profile.model}; this one is {this})"

    def add(self, recording: Recording) -> None:
        """To the file; what another process has learned meanwhile stays."""
        assert self.path
        group = group_of(self.transformer)
        if group and not is_first(group):
            return
        profile, _, other = self._read()
        if other:
            raise ValueError(other)
        profile = profile or Profile(fingerprint(self.transformer), (recording,))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, profile.with_recording(recording).to_json())

    def _facts(self, levels: Levels, obstacle: str) -> RunFacts:
        return RunFacts(type(self.scheduler).__name__, levels.sigmas, levels.signals, levels.stochastic, obstacle)


def fingerprint(transformer: nn.Module) -> str:
    """Its class and the shapes of its weight matrices."""
    return f"diffusers: {type(transformer).__name__}, {digest_of_shapes(transformer)}"


def _quality_of(quality: str | float) -> Quality:
    if isinstance(quality, str):
        if quality not in QUALITIES:
            raise ValueError(f"quality must be one of {', '.join(QUALITIES)} or a speed-up; got {quality!r}")
        return QUALITIES[quality]
    try:
        return Quality(0.0, quality)
    except (TypeError, ValueError) as error:
        raise ValueError(f"quality must be one of {', '.join(QUALITIES)} or a speed-up: {error}") from error
