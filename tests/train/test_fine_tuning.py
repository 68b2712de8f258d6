"""A decoder goes on from weights: the base stays, adapters learn, a run is a base again."""

import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import pytest

from jaxcore.data.images.pipeline import Stage
from jaxcore.errors import UserError
from jaxcore.models import llama
from jaxcore.models.llama import LlamaConfig
from jaxcore.parallel import make_mesh
from jaxcore.train import OptimConfig, TrainConfig, fit, lora
from jaxcore.train.logging import Silent
from jaxcore.train.lora import LoRA
from jaxcore.train.policy import Policy
from jaxcore.train.prepare import prepare
from jaxcore.train.tasks.lm import LanguageTask
from jaxcore.weights.adapters import save_adapters
from jaxcore.weights.decoders import load_decoder

LINES = [
    {"prompt": [1, 2], "completion": [3, 4, 5]},
    {"prompt": [1, 7], "completion": [3, 8]},
    {"prompt": [9, 9], "completion": [10, 2]},
]
CFG = TrainConfig(steps=4, optim=OptimConfig(learning_rate=1e-2), save_every=2, tensorboard=False)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "answers.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


@pytest.fixture(scope="module")
def base(data, tmp_path_factory):
    """A run from random weights: the base of the others."""
    run = tmp_path_factory.mktemp("base") / "run"
    task = LanguageTask(
        network=LlamaConfig.tiny(), data=data, stages=(Stage(steps=None, patch=8, batch_size=2),)
    )
    fit(task, CFG, run, reporter=Silent())
    return run


@pytest.fixture(scope="module")
def task(data, base):
    """Adapters on it."""
    stages = (Stage(steps=None, patch=8, batch_size=2),)
    settings = LoRA(rank=2, alpha=4)
    options = {"data": data, "stages": stages, "lora": settings, "chunk": 4}
    return LanguageTask(base=str(base), adapters=True, **options).settled()


@pytest.fixture(scope="module")
def tuned(task, tmp_path_factory):
    run = tmp_path_factory.mktemp("tuned") / "run"
    return run, fit(task, CFG, run, reporter=Silent())


def test_only_adapters_are_trained_and_a_run_is_loaded_with_them_merged(task, base, tuned):
    run, result = tuned
    assert task.network == load_decoder(base).cfg
    assert lora.count(result.state.params) < 0.7 * lora.count(load_decoder(base).params)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(result.state.params))
    found = load_decoder(run)
    start = load_decoder(base).params
    expected = lora.merge(
        start, result.state.params["adapters"], llama.rules(task.network), task.lora
    )
    close = functools.partial(np.testing.assert_allclose, atol=1e-6)
    jax.tree.map(close, found.params, expected)
    same(found.params["embed"], start["embed"])
    assert np.any(
        found.params["layers"]["mlp"]["down"]["kernel"] != start["layers"]["mlp"]["down"]["kernel"]
    )


def test_completions_are_learned_and_prompts_are_not(task):
    rows = task.rows()
    assert sorted(rows.tokens[rows.counted].tolist()) == [2, 3, 3, 4, 5, 8, 10]


def test_a_run_that_was_stopped_ends_as_one_that_was_not(task, tuned, tmp_path):
    half = dataclasses.replace(CFG, steps=2)
    fit(task, half, tmp_path / "run", reporter=Silent())
    found = fit(task, CFG, tmp_path / "run", reporter=Silent(), change_settings=True)
    same(found.state.params, tuned[1].state.params)


def test_adapters_of_a_folder_go_on_from_where_they_are(task, tuned, tmp_path):
    adapters = tuned[1].state.params["adapters"]
    network = llama.param_shapes(task.network), llama.rules(task.network)
    save_adapters(tmp_path / "adapters", adapters, *network, task.lora)
    more = dataclasses.replace(
        task, adapters=False, lora=LoRA(), adapters_from=tmp_path / "adapters"
    )
    more = more.settled()
    assert more.lora == task.lora
    same(more.init_params(jax.random.key(0)), {"adapters": adapters})


def test_the_reference_is_the_base_or_a_copy_of_adapters_that_go_on():
    cfg, settings = LlamaConfig.tiny(depth=1), LoRA(rank=2)
    base = llama.init(jax.random.key(0), cfg)
    policy = Policy(cfg=cfg, lora=settings)
    fresh = policy.params(jax.random.key(1), base)
    trained = jax.tree.map(lambda leaf: leaf + 0.1, fresh["adapters"])
    same(policy.reference(policy.frozen(base, reference=True)), base)
    going_on = policy.frozen(base, trained, reference=True)
    start = policy.params(jax.random.key(1), base, trained)
    same(policy.reference(going_on), policy.weights(start, going_on))
    same(policy.weights(fresh, going_on), base)
    everything = Policy(cfg=cfg)
    assert everything.frozen(base) is None
    same(everything.reference(everything.frozen(base, reference=True)), base)


def test_parameters_lie_on_a_mesh_as_the_decoder_says(task):
    mesh = make_mesh(devices=jax.devices()[:2], fsdp=2)
    ready = prepare(task, CFG, mesh)
    base = ready.frozen["base"]
    wanted = dict(llama.sharding_rules(task.network, mesh))
    assert base["embed"].sharding.spec == wanted["(^|/)embed$"]
    assert base["layers"]["mlp"]["down"]["kernel"].addressable_shards[0].data.shape[-1] == 4
    adapters = jax.tree.leaves(ready.abstract.params)
    assert all(leaf.sharding.is_fully_replicated for leaf in adapters)


def test_all_weights_begin_in_their_places_on_a_mesh(task):
    whole = dataclasses.replace(task, adapters=False)
    ready = prepare(whole, CFG, make_mesh(devices=jax.devices()[:2], fsdp=2))
    found = ready.initial_state().params["model"]
    same(found, load_decoder(task.base).params)
    assert found["embed"].addressable_shards[0].data.shape == (11, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapters": True}, "base must be the model that adapters are for"),
        ({"base": "nowhere"}, "found nothing at nowhere"),
    ],
)
def test_a_task_without_what_it_starts_from_is_refused(data, changes, message):
    with pytest.raises(UserError, match=message):
        LanguageTask(data=data, **changes).settled()


def test_adapters_whose_base_is_gone_say_so(tuned, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tuned[0], run)
    config = json.loads((run / "config.json").read_text())
    config["task_config"]["base"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"The adapters of .* are for a model that is missing"):
        load_decoder(run)


def test_a_network_other_than_the_base_is_refused(task):
    other = dataclasses.replace(task, network=LlamaConfig.tiny(depth=3))
    with pytest.raises(UserError, match=r"Expected the network of .*, found another"):
        other.check()


def test_parts_of_a_batch_add_up_by_their_tokens(task, tmp_path):
    """Means of parts would count a token of a short text for more."""
    cfg = dataclasses.replace(CFG, steps=2)
    found = [
        fit(task, dataclasses.replace(cfg, accum_steps=n), tmp_path / f"{n}", reporter=Silent())
        for n in (1, 2)
    ]
    params = [one.state.params for one in found]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *params)


def test_an_evaluation_looks_at_entries_from_all_over_the_data(task):
    assert dataclasses.replace(task, eval_entries=3).judged(10).tolist() == [0, 4, 9]
    assert task.judged(4).tolist() == [0, 1, 2, 3]
    assert task.brief().judged(10).tolist() == [0]
