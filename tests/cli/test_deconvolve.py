"""``jaxcore deconvolve``: FITS files in and out, what is said of them, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image

from jaxcore.convert import write_safetensors
from jaxcore.models import deconvolution as d
from jaxcore.models import sunet
from tests.tiny_weights import params, write_run
from tests.torch_bytes import write_nested

SIDE, SIGMA = 40, 2.0
PSF = d.moffat_psf((25, 25), 4.0)
SKY = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0}
SKY |= {"CRPIX1": 20.5, "CRPIX2": 20.5, "CDELT1": -5e-5, "CDELT2": 5e-5, "BUNIT": "nJy"}
QUICK = ("--method", "tikhonov", "--lam", "0.01")


def scene(seed=0, flux=20000.0):
    """A galaxy seen through the PSF, with noise."""
    rows, cols = np.indices((SIDE, SIDE)) - SIDE // 2
    galaxy = np.exp(-np.hypot(rows, 1.5 * cols) / 3)
    tf = np.fft.rfft2(np.fft.ifftshift(np.pad(PSF, ((8, 7), (8, 7)))))
    seen = np.fft.irfft2(np.fft.rfft2(flux * galaxy / galaxy.sum()) * tf, (SIDE, SIDE))
    return seen + np.random.default_rng(seed).normal(0, SIGMA, seen.shape)


def pixels_of(name, hdu=0):
    with fits.open(name) as file:
        return np.array(file[hdu].data)


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder with an image, its PSF and more."""
    monkeypatch.chdir(tmp_path)
    image = scene()
    fits.writeto("image.fits", image.astype(np.float32), fits.Header(SKY))
    fits.writeto("psf.fits", 2 * PSF)
    return tmp_path


def figures(folder="report"):
    return json.loads(Path(folder, "report.json").read_text())


def test_an_image_is_deconvolved_with_its_coordinates_and_history(there, call):
    code, out, err = call("deconvolve", "image.fits", "psf.fits", "-o", "out.fits", "--report", "r")
    assert code == 0, err
    assert "steps: sparse, debias; target 2 pixels" in out
    assert "note: The PSF sums to 2: it was normalised to 1." in out
    cards, pixels = fits.getheader("out.fits"), pixels_of("out.fits")
    before = pixels_of("image.fits")
    assert pixels.sum() == pytest.approx(before.sum(), rel=0.01)
    assert pixels.max() > 1.5 * before.max()
    assert (cards["BUNIT"], cards["CRPIX1"], cards["CDELT1"]) == ("nJy", 20.5, -5e-5)
    history = "".join(cards["HISTORY"])
    assert "PSF psf.fits" in history and "steps: sparse, debias" in history
    assert str(there) not in history
    told = figures("r")
    (plane,) = told["planes"]
    assert plane["noise"] == pytest.approx(SIGMA, rel=0.1) and 0.7 < plane["chi2"] < 1.3
    assert told["steps"] == ["sparse", "debias"]
    assert told["pixel_scale_arcsec"] == pytest.approx(0.18)
    with Image.open("r/steps.png") as picture:
        assert picture.size[0] > 300
    # Once more: nothing is replaced unless asked for, and nothing begun that cannot be finished.
    code, _, err = call("deconvolve", "image.fits", "psf.fits", "-o", "new.fits", "--report", "r")
    assert code == 2 and "report.json" in err and not Path("new.fits").exists()
    code, _, err = call("deconvolve", "image.fits", "psf.fits", "-o", "out.fits")
    assert code == 2 and "out.fits exists (use --overwrite)" in err


