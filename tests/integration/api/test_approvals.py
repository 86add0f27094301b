"""Approving and refusing what a flow waits for: whoever holds a URL may use it once, and no other."""

import asyncio
import base64
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.database import DatabaseUrls
from tests.support.house import House, Reply, house
from tests.support.suspended import a_flow, a_module, end, finish, park, start
from tidemill.api.tokens.rules import digest

LOGIN = {"user_auth_required": True}
NOT_SELF = {"self_approval_disabled": True}
NOT_YET: Mapping[str, Mapping[str, Any]] = {
    "login": {"user_auth_required": True},
    "not the requester": {"self_approval_disabled": True},
    "groups": {"user_groups_required": {"type": "static", "value": ["all"]}},
    "groups of an expression": {"user_groups_required": {"type": "javascript", "expr": "['all']"}},
}
"""What a step may demand of who approves."""


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


def a_value(**suspend: Any) -> Mapping[str, Any]:
    return {"modules": [a_module("a", suspend={"required_events": 1, **suspend}), a_module("b"), a_module("c")]}


@dataclass(frozen=True)
class Urls:
    """The URLs of one approval."""

    page: str
    resume: str
    cancel: str

    @property
    def signature(self) -> str:
        return urlsplit(self.resume).path.rpartition("/")[2]


async def urls(api: House, job: uuid.UUID, number: int = 7, *, who: str = "ann", **query: Any) -> Urls:
    got = (await api.get(who, f"jobs/resume_urls/{job}/{number}", **query)).json
    assert got.keys() == {"approvalPage", "resume", "cancel"}
    return Urls(got["approvalPage"], got["resume"], got["cancel"])


async def use(api: House, url: str, value: Any = None, *, who: str | None = None, method: str = "POST") -> Reply:
    """Use a URL as it stands."""
    parts = urlsplit(url)
    query: dict[str, Any] = {name: values[0] for name, values in parse_qs(parts.query).items()}
    return await api.call(who, method, parts.path.removeprefix("/api"), value, **query)


async def waiting(api: House, value: Mapping[str, Any] | None = None, **parked: Any) -> tuple[uuid.UUID, uuid.UUID]:
    """Return a flow that waits and the job that it waits after."""
    flow = await a_flow(api.queue, value or a_value())
    job = await start(api.queue, flow, 0, "a")
    await end(api.queue, job)
    await park(api.queue, flow, 1, "b", job, **parked)
    await api.queue.look.execute("DELETE FROM bus.outbox")
    return flow, job


async def noted(api: House, flow: uuid.UUID) -> list[tuple[Any, ...]]:
    rows = await api.queue.look.fetch(
        "SELECT approver, approved, value FROM queue.flow_resume WHERE flow_id = $1 ORDER BY said_at", flow
    )
    return [(row["approver"], row["approved"], json.loads(row["value"])) for row in rows]


async def said(api: House) -> list[str]:
    rows = await api.queue.look.fetch("SELECT key FROM bus.outbox ORDER BY key")
    return [row["key"] for row in rows]


async def test_an_approval_is_noted_with_what_was_said_and_wakes_its_flow(api: House) -> None:
    flow, job = await waiting(api)
    got = await urls(api, job, approver="Eve & Co")
    answer = await use(api, got.resume, {"amount": 3})
    assert (answer.status, answer.text) == (201, "approved")
    assert await noted(api, flow) == [("Eve & Co", True, {"amount": 3})]


async def test_one_approval_says_that_the_flow_is_ready_and_one_audit_event(api: House) -> None:
    """Nobody listens here, so that all that is said stays where it was written."""
    flow, job = await waiting(api, needed=2)
    one, two = await urls(api, job, 1, approver="eve"), await urls(api, job, 2)
    for url, who, operation, approver in (
        (one.resume, None, "jobs", "eve"),
        (two.cancel, "bob", "jobs.disapproval", "bob"),
    ):
        await api.queue.look.execute("DELETE FROM bus.outbox")
        assert (await use(api, url, who=who)).status == 201
        assert (await use(api, url, who=who)).status == 409
        assert await said(api) == [f"audit.{operation}", "flow.ready"]
        (entry,) = await api.audited()
        assert (entry["operation"], entry["resource"], entry["username"]) == (operation, str(flow), who or "anonymous")
        assert entry["parameters"]["approver"] == approver


