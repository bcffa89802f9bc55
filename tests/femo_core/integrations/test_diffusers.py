"""FeMo in diffusers' own denoising loops, around small transformers of random weights."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_pipelines import ALL, DIT, FLUX, HUNYUAN_VIDEO, QWEN, SD3, STEPS, WAN, diffusers

from femo_core import ExplicitSchedule, FeatureCache, FeMo, Schedule, TaylorSeer
from femo_core.integrations.diffusers import disable_femo, enable_femo, last_report
from femo_core.integrations.diffusers.families import FAMILIES
from femo_core.integrations.diffusers.sites import HOOK

pytestmark = pytest.mark.filterwarnings("default")  # diffusers has its own

SITES = ("hidden", "module", "output")
SCHEDULE = Schedule(3, 3, 1)
FULL = SCHEDULE.full_steps(STEPS)
each_model = pytest.mark.parametrize("small", ALL, ids=lambda small: small.name)
each_site = pytest.mark.parametrize("site", SITES)


def accelerate(pipeline, predictor=None, schedule=SCHEDULE, site="hidden"):
    enable_femo(pipeline.transformer, schedule, predictor or TaylorSeer(1), scheduler=pipeline.scheduler, site=site)


def attention_of_first_block(transformer):
    """A module that runs whenever the first block's attention does."""
    (blocks, *_) = FAMILIES[type(transformer).__name__]
    return transformer.get_submodule(f"{blocks.path}.0.{blocks.branches[0]}.to_q")


def count_runs(module, action):
    """How often it ran meanwhile."""
    ran = []
    handle = module.register_forward_hook(lambda *_: ran.append(1))
    try:
        action()
    finally:
        handle.remove()
    return len(ran)


def hooks_on(transformer):
    return [name for name, module in transformer.named_modules()
            if hasattr(module, "_diffusers_hook") and HOOK in module._diffusers_hook.hooks]


@each_model
@each_site
def test_interval_one_is_bit_equal_and_nothing_is_left_behind(small, site):
    pipeline = small.build()
    plain = small.run(pipeline)
    accelerate(pipeline, FeMo(2), Schedule(1), site)
    assert torch.equal(small.run(pipeline), plain)
    assert last_report(pipeline.transformer).reason == "interval is 1"
    accelerate(pipeline, site=site)
    assert not torch.equal(small.run(pipeline), plain)
    disable_femo(pipeline.transformer)
    assert not hooks_on(pipeline.transformer)
    assert torch.equal(small.run(pipeline), plain)


@each_model
@each_site
def test_blocks_run_on_the_schedules_steps_only_and_a_second_call_starts_afresh(small, site):
    pipeline, results = small.build(), []
    first = attention_of_first_block(pipeline.transformer)
    whole = count_runs(first, lambda: small.run(pipeline))
    accelerate(pipeline, FeMo(1), site=site)
    for _ in range(2):
        ran = count_runs(first, lambda: results.append(small.run(pipeline)))
        report = last_report(pipeline.transformer)
        assert (report.full_steps, ran * STEPS) == (FULL, whole * len(FULL))
        assert (report.network_runs, report.network_runs + report.network_runs_saved) == (ran, whole)
    assert torch.equal(*results)
    # … whatever the one before was like.
    small.run(pipeline, seed=1, steps=5)
    assert last_report(pipeline.transformer).total_steps == 5
    assert torch.equal(small.run(pipeline), results[0])


def with_controlnet(given):
    """What Flux' ControlNets add behind its blocks."""
    residual = torch.randn(given["hidden_states"].shape[0], 16, 64, generator=torch.Generator().manual_seed(0))
    return {**given, "controlnet_block_samples": [residual] * 2, "controlnet_single_block_samples": [residual]}


VARIANTS = [
    *((small, None) for small in ALL), (FLUX, with_controlnet),
    (replace(QWEN, more={"zero_cond_t": True}), None),  # the editing models': two timesteps in one call
    (replace(HUNYUAN_VIDEO, more={"image_condition_type": "token_replace"}), None),  # image to video
]