def test_finer_pixels_keep_flux_and_places_on_the_sky(there, call):
    fine = d.moffat_psf((51, 51), 8.0)
    scales = {"CDELT1": -2.5e-5, "CDELT2": 2.5e-5}
    fits.writeto("fine.fits", fine, fits.Header(SKY | scales))
    code, out, err = call("deconvolve", "image.fits", "fine.fits", "-o", "out.fits", *QUICK)
    assert code == 0, err
    assert "2 x finer" in out
    pixels, cards = pixels_of("out.fits"), fits.getheader("out.fits")
    assert pixels.shape == (2 * SIDE, 2 * SIDE)
    assert pixels.sum() == pytest.approx(pixels_of("image.fits").sum(), rel=0.01)
    corner = WCS(fits.getheader("image.fits")).all_pix2world(-0.5, -0.5, 0)
    np.testing.assert_allclose(WCS(cards).all_pix2world(-0.5, -0.5, 0), corner, atol=1e-9)
    # The noise that passes Tikhonov's filter, as astropy's CCDData has it: that of the blank sky.
    told, cards = pixels_of("out.fits", "UNCERT"), fits.getheader("out.fits", "UNCERT")
    assert cards["UTYPE"] == "StdDevUncertainty" and "uncertainty of a pixel" in out
    sky = np.concatenate([pixels[:16], pixels[-16:]])
    assert told.shape == pixels.shape and told.mean() == pytest.approx(sky.std(), rel=0.25)


def test_brightness_per_angle_is_kept_by_finer_pixels(there, call):
    image = pixels_of("image.fits")
    fits.writeto("bright.fits", image, fits.Header(SKY | {"BUNIT": "MJy/sr"}))
    options = ("-o", "out.fits", "--factor", "2", *QUICK)
    code, _, err = call("deconvolve", "bright.fits", "psf.fits", *options)
    assert code == 0, err
    assert pixels_of("out.fits").mean() == pytest.approx(image.mean(), rel=0.02)


@pytest.mark.parametrize("scale", [1e-18, 1e12])
def test_the_unit_does_not_matter(there, call, scale):
    """Squares of 1e-18 are zero in float32."""
    image = pixels_of("image.fits").astype(float)
    fits.writeto("scaled.fits", scale * image)
    options = ("--method", "tikhonov", "-o")
    for name in ("image", "scaled"):
        code, _, err = call("deconvolve", f"{name}.fits", "psf.fits", *options, f"{name}_out.fits")
        assert code == 0, err
    plain, scaled = pixels_of("image_out.fits"), pixels_of("scaled_out.fits") / scale
    np.testing.assert_allclose(scaled, plain, atol=1e-3 * plain.max())


def test_bands_have_their_psfs_masks_and_noise(there, call):
    cube = np.stack([scene(0), scene(1, 5000.0)]).astype(np.float32)
    cube[0, 3, 4] = np.nan
    bad = np.zeros((SIDE, SIDE), np.int16)
    bad[20:22, 20:22] = 4
    variance = np.full(cube.shape, SIGMA**2, np.float32)
    cards = fits.Header({"BUNIT": "nJy2"})
    planes = [fits.ImageHDU(cube, fits.Header(SKY), name="SCI"), fits.ImageHDU(bad, name="DQ")]
    planes.append(fits.ImageHDU(variance, cards, name="VAR"))
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto("cube.fits")
    fits.writeto("psfs.fits", np.stack([PSF, d.moffat_psf((25, 25), 5.0)]))
    options = ("--mask", "DQ", "--variance", "VAR", "--report", "report", *QUICK)
    code, out, err = call("deconvolve", "cube.fits", "psfs.fits", "-o", "out.fits", *options)
    assert code == 0, err
    assert "HDU 1 (SCI) of cube.fits, the first image: 2 x 40 x 40 pixels" in out
    assert "1 pixels without a value" in out and "8 pixels of the mask" in out
    pixels = pixels_of("out.fits", "SCI")
    assert pixels.shape == cube.shape and np.isfinite(pixels).all()
    assert pixels[0, 18:23, 18:23].sum() > 3 * pixels[1, 18:23, 18:23].sum()
    assert [p["noise"] for p in figures()["planes"]] == pytest.approx([SIGMA, SIGMA])
    assert {p.name for p in Path("report").iterdir()} == {
        "plane0.png",
        "plane1.png",
        "report.json",
    }


def test_a_network_is_the_second_of_three_steps(there, call):
    write_run(Path("its"), sunet.SUNetConfig.tiny(), "sunet", lam=0.02)
    options = ("--weights", "its", "--report", "report")
    code, out, err = call("deconvolve", "image.fits", "psf.fits", "-o", "out.fits", *options)
    assert code == 0, err
    assert "steps: tikhonov, sunet, debias; target none" in out
    told = figures()
    assert told["planes"][0]["lambda"] == pytest.approx(0.02)  # of its training
    # Random weights spoil the image; the third step gives back what is significant.
    assert pixels_of("out.fits").sum() == pytest.approx(pixels_of("image.fits").sum(), rel=0.3)


