"""enable_auto in diffusers' own denoising loops: the first run teaches the model, later ones go by its profile."""

from __future__ import annotations

import copy
import inspect
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from small_pipelines import ALL, DIT, FLUX, QWEN, WAN, diffusers
from test_diffusers import attention_of_first_block, count_runs, hooks_on, loop

from femo_core import Profile, Recording
from femo_core.integrations.diffusers import disable_femo, enable_auto, enable_femo, last_report, learn_thoroughly
from femo_core.integrations.diffusers.schedulers import FORMS, levels_of

pytestmark = pytest.mark.filterwarnings("default")  # diffusers has its own

STEPS = 20
EULER = diffusers.FlowMatchEulerDiscreteScheduler


@pytest.fixture
def path(tmp_path):
    return tmp_path / "profiles" / "model.json"


def auto(pipeline, path, quality=2.0, **settings):
    enable_auto(pipeline.transformer, scheduler=pipeline.scheduler, profile=path, quality=quality, **settings)


def learned_from(path):
    return Profile.from_json(path.read_bytes())


def state(pipeline):
    return last_report(pipeline.transformer).settings["learned"]


def leftovers(pipeline):
    return hooks_on(pipeline.transformer) + [name for name in vars(pipeline.scheduler) if name == "step"]


@pytest.mark.parametrize("small", ALL, ids=lambda small: small.name)
def test_the_first_run_is_bit_equal_and_the_second_as_reported(small, path):
    """With guidance in one batch (DiT, SD3), in two calls (Flux, Qwen-Image, HunyuanVideo, Wan)."""
    pipeline = small.build()
    plain = small.run(pipeline, steps=STEPS)
    auto(pipeline, path)
    assert torch.equal(small.run(pipeline, steps=STEPS), plain)
    report = last_report(pipeline.transformer)
    assert (report.network_runs_saved, report.settings["learned"]) == (0, "learning")
    assert "teaches" in report.reason
    assert "step" not in vars(pipeline.scheduler)
    (recording,) = learned_from(path).recordings
    assert (recording.steps, recording.sampler) == (STEPS, type(pipeline.scheduler).__name__)
    ran = count_runs(attention_of_first_block(pipeline.transformer), lambda: small.run(pipeline, steps=STEPS))
    report = last_report(pipeline.transformer)
    assert (ran, report.settings["learned"], report.settings["profile"]) == (report.network_runs, "yes", path.name)
    assert (report.network_runs_saved > 0 and report.expected_errors) or "expected to do worse" in report.reason
    disable_femo(pipeline.transformer)
    assert leftovers(pipeline) == []
    assert torch.equal(small.run(pipeline, steps=STEPS), plain)


def test_what_was_learned_serves_other_runs_and_programs(path):
    auto(pipeline := FLUX.build(), path)
    FLUX.run(pipeline, steps=STEPS)
    before = path.read_bytes()
    one_prompt = {key: value[:1] for key, value in FLUX.arguments().items() if isinstance(value, torch.Tensor)}
    for settings in ({"steps": 12}, {"steps": 30}, {"seed": 4}, {"true_cfg_scale": 1.0}, {"height": 96}, one_prompt):
        auto(pipeline := FLUX.build(), path)
        FLUX.run(pipeline, **{"steps": STEPS, **settings})
        assert state(pipeline) == "yes", settings
        assert last_report(pipeline.transformer).network_runs_saved > 0
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    for scheduler in (diffusers.UniPCMultistepScheduler(**flow, flow_shift=3.0),
                      diffusers.DPMSolverMultistepScheduler(**flow, flow_shift=3.0)):
        pipeline.scheduler = scheduler
        auto(pipeline, path)
        latents = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
        loop(pipeline, latents, STEPS)
        assert state(pipeline) == "yes", scheduler
    pipeline.scheduler = EULER(shift=1.0)
    auto(pipeline, path)
    FLUX.run(pipeline, steps=STEPS)
    assert state(pipeline) == "yes"
    assert path.read_bytes() == before


