"""The player of an attack in a browser; what it is made of is tested in `test_report.py`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from in_browser import Page, browser, needs_browser

from tinyleak.attacks import Snapshot
from tinyleak.report import player

pytestmark = needs_browser

TRUTH = np.linspace(0, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    path = tmp_path_factory.mktemp("player") / "player.html"
    noise = np.random.default_rng(0).standard_normal(TRUTH.shape)
    moments = [Snapshot(5 * k, TRUTH + noise * 0.5**k, 0.1**k) for k in range(12)]
    moments[0] = Snapshot(0, moments[0].images, float("nan"))
    player(path, moments, TRUTH, labels=[4, 1], labels_true=[4, 1])
    with browser() as opened:
        page = opened(path)
        page.open()
        page.requests()
        yield page


def shown(page: Page) -> str:
    return page.js("document.getElementById('caption').textContent")


def test_slider_buttons_and_keys_play_the_attack(page: Page) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    assert "iteration 0: gradient distance not finite, mean MSE" in shown(page)
    page.set("#slider", 4)
    assert "iteration 20:" in shown(page)
    ActionChains(page.driver).send_keys(Keys.END).perform()
    assert "iteration 55: gradient distance 10⁻¹¹, mean MSE" in shown(page)
    ActionChains(page.driver).send_keys(Keys.ARROW_LEFT).perform()
    assert "iteration 50:" in shown(page)
    page.find("#first").click()
    page.find("#on").click()
    assert "iteration 5:" in shown(page)
    page.find("#play").click()
    assert page.js("document.getElementById('play').getAttribute('aria-label')") == "pause"
    page.until("document.getElementById('caption').textContent.includes('iteration 55:')")
    page.until("document.getElementById('play').getAttribute('aria-label') == 'play'")
    page.keep("player")


def test_the_last_picture_is_the_truth_and_the_curves_are_drawn(page: Page) -> None:
    page.find("#end").click()
    pixels = "Array.from({}.getContext('2d').getImageData(0, 0, 17, 8).data)"
    found, truth = (
        page.js(pixels.format(f"document.getElementById('{name}')")) for name in ("found", "truth")
    )
    assert np.abs(np.subtract(found, truth)).max() <= 2
    red = np.array(truth).reshape(8, 17, 4)[:, :8, 0]
    np.testing.assert_allclose(red, np.rint(255 * TRUTH[0, 0]), atol=1)
    assert page.js("document.querySelectorAll('figcaption')[0].textContent") == "truth, labels 4 1"
    drawn = "new Set(document.getElementById('curves').getContext('2d')"
    drawn += ".getImageData(0, 0, 300, 200).data).size"
    assert page.js(drawn) > 20
    settings = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", settings)
    tops = "[...document.querySelectorAll('figure')].map((one) => one.getBoundingClientRect().top)"
    assert len(set(page.js(tops))) == 1, "left and right, on a phone as well"
    assert page.js("document.documentElement.scrollWidth") <= 390
    assert page.complaints() == []
    assert [one for one in page.requests() if not one.startswith(("file:", "about:"))] == []