def test_several_networks_give_their_mean_and_what_they_differ_by(there, call):
    cfg = sunet.SUNetConfig.tiny()
    for seed in (1, 2):
        write_safetensors(f"{seed}.safetensors", sunet.to_torch(params(seed, cfg, sunet), cfg))
    options = ("--debias", "off", "--report", "report", "--weights", "1.safetensors", "--weights")
    both = ("deconvolve", "image.fits", "psf.fits", "-o", "both.fits", *options, "2.safetensors")
    code, out, err = call(*both)
    assert code == 0, err
    assert "steps: tikhonov, sunet; target none; mean of 2 networks" in out
    spread = pixels_of("both.fits", "UNCERT")
    assert spread.shape == (SIDE, SIDE) and spread.max() > 0
    assert figures()["networks"] == 2
    assert figures()["planes"][0]["uncertainty"] == pytest.approx(np.sqrt((spread**2).mean()), 1e-3)
    code, _, err = call(*both[:-1], "1.safetensors", "--overwrite")
    assert code == 2 and "found one of them twice" in err


def test_the_set_of_weights_is_chosen_and_said(there, call):
    cfg = sunet.SUNetConfig.tiny()
    one, average = (sunet.to_torch(params(seed, cfg, sunet), cfg) for seed in (1, 2))
    write_nested("both.pt", {"net": one, "net_ema": average})
    words = ("deconvolve", "image.fits", "psf.fits", "--weights", "both.pt", "-o")
    for name, chosen, other in (("a.fits", "net_ema", "net"), ("b.fits", "net", "net_ema")):
        code, out, err = call(*words, name, *(() if chosen == "net_ema" else ("--set", chosen)))
        assert code == 0, err
        assert f"taken from '{chosen}'; left alone: {other}" in out
    assert np.abs(pixels_of("a.fits") - pixels_of("b.fits")).max() > 0
    code, _, err = call(*words, "c.fits", "--set", "net_d")
    assert code == 2 and "found net, net_ema" in err


def test_point_sources_are_found_beside_the_galaxy(there, call):
    image = pixels_of("image.fits")
    star = d.shift_psf(np.pad(PSF, ((8, 7), (8, 7))) / PSF.sum(), np.array([-10.3, 8.4]))
    fits.writeto("star.fits", (image + 5000 * star).astype(np.float32), fits.Header(SKY))
    options = ("--method", "two-channel", "-o", "out.fits", "--point", "29", "11")
    code, out, err = call("deconvolve", "star.fits", "psf.fits", *options)
    assert code == 0, err
    assert "steps: two-channel, debias" in out and "point source 1 at 29.40 10." in out
    with fits.open("out.fits") as file:
        assert [hdu.name for hdu in file] == ["PRIMARY", "EXTENDED", "POINTS"]
        (found,) = file["POINTS"].data
        both, extended = file[0].data, file["EXTENDED"].data
        place = WCS(file[0].header).all_world2pix(found["RA"], found["DEC"], 1)
    assert (found["X"], found["Y"]) == pytest.approx((29.4, 10.7), abs=0.05)
    np.testing.assert_allclose(place, (found["X"], found["Y"]), atol=1e-3)
    assert found["FLUX"] == pytest.approx(5000, rel=0.02)
    assert (both - extended).sum() == pytest.approx(found["FLUX"], rel=0.01)
    assert extended[8:12, 26:31].max() < 0.05 * both[8:12, 26:31].max()


def test_a_large_image_has_a_picture_of_a_part_in_full_size(there, call):
    image = np.random.default_rng(0).normal(size=(40, 400)).astype(np.float32)
    image[18:22, 300:304] += 50
    fits.writeto("wide.fits", image)
    options = ("-o", "out.fits", "--report", "report", "--tile", "128", *QUICK)
    code, _, err = call("deconvolve", "wide.fits", "psf.fits", *options)
    assert code == 0, err
    names = {p.name for p in Path("report").iterdir()}
    assert names == {"steps.png", "detail_steps.png", "report.json"}


