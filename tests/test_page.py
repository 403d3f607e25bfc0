"""The live page: what the command writes, and what a person sees and does in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Refused, Run
from in_browser import Page, browser, needs_browser
from in_node import as_array, in_node, needs_node

from tinyleak import data
from tinyleak.nn import MLP, LeNet
from tinyleak.page import build, write_page

COMMAND = ("page",)
LESSON = Path(__file__).resolve().parents[1] / "lessons" / "leak.html"


# The file.


def data_in(path: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text())
    assert found is not None
    return json.loads(found[1])


def test_the_lessons_page_is_what_its_sources_make() -> None:
    """But for the trained weights, whose last digits are another machine's."""
    model, within = LeNet(), data_in(LESSON)
    weights = {"untrained": model.init(np.random.default_rng([0, 0])), "trained": {}}
    weights["trained"] = weights["untrained"]
    expected = build.data_of(model, weights, data.load("glyphs").images[: build.READY], 2)
    expected["weights"]["trained"] = within["weights"]["trained"]
    assert within == json.loads(json.dumps(expected)), "run: python lessons/build.py page"
    page = build.assembled(within, "LeNet with sigmoid")
    assert page == LESSON.read_text(encoding="utf-8"), "run: python lessons/build.py page"
    assert LESSON.stat().st_size < 1_000_000


def test_nothing_is_fetched_and_nothing_made_code() -> None:
    page = LESSON.read_text(encoding="utf-8")
    assert not re.search(r"https?:|<link(?! rel=\"icon\" href=\"data:,\")|@import|url\(|src=", page)
    assert not re.search(r"\beval\b|new Function|innerHTML|document\.write", page)
    assert "default-src 'none'" in page
    assert "unsafe" not in page


def test_the_command_writes_a_page_and_says_how_to_open_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(build.TRAINING, "steps", 2)
    path = tmp_path / "p.html"
    done = run("--model", "mlp", "--activation", "tanh", "--batch", "1", "--out", str(path))
    assert done.code == 0
    assert f"python -m webbrowser {path.as_uri()}" in done.out
    within = data_in(path)
    assert within["batches"] == [1]
    assert within["layers"][0] == ["0.weight", [128, 784]]
    assert "MLP with tanh" in path.read_text()
    assert run("--out", str(path), "--force", "--quiet", "--batch", "4").out == ""
    assert data_in(path)["batches"] == [1, 2, 4]


@needs_node
def test_a_network_from_pytorch_with_its_weights(run: Run, tmp_path: Path) -> None:
    nn = torch.nn
    layers = (nn.Conv2d(1, 4, 5, stride=2), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten())
    network = nn.Sequential(*layers, nn.Linear(144, 10))
    exported = torch.export.export(network, (torch.zeros(1, 1, 28, 28),))
    torch.export.save(exported, tmp_path / "net.pt2")
    path = tmp_path / "p.html"
    assert run("--model", tmp_path / "net.pt2", "--out", path, "--batch", 1).code == 0
    within = data_in(path)
    assert list(within["weights"]) == ["given"]
    images, labels = data.load("glyphs").batch([6])
    body = """
    const shared = new Laboratory(data.page).gradients(numbers(data.images), [6], "given");
    const answer = shared.map(text);
    """
    found = in_node(body, {"page": within, "images": images})
    logits = network(torch.tensor(images, dtype=torch.float32))
    torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).backward()
    for mine, theirs in zip(found, network.parameters(), strict=True):
        np.testing.assert_allclose(as_array(mine), theirs.grad.ravel(), atol=1e-6)


class WithoutBias(MLP):
    shapes = property(lambda self: dict([*MLP().shapes.items()][:-1]))


