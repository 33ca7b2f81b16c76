"""Looks at a state of the MachFive page with axe, and photographs it where MACHFIVE_SCREENSHOTS names a folder.

The pictures of docs/ui are made so, at two widths in light and dark.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scripts.live_airflow import LiveAirflow

# Without these Chromium looks for Google's hosts at every start.
_QUIET = ("background-networking", "component-update", "sync", "gpu", "quic")
_WIDTHS = {"wide": 1280, "narrow": 390}
_EVERY = tuple(itertools.product(_WIDTHS, ("light", "dark")))
_BOTH = (("wide", "light"), ("narrow", "dark"))


@contextmanager
def chromium() -> Iterator[Any]:
    """Run Debian's Chromium; skip the test where there is none, but never in CI."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None and not os.environ.get("CI"):
        pytest.skip("needs Debian's Chromium")
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--no-first-run", *(f"--disable-{each}" for each in _QUIET)]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


class Photographer:
    """Opens the page by itself, for one user after the other.

    :param token: returns what Airflow gives a user who logs in
    """

    def __init__(self, browser: Any, live: LiveAirflow, token: Callable[[str], str]) -> None:
        self._browser, self._live, self._token = browser, live, token
        self._folder = os.environ.get("MACHFIVE_SCREENSHOTS")

    def __call__(
        self,
        name: str,
        query: str,
        *,
        user: str | None = "admin",
        click: str = "",
        shows: str = "",
        twice: bool = True,
        stalled: bool = False,
    ) -> None:
        """Look at one state.

        :param name: of the picture
        :param user: who is logged in, None for nobody
        :param click: selector of what is clicked before
        :param shows: selector of what appears then
        :param twice: narrow in dark too, without pictures
        :param stalled: let a refresh wait for ever
        """
        context = self._browser.new_context()
        if user:
            context.add_cookies([{"name": "_token", "value": self._token(user), "url": self._live.base_url}])
        tab = context.new_page()
        tab.set_default_timeout(60_000)
        held: list[Any] = []

        def hold(route: Any) -> None:
            held.append(route)

        for label, scheme in _EVERY if self._folder else _BOTH if twice else _BOTH[:1]:
            tab.set_viewport_size({"width": _WIDTHS[label], "height": 900})
            tab.emulate_media(color_scheme=scheme)
            tab.goto(f"{self._live.base_url}/machfive/{query}")
            if stalled:
                tab.route("**/machfive/content*", hold)
            tab.wait_for_selector("main")
            if click:
                tab.locator(click).click()
            if shows:
                tab.locator(shows).first.wait_for()
            if self._folder:
                Path(self._folder).mkdir(parents=True, exist_ok=True)
                tab.screenshot(path=str(Path(self._folder) / f"{name}-{label}-{scheme}.png"))
            assert _serious(tab) == []
            assert not tab.evaluate("document.documentElement.scrollWidth > innerWidth"), f"{name} scrolls sideways"
            while held:
                held.pop().abort()
            tab.unroute_all()
        context.close()


def _serious(page: Any) -> list[str]:
    """Return what axe finds serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found if each["impact"] in ("serious", "critical")]