def test_correlated_noise_is_told_with_what_to_give(there, call):
    white = np.random.default_rng(0).normal(size=(64, 64))
    fits.writeto(
        "drizzled.fits", sum(np.roll(white, (i, j), (0, 1)) for i in (0, 1) for j in (0, 1))
    )
    for name, told in (("drizzled", True), ("image", False)):
        code, out, err = call(
            "deconvolve", f"{name}.fits", "psf.fits", "-o", f"{name}_out.fits", *QUICK
        )
        assert code == 0, err
        assert ("it is correlated, and --noise " in out) == told


def test_image_and_psf_that_seem_interchanged_are_asked_about(there, call):
    fits.writeto("one.fits", PSF / PSF.sum())
    fits.writeto("bright.fits", scene(flux=2e6))
    options = ("-o", "out.fits", "--noise", "1e-5", *QUICK)
    code, out, err = call("deconvolve", "one.fits", "bright.fits", *options)
    assert code == 0, err
    assert "are they interchanged?" in out


def test_an_empty_plane_stays_empty(there, call):
    fits.writeto("stack.fits", np.stack([scene(), np.zeros((SIDE, SIDE))]))
    code, out, err = call("deconvolve", "stack.fits", "psf.fits", "-o", "out.fits", *QUICK)
    assert code == 0, err
    assert "1 of 2 planes are empty" in out
    pixels = pixels_of("out.fits")
    assert pixels[0].max() > 100 and not pixels[1].any()


def test_a_folder_is_worked_off_and_one_bad_file_does_not_stop_the_rest(there, call):
    Path("night/one").mkdir(parents=True)
    for name in ("a.fits", "one/b.fits"):
        fits.writeto(Path("night", name), scene().astype(np.float32))
    Path("night/c.fits").write_bytes(b"nothing")
    Path("night/notes.txt").write_text("not an image")
    options = ("-o", "done", "--report", "r", *QUICK)
    code, out, err = call("deconvolve", "night", "psf.fits", *options)
    assert code == 2
    assert "2 of 3 files -> done" in out and "steps: tikhonov" in out
    assert "1 of 3 files were not deconvolved" in err and "night/c.fits" in err
    assert sorted(p.name for p in Path("done").rglob("*.fits")) == ["a.fits", "b.fits"]
    assert Path("r/a/report.json").exists() and Path("r/one/b/report.json").exists()


def test_pixels_of_no_variance_are_left_out(there, call):
    """Maps hold zeros where nothing was measured; as certain pixels they would be all there is."""
    variance = np.full((SIDE, SIDE), SIGMA**2)
    variance[:, :3] = 0
    fits.writeto("var.fits", variance)
    options = ("--variance", "var.fits", "--report", "report", *QUICK)
    code, _, err = call("deconvolve", "image.fits", "psf.fits", "-o", "out.fits", *options)
    assert code == 0, err
    assert figures()["planes"][0]["noise"] == pytest.approx(SIGMA)
    fits.writeto("weight.fits", np.where(variance > 0, 1 / np.maximum(variance, 1e-9), 0))
    options = ("--inverse-variance", "weight.fits", *QUICK)
    code, _, err = call("deconvolve", "image.fits", "psf.fits", "-o", "same.fits", *options)
    assert code == 0, err
    np.testing.assert_allclose(pixels_of("same.fits"), pixels_of("out.fits"), rtol=1e-4, atol=1e-3)


def test_a_result_that_was_interrupted_leaves_nothing(there, call, monkeypatch):
    from jaxcore.cli import deconvolving

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(deconvolving, "measure", stop)
    code, _, _ = call("deconvolve", "image.fits", "psf.fits", "-o", "new/out.fits", *QUICK)
    assert code == 130 and not Path("new").exists()