def test_what_cannot_be_is_refused(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "p.html"
    path.write_text("kept")
    assert "exists already; choose another --out, or replace it" in refused("--out", path)
    assert path.read_text() == "kept"
    other = tmp_path / "q.html"
    assert "invalid choice: 3" in refused("--out", other, "--batch", 3)
    assert "'net.pt2' is not there" in refused("--out", other, "--model", "net.pt2")
    line = refused("--out", other, "--model", "resnet")
    assert "--model resnet is unknown; choose lenet, mlp, or give a file net.pt2" in line
    line = refused("--out", other, "--model", "net.pt2", "--init", "U")
    assert "--init describes a network of ours, but net.pt2 has its own; leave one of" in line
    assert "seed" in refused("--out", other, "--seed", -1)
    assert not other.exists()
    with pytest.raises(ValueError, match=r"is for \(3, 32, 32\) and 10; give one that reads"):
        write_page(other, LeNet((3, 32, 32)))
    with pytest.raises(ValueError, match=r"parameter, 4.weight, has the shape \(10, 64\)"):
        write_page(other, WithoutBias())
    with pytest.raises(ValueError, match="a batch of 8 was asked for; the page takes 1, 2 or 4"):
        write_page(other, MLP(), batch=8)
    with pytest.raises(ValueError, match="weights"):
        write_page(other, MLP(), params=LeNet().init(np.random.default_rng(0)))


@needs_browser
def test_a_network_of_ones_own_with_its_weights(tmp_path: Path) -> None:
    model = LeNet(hidden=10)
    write_page(tmp_path / "own.html", model, params=model.init(np.random.default_rng(0)), batch=1)
    with browser() as opened:
        page = opened(tmp_path / "own.html")
        page.open("#draw0=2", wait=WORKING)
        assert page.js("document.getElementById('weights').innerText").endswith("as given")
        attack(page, "mse < 1e-4")
        assert page.complaints() == []


# The browser.

WORKING = "document.body.dataset.ready && document.getElementById('share').dataset.norm"
RESULT = "document.getElementById('attack').dataset"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        page = opened(LESSON)
        page.open()
        page.requests()  # those of the browser's own first page
        yield page


@pytest.fixture(autouse=True)
def quiet(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test: nothing on the console, and no request beyond the page itself."""
    yield
    if "page" in request.fixturenames:
        page = request.getfixturevalue("page")
        assert page.complaints() == []
        elsewhere = [
            one
            for one in page.requests()
            if not one.startswith(("file:", "blob:", "data:", "about:"))
        ]
        assert elsewhere == []


def stroke(page: Page, *points: tuple[float, float]) -> None:
    """Draw with the mouse: points in shares of the field."""
    from selenium.webdriver import ActionChains

    field = page.find("#slots canvas")
    wide, high = field.rect["width"], field.rect["height"]
    moves = ActionChains(page.driver, duration=20)
    for k, (x, y) in enumerate(points):
        moves.move_to_element_with_offset(field, (x - 0.5) * wide, (y - 0.5) * high)
        if k == 0:
            moves.click_and_hold()
    moves.release().perform()


def attack(page: Page, until: str) -> dict[str, float]:
    """Attack, and wait until the result is as said; return it as numbers."""
    page.find("#start").click()
    page.until(f"(({{mse, iteration, reason}}) => {until})({RESULT})")
    return {name: float(page.js(f"{RESULT}.{name}")) for name in ("mse", "iteration", "distance")}


@needs_browser
def test_a_drawing_comes_back(page: Page) -> None:
    page.open(wait=WORKING)
    assert int(page.js("document.body.dataset.ready")) < 5000
    page.keep("opened")
    page.find(".slot button:nth-child(2)").click()
    stroke(page, (0.3, 0.25), (0.7, 0.25), (0.6, 0.45), (0.45, 0.8))
    stroke(page, (0.35, 0.5), (0.7, 0.5))
    page.set("#label0", 7)
    page.until(
        "document.getElementById('label-sentence').textContent.includes('the 7: this alone')"
    )
    page.keep("shared")
    began = page.js("performance.now()")
    result = attack(page, "mse < 1e-2")
    assert page.js("performance.now()") - began < 30_000, "two seconds, on an idle machine"
    page.keep("attacked")
    page.until(f"{RESULT}.mse < 1e-6")
    assert page.js("document.getElementById('sentence').textContent").startswith(("What", "Done"))
    assert int(page.js(f"{RESULT}.frames")) > 0.3 * result["iteration"] / 10
    assert page.js("document.querySelectorAll('.bars')[0].getAttribute('aria-label')").startswith(
        "Most probable label: 7, 100"
    )
    assert page.js("document.querySelectorAll('#strips .strip').length") == 8


@needs_browser
def test_pause_step_and_another_start(page: Page) -> None:
    page.open("#draw0=3", wait=WORKING)
    page.find("#start").click()
    page.until(f"{RESULT}.iteration > 5")
    page.find("#pause").click()
    page.until("document.getElementById('pause').textContent == 'Go on'")
    page.js("new Promise((done) => setTimeout(done, 300))")
    held = int(page.js(f"{RESULT}.iteration"))
    page.find("#step").click()
    page.until(f"{RESULT}.iteration == {held + 1}")
    page.find("#pause").click()
    page.until(f"{RESULT}.iteration > {held + 5}")
    page.find("#seed").click()
    page.until("location.hash.includes('seed=2')")
    page.until(f"{RESULT}.mse < 1e-2")


@needs_browser
def test_defences_change_the_outcome_the_right_way(page: Page) -> None:
    page.open("#draw0=7&noise=0.1", wait=WORKING)
    strong = attack(page, "iteration > 60")
    page.set("#noise", -5)
    page.until(f"{RESULT}.iteration < 60")
    page.until(f"{RESULT}.iteration > 200")
    weak = float(page.js(f"{RESULT}.mse"))
    assert weak < 0.02
    assert strong["mse"] > 0.3
    page.set("#noise", -8.5)
    page.set("#prune", 70)
    page.until(f"{RESULT}.iteration < 100")
    page.until(f"{RESULT}.iteration > 200")
    naive = float(page.js(f"{RESULT}.mse"))
    page.find("input[name=aware][value='1']").click()
    page.until(f"{RESULT}.iteration < 100")
    page.until(f"{RESULT}.mse < 1e-2")
    assert naive > 0.05, "who does not know of the pruning takes the zeros for truth"
    page.set("#clip", -0.5)
    page.until(f"{RESULT}.iteration < 50")
    page.until(f"{RESULT}.mse < 3e-2")
    assert page.js("document.querySelectorAll('#outcomes li').length") >= 3
    page.keep("defended")


@needs_browser
def test_nothing_jumps_and_what_is_drawn_follows_the_window(page: Page) -> None:
    """At this width the strips stand beside the drawing, above the sliders."""
    say = page.driver.execute_cdp_cmd
    window = {"height": 900, "deviceScaleFactor": 1, "mobile": False}
    curves = "[curves.width, curves.toDataURL()]"
    below = "[curves, prune].map((one) => one.getBoundingClientRect().top + scrollY)"
    say("Emulation.setDeviceMetricsOverride", {"width": 800, **window})
    try:
        page.open("#draw0=4", wait=WORKING)
        attack(page, "iteration > 5")
        first = page.js(below)
        page.until(f"{RESULT}.mse < 1e-3")
        assert page.js(below) == first
        page.set("#prune", 90)
        page.until(f"{RESULT}.iteration < 30")
        assert page.js(below) == first
        page.until(f"{RESULT}.iteration > 30")
        page.find("#pause").click()
        page.until("document.getElementById('pause').textContent == 'Go on'")
        wide, light = page.js(curves)
        dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        say("Emulation.setEmulatedMedia", dark)
        page.until(f"{curves}[1] != '{light}'")
        black = page.js(curves)[1]
        say("Emulation.setEmulatedMedia", {"media": "print", **dark})
        page.until(f"{curves}[1] != '{black}'")
        paper = page.js(curves)[0]
        say("Emulation.setDeviceMetricsOverride", {"width": 400, **window})
        page.until(f"![{paper}, {wide}].includes({curves}[0])")
    finally:
        say("Emulation.setEmulatedMedia", {"media": "", "features": []})
        say("Emulation.clearDeviceMetricsOverride", {})


@needs_browser
def test_the_link_holds_the_state(page: Page) -> None:
    page.open(
        "#batch=2&draw0=.SPsPldcz&label0=7&draw1=2&noise=1e-4&clip=0.3&round=int8&weights=trained",
        WORKING,
    )
    pixels = "[...document.querySelectorAll('#slots canvas')].map((one) => one.toDataURL())"
    before, link = page.js(pixels), page.js("location.hash")
    page.open(link, WORKING)
    assert page.js(pixels) == before
    assert before[0] != before[1]
    assert page.js("document.querySelector('input[name=weights]:checked').value") == "trained"
    set_so = page.js("[label0.value, label1.value, round.value, noise.value, clip.value]")
    assert set_so == ["7", "2", "int8", "-4", "-0.5"]
    page.open("#batch=99&draw0=99.<b>&label0=x&noise=no&round=evil&seed=-3", WORKING)
    assert page.js("[location.hash.includes('noise=none'), round.value]") == [True, "none"]


@needs_browser
def test_two_drawings_in_one_batch(page: Page) -> None:
    page.open("#draw0=1&batch=2&draw1=4", wait=WORKING)
    attack(page, "mse < 1e-1")
    assert page.js("document.querySelectorAll('#found canvas.image').length") == 4
    page.keep("two")


@needs_browser
def test_the_keyboard_reaches_everything(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open(wait=WORKING)
    page.find(".slot button:nth-child(2)").click()
    blank = page.js("document.querySelector('#slots canvas').toDataURL()")
    page.find("#slots canvas").send_keys(" ", *[Keys.ARROW_DOWN] * 8, *[Keys.ARROW_LEFT] * 6)
    assert "pen down" in page.js("document.activeElement.getAttribute('aria-description')")
    assert page.js("getComputedStyle(document.querySelector('.pen')).display") != "none"
    assert page.js("document.querySelector('#slots canvas').toDataURL()") != blank
    page.find("#slots canvas").send_keys(" ", Keys.BACKSPACE)
    assert page.js("document.querySelector('#slots canvas').toDataURL()") == blank
    order = []
    page.js("document.body.focus()")
    for _ in range(40):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        order.append(page.js("document.activeElement.id || document.activeElement.name"))
    reached = {"label0", "weights", "start", "seed", "noise", "prune", "clip", "round", "aware"}
    assert reached <= set(order)
    assert order.index("start") < order.index("noise")
    unnamed = (
        "[...document.querySelectorAll('canvas[role], input, select, button')].filter((one) =>"
    )
    unnamed += " !(one.ariaLabel || one.textContent.trim() || one.labels?.length ||"
    unnamed += " one.querySelector('[aria-label]'))).length"
    assert page.js(unnamed) == 0


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read(page: Page, scheme: str) -> None:
    say = page.driver.execute_cdp_cmd
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    say("Emulation.setDeviceMetricsOverride", phone)
    say(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    try:
        page.open("#batch=2", wait=WORKING)
        attack(page, "iteration > 30")
        page.keep(f"phone-{scheme}")
        assert page.js("document.documentElement.scrollWidth") <= 360
        for text in ("ink", "quiet", "accent", "distance", "error"):
            for ground in ("ground", "panel"):
                assert contrast(page, text, ground) >= 4.5, f"{text} on {ground}"
        if scheme == "light":
            say("Emulation.setEmulatedMedia", {"media": "print"})
            page.keep("printed")
    finally:
        say("Emulation.clearDeviceMetricsOverride", {})
        say("Emulation.setEmulatedMedia", {"media": "", "features": []})


def contrast(page: Page, *names: str) -> float:
    """The contrast of two colours of the style, as WCAG 2 defines it."""
    shades = []
    for name in names:
        code = page.js(f"colour('{name}')")[1:]
        digits = code if len(code) == 6 else "".join(2 * digit for digit in code)
        parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        shades.append(0.05 + float(np.dot([0.2126, 0.7152, 0.0722], linear)))
    return max(shades) / min(shades)


@needs_browser
def test_it_works_where_there_can_be_no_worker(page: Page) -> None:
    add, remove = (
        "Page.addScriptToEvaluateOnNewDocument",
        "Page.removeScriptToEvaluateOnNewDocument",
    )
    added = page.driver.execute_cdp_cmd(add, {"source": "delete window.Worker"})
    try:
        page.open("#draw0=4", wait=WORKING)
        attack(page, "mse < 1e-2")
    finally:
        page.driver.execute_cdp_cmd(remove, added)
