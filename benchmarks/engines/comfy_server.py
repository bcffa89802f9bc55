"""A real ComfyUI server on the CPU, with this pack and the tiny Flux, and a client for its HTTP and websocket API."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from safetensors.torch import load
from torch import Tensor

if TYPE_CHECKING:  # else where it is used: what needs no server runs without it
    import websocket

ROOT = Path(__file__).resolve().parents[2]
STARTUP_SECONDS = 180


class Client:
    """Of the server at an address, "127.0.0.1:8188"; secure: by HTTPS. log: where it writes it, if that is known."""

    def __init__(self, address: str, log: Path = Path(os.devnull), secure: bool = False):
        self.address, self.log = address, log
        self._scheme = "s" if secure else ""
        self.process: subprocess.Popen[bytes] | None = None  # where the server is ours
        self.id = uuid.uuid4().hex

    def get(self, path: str, **parameters: Any) -> requests.Response:
        answer = requests.get(f"http{self._scheme}://{self.address}{path}", params=parameters, timeout=60)
        answer.raise_for_status()
        return answer

    def post(self, prompt: dict[str, Any]) -> requests.Response:
        return requests.post(f"http{self._scheme}://{self.address}/prompt",
                             json={"prompt": prompt, "client_id": self.id}, timeout=60)

    def run(self, prompt: dict[str, Any], seconds: float = 300) -> list[dict[str, Any]]:
        """Queues an API-format workflow, follows the websocket to its end, and returns all messages."""
        import websocket

        connection = websocket.create_connection(
            f"ws{self._scheme}://{self.address}/ws?clientId={self.id}", timeout=seconds)
        try:
            answer = self.post(prompt)
            if not answer.ok:
                raise RuntimeError(f"the server refused the workflow: {answer.text}")
            return list(self._messages(connection, answer.json()["prompt_id"]))
        finally:
            connection.close()

    def _messages(self, connection: websocket.WebSocket, prompt_id: str) -> Iterator[dict[str, Any]]:
        while True:
            text = connection.recv()
            if not isinstance(text, str):
                continue  # a preview picture
            message = json.loads(text)
            yield message
            data = message["data"]
            if data.get("prompt_id") != prompt_id:
                continue
            if message["type"] == "execution_error":
                raise RuntimeError(data["exception_message"])
            if message["type"] == "execution_interrupted":
                return
            if message["type"] == "executing" and data["node"] is None:
                return

    def latent(self, messages: list[dict[str, Any]], node: str) -> Tensor:
        """What a SaveLatent node saved, (B, C, H, W)."""
        output = next(m["data"]["output"] for m in messages if m["type"] == "executed" and m["data"]["node"] == node)
        place = output["latents"][0]
        return load(self.get("/view", **place).content)["latent_tensor"]

    def report(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        return next(m["data"]["report"] for m in messages if m["type"] == "femo.report")


@contextmanager
def comfy_server(host: Path, folder: Path, pack: str = "femo",
                 environment: dict[str, str] | None = None, source: Path = ROOT,
                 models: Path | None = None) -> Iterator[Client]:
    """Starts `host`'s main.py with `folder` as its base directory; the pack, `source`, is linked in as `pack`.

    A folder that a server ran in before is taken as it is.
    environment: added to this process's own. models: another server's model folder, which this one then shares.
    Raises RuntimeError, with the end of the log, if it does not come up.
    """
    if not (folder / "custom_nodes").is_dir():
        _furnish(folder, pack, source, models)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "server.log"
    command = [
        sys.executable, str(host / "main.py"), "--cpu", "--listen", "127.0.0.1", "--port", str(port),
        "--base-directory", str(folder), "--disable-all-custom-nodes", "--whitelist-custom-nodes", pack,
        "femo_test_nodes", "--disable-api-nodes", "--use-pytorch-cross-attention",
        "--database-url", f"sqlite:///{folder / 'db.sqlite'}",
    ]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=folder, env={**os.environ, **(environment or {})})
    client = Client(f"127.0.0.1:{port}", log)
    client.process = process
    try:
        _wait(client, process)
        yield client
    finally:
        process.terminate()
        process.wait(30)


def _furnish(folder: Path, pack: str, source: Path, models: Path | None) -> None:
    custom = folder / "custom_nodes"
    custom.mkdir(parents=True)
    (custom / pack).symlink_to(source, target_is_directory=True)
    (custom / "femo_test_nodes").symlink_to(ROOT / "tests" / "host" / "femo_test_nodes", target_is_directory=True)
    if models:
        (folder / "models").symlink_to(models, target_is_directory=True)
    else:
        own = folder / "models" / "diffusion_models"
        own.mkdir(parents=True)
        (own / "tiny_flux.safetensors").symlink_to(ROOT / "benchmarks" / "checkpoints" / "tiny_flux.safetensors")


def _wait(client: Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            client.get("/system_stats")
            return
        except requests.ConnectionError:
            time.sleep(0.3)
    raise RuntimeError(f"ComfyUI did not start; the end of its log:\n{client.log.read_text()[-3000:]}")


def loads_small_fluxes(host_version: str) -> bool:
    """Whether the host's UNETLoader reads the number of heads off the weights; before 0.29 it takes FLUX.1's 24."""
    return tuple(int(part) for part in host_version.split(".")[:2]) >= (0, 29)


def workflow(name: str, host_version: str) -> dict[str, Any]:
    """An API-format workflow of this repo, with the test loader where the host's own can't load the tiny Flux."""
    prompt = json.loads((ROOT / "example_workflows" / "api" / name).read_text())
    if not loads_small_fluxes(host_version):
        for node in prompt.values():
            if node["class_type"] == "UNETLoader":
                node["class_type"] = "TinyFluxLoader"
    return prompt