def of_comfyui(sigmas, flow=True, turn=2.0):
    """A profile as ComfyUI writes it: features that turn by so much over the run."""
    angles = torch.linspace(0, turn, len(sigmas) - 1, dtype=torch.float64)
    matrix = (angles[:, None] - angles).cos().tolist()
    signals = [1 - sigma if flow else 1.0 for sigma in sigmas]
    return Profile("Flux, Flux, FLUX, 0123456789ab", (Recording(sigmas, signals, matrix),), (0.1,) * 16)


FALLING = tuple(1 - step / 24 for step in range(25))


def test_a_profile_of_comfyui_serves(path):
    path.parent.mkdir()
    path.write_text(of_comfyui(FALLING).to_json())
    auto(pipeline := FLUX.build(), path)
    FLUX.run(pipeline, steps=STEPS)
    assert state(pipeline) == "yes"
    # What it does not cover is learned in addition, and the rest of it stays.
    pipeline.scheduler = EULER(shift=3.0, stochastic_sampling=True)
    auto(pipeline, path)
    for expected in ("learning", "yes"):
        FLUX.run(pipeline, steps=STEPS)
        assert state(pipeline) == expected
    kept = learned_from(path)
    assert (kept.model, kept.signature) == ("Flux, Flux, FLUX, 0123456789ab", (0.1,) * 16)
    assert [one.stochastic for one in kept.recordings] == [False, True]


def test_one_of_another_kind_of_model_does_not_serve(path):
    """The levels alone would do."""
    path.parent.mkdir()
    path.write_text(of_comfyui(FALLING, flow=False).to_json())
    auto(pipeline := FLUX.build(), path)
    FLUX.run(pipeline, steps=STEPS)
    assert state(pipeline) == "learning"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2}', '{"version": 9}'])
def test_a_damaged_file_is_put_aside_with_one_warning_and_the_model_learned_anew(path, content, caplog):
    path.parent.mkdir()
    path.write_text(content)
    auto(pipeline := FLUX.build(), path)
    for expected in ("learning", "yes"):
        FLUX.run(pipeline, steps=STEPS)
        assert state(pipeline) == expected
    assert caplog.text.count("and the model is learned anew") == 1
    assert path.with_suffix(".damaged").read_text() == content
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.damaged", "model.json"]


def test_learn_off_reads_and_writes_nothing(path):
    for given in (path, None):
        auto(pipeline := FLUX.build(), given, "balanced", learn="off")
        FLUX.run(pipeline, steps=STEPS)
        assert (state(pipeline), len(last_report(pipeline.transformer).full_steps)) == ("off", STEPS // 2)
    assert not path.parent.exists()


def test_a_run_in_the_midst_is_learned_as_what_it_is(path):
    auto(pipeline := FLUX.build(), path)
    latents = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
    for begin, expected in ((8, "learning"), (8, "yes"), (0, "learning"), (0, "yes"), (8, "yes")):
        loop(pipeline, latents, STEPS, begin)
        report = last_report(pipeline.transformer)
        assert (report.settings["learned"], report.total_steps) == (expected, STEPS - begin)
    assert [one.steps for one in learned_from(path).recordings] == [STEPS - 8, STEPS]


def test_two_evaluations_a_step_teach_what_one_does(path):
    """Heun's: of two at a level the last counts."""
    pipeline = replace(FLUX, scheduler=lambda: diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0)).build()
    auto(pipeline, path)
    latents = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = loop(pipeline, latents, STEPS)
    assert state(pipeline) == "learning"
    loop(pipeline, latents, STEPS)
    assert (state(pipeline), last_report(pipeline.transformer).total_steps) == ("yes", STEPS)
    (heun,) = learned_from(path).recordings
    pipeline.scheduler = EULER(shift=3.0)
    auto(pipeline, other := path.with_name("euler.json"))
    assert not torch.equal(loop(pipeline, latents, STEPS), plain)
    (euler,) = learned_from(other).recordings
    torch.testing.assert_close(torch.tensor(heun.matrix), torch.tensor(euler.matrix), rtol=0.2, atol=0.02)