@pytest.mark.parametrize("approved", [True, False])
async def test_a_link_decides_with_what_it_carries(api: House, approved: bool) -> None:
    flow, job = await waiting(api)
    got = await urls(api, job)
    payload = base64.urlsafe_b64encode(json.dumps({"text": "ÿ?>"}).encode()).decode().rstrip("=")
    answer = await use(api, f"{got.resume if approved else got.cancel}?payload={payload}", method="GET")
    assert answer.status == 201
    assert await noted(api, flow) == [("anonymous", approved, {"text": "ÿ?>"})]


async def test_looking_where_a_link_leads_decides_nothing(api: House) -> None:
    flow, job = await waiting(api)
    got = await urls(api, job)
    for url in (got.resume, got.cancel):
        assert (await use(api, url, method="HEAD")).status == 405
    assert await noted(api, flow) == []


@pytest.mark.parametrize("number", [0, 10**9, 2**32 - 1])
async def test_resume_ids_are_as_large_as_clients_draw_them(api: House, number: int) -> None:
    _, job = await waiting(api)
    got = await urls(api, job, number)
    assert (await use(api, got.resume)).status == 201


@pytest.mark.parametrize("number", ["-1", "4294967296", "1e3", "x", "٣"])
async def test_what_is_no_resume_id_is_not_there(api: House, number: str) -> None:
    _, job = await waiting(api)
    await api.get("ann", f"jobs/resume_urls/{job}/{number}", status=404)


async def test_an_empty_approver_is_none(api: House) -> None:
    _, job = await waiting(api)
    assert (await urls(api, job, approver="")) == await urls(api, job)


async def test_who_does_not_own_the_job_gets_no_urls_for_it(api: House) -> None:
    _, job = await waiting(api)
    await api.get("bob", f"jobs/resume_urls/{job}/1", status=404)
    await api.get(None, f"jobs/resume_urls/{job}/1", status=401)


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        ("read_only = true", 403),
        ("scopes = '{jobs:read}'", 403),
        ("scopes = '{jobs:read, jobs:run:scripts:f/other}'", 403),
        ("scopes = '{jobs:write}'", 200),
        ("scopes = '{jobs:run, jobs:read}'", 200),
    ],
)
async def test_a_token_that_only_reads_gets_no_urls(api: House, limits: str, status: int) -> None:
    """Whoever holds a URL decides, and this token may not."""
    _, job = await waiting(api)
    await api.person("ann limited")
    await api.queue.look.execute(
        f"UPDATE platform.token SET email = 'ann@example.com', {limits} WHERE hash = $1",
        digest(api.tokens["ann limited"]),
    )
    for path in (f"resume_urls/{job}/1", f"job_signature/{job}/1", f"wac_approval_urls/{job}/key"):
        await api.get("ann limited", f"jobs/{path}", status=status)


async def test_a_job_that_is_no_step_has_no_urls(api: House) -> None:
    job = await api.preview()
    await api.get("ann", f"jobs/resume_urls/{job}/1", status=400)


async def test_forged_urls_decide_nothing(api: House) -> None:
    """A22: every part of a URL is signed, and a signature is good for nothing else."""
    flow, job = await waiting(api)
    _, other = await waiting(api)
    got, theirs = await urls(api, job, approver="eve"), await urls(api, other, approver="eve")
    whole, step = await urls(api, job, flow_level=True), await urls(api, job)
    turned = ("0" if got.signature[0] != "0" else "1") + got.signature[1:]
    for forged in (
        got.resume.replace(got.signature, turned),
        got.resume.replace(got.signature, "0" * 64),
        got.resume.replace(got.signature, got.signature[:-1]),
        got.resume.replace(got.signature, got.signature.upper() + "é"),
        got.resume.replace("approver=eve", "approver=bob"),
        got.resume.partition("?")[0],
        got.resume.replace("/7/", "/8/"),
        got.resume.replace(str(job), str(other)),
        got.resume.replace(got.signature, theirs.signature),
        whole.resume.replace(whole.signature, step.signature),
        step.resume.replace(step.signature, whole.signature),
        got.resume.replace(str(job), str(uuid.uuid4())),
        got.resume.replace(f"/w/{api.workspace}/", "/w/elsewhere/"),
    ):
        for url in (forged, forged.replace("/resume/", "/cancel/")):
            assert (await use(api, url)).status in (403, 404), url
    assert await noted(api, flow) == []


