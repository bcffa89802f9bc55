"""The runs of `make real`: each method on each prompt, by a server's API, and what came of it, kept as it comes."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import websocket
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from benchmarks.engines.comfy_server import Client
from benchmarks.real import real_metrics, real_page
from benchmarks.real.real_inputs import InputError
from benchmarks.real.real_workflow import PICTURE, Info, Method, Sampling, with_method

RUN_SECONDS = 7200  # without a word from the server
SHEETS = 8  # prompts whose pictures are kept side by side
# What a server that is not there any more comes to.
GONE = (requests.RequestException, ConnectionError, TimeoutError, websocket.WebSocketException)


class TimedClient(Client):
    """Notes when each message came."""

    def _messages(self, connection: Any, prompt_id: str) -> Iterator[dict[str, Any]]:
        for message in super()._messages(connection, prompt_id):
            yield {**message, "at": time.perf_counter()}

    def interrupt(self) -> None:
        with suppress(requests.RequestException):
            requests.post(f"http{self._scheme}://{self.address}/interrupt", timeout=10)


def connect(url: str) -> TimedClient:
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"COMFYUI must be an address such as http://127.0.0.1:8188; got {url!r}")
    client = TimedClient((parts.netloc + parts.path).rstrip("/"), secure=parts.scheme == "https")
    try:
        client.get("/system_stats").json()["system"]
    except (requests.RequestException, KeyError, TypeError) as error:
        raise InputError(f"no ComfyUI answers at {url}: start it, or name its address in COMFYUI "
                         f"({type(error).__name__})") from None
    return client


@dataclass
class Measurement:
    """another: a prompt, or a class, to load the models with and for FeMo Auto to learn from."""

    client: TimedClient
    info: Info
    sampling: Sampling
    methods: list[Method]
    prompts: list[str]
    seed: int
    steps: int
    another: str
    out: Path

    def __post_init__(self) -> None:
        self.further = real_metrics.installed()
        self.records = read_records(self.out / "runs.jsonl")
        known = self.out / "learning.json"
        self.learning: dict[str, Any] = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}

    @property
    def left(self) -> list[tuple[int, Method]]:
        done = {(record["prompt"], record["method"]) for record in self.records}
        return [(index, method) for index in range(len(self.prompts)) for method in self.methods
                if (index, method.name) not in done]

    def run(self) -> None:
        """All that is not there yet. Raises InputError where the server fails."""
        left = self.left
        if not left:
            return
        # The models are loaded, and what is found out once is found out.
        total = self.sampling.total_steps
        warm_up = Method("warm-up", fewer=max(1.0, (self.steps or total) / 2))
        auto = next((method for _, method in left if method.node == "FeMoAuto"), None)
        try:
            self.sample(warm_up, self.another, self.seed - 1)
            if auto and not self.learning:
                self.learning = self.sample(auto, self.another, self.seed - 1)[0]
                (self.out / "learning.json").write_text(json.dumps(self.learning), encoding="utf-8")
        except RuntimeError as error:
            raise InputError(f"the first run, of {self.another!r} (--another chooses what), failed: {error}") from None
        every = len(self.prompts) * len(self.methods)
        with tqdm(total=every, initial=every - len(left), unit="run") as bar:
            for index, method in left:
                bar.set_description(f"{index + 1}: {method.name}"[:40].ljust(40))
                self.keep(self.measure(index, method))
                bar.update()
                if method is self.methods[-1]:
                    self.sheet(index)

    def measure(self, index: int, method: Method) -> dict[str, Any]:
        record: dict[str, Any] = {"prompt": index, "method": method.name, "seed": self.seed + index}
        try:
            found, pictures = self.sample(method, self.prompts[index], self.seed + index)
            if method.node == "FeMoAuto" and found.get("runs") == found.get("runs_full"):
                # Still learning: that it does once for a model, so that this run is not what is measured.
                found, pictures = self.sample(method, self.prompts[index], self.seed + index, again=True)
            folder, full = self.out / "full" / str(index), pictures
            record |= {**found, "pictures": len(pictures)}
            if method.name == "full":
                save(pictures, folder)
            else:
                full = read_pictures(folder)
                record |= real_metrics.distances(pictures, full)
            for name, metric in self.further.items():
                value = metric(pictures, full, self.prompts[index])
                record |= {} if math.isnan(value) else {name: value}
            if index < SHEETS:
                save([real_metrics.middle(pictures)], self.out / "pictures" / str(index), file_name(method.name))
        except InputError:
            raise
        except (RuntimeError, ValueError) as error:
            if method.name == "full":
                raise InputError(f"the full run failed, with which all others are compared: {error}") from None
            record["failed"] = str(error)[:300]
        return record

    def sample(self, method: Method, text: str, seed: int, again: bool = False) -> tuple[dict[str, Any], list[Tensor]]:
        """What a run was like, and its pictures. Raises RuntimeError where the server could not do it.

        again: not what the server has in its cache of the same.
        """
        prompt = with_method(self.sampling, method, text, seed, self.info, self.steps, "again" if again else "cache")
        messages = self.client.run(prompt, RUN_SECONDS)
        if any(message["type"] == "execution_interrupted" for message in messages):
            raise InputError("the run was interrupted on the server: run this again, and it goes on there")
        reports = [message["data"]["report"] for message in messages if message["type"] == "femo.report"]
        found: dict[str, Any] = {"seconds": sampler_seconds(messages, self.sampling.samplers)}
        if self.sampling.steps:
            node, name = self.sampling.steps[0]
            found["steps"] = prompt[node]["inputs"][name]
        if reports:
            runs, saved = (sum(report[name] for report in reports) for name in ("network_runs", "network_runs_saved"))
            found |= {"runs": runs, "runs_full": runs + saved, "saved": saved,
                      "sites": sorted({report["settings"].get("site", "") for report in reports} - {""}),
                      "said": [*dict.fromkeys(text for report in reports for text in (
                          report["reason"], *report["warnings"]) if text)]}
        return found, self.pictures(messages)

    def pictures(self, messages: list[dict[str, Any]]) -> list[Tensor]:
        places = [place for message in messages if message["type"] == "executed" and message["data"]["node"] == PICTURE
                  for place in message["data"]["output"]["images"]]
        if not places:
            raise RuntimeError("the server made no picture")
        return [real_metrics.pixels(Image.open(io.BytesIO(self.client.get("/view", **place).content)))
                for place in places]

    def keep(self, record: dict[str, Any]) -> None:
        self.records.append(record)
        with (self.out / "runs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def sheet(self, index: int) -> None:
        folder = self.out / "pictures" / str(index)
        found = [(method.name, path) for method in self.methods
                 if (path := folder / f"{file_name(method.name)}.png").exists()]
        if found:
            real_page.sheet(found, self.out / f"prompt_{index}.jpg")


def sampler_seconds(messages: list[dict[str, Any]], samplers: tuple[str, ...]) -> float | None:
    """From the message that a sampler executes to the next node's; None: the server had its result in its cache."""
    told = [message for message in messages if message["type"] == "executing"]
    found = [after["at"] - now["at"] for now, after in pairwise(told)
             if now["data"]["node"] in samplers and after["data"]["node"] != now["data"]["node"]]
    return sum(found) or None


