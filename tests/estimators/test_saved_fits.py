"""A saved fit is the same fit in a fresh process; what is no saved fit is refused in a sentence."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jaxcore.errors import UserError
from jaxcore.estimators import APOS, DID, IIVM, IRM, LQTE, PLR, QTE, load_fit
from jaxcore.estimators.double_ml import DoubleMLResult
from jaxcore.estimators.several import QTEResult

N = 80
RIDGE = {"ml_g": "ridge", "ml_m": "ridge", "n_folds": 2}
FRESH = """
import sys
from jaxcore.estimators import load_fit
for path in sys.argv[1:]:
    fit = load_fit(path)
    print(fit.summary())
print(load_fit(sys.argv[1]).sensitivity().summary())
"""


@pytest.fixture(scope="module")
def fits():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 2))
    z = (np.arange(N) % 2).astype(float)
    a = (rng.uniform(size=N) < 0.2 + 0.6 * z).astype(float)
    y = 1.5 * a + x[:, 0] + rng.normal(size=N)
    town, level = np.arange(N) // 4, np.array(["low", "mid", "top"])[np.arange(N) % 3]
    doses = x[:, :1] + rng.normal(size=(N, 2))
    panel = {"id": np.repeat(np.arange(N), 3), "t": np.tile(np.arange(3.0), N)}
    panel["start"] = np.repeat(np.where(z > 0, 2.0, np.nan), 3)
    panel["y"] = rng.normal(size=3 * N) + (panel["t"] >= panel["start"])
    roles = {"outcome": "y", "unit": "id", "time": "t", "first": "start"}
    rest = {"ml_l": "ridge", "ml_m": "ridge", "n_folds": 2}
    at = {"quantiles": (0.25, 0.75)}
    iivm = IIVM(ml_r="ridge", **RIDGE)
    return {
        "irm": IRM(n_rep=2, **RIDGE).fit(y, a, x, clusters=town),
        "iivm": iivm.fit(y, a, z, x, weights=1 + z),
        "plr": PLR(**rest).fit_several(y, doses, x, treatments=["dose", "time"]),
        "apos": APOS(n_rep=2, reference="mid", **RIDGE).fit(y, level, x),
        "qte": QTE(**RIDGE, **at).fit(y, a, x),
        "lqte": LQTE(ml_r="ridge", **RIDGE, **at).fit(y, a, z, x),
        "did": DID(**RIDGE).fit_frame(panel, **roles),
    }


@pytest.fixture(scope="module")
def folders(fits, tmp_path_factory):
    home = tmp_path_factory.mktemp("fits")
    for name, fit in fits.items():
        fit.save(home / name)
    return home


def test_a_fresh_process_finds_the_same(fits, folders):
    paths = [str(folders / name) for name in ("irm", "apos")]
    done = subprocess.run([sys.executable, "-c", FRESH, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = [fits["irm"].summary(), fits["apos"].summary()]
    expected.append(fits["irm"].sensitivity().summary())
    assert done.stdout == "\n".join(expected) + "\n"


def test_everything_that_follows_a_fit_follows_a_loaded_one(fits, folders):
    loaded = {name: load_fit(folders / name) for name in fits}
    for name, fit in fits.items():
        assert loaded[name].summary() == fit.summary()
        np.testing.assert_array_equal(loaded[name].confint(), fit.confint())
    level = fits["irm"].sample.X[:, 0] > 0
    one, same = fits["irm"], loaded["irm"]
    np.testing.assert_array_equal(one.gate(level).theta, same.gate(level).theta)
    assert one.config == same.config and one.to_dict() == same.to_dict()
    assert loaded["iivm"].robust_set() == fits["iivm"].robust_set()
    dose = loaded["plr"]["dose"]
    assert dose.sensitivity() == fits["plr"]["dose"].sensitivity()
    contrasts = loaded["apos"].contrasts("low")
    np.testing.assert_array_equal(contrasts.psi, fits["apos"].contrasts("low").psi)
    by_group = loaded["did"].aggregate("group")
    np.testing.assert_array_equal(by_group.se, fits["did"].aggregate("group").se)
    for name, fit in loaded.items():
        drawn = fit.report().pictures
        assert tuple(drawn) == tuple(fit.report_pictures), name


def test_other_folders_are_refused(fits, folders, tmp_path):
    with pytest.raises(UserError, match="found a DoubleMLResult"):
        QTEResult.load(folders / "irm")
    with pytest.raises(UserError, match="Expected the name of a new folder"):
        fits["irm"].save(folders / "irm")
    with pytest.raises(UserError, match="Expected"):
        load_fit(tmp_path / "absent")
    assert isinstance(DoubleMLResult.load(folders / "irm"), DoubleMLResult)


@pytest.mark.parametrize(
    "change",
    [
        {"estimator": "none"},
        {"settings": {}},
        {"settings": {"ml_g": {"learner": "Popen", "settings": {"mapping": {}}}}},
        {"settings": {"n_folds": "many"}},
        {"covariates": 3},
        {"format": "another"},
        {"notices": None},
    ],
)
def test_damaged_settings_end_in_one_sentence(folders, tmp_path, change):
    copy = tmp_path / "copy"
    shutil.copytree(folders / "lqte", copy)
    meta = json.loads((copy / "config.json").read_text())
    if change == {"settings": {}}:
        del meta["settings"]
    else:
        meta |= change
    (copy / "config.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match=r"^(Expected|Unknown)[^\n]*$"):
        load_fit(copy)


def test_damaged_arrays_end_in_one_sentence(folders, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folders / "qte", copy)
    largest = max((p for p in copy.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 255
    largest.write_bytes(content)
    with pytest.raises(UserError, match=r"^Expected[^\n]*$"):
        load_fit(copy)


def test_learners_from_outside_leave_their_names(tmp_path):
    from sklearn.linear_model import LinearRegression

    rng = np.random.default_rng(0)
    x, a = rng.normal(size=(N, 2)), rng.normal(size=N)
    fit = PLR(ml_l=LinearRegression(), ml_m="ridge", n_folds=2).fit(a + x[:, 0], a, x)
    fit.save(tmp_path / "fit")
    same = load_fit(tmp_path / "fit")
    assert same.summary() == fit.summary() and "LinearRegression" in same.summary()
    with pytest.raises(UserError, match="give it again"):
        same.config.fit(a + x[:, 0], a, x)
