"""What makes a stream another one, and what does not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from benchmarks.pack.run.streams import StreamKeys

X = torch.zeros(2, 4, 8, 8)  # a prompt and its opposite, one row each
OPTIONS = {"uuids": ["p", "n"], "cond_or_uncond": [0, 1]}


def keys(x=X, conditioning=None, controls=None, streams=None, hooks=None, **options):
    return (streams or StreamKeys()).of(x, OPTIONS | options, conditioning, controls, hooks)


def test_a_chunk_is_the_same_stream_in_the_next_evaluation():
    streams = StreamKeys()
    found = []
    for _ in range(3):
        streams.begin_evaluation()
        streams.begin_call()
        found.append(keys(streams=streams))
    assert found[0] == found[1] == found[2]
    assert len(set(found[0])) == 2


def test_a_chunk_is_the_same_stream_wherever_it_stands_in_the_batch_and_whatever_is_beside_it():
    positive, negative = keys()
    assert keys(uuids=["n", "p"], cond_or_uncond=[1, 0]) == [negative, positive]
    assert keys(X[:1], uuids=["p"], cond_or_uncond=[0]) == [positive]


@pytest.mark.parametrize("changes", [
    {"x": torch.zeros(4, 4, 8, 8)}, {"x": torch.zeros(2, 4, 8, 6)}, {"x": X.half()}, {"x": X.to("meta")},
    {"uuids": ["q", "r"]}, {"cond_or_uncond": [1, 0]}, {"context_window": SimpleNamespace(index_list=[0, 1])},
    {"patches_replace": {"dit": {("double_block", 0): None}}}, {"conditioning": ((4, 8), None)},
    {"controls": (True,)}, {"run_vx": False}, {"latent_type": "source"}, {"stg_indexes": [0, 2]},
    {"patches_replace": {"attn1": {("output", 0, 0): None}}}, {"patches": {"double_block": [print]}},
    {"wrappers": {"diffusion_model": {"other": [print]}}}, {"hooks": {("hook", "one"): 0.5}}])
def test_another_stream(changes):
    assert not {*keys()} & {*keys(**changes)}


def test_windows_of_other_frames_are_other_streams():
    first, other = (keys(context_window=SimpleNamespace(index_list=frames)) for frames in ([0, 1], [1, 2]))
    assert not {*first} & {*other}


def test_the_second_call_of_an_evaluation_is_of_other_streams():
    streams = StreamKeys()
    streams.begin_call()
    first = keys(streams=streams)
    streams.begin_call()
    assert not {*first} & {*keys(streams=streams)}


def test_what_is_alike_all_the_same_is_told_apart_by_its_order():
    streams = StreamKeys()
    first, second = keys(uuids=["p", "p"], cond_or_uncond=[0, 0], streams=streams)
    third, fourth = keys(uuids=["p", "p"], cond_or_uncond=[0, 0], streams=streams)
    assert [key.repeat for key in (first, second, third, fourth)] == [0, 1, 2, 3]
    streams.begin_call()
    assert keys(uuids=["p", "p"], cond_or_uncond=[0, 0], streams=streams)[0].repeat == 0


@pytest.mark.parametrize("options", [
    {"uuids": None}, {"cond_or_uncond": []}, {"uuids": ["p"]}, {"uuids": ["p"] * 3, "cond_or_uncond": [0] * 3}])
def test_rows_of_which_the_host_does_not_say_what_they_are_belong_to_no_stream(options):
    assert keys(**options) == []


def step_by_step(streams, changing):
    found = []
    for step in range(20):
        streams.begin_evaluation()
        streams.begin_call()
        found.append(tuple(keys(streams=streams, **changing(step))))
    return found


@pytest.mark.parametrize("changing", [
    lambda step: {"sigmas": torch.tensor([1.0 / (1 + step)])}, lambda step: {"percent": step / 10},
    lambda step: {"current_step": step}, lambda step: {"sample_sigmas": torch.rand(3)},
    lambda step: {"patches": {"double_block": [lambda args: args]}},
    lambda step: {"callbacks": {"on_step": {"other": [print] * step}}},
    lambda step: {"wrappers": {"predict_noise": {"other": [print] * step}}},
    lambda step: {"cache": {"step": step}}, lambda step: {"another packs": object()}])
def test_what_changes_on_every_step_makes_no_other_stream(changing):
    assert len({*step_by_step(StreamKeys(), changing)}) == 1


@pytest.mark.parametrize("changing", [lambda step: {"word": f"step {step}"}, lambda step: {"frames": [step]}])
def test_a_word_that_counts_steps_is_left_out_when_that_is_seen(changing):
    assert len({*step_by_step(StreamKeys(), changing)[4:]}) == 1


def test_what_switches_is_said():
    said = []
    streams = StreamKeys(said.append)
    strengths = [1.0] * 10 + [0.0] * 10
    step_by_step(streams, lambda step: {"hooks": {("hook", "one"): strengths[step]}})
    assert len({*said}) == 1
    assert "a hook (a timed LoRA) changes in mid-run" in said[0]