def test_two_transformers_that_share_a_run_have_a_profile_each(path):
    """Wan 2.2: `until` says where the other one goes on."""
    pipeline = WAN.build()
    pipeline.register_modules(transformer_2=WAN.build().transformer)
    pipeline.register_to_config(boundary_ratio=0.8)
    plain = WAN.run(pipeline, steps=STEPS)
    low = path.with_name("low.json")
    auto(pipeline, path, until=0.8)
    enable_auto(pipeline.transformer_2, scheduler=pipeline.scheduler, profile=low, quality=1.5)
    assert torch.equal(WAN.run(pipeline, steps=STEPS), plain)
    (high,), (rest,) = learned_from(path).recordings, learned_from(low).recordings
    assert high.steps + rest.steps == STEPS
    assert high.sigmas[-2] >= 0.8 > high.sigmas[-1] == rest.sigmas[0]
    WAN.run(pipeline, steps=STEPS)
    for transformer, recording in ((pipeline.transformer, high), (pipeline.transformer_2, rest)):
        report = last_report(transformer)
        assert (report.settings["learned"], report.total_steps) == ("yes", recording.steps)
        assert report.network_runs_saved > 0 or report.reason
    for transformer in (pipeline.transformer, pipeline.transformer_2):
        disable_femo(transformer)
    assert leftovers(pipeline) == []


def says_why_and_goes_by_a_rule(run, pipeline, path, words, states=("learning", "no")):
    """The first run is full, later ones are not."""
    for expected in states:
        run()
        report = last_report(pipeline.transformer)
        assert report.settings["learned"] == expected
        assert words in report.warnings[0]
    assert report.network_runs_saved > 0
    assert not path.exists()
    disable_femo(pipeline.transformer)
    assert leftovers(pipeline) == []


def test_without_until_it_says_that_another_transformer_goes_on(path):
    pipeline = WAN.build()
    pipeline.register_modules(transformer_2=WAN.build().transformer)
    pipeline.register_to_config(boundary_ratio=0.8)
    auto(pipeline, path)
    WAN.run(pipeline, steps=STEPS)
    WAN.run(pipeline, steps=STEPS)
    report = last_report(pipeline.transformer)
    assert "give enable_auto `until`" in report.warnings[0]
    assert report.settings["learned"] == "no"
    assert not path.exists()


def test_a_scheduler_that_is_not_known_says_why_and_a_rule_serves(path):
    class Own(EULER):
        """Derived from one that is known, which says nothing."""

    pipeline = replace(FLUX, scheduler=Own).build()
    auto(pipeline, path)
    says_why_and_goes_by_a_rule(lambda: FLUX.run(pipeline, steps=STEPS), pipeline, path,
                                "what Own makes of noise levels is not known", ("no", "no"))


def test_a_run_of_more_steps_than_can_be_learned_from_says_why(path):
    auto(pipeline := FLUX.build(), path)
    says_why_and_goes_by_a_rule(
        lambda: FLUX.run(pipeline, steps=101), pipeline, path, "too long to learn from", ("no",))


@pytest.mark.parametrize(("more", "words"), [
    ({"s_churn": 1.0}, "s_churn is 1.0"), ({"per_token_timesteps": torch.full((2, 16), 500.0)}, "of their own")])
def test_steps_that_a_scheduler_makes_otherwise_teach_nothing(path, more, words):
    """Asked for with each step, so that nobody knows beforehand."""
    auto(pipeline := FLUX.build(), path)
    scheduler = pipeline.scheduler
    latents = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))

    class Asks:
        """The scheduler, asked for more at each step."""

        def __getattr__(self, name):
            return getattr(scheduler, name)

        def step(self, *args, **kwargs):
            return scheduler.step(*args, **kwargs, **more)

    for expected in ("learning", "no"):
        loop(SimpleNamespace(transformer=pipeline.transformer, scheduler=Asks()), latents, STEPS)
        report = last_report(pipeline.transformer)
        assert report.settings["learned"] == expected
        assert words in report.warnings[0]
    assert "step" not in vars(scheduler)


