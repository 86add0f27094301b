"""Any message that can be built comes out of the wire as it went in."""

from datetime import UTC, datetime
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.messages.golden import SOURCE
from tidemill.shared.catalog import CATALOG
from tidemill.shared.message import Message, open_envelope, read, wrap

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    if annotation is datetime:
        return st.datetimes(timezones=st.just(UTC))
    if get_origin(annotation) is dict and get_args(annotation)[1] is Any:
        return st.dictionaries(st.text(), JSON, max_size=4)
    return st.from_type(annotation)


def messages_of(kind: type[Message]) -> st.SearchStrategy[Message]:
    hints = get_type_hints(kind)
    return st.builds(kind, **{name: values_of(hints[name]) for name in kind.__struct_fields__})


@pytest.mark.parametrize("kind", [entry.message for entry in CATALOG], ids=lambda kind: kind.TYPE)
@settings(deadline=None)
@given(data=st.data())
def test_a_message_comes_out_as_it_went_in(kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(messages_of(kind))
    assert read(open_envelope(wrap(message, SOURCE)), kind) == message
