"""``jaxcore train``, ``evaluate`` and ``demo`` as a user calls them."""

import json
import os
import shlex
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcore.cli import main, parse
from jaxcore.data.images.kinds import Photos
from jaxcore.train.recipes import adair, dea_net
from jaxcore.train.recipes.demo import demo
from jaxcore.weights import load
from tests import tiny_network
from tests.clean_photographs import check_clean_photographs


def size_of(path):
    with Image.open(path) as image:
        return image.size


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        clean = rng.integers(0, 256, (40, 48, 3), np.uint8)
        for folder, image in (("clean", clean), ("degraded", clean // 2)):
            (root / folder).mkdir(exist_ok=True)
            Image.fromarray(image).save(root / folder / f"{name}.png")
    return root


def training(pairs, run, *more):
    own = "--data.held-out 1 --data.tasks dark".split()
    return ["train", "tiny", "--data.root", pairs, "-o", run, *own, *more]


def test_a_dry_run_says_what_a_run_takes_and_writes_nothing(pairs, tmp_path, call, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    argv = training(pairs, tmp_path / "run", "--dry-run", "--train.deterministic")
    code, out, err = call(*argv)
    assert code == 0, err
    for words in ("degraded float32 (2, 16, 16, 3)", "memory of a step", "dark/psnr", "2 steps"):
        assert words in out
    assert not (tmp_path / "run").exists()
    assert os.environ["XLA_FLAGS"] == "--xla_gpu_deterministic_ops=true"


@pytest.fixture(scope="module")
def run(pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    main([str(a) for a in training(pairs, out)])
    return out


def test_a_finished_run_has_nothing_to_do(pairs, run, call):
    code, out, _ = call(*training(pairs, run))
    assert code == 0
    assert "dark" in out and "trained 2 steps" in out


def test_evaluate_writes_figures_and_a_picture(run, tmp_path, call):
    code, out, _ = call("evaluate", run, "-o", tmp_path / "report")
    assert code == 0 and "PSNR in" in out
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["dark/psnr_in"] < 20
    assert len((tmp_path / "report" / "images.csv").read_text().splitlines()) == 2
    assert size_of(tmp_path / "report" / "restored.png")[0] > 3 * 40


def test_evaluate_takes_other_pairs_and_says_when_there_are_none(pairs, run, tmp_path, call):
    other = ["evaluate", run, "--data.kind", "pairs", "--data.root", pairs, "-o", tmp_path / "all"]
    code, *_ = call(*other, "--data.tasks", "dark")
    assert code == 0
    assert len((tmp_path / "all" / "images.csv").read_text().splitlines()) == 3
    code, _, err = call(*other, "--images", "0")
    assert code == 2 and "found none" in err


def test_a_run_restores_and_exports_and_can_be_tuned(pairs, run, tmp_path, call):
    source = pairs / "degraded" / "one.png"
    code, *_ = call("restore", source, "-o", tmp_path / "one.png", "--weights", run)
    assert code == 0 and size_of(tmp_path / "one.png") == (48, 40)
    weights = tmp_path / "weights.safetensors"
    assert call("convert", run, weights)[0] == 0
    code, out, err = call(*training(pairs, tmp_path / "tuned", "--init", weights))
    assert code == 0 and "trained 2 steps" in out, err


def test_a_run_of_other_settings_is_not_overwritten(pairs, run, call):
    code, _, err = call(*training(pairs, run, "--train.seed", "1"))
    assert code == 2 and "train.seed was 0, now 1" in err


def test_a_finished_run_goes_on_with_other_settings_by_one_flag(pairs, run, tmp_path, call):
    shutil.copytree(run, tmp_path / "run")
    new = ["--train.steps", "3", "--train.optim.learning-rate", "1e-4", "--eval-images", "1"]
    code, _, err = call(*training(pairs, tmp_path / "run", *new, "--train.optim.clip-norm", "1"))
    assert code == 2 and len(err.splitlines()) == 1 and "--change-settings" in err
    for field in ("eval_images", "optim.learning_rate was 0.001, now 0.0001", "optim.clip_norm"):
        assert field in err
    argv = training(pairs, tmp_path / "run", *new, "--change-settings")
    code, out, err = call(*argv)
    assert code == 0 and "trained 3 steps" in out, err
    changes = json.loads((tmp_path / "run" / "config.json").read_text())["changes"]
    fields = ["task_config.eval_images", "train.steps", "train.optim.learning_rate"]
    assert [(one["step"], one["field"]) for one in changes] == [(2, field) for field in fields]


def test_groups_by_pattern_are_told_and_what_matches_nothing_is_refused(pairs, tmp_path, call):
    groups = ["--train.optim.groups", "first:freeze", "last/bias:lr=1e-4,decay=0"]
    code, out, err = call(*training(pairs, tmp_path / "run", *groups))
    assert code == 0 and "trained 2 steps" in out, err
    assert "Optimiser groups: 'first' 112 parameters, frozen; 'last/bias' 3, learning rate" in err
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["train"]["optim"]["groups"]
    assert [one["pattern"] for one in stored] == ["first", "last/bias"] and stored[0]["freeze"]
    gone = ["--train.optim.groups", "encoder:lr=1e-5"]
    code, _, err = call(*training(pairs, tmp_path / "gone", *gone))
    assert code == 2 and "'encoder' matches no parameter: expected a part of a path such as" in err
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("train adair --data.root {gone} -o {run}", "found no folder"),
        ("train adair --data.root {empty} -o {run}", "found neither"),
        ("train adair_5d --data.root {empty} -o {run}", "Expected"),
        ("train adair -o {run}", "Expected a root folder"),
        ("train adair --data.root {pairs} --init {gone} -o {run}", "found"),
        ("evaluate {gone}", "found"),
        ("evaluate {empty}", "found"),
        (
            "evaluate {trained} --images -1",
            "--images must be at least 0, found -1",
        ),
    ],
)
def test_mistakes_end_in_one_sentence(pairs, run, tmp_path, call, argv, sentence):
    (tmp_path / "empty").mkdir()
    names = {"gone": tmp_path / "gone", "empty": tmp_path / "empty", "run": tmp_path / "run"}
    names["trained"] = run
    code, _, err = call(*argv.format(pairs=pairs, **names).split())
    assert code == 2
    assert sentence in err and "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_options_of_another_kind_of_data_are_refused(pairs, tmp_path, call):
    """They were taken, and without effect."""
    options = "--data.kind images --data.strict".split()
    code, _, err = call(*training(pairs, tmp_path / "run", *options))
    found = " ".join(err.replace("│", "").split())
    assert code == 2 and "no strict (found True, an option of adair, cdd11, dehazing)" in found
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--stages.0.patch 18", "multiple of 4, found 18"),
        ("--train.accum-steps 2 --stages.0.batch-size 3", "3 rows does not divide into 2"),
        ("--fsdp 3", "fsdp=3, tensor=1 does not fit"),
        ("--eval-tile 30", "tile must be a positive multiple of 4, found 30"),
        ("--eval-tile 32", "below the tile 32"),
        ("--eval-side 8", "--eval-side must be a whole number of at least 11 or None, found 8"),
        ("--eval-images -1", "--eval-images must be a whole number of at least 0 or None"),
        ("--data.held-out 0 --data.eval-root {pairs}/gone", "found no folder"),
        ("--network.width 16 --init {run}", "whose width is 4, found --network.width 16"),
        ("--init s3://bucket/run", "Expected a local folder or gs://BUCKET/FOLDER"),
        ("--train.patience 2", "patience must be None without best_metric and eval_every, found 2"),
        ("--train.profile 3:2", "profile must be FIRST:LAST, steps such as 10:13, found '3:2'"),
        ("--dry-run --train.best-metric fid", "'fid' is not among the metrics of the evaluation"),
    ],
)
def test_what_the_run_will_need_is_checked_before_it_starts(
    pairs, run, tmp_path, call, options, sentence
):
    options = options.format(pairs=pairs, run=run).split()
    code, _, err = call(*training(pairs, tmp_path / "run", *options))
    assert code == 2 and sentence in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_the_recipe_of_an_own_network_is_listed_and_has_its_options(call):
    code, out, _ = call("train", "--help")
    text = " ".join(out.replace("│", " ").split())
    assert code == 0 and "tiny Two convolutions on pairs of images." in text
    code, out, _ = call("train", "tiny", "--help-all")
    assert code == 0 and "--network.width" in out and "--model" not in out


