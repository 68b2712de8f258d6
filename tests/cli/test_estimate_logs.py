"""``jaxcore estimate deconfound``: logs in, rewards and a report out, or one sentence."""

import json

import numpy as np
import pytest

from jaxcore.cli import main
from jaxcore.estimators import load_fit
from jaxcore.estimators.deconfound.simulate import entangled_headlines


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    made = entangled_headlines(600, seed=1)
    path = tmp_path_factory.mktemp("logs") / "logs.jsonl"
    rows = [
        {
            "text": text,
            "outcome": y,
            "confounders": {"popularity": c},
            "instruments": {"slot": z},
            "groups": {"author": f"a{i % 30}"},
        }
        for i, (text, y, c, z) in enumerate(
            zip(made.texts(), made.Y.tolist(), made.C.tolist(), made.Z.tolist(), strict=True)
        )
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_logs_become_rewards_and_a_report(logs, tmp_path, capsys):
    out, report = tmp_path / "adjusted.jsonl", tmp_path / "report"
    argv = ["estimate", "deconfound", str(logs), "--route", "iv", "-o", str(out)]
    main([*argv, "--report", str(report), "--clusters", "author", "--save", str(tmp_path / "fit")])
    said = capsys.readouterr().out
    for words in (
        "first-stage F",
        "by route",
        "Hausman, iv against plm",
        "errors off",
        "No data can tell",
        "30 clusters",
    ):
        assert words in said
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    source = [json.loads(line) for line in logs.read_text().splitlines()]
    delta = json.loads((report / "estimate.json").read_text())["estimates"][0]["estimate"]
    assert delta == pytest.approx(2, abs=0.4)
    c = np.array([r["confounders"]["popularity"] for r in source])
    y = np.array([r["outcome"] for r in source])
    np.testing.assert_allclose([r["reward"] for r in rows], y - delta * (c - c.mean()), atol=1e-9)
    assert {"sensitivity.png", "routes.png", "summary.txt"} <= {p.name for p in report.iterdir()}
    again = load_fit(tmp_path / "fit")
    np.testing.assert_allclose(again.adjusted_reward, [r["reward"] for r in rows])


def test_the_text_itself_serves_where_there_is_no_instrument(logs, tmp_path, capsys):
    out = tmp_path / "adjusted.jsonl"
    argv = ["estimate", "deconfound", str(logs), "--route", "plm", "--words", "40", "--folds", "2"]
    main([*argv, "-o", str(out)])
    said = capsys.readouterr().out
    assert "Hausman, plm against iv" in said and "left by the text" in said


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--route", "iv", "--instruments", "rank"], "instruments among slot, found 'rank'"),
        (["--route", "fe", "--groups", "week"], "groups among author, found 'week'"),
        (["--route", "iv", "--clusters", "week"], "groups among author, found 'week'"),
        (["--route", "plm", "--folds", "1000"], "folds"),
        (["--route", "iv", "--level", "2"], "between 0 and 1"),
    ],
)
def test_wrong_input_ends_in_one_sentence_and_no_file(logs, tmp_path, more, words, capsys):
    out = tmp_path / "adjusted.jsonl"
    with pytest.raises(SystemExit) as raised:
        main(["estimate", "deconfound", str(logs), "-o", str(out), *more])
    said = capsys.readouterr().err
    assert raised.value.code == 2 and words in said and said.count("\n") == 1
    assert not out.exists()


def test_a_file_that_is_there_is_not_written_over(logs, tmp_path, capsys):
    out = tmp_path / "adjusted.jsonl"
    out.write_text("mine")
    with pytest.raises(SystemExit):
        main(["estimate", "deconfound", str(logs), "--route", "ols_c", "-o", str(out)])
    assert "new name" in capsys.readouterr().err and out.read_text() == "mine"
