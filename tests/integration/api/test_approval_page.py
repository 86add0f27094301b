"""The page on which a person approves: read as a browser reads it, without any script."""

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import pytest

from tests.support.database import DatabaseUrls
from tests.support.house import House, house
from tests.support.suspended import a_flow, a_module, end, finish, park, start

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)></textarea></select><!--&lt;"
SCHEMA = {
    "properties": {
        "amount": {"type": "integer", "title": f"Amount {HOSTILE}", "description": HOSTILE},
        "why": {"type": "string", "format": "textarea"},
        HOSTILE: {"type": "string"},
        "sure": {"type": "boolean"},
        "size": {"type": "string", "enum": ["small", HOSTILE]},
    },
    "required": ["amount"],
}


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def buttons(self) -> list[str | None]:
        return [each["value"] for each in self.attributes("button")]


@pytest.fixture(scope="module")
async def api(database_urls: DatabaseUrls) -> AsyncIterator[House]:
    async with house(database_urls) as it:
        await it.person("root", is_admin=True)
        await it.person("ann")
        await it.person("bob")
        yield it


@pytest.fixture(autouse=True)
async def clean(api: House) -> None:
    await api.queue.empty()


async def address(
    api: House, *, answer: Any = None, approver: str = "", summary: str = "", **parked: Any
) -> tuple[uuid.UUID, str]:
    """Return a flow that waits and the address of its page, on the host that the tests reach."""
    flow = await a_flow(api.queue, {"modules": [a_module("a", summary=summary, suspend={}), a_module("b")]})
    job = await start(api.queue, flow, 0, "a")
    await end(api.queue, job, answer)
    await park(api.queue, flow, 1, "b", job, **parked)
    urls = (await api.get("ann", f"jobs/resume_urls/{job}/5", approver=approver)).json
    parts = urlsplit(urls["approvalPage"])
    assert not parts.path.startswith("/api")
    return flow, parts._replace(scheme="http", netloc=urlsplit(api.url).netloc).geturl()


async def visit(
    url: str, data: Mapping[str, str] | None = None, **headers: Any
) -> tuple[int, Page, Mapping[str, str], str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            "GET" if data is None else "POST",
            url,
            data=None if data is None else urlencode(data),
            headers={**({} if data is None else {"Content-Type": "application/x-www-form-urlencoded"}), **headers},
            allow_redirects=False,
        ) as answer,
    ):
        text = await answer.text()
        return answer.status, Page(text), answer.headers.copy(), text


async def said(api: House, flow: uuid.UUID) -> list[tuple[bool, Any]]:
    rows = await api.queue.look.fetch("SELECT approved, value FROM queue.flow_resume WHERE flow_id = $1", flow)
    return [(row["approved"], json.loads(row["value"])) for row in rows]


async def test_a_person_reads_what_is_asked_and_approves(api: House) -> None:
    flow, url = await address(
        api,
        answer={"description": "Pay 3 invoices?", "default_args": {"amount": 7}, "enums": {"why": ["x", "y"]}},
        approver="Eve",
        summary="Ask the boss",
        conditions={"resume_form": SCHEMA},
    )
    status, page, headers, _ = await visit(url)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    for each in ("ann", "f/folder/script", "Ask the boss", "Pay 3 invoices?", "Eve", "small"):
        assert each in page.text
    assert page.buttons == ["approve", "refuse"]
    (amount,) = (each for each in page.attributes("input") if each["name"] == "field.amount")
    assert (amount["type"], amount["value"]) == ("number", "7")
    filled = {"field.amount": "12", "field.why": "1", "field.sure": "yes", "field.size": "0", "do": "approve"}
    status, page, _, _ = await visit(url, filled)
    assert (status, "noted" in page.text) == (200, True)
    assert await said(api, flow) == [(True, {"amount": 12, "why": "y", "sure": True, "size": "small"})]


async def test_a_person_refuses_without_filling_in_anything(api: House) -> None:
    flow, url = await address(api, conditions={"resume_form": SCHEMA})
    status, page, _, _ = await visit(url, {"do": "refuse"})
    assert (status, "refusal is noted" in page.text) == (200, True)
    assert await said(api, flow) == [(False, None)]


async def test_a_wrong_field_is_named_and_nothing_is_noted(api: House) -> None:
    flow, url = await address(api, conditions={"resume_form": SCHEMA})
    for filled in ({"field.amount": "x"}, {"field.amount": ""}, {"field.amount": "1", "field.size": "9"}):
        status, page, _, _ = await visit(url, {**filled, "do": "approve"})
        assert (status, page.buttons) == (400, ["approve", "refuse"])
    assert (await visit(url, {"do": "something else"}))[0] == 400
    assert await said(api, flow) == []


async def test_where_refusing_is_hidden_the_page_does_not_refuse(api: House) -> None:
    flow, url = await address(api, conditions={"hide_cancel": True})
    _, page, _, _ = await visit(url)
    assert page.buttons == ["approve"]
    assert (await visit(url, {"do": "refuse"}))[0] == 400
    assert await said(api, flow) == []