def file_name(name: str) -> str:
    return re.sub(r"\W+", "_", name.replace("×", "x")).strip("_").lower()


def save(pictures: list[Tensor], folder: Path, name: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        real_metrics.image_of(picture).save(folder / f"{name or f'{number:04}'}.png")


def read_pictures(folder: Path) -> list[Tensor]:
    return [real_metrics.pixels(Image.open(path)) for path in sorted(folder.glob("*.png"))]


def read_records(path: Path) -> list[dict[str, Any]]:
    """A last line that was cut off in mid-write is left out, and its run made again."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    path.write_text("".join(json.dumps(record) + "\n" for record in found), encoding="utf-8")
    return found


def same_as_before(out: Path, sampling: Sampling, prompts: list[str], seed: int, steps: int) -> None:
    """Raises InputError where the folder holds what was measured otherwise."""
    def digest(value: object) -> str:
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]

    now = {"workflow": digest(sampling.prompt), "prompts": digest(prompts), "seed": seed, "steps": steps}
    path = out / "settings.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else now
    # More prompts of the same file go on: those that were there come first.
    if different := [name for name in now if now[name] != before.get(name)]:
        raise InputError(f"{out} holds runs with another {' and '.join(different)}: choose another folder by OUT=, or "
                         "delete this one")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(now), encoding="utf-8")
