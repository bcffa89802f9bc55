"""Sequence parallelism: processes that share the tokens of a small pipeline give what one process gives.

FEMO_RANKS=4 tries four processes as well; each takes seconds to import diffusers.
"""

from __future__ import annotations

import os

import pytest
import torch
from distance import distance
from ranks import ADAPTIVE, CASES, PREDICTORS, SCHEDULE, TIMED, TOLERANCE, Case, learned_and_used, main, results
from small_pipelines import BATCH, FLUX, STEPS

from benchmarks.speed import scaling
from femo_core import Profile

pytestmark = pytest.mark.filterwarnings("default")  # diffusers has its own

CLOSE = 1e-5  # relative; sums are taken in another order
RANKS = sorted({2, int(os.environ.get("FEMO_RANKS", "2"))})
STREAMS = 2  # the prompt's and its opposite's
ADAPTED = 2  # full steps at which an adaptive β looks at norms: steps 5 and 8 of 0 1 2 5 8 11
ATTENTIONS = {"Flux": 4, "Qwen-Image": 3, "Wan": 3}  # whose heads are divided among the processes

each_forecast = pytest.mark.parametrize(
    "case", [case for case in CASES if case.site],
    ids=lambda case: f"{case.model}-{case.site}-{case.predictor}" + "-controlled" * (case.tolerance > 0))


@pytest.fixture(scope="module")
def alone():
    return results(1)


@pytest.fixture(scope="module", params=RANKS, ids=lambda ranks: f"{ranks} ranks")
def folder(request, tmp_path_factory):
    """What the processes have left, a file each."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "timed").mkdir()
    torch.multiprocessing.spawn(main, args=(request.param, folder), nprocs=request.param)
    return folder


@pytest.fixture(scope="module")
def together(folder):
    """By rank."""
    return [torch.load(path, weights_only=False) for path in sorted(folder.glob("?.pt"))]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_several_processes_give_what_one_gives(case, alone, together):
    for rank in together:
        assert distance(rank[case]["result"], alone[case]["result"]) < CLOSE
        assert torch.equal(rank[case]["result"], together[0][case]["result"])


@each_forecast
def test_full_steps_are_the_same_on_every_process(case, alone, together):
    for rank in together:
        assert rank[case]["full_steps"] == alone[case]["full_steps"]
    assert (alone[case]["full_steps"] == SCHEDULE.full_steps(STEPS)) is not bool(case.tolerance)
    assert len(alone[case]["full_steps"]) < STEPS


@each_forecast
def test_beta_is_the_same_on_every_process(case, alone, together):
    """And that of one process, the mean over the sites: at site module one sign of nine or more may tie and fall
    otherwise."""
    tie = 2 * PREDICTORS["Adapted-FeMo"].gamma / 9 if case.site == "module" else 1e-6
    for rank in together:
        assert rank[case]["betas"] == together[0][case]["betas"]
        assert rank[case]["betas"] == [pytest.approx(row, abs=tie) for row in alone[case]["betas"]]
    assert len(alone[case]["betas"]) == (ADAPTED * STREAMS if case.predictor in ADAPTIVE else 0)


@each_forecast
def test_each_process_keeps_its_own_tokens_only(case, alone, together):
    """At site output the whole output, which the network gives to all of them: 64 numbers a token with FLUX.1, less
    than one process of up to 48 has of the 3072 of a hidden state."""
    share = 1 if case.site == "output" else len(together)
    for rank in together:
        assert rank[case]["cache_bytes"] * share == alone[case]["cache_bytes"] > 0


@each_forecast
def test_messages(case, together):
    """A full step has the network's own, and for an adaptive β or a tolerance one more; a predicted step has none of
    ours.

    The network's are four for each attention and one that puts the output together; the last one is sent on predicted
    steps as well, save at site output.
    """
    full, every = len(together[0][case]["full_steps"]) * STREAMS, STEPS * STREAMS
    expected = {
        "all_to_all_single": 4 * ATTENTIONS[case.model] * full,
        "all_gather_into_tensor": full if case.site == "output" else every,
    }
    if case.predictor in ADAPTIVE and case.site != "output":
        expected["allreduce"] = ADAPTED * STREAMS
    if case.tolerance and case.site != "output":
        expected["allreduce"] = together[0][case]["compared"]
    for rank in together:
        messages = {kind: count for kind, count in rank[case]["messages"].items() if not kind.startswith("_wrap")}
        assert messages == expected


@pytest.mark.parametrize(("predictor", "norms"), [("Adapted-FeMo", 2), ("least squares", 3)])
def test_the_message_about_norms_is_small(together, predictor, norms):
    """Two or three for each feature and sample, with a tolerance three of the last feature. A double block has two
    features, a single block one."""
    for site, features in (("hidden", 1), ("module", 2 * 2 + 2)):
        for rank in together:
            assert rank[Case("Flux", site, predictor)]["numbers"]["allreduce"] == (
                ADAPTED * STREAMS * norms * BATCH * features)
            controlled = rank[Case("Flux", site, "FeMo", TOLERANCE)]
            assert controlled["numbers"]["allreduce"] == controlled["compared"] * 3 * BATCH


def test_the_benchmark_counts_the_bytes_that_are_sent(together):
    """benchmarks/speed/scaling.py knows them by formula, for one sample in 2 bytes a number."""
    ranks, alone = len(together), together[0][Case("Flux")]["numbers"]
    leaving = alone["all_to_all_single"] * (ranks - 1) / ranks + alone["all_gather_into_tensor"] * (ranks - 1)
    cost, _ = scaling.costs(FLUX.build().transformer.to("meta"), side=64, text=8)
    assert leaving == STEPS * STREAMS * BATCH * cost["full"].sent(ranks) / scaling.BYTES


def test_the_benchmark_times_several_processes(folder):
    has_times(torch.load(folder / "timed" / "seconds.pt", weights_only=False))


def test_the_benchmark_reads_what_its_processes_leave(monkeypatch):
    """Here one, and this one: each that is started imports all anew."""
    monkeypatch.setattr(torch.multiprocessing, "spawn", lambda function, args, nprocs: function(0, *args))
    has_times(scaling.measured(1, "cpu", (64,), TIMED, text=8))


def has_times(found):
    assert set(found) == {(64, site) for site in scaling.SITES}
    assert all(full > 0 < predicted for full, predicted in found.values())


def test_processes_learn_one_profile_and_choose_as_one(folder, tmp_path):
    """And as one process does."""
    ranks = [torch.load(path, weights_only=False) for path in sorted(folder.glob("*.auto.pt"))]
    for (learning, first), (using, second) in ranks:
        assert (first.settings["learned"], second.settings["learned"]) == ("learning", "yes")
        assert first.network_runs_saved == 0 < second.network_runs_saved
        assert second.full_steps == ranks[0][1][1].full_steps
        assert torch.equal(learning, ranks[0][0][0])
        assert torch.equal(using, ranks[0][1][0])
    (alone, _), _ = learned_and_used(1, tmp_path / "auto.json")
    assert distance(ranks[0][0][0], alone) < CLOSE
    (recording,) = Profile.from_json((folder / "auto.json").read_bytes()).recordings
    (wanted,) = Profile.from_json((tmp_path / "auto.json").read_bytes()).recordings
    torch.testing.assert_close(recording.gram, wanted.gram, rtol=1e-3, atol=1e-4)