async def test_hostile_text_stays_text(api: House) -> None:
    """A23: whatever comes from flows, results, schemas and addresses is shown and never run."""
    answer = {
        "description": HOSTILE,
        "default_args": {"why": HOSTILE, HOSTILE: HOSTILE},
        "enums": {"amount": [HOSTILE]},
    }
    _, url = await address(api, answer=answer, approver=HOSTILE, summary=HOSTILE, conditions={"resume_form": SCHEMA})
    _, page, _, text = await visit(url)
    assert "<script" not in text
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "img", "iframe", "link", "object", "a"})
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert page.text.count(HOSTILE) >= 4
    _, page, _, text = await visit(url, {"do": "approve", "field.size": HOSTILE})
    assert "<script" not in text


async def test_the_page_runs_nothing_and_is_shown_nowhere_else(api: House) -> None:
    _, url = await address(api)
    for data in (None, {"do": "approve"}):
        _, page, headers, _ = await visit(url, data)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "form-action 'self'" in policy
        assert "script-src" not in policy
        assert "unsafe" not in policy
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] in ("same-origin", "no-referrer")
        assert not any("style" in attrs for _, attrs in page.tags)


@pytest.mark.parametrize("data", [None, {"do": "approve"}], ids=["seen", "sent"])
async def test_why_nothing_can_be_decided_is_told_in_words(api: House, data: Mapping[str, str] | None) -> None:
    flow, url = await address(api, needed=2)
    forged = url.replace("/5/", "/6/")
    status, page, _, _ = await visit(forged, data)
    assert (status, "not one of ours" in page.text, page.buttons) == (403, True, [])
    await visit(url, {"do": "approve"})
    status, page, _, _ = await visit(url, data)
    assert (status, "used before" in page.text, page.buttons) == (409, True, [])
    flow, url = await address(api)
    await finish(api.queue, flow)
    status, page, _, _ = await visit(url, data)
    assert (status, "any more" in page.text, page.buttons) == (409, True, [])
    assert len(await said(api, flow)) == 0


async def test_a_step_that_wants_a_login_shows_nothing_before(api: House) -> None:
    flow, url = await address(api, answer={"description": "secret"}, conditions={"user_auth_required": True})
    for data in (None, {"do": "approve"}):
        status, page, _, text = await visit(url, data)
        assert (status, "secret" in text, page.buttons) == (401, False, ["log in"])
    cookie: dict[str, Any] = {"Cookie": f"token={api.tokens['bob']}"}
    assert "secret" in (await visit(url, **cookie))[3]
    assert (await visit(url, {"do": "approve"}, **cookie, Origin="https://evil.example"))[0] == 401
    assert await said(api, flow) == []
    own = "http://" + urlsplit(url).netloc
    assert (await visit(url, {"do": "approve"}, **cookie, Origin=own))[0] == 200
    assert len(await said(api, flow)) == 1


async def test_a_person_logs_in_on_the_page(api: House) -> None:
    _, url = await address(api, conditions={"user_auth_required": True})
    kept = await api.context.passwords.hash("right horse")
    await api.queue.look.execute("UPDATE platform.person SET password_hash = $1 WHERE email = 'bob@example.com'", kept)
    status, page, _, _ = await visit(url, {"do": "log in", "email": "bob@example.com", "password": "wrong"})
    assert (status, page.buttons) == (401, ["log in"])
    right = {"do": "log in", "email": "bob@example.com", "password": "right horse"}
    assert (await visit(url, right, Origin="https://evil.example"))[0] == 403
    status, _, headers, _ = await visit(url, right)
    assert (status, headers["Location"]) == (303, urlsplit(url).path)
    cookie = headers["Set-Cookie"].partition(";")[0]
    assert (await visit(url, Cookie=cookie))[0] == 200
    assert (await visit(url, {"do": "log in", "email": "", "password": ""}))[0] in (401, 422)


async def test_the_requester_is_told_that_others_have_to_approve(api: House) -> None:
    _, url = await address(api, conditions={"self_approval_disabled": True})
    status, page, _, _ = await visit(url, Cookie=f"token={api.tokens['ann']}")
    assert (status, "themselves" in page.text, page.buttons) == (403, True, [])


async def test_a_password_is_tried_only_where_a_login_is_wanted(api: House) -> None:
    guess = {"do": "log in", "email": "bob@example.com", "password": "wrong"}
    _, open_to_all = await address(api)
    status, page, _, _ = await visit(open_to_all, guess)
    assert (status, page.buttons) == (400, ["approve", "refuse"])
    _, url = await address(api, conditions={"user_auth_required": True})
    assert (await visit(url.rpartition("/")[0] + "/" + "0" * 64, guess))[0] == 403


async def test_no_signature_is_in_a_line_of_the_log(api: House, caplog: pytest.LogCaptureFixture) -> None:
    _, url = await address(api)
    with caplog.at_level("DEBUG"):
        await visit(url)
        await visit(url, {"do": "approve"})
        for method in ("OPTIONS", "PUT", "PATCH"):
            async with api.session.request(method, url) as answer:
                assert answer.status == 405
            async with api.session.request(method, f"{url.replace('/approve/', '//approve//')}/") as answer:
                assert answer.status == 404
        for use in ("resume", "cancel", "get_flow"):
            await api.call(None, "PUT", "jobs_u/" + use + urlsplit(url).path.partition(api.workspace)[2], status=405)
    signature = urlsplit(url).path.rpartition("/")[2]
    paths = [each.path for each in caplog.records if hasattr(each, "path")]
    assert any("/approve/" in each for each in paths)
    assert not any(signature in each for each in paths)
