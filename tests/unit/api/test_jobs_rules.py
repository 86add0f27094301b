"""What a job becomes, what a list holds, what is new."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.api.http.errors import BadRequest, Unprocessable
from tidemill.api.http.route import Viewer
from tidemill.api.jobs import rules
from tidemill.api.jobs.flow_status import FlowStatus, ModuleState, ModuleStatus
from tidemill.api.jobs.rules import JobRequest, Runnable
from tidemill.api.jobs.schemas import ListQuery, Preview, RunQuery, UpdateQuery
from tidemill.shared.ids import new_job_id
from tidemill.shared.script import JobKind

ANN = Viewer(email="ann@example.com", username="ann", is_member=True)
SCRIPT = Runnable(kind=JobKind.SCRIPT, language="python3", path="u/ann/s", hash="0" * 16)


def requested(runnable: Runnable = SCRIPT, args: str = "{}", viewer: Viewer = ANN, **query: object) -> JobRequest:
    return rules.request(runnable, RunQuery(**query), args, viewer, "w", new_job_id())  # type: ignore[arg-type]


def with_(**changes: object) -> Runnable:
    return msgspec.structs.replace(SCRIPT, **changes)


def test_a_job_runs_as_who_asked_with_what_they_may() -> None:
    job = requested()
    assert (job.created_by, job.permissioned_as, job.email) == ("ann", "u/ann", "ann@example.com")
    assert job.permissions == ANN.permissions()


def test_the_tag_of_the_request_beats_the_scripts_and_that_the_language() -> None:
    assert requested().tag == "python3"
    assert requested(with_(tag="gpu")).tag == "gpu"
    assert requested(with_(tag="gpu"), tag="cpu").tag == "cpu"
    assert requested(with_(tag="t-$workspace-$args[n]"), '{"n": 2}').tag == "t-w-2"


def test_a_tag_that_no_queue_can_have_is_refused() -> None:
    with pytest.raises(BadRequest, match="tag"):
        requested(tag="a b")
    with pytest.raises(BadRequest, match="tag"):
        requested(with_(tag="t-$args[n]"), '{"n": "a b"}')


def test_a_limit_is_sent_only_with_its_key() -> None:
    assert requested(with_(concurrency_key="k")).limit_key is None
    limited = requested(with_(concurrent_limit=2))
    assert (limited.limit_key, limited.limit_ceiling) == ("w/script/u/ann/s", 2)
    assert requested(with_(concurrent_limit=2, concurrency_key="k-$args[a]"), '{"a": 1}').limit_key == "k-1"


def test_when_is_one_time_and_not_two() -> None:
    then = datetime(2030, 1, 1, tzinfo=UTC)
    assert requested(scheduled_for=then).due_at == then
    assert requested(scheduled_in_secs=3).due_in_ms == 3000
    with pytest.raises(BadRequest, match="scheduled_in_secs"):
        requested(scheduled_for=then, scheduled_in_secs=3)


def test_who_may_see_the_job_besides_its_requester() -> None:
    assert requested().visible_to_owner
    assert not requested(invisible_to_owner=True).visible_to_owner
    assert not requested(with_(visible_to_runner_only=True)).visible_to_owner


def test_a_timeout_of_zero_is_the_scripts_own() -> None:
    assert requested(with_(timeout_s=5)).timeout_s == 5
    assert requested(with_(timeout_s=5), timeout=0).timeout_s == 5
    assert requested(with_(timeout_s=5), timeout=9).timeout_s == 9


def test_a_chosen_id_is_marked() -> None:
    assert not requested().chosen_id
    assert requested(job_id=UUID(int=5)).chosen_id


def test_previews_are_refused_by_field() -> None:
    with pytest.raises(Unprocessable, match="postgresql"):
        rules.preview(Preview(content="", language="postgresql"))
    with pytest.raises(Unprocessable, match="kind"):
        rules.preview(Preview(content="", language="bash", kind="http"))
    with pytest.raises(BadRequest, match="path"):
        rules.preview(Preview(content="", language="bash", path="../x"))
    assert rules.preview(Preview(content="x", language="bash", path="", kind="code")).path is None


@pytest.mark.parametrize(
    ("query", "route", "finished", "nothing"),
    [
        (ListQuery(), None, None, False),
        (ListQuery(running=True), None, False, False),
        (ListQuery(success=False), None, True, False),
        (ListQuery(label="x"), None, True, False),
        (ListQuery(running=True, success=True), None, False, True),
        (ListQuery(running=False), True, True, True),
        (ListQuery(success=True), False, False, True),
        (ListQuery(is_flow_step=True), None, None, False),
        (ListQuery(is_flow_step=False), None, None, False),
        (ListQuery(success=True, status="failure"), None, True, True),
    ],
)
def test_filters_tell_which_jobs_can_fit(
    query: ListQuery, route: bool | None, finished: bool | None, nothing: bool
) -> None:
    wanted = rules.listing(query, finished=route)
    assert wanted.nothing == nothing
    if not nothing:
        assert wanted.finished is finished


def test_outcomes_and_states_follow_from_the_filters() -> None:
    assert rules.listing(ListQuery(success=False)).outcomes == ["canceled", "failure"]
    assert rules.listing(ListQuery(status="success,canceled")).outcomes == ["canceled", "success"]
    assert rules.listing(ListQuery(is_skipped=False, success=True)).outcomes == ["success"]
    assert rules.listing(ListQuery(running=True)).states == ["running"]
    assert rules.listing(ListQuery(running=False)).states == ["blocked", "queued", "scheduled", "suspended"]
    with pytest.raises(BadRequest, match="status"):
        rules.listing(ListQuery(status="fine"))


def test_lists_take_commas_and_one_negation_of_all() -> None:
    assert rules.one_of("script, preview,", "job_kinds") == ["script", "preview"]
    assert rules.one_of("", "job_kinds") is None
    assert rules.one_of("!", "job_kinds") is None
    assert rules.one_of("!script, !preview", "job_kinds") == ["script", "preview"]
    assert rules.one_of("!script,preview", "job_kinds") == ["script", "preview"]
    assert rules.negated(ListQuery(job_kinds="!script", tag="x", status="!failure")) == ["job_kinds"]
    assert rules.listing(ListQuery(status="!failure,canceled")).outcomes == ["skipped", "success"]
    with pytest.raises(Unprocessable, match="job_kinds"):
        rules.one_of("script,!preview", "job_kinds")


@given(st.text(st.sampled_from("aé😀\n")), st.integers(0, 40))
def test_the_rest_of_a_text_begins_where_javascript_would_begin(text: str, units: int) -> None:
    encoded = text.encode("utf-16-le")
    cuts_a_character = encoded[2 * units : 2 * units + 2] and 0xDC <= encoded[2 * units + 1] < 0xE0
    rest = rules.beyond(text, units)
    if cuts_a_character:
        # Half a character can't be said; all of it is, and the next offset counts right again.
        assert rest.encode("utf-16-le")[4:] == encoded[2 * units + 2 :] or rest == ""
    else:
        assert rest.encode("utf-16-le") == encoded[2 * units :]


def test_what_is_new_is_a_log_a_state_or_the_end() -> None:
    def new(query: UpdateQuery, state: str, outcome: str | None = None, tail: str = "", units: int = 0) -> bool:
        return rules.update(query, state, outcome, tail, 0, units, None)[1]

    assert not new(UpdateQuery(), "queued")
    assert not new(UpdateQuery(running=True), "running")
    assert new(UpdateQuery(), "running")
    assert new(UpdateQuery(running=True), "queued")
    assert new(UpdateQuery(), "success", "success")
    assert new(UpdateQuery(), "queued", tail="x", units=1)
    assert not new(UpdateQuery(log_offset=1), "queued", units=1)


_APART = ModuleStatus(type=ModuleState.WAITING_FOR_PRIOR_STEPS, id="failure")


def test_new_of_a_flow_is_any_step_that_went_on() -> None:
    at = {
        state: FlowStatus(step=0, modules=[ModuleStatus(type=state, id="a")], failure_module=_APART)
        for state in ModuleState
    }
    before, after = at[ModuleState.IN_PROGRESS], at[ModuleState.SUCCESS]

    def new(now: FlowStatus | None, known: FlowStatus | None, *, running: bool = True, parked: bool = False) -> bool:
        query = UpdateQuery(running=running)
        said, is_new = rules.update(
            query, "suspended", None, "", 0, 0, None, parked=parked, flow_status=now, known_status=known
        )
        assert said.running is not parked
        return is_new

    assert new(after, before)
    assert not new(before, before)
    assert new(before, before, parked=True)
    assert not new(before, before, parked=True, running=False)


def test_an_update_hands_out_each_unit_once() -> None:
    chunks = ["one\n", "zwö😀\n", "three\n"]
    heard, offset = "", 0
    for seen in range(1, 4):
        whole = "".join(chunks[:seen])
        units = len(whole.encode("utf-16-le")) // 2
        said, _ = rules.update(UpdateQuery(log_offset=offset), "running", None, whole, 0, units, None)
        heard += said.new_logs or ""
        assert said.log_offset == units
        offset = units
    assert heard == "".join(chunks)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (None, '{"a": {"b": [1.50, {"c.d": 2}]}, "": 3}'),
        ("", '{"a": {"b": [1.50, {"c.d": 2}]}, "": 3}'),
        ("a.b.0", "1.50"),
        ("a.b", '[1.50, {"c.d": 2}]'),
        ("a.b.2", "null"),
        ("a.b.-1", "null"),
        ("a.b.0.x", "null"),
        ("nothing", "null"),
        ("a'; DROP TABLE queue.job; --", "null"),
    ],
)
def test_a_part_of_a_result_is_found_by_its_path(path: str | None, found: str) -> None:
    assert bytes(rules.part('{"a": {"b": [1.50, {"c.d": 2}]}, "": 3}', path)).decode() == found


def test_attack_a_result_too_deep_to_look_into_is_refused() -> None:
    with pytest.raises(BadRequest, match="deeply"):
        rules.part('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "a.0")
