"""Our own OpenAPI document against the running api: what it says is what comes, whatever is sent.

Schemathesis makes the requests from the document that the api serves: such as it allows, and such as it does not.
Half of them find what they name. The examples are the same in every run.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode, Response, openapi
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.api.ground import SACRIFICED, Ground, a_ground, is_open, takes_input
from tests.support.database import DatabaseUrls
from tidemill.api.app import OWN_ROUTES
from tidemill.api.http.route import Route

EXAMPLES = 8
SAME_EACH_TIME = settings(
    derandomize=True,
    max_examples=EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
CASES = [
    (route, mode)
    for route in OWN_ROUTES
    for mode in (GenerationMode if takes_input(route) else (GenerationMode.POSITIVE,))
]

pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")


@pytest.fixture(scope="module")
async def ground(database_urls: DatabaseUrls, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    async with a_ground(database_urls, tmp_path_factory.mktemp("home")) as ground:
        yield ground


@pytest.fixture(scope="module")
async def document(ground: Ground) -> Any:
    """The document as it is served."""
    return openapi.from_dict((await ground.api.nobody.get("/openapi.json")).json)


def answered_well(case: "Case[Any]", response: Response, route: Route) -> None:
    """Fail for an answer that the document does not have, or that says that we failed."""
    too_late = response.status_code == 504 and 504 in route.answers
    assert response.status_code < 500 or too_late, f"{response.status_code} {response.text}\n{case.as_curl_command()}"
    case.validate_response(response, checks=CHECKS)


@pytest.mark.parametrize(("route", "mode"), CASES, ids=[f"{route.name} {mode.value}" for route, mode in CASES])
async def test_no_answer_is_a_failure_of_ours_or_undocumented(
    ground: Ground, document: Any, route: Route, mode: GenerationMode
) -> None:
    plot = await ground.plot_for(route)
    named, url = plot.named(route), f"{ground.api.url}/api"
    headers = {} if is_open(route) else {"Authorization": f"Bearer {plot.who.token}"}
    operation = document[route.path.replace("...}", "}")][route.method]

    @settings(
        derandomize=True, max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode), finds=st.booleans())
    def every(case: "Case[Any]", finds: bool) -> None:
        for name in case.path_parameters or ():
            # In a workspace that is not there, everything is 404.
            if finds or name == "workspace":
                case.path_parameters[name] = named[name]
        case.headers.update(headers)
        answered_well(case, case.call(base_url=url, timeout=60), route)

    # It is synchronous; the api runs in this loop.
    work: Callable[[], None] = every
    await asyncio.to_thread(work)


def test_what_stands_on_ground_of_its_own_is_a_route() -> None:
    assert {route.name for route in OWN_ROUTES} >= SACRIFICED.keys()
    for name, reason in SACRIFICED.items():
        print(f"on ground of its own: {name}: {reason}")