async def test_a_chosen_job_id_signs_nothing_of_another_job(api: House) -> None:
    """A22: what is signed says what the id in it stands for."""
    _, step = await waiting(api)
    job = await api.preview(who="bob")
    for victim in (job, step):
        chosen = uuid.UUID(hashlib.md5(f"workflow {victim} ".encode(), usedforsecurity=False).hexdigest())
        body: dict[str, Any] = {"value": {"modules": []}, "args": {}}
        await api.post("ann", "jobs/run/preview_flow", body, status=201, job_id=str(chosen))
        got = await urls(api, chosen, flow_level=True)
        for use_of in ("resume", "cancel", "get_flow"):
            url = got.resume.replace(str(chosen), str(victim)).replace("/resume/", f"/{use_of}/")
            assert (await use(api, url, method="GET")).status == 403


async def test_what_is_no_workflow_has_no_urls_of_one(api: House) -> None:
    job = await api.preview()
    got = (await api.get("ann", f"jobs/wac_approval_urls/{job}/key")).json
    assert (await use(api, got["resume"].replace("/resume/", "/get_flow/"), method="GET")).status == 403


async def test_a_url_is_good_once(api: House) -> None:
    flow, job = await waiting(api, needed=3)
    got = await urls(api, job)
    assert (await use(api, got.resume, "first")).status == 201
    for url in (got.resume, got.cancel):
        again = await use(api, url, "second")
        assert (again.status, "used before" in again.text) == (409, True)
    assert await noted(api, flow) == [("anonymous", True, "first")]


async def test_of_two_at_once_one_is_noted(api: House) -> None:
    flow, job = await waiting(api, needed=3)
    got = await urls(api, job)
    answers = await asyncio.gather(*(use(api, url) for url in (got.resume, got.cancel) * 4))
    assert sorted(each.status for each in answers) == [201] + [409] * 7
    assert len(await noted(api, flow)) == 1


async def test_of_two_people_at_once_the_one_that_is_needed_counts(api: House) -> None:
    flow, job = await waiting(api)
    one, two = await urls(api, job, 1), await urls(api, job, 2)
    answers = await asyncio.gather(use(api, one.resume), use(api, two.cancel))
    assert sorted(each.status for each in answers) == [201, 409]
    assert len(await noted(api, flow)) == 1


async def test_after_a_refusal_nobody_approves(api: House) -> None:
    flow, job = await waiting(api, needed=2)
    assert (await use(api, (await urls(api, job, 1)).cancel, "no")).status == 201
    assert (await use(api, (await urls(api, job, 2)).resume)).status == 409
    assert await noted(api, flow) == [("anonymous", False, "no")]


async def test_after_the_end_nobody_approves(api: House) -> None:
    flow, job = await waiting(api)
    got, whole = await urls(api, job, 1), await urls(api, job, 2, flow_level=True)
    await finish(api.queue, flow)
    for url in (got.resume, got.cancel, whole.resume):
        answer = await use(api, url)
        assert (answer.status, "any more" in answer.text) == (409, True)


async def test_after_a_cancel_nobody_approves(api: House) -> None:
    flow, job = await waiting(api)
    got = await urls(api, job)
    await api.post("ann", f"jobs_u/queue/cancel/{flow}")
    assert (await use(api, got.resume)).status == 409
    assert await noted(api, flow) == []


async def test_when_the_time_is_over_nobody_approves(api: House) -> None:
    flow, job = await waiting(api, until=timedelta(seconds=-1))
    assert (await use(api, (await urls(api, job)).resume)).status == 409
    assert await noted(api, flow) == []


async def test_when_the_flow_has_gone_on_nobody_approves(api: House) -> None:
    flow, job = await waiting(api)
    later = await urls(api, job, 2)
    assert (await use(api, (await urls(api, job, 1)).resume)).status == 201
    await start(api.queue, flow, 1, "b")
    assert (await use(api, later.resume)).status == 409


async def test_an_approval_may_come_before_the_flow_waits(api: House) -> None:
    flow = await a_flow(api.queue, a_value())
    job = await start(api.queue, flow, 0, "a")
    assert (await use(api, (await urls(api, job)).resume, "early")).status == 201
    assert await noted(api, flow) == [("anonymous", True, "early")]


