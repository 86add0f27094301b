"""The chain as pure computation: a whole one walks through, and nothing can be done to it that is not found."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.audit.chain import (
    Anchor,
    Entry,
    Finding,
    Link,
    Walk,
    Wrong,
    canonical,
    digest,
    genesis,
    is_signed,
    signature,
    start_of,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
KEY = bytes(32)


def chained(entry: Entry, before: Link) -> Entry:
    entry = replace(entry, seq=before.seq + 1, previous_hash=before.hash)
    return replace(entry, hash=digest(entry))


def a_chain(length: int, workspace: str = "w") -> list[Entry]:
    entries: list[Entry] = []
    link = genesis(workspace)
    for number in range(1, length + 1):
        entry = Entry(
            id=number * 10,
            workspace_id=workspace,
            seq=0,
            event_id=uuid.UUID(int=number),
            recorded_at=NOW + timedelta(seconds=number),
            at=NOW,
            username="ann",
            email="ann@example.com",
            operation="scripts.create",
            action_kind="Created",
            resource=f"u/ann/{number}",
            parameters='{"a": "ä"}',
            span=None,
            previous_hash=b"",
            hash=b"",
        )
        entry = chained(entry, link)
        entries.append(entry)
        link = Link(seq=entry.seq, hash=entry.hash)
    return entries


def rechained(entries: Sequence[Entry]) -> list[Entry]:
    """Make the whole chain anew, as somebody would who owns the database."""
    made: list[Entry] = []
    link = genesis("w")
    for entry in entries:
        made.append(chained(entry, link))
        link = Link(seq=made[-1].seq, hash=made[-1].hash)
    return made


def link_of(entry: Entry) -> Link:
    return Link(seq=entry.seq, hash=entry.hash)


def anchor_at(entry: Entry) -> Anchor:
    return Anchor(workspace_id="w", link=link_of(entry), at=NOW, is_floor=False)


def walked(
    entries: Sequence[Entry],
    anchors: Sequence[Anchor] = (),
    *,
    head: Link | None = None,
    start: Link | None = None,
    unproven_before: datetime = LONG_AGO,
) -> Finding | None:
    walk = Walk("w", start or genesis("w"), anchors)
    for entry in sorted(entries, key=lambda each: each.seq):
        if finding := walk.step(entry):
            return finding
    return walk.end(head or walk.last, unproven_before)


def what(finding: Finding | None) -> tuple[int, Wrong] | None:
    return None if finding is None else (finding.seq, finding.wrong)


FIELDS: dict[str, object] = {
    "id": 1,
    "workspace_id": "x",
    "event_id": uuid.UUID(int=99),
    "recorded_at": NOW,
    "at": NOW + timedelta(microseconds=1),
    "username": "bob",
    "email": "bob@example.com",
    "operation": "scripts.delete",
    "action_kind": "Delete",
    "resource": "u/bob/1",
    "parameters": "{}",
    "span": "",
    "previous_hash": bytes(32),
    "hash": bytes(32),
}


def test_a_chain_as_it_was_written_is_whole() -> None:
    entries = a_chain(20)
    assert walked(entries, [anchor_at(entries[4]), anchor_at(entries[-1])], unproven_before=NOW) is None


@pytest.mark.parametrize("field", FIELDS)
def test_every_column_is_part_of_the_hash(field: str) -> None:
    entries = a_chain(5)
    entries[2] = replace(entries[2], **{field: FIELDS[field]})  # type: ignore[arg-type]  # each has its field's type
    assert what(walked(entries)) == (3, Wrong.ALTERED)


def test_an_altered_row_with_a_hash_of_its_own_is_named_and_not_the_one_behind_it() -> None:
    entries = a_chain(5)
    entries[2] = chained(replace(entries[2], username="bob"), link_of(entries[1]))
    assert what(walked(entries)) == (3, Wrong.ALTERED)


def test_a_row_of_another_chain_does_not_fit() -> None:
    entries = a_chain(5)
    entries[0] = a_chain(1, "x")[0]
    assert what(walked(entries)) == (0, Wrong.ALTERED)


@given(st.integers(1, 12), st.data())
def test_a_missing_row_is_named(length: int, data: st.DataObject) -> None:
    entries = a_chain(length)
    gone = data.draw(st.integers(0, length - 1))
    head = link_of(entries[-1])
    del entries[gone]
    assert what(walked(entries, head=head)) == (gone + 1, Wrong.MISSING)


@given(st.integers(2, 12), st.data())
def test_two_rows_in_each_others_place_are_found(length: int, data: st.DataObject) -> None:
    entries = a_chain(length)
    one, two = sorted(data.draw(st.lists(st.integers(0, length - 1), min_size=2, max_size=2, unique=True)))
    first, second = entries[one], entries[two]
    entries[one], entries[two] = replace(second, seq=first.seq), replace(first, seq=second.seq)
    assert what(walked(entries)) == (one + 1, Wrong.ALTERED)


def test_a_row_put_in_between_is_found() -> None:
    entries = a_chain(5)
    entries.insert(3, chained(replace(entries[2], id=31), link_of(entries[1])))
    assert what(walked(entries)) == (3, Wrong.INSERTED)


def test_a_row_before_the_first_is_found() -> None:
    entries = a_chain(2)
    assert what(walked([replace(entries[0], seq=-5), *entries])) == (-5, Wrong.INSERTED)


def test_last_rows_that_are_gone_are_known_to_the_anchor_even_when_the_head_was_set_back() -> None:
    entries = a_chain(9)
    assert what(walked(entries[:6], [anchor_at(entries[7])])) == (7, Wrong.MISSING)


def test_a_chain_made_anew_contradicts_its_anchor() -> None:
    entries = a_chain(9)
    anchors = [anchor_at(entries[2]), anchor_at(entries[7])]
    forged = rechained([*entries[:4], replace(entries[4], username="bob"), *entries[5:]])
    assert walked(forged) is None
    # The rows that the first anchor has seen are right; the next one is the first that may be wrong.
    assert what(walked(forged, anchors)) == (4, Wrong.ALTERED)


def test_old_rows_without_an_anchor_behind_them_are_unproven() -> None:
    entries = a_chain(9)
    after_the_first = entries[3].recorded_at + timedelta(microseconds=1)
    assert walked(entries, [anchor_at(entries[2])], unproven_before=entries[3].recorded_at) is None
    assert what(walked(entries, [anchor_at(entries[2])], unproven_before=after_the_first)) == (4, Wrong.UNPROVEN)


def test_a_chain_without_a_head_or_with_another_one_is_found() -> None:
    entries = a_chain(3)
    walk = Walk("w", genesis("w"), [])
    assert [walk.step(entry) for entry in entries] == [None] * 3
    assert what(walk.end(None, LONG_AGO)) == (4, Wrong.MISSING)
    assert what(walk.end(Link(seq=3, hash=b"x"), LONG_AGO)) == (3, Wrong.ALTERED)


def test_what_retention_has_left_is_whole_from_its_floor_on() -> None:
    entries = a_chain(9)
    floors = [replace(anchor_at(entries[index]), is_floor=True) for index in (1, 3)]
    start = start_of("w", [*floors, anchor_at(entries[8])])
    assert start == link_of(entries[3])
    assert walked(entries[4:], start=start) is None
    assert what(walked(entries[5:], start=start)) == (5, Wrong.MISSING)
    assert what(walked(entries[3:], start=start)) == (4, Wrong.INSERTED)


def test_a_chain_that_nothing_was_dropped_of_starts_at_the_beginning_of_its_own_workspace() -> None:
    assert start_of("w", [anchor_at(a_chain(1)[0])]) == genesis("w")
    assert genesis("w") != genesis("v")


@given(st.lists(st.none() | st.text()), st.lists(st.none() | st.text()))
def test_two_different_lists_of_fields_are_never_one_text(one: list[str | None], two: list[str | None]) -> None:
    assert (canonical(*one) == canonical(*two)) is (one == two)


@pytest.mark.parametrize(
    "change",
    [
        {"workspace_id": "v"},
        {"link": Link(seq=2, hash=bytes(32))},
        {"link": Link(seq=1, hash=bytes(31) + b"x")},
        {"at": NOW + timedelta(microseconds=1)},
        {"is_floor": True},
    ],
    ids=str,
)
def test_a_signature_is_that_of_one_anchor_and_one_key(change: dict[str, object]) -> None:
    anchor = Anchor(workspace_id="w", link=Link(seq=1, hash=bytes(32)), at=NOW, is_floor=False)
    signed = replace(anchor, signature=signature(KEY, anchor))
    assert is_signed(KEY, signed)
    assert not is_signed(b"x" * 32, signed)
    assert not is_signed(KEY, replace(signed, **change))  # type: ignore[arg-type]  # each has its field's type