def test_a_scheduler_that_is_not_the_pipelines_is_noticed(path):
    """DDIM counts no steps, so that this is seen by its never making one."""
    pipeline = DIT.build()
    enable_auto(pipeline.transformer, scheduler=(other := copy.deepcopy(pipeline.scheduler)), profile=path)
    other.set_timesteps(STEPS)
    for expected in ("learning", "no"):
        DIT.run(pipeline, steps=STEPS)
        other.set_timesteps(STEPS)
        assert state(pipeline) == expected
    assert "give enable_auto the one that the pipeline uses" in last_report(pipeline.transformer).warnings[0]


@pytest.mark.parametrize("how", ["stopped", "failed"])
def test_a_learning_run_that_does_not_come_to_its_end_leaves_no_profile(path, how):
    pipeline = FLUX.build()
    plain = FLUX.run(pipeline, steps=STEPS)
    auto(pipeline, path)

    def stop(_pipeline, step, *_):
        if step == 6:
            assert "step" in vars(pipeline.scheduler)
            assert inspect.signature(pipeline.scheduler.step) == inspect.signature(EULER(shift=3.0).step)
            if how == "failed":
                pipeline.transformer.pos_embed = None
                return {}
            raise KeyboardInterrupt
        return {}

    embedder = pipeline.transformer.pos_embed
    with pytest.raises(KeyboardInterrupt if how == "stopped" else TypeError):
        FLUX.run(pipeline, steps=STEPS, callback_on_step_end=stop)
    pipeline.transformer.pos_embed = embedder
    assert not path.parent.exists()
    assert (how == "failed") == ("step" not in vars(pipeline.scheduler))
    assert torch.equal(FLUX.run(pipeline, steps=STEPS), plain)
    assert (state(pipeline), len(learned_from(path).recordings)) == ("learning", 1)
    FLUX.run(pipeline, steps=STEPS)
    disable_femo(pipeline.transformer)
    assert leftovers(pipeline) == []


def test_disabled_in_the_midst_nothing_is_left(path):
    auto(pipeline := FLUX.build(), path)

    def disable(_pipeline, step, *_):
        if step == 6:
            disable_femo(pipeline.transformer)
            assert leftovers(pipeline) == []
        return {}

    plain = FLUX.run(FLUX.build(), steps=STEPS)
    assert torch.equal(FLUX.run(pipeline, steps=STEPS, callback_on_step_end=disable), plain)
    assert not path.exists()


def test_a_copy_of_the_scheduler_made_meanwhile_is_by_itself(path):
    auto(pipeline := FLUX.build(), path)
    copies = []

    def copies_it(_pipeline, step, *_):
        if step == 3:
            copies.append(copy.deepcopy(pipeline.scheduler))
            there = pipeline.scheduler.step_index
            zeros = torch.zeros(1, 16, 16)
            copies[0].step(zeros, copies[0].timesteps[there], zeros)
            assert (copies[0].step_index, pipeline.scheduler.step_index) == (there + 1, there)
        return {}

    FLUX.run(pipeline, steps=STEPS, callback_on_step_end=copies_it)
    assert (len(copies), state(pipeline), len(learned_from(path).recordings)) == (1, "learning", 1)


def test_what_another_tool_put_in_the_place_of_step_stays(path):
    pipeline = FLUX.build()
    steps, own = [], pipeline.scheduler.step
    theirs = pipeline.scheduler.step = lambda *args, **kwargs: (steps.append(1), own(*args, **kwargs))[1]
    auto(pipeline, path)
    FLUX.run(pipeline, steps=STEPS)
    assert (len(steps), state(pipeline)) == (STEPS, "learning")
    assert vars(pipeline.scheduler)["step"] is theirs
    assert path.exists()


def test_a_short_run_is_full_and_says_so(path, caplog):
    auto(pipeline := FLUX.build(), path)
    FLUX.run(pipeline, steps=4)
    assert last_report(pipeline.transformer).reason == "a run of 4 steps has none to spare"
    assert "none to spare" in caplog.text
    assert not path.exists()


def test_beside_a_cache_of_diffusers_nothing_is_learned(path, caplog):
    pipeline = FLUX.build()
    pipeline.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=0.0))
    auto(pipeline, path)
    FLUX.run(pipeline, steps=STEPS)
    assert "call its disable_cache()" in last_report(pipeline.transformer).reason
    assert not path.exists()