WRONG = {
    "no file": ("gone.fits psf.fits -o o.fits", "found nothing at gone.fits"),
    "no psf": ("image.fits gone.fits -o o.fits", "Expected a PSF in a FITS file"),
    "no fits": ("text.fits psf.fits -o o.fits", "found another kind"),
    "a table": ("table.fits psf.fits -o o.fits --hdu 1", "found a table"),
    "no such hdu": ("image.fits psf.fits -o o.fits --hdu SCI", "found no HDU SCI"),
    "psf of NaN": ("image.fits nan.fits -o o.fits", "Expected a finite PSF"),
    "negative psf": ("image.fits negative.fits -o o.fits", "without negative pixels"),
    "psf larger": ("image.fits large.fits -o o.fits", "Expected --factor"),
    "too many psfs": ("image.fits three.fits -o o.fits", "one for each of the 1 planes"),
    "mask of another size": ("image.fits psf.fits -o o.fits --mask large.fits", "40 x 40 pixels"),
    "unit of the variance": ("image.fits psf.fits -o o.fits --variance unit.fits", "square of"),
    "magnitudes": ("mag.fits psf.fits -o o.fits", "pixels that add up"),
    "all masked": (
        "image.fits psf.fits -o o.fits --mask ones.fits",
        "that --mask leaves, found",
    ),
    "no noise": ("flat.fits psf.fits -o o.fits", "give --noise"),
    "name of the output": ("image.fits psf.fits -o o.png", "named .fits"),
    "onto the image": ("image.fits psf.fits -o image.fits --overwrite", "other than the image"),
    "lam": ("image.fits psf.fits -o o.fits --method tikhonov --lam x", "positive number or one"),
    "lam alone": ("image.fits psf.fits -o o.fits --lam 0.1", "with --method tikhonov"),
    "noise": ("image.fits psf.fits -o o.fits --noise -1", "above 0"),
    "points": ("image.fits psf.fits -o o.fits --point 3 4", "--method two-channel for --point"),
    "a point outside": (
        "image.fits psf.fits -o o.fits --method two-channel --point 3 41",
        "from 1 to 40 and from 1 to 40, found 3 41",
    ),
    "two units": ("bands.fits psf.fits -o o.fits --hdu 1 2", "Expected the unit of"),
    "bands of two sizes": ("bands.fits psf.fits -o o.fits --hdu 1 3", "bands of one size"),
    "network": ("image.fits psf.fits -o o.fits --weights gone", "found nothing at gone"),
    "target wider than the psf": ("image.fits sharp.fits -o o.fits", "wider than that of the"),
    "variance below 0": ("image.fits psf.fits -o o.fits --variance below.fits", "at least 0"),
    "lookup tables": ("tables.fits psf.fits -o o.fits --factor 2", "tables of distortions"),
}


@pytest.fixture
def wrong(there):
    ones = np.ones((SIDE, SIDE), np.float32)
    image = scene().astype(np.float32)
    Path("text.fits").write_text("no image at all")
    table = fits.BinTableHDU.from_columns([fits.Column("x", "E", array=np.ones(3))])
    fits.HDUList([fits.PrimaryHDU(), table]).writeto("table.fits")
    fits.writeto("nan.fits", np.full((5, 5), np.nan))
    fits.writeto("negative.fits", PSF - 3e-4)
    fits.writeto("large.fits", d.gaussian_psf((80, 80), 4.0))
    fits.writeto("sharp.fits", d.gaussian_psf((25, 25), 1.7))
    fits.writeto("below.fits", -ones)
    fits.writeto("three.fits", np.stack([PSF] * 3))
    fits.writeto("unit.fits", ones, fits.Header({"BUNIT": "nJy"}))
    fits.writeto("mag.fits", image, fits.Header({"BUNIT": "mag/arcsec2"}))
    fits.writeto("ones.fits", ones)
    flat = np.zeros((SIDE, SIDE), np.float32)
    flat[20, 20] = 1
    fits.writeto("flat.fits", flat)
    units = [fits.Header({"BUNIT": unit}) for unit in ("nJy", "s", "nJy")]
    sides = (image, image, image[:20])
    hdus = [fits.ImageHDU(a, h) for a, h in zip(sides, units, strict=True)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto("bands.fits")
    fits.writeto("tables.fits", image, fits.Header(SKY | {"CPDIS1": "LOOKUP"}))
    return there


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_ends_in_one_sentence_and_leaves_nothing(wrong, call, kind):
    argv, sentence = WRONG[kind]
    before = {p: p.stat().st_mtime_ns for p in wrong.iterdir()}
    code, _, err = call("deconvolve", *argv.split())
    assert code == 2 and sentence in err
    assert len(err.splitlines()) == 1 and err.startswith("jaxcore: ")
    assert {p: p.stat().st_mtime_ns for p in wrong.iterdir()} == before
