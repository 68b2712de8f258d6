"""``jaxcore serve``: the page on this machine, and what it refuses."""

import http.client
import json
import shutil
import threading
import urllib.parse

import numpy as np
import pytest
from PIL import Image

from jaxcore.cli.web import Limits, Page
from jaxcore.data.images import read_rgb
from jaxcore.errors import UserError
from jaxcore.models.base import ImageNetwork

LIMITS = Limits(bytes=200_000, pixels=600 * 700, seconds=60)


class Visitor:
    """Asks a page."""

    def __init__(self, address):
        self.address = address

    def __call__(self, method, path, body=None, **headers):
        place = urllib.parse.urlsplit(self.address).netloc
        connection = http.client.HTTPConnection(place, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer, content


@pytest.fixture
def serving(weights, run):
    """A page with a file and a run to choose among, and who asks it."""
    pages = []

    def start(limits=LIMITS):
        page = Page([weights / "tiny.pth", run], 0, limits)
        thread = threading.Thread(target=page.serve, daemon=True)
        thread.start()
        pages.append((page, thread))
        return Visitor(page.address)

    yield start
    for page, thread in pages:
        page.stop()
        thread.join()
        page.__exit__(None, None, None)


@pytest.fixture
def inverted(monkeypatch):
    seen = []

    def restore(self, params, pixels, cfg, *, progress=None, **options):
        seen.append(options)
        for done in range(1, 4):
            if progress is not None:
                progress(done, 3)
        return 1 - pixels

    monkeypatch.setattr(ImageNetwork, "restore", restore)
    return seen


def picture(tmp_path, name="a.png", height=30, width=40):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
    return pixels, (tmp_path / name).read_bytes()


def path(model, name="photo.png"):
    return "/restore?" + urllib.parse.urlencode({"model": str(model), "name": name})


def test_a_picture_is_restored_by_a_file_and_by_a_run(serving, inverted, weights, run, tmp_path):
    ask = serving()
    answer, html = ask("GET", "/")
    assert answer.status == 200 and b"Restore a photograph" in html
    assert b"http:" not in html and b"https:" not in html  # nothing is fetched from elsewhere
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    _, content = ask("GET", "/models")
    names = [one["name"] for one in json.loads(content)["models"]]
    assert names[:2] == [str(weights / "tiny.pth"), str(run)] and "noise" in names
    pixels, body = picture(tmp_path)
    for model in names[:2]:
        answer, content = ask("POST", path(model), body, X_Jaxcore="page")
        found = json.loads(content)
        assert answer.status == 200, found
        assert found["name"] == "photo_restored.png" and found["said"].startswith("40x30 pixels")
        _, restored = ask("GET", found["download"])
        (tmp_path / "b.png").write_bytes(restored)
        np.testing.assert_array_equal(read_rgb(tmp_path / "b.png"), 255 - pixels)
        for which in ("before", "after"):
            answer, content = ask("GET", found[which])
            assert answer.headers["Content-Type"] == "image/jpeg" and content[:2] == b"\xff\xd8"
    assert inverted[-1]["tile"] is None


def test_large_pictures_are_cut_and_end_in_time(serving, inverted, weights, tmp_path):
    ask = serving(Limits(bytes=10**7, pixels=10**6, seconds=0))
    _, body = picture(tmp_path, "a.jpg", 600, 650)
    answer, content = ask("POST", path(weights / "tiny.pth"), body, X_Jaxcore="page")
    assert answer.status == 400 and "takes more than 0 s" in json.loads(content)["error"]
    assert inverted[-1]["tile"] == 512
    answer, _ = ask("GET", "/")
    assert answer.status == 200


def test_no_file_is_reachable(serving):
    ask = serving()
    for place in (
        *("/etc/passwd", "/../pyproject.toml", "/%2e%2e/pyproject.toml", "/page.html"),
        *("/result/x/before", "/result/../../etc/passwd", "//etc/passwd", "/file=/etc/passwd"),
    ):
        answer, _ = ask("GET", place)
        assert answer.status == 404, place


def test_what_other_pages_or_hosts_send_is_refused(serving, weights, tmp_path):
    ask = serving()
    _, body = picture(tmp_path)
    assert ask("POST", path(weights / "tiny.pth"), body)[0].status == 403
    assert ask("GET", "/", Host="evil.example:7860")[0].status == 403
    assert ask("POST", path("noise"), body, Host="evil.example", X_Jaxcore="page")[0].status == 403


@pytest.mark.parametrize(
    ("body", "model", "status", "sentence"),
    [
        (b"no picture", None, 400, "other or damaged content in photo.png"),
        (b"x" * 200_001, None, 413, "at most 0.2 MB"),
        (b"", None, 413, "at most 0.2 MB"),
        (b"x", "/etc/passwd", 400, "Expected a network of the list"),
        ("wide", None, 400, "at most 1,260,000 bytes of pixels"),
    ],
)
def test_what_is_too_large_or_no_picture_ends_in_a_sentence(
    serving, weights, tmp_path, body, model, status, sentence
):
    ask = serving()
    if body == "wide":
        Image.new("RGB", (800, 800)).save(tmp_path / "a.png")
        body = (tmp_path / "a.png").read_bytes()
    answer, content = ask("POST", path(model or weights / "tiny.pth"), body, X_Jaxcore="page")
    assert answer.status == status and sentence in json.loads(content)["error"]


def test_one_picture_at_a_time(serving, weights, tmp_path, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def restore(self, params, pixels, cfg, **options):
        begun.set()
        assert go_on.wait(30)
        return pixels

    monkeypatch.setattr(ImageNetwork, "restore", restore)
    ask = serving()
    _, body = picture(tmp_path)
    words = ("POST", path(weights / "tiny.pth"), body)
    answers = []
    first = threading.Thread(target=lambda: answers.append(ask(*words, X_Jaxcore="page")))
    first.start()
    assert begun.wait(30)
    answer, content = ask(*words, X_Jaxcore="page")
    assert answer.status == 503 and "Another picture" in json.loads(content)["error"]
    go_on.set()
    first.join()
    assert answers[0][0].status == 200


def test_few_results_are_kept(serving, inverted, weights, tmp_path):
    ask = serving()
    _, body = picture(tmp_path)
    found = [
        json.loads(ask("POST", path(weights / "tiny.pth"), body, X_Jaxcore="page")[1])
        for _ in range(4)
    ]
    assert ask("GET", found[0]["after"])[0].status == 404
    assert ask("GET", found[-1]["after"])[0].status == 200


def test_what_cannot_be_served_is_told(call, weights, tmp_path):
    code, _, err = call("serve", tmp_path / "gone")
    assert code == 2 and "found nothing at" in err
    with Page([weights / "tiny.pth"], 0, LIMITS) as page:
        port = urllib.parse.urlsplit(page.address).port
        with pytest.raises(UserError, match=f"a free port, found {port}"):
            Page([weights / "tiny.pth"], port, LIMITS)


@pytest.fixture
def tab():
    """A page of Chromium that no test has used; where there is none, its tests are left out."""
    playwright = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        yield opened.new_page(viewport={"width": 900, "height": 900})
        opened.close()


_DROP = """([name, bytes]) => {
  const carried = new DataTransfer();
  carried.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
  document.getElementById("drop").dispatchEvent(
      new DragEvent("drop", {dataTransfer: carried, bubbles: true, cancelable: true}));
}"""


def test_a_picture_goes_through_a_browser(serving, inverted, tab, weights, run, tmp_path):
    address = serving().address
    asked, complaints = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    pixels, _ = picture(tmp_path, "grain.png", 200, 250)
    tab.goto(address)
    assert tab.locator("#go").is_disabled()
    tab.set_input_files("#file", tmp_path / "grain.png")
    for model in (weights / "tiny.pth", run):
        tab.select_option("#model", str(model))
        tab.click("#go")
        tab.wait_for_selector("#save:visible")
        with tab.expect_download() as download:
            tab.click("#save")
        assert download.value.suggested_filename == "grain_restored.png"
        np.testing.assert_array_equal(read_rgb(download.value.path()), 255 - pixels)
        for name in ("before", "after"):
            shown = tab.locator(f"#{name}")
            assert shown.evaluate("one => one.decode().then(() => one.naturalWidth)") == 250
        assert "250x200 pixels" in tab.inner_text("#said")
        tab.set_input_files("#file", tmp_path / "grain.png")  # takes the result away
        assert tab.locator("#save").is_hidden() and tab.locator("#result").is_hidden()
    assert not complaints
    assert {urllib.parse.urlsplit(url).netloc for url in asked} == {
        urllib.parse.urlsplit(address).netloc
    }


def test_the_slider_parts_before_from_after(serving, inverted, tab, tmp_path):
    Image.new("RGB", (400, 300), (255, 0, 0)).save(tmp_path / "red.png")  # comes out cyan
    tab.goto(serving().address)
    tab.evaluate(_DROP, ["red.png", list((tmp_path / "red.png").read_bytes())])
    tab.click("#go")
    tab.wait_for_selector("#result:visible")
    for which in ("before", "after"):
        tab.locator(f"#{which}").evaluate("one => one.decode()")
    for share in (20, 70):
        tab.locator("#slider").fill(str(share))
        tab.locator("#compare").screenshot(path=tmp_path / "seen.png")
        seen = read_rgb(tmp_path / "seen.png").astype(int)
        row = seen[seen.shape[0] // 2]
        parted = np.flatnonzero(row[:, 2] > row[:, 0])[0] / len(row)
        assert abs(parted - share / 100) < 0.02


def test_the_browser_shows_why_nothing_was_restored(serving, tab, tmp_path):
    tab.goto(serving().address)
    (tmp_path / "notes.txt").write_text("no picture")
    tab.set_input_files("#file", tmp_path / "notes.txt")
    tab.click("#go")
    tab.wait_for_selector("#said[data-kind=error]")
    assert "other or damaged content in notes.txt" in tab.inner_text("#said")
    (tmp_path / "long.png").write_bytes(b"x" * (LIMITS.bytes + 1))
    tab.set_input_files("#file", tmp_path / "long.png")
    assert "at most 0.2 MB" in tab.inner_text("#said")
