"""``jaxcore estimate``: a report from a file, and mistakes with exit code 2."""

import json

import jax
import numpy as np
import pytest

from jaxcore.cli import main
from jaxcore.estimators.selective_iv import SelectiveIV
from jaxcore.estimators.selective_iv.simulate import simulate_siv1

FILES = ("summary.txt", "estimate.json", "estimates.png", "overlap.png", "pseudo_risk.png")

COLUMNS = ["--outcome", "y", "--treatment", "a", "--instrument", "z"]
QUICK = ["--learners", "lin", "--folds", "2"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    with jax.enable_x64(True):
        s = jax.device_get(simulate_siv1(jax.random.key(0), 500))
    path = tmp_path_factory.mktemp("data") / "d.csv"
    rows = np.c_[s.Y, s.A, s.Z, s.X]
    np.savetxt(path, rows, delimiter=",", header="y,a,z,x1,x2", comments="", fmt="%.17g")
    return path, s


@pytest.mark.newest
def test_report_of_a_csv(table, tmp_path, capsys):
    path, s = table
    out = tmp_path / "report"
    argv = ["estimate", "selective-iv", str(path), *COLUMNS, "--covariates", "x1", "x2", *QUICK]
    main([*argv, "-o", str(out)])
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    found = json.loads((out / "estimate.json").read_text())
    ours = SelectiveIV(learners=("lin",), n_folds=2).fit(s.Y, s.A, s.Z, s.X)
    assert abs(found["estimate"]["estimate"] - ours.theta) < 1e-9
    assert (out / "summary.txt").read_text() in capsys.readouterr().out
    for name in FILES[2:]:
        assert (out / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    _ = capsys.readouterr()
    with pytest.raises(SystemExit) as stop:  # before the work, however wrong the rest is
        main(["estimate", "selective-iv", "absent.csv", *COLUMNS, "-o", str(out)])
    assert stop.value.code == 2
    assert "Expected a new folder, or --overwrite" in capsys.readouterr().err


def test_names_of_columns_can_do_nothing_to_a_terminal(tmp_path, capsys):
    path = tmp_path / "d.csv"
    path.write_text("y,a,\x1b]0;owned\x07\n1,2,3\n")
    with pytest.raises(SystemExit) as stop:
        main(["estimate", "selective-iv", str(path), *COLUMNS, "-o", str(tmp_path / "report")])
    assert stop.value.code == 2
    assert r"found y, a, \x1b]0;owned\x07" in capsys.readouterr().err


def test_formula_gives_the_same(table, tmp_path):
    pytest.importorskip("formulaic")
    path, s = table
    out = tmp_path / "report"
    main(
        [
            "estimate",
            "selective-iv",
            str(path),
            "--formula",
            "y ~ a | z | x1 + x2",
            *QUICK,
            "-o",
            str(out),
        ]
    )
    found = json.loads((out / "estimate.json").read_text())
    ours = SelectiveIV(learners=("lin",), n_folds=2).fit(s.Y, s.A, s.Z, s.X)
    assert abs(found["estimate"]["estimate"] - ours.theta) < 1e-9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--covariates", "x3"], "Expected a column 'x3'"),
        (["--covariates", "x1", "--treatment", "x2"], "only 0 and 1 in the treatment"),
        (["--covariates", "x1", "--level", "95"], "between 0 and 1"),
        (["--covariates", "x1", "--formula", "y ~ a | z | x1"], "found both"),
        (["--covariates", "x1", "--learners", "forest"], "a basis of"),
        (["--covariates", "x1", "x1"], "twice"),
    ],
)
def test_mistakes_end_in_one_sentence_and_nothing_written(table, tmp_path, capsys, change, message):
    argv = ["estimate", "selective-iv", str(table[0]), *COLUMNS, "-o", str(tmp_path / "r"), *QUICK]
    with pytest.raises(SystemExit) as stop:
        main([*argv, *change])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_missing_options_and_files(table, tmp_path, capsys):
    for argv, message in (
        ([str(table[0]), "-o", str(tmp_path / "r")], "--outcome"),
        ([str(tmp_path / "no.csv"), *COLUMNS, "-o", str(tmp_path / "r")], "found no file"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["estimate", "selective-iv", *argv])
        assert stop.value.code == 2 and message in capsys.readouterr().err


PLAIN = ["--outcome", "y", "--treatment", "a", "--covariates", "x1", "x2", "--folds", "2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--ml-g", "rigde"], "one of lasso, ridge, linear, spline, boosting, stack, stack:A,B"),
        (["--ml-g", "rigde"], "for ml_g, found 'rigde' (did you mean 'ridge'?)"),
        (["--ml-m", "stack:ridge"], "two learners or more after stack: for ml_m"),
        (["--ml-m", ""], "for ml_m, found ''"),
    ],
)
def test_wrong_names_of_learners_end_in_one_sentence(table, tmp_path, capsys, change, message):
    with pytest.raises(SystemExit) as stop:
        main(["estimate", "irm", str(table[0]), *PLAIN, *change, "-o", str(tmp_path / "r")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_learners_are_tuned_and_stacked_on_request(table, tmp_path):
    out = tmp_path / "report"
    learners = ["--ml-g", "stack:linear,ridge", "--ml-m", "ridge", "--tune"]
    main(["estimate", "irm", str(table[0]), *PLAIN, *learners, "-o", str(out)])
    found = json.loads((out / "estimate.json").read_text())
    assert len(found["tuning"]) == 6 and sum(row["chosen"] for row in found["tuning"]) == 2
    text = (out / "summary.txt").read_text()
    assert "P(A=1|X): Best(6 of Logistic)" in text and "inner log-loss with alpha=" in text
    assert "Stack(Best(" in text


def test_bases_have_nothing_to_tune(table, tmp_path, capsys):
    argv = [str(table[0]), *COLUMNS, "--covariates", "x1", *QUICK, "--tune"]
    with pytest.raises(SystemExit) as stop:
        main(["estimate", "selective-iv", *argv, "-o", str(tmp_path / "r")])
    assert stop.value.code == 2 and "found bases" in capsys.readouterr().err
