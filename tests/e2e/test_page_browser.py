"""The MachFive page in Chromium: what a user reads there, does there, and can do without a mouse."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from machfive_provider.sandbox import Sandbox
from scripts.live_airflow import LiveAirflow
from tests.e2e.conftest import DEMO_CONN, DOWN_CONN, NEW_CONN, PAGE_CONN, PAGE_DAG, SHARDS

sync_api = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.live
WAIT = 30_000  # milliseconds
# What Chromium says of a page of Airflow 3.2 that is left while it reads the states of tasks as a stream.
LEFT = "BodyStreamBuffer was aborted"


@pytest.fixture(scope="module")
def login(browser: Any, live: LiveAirflow, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Log in as a user does; return the file that holds the session."""
    page = browser.new_page()
    page.set_default_timeout(WAIT)
    page.goto(live.base_url)
    page.locator("input").first.fill("admin")
    page.locator("input[type=password]").fill(live.home.password)
    page.keyboard.press("Enter")
    page.wait_for_selector("text=MachFive")
    state = str(tmp_path_factory.mktemp("browser") / "state.json")
    page.context.storage_state(path=state)
    page.close()
    return state


@pytest.fixture
def page(browser: Any, login: str) -> Iterator[Any]:
    """Open a tab of somebody who is logged in; what the console says is an error of the test."""
    context = browser.new_context(storage_state=login, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(WAIT)
    troubles: list[str] = []
    page.on("pageerror", lambda error: None if str(error) == LEFT else troubles.append(str(error)))
    page.on("request", lambda request: None if is_local(request.url) else troubles.append(request.url))
    yield page
    context.close()
    assert troubles == []


def is_local(url: str) -> bool:
    return "://127.0.0.1" in url or not url.startswith("http")


@pytest.fixture
def opened(page: Any, live: LiveAirflow, run_id: str) -> Callable[..., Any]:
    """Open the page within Airflow; return its frame."""

    def opened(query: str = "") -> Any:
        page.goto(f"{live.base_url}/plugin/machfive/machfive/?conn={PAGE_CONN}{query}")
        # In Airflow 3.1 the frame takes the query from Airflow's address, and is loaded once more.
        page.wait_for_function("document.querySelector('iframe')?.contentWindow.location.search.includes('conn=')")
        frame = page.frame_locator("iframe")
        frame.locator("#content").wait_for()
        return frame

    return opened


def row_key(run_id: str, index: int) -> str:
    return f"{PAGE_DAG}|{run_id}|write|{index}"


def tile(frame: Any, label: str) -> Any:
    return frame.locator(".tiles a", has_text=label)


def test_how_many_run_wait_and_are_done(opened: Callable[..., Any], shoot: Callable[..., None]):
    frame = opened()
    expect = sync_api.expect
    expect(tile(frame, "Running").locator("b")).to_have_text("3")
    expect(tile(frame, "Waiting for room").locator("b")).to_have_text(str(SHARDS - 3))
    expect(tile(frame, "Credits today").locator("b")).to_have_text("6")
    tile(frame, "Waiting for room").click()
    expect(frame.locator("tr[data-key]")).to_have_count(SHARDS - 3)
    expect(frame.locator("tbody").first).to_contain_text("place 17")
    shoot("running", f"?conn={PAGE_CONN}")
    shoot("nothing-matches", f"?conn={PAGE_CONN}&q=no+such+list", twice=False)
    shoot("empty", f"?conn={NEW_CONN}", twice=False)
    shoot("not-allowed", "?conn=no_such_connection", twice=False)
    shoot("logged-out", f"?conn={PAGE_CONN}", user=None)
    shoot("unreachable", f"?conn={DOWN_CONN}", twice=False)
    shoot("loading", f"?conn={PAGE_CONN}", click="#refresh", shows="text=reading MachFive", stalled=True, twice=False)


def test_from_the_task_to_its_row_and_back(opened: Any, page: Any, live: LiveAirflow, run_id: str):
    """The button in Airflow opens the row; the row's link opens the task, without a reload."""
    task = f"{live.base_url}/dags/{PAGE_DAG}/runs/{quote(run_id, safe='')}/tasks/write/mapped/0/details"
    page.goto(task)
    page.get_by_role("link", name="MachFive list").first.wait_for()
    address = page.get_by_role("link", name="MachFive list").first.get_attribute("href")
    page.goto(f"{live.base_url}{address}" if address.startswith("/") else address)
    frame = page.frame_locator("iframe")
    frame.locator("#drawer-title").wait_for()
    sync_api.expect(frame.locator("#drawer")).to_contain_text("Shard 0")
    frame.locator("#drawer [data-airflow]").first.click()
    page.wait_for_url(f"{live.base_url}/dags/{PAGE_DAG}/**")
    page.get_by_text("MachFiveGenerateBatchOperator").first.wait_for()


def test_no_link_can_be_clicked_before_the_script_is_there(opened: Any, page: Any, live: LiveAirflow):
    """The frame itself would open the task then, and show Airflow within Airflow."""
    script, held = "**/static/machfive.js", list[Any]()
    frame = opened()
    page.route(script, lambda route: held.append(route))  # noqa: PLW0108 - Playwright calls no built-in method
    with page.expect_request(script):
        tile(frame, "Running").click()
    link = frame.locator("tbody [data-airflow]").first
    link.wait_for()
    with pytest.raises(sync_api.TimeoutError):
        link.click(trial=True, timeout=1000)
    for each in held:
        each.continue_()
    link.click()
    page.wait_for_url(f"{live.base_url}/dags/{PAGE_DAG}/**")


def test_a_failed_list_a_missing_lead_and_a_402_are_explained(
    opened: Any, shards: Sandbox, live: LiveAirflow, run_id: str, shoot: Callable[..., None]
):
    expect = sync_api.expect
    running = [each.list_id for each in shards.purchases if each.list_name and "Shard" in each.list_name][:3]
    shards.fault(
        "status", endpoint="generate-batch", status=402, code="INSUFFICIENT_CREDITS", message="402: no credits", times=1
    )
    shards.complete(running[0])
    shards.fail(running[1])
    frame = opened()
    for reason, remedy in (
        ("1 lead missing.", "Their file:"),
        ("failed on MachFive's side", "A retry buys it again"),
        ("402", "Nothing was spent. Upgrade or wait"),
    ):
        expect(frame.locator(".reason", has_text=reason).first).to_contain_text(remedy, timeout=90_000)
    # The failed list, the purchase without credits, and the delivery that lacks a lead.
    expect(tile(frame, "Failed in 24 h").locator("b")).to_have_text("3", timeout=90_000)
    shoot("failed", f"?conn={PAGE_CONN}&status=failed")
    shoot("missing", f"?conn={PAGE_CONN}&row={running[0]}")
    shoot("preview", f"?conn={PAGE_CONN}&row={running[0]}", click="#preview", shows="#emails article")
    shoot("waiting-details", f"?conn={PAGE_CONN}&row={quote(row_key(run_id, 19), safe='')}")


def test_what_runs_too_long_checks_retries_or_was_skipped(odd_states: None, shoot: Callable[..., None]):
    shoot("stuck", f"?conn={DEMO_CONN}&status=stuck", shows="text=Runs far longer than usual")
    for status in ("checking", "retrying", "skipped"):
        shoot(status, f"?conn={DEMO_CONN}&status={status}", shows=f".status.{status}", twice=False)


def test_a_refresh_keeps_focus_scroll_and_details(opened: Any, page: Any):
    frame = opened()
    frame.locator("#row-3").focus()
    name = frame.locator("#row-3").inner_text()
    before = frame.locator("#fresh").get_attribute("data-now")
    page.mouse.wheel(0, 300)
    frame.locator(f"#fresh:not([data-now='{before}'])").wait_for(state="attached")
    sync_api.expect(frame.locator(":focus")).to_have_text(name)
    page.keyboard.press("Enter")
    sync_api.expect(frame.locator("#drawer-title")).to_be_focused()
    before = frame.locator("#fresh").get_attribute("data-now")
    frame.locator(f"#fresh:not([data-now='{before}'])").wait_for(state="attached")
    sync_api.expect(frame.locator("#drawer-title")).to_have_text(name)
    page.keyboard.press("Escape")
    sync_api.expect(frame.locator("#drawer")).to_be_hidden()
    sync_api.expect(frame.locator(":focus")).to_have_text(name)


def test_paused_and_hidden_it_asks_for_nothing(opened: Any, page: Any):
    frame = opened()
    frame.locator("#pause").click()
    sync_api.expect(frame.locator("#updated")).to_contain_text("paused")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/machfive/content" in request.url else None)
    page.clock.install()
    page.clock.run_for(30_000)
    assert asked == []


def test_it_is_dark_when_airflow_is(page: Any, opened: Any):
    frame = opened()
    page.evaluate("document.documentElement.classList.replace('light', 'dark')")
    sync_api.expect(frame.locator("html")).to_have_attribute("data-theme", "dark")


def test_every_action_works_by_keyboard(opened: Any, page: Any):
    """Everything that can be clicked can be reached with Tab."""
    frame = opened()
    clickable = frame.locator("a[href], button:visible, select, input:not([type=hidden])")
    assert clickable.evaluate_all("all => all.every(each => each.tabIndex >= 0)")
    frame.locator("#q").focus()
    page.keyboard.type("Shard 19")
    page.keyboard.press("Enter")
    sync_api.expect(frame.locator("tr[data-key]")).to_have_count(1)


def test_the_csv_is_downloaded_from_within_airflow(opened: Any, page: Any):
    frame = opened("&q=Shard")
    with page.expect_download() as download:
        frame.locator("#csv").click()
    rows = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    assert sum(row["name"].startswith("Shard") for row in rows) == SHARDS


def test_what_cannot_be_read_is_said(opened: Any, shards: Sandbox, shoot: Callable[..., None], page: Any):
    """A wrong key, too many requests and an unreachable server each say what to do; what was read stays."""
    frame = opened()
    for name, fault, text in (
        ("limited", {"status": 429, "code": "RATE_LIMITED"}, "spread the load"),
        ("refused", {"status": 401, "code": "UNAUTHORIZED"}, "Put a valid API key"),
        ("broken", {"status": 503}, "503"),
    ):
        shards.fault("status", endpoint="lists", times=None, **fault)
        frame.locator("#refresh").click()
        sync_api.expect(frame.locator(".notice.error")).to_contain_text(text, timeout=WAIT)
        sync_api.expect(frame.locator("tr[data-key]").first).to_be_visible()
        shoot(name, f"?conn={PAGE_CONN}", twice=name == "refused")
        shards.clear_faults()


def test_the_connection_is_made_and_tested_in_the_form(page: Any, live: LiveAirflow, shards: Sandbox):
    page.goto(f"{live.base_url}/connections")
    page.get_by_role("button", name="Add Connection").first.click()
    page.locator("input[name=connection_id]").fill("machfive_form")
    page.get_by_role("combobox").last.click()
    page.keyboard.type("machfive")
    page.keyboard.press("Enter")
    page.locator("input[name=host]").fill(shards.base_url)
    page.locator("input[name=password]").fill(shards.api_key)
    page.get_by_role("button", name="Save").click()
    page.get_by_text("machfive_form").first.wait_for()
    with page.expect_response("**/connections/test") as tested:
        page.get_by_role("button", name="Test Connection").first.click()
    answer = tested.value
    if answer.status == 400 and "differs from the stored connection" in answer.text():
        # Airflow 3.3.2 sends port 0 for a connection without a port and refuses its own request: docs/connection.md.
        body = {**tested.value.request.post_data_json, "password": shards.api_key}
        answer = page.request.post(f"{live.base_url}/api/v2/connections/test", data=body, headers=bearer(page))
    found = answer.json()
    assert (found["status"], "Spring Outreach" in found["message"]) == (True, True), found


def bearer(page: Any) -> dict[str, str]:
    (token,) = (each["value"] for each in page.context.cookies() if each["name"] == "_token")
    return {"Authorization": f"Bearer {token}"}
