"""The hook: each method in both worlds, against both generations of the API."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pendulum
import pytest

from machfive_provider import exceptions
from machfive_provider.api.models import Lead, LeadList
from machfive_provider.api.retries import RetryPolicy
from machfive_provider.hooks.machfive import MachFiveHook
from machfive_provider.sandbox import Sandbox, SandboxSettings
from tests.sockets import NO_PAUSE, WORLDS, http, raw_server, unused_url
from tests.tasks import UNKNOWN_ID

LEAD = Lead("dana.reyes@example.com", name="Dana Reyes", company="Reyes Logistics")
OPTIONS = {"email_count": 2, "email_signature": "Best", "list_name": "Spring"}
PAID = ("generate", "generate_batch")  # workers alone send them: they have no twin
Connect = Callable[..., None]


class Ask:
    """Calls a method of the hook, or its awaitable twin if it has one, and collects what either yields."""

    def __init__(self, world: str) -> None:
        self.world = world

    def __call__(self, method: str, *args: Any, conn_id: str = "machfive_default", **kwargs: Any) -> Any:
        hook = MachFiveHook(conn_id, retry_policy=NO_PAUSE)
        if self.world == "async" and method not in PAID:
            return asyncio.run(self._awaited(hook, method, *args, **kwargs))
        with hook:
            result = getattr(hook, method)(*args, **kwargs)
            return list(result) if isinstance(result, Iterator) else result

    @staticmethod
    async def _awaited(hook: MachFiveHook, method: str, *args: Any, **kwargs: Any) -> Any:
        result = getattr(hook, f"a{method}")(*args, **kwargs)
        try:
            return [each async for each in result] if hasattr(result, "__aiter__") else await result
        finally:
            await hook.aclose()


@pytest.fixture(params=WORLDS)
def ask(request: pytest.FixtureRequest) -> Ask:
    return Ask(request.param)


@pytest.fixture(params=["2025", "2026"])
def either(request: pytest.FixtureRequest, connect: Connect) -> Iterator[Sandbox]:
    """Give a sandbox of either generation, and connect to it."""
    with Sandbox(SandboxSettings(generation=request.param)) as sandbox:
        connect(sandbox)
        yield sandbox


# --- each method, each generation, each world


def test_list_campaigns(ask: Ask, either: Sandbox):
    mine = either.workspaces[0].campaigns
    assert [each.id for each in ask("list_campaigns")] == [each.id for each in mine]
    assert [each.name for each in ask("list_campaigns", mine[0].name.upper())] == [mine[0].name]
    assert ask("list_campaigns", "no such campaign") == []


def test_generate(either: Sandbox):
    result = Ask("sync")("generate", either.campaign_id, LEAD, OPTIONS)
    assert [email.step for email in result.sequence] == [1, 2]
    assert result.credits_remaining == either.settings.credits - 1
    assert result.lead_id
    (purchase,) = either.purchases
    assert (purchase.list_id, purchase.list_name) == (result.list_id, "Spring")


def test_generate_batch_and_the_life_of_a_list(ask: Ask, either: Sandbox):
    accepted = ask("generate_batch", either.campaign_id, [LEAD, Lead("b@example.com")], OPTIONS)
    assert accepted.leads_count == 2
    seen = ask("get_list", accepted.list_id)
    assert seen.is_completed
    assert (seen.leads_count, seen.emails_created, seen.custom_name) == (2, 4, "Spring")
    assert seen.campaign_id == either.campaign_id
    assert seen.completed_at <= pendulum.now("UTC")
    csv = b"".join(ask("stream_export", accepted.list_id))
    assert b"dana.reyes@example.com" in csv
    leads = json.loads(b"".join(ask("stream_export", accepted.list_id, format="json")))["leads"]
    assert {lead["email"] for lead in leads} == {"dana.reyes@example.com", "b@example.com"}
    assert all(len(lead["sequence"]) == 2 for lead in leads)


def test_plain_mappings_are_leads_too_in_the_spellings_of_the_operators(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    exported = [{"E-Mail-Adresse": "A@Example.com", "Rufname": "A"}, LEAD]
    Ask("sync")("generate_batch", sandbox.campaign_id, exported)
    mapping = {"email": "To", "name": ["Given", "Rest"]}
    Ask("sync")(
        "generate_batch",
        sandbox.campaign_id,
        ({"To": "b@example.com", "Given": each, "Rest": "Doe"} for each in ["Bo"]),
        columns=mapping,
    )
    Ask("sync")("generate", sandbox.campaign_id, {"email": "a@example.com"})
    assert [purchase.emails for purchase in sandbox.purchases] == [
        ("A@example.com", "dana.reyes@example.com"),
        ("b@example.com",),
        ("a@example.com",),
    ]
    sent = [request.json["leads"][0] for request in sandbox.requests if "leads" in (request.json or {})]
    assert [lead["name"] for lead in sent] == ["A", "Bo Doe"]


@pytest.mark.parametrize(
    ("leads", "says"),
    [
        ([], "at least one lead"),
        ("dana.reyes@example.com", "of type str"),
        ({"email": "dana.reyes@example.com"}, "of type dict"),
        ([LEAD, "dana.reyes@example.com"], r"leads\[1\]"),
        ([{"name": "Dana Reyes"}], "email is missing, no column is named like it. The columns are 'name'"),
        ([LEAD, {"E-mail": "Dana.Reyes@example.com"}], r"leads\[1\]: same email as leads\[0\]"),
    ],
)
def test_what_is_no_lead_is_not_sent(sandbox: Sandbox, connect: Connect, leads: Any, says: str):
    connect(sandbox)
    with pytest.raises(exceptions.InvalidLeadsError, match=says) as caught:
        Ask("sync")("generate_batch", sandbox.campaign_id, leads)
    assert "dana" not in str(caught.value).lower()
    assert sandbox.requests == []


def test_the_generations_refuse_in_their_own_words(either: Sandbox):
    """The server judges what the two disagree on; its message arrives."""
    call = {"2025": {"email_count": 6}, "2026": {"email_count": 5, "email_signature": "Best"}}
    most = {"2025": 5, "2026": 4}[either.settings.generation]
    with pytest.raises(exceptions.BadRequestError, match=f"from 1 to {most}"):
        Ask("sync")("generate_batch", either.campaign_id, [LEAD], call[either.settings.generation])
    assert either.purchases == []


# --- lists


def test_iter_lists_reads_every_page(ask: Ask, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    bought = buy(sandbox, 205)
    seen = ask("iter_lists")
    assert [each.id for each in seen] == bought[::-1]
    assert all(isinstance(each, LeadList) for each in seen)
    pages = [request.query for request in sandbox.requests_to("lists")]
    assert pages == [{"limit": "100", "offset": str(offset)} for offset in (0, 100, 200)]


def test_iter_lists_passes_its_filters_on(ask: Ask, slow_sandbox: Sandbox, connect: Connect):
    connect(slow_sandbox)
    first, second = buy(slow_sandbox, 2)
    slow_sandbox.complete(first)
    assert [each.id for each in ask("iter_lists", slow_sandbox.campaign_id, "completed")] == [first]
    assert [each.id for each in ask("iter_lists", status="processing")] == [second]
    assert ask("iter_lists", slow_sandbox.unready_campaign_id) == []
    assert slow_sandbox.requests_to("lists")[0].query["campaign_id"] == slow_sandbox.campaign_id


def test_find_list(ask: Ask, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    _, older, newer, _ = buy(sandbox, 4, names=("other", "A [tag] B", "[tag]", "other"))
    long_ago = pendulum.now("UTC").subtract(hours=1)
    assert ask("find_list", sandbox.campaign_id, "[tag]", long_ago).id == newer
    assert ask("find_list", sandbox.campaign_id, "A [tag] B", long_ago).id == older
    assert ask("find_list", sandbox.campaign_id, "absent", long_ago) is None
    assert ask("find_list", sandbox.unready_campaign_id, "[tag]", long_ago) is None
    assert ask("find_list", sandbox.campaign_id, "[tag]", pendulum.now("UTC").add(hours=1)) is None


def test_find_list_reads_no_further_than_it_must(ask: Ask, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    buy(sandbox, 120, names=["[tag]"] + 119 * ["other"])
    assert ask("find_list", sandbox.campaign_id, "[tag]", pendulum.now("UTC").add(hours=1)) is None
    assert len(sandbox.requests_to("lists")) == 1
    assert ask("find_list", sandbox.campaign_id, "[tag]", pendulum.now("UTC").subtract(hours=1))
    assert len(sandbox.requests_to("lists")) == 3


def buy(sandbox: Sandbox, count: int, names: Any = None) -> list[str]:
    """Buy lists without the API's limit in the way; return their ids, oldest first."""
    bought = []
    with MachFiveHook() as hook:
        for number in range(count):
            options = {"list_name": names[number]} if names else None
            bought.append(hook.generate_batch(sandbox.campaign_id, [LEAD], options).list_id)
    return bought