@pytest.mark.parametrize("suspend", NOT_YET.values(), ids=NOT_YET)
async def test_what_demands_something_is_not_approved_before_the_flow_waits(
    api: House, suspend: Mapping[str, Any]
) -> None:
    flow = await a_flow(api.queue, a_value(**suspend))
    job = await start(api.queue, flow, 0, "a")
    for level in (False, True):
        got = await urls(api, job, flow_level=level)
        for who in (None, "ann", "root"):
            answer = await use(api, got.resume, who=who)
            assert (answer.status, "yet" in answer.text) == (409, True)
    assert await noted(api, flow) == []


async def test_a_step_that_waits_for_nobody_is_not_approved(api: House) -> None:
    flow = await a_flow(api.queue, a_value())
    job = await start(api.queue, flow, 1, "b")
    assert (await use(api, (await urls(api, job)).resume)).status == 409


async def test_a_url_of_the_whole_flow_counts_for_whatever_waits_next(api: House) -> None:
    flow, job = await waiting(api)
    got = await urls(api, job, 9, flow_level=True)
    assert str(flow) in got.resume
    assert (await use(api, got.resume)).status == 201
    (row,) = await api.queue.look.fetch("SELECT step_job FROM queue.flow_resume WHERE flow_id = $1", flow)
    assert row["step_job"] is None


async def test_a_flow_has_urls_of_its_own(api: House) -> None:
    flow, _ = await waiting(api)
    await api.get("ann", f"jobs/resume_urls/{flow}/1", status=400)
    assert (await use(api, (await urls(api, flow, flow_level=True)).resume)).status == 201


async def test_a_step_that_wants_a_login_takes_no_word_without_one(api: House) -> None:
    flow, job = await waiting(api, conditions=LOGIN)
    got = await urls(api, job, approver="root")
    assert (await use(api, got.resume)).status == 401
    assert (await use(api, got.cancel)).status == 401
    assert (await use(api, got.resume, who="bob")).status == 201
    assert [each[0] for each in await noted(api, flow)] == ["bob"]


async def test_a_job_is_no_person(api: House) -> None:
    flow, job = await waiting(api, conditions=LOGIN)
    got = await urls(api, job)
    await api.queue.start_worker("bash")
    await api.preview(who="root")
    token = (await api.queue.claimed("bash")).row["token"]
    api.tokens["job"] = token
    assert (await use(api, got.resume, who="job")).status == 401
    assert (await api.post("job", f"jobs/flow/resume/{flow}", status=None)).status == 401
    assert await noted(api, flow) == []


async def test_the_requester_may_not_approve_where_that_is_forbidden_but_others_and_admins_may(api: House) -> None:
    """A22: by the requester himself."""
    flow, job = await waiting(api, conditions=NOT_SELF, needed=3)
    got = await urls(api, job)
    assert (await use(api, got.resume)).status == 401
    assert (await use(api, got.resume, who="ann")).status == 403
    assert (await api.post("ann", f"jobs/flow/resume/{flow}", status=None)).status == 403
    assert (await use(api, got.resume, who="bob")).status == 201
    assert (await use(api, (await urls(api, job, 8)).resume, who="root")).status == 201
    assert [each[0] for each in await noted(api, flow)] == ["bob", "root"]


async def test_only_members_of_the_groups_may_approve(api: House) -> None:
    _, job = await waiting(api, conditions={"user_groups_required": ["g"]})
    got = await urls(api, job)
    assert (await use(api, got.resume)).status == 401
    assert (await use(api, got.resume, who="bob")).status == 403
    assert (await use(api, got.resume, who="root")).status == 201
    _, job = await waiting(api, conditions={"user_groups_required": ["g", "all"]})
    assert (await use(api, (await urls(api, job)).resume, who="bob")).status == 201


async def test_a_login_of_another_site_is_none(api: House) -> None:
    _, job = await waiting(api, conditions=LOGIN)
    got = await urls(api, job)
    path = urlsplit(got.resume).path.removeprefix("/api")
    cookie = {"Cookie": f"token={api.tokens['bob']}"}
    forced = await api.call(None, "POST", path, headers={**cookie, "Origin": "https://evil.example"})
    assert forced.status == 401
    assert (await api.call(None, "POST", path, headers={**cookie, "Sec-Fetch-Site": "same-origin"})).status == 201


