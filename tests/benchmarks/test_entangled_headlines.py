"""The experiment on headlines in its smoke mode, and what its tables rest on."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.entangled_headlines import __main__ as command
from benchmarks.entangled_headlines import network, report, study, training
from jaxcore.estimators.deconfound.simulate import EOS, PAD, entangled_headlines, tokens_of
from jaxcore.models import llama

SIZES = {"width": 8, "depth": 1, "num_heads": 1, "num_kv_heads": 1, "head_dim": 8}
TINY = dataclasses.replace(network.NETWORK, mlp_width=8, **SIZES)


@pytest.fixture(scope="module")
def trained():
    """Names of the trainings; none is done, as what they start from is as good here."""
    return []


@pytest.fixture(scope="module")
def world(tmp_path_factory, trained):
    folder = tmp_path_factory.mktemp("trainings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "descend", lambda _, start, *rest: trained.append(rest) or start)
        yield study.World("entangled", 5, study.Sizes.smoke(), folder, TINY)


def test_the_network_has_the_size_that_is_told():
    shapes = llama.param_shapes(network.NETWORK)
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == 336_288


def test_what_a_policy_chooses_ends_with_the_end():
    tokens = jnp.asarray(
        tokens_of(["science doctors praise plan", "money pilots reject idea today"])
    )
    assert network.written(tokens).sum(axis=1).tolist() == [6, 7]
    assert network.completion(tokens).sum(axis=1).tolist() == [4, 5]


def test_what_is_written_has_its_topic_and_one_end(world):
    params = llama.init(jax.random.key(0), TINY)
    found = network.write(params, jnp.arange(4), 3, jax.random.key(1), TINY)
    tokens = np.asarray(found.texts)
    assert (tokens[:, 1] == np.repeat(network.FIRST_TOPIC + np.arange(4), 3)).all()
    assert ((tokens == EOS).sum(axis=1) <= 1).all()
    assert ((tokens[:, 2:] == PAD) == ~np.asarray(found.mask)).all()


def test_a_training_is_done_once_and_found_again(world, trained):
    first = world.scorer("iv")
    done = len(trained)
    again = dataclasses.replace(world).scorer("iv")
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert done == len(trained) >= 1
    assert first.mean == pytest.approx(np.mean(world.logs.Y))


def test_scores_are_told_in_units_of_the_outcome(world):
    found = world.effects("iv")
    scorer = world.scorer("iv")
    twice = {"body": scorer.params["body"], "heads": 2 * scorer.params["heads"]}
    doubled = study.measure.effects(scorer._replace(params=twice), world.sizes.frames, TINY)
    assert doubled == pytest.approx({name: 2 * value for name, value in found.items()}, rel=1e-4)


def test_the_base_is_no_way_from_itself(world):
    found = world.measured(world.base)
    assert found["KL"] == pytest.approx(0, abs=1e-6)
    assert 0 <= found["validity"] <= 1


def test_strong_confounding_flips_signs_for_the_baseline_alone():
    logs = entangled_headlines(200_000, seed=9, design=study.DESIGNS["strong"])
    delta = np.cov(logs.Y, logs.C)[0, 1] / np.var(logs.C)
    design = np.column_stack([np.ones(len(logs.Y)), logs.features])
    slopes = np.linalg.lstsq(design, logs.Y - delta * logs.C, rcond=None)[0][1:]
    assert slopes[0] > 0 and slopes[1] > 0.1 and slopes[2] > 0.1  # the truth is -0.5


def _rows(seed):
    figures = dict.fromkeys(report.COLUMNS, 0.1 * seed)
    effects = dict.fromkeys(("a", "e", "s", "rest"), 0.2 * seed)
    return {
        "policies": {"base": figures, "iv RLOO": figures},
        "effects": {"iv": effects},
        "delta": {"iv": {"delta": 2.0, "se": 0.01}},
    }


def test_tables_tell_mean_and_spread_over_seeds(tmp_path):
    about = {"date": "today", "processor": "one", "cores": 2}
    record = {"about": about, "core": {str(seed): _rows(seed) for seed in (1, 2, 3)}}
    record["why"] = {"1": _rows(1)}
    text = report.text(record)
    assert "0.200 (0.100)" in text and "0.400 (0.200)" in text
    assert "best possible J is 1.8" in text
    report.picture(record, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.slow
def test_all_parts_run_and_are_told(tmp_path, monkeypatch):
    tiny = dataclasses.replace
    monkeypatch.setattr(command, "World", lambda *a: tiny(study.World(*a), cfg=TINY))
    options = command.Options(
        output=tmp_path, run=tmp_path / "runs", seeds=(1, 2), parts=("core", "why"), smoke=True
    )
    command.main(options)
    record = json.loads((tmp_path / "entangled_headlines.json").read_text())
    assert record["core"].keys() == {"1", "2"}
    text = (tmp_path / "entangled_headlines.txt").read_text()
    assert "oracle RLOO" in text and "iv GRPO, scaled" in text
    assert (tmp_path / "entangled_headlines.png").stat().st_size > 1000
    rows = report.over_seeds(record["core"], "policies")
    assert rows["naive DPO"]["J"].shape == (2,)
