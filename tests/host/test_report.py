"""FeMo Report and Image Fidelity, and what a run's messages say while it goes on."""

from __future__ import annotations

import dataclasses
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from comfy_host import PACK, Breaks, accelerated, attach_module, comfy, femo_core
from small_flux import sample

folder_paths = sys.modules["folder_paths"]
report_node = sys.modules[f"{PACK}.nodes.report"]
fidelity_node = sys.modules[f"{PACK}.nodes.image_fidelity"]
reporting = sys.modules[f"{PACK}.nodes.run.reporting"]
measurements = sys.modules[f"{PACK}.femo_core.session.measurements"]
chart_module = sys.modules[f"{PACK}.nodes.chart"]
ADAPTED = femo_core.FeMo(1, gamma=0.01)


def report_of(model, save_json=False, prefix="femo_report"):
    return report_node.FeMoReport.execute(model, after=None, save_json=save_json, filename_prefix=prefix)


@pytest.fixture
def clock(flux, monkeypatch):
    """What the session's times are read from: a run of the network takes a second, all else next to nothing."""
    now = [0.0]

    def perf_counter():
        now[0] += 0.01
        return now[0]

    monkeypatch.setattr(measurements, "time", SimpleNamespace(perf_counter=perf_counter))
    block = flux.model.diffusion_model.single_blocks[0].linear1
    handle = block.register_forward_hook(lambda *_: now.__setitem__(0, now[0] + 1))
    yield
    handle.remove()


def test_the_last_run_as_text_chart_and_json(flux, clock):
    model = accelerated(flux, ADAPTED)
    sample(model, cfg=2.0)
    out = report_of(model.clone())  # a node after the cache node may clone it
    text, picture, content = out.result
    assert text.splitlines()[0].startswith("6 full and 6 forecast of 12 steps")
    assert "forecast error at full steps" in text
    report = json.loads(content)
    assert report["full_steps"] == [0, 1, 2, 5, 8, 11]
    assert [row["step"] for row in report["errors"] if row["stream"] == 0] == [2, 5, 8, 11]
    assert all(0 < row["error"] < 1 for row in report["errors"])
    assert {row["step"] for row in report["betas"]} == {5, 8}  # β adapts from the second slope on
    assert report["seconds_full_step"] > 1 > report["seconds_predicted_step"] > 0
    assert report["time_speedup"] > 1.9
    assert picture.shape == (1, 400, 960, 3)
    assert 0 <= picture.min() < picture.max() <= 1
    assert json.loads(json.dumps(out.ui)) == {"text": [text], "femo_report": [report]}


def test_the_chart_shows_full_and_forecast_steps(flux):
    model = accelerated(flux)
    sample(model)
    picture = (255 * report_of(model).result[1][0]).round().to(torch.uint8)
    y = sum(chart_module.STRIP) // 2
    step = (chart_module.RIGHT - chart_module.LEFT) / 12
    colours = [tuple(picture[y, int(chart_module.LEFT + (i + 0.5) * step)].tolist()) for i in range(12)]
    expected = [chart_module.FULL if i in (0, 1, 2, 5, 8, 11) else chart_module.PREDICTED for i in range(12)]
    assert colours == expected


def test_errors_that_a_calibration_expects_stand_beside_those_measured(flux):
    model = accelerated(flux)
    sample(model)
    report = attach_module.last_report(model)
    expected = dataclasses.replace(report, expected_errors=({"step": 5, "error": 1e-2}, {"step": 8, "error": 5e-2}))
    assert "as expected: 5.00% at the last, 5.00% at most" in report_node.lines_of(expected)
    assert not [line for line in report_node.lines_of(report) if "as expected" in line]
    pictures = [(255 * chart_module.chart(one, [])[0]).round().to(torch.uint8) for one in (report, expected)]
    x = int(chart_module.LEFT + 5.9 * (chart_module.RIGHT - chart_module.LEFT) / 12)
    y = sum(chart_module.ERRORS) // 2  # 1 % is halfway on a scale of four decades
    assert tuple(pictures[1][y, x].tolist()) == chart_module.EXPECTED != tuple(pictures[0][y, x].tolist())