async def test_owners_approve_without_a_url_and_count_once_each(api: House) -> None:
    flow, _ = await waiting(api, needed=3)
    assert (await api.post("ann", f"jobs/flow/resume/{flow}", {"a": 1}, status=201)).text == "approved"
    await api.post("ann", f"jobs/flow/resume/{flow}", {"a": 2}, status=409)
    await api.post("root", f"jobs/flow/resume/{flow}", status=201)
    await api.post("bob", f"jobs/flow/resume/{flow}", status=404)
    assert await noted(api, flow) == [("ann", True, {"a": 1}), ("root", True, None)]


async def test_owners_do_not_approve_in_advance_or_what_is_no_flow(api: House) -> None:
    flow = await a_flow(api.queue, a_value())
    await start(api.queue, flow, 0, "a")
    await api.post("ann", f"jobs/flow/resume/{flow}", status=409)
    await api.post("ann", f"jobs/flow/resume/{await api.preview()}", status=403)


async def test_a_token_of_approval_resumes_and_refuses(api: House) -> None:
    flow, job = await waiting(api, needed=2)
    for number, approved in ((1, True), (2, False)):
        signature = (await api.get("ann", f"jobs/job_signature/{job}/{number}")).text
        body = {"approval_token": f"{number}.{signature}", "payload": [number], "approved": approved}
        await api.post(None, f"jobs_u/flow/resume_suspended/{job}", body, status=201)
    assert [each[1:] for each in await noted(api, flow)] == [(True, [1]), (False, [2])]


async def test_without_a_token_of_approval_only_owners_resume(api: House) -> None:
    flow, job = await waiting(api)
    where = f"jobs_u/flow/resume_suspended/{flow}"
    await api.post(None, where, {}, status=404)
    await api.post("bob", where, {}, status=404)
    for token in ("x", "1.x", "1", ".", "1."):
        await api.post("ann", f"jobs_u/flow/resume_suspended/{job}", {"approval_token": token}, status=403)
    await api.post("ann", where, {"payload": 1}, status=201)
    assert await noted(api, flow) == [("ann", True, 1)]


async def test_the_flow_is_shown_to_who_holds_a_url_of_it(api: House) -> None:
    flow, job = await waiting(api, needed=2)
    got = await urls(api, job, 1, approver="eve")
    await use(api, got.resume)
    shown = (await use(api, got.resume.replace("/resume/", "/get_flow/"), method="GET")).json
    assert shown["approvers"] == [{"resume_id": 1, "approver": "eve"}]
    assert shown["job"] == (await api.get("ann", f"jobs_u/get/{flow}")).json
    forged = got.resume.replace("/resume/", "/get_flow/").replace("/1/", "/2/")
    assert (await use(api, forged, method="GET")).status == 403


async def test_a_flow_whose_step_wants_a_login_is_not_shown_without_one(api: House) -> None:
    _, job = await waiting(api, conditions=LOGIN)
    got = (await urls(api, job)).resume.replace("/resume/", "/get_flow/")
    assert (await use(api, got, method="GET")).status == 401
    assert (await use(api, got, method="GET", who="bob")).status == 200


GROUPS = {"user_groups_required": {"type": "static", "value": ["g"]}}


@pytest.mark.parametrize("level", [False, True])
@pytest.mark.parametrize(("suspend", "bob"), [(LOGIN, 200), (GROUPS, 403), (NOT_YET["groups of an expression"], 403)])
async def test_a_flow_that_is_not_for_all_eyes_is_not_shown_before_or_after_it_waits(
    api: House, suspend: Mapping[str, Any], bob: int, level: bool
) -> None:
    flow = await a_flow(api.queue, a_value(**suspend))
    job = await start(api.queue, flow, 0, "a")
    got = (await urls(api, job, flow_level=level)).resume.replace("/resume/", "/get_flow/")

    async def shown() -> list[int]:
        return [(await use(api, got, method="GET", who=who)).status for who in (None, "bob", "root")]

    assert await shown() == [401, bob, 200]
    await end(api.queue, job)
    await finish(api.queue, flow)
    assert await shown() == [401, bob, 200]


async def test_a_flow_that_waits_for_a_group_is_shown_to_nobody_else(api: House) -> None:
    _, job = await waiting(api, conditions={"user_groups_required": ["g"]})
    got = (await urls(api, job)).resume.replace("/resume/", "/get_flow/")
    assert [(await use(api, got, method="GET", who=who)).status for who in (None, "bob", "root")] == [401, 403, 200]