@pytest.mark.parametrize(("small", "change"), VARIANTS, ids=[
    *(small.name for small in ALL), "Flux with a ControlNet", "Qwen-Image edit", "HunyuanVideo image to video"])
@each_site
def test_the_features_of_the_same_input_give_what_the_network_gives(small, change, site):
    """So features are taken and put back where they belong, and all that is computed beside them is right."""
    pipeline, calls = small.build(), []
    transformer = pipeline.transformer
    handle = transformer.register_forward_pre_hook(lambda _, args, given: calls.append((args, given)), with_kwargs=True)
    small.run(pipeline, steps=2)
    handle.remove()
    args, given = calls[0]
    given = change(given) if change else given
    with torch.inference_mode():
        expected = transformer(*args, **given)[0]
        accelerate(pipeline, TaylorSeer(0), site=site)
        pipeline.scheduler.set_timesteps(6)
        for i in range(6):
            pipeline.scheduler._step_index = i
            torch.testing.assert_close(transformer(*args, **given)[0], expected, rtol=1e-5, atol=1e-5)
    assert last_report(transformer).predicted_steps == (3, 4)


@pytest.mark.parametrize("small", [FLUX, QWEN, WAN], ids=lambda small: small.name)
def test_the_two_streams_of_guidance_stay_apart(small, monkeypatch):
    seen = set()
    record = FeatureCache.record
    monkeypatch.setattr(FeatureCache, "record", lambda cache, stream, *rest: (
        seen.add(stream), record(cache, stream, *rest))[1])
    pipeline = small.build()
    accelerate(pipeline)
    small.run(pipeline)
    assert seen == {("cond", 1), ("uncond", 1)}


@each_site
def test_rows_of_a_batch_do_not_touch_each_other(site):
    """One alone gives what it gives beside another; each has a β of its own."""
    pipeline = FLUX.build()
    accelerate(pipeline, FeMo(1, gamma=0.05), site=site)
    latents = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(3))
    both = FLUX.run(pipeline, latents=latents)
    assert {len(row["beta"]) for row in last_report(pipeline.transformer).betas} == {2}
    alone = {key: value[:1] for key, value in FLUX.arguments().items() if isinstance(value, torch.Tensor)}
    torch.testing.assert_close(FLUX.run(pipeline, latents=latents[:1], **alone), both[:1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("small", [FLUX, DIT], ids=lambda small: small.name)
@pytest.mark.parametrize("site", ["hidden", "module"])
def test_an_exception_in_the_network_leaves_nothing_behind(small, site):
    pipeline = small.build()
    accelerate(pipeline, site=site)
    expected = small.run(pipeline)
    hook, caches = pipeline.transformer._diffusers_hook.get_hook(HOOK), []

    def breaks(*_):
        caches.append(hook.run.session.cache)
        if len(caches) == 4:
            assert len(caches[0])
            raise RuntimeError("out of memory")

    handle = pipeline.transformer.pos_embed.register_forward_pre_hook(breaks)
    with pytest.raises(RuntimeError, match="out of memory"):
        small.run(pipeline)
    handle.remove()
    assert (hook.run, len(caches[0]), hook.call.recorded, hook.call.forecast) == (None, 0, None, None)
    assert torch.equal(small.run(pipeline), expected)


def test_a_run_that_is_stopped_between_steps_does_not_reach_into_the_next():
    pipeline = FLUX.build()
    accelerate(pipeline)
    expected = FLUX.run(pipeline)

    def stop(_pipeline, step, *_):
        if step == 6:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        FLUX.run(pipeline, seed=1, callback_on_step_end=stop)
    assert torch.equal(FLUX.run(pipeline), expected)


@each_site
def test_buffers_are_freed_after_the_last_step(site):
    """Before the pipeline goes on to its VAE, also where the transformer has no CacheMixin."""
    for small in (FLUX, SD3):
        pipeline = small.build()
        accelerate(pipeline, site=site)
        small.run(pipeline)
        assert pipeline.transformer._diffusers_hook.get_hook(HOOK).run is None
        assert last_report(pipeline.transformer).cache_bytes > 0


@each_site
def test_skip_layer_guidance_is_a_stream_of_its_own(site):
    """SD3 calls the transformer once more, without some blocks, on some of the steps."""
    pipeline = SD3.build()
    guided = {"skip_guidance_layers": [1], "skip_layer_guidance_start": 0.1, "skip_layer_guidance_stop": 0.9}
    plain = SD3.run(pipeline, **guided)
    accelerate(pipeline, schedule=Schedule(1), site=site)
    assert torch.equal(SD3.run(pipeline, **guided), plain)
    accelerate(pipeline, site=site)
    result = SD3.run(pipeline, **guided)
    report = last_report(pipeline.transformer)
    # 9 steps have it, 2 … 10; of these the first 3 are its warm-up, as are the schedule's full 5 and 8.
    assert (report.network_runs, report.network_runs_saved) == (len(FULL) + 5, STEPS - len(FULL) + 4)
    assert (result - plain).norm() < 0.5 * plain.norm()


def test_a_step_with_two_evaluations_counts_once():
    """Heun's second evaluation is at the next noise level, where the next step's first one is too."""
    heun = replace(FLUX, scheduler=lambda: diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0))
    pipeline = heun.build()
    # The pipeline would set noise levels, which this scheduler does not take.
    calls = {"latents": torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0)), "steps": STEPS}
    accelerate(pipeline)
    loop(pipeline, **calls)
    report = last_report(pipeline.transformer)
    assert (report.total_steps, report.full_steps) == (STEPS, FULL)
    assert report.network_runs + report.network_runs_saved == 2 * STEPS - 1