def test_the_json_is_written_when_asked_for(flux, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    model = accelerated(flux)
    sample(model)
    report_of(model)
    assert not list(tmp_path.iterdir())
    content = report_of(model, save_json=True, prefix="runs/mine").result[2]
    report_of(model, save_json=True, prefix="runs/mine")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["mine_00001_.json", "mine_00002_.json"]
    assert (tmp_path / "runs" / "mine_00001_.json").read_text() == content


def test_many_who_write_at_once_get_a_file_each_and_whole(tmp_path):
    """As several servers with one output folder do, which all count the same files."""
    content = json.dumps({"numbers": [*range(1000)]})
    with ThreadPoolExecutor(8) as pool:
        paths = [*pool.map(lambda _: report_node.write_new(tmp_path, "femo", 1, content), range(40))]
    assert sorted(path.name for path in paths) == [f"femo_{number:05}_.json" for number in range(1, 41)]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert {path.read_text() for path in paths} == {content}


def test_without_a_cache_or_a_run_the_report_says_what_to_do(flux):
    text, _, content = report_of(flux).result
    assert "there is no cache on this model, or it is switched off" in text
    assert json.loads(content)["total_steps"] == 0
    assert "connect the latent or image" in report_of(accelerated(flux)).result[0]


def test_errors_are_those_of_the_forecasts(flux, monkeypatch):
    """Measured against a forecast made anew from what the session had recorded before."""
    measured = []
    original = femo_core.ForecastSession._measure

    def spy(session, stream, site, feature):
        before = len(session._measurements._errors)
        original(session, stream, site, feature)
        if len(session._measurements._errors) > before:
            forecast = session.forecast([stream], site)
            measured.append(((forecast - feature).norm() / feature.norm()).item())

    monkeypatch.setattr(femo_core.ForecastSession, "_measure", spy)
    model = accelerated(flux)
    sample(model)
    errors = [row["error"] for row in attach_module.last_report(model).errors]
    assert errors == pytest.approx(measured, rel=1e-4)


# Messages

class Server:
    """What PromptServer.instance is to a Channel."""

    last_prompt_id, client_id = "prompt", "client"

    def __init__(self):
        self.sent = []

    def send_sync(self, event, data, client):
        assert client == "client"
        self.sent.append((event, json.loads(json.dumps(data))))


@pytest.fixture
def server(monkeypatch):
    server = Server()
    monkeypatch.setattr(reporting, "PAUSE", 0.0)
    module = type(sys)("server")
    module.PromptServer = type("PromptServer", (), {"instance": server})
    monkeypatch.setitem(sys.modules, "server", module)
    return server


def test_messages_while_a_run_goes_on(flux, server):
    sample(accelerated(flux, ADAPTED))
    *progress, (last, done) = server.sent
    assert last == "femo.report"
    assert [event for event, _ in progress] == ["femo.progress"] * 12
    seen = [data["report"] for _, data in progress]
    assert [len(r["full_steps"]) + len(r["predicted_steps"]) for r in seen] == list(range(12))
    assert all(r["total_steps"] == 12 for r in seen)
    assert seen[-1]["full_steps"] == [0, 1, 2, 5, 8]
    assert [row["step"] for row in seen[-1]["errors"]] == [2, 5, 8]
    assert done["report"]["full_steps"] == [0, 1, 2, 5, 8, 11]
    assert (done["run"], done["stopped"]) == (1, False)


def test_messages_tell_runs_of_one_prompt_apart(flux, server):
    model = accelerated(flux)
    for prompt in ("one", "one", "two"):
        server.last_prompt_id = prompt
        sample(model, steps=4)
    done = [data for event, data in server.sent if event == "femo.report"]
    assert [(data["prompt_id"], data["run"]) for data in done] == [("one", 1), ("one", 2), ("two", 1)]


def test_a_run_that_was_stopped_is_said(flux, server):
    part = flux.model.diffusion_model.single_blocks[0].linear1
    with Breaks(part, comfy.model_management.InterruptProcessingException(), 4), pytest.raises(
            comfy.model_management.InterruptProcessingException):
        sample(accelerated(flux))
    event, data = server.sent[-1]
    assert (event, data["stopped"]) == ("femo.report", True)
    assert data["report"]["full_steps"] == [0, 1, 2]


def test_a_run_does_not_fail_because_nobody_can_be_told_of_it(flux, server, monkeypatch, caplog):
    def closed(*_):
        raise RuntimeError("Event loop is closed")

    monkeypatch.setattr(server, "send_sync", closed)
    assert torch.equal(sample(accelerated(flux)), sample(accelerated(flux)))
    assert len([r for r in caplog.records if "could not be sent" in r.message]) == 2
    part = flux.model.diffusion_model.single_blocks[0].linear1
    with Breaks(part, comfy.model_management.InterruptProcessingException(), 4), pytest.raises(
            comfy.model_management.InterruptProcessingException):
        sample(accelerated(flux))


def test_what_a_node_says_after_a_run_names_the_node_and_the_prompt(server, monkeypatch, caplog):
    reporting.say("learned", "3")
    assert server.sent == [("femo.said", {"node_id": "3", "prompt_id": "prompt", "text": "learned"})]
    monkeypatch.setattr(server, "client_id", None)  # a program's
    reporting.say("learned", "3")
    assert len(server.sent) == 1
    monkeypatch.undo()
    reporting.say("learned", "3")  # without a server
    assert not caplog.records


# Image Fidelity

def compare(image, reference, amplify=4.0):
    return fidelity_node.ImageFidelity.execute(image, reference, amplify)


@pytest.fixture
def image():
    return torch.rand(2, 24, 32, 3, generator=torch.Generator().manual_seed(0))


def test_the_figures_of_plain_grey_are_known_by_formula(image):
    one, other = torch.full_like(image, 0.6), torch.full_like(image, 0.5)
    psnr, ssim, difference, text = compare(one, other).result
    assert psnr == pytest.approx(20.0, abs=1e-3)  # 20 log10(1 / 0.1)
    assert ssim == pytest.approx((2 * 0.6 * 0.5 + 1e-4) / (0.6**2 + 0.5**2 + 1e-4), abs=1e-4)
    torch.testing.assert_close(difference, torch.full_like(image, 0.4))
    assert text.splitlines()[1] == "image 2: PSNR 20.00 dB, SSIM 0.9836"


def test_the_more_noise_the_worse_the_figures(image):
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    figures = [compare(image + strength * noise, image).result[:2] for strength in (0.01, 0.05, 0.2)]
    assert figures == sorted(figures, reverse=True)


def test_an_equal_image_does_not_hide_another(image):
    """One PSNR for all pixels, not a mean with 1000 in it."""
    other = image.clone()
    other[1] = (other[1] - 0.5).abs()
    alone = compare(image[1:], other[1:]).result[0]
    assert compare(image, other).result[0] == pytest.approx(alone + 3.01, abs=0.01)  # half the squared error


def test_equal_images(image):
    psnr, ssim, difference, _ = compare(image, image.clone()).result
    assert (psnr, ssim, difference.max().item()) == (1000.0, 1.0, 0.0)


@pytest.mark.parametrize(("reference", "words"), [
    (torch.zeros(1, 24, 32, 3), "got 2 of 32 × 24 and 1 of 32 × 24"),
    (torch.zeros(2, 32, 24, 3), "Scale or crop"),
])
def test_images_that_can_not_be_compared(image, reference, words):
    with pytest.raises(ValueError, match=words):
        compare(image, reference)
    with pytest.raises(ValueError, match="11 pixels or more"):
        compare(image[:, :8], image[:, :8])