async def test_one_person_who_has_logged_in_counts_once_whatever_their_urls(api: House) -> None:
    flow, job = await waiting(api, conditions=LOGIN, needed=2)
    assert (await use(api, (await urls(api, job, 1)).resume, who="bob")).status == 201
    for level in (False, True):
        again = await use(api, (await urls(api, job, 2, flow_level=level)).resume, who="bob")
        assert (again.status, "counts once" in again.text) == (409, True)
    assert (await use(api, (await urls(api, job, 3)).resume, who="root")).status == 201
    assert [each[0] for each in await noted(api, flow)] == ["bob", "root"]


async def test_a_token_of_approval_may_name_whom_it_is_for(api: House) -> None:
    flow, job = await waiting(api)
    signature = (await api.get("ann", f"jobs/job_signature/{job}/1", approver="E. V. E.")).text
    for forged in (f"1.{signature}", f"1.{signature}.Bob"):
        await api.post(None, f"jobs_u/flow/resume_suspended/{job}", {"approval_token": forged}, status=403)
    token = f"1.{signature}.E. V. E."
    assert (await api.get(None, f"jobs_u/flow/approval_info/{job}", token=token)).json["flow_id"] == str(flow)
    await api.post(None, f"jobs_u/flow/resume_suspended/{job}", {"approval_token": token}, status=201)
    assert await noted(api, flow) == [("E. V. E.", True, None)]


async def test_a_browser_that_has_logged_in_is_known_beside_a_token_of_approval(api: House) -> None:
    _, job = await waiting(api, conditions=LOGIN)
    signature = (await api.get("ann", f"jobs/job_signature/{job}/1")).text
    cookie = {"Cookie": f"token={api.tokens['bob']}", "Sec-Fetch-Site": "same-origin"}
    info = await api.call(
        None, "GET", f"jobs_u/flow/approval_info/{job}", headers=cookie, token=f"1.{signature}", status=200
    )
    assert info.json["can_approve"] is True


async def test_what_a_flow_waits_for(api: House) -> None:
    schema = {"properties": {"n": {"type": "integer"}}}
    conditions = {**LOGIN, "hide_cancel": True, "resume_form": schema, "user_groups_required": []}
    flow, job = await waiting(api, conditions=conditions)
    shown = (await api.get("ann", f"jobs_u/flow/approval_info/{flow}")).json
    assert shown == {
        "flow_id": str(flow),
        "can_approve": True,
        "user_auth_required": True,
        "skin": "detailed",
        "approvers": [],
        "approval_conditions": {
            "user_auth_required": True, "user_groups_required": [], "self_approval_disabled": False,
        },
        "form_schema": schema,
        "hide_cancel": True,
    }  # fmt: skip
    signature = (await api.get("ann", f"jobs/job_signature/{job}/3")).text
    by_token = (await api.get(None, f"jobs_u/flow/approval_info/{job}", token=f"3.{signature}")).json
    assert (by_token["flow_id"], by_token["can_approve"]) == (str(flow), False)
    await api.get("bob", f"jobs_u/flow/approval_info/{flow}", status=404)
    await api.get(None, f"jobs_u/flow/approval_info/{flow}", status=404)
    await api.get(None, f"jobs_u/flow/approval_info/{job}", token="3.x", status=403)


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, b'"\\ud800"'])
async def test_what_is_no_json_is_not_noted(api: House, body: bytes) -> None:
    flow, job = await waiting(api)
    path = urlsplit((await urls(api, job)).resume).path.removeprefix("/api")
    assert (await api.call(None, "POST", path, data=body)).status == 400
    assert await noted(api, flow) == []


async def test_what_is_said_is_bounded(api: House) -> None:
    _, job = await waiting(api)
    path = urlsplit((await urls(api, job)).resume).path.removeprefix("/api")
    assert (await api.call(None, "POST", path, data=b'"' + b"x" * 2**20 + b'"')).status == 413


async def test_no_service_can_read_the_key(api: House) -> None:
    for pool in (api.queue.api, api.queue.worker, api.queue.scheduler):
        assert not await pool.fetchval("SELECT has_any_column_privilege('queue.approval_key', 'SELECT')")