def loop(pipeline, latents, steps, begin=0, context=None):
    """A denoising loop as somebody else might write it."""
    arguments, scheduler = FLUX.arguments(), pipeline.scheduler
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(begin)
    with torch.inference_mode():
        for t in scheduler.timesteps[begin:]:
            velocity = pipeline.transformer(
                hidden_states=latents, encoder_hidden_states=arguments["prompt_embeds"],
                pooled_projections=arguments["pooled_prompt_embeds"], timestep=t.expand(len(latents)) / 1000,
                guidance=torch.ones(len(latents)), img_ids=torch.zeros(16, 3), txt_ids=torch.zeros(8, 3)).sample
            latents = scheduler.step(velocity, t, latents, return_dict=False)[0]
    return latents


@each_site
def test_a_loop_without_cache_contexts_that_begins_in_the_middle(site):
    """As image to image does: the steps are those of the whole schedule, with a warm-up where the run begins."""
    pipeline = FLUX.build()
    latents = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = loop(pipeline, latents, STEPS, begin=4)
    accelerate(pipeline, schedule=Schedule(1), site=site)
    assert torch.equal(loop(pipeline, latents, STEPS, begin=4), plain)
    accelerate(pipeline, site=site)
    loop(pipeline, latents, STEPS, begin=4)
    report = last_report(pipeline.transformer)
    assert (report.total_steps, report.full_steps) == (STEPS, (4, 5, 6, 8, 11))


def test_two_transformers_that_share_a_run_go_by_its_steps():
    """Wan 2.2 has one for high noise levels, one for low."""
    pipeline = WAN.build()
    pipeline.register_modules(transformer_2=WAN.build().transformer)
    pipeline.register_to_config(boundary_ratio=0.8)
    for transformer in (pipeline.transformer, pipeline.transformer_2):
        enable_femo(transformer, SCHEDULE, TaylorSeer(1), scheduler=pipeline.scheduler)
    WAN.run(pipeline)
    high, low = last_report(pipeline.transformer), last_report(pipeline.transformer_2)
    assert min(high.network_runs_saved, low.network_runs_saved) > 0
    assert high.total_steps == low.total_steps == STEPS
    assert sorted((*high.full_steps, *high.predicted_steps, *low.full_steps, *low.predicted_steps)) == [*range(STEPS)]
    assert STEPS - 1 in low.full_steps