# --- campaigns by name


def test_resolve_campaign(ask: Ask, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    wanted = sandbox.workspaces[0].campaigns[0]
    for name in (wanted.name, wanted.name.upper(), f"  {wanted.name} "):
        assert ask("resolve_campaign", name).id == wanted.id


def test_resolve_campaign_wants_the_whole_name(ask: Ask, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    campaigns = sandbox.workspaces[0].campaigns
    with pytest.raises(exceptions.ConfigurationError) as caught:
        ask("resolve_campaign", campaigns[0].name[:-1])
    for each in campaigns:
        assert f"'{each.name}' ({each.id})" in str(caught.value)
    assert "no campaign is called" in str(caught.value)


def test_resolve_campaign_refuses_to_choose(ask: Ask, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    first, second = sandbox.workspaces[0].campaigns[:2]
    second.name = first.name.upper()
    with pytest.raises(exceptions.ConfigurationError, match="several campaigns are called") as caught:
        ask("resolve_campaign", first.name)
    assert first.id in str(caught.value)
    assert second.id in str(caught.value)


def test_resolve_campaign_where_there_are_none_or_many(ask: Ask, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    campaigns = sandbox.workspaces[0].campaigns
    model = campaigns[0]
    campaigns.clear()
    with pytest.raises(exceptions.ConfigurationError, match="none at all"):
        ask("resolve_campaign", "Spring")
    campaigns.extend(type(model)(f"{number}", f"Campaign {number}", 0.0, 0.0) for number in range(13))
    with pytest.raises(exceptions.ConfigurationError, match=r"'Campaign 9' \(9\) and 3 more"):
        ask("resolve_campaign", "Spring")


# --- the Test button


def test_the_connection_works(ask: Ask, sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    ok, text = ask("test_connection")
    assert ok
    names = [each.name for each in sandbox.workspaces[0].campaigns]
    assert f"Connected to {sandbox.base_url}: this key's workspace has {len(names)} campaigns" in text
    assert ", ".join(names) in text
    sandbox.workspaces[0].campaigns.clear()
    assert ask("test_connection")[1].endswith("has 0 campaigns (none yet).")


KEY = "mf_live_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
BROKEN: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no key": ({"password": ""}, ("no API key", "password field")),
    "white space in the key": ({"password": "mf_live_a b"}, ("API key (password field)", "copy it")),
    "wrong key": ({"password": KEY}, ("401", "UNAUTHORIZED", "Invalid API key.", "password field")),
    "refused": ({"host": "UNUSED", "password": KEY}, ("cannot be reached (", "firewall")),
    "no such host": (
        {"host": "https://machfive.invalid", "password": KEY},
        ("https://machfive.invalid cannot be reached", "Check the base URL (host)"),
    ),
    "plain http": ({"host": "http://machfive.example", "password": KEY}, ("plain http", "https://")),
    "key in the URL": ({"host": f"https://{KEY}@app.machfive.io", "password": KEY}, ("must not hold a user",)),
    "no URL": ({"host": "http://[", "password": KEY}, ("is not a URL",)),
    "extra": ({"password": KEY, "extra": {"namespace": 5}}, ("extra 'namespace' must be a text",)),
    "extra's limit": (
        {"password": KEY, "extra": {"max_concurrent_batches": "many"}},
        ("'max_concurrent_batches' must be a whole number",),
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_wrong_with_the_connection(
    ask: Ask, sandbox: Sandbox, connect: Connect, broken: str, caplog: pytest.LogCaptureFixture
):
    fields, says = BROKEN[broken]
    if fields.get("host") == "UNUSED":
        fields = {**fields, "host": unused_url()}
    connect(sandbox, **fields)
    ok, text = ask("test_connection")
    assert not ok
    for part in says:
        assert part in text
    assert KEY not in text
    assert KEY not in caplog.text
    if broken not in ("wrong key", "refused"):
        assert sandbox.requests == []


def test_the_button_asks_once(ask: Ask, sandbox: Sandbox, connect: Connect):
    """Somebody waits for it."""
    connect(sandbox)
    sandbox.fault("html", times=None, status=503)
    ok, text = ask("test_connection")
    assert not ok
    assert text.startswith("MachFive responded 503 and gave no reason")
    assert len(sandbox.requests) == 1


NOT_THE_API: dict[str, bytes] = {
    "a website": http(b"<html>Welcome</html>"),
    "a website without that page": http(b"<html>Not here</html>", "404 Not Found"),
    "another API": http(b'{"data": []}'),
    "another API without that path": http(b'{"detail": "Not Found"}', "404 Not Found"),
    "a redirect": http(b"", "302 Found", "Location: /login"),
}


@pytest.mark.parametrize("server", NOT_THE_API)
def test_somebody_else_responds(ask: Ask, connect: Connect, server: str):
    with raw_server(NOT_THE_API[server]) as other:
        connect(host=other.base_url, password=KEY)
        ok, text = ask("test_connection")
    assert not ok
    assert text.startswith(f"{other.base_url} responds, but not as the MachFive API does: ")
    assert "Check the base URL (host)." in text
    assert KEY not in text


def test_the_connection_tested_may_not_exist(ask: Ask):
    ok, text = ask("test_connection", conn_id="nobody_made_this")
    assert not ok
    assert "'nobody_made_this'" in text


def test_the_test_leaves_no_connection_open(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    hook = MachFiveHook()
    assert hook.test_connection()[0]
    hook.close()
    sandbox.wait_until(lambda: sandbox.open_connections == 0)


# --- connections


def test_a_connection_that_does_not_exist(ask: Ask, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(exceptions.ConfigurationError, match="'nobody_made_this' does not exist") as caught:
        ask("list_campaigns", conn_id="nobody_made_this")
    assert "type MachFive" in str(caught.value)
    assert "machfive_conn_id" in str(caught.value)


def test_a_connection_without_host_means_machfive(connect: Connect):
    connect(password=KEY)
    hook = MachFiveHook()
    assert hook.settings.client.base_url == "https://app.machfive.io"
    assert asyncio.run(MachFiveHook().aget_settings()) == hook.settings
    assert KEY not in f"{hook!r} {hook.settings!r} {vars(hook)}"


def test_a_rotated_key_is_read_after_forgetting_the_connection(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    with MachFiveHook() as hook:
        assert hook.list_campaigns()
        sandbox.workspaces[0].api_key = KEY
        connect(sandbox)
        with pytest.raises(exceptions.UnauthorizedError):
            hook.list_campaigns()
        hook.forget_connection()
        assert hook.list_campaigns()


def test_one_client_for_all_calls(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    with MachFiveHook() as hook:
        client = hook.get_conn()
        hook.list_campaigns()
        hook.list_campaigns()
        assert hook.get_conn() is client
        sandbox.wait_until(lambda: sandbox.open_connections == 1)
    sandbox.wait_until(lambda: sandbox.open_connections == 0)


def test_the_retry_policy_is_the_callers(sandbox: Sandbox, connect: Connect):
    connect(sandbox)
    sandbox.fault("html", times=None)
    with MachFiveHook(retry_policy=RetryPolicy(attempts=2, base=0.0)) as hook, pytest.raises(exceptions.ServerError):
        hook.list_campaigns()
    assert len(sandbox.requests) == 2


@pytest.mark.parametrize(
    ("method", "args", "names"),
    [
        ("get_list", ("nonsense",), "list_id"),
        ("get_list", (None,), "list_id"),
        ("generate", ("nonsense", LEAD), "campaign_id"),
        ("generate_batch", ("../../lists", [LEAD]), "campaign_id"),
        ("iter_lists", ("nonsense",), "campaign_id"),
        ("find_list", ("nonsense", "name", pendulum.datetime(2026, 1, 1)), "campaign_id"),
        ("stream_export", ("nonsense",), "list_id"),
        ("stream_export", (UNKNOWN_ID, "xlsx"), "format"),
    ],
)
def test_nothing_malformed_is_sent(
    ask: Ask, sandbox: Sandbox, connect: Connect, method: str, args: tuple[Any, ...], names: str
):
    connect(sandbox)
    with pytest.raises(exceptions.ConfigurationError, match=names):
        ask(method, *args)
    assert sandbox.requests == []
