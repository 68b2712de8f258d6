"""Tables for terminals, pages, papers and notebooks; hostile names do nothing in any of them."""

import re

import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators import PLR
from jaxcore.estimators.estimate import Estimate
from jaxcore.estimators.tables import side_by_side

N = 80
NASTY = "x_1 & <b>50%</b> | $\\alpha$ \x1b[2J"


@pytest.fixture(scope="module")
def fit():
    rng = np.random.default_rng(0)
    x, a = rng.normal(size=(N, 2)), (np.arange(N) % 2).astype(float)
    frame = {"net_tfa": a + x[:, 0] + rng.normal(size=N), "a": a, NASTY: x[:, 0], "b": x[:, 1]}
    settings = PLR(ml_l="ridge", ml_m="ridge", n_folds=2, seed=7)
    return settings.fit_frame(frame, outcome="net_tfa", treatment="a", covariates=[NASTY, "b"])


def test_the_header_says_what_was_done(fit):
    told = fit.summary().splitlines()[1]
    for part in ("outcome: net_tfa", "treatment: a", "covariates: 2 (x_1", "folds: 2", "seed: 7"):
        assert part in told
    assert re.search(r"jaxcore: \d+\.\d+", told) and "\x1b" not in told


def test_every_form_has_the_numbers_and_escapes_names(fit):
    number = f"{fit.theta:.6g}"
    for form in ("text", "markdown", "latex", "html"):
        told = fit.summary(0.9, form)
        assert number in told and "90%" in told.replace("\\", "") and "\x1b" not in told
    assert "<b>" not in fit.summary(form="html") and fit._repr_html_() == fit.summary(form="html")
    assert r"x\_1 \& \textless{}b\textgreater{}50\%" in fit.summary(form="latex")
    assert r"net\_tfa" in fit.summary(form="markdown")
    with pytest.raises(UserError, match="a form of text, markdown, latex, html, found 'pdf'"):
        fit.summary(form="pdf")


def test_rows_of_a_latex_table_have_as_many_cells_as_its_columns(fit):
    lines = fit.summary(form="latex").splitlines()
    [layout] = re.findall(r"begin\{tabular\}\{(\w+)\}", "\n".join(lines))
    rows = lines[lines.index(r"\toprule") + 1 : lines.index(r"\bottomrule")]
    cells = [len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows if row != r"\midrule"]
    assert cells == [len(layout)] * 2


def test_several_estimates_side_by_side(fit):
    other = Estimate(
        theta=np.array([1.0, 2.0]), se=np.ones(2), psi=np.zeros((5, 2)), names=("theta", "b")
    )
    told = side_by_side({"mine": fit, "theirs": other}, level=0.9).splitlines()
    cells = {line.split()[0]: line.split()[1:] for line in told[3:]}
    assert cells["theta"] == [f"{fit.theta:.4g}", "1"] and cells["b"] == ["2"]
    assert cells["units"] == [str(N), "5"] and cells["folds"] == ["2"]
    assert side_by_side({"mine": fit}, form="latex").count(r"\\") > 6
    with pytest.raises(UserError, match="at least one estimate"):
        side_by_side({})
