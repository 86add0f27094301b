"""What goes over the wire does not change unnoticed, and what earlier versions said can be read for ever."""

import json

import msgspec
import pytest

from tests.messages.golden import EXAMPLES, FOLDER, MESSAGE_ID, SOURCE, TIME, all_of, present, wire
from tidemill.shared.catalog import BY_TYPE, CATALOG
from tidemill.shared.message import BrokenMessage, Message, open_envelope, read, wrap

KINDS = [entry.message for entry in CATALOG]
EARLIER_AND_PRESENT = [(kind, file) for kind in KINDS for file in all_of(kind)]


def name_of(value: object) -> str:
    return value.TYPE if isinstance(value, type) and issubclass(value, Message) else getattr(value, "name", "")


def test_every_message_of_the_catalog_has_one_example_and_one_golden_file() -> None:
    assert sorted(type(example).TYPE for example in EXAMPLES) == sorted(kind.TYPE for kind in KINDS)
    assert {present(kind).name for kind in KINDS} <= {file.name for file in FOLDER.iterdir()}


def test_every_golden_file_belongs_to_a_message() -> None:
    known = {file for _, file in EARLIER_AND_PRESENT}
    assert set(FOLDER.iterdir()) == known


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.TYPE)
def test_the_bytes_on_the_wire_are_those_of_the_golden_file(example: Message) -> None:
    assert wire(example) + b"\n" == present(type(example)).read_bytes(), "see tests/messages/golden.py"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.TYPE)
def test_the_golden_file_reads_as_its_example(example: Message) -> None:
    assert read(open_envelope(present(type(example)).read_bytes()), type(example)) == example


@pytest.mark.parametrize(("kind", "file"), EARLIER_AND_PRESENT, ids=name_of)
def test_what_any_version_said_is_read(kind: type[Message], file: object) -> None:
    assert isinstance(read(open_envelope(file.read_bytes()), kind), kind)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_optional_fields_may_be_missing(kind: type[Message]) -> None:
    event = json.loads(present(kind).read_bytes())
    for field in msgspec.structs.fields(kind):
        if not field.required:
            del event["data"][field.name]
    assert isinstance(read(open_envelope(json.dumps(event).encode()), kind), kind)


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_fields_of_a_later_version_are_passed_over(kind: type[Message]) -> None:
    event = json.loads(present(kind).read_bytes())
    event["laterextension"] = "x"
    event["data"]["later_field"] = {"any": "thing"}
    assert isinstance(read(open_envelope(json.dumps(event).encode()), kind), kind)


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_a_message_without_a_required_field_is_broken(kind: type[Message]) -> None:
    for field in msgspec.structs.fields(kind):
        event = json.loads(present(kind).read_bytes())
        if field.required:
            del event["data"][field.name]
            with pytest.raises(BrokenMessage, match=field.name):
                read(open_envelope(json.dumps(event).encode()), kind)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.TYPE)
def test_it_is_a_cloudevent(example: Message) -> None:
    event = json.loads(wire(example))
    assert {name: event[name] for name in ("specversion", "id", "source", "type", "time", "datacontenttype")} == {
        "specversion": "1.0",
        "id": MESSAGE_ID,
        "source": SOURCE,
        "type": example.TYPE,
        "time": TIME.isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
    }


def test_the_version_is_part_of_the_type() -> None:
    assert all(name.rpartition(".")[2].removeprefix("v").isdigit() for name in BY_TYPE)


def test_each_wrapping_has_an_id_of_its_own() -> None:
    first, second = (open_envelope(wrap(EXAMPLES[0], SOURCE)) for _ in range(2))
    assert first.id != second.id


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b'{"id":1}', b"null"])
def test_what_is_no_cloudevent_is_broken(body: bytes) -> None:
    with pytest.raises(BrokenMessage):
        open_envelope(body)


def test_a_message_of_another_type_is_broken() -> None:
    with pytest.raises(BrokenMessage, match="expected"):
        read(open_envelope(wire(EXAMPLES[0])), type(EXAMPLES[1]))
