"""FeMo Report: the last run of a model, as text, chart and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..femo_core import RunReport
from ..femo_core.files import write_whole
from . import inputs
from .chart import chart
from .run.attach import last_report

NONE_YET = (
    "there is no report: this model has not been run since its cache node last ran. after must come from a run of this "
    "model: connect the latent or image that the sampler made with it. A ComfyUI that does not keep results "
    "(--cache-none, --cache-ram) may have run the node once more since")


class FeMoReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FeMoReport",
            display_name="FeMo Report",
            category=inputs.CATEGORY,
            description="What the cache did in the model's last run: as text, as a chart and as JSON. A run through "
                        "the API has it in its history.",
            inputs=[
                io.Model.Input("model", tooltip="The model as it comes from the cache node."),
                io.AnyType.Input(
                    "after", tooltip="What the sampler gives (its latent, or the decoded image), so that the report is "
                                     "made after the run."),
                io.Boolean.Input("save_json", default=False, tooltip="Also write the JSON into the output folder."),
                io.String.Input("filename_prefix", default="femo_report", tooltip="Of the file, if it is written."),
            ],
            outputs=[
                io.String.Output(display_name="text", tooltip="What was full, forecast and saved, line by line."),
                io.Image.Output(display_name="chart", tooltip="The steps, the forecast errors and β as a picture."),
                io.String.Output(display_name="json", tooltip="All of it, for other programs."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model, after, save_json, filename_prefix) -> io.NodeOutput:
        report = last_report(model)
        if report is None:  # the picture is done: a report that is missing must not cost it
            report = RunReport(reason=NONE_YET)
        lines, content = lines_of(report), json.dumps(report.to_dict(), indent=2)
        if save_json:
            folder, name, number, *_ = folder_paths.get_save_image_path(
                filename_prefix, folder_paths.get_output_directory())
            write_new(Path(folder), name, number, content)
        text = "\n".join(lines)
        return io.NodeOutput(text, chart(report, lines[:2]), content,
                             ui={"text": (text,), "femo_report": (report.to_dict(),)})


def write_new(folder: Path, name: str, number: int, content: str) -> Path:
    """Under the first free number from this one on, and whole from the start: several servers may share the folder."""
    while True:
        path = folder / f"{name}_{number:05}_.json"
        try:
            path.touch(exist_ok=False)  # from here on it is ours
            break
        except FileExistsError:
            number += 1
    write_whole(path, content)
    return path


def lines_of(report: RunReport) -> list[str]:
    settings = ", ".join(f"{key} {value}" for key, value in report.settings.items())
    lines = [report.summary(), settings]
    if report.time_speedup:
        lines.append(f"about {report.time_speedup:.2f}x faster than its full steps alone, by this run's own times")
    if report.errors:
        lines.append(f"forecast error at full steps: {_last_and_most(report.errors)}")
    if report.expected_errors:
        lines.append(f"as expected: {_last_and_most(report.expected_errors)}")
    return [*lines, *(f"note: {warning}" for warning in report.warnings)]


def _last_and_most(errors: Sequence[dict[str, Any]]) -> str:
    return f"{errors[-1]['error']:.2%} at the last, {max(row['error'] for row in errors):.2%} at most"
