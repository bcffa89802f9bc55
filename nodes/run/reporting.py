"""How the user hears of a run: the log, and messages to the browser (or client) whose prompt is running."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from ...femo_core import RunReport

log = logging.getLogger("femo")

PROGRESS, DONE, SAID = "femo.progress", "femo.report", "femo.said"
PAUSE = 0.1  # seconds, at least, from one message of a run in progress to the next

ONE_BY_ONE = (
    "each step is sampled in a run of its own (by a regional or tiled sampler, or one sampler node a step): it begins "
    "with full steps and ends with them, so that this can't be accelerated; sample several steps in one run")

_runs: dict[tuple[str | None, str | None], int] = {}  # of the prompt that is running, so far, by node
_runs_of_a_step: dict[tuple[str | None, str | None], int] = {}  # those of them that had but one


def show(text: str, node_id: str | None) -> None:
    """On a node in the browser, by ComfyUI's own message for that, which stays."""
    _tell(text, node_id, lambda server: server.send_progress_text(text, node_id, server.client_id))


def say(text: str, node_id: str | None) -> None:
    """Below the strip of the node's last run in the browser, until its next run."""
    _tell(text, node_id, lambda server: server.send_sync(SAID, {
        "node_id": node_id, "prompt_id": getattr(server, "last_prompt_id", None), "text": text}, server.client_id))


def _tell(text: str, node_id: str | None, send: Callable[[Any], None]) -> None:
    """Nobody where a program has queued the prompt: no node of an open workflow is meant."""
    server = _server()
    if getattr(server, "client_id", None) is None or node_id is None:
        return
    try:
        send(server)
    except Exception:  # a picture must not fail because nobody can be told of it
        log.exception("%s could not be shown", text)


def _server() -> Any:
    """None where ComfyUI is used as a library."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


class Channel:
    """Of one run. Messages hold node_id, prompt_id, run (1, 2, … of a node in a prompt), report and stopped."""

    def __init__(self, node: str, node_id: str | None):
        self.node, self.node_id = node, node_id
        self._server = _server()
        self._prompt = getattr(self._server, "last_prompt_id", None)
        if all(prompt != self._prompt for prompt, _ in _runs):
            _runs.clear()
            _runs_of_a_step.clear()
        self.run = _runs[self._prompt, node_id] = _runs.get((self._prompt, node_id), 0) + 1
        self._sent = 0.0

    def warn(self, message: str) -> None:
        log.warning("%s: %s", self.node, message)

    def progress(self, report: Callable[[], RunReport]) -> None:
        """The report of a run so far, asked for only where somebody is to see it."""
        if getattr(self._server, "client_id", None) is not None and time.monotonic() - self._sent >= PAUSE:
            self._send(PROGRESS, report())

    def done(self, report: RunReport) -> None:
        alike = self._runs_of_a_step() if report.total_steps == 1 else 0
        if alike < 2:
            log.info("%s: %s", self.node, report.summary())
        elif alike == 2:
            log.warning("%s: %s", self.node, ONE_BY_ONE)
        self._send(DONE, report)

    def _runs_of_a_step(self) -> int:
        """With this one."""
        key = self._prompt, self.node_id
        _runs_of_a_step[key] = _runs_of_a_step.get(key, 0) + 1
        return _runs_of_a_step[key]

    def stopped(self, report: RunReport) -> None:
        """The run was interrupted or has failed."""
        self._send(DONE, report, stopped=True)

    def _send(self, event: str, report: RunReport, stopped: bool = False) -> None:
        if self._server is None:
            return
        self._sent = time.monotonic()
        message = {"node_id": self.node_id, "prompt_id": self._prompt, "run": self.run, "report": report.to_dict(),
                   "stopped": stopped}
        try:
            self._server.send_sync(event, message, self._server.client_id)
        except Exception:  # a picture must not fail because nobody can be told of it
            log.exception("%s: the report could not be sent", self.node)
            self._server = None


class Silence(Channel):
    """Of a run that is nobody's but ours."""

    def __init__(self) -> None:
        self._server = None

    def warn(self, message: str) -> None:
        """Nobody is told."""

    def done(self, report: RunReport) -> None:
        """Nobody is told."""