def test_the_profile_of_another_transformer_is_refused(path):
    auto(pipeline := FLUX.build(), path)
    FLUX.run(pipeline, steps=STEPS)
    other = QWEN.build()
    with pytest.raises(ValueError, match=r"profile must be a file of this model's own; .*model.json is of another one"):
        auto(other, path)
    # … and where it came there afterwards it is left alone.
    kept = path.read_bytes()
    path.unlink()
    auto(other, path)
    path.write_bytes(kept)
    QWEN.run(other, steps=STEPS)
    assert "is of another one" in last_report(other.transformer).warnings[0]
    assert last_report(other.transformer).network_runs_saved > 0
    assert path.read_bytes() == kept


def test_a_guard_narrows_the_gaps_where_the_profile_is_far_off(path):
    """As if next to nothing ever changed."""
    path.parent.mkdir()
    path.write_text(of_comfyui(FALLING, turn=0.2).to_json())
    auto(pipeline := FLUX.build(), path, quality=4.0)
    FLUX.run(pipeline, steps=STEPS)
    report = last_report(pipeline.transformer)
    assert "times as far off as this model's profile expects" in report.warnings[0]
    assert len(report.full_steps) > STEPS // 4


@pytest.mark.parametrize(("settings", "words"), [
    ({"quality": "best"}, "quality must be one of high, balanced, fast or a speed-up; got 'best'"),
    ({"quality": 9.0}, "quality must be one of high, balanced, fast or a speed-up: speedup must be 1.2 … 8; got 9.0"),
    ({"learn": "thorough"}, "learn must be one of once, off; got 'thorough'"),
    ({"until": -1.0}, "until must be 0 or more"),
    ({"profile": None}, "profile must be the path of a JSON file"),
    ({"profile": "."}, "profile must be the path of a file; . is a folder"),
    ({"site": "head"}, "site must be one of"),
    ({"scheduler": None}, "scheduler must be the pipeline's")])
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        enable_auto(torch.nn.Identity(), **{"scheduler": EULER(), "profile": "x.json", **settings})


def test_it_takes_the_place_of_enable_femo_and_the_other_way_round(path):
    from femo_core import Schedule, TaylorSeer

    pipeline = FLUX.build()
    for _ in range(2):
        enable_femo(pipeline.transformer, Schedule(3), TaylorSeer(1), scheduler=pipeline.scheduler)
        auto(pipeline, path)
    FLUX.run(pipeline, steps=STEPS)
    assert state(pipeline) == "learning"
    enable_femo(pipeline.transformer, Schedule(3), TaylorSeer(1), scheduler=pipeline.scheduler)
    FLUX.run(pipeline, steps=STEPS)
    assert "learned" not in last_report(pipeline.transformer).settings


# Noise levels

PREDICTED = {"epsilon": lambda x0, noise, a, s: noise, "sample": lambda x0, noise, a, s: x0,
             "v_prediction": lambda x0, noise, a, s: a * noise - s * x0,
             "flow_prediction": lambda x0, noise, a, s: noise - x0}


FLOW = [name for name in FORMS if name.startswith("FlowMatch")]
BOTH = ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler"]  # DEIS for flow models does not come to level 0
CASES = [*((name, prediction) for name in FORMS if name not in FLOW for prediction in [*PREDICTED][:3]),
         *((name, "flow_prediction") for name in (*FLOW, *BOTH))]