def test_an_image_too_small_to_measure_is_named(run, tmp_path, call):
    for folder in ("clean", "degraded"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (40, 5)).save(tmp_path / folder / "strip.png")
    code, _, err = call("evaluate", run, "--data.kind", "pairs", "--data.root", tmp_path)
    assert code == 2 and "strip of pairs" in err and "7x7" in err


@pytest.mark.parametrize("network", ["tiny", pytest.param("adair", marks=pytest.mark.slow)])
def test_the_demo_makes_its_picture_and_is_reused(tmp_path, call, monkeypatch, network):
    if network == "tiny":
        data = Photos(tasks=("noise25", "noise50", "clean"))
        own = {"model": "tiny", "network": tiny_network.TinyConfig(), "data": data}
        monkeypatch.setitem(adair.RECIPES, "demo", lambda steps: demo(steps, 2, **own))
        hazy = own | {"data": Photos(tasks=("haze",))}
        monkeypatch.setitem(dea_net.RECIPES, "dea_net_demo", lambda: demo(2, 2, **hazy))
        drawn = tiny_network.NETWORK.init(jax.random.key(0), own["network"])
        made = SimpleNamespace(params=drawn)

        def found(source=None, **options):
            return made if source == "haze" else load(source, **options)

        monkeypatch.setattr("jaxcore.weights.load", found)
    argv = ["demo", "-o", tmp_path / "demo", "--steps", "2"]
    code, out, err = call(*argv)
    assert code == 0, err
    assert "jaxcore restore" in out and "haze" in out
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    wanted = {"noise25/psnr", "noise50/psnr", "haze/psnr", "haze/ssim_in", "clean/psnr"}
    assert wanted <= set(metrics)
    assert size_of(tmp_path / "demo" / "restored.png")[1] > 500
    code, _, err = call(*argv)
    assert code == 0 and "step 2/2" not in err
    monkeypatch.chdir(tmp_path)
    next_ones = [shlex.split(x.partition(" jaxcore ")[2]) for x in out.splitlines()]
    again, figures, _ = [argv for argv in next_ones if argv]  # what it says can be done next
    assert callable(parse(figures))
    code, _, err = call(*again)
    assert code == 0, err
    assert size_of(tmp_path / "restored.png") == (288, 288)


@pytest.mark.slow
def test_the_network_of_the_demo_leaves_clean_photographs_alone(tmp_path, call):
    assert call("demo", "-o", tmp_path / "demo")[0] == 0
    check_clean_photographs(load(tmp_path / "demo"))
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    for name, least in {"noise25": 27, "noise50": 24.5, "haze": 21, "clean": 30}.items():
        assert metrics[f"{name}/psnr"] >= least, name
