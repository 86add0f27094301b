"""The generated client `windmill-api` reads every answer of every operation that it knows and we serve.

Its parser is the strictest there is: a missing key, a null where it expects an object or an unknown name raises.
"""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, ForwardRef, get_args, get_origin

import pytest
import windmill_api
from windmill_api.client import AuthenticatedClient
from windmill_api.models.list_audit_logs_response_200_item_operation import ListAuditLogsResponse200ItemOperation

from tests.integration.api.ground import Ground, Plot, a_ground, a_job, an_invitation, good_request, somebody_invited
from tests.support.database import DatabaseUrls
from tests.support.waiting import eventually
from tidemill.api.app import OWN_ROUTES
from tidemill.api.http.operations import OPERATIONS
from tidemill.api.http.route import ADMINS, Route

_CALL = re.compile(r'"method": "(\w+)",\s*"url": "([^"]+)"')
# Of one operation the client knows nothing but how it is refused.
_PARSES = re.compile(r"def _parse_response.*?HTTPStatus\.(?!CONFLICT)", re.DOTALL)
_NAME = re.compile(r"\{(\w+)(?:\.\.\.)?\}")

NOT_KNOWN = {
    "GET /openapi.json",
    "GET /w/{workspace}/jobs/explain/{id}",
    "POST /w/{workspace}/jobs/run_wait_result/h/{hash}",
    "POST /w/{workspace}/jobs/wac/inline_checkpoint/{id}",
    "POST /w/{workspace}/jobs/run/workflow_as_code/{id}/{entrypoint}",
}
"""What we serve and the client does not have."""


@dataclass(frozen=True)
class Operation:
    """One operation of the client."""

    module: str
    parameters: tuple[str, ...]
    """Of its path, in order."""
    parses: bool
    """Whether it looks into the answer at all; text it leaves alone."""


def shape(method: str, path: str) -> tuple[str, str]:
    """Return what two paths have in common that differ in the names of their parameters."""
    return method.upper(), _NAME.sub("{}", path)


def operations() -> Mapping[tuple[str, str], Operation]:
    """Return the client's operations, read off its files: to import all of them takes long."""
    found = {}
    folder = Path(windmill_api.__file__).parent / "api"
    for file in folder.glob("*/*.py"):
        text = file.read_text(encoding="utf-8")
        if call := _CALL.search(text):
            method, path = call.groups()
            module = f"windmill_api.api.{file.parent.name}.{file.stem}"
            parses = _PARSES.search(text.partition("def _build_response")[0]) is not None
            found[shape(method, path)] = Operation(module, tuple(_NAME.findall(path)), parses)
    return found


OPERATIONS_OF_THE_CLIENT = operations()
KNOWN = [route for route in OWN_ROUTES if shape(route.method, route.path) in OPERATIONS_OF_THE_CLIENT]


@pytest.fixture(scope="module")
async def ground(database_urls: DatabaseUrls, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    async with a_ground(
        database_urls, tmp_path_factory.mktemp("home"), {"TIDEMILL_WAIT_RESULT_TIMEOUT": "60s"}
    ) as all_of:
        plot = all_of.shared
        # So that no list is empty, and jobs of both kinds are in theirs.
        await a_job(plot.who, plot.workspace, "?scheduled_in_secs=3600")
        await somebody_invited(all_of.api, plot)
        await an_invitation(all_of.api, plot)
        await eventually(lambda: all_of.api.look.fetchval("SELECT count(*) > 0 FROM audit.entry"))
        yield all_of


def client_of(ground: Ground, plot: Plot, *, parses: bool) -> AuthenticatedClient:
    """Return the client with somebody's token; where it parses, it raises at a status that it does not know."""
    return AuthenticatedClient(
        base_url=f"{ground.api.url}/api", token=plot.who.token, raise_on_unexpected_status=parses
    )


def body_of(module: ModuleType, body: Any) -> Mapping[str, Any]:
    """Return the body as the client's own model, if the operation takes one."""
    wanted = signature(module.asyncio_detailed).parameters.get("json_body")
    if wanted is None:
        return {}
    kind = wanted.annotation
    if kind is Any:
        return {"json_body": body}
    if get_origin(kind) is not list:
        return {"json_body": kind.from_dict(body or {})}
    (each,) = get_args(kind)
    if isinstance(each, ForwardRef):
        model = getattr(module, each.__forward_arg__)
        return {"json_body": [model.from_dict(one) for one in body]}
    return {"json_body": body}


def test_what_the_client_does_not_know_is_listed_by_name() -> None:
    assert {route.name for route in OWN_ROUTES} - {route.name for route in KNOWN} == NOT_KNOWN


def test_the_client_knows_every_name_of_what_is_audited() -> None:
    assert {each.value for each in ListAuditLogsResponse200ItemOperation} >= OPERATIONS


@pytest.mark.parametrize("route", KNOWN, ids=[route.name for route in KNOWN])
async def test_the_client_reads_the_answer(ground: Ground, route: Route) -> None:
    operation = OPERATIONS_OF_THE_CLIENT[shape(route.method, route.path)]
    module = import_module(operation.module)
    plot, good = await good_request(ground, route)
    # Its names are not always ours; the order is.
    named = dict(zip(operation.parameters, (good.named[name] for name in route.parameters), strict=True))
    taken = {
        name if name in signature(module.asyncio_detailed).parameters else f"{name}_": named[name] for name in named
    }
    async with client_of(ground, plot, parses=operation.parses) as client:
        answer = await module.asyncio_detailed(client=client, **taken, **body_of(module, good.body))
    assert answer.status_code in route.answers, answer.content
    assert answer.status_code < 300, answer.content


@pytest.mark.parametrize("workspace", ["shared", ADMINS])
async def test_the_client_reads_all_that_was_audited(ground: Ground, workspace: str) -> None:
    module = import_module("windmill_api.api.audit.list_audit_logs")
    plot = ground.shared
    async with client_of(ground, plot, parses=True) as client:
        answer = await module.asyncio_detailed(
            client=client, workspace=plot.workspace if workspace == "shared" else workspace, per_page=1000
        )
    said = {each.operation.value for each in answer.parsed}
    assert said
    assert said <= OPERATIONS
