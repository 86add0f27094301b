"""Reading the value of a flow."""

import json

import msgspec

from tidemill.shared import flow


def test_any_json_of_a_module_is_read_as_it_stands() -> None:
    module = {
        "id": "a",
        "value": {"type": "identity"},
        "suspend": {"resume_form": {"schema": {"properties": {}}}},
        "mock": {"enabled": True, "return_value": [1, {"b": 2}]},
        "debouncing": {"debounce_delay_s": 1},
    }
    (found,) = flow.read(json.dumps({"modules": [module]})).modules
    assert found.mock is not None
    assert found.suspend is not None
    assert found.suspend.resume_form is not None
    assert json.loads(bytes(found.mock.return_value)) == [1, {"b": 2}]
    assert json.loads(bytes(found.suspend.resume_form.schema)) == {"properties": {}}
    assert json.loads(bytes(found.debouncing)) == {"debounce_delay_s": 1}


def test_any_json_that_is_left_out_is_null() -> None:
    (found,) = flow.read(json.dumps({"modules": [{"id": "a", "value": {"type": "identity"}, "mock": {}}]})).modules
    assert found.mock is not None
    assert found.mock.return_value == found.debouncing == msgspec.Raw(b"null")