@pytest.mark.parametrize(("name", "prediction"), CASES)
def test_what_a_scheduler_gets_is_read_rightly(name, prediction):
    """Its own arithmetic is the judge: noise and a picture mixed by it at each level are found again."""
    given = {} if name in FLOW else {"prediction_type": prediction, "use_flow_sigmas": True}
    scheduler = getattr(diffusers, name)(**{
        key: value for key, value in given.items() if key != "use_flow_sigmas" or prediction == "flow_prediction"})
    scheduler.set_timesteps(10)
    levels = levels_of(scheduler)
    assert (levels.unknown, levels.total) == ("", 10)
    assert all(before > after >= 0 for before, after in zip(levels.sigmas, levels.sigmas[1:], strict=False))
    picture, noise = torch.randn(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for index, step in enumerate(levels.steps):
        if levels.steps.index(step) != index:
            continue
        timestep = scheduler.timesteps[index : index + 1]
        if name.startswith("FlowMatchHeun"):
            sigma = levels.sigmas[step]
            mixed = sigma * noise + (1 - sigma) * picture
        elif hasattr(scheduler, "add_noise"):
            mixed = scheduler.add_noise(picture, noise, timestep)
        else:
            mixed = scheduler.scale_noise(picture, timestep, noise)
        ratio = levels.sigmas[step]
        signal = 1 / (1 + ratio**2) ** 0.5
        output = PREDICTED[prediction](picture, noise, signal, signal * ratio)
        derivative, denoised = levels.read(step, output, mixed)
        wanted = noise - picture if levels.form == "flow" else noise
        torch.testing.assert_close(denoised, picture, rtol=1e-3, atol=2e-3 * max(1.0, ratio))
        torch.testing.assert_close(derivative, wanted, rtol=1e-2, atol=1e-2)


def test_levels_end_where_another_transformer_goes_on():
    scheduler = EULER(shift=1.0)
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    assert levels_of(scheduler, 0.5).sigmas == (1.0, 0.75, 0.5, 0.25)
    scheduler.set_begin_index(2)
    assert levels_of(scheduler, 0.0).sigmas == (0.5, 0.25, 0.0)
    assert levels_of(scheduler, 0.9).sigmas == (0.5, 0.25, 0.0)  # none of them would be left


# Learning thoroughly

def latents(pipeline, **settings):
    return lambda: FLUX.run(pipeline, steps=STEPS, **settings)


def test_thorough_tries_out_keeps_the_best_and_gives_the_full_result(path, caplog):
    caplog.set_level("INFO", "femo_core")
    plain = FLUX.run(pipeline := FLUX.build(), steps=STEPS)
    auto(pipeline, path)
    assert torch.equal(learn_thoroughly(pipeline.transformer, latents(pipeline)), plain)
    (recording,) = learned_from(path).recordings
    assert recording.tried
    assert any("network runs, as many as" in record.message for record in caplog.records)
    result = FLUX.run(pipeline, steps=STEPS)
    report = last_report(pipeline.transformer)
    tried = next(one for one in recording.tried if one.steps == report.full_steps)
    change = float((result - plain).norm() / plain.norm())
    assert change == pytest.approx(tried.change, rel=1e-3)
    disable_femo(pipeline.transformer)
    assert leftovers(pipeline) == []


def test_thorough_may_be_interrupted_without_loss(path):
    plain = FLUX.run(pipeline := FLUX.build(), steps=STEPS)
    auto(pipeline, path)
    runs = []

    def sample():
        runs.append(1)
        if len(runs) == 4:
            raise KeyboardInterrupt
        return FLUX.run(pipeline, steps=STEPS)

    assert torch.equal(learn_thoroughly(pipeline.transformer, sample), plain)
    assert len(learned_from(path).recordings[0].tried) == 1
    FLUX.run(pipeline, steps=STEPS)
    assert state(pipeline) == "yes"


def test_thorough_says_why_it_can_not(path):
    pipeline = FLUX.build()
    with pytest.raises(ValueError, match="enable_auto on it"):
        learn_thoroughly(pipeline.transformer, latents(pipeline))
    auto(pipeline, None, learn="off")
    with pytest.raises(ValueError, match="enable_auto on it"):
        learn_thoroughly(pipeline.transformer, latents(pipeline))
    auto(pipeline, path)
    with pytest.raises(ValueError, match="too long to learn from"):
        learn_thoroughly(pipeline.transformer, lambda: FLUX.run(pipeline, steps=101))
    with pytest.raises(ValueError, match="did not come to its end"):
        learn_thoroughly(pipeline.transformer, lambda: torch.ones(1))
    assert not path.exists()
    FLUX.run(pipeline, steps=STEPS)
    assert state(pipeline) == "learning"
