"""Checks before a training: every mistake at once, and what is only worth a word."""

import numpy as np
import pytest

from jaxcore.data.geo.keyed import KeyedImages
from jaxcore.errors import UserError
from jaxcore.estimators.image_confounding.inputs import check_inputs
from jaxcore.estimators.image_confounding.overlap_report import overlap_report

RNG = np.random.default_rng(0)
PIXELS = RNG.normal(size=(4, 5, 5, 2)).astype(np.float32)
KEYS = ["d", "a", "a", "b", "c", "c"]
GOOD = {
    "treatment": [0, 1, 0, 1, 0, 1],
    "outcome": RNG.normal(size=6),
    "covariates": RNG.normal(size=(6, 2)),
    "unit_key": KEYS,
}


def _images(pixels=PIXELS, **fields):
    return KeyedImages(pixels, list("abcd"), **fields)


def _check(images=None, **changes):
    return check_inputs(_images() if images is None else images, **{**GOOD, **changes})


def test_units_find_their_images():
    found = _check()
    assert found.rows.tolist() == [3, 0, 0, 1, 2, 2] and found.X.shape == (6, 2)
    assert found.notices[-1].startswith("6 units share 4 images, 2 of which have treated and untr")
    alone = check_inputs(_images(), [0, 1, 1, 0], [1.0, 2.0, 3.0, 5.0])
    assert alone.rows.tolist() == [0, 1, 2, 3] and alone.notices == () and alone.X.shape == (4, 0)


def test_all_mistakes_are_said_at_once():
    pixels = PIXELS.copy()
    pixels[1, 0, 0, 0] = np.nan
    with pytest.raises(UserError) as error:
        _check(
            _images(pixels),
            treatment=[1] * 6,
            outcome=[np.inf, *range(5)],
            covariates=np.c_[np.ones(6), GOOD["covariates"]],
            unit_key=[*KEYS[:5], "x"],
        )
    first, *lines = str(error.value).splitlines()
    assert first == "Expected usable images and tables, found 5 mistakes:" and len(lines) == 5
    for line, words in zip(
        lines,
        (
            "finite outcome for every unit, found 1 of 6",
            "both 0 and 1 in the treatment, found only 1",
            "covariates that vary, found x1 constant",
            "found none for 1 of 6 units: keys x",
            "missing or infinite ones in 1 of 4 images (keys b)",
        ),
        strict=True,
    ):
        assert words in line


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"treatment": [0, 1, 2, 0, 1, 2]}, "or two levels, found 0, 1, 2"),
        ({"treatment": [0, 1, 0]}, "Expected 6 rows in the treatment, found 3"),
        ({"unit_key": KEYS[:4]}, "a key of an image for each of 6 units, found 4"),
        ({"covariates": np.full((6, 1), np.nan)}, "found 6 in x1"),
        ({"unit_key": [None, *KEYS[1:]]}, "found 1 missing"),
        (
            {"acquired": ["2000-01-01"] * 3 + ["2009-01-01"], "treated_on": "2008-06-01"},
            r"found 1 of 4 from that day or later \(keys d\)",
        ),
        ({"acquired": ["spring"] * 4, "treated_on": "2008-06-01"}, "Expected dates such as"),
        ({"acquired": ["2000-01-01"] * 4}, "one of the treatment"),
        ({"images": _images(np.ones_like(PIXELS))}, "found all of them constant"),
        (
            {"images": _images(np.full(PIXELS.shape, np.inf, np.float16))},
            r"4 of 4 images .* \(float16 ends at 65504\)",
        ),
        ({"images": _images(coords=np.full((4, 2), 5e5))}, "metres, or latitude first"),
    ],
)
def test_each_mistake_has_a_sentence(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        _check(**changes)


def test_what_is_only_worth_a_word():
    pixels = PIXELS.copy()
    pixels[2] = 7
    apart = np.array(GOOD["treatment"]) + RNG.uniform(0, 0.5, 6)
    found = _check(_images(pixels), covariates=apart, unit_key=["a", "b", "c", "a", "b", "c"])
    assert [text.split(":")[0][:40] for text in found.notices] == [
        "left out 1 of 4 images that no unit has",
        "perfect separation by x1",
        "6 units share 3 images, 3 of which have "[:40],
        "1 constant images (keys c)",
    ]


# --- the report on overlap ----------------------------------------------------------------------


def _drawn(n=300):
    e = RNG.uniform(0.05, 0.95, n)
    return (RNG.uniform(size=n) < e).astype(float), e


def test_a_report_holds_numbers_for_json_and_what_was_done():
    import json

    a, e = _drawn()
    coords = np.c_[RNG.uniform(30, 34, 300), RNG.uniform(0, 4, 300)]
    found = overlap_report(
        a, e, X=e[:, None], names=("e",), coords=coords, residuals=e - 0.5, trim=0.1, clip=0.12
    )
    stored = json.loads(json.dumps(found.to_dict()))
    assert stored["trimmed"] == int(np.sum((e <= 0.1) | (e >= 0.9)))
    assert stored["range"] == pytest.approx([0.12, 0.88]) and stored["clipped"] > 0
    before, after = stored["standardised_differences"]["e"]
    assert abs(after) < 0.3 * abs(before)
    assert sum(stored["histogram"]["treated"]) == pytest.approx(
        stored["share_treated"] * (300 - stored["trimmed"])
    )
    assert set(stored["place"]) == {"longitude", "latitude"} and stored["moran"]["p_value"] > 1e-4


def test_even_weights_of_a_blind_network_are_said_to_adjust_for_nothing():
    a, e = _drawn()
    hidden = e
    blind = overlap_report(a, np.full(300, 0.5) + RNG.normal(size=300) * 0.01, X=hidden[:, None])
    assert blind.effective_size["treated"] > 0.99 * a.sum()
    assert any("hardly tells who is treated" in text for text in blind.notices)
    assert any("not balanced by the weights" in text for text in blind.notices)


def test_a_report_needs_two_arms_and_propensities_inside():
    a, e = _drawn(20)
    with pytest.raises(UserError, match="clip or trim them"):
        overlap_report(a, np.where(a > 0, 1.0, e))
    with pytest.raises(UserError, match="Expected units of both arms, found 0 treated among 0 of"):
        overlap_report(a, np.where(a > 0, 0.99, 0.01), trim=0.1)
