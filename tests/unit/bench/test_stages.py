"""Spans become shares that add up to the request, whatever runs beside what."""

from tests.bench.collector import Span
from tests.bench.measurements.stages import of_traces, own_time, shares, timeline

MS = 1_000_000


def a_span(id_: str, parent: str, began: int, ended: int, trace: str = "t") -> Span:
    return Span(trace=trace, id=id_, parent=parent, name=id_, service="api", began=began * MS, ended=ended * MS)


JOB = [a_span("request", "client", 0, 10), a_span("run", "request", 2, 8), a_span("execute", "run", 3, 6)]


def test_time_in_which_children_overlap_is_taken_off_once() -> None:
    children = [a_span("a", "request", 1, 5), a_span("b", "request", 3, 7), a_span("c", "elsewhere", 0, 10)]
    assert own_time(JOB[0], children) == 4 * MS


def test_a_child_that_outlives_its_parent_takes_no_more_than_the_parent_has() -> None:
    assert own_time(JOB[0], [a_span("late", "request", 9, 30)]) == 9 * MS


def test_the_shares_of_a_nested_job_add_up_to_the_whole_request() -> None:
    rows = shares("all-in-one", [JOB, JOB]).rows
    assert {row[0]: row[4] for row in rows} == {"request": "40 %", "run": "30 %", "execute": "30 %"}


def test_the_way_of_a_job_names_its_moments_in_order() -> None:
    rows = timeline("all-in-one", [JOB]).rows
    assert [row[0] for row in rows] == [
        "request begins",
        "run begins",
        "execute begins",
        "execute ends",
        "run ends",
        "request ends",
    ]
    assert [row[2] for row in rows] == ["0.00", "2.00", "1.00", "3.00", "2.00", "2.00"]


def test_spans_of_other_traces_and_what_begins_after_the_answer_are_left_out() -> None:
    audit = a_span("audit", "request", 11, 12)
    stranger = a_span("stranger", "", 0, 1, trace="other")
    assert of_traces([audit, *reversed(JOB), stranger], {"t": 1}) == [JOB]
