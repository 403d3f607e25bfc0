"""A real browser without a window, for the pages; tests skip where there is none."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
HERE = all((CHROMIUM, DRIVER, importlib.util.find_spec("selenium")))

needs_browser = pytest.mark.skipif(
    not HERE, reason="no browser: apt install chromium chromium-driver, pip install selenium"
)

# The last five keep the browser itself from asking anything of a network.
OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]

PATIENCE = 60
"""Seconds to wait for what takes two on an idle machine."""


class Page:
    """A page in a browser, and what a test asks of it."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver, self.address = driver, address

    def open(self, link: str = "", wait: str = "true") -> None:
        """Open it anew, and wait until an expression holds."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.address}{link}")
        self.until(wait)

    def js(self, expression: str, *arguments: Any) -> Any:
        return self.driver.execute_script(f"return {expression}", *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def until(self, expression: str) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05)
        waiting.until(lambda _: self.js(expression), f"waited in vain for {expression}")

    def set(self, selector: str, value: object) -> None:
        """Move a slider, as a person would: the page is told of it."""
        self.js(
            "(arguments[0].value = arguments[1], arguments[0].dispatchEvent(new Event('input')))",
            self.find(selector),
            str(value),
        )

    def keep(self, name: str) -> None:
        """Save a picture of the whole page where TINYLEAK_SCREENSHOTS says, for a person."""
        if folder := os.environ.get("TINYLEAK_SCREENSHOTS"):
            size = {"width": self.js("innerWidth"), "height": self.js("document.body.scrollHeight")}
            settings = {"captureBeyondViewport": True, "clip": {"x": 0, "y": 0, "scale": 1, **size}}
            taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", settings)
            import base64

            Path(folder, f"{name}.png").write_bytes(base64.b64decode(taken["data"]))

    def complaints(self) -> list[str]:
        """What the browser has had to say since it was asked last."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that were asked for since this was asked last."""
        events = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        sent = [event for event in events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]


@contextmanager
def browser() -> Iterator[Callable[[Path], Page]]:
    """Give what opens a file in a browser with an empty profile of its own."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for option in (*OPTIONS, f"--user-data-dir={profile}", "--window-size=1280,1000"):
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
        try:
            yield lambda path: Page(driver, path.resolve().as_uri())
        finally:
            driver.quit()
