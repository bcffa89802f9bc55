"""Two servers at once that share the pack's folder, the models, and the folders that they write to."""

from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch
from comfy_host import HOST
from hosts import server_environment, version
from test_auto_server import prompt_of as auto_prompt_of

from benchmarks.engines.comfy_server import comfy_server, workflow

RUNS = 3  # of each server
CALIBRATIONS, PROFILES = "user/default/femo_calibrations", "user/default/femo_profiles"
STEPS = 12


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Two, of which the second has links to the first one's models, output and what is learned in its base folder."""
    first, second = (tmp_path_factory.mktemp("comfy") / "base" for _ in range(2))
    with ExitStack() as stack:
        clients = [stack.enter_context(comfy_server(HOST, first, "femo", server_environment(HOST)))]
        (first / "output").mkdir(exist_ok=True)
        second.mkdir()
        (second / "output").symlink_to(first / "output", target_is_directory=True)
        for learned in (CALIBRATIONS, PROFILES):
            (first / learned).mkdir(parents=True, exist_ok=True)
            (second / learned).parent.mkdir(parents=True, exist_ok=True)
            (second / learned).symlink_to(first / learned, target_is_directory=True)
        clients.append(stack.enter_context(comfy_server(
            HOST, second, "femo", server_environment(HOST), models=first / "models")))
        yield clients, first / "output"


def prompt_of(server: int, seed: int):
    """Saves its report under names that both servers count up; its latents not: ComfyUI's own node may overwrite the
    other server's."""
    prompt = copy.deepcopy(workflow("flux_femo.json", version(HOST)))
    prompt["2"]["inputs"].update(interval=3, gamma=0.01)
    prompt["7"]["inputs"].update(seed=seed, steps=STEPS)
    prompt["30"] = {"class_type": "FeMoReport", "inputs": {
        "model": ["2", 0], "after": ["7", 0], "save_json": True, "filename_prefix": "shared/femo"}}
    prompt["8"]["inputs"]["filename_prefix"] = f"latents of {server}/femo"
    return prompt


def test_they_give_what_one_gives_and_tear_no_file(servers):
    clients, output = servers

    def run(server: int) -> list[tuple[torch.Tensor, dict]]:
        found = []
        for seed in range(RUNS):
            messages = clients[server].run(prompt_of(server, seed))
            found.append((clients[server].latent(messages, "8"), clients[server].report(messages)))
        return found

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, range(2))
    for (latent, report), (other_latent, other_report) in zip(first, second, strict=True):
        assert torch.equal(latent, other_latent)
        assert report["full_steps"] == other_report["full_steps"]
        assert report["betas"] == other_report["betas"]
    alone = clients[0].latent(clients[0].run(prompt_of(0, RUNS)), "8")
    assert not torch.equal(alone, first[0][0])
    reports = [json.loads(path.read_text()) for path in sorted((output / "shared").iterdir())]
    assert len(reports) == 2 * RUNS + 1
    assert {len(report["full_steps"]) + len(report["predicted_steps"]) for report in reports} == {STEPS}


def test_they_share_calibrations(servers):
    """Both save under one name at the same time, and go by it afterwards."""
    clients, _ = servers

    def calibrate(server: int) -> None:
        for seed in range(RUNS):
            prompt = prompt_of(server, seed)
            prompt["2"] = {"class_type": "FeMoCalibrate", "inputs": {
                "model": prompt["2"]["inputs"]["model"], "enabled": True, "name": "shared", "average": True}}
            del prompt["30"]
            clients[server].run(prompt)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(calibrate, range(2)))
    reports = []
    for server in range(2):
        prompt = prompt_of(server, RUNS + 1)
        prompt["2"]["inputs"].update(gamma=0.0, calibration="shared", budget=5)
        reports.append(clients[server].report(clients[server].run(prompt)))
    assert reports[0]["full_steps"] == reports[1]["full_steps"]
    assert len(reports[0]["full_steps"]) == 5
    assert [report["settings"]["calibration"] for report in reports] == ["shared", "shared"]
    assert [report["warnings"] for report in reports] == [[], []]


def test_they_learn_at_once_and_each_knows_what_another_learned(servers):
    """As after a restart: the second has not learned what the file says."""
    clients, output = servers
    folder = output.parent / PROFILES

    def report(client, **settings):
        return client.report(client.run(auto_prompt_of({"quality": "fast"}, steps=STEPS, **settings)))

    assert report(clients[0])["settings"]["learned"] == "learning"
    known = report(clients[1], seed=2)
    assert known["settings"]["learned"] == "yes"
    assert known["network_runs_saved"] > 0
    for path in folder.iterdir():
        path.unlink()
    with ThreadPoolExecutor(2) as pool:
        first = list(pool.map(lambda client: report(client, seed=4), clients))
    assert {found["network_runs"] for found in first} <= {STEPS, *range(STEPS)}
    known = [report(client, seed=9) for client in clients]
    assert [found["settings"]["learned"] for found in known] == ["yes", "yes"]
    assert known[0]["full_steps"] == known[1]["full_steps"]
    (path,) = folder.iterdir()
    assert len(json.loads(path.read_text())["recordings"]) == 1
