"""Commands for several numbers, what follows an estimate, and saved fits."""

import json

import numpy as np
import pytest

from jaxcore.estimators import IRM, PLR, load_fit

N = 120
QUICK = ["--ml-g", "ridge", "--ml-m", "ridge", "--folds", "2"]
COLUMNS = ["--outcome", "y", "--covariates", "x1", "x2"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 2))
    a, z = (np.arange(N) % 2).astype(int), np.arange(N) % 4 // 2
    columns = {
        "y": 2 * a + x[:, 0] + rng.normal(size=N),
        "a": a,
        "z": z,
        "taken": a * z,
        "arm": np.array(["none", "half", "full"])[np.arange(N) % 3],
        "dose": x[:, 1] + rng.normal(size=N),
        "x1": x[:, 0],
        "x2": x[:, 1],
        "town": np.arange(N) // 10,
        "year": 2000 + a,
        "start": np.where(z > 0, "2001", ""),
        "unit": np.arange(N) // 2,
        "first": np.where(np.arange(N) // 2 % 2, "2001", ""),
    }
    path = tmp_path_factory.mktemp("data") / "d.csv"
    lines = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join([",".join(columns), *lines]) + "\n")
    return path


@pytest.mark.parametrize(
    ("argv", "pictures", "names"),
    [
        (
            ["apos", *COLUMNS, "--treatment", "arm", "--reference", "none", *QUICK],
            ["weights.png", "balance.png"],
            ["full", "half", "none"],
        ),
        (
            ["qte", *COLUMNS, "--treatment", "a", "--quantiles", "0.25", "0.75", *QUICK],
            ["potential.png", "weights.png", "balance.png"],
            ["0.25", "0.75"],
        ),
        (
            [
                "did",
                "--outcome",
                "y",
                "--unit",
                "unit",
                "--time",
                "year",
                "--first",
                "first",
                *QUICK,
            ],
            [],
            ["ATT"],
        ),
        (
            ["did", "--outcome", "y", "--time", "year", "--first", "start", *QUICK],
            [],
            ["ATT"],
        ),
        (
            ["plr", *COLUMNS, "--treatment", "a,dose"]
            + ["--ml-l", "ridge", "--ml-m", "ridge", "--folds", "2"],
            [],
            ["a", "dose"],
        ),
    ],
    ids=lambda v: v[0] if v and isinstance(v[0], str) else "",
)
def test_reports(table, tmp_path, call, argv, pictures, names):
    out = tmp_path / "report"
    name, *options = argv
    code, said, err = call("estimate", name, str(table), *options, "-o", str(out))
    assert code == 0, err
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ["summary.txt", "estimate.json", "estimates.png", *pictures]
    )
    content = json.loads((out / "estimate.json").read_text())
    assert [row["name"] for row in content["estimates"]] == names
    assert (out / "summary.txt").read_text() in said


def test_what_follows_an_estimate(table, tmp_path, call):
    out, kept = tmp_path / "report", tmp_path / "fit"
    further = ["--sensitivity", "--benchmark", "x2", "--gate", "arm", "--cate", "x1", "--wild"]
    further += ["--policy", "x1", "--depth", "1", "--save", str(kept)]
    argv = ["--treatment", "a", "--clusters", "town", *COLUMNS, *QUICK, *further]
    code, said, err = call("estimate", "irm", str(table), *argv, "--report", str(out))
    assert code == 0, err
    drawn = {p.name for p in out.iterdir() if p.suffix == ".png"}
    assert drawn >= {"sensitivity.png", "gate.png", "cate.png", "overlap.png", "weights.png"}
    content = json.loads((out / "estimate.json").read_text())
    assert [r["name"] for r in content["gate"]] == ["full", "half", "none"]
    assert set(content["sensitivity"]["benchmarks"]) == {"x2"}
    assert content["wild_bootstrap"]["n_clusters"] == 12
    for words in ("robustness value", "as strong as x2", "wild cluster bootstrap", "whom to treat"):
        assert words in said
    fit = load_fit(kept)
    assert isinstance(fit.config, IRM) and fit.theta == content["estimate"]["estimate"]
    assert fit.sensitivity().robustness_value == content["sensitivity"]["robustness_value"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["apos", "--treatment", "arm", "--reference", "most"], "one of full, half, none as ref"),
        (["apos", "--treatment", "a,arm"], "Expected one treatment, found a, arm"),
        (["apos", "--treatment", "dose"], "at most 30 levels"),
        (["qte", "--treatment", "arm"], "or two levels"),
        (["qte", "--treatment", "a", "--quantiles", "2"], "between 0 and 1"),
        (["irm", "--treatment", "a", "--gate", "tow"], "did you mean 'town'?"),
        (["irm", "--treatment", "a", "--benchmark", "x1"], "--sensitivity with --benchmark"),
        (["irm", "--treatment", "a", "--save", "."], "new folder for --save"),
    ],
)
def test_mistakes_are_told_in_one_sentence(table, tmp_path, call, argv, message):
    name, *options = argv
    out = tmp_path / "r"
    code, _, err = call("estimate", name, str(table), *COLUMNS, *options, "-o", str(out))
    assert code == 2 and message in err and err.count("\n") == 1 and not out.exists()


def test_columns_of_a_panel_that_are_missing(table, tmp_path, call):
    for argv, message in (
        (["--outcome", "y"], "Expected --time, found none"),
        (["--outcome", "y", "--time", "year"], "Expected --first or --treatment"),
        (["--outcome", "y", "--time", "arm", "--first", "start"], "numbers in column 'arm'"),
    ):
        code, _, err = call("estimate", "did", str(table), *argv, "-o", str(tmp_path / "r"))
        assert code == 2 and message in err and err.count("\n") == 1


def test_settings_of_the_command_are_those_of_the_class(table, tmp_path, call):
    kept = tmp_path / "fit"
    argv = ["--treatment", "dose", *COLUMNS, "--ml-l", "ridge", "--ml-m", "ridge", "--folds", "3"]
    code, _, err = call(
        "estimate", "plr", str(table), *argv, "--save", str(kept), "-o", str(tmp_path / "r")
    )
    assert code == 0, err
    assert load_fit(kept).config == PLR(ml_l="ridge", ml_m="ridge", n_folds=3)
