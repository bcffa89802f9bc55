"""How the user hears of a run: the log and the websocket."""

from __future__ import annotations

import logging
import sys

from ..femo_core import RunReport

log = logging.getLogger("femo")

EVENT = "femo.report"


def publish(report: RunReport, node: str, node_id: str | None) -> None:
    """One log line, and the same data as a `femo.report` message to the client whose prompt is running."""
    log.info("%s: %s", node, report.summary())
    server = getattr(sys.modules.get("server"), "PromptServer", None)  # absent where ComfyUI is used as a library
    instance = getattr(server, "instance", None)
    if instance is not None:
        message = {
            "node_id": node_id,
            "prompt_id": getattr(instance, "last_prompt_id", None),
            "report": report.to_dict(),
        }
        instance.send_sync(EVENT, message, instance.client_id)
