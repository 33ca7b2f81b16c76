"""The benchmarks' own arithmetic: limits, results kept and read again, and the page that is written from them."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from tests.benchmarks import environment, report, scale_capacity, scale_database, scale_polls
from tests.benchmarks.callbacks import Callbacks, watched
from tests.benchmarks.figures import Figure, Limit, Plot
from tests.benchmarks.polling_server import Server, Workspace, api_key, foreign_id, list_id
from tests.benchmarks.report import Kept

HOLDS = Limit("requests, of the peer's", 0.012, 0.02)
MISSED = Limit("memory a waiter", 12.3, 10, unit="KB")


def figure(*limits: Limit, **changes) -> Figure:
    given = {
        "name": "polling",
        "title": "Waiting in the triggerer",
        "how": "Counted.",
        "columns": ("who", "requests", "note"),
        "rows": (("MachFive", 0.01234, "all | of it"), ("dbt Cloud", 1234.5, "")),
        "limits": limits,
        "plots": (Plot("Requests", "requests", {"MachFive": 0.012, "dbt Cloud": 1.0}, limit=0.02, log=True),),
        "absent": ("Airbyte: could not be installed",),
    }
    return Figure(**{**given, **changes})


def result(*limits: Limit, **changes) -> Kept:
    return Kept(figure(*limits, **changes), "2026-11-25", "3.3.2", "2 cores")


# --- limits


@pytest.mark.parametrize(
    ("limit", "holds"),
    [
        (HOLDS, True),
        (MISSED, False),
        (Limit("at the limit", 1.0, 1.0), True),
        (Limit("at least", 2.0, 1.0, at_most=False), True),
        (Limit("at least", 0.5, 1.0, at_most=False), False),
        (Limit("without its peer", math.nan, 1.0), False),
        (Limit("without its peer", math.nan, 1.0, at_most=False), False),
    ],
)
def test_a_limit_holds_only_if_it_was_measured_and_kept(limit, holds):
    assert limit.holds is holds
    assert figure(HOLDS, limit).holds is holds


# --- kept results


@pytest.mark.parametrize("each", [result(HOLDS, MISSED), result(plots=(), absent=(), rows=())])
def test_a_result_is_the_same_after_it_was_kept(each, tmp_path):
    report.keep(each, tmp_path / ".bench")
    assert report.kept(["export", "polling"], tmp_path / ".bench") == [each]


def test_what_was_not_measured_is_still_not_measured_when_read_again():
    again = report.from_json(report.to_json(result(Limit("without its peer", math.nan, 1.0))))
    assert math.isnan(again.figure.limits[0].measured)


def test_a_benchmark_that_is_run_again_replaces_its_own_result_only(tmp_path):
    first, other = result(HOLDS), result(name="export", title="Export")
    for each in (first, other, second := result(MISSED)):
        report.keep(each, tmp_path)
    assert report.kept(["polling", "export"], tmp_path) == [second, other]


# --- the page


def test_the_page_shows_table_limits_plots_absent_peers_and_when_it_was_taken():
    page = report.to_markdown([result(HOLDS, MISSED)], missing=["export"])
    assert "| who | requests | note |\n| --- | ---: | --- |\n" in page
    assert "| MachFive | 0.0123 | all \\| of it |" in page
    assert "| dbt Cloud | 1,234 |" in page
    assert "| requests, of the peer's | 0.012 | ≤ 0.02 | holds |" in page
    assert "| memory a waiter | 12.3 KB | ≤ 10 KB | **MISSED** |" in page
    assert "![Requests](performance/polling-1.png)" in page
    assert "Absent, and so not compared: Airbyte: could not be installed." in page
    assert "Taken on 2026-11-25 with Airflow 3.3.2; 2 cores." in page
    assert "Not measured yet: export." in page


def test_the_summary_links_to_each_section_and_counts_what_was_missed():
    page = report.to_markdown([result(HOLDS), result(MISSED, name="export", title="An export, streamed")])
    assert "| [Waiting in the triggerer](#waiting-in-the-triggerer) | 1 | all |" in page
    assert "| [An export, streamed](#an-export-streamed) | 1 | **1 MISSED** |" in page


def test_without_matplotlib_no_plot_is_promised():
    assert "![" not in report.to_markdown([result(HOLDS)], plotted=False)
    assert "![" not in report.to_text(result(HOLDS))


def test_a_limit_without_its_peer_says_so():
    assert "| not measured | ≤ 1 | **MISSED** |" in report.to_text(result(Limit("it", math.nan, 1.0)))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"), (1, "1"), (12_000, "12,000"), (0.5, "0.5"), (2.0, "2"), (1.2345, "1.23"), (100.0, "100"),
        (999.96, "1000"), (12_345.6, "12,346"), (0.00123456, "0.00123"), (math.nan, "-"), (math.inf, "inf"),
    ],
)  # fmt: skip
def test_numbers_are_shown_with_three_digits(value, shown):
    row = report.to_text(result(columns=("who", "n"), rows=(("a", value),)))
    assert f"| a | {shown} |" in row


# --- the peers' environment


def test_a_peer_that_cannot_be_installed_is_named_and_the_others_go_on(monkeypatch, tmp_path):
    asked = []

    def pip(python, wanted):
        asked.append(wanted)
        return "No solution found" if "apache-airflow-providers-http" in wanted else ""

    monkeypatch.setattr(environment, "_pip", pip)
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    monkeypatch.setattr(environment, "STAMP", tmp_path / "stamp.json")
    monkeypatch.setattr(environment.subprocess, "run", lambda *_, **__: None)
    environment.prepare()
    reason = "apache-airflow-providers-http could not be installed: No solution found"
    assert environment.absent(["Airbyte", "HTTP"]) == (f"HTTP: {reason}",)
    # All that could be installed is installed beside each other.
    assert {*environment.PACKAGES.values()} - {*asked[-1]} == {"apache-airflow-providers-http"}


def test_without_airflow_itself_there_is_nothing_to_measure(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "_pip", lambda *_: "no network")
    with pytest.raises(RuntimeError, match="no network"):
        environment._install(tmp_path)


def test_why_a_peer_is_absent_names_no_place_of_this_machine_or_the_index():
    said = "error: Failed to fetch: `https://index.example/simple/x/` to /home/me/.cache (see http://a.b): timed out"
    assert environment._reason(said) == "error: Failed to fetch: to (see timed out"


# --- the server that is polled


def content(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def test_the_server_pages_through_what_is_in_work_and_tells_what_has_ended():
    server = Server(ours=150, foreign=50)
    pages = [server.answer(f"/api/v1/lists?status=processing&limit=100&offset={each}") for each in (0, 100, 200)]
    assert [each.count(b'"id"') for each in pages] == [100, 90, 0]
    assert server.answer("/api/v1/lists?status=pending&limit=100&offset=0").count(b'"id"') == 10
    assert b'"pending"' in server.answer("/api/v1/lists?limit=1") or b'"processing"' in pages[0]

    server.answer(f"/control/end?ids={list_id(3)}")
    ended = server.answer(f"/api/v1/lists/{list_id(3)}")
    assert b'"completed"' in ended
    assert b'"leads_count"' in ended
    assert b'"leads_count"' not in server.answer(f"/api/v1/lists/{foreign_id(3)}")
    assert list_id(3).encode() not in b"".join(
        server.answer(f"/api/v1/lists?status={each}&limit=100&offset=0") for each in ("pending", "processing")
    )
    assert server.answer(f"/api/v1/lists/{list_id(999)}").startswith(b"HTTP/1.1 404")
    assert len(server.requests) == 10


def test_the_server_lists_the_newest_first():
    times = [each["created_at"] for each in Workspace(range(5), 5).lists.values()]
    assert times == sorted(times, reverse=True)


def test_the_server_knows_each_workspace_by_its_key_and_deals_the_lists_to_them_in_turn():
    server = Server(ours=4, foreign=0, workspaces=2)
    for number in range(4):
        target, own, other = f"/api/v1/lists/{list_id(number)}", number % 2, 1 - number % 2
        assert server.answer(target, api_key(own).encode()).startswith(b"HTTP/1.1 200")
        assert server.answer(target, api_key(other).encode()).startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(
    ("path", "running", "ended"),
    [
        ("/api/v2/accounts/1/runs/7/", b'"status": 3', b'"status": 10'),
        ("/jobs/7", b"running", b"succeeded"),
        ("/wait/7", b"HTTP/1.1 404", b"HTTP/1.1 200"),
        ("/v1/messages/batches/7", b"in_progress", b"ended"),
    ],
)
def test_the_server_answers_each_peer_until_its_work_ends(path, running, ended):
    server = Server(1, 0)
    assert running in server.answer(path)
    server.answer("/control/end?ids=7")
    assert ended in server.answer(path)
    server.answer("/control/fail?on=1")
    assert server.answer(path).startswith(b"HTTP/1.1 500")
    assert len(server.requests) == 3


# --- callbacks


def test_callbacks_are_told_apart_by_whose_they_are():
    found = Callbacks()

    async def ours() -> None:
        await asyncio.sleep(0)
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass

    async def main() -> None:
        await asyncio.gather(ours(), asyncio.sleep(0))

    before = asyncio.Handle._run
    with watched("no.such.package", ours.__qualname__, lambda: found):
        asyncio.run(main())
    assert asyncio.Handle._run is before
    assert found.number == 2
    assert found.top(1)[0][0] == ours.__qualname__
    assert 0.02 <= found.top(1)[0][1] <= found.total
    assert found.worst_other[1] != ours.__qualname__


# --- what is computed on virtual time


@pytest.mark.parametrize(("pool", "triggerers"), [(False, 3), (True, 3)])
def test_the_simulated_workers_and_triggerers_bring_all_batches_through_the_workspace(pool, triggerers):
    work = scale_capacity.Work(triggerers, batches=15, slots=3, hint=False, pool=pool)
    found = scale_capacity.simulate(work)
    assert work.batches <= found.posts <= 4 * work.batches
    assert (found.posts == work.batches) is pool  # with a pool no task is refused
    assert 0 < found.empty < 2 * work.poll_interval
    assert found.ideal < found.makespan < 2 * found.ideal


def test_a_second_simulated_triggerer_asks_for_its_lists_on_its_own():
    assert scale_polls.simulate(1, 100) < scale_polls.simulate(2, 100) <= 300


# --- load on the metadata database


def test_statements_that_an_idle_airflow_sends_are_not_counted_for_a_task():
    counted = scale_database.Counted
    before = {1: counted("SELECT", 100, 100), 2: counted("INSERT", 4, 4)}
    after = {
        1: counted("SELECT", 900, 900),
        2: counted("INSERT", 14, 14),
        3: counted("DELETE", 2, 6),
        4: counted("SELECT", 8, 40),
    }
    found = scale_database.load_between(before, after, idle={1: before[1]}, tasks=2)
    assert found == scale_database.Load(statements=10, rows=28, written=8, kept=2)