def test_an_explicit_schedule():
    pipeline = FLUX.build()
    accelerate(pipeline, schedule=ExplicitSchedule((0, 1, 4, 9)))
    FLUX.run(pipeline)
    assert last_report(pipeline.transformer).full_steps == (0, 1, 4, 9)


def test_with_a_tolerance_the_errors_make_the_full_steps():
    pipeline, schedule = FLUX.build(), Schedule(5, 3, 1)
    first = attention_of_first_block(pipeline.transformer)
    enable_femo(pipeline.transformer, schedule, TaylorSeer(1), scheduler=pipeline.scheduler, tolerance=1.0)
    ran = count_runs(first, lambda: FLUX.run(pipeline))
    report = last_report(pipeline.transformer)
    assert report.settings["tolerance"] == 1.0
    assert len(schedule.full_steps(STEPS)) < len(report.full_steps) < STEPS
    assert ran == report.network_runs == 2 * len(report.full_steps)  # the prompt and its opposite


@each_site
def test_half_precision(site):
    """Many noise levels are the same number in bfloat16: steps are not told apart by them."""
    pipeline = FLUX.build()
    pipeline.transformer.to(torch.bfloat16)
    accelerate(pipeline, site=site)
    half = {key: value.bfloat16() for key, value in FLUX.arguments().items() if isinstance(value, torch.Tensor)}
    result = FLUX.run(pipeline, steps=50, sigmas=[1 - i / 1000 for i in range(50)], **half)
    assert result.dtype == torch.bfloat16
    assert last_report(pipeline.transformer).full_steps == SCHEDULE.full_steps(50)


def test_compiled_blocks_give_the_same():
    """Traced by torch.compile, not made faster: that takes a compiler."""
    pipeline = FLUX.build()
    accelerate(pipeline)
    expected = FLUX.run(pipeline)
    pipeline.transformer.compile_repeated_blocks(backend="eager")
    torch.testing.assert_close(FLUX.run(pipeline), expected)
    assert last_report(pipeline.transformer).full_steps == FULL


def test_a_model_that_no_table_has_samples_at_site_output(caplog):
    class Other(diffusers.FluxTransformer2DModel):
        """Derived from one that is known, which says nothing."""

    pipeline = FLUX.build()
    pipeline.transformer.__class__ = Other
    accelerate(pipeline, site="module")
    FLUX.run(pipeline)
    assert "Other is not known well enough" in caplog.text
    assert last_report(pipeline.transformer).settings["site"] == "output"
    assert last_report(pipeline.transformer).full_steps == FULL


def runs_in_full(pipeline, small, plain, caplog):
    """Twice, with one warning, which is returned."""
    with caplog.at_level(logging.WARNING, logger="femo_core"):
        caplog.clear()
        for _ in range(2):
            assert torch.equal(small.run(pipeline), plain)
    assert last_report(pipeline.transformer).network_runs_saved == 0
    (record,) = (record for record in caplog.records if record.name.startswith("femo_core"))
    return record.getMessage()


def test_beside_a_cache_of_diffusers_it_does_nothing_and_says_so(caplog):
    pipeline = FLUX.build()
    never = diffusers.FirstBlockCacheConfig(threshold=0.0)
    pipeline.transformer.enable_cache(never)
    plain = FLUX.run(pipeline)
    accelerate(pipeline)
    assert "call its disable_cache()" in runs_in_full(pipeline, FLUX, plain, caplog)


