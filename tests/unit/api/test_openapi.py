"""The description of the API: complete, unambiguous, and the committed copy is the present one."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import yaml

from tidemill.api.app import OWN_ROUTES
from tidemill.api.http.openapi import Document
from tidemill.api.http.route import Who
from tidemill.api.instance.write_openapi import COMMITTED

DOCUMENT = Document(OWN_ROUTES)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT.tree["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_the_committed_copy_is_up_to_date() -> None:
    assert COMMITTED.read_bytes() == DOCUMENT.as_yaml, "run: python -m tidemill.api.instance.write_openapi"


def test_every_route_is_described() -> None:
    assert len(list(operations())) == len(OWN_ROUTES)


def test_yaml_and_json_say_the_same() -> None:
    assert yaml.safe_load(DOCUMENT.as_yaml) == msgspec.json.decode(msgspec.json.encode(DOCUMENT.tree))


def test_every_operation_has_its_own_id() -> None:
    counts = Counter(operation["operationId"] for _, _, operation in operations())
    assert [each for each, count in counts.items() if count > 1] == []


def test_every_parameter_of_a_path_is_declared() -> None:
    for path, _, operation in operations():
        declared = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
        assert declared == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path


def test_every_reference_leads_somewhere() -> None:
    for each in references(DOCUMENT.tree):
        found: Any = DOCUMENT.tree
        for part in each.removeprefix("#/").split("/"):
            found = found[part]


def test_only_a_known_few_can_be_called_without_a_token() -> None:
    open_to_all = {route.path for route in OWN_ROUTES if route.policy.who is Who.ANYONE}
    assert open_to_all == {"/version", "/auth/login", "/openapi.yaml", "/openapi.json"}
    open_to_all |= {route.path for route in OWN_ROUTES if route.policy.who is Who.HOLDER}
    unsecured = {path for path, _, operation in operations() if operation.get("security") == []}
    assert unsecured == open_to_all


def test_every_run_says_what_an_idempotency_key_does() -> None:
    keyed = {
        path
        for path, _, operation in operations()
        if any(each["name"] == "Idempotency-Key" for each in operation.get("parameters", ()))
        and "422" in operation["responses"]
    }
    run = {path for path, _, each in operations() if each.get("x-audited", "").startswith(("jobs.run.", "jobs.flow_"))}
    assert keyed == run
    assert len(run) >= 7
