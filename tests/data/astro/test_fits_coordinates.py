"""Places on the sky stay where they are when pixels change."""

import numpy as np
import pytest
from astropy.io.fits import Header
from astropy.wcs import WCS

from jaxcore.data.astro import pixel_scale, regrid
from jaxcore.errors import UserError

PLAIN = {
    "NAXIS1": 100,
    "NAXIS2": 80,
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 150.0,
    "CRVAL2": 60.0,
    "CRPIX1": 40.2,
    "CRPIX2": -7.5,
}
CD = {"CD1_1": -5e-5, "CD1_2": 1e-5, "CD2_1": 1e-5, "CD2_2": 5e-5}
STEPS = {"CDELT1": -5e-5, "CDELT2": 5e-5}
SIP = {
    "CTYPE1": "RA---TAN-SIP",
    "CTYPE2": "DEC--TAN-SIP",
    "A_ORDER": 3,
    "B_ORDER": 2,
    "A_2_0": 1e-4,
    "A_1_1": -2e-5,
    "A_0_3": 1e-6,
    "B_0_2": -1e-4,
    "B_1_1": 3e-5,
}
KINDS = {
    "cd": PLAIN | CD,
    "cdelt": PLAIN | STEPS,
    "crota": PLAIN | STEPS | {"CROTA2": 25.0},
    "pc": PLAIN | STEPS | {"PC1_1": 0.8, "PC1_2": -0.6, "PC2_1": 0.6, "PC2_2": 0.8},
    "sip": PLAIN | CD | SIP,
    "tpv": PLAIN | CD | {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 1.0, "PV1_4": 0.01},
    "cube": PLAIN | CD | {"CTYPE3": "FREQ", "CRPIX3": 1.0, "CRVAL3": 1e9, "CD3_3": 1e6},
    "galactic": PLAIN | STEPS | {"CTYPE1": "GLON-CAR", "CTYPE2": "GLAT-CAR", "CRVAL2": 0.0},
}


def where(header, x, y):
    return np.stack(WCS(header).celestial.all_pix2world(x, y, 0), -1)


@pytest.mark.filterwarnings("ignore")  # astropy's on headers that are not of the newest form
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("factor", "start"), [(4, (0, 0)), (3, (10, 20)), (1, (5, 3))])
def test_a_place_on_the_sky_keeps_its_place_in_the_image(kind, factor, start):
    """The edges of a coarse pixel are those of its fine ones, hence the halves."""
    header = Header(KINDS[kind])
    x, y = np.array([0.0, 50.0, 99.0]), np.array([0.0, 30.0, 79.0])
    new = regrid(header, factor=factor, start=start)
    fine = [(v - s + 0.5) * factor - 0.5 for v, s in ((x, start[1]), (y, start[0]))]
    np.testing.assert_allclose(where(new, *fine), where(header, x, y), atol=1e-9)
    assert pixel_scale(new) == pytest.approx(pixel_scale(header) / factor)
    assert "CD3_3" not in header or new["CD3_3"] == header["CD3_3"]


def test_other_coordinates_and_scales_change_too():
    cards = {"CRPIX1A": 1.0, "CDELT1A": 2.0, "LTV1": -10.0, "LTM1_1": 1.0, "PIXSCALE": 0.2}
    new = regrid(Header(PLAIN | STEPS | cards | {"DATASEC": "[1:100,1:80]"}), factor=2)
    assert (new["CRPIX1A"], new["CDELT1A"], new["PIXSCALE"]) == (1.5, 1.0, 0.1)
    # x = LTM * physical + LTV: the middle of pixel 1 is physical 11, at 1.5 of the fine pixels.
    assert new["LTM1_1"] * 11 + new["LTV1"] == 1.5
    assert "DATASEC" not in new


def test_coordinates_that_cannot_be_carried_over_are_refused():
    header = Header(PLAIN | CD | {"CPDIS1": "LOOKUP"})
    with pytest.raises(UserError, match=r"tables of distortions \(CPDIS1\)"):
        regrid(header, factor=2)
    assert regrid(header)["CPDIS1"] == "LOOKUP"  # the pixels stay


def test_an_image_without_coordinates_needs_none():
    assert pixel_scale(Header()) is None
    assert len(regrid(Header(), factor=2)) == 0