def test_a_module_replaced_after_enabling_is_noticed(caplog):
    pipeline = FLUX.build()
    plain = FLUX.run(pipeline)
    accelerate(pipeline, site="module")
    block = pipeline.transformer.single_transformer_blocks[1]
    block.proj_out = torch.nn.Sequential(block.proj_out)
    assert "call it again" in runs_in_full(pipeline, FLUX, plain, caplog)
    accelerate(pipeline, site="module")
    FLUX.run(pipeline)
    assert last_report(pipeline.transformer).full_steps == FULL


def test_another_scheduler_than_the_pipelines_is_noticed(caplog):
    pipeline = FLUX.build()
    plain = FLUX.run(pipeline)
    other = diffusers.FlowMatchEulerDiscreteScheduler()
    enable_femo(pipeline.transformer, ExplicitSchedule((0, 1, 4)), TaylorSeer(1), scheduler=other)
    assert "does not move" in runs_in_full(pipeline, FLUX, plain, caplog)


def test_a_feed_forward_in_pieces_is_noticed_at_site_module(caplog):
    pipeline = SD3.build()
    pipeline.transformer.enable_forward_chunking(8, dim=1)
    plain = SD3.run(pipeline)
    accelerate(pipeline, site="module")
    assert "several times" in runs_in_full(pipeline, SD3, plain, caplog)
    accelerate(pipeline, site="hidden")
    SD3.run(pipeline)
    assert last_report(pipeline.transformer).full_steps == FULL


def test_a_site_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="site must be one of hidden, module, output; got 'head'"):
        enable_femo(torch.nn.Identity(), SCHEDULE, TaylorSeer(1), scheduler=FLUX.scheduler(), site="head")


def test_something_else_than_a_scheduler_is_refused():
    with pytest.raises(ValueError, match="scheduler must be the pipeline's, with timesteps; got None"):
        enable_femo(torch.nn.Identity(), SCHEDULE, TaylorSeer(1), scheduler=None)


def test_a_tolerance_wants_a_schedule_of_intervals():
    for schedule, tolerance, words in ((ExplicitSchedule((0, 1, 4)), 0.1, "give a Schedule"), (SCHEDULE, 2.0, "0 … 1")):
        with pytest.raises(ValueError, match=words):
            enable_femo(torch.nn.Identity(), schedule, TaylorSeer(1), scheduler=SimpleNamespace(timesteps=()),
                        tolerance=tolerance)


def test_disabling_what_was_never_enabled_does_nothing():
    transformer = FLUX.build().transformer
    disable_femo(transformer)
    assert last_report(transformer) is None


def test_the_example_of_the_docs_works_as_printed(monkeypatch, capsys):
    """On a small Flux in the place of the published one."""
    page = (Path(__file__).parents[3] / "docs" / "engines.md").read_text(encoding="utf-8")
    examples = [block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "last_report" in block]

    class Loaded:
        """The small pipeline, that takes a prompt and gives images."""

        def __init__(self):
            self.pipeline, self.saved = FLUX.build(), []
            self.transformer, self.scheduler = self.pipeline.transformer, self.pipeline.scheduler

        def to(self, _device):
            return self

        def __call__(self, _prompt, num_inference_steps):
            assert FLUX.run(self.pipeline, steps=num_inference_steps).isfinite().all()
            return SimpleNamespace(images=[SimpleNamespace(save=self.saved.append)])

    monkeypatch.setattr(diffusers.FluxPipeline, "from_pretrained", lambda *_args, **_kwargs: Loaded())
    for example in examples:
        found: dict = {}
        exec(example, found)
        assert found["pipe"].saved == ["house.png"]
        assert not hooks_on(found["pipe"].transformer)
    assert capsys.readouterr().out.count("11 full and 39 forecast of 50 steps") == len(examples) == 1


def test_the_core_needs_no_diffusers():
    code = ("import sys; sys.modules['diffusers'] = None\n"
            "import femo_core\n"
            "try: import femo_core.integrations.diffusers\n"
            "except ImportError as error: print(error)")
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 'pip install "femo-cache[diffusers]"' in printed
