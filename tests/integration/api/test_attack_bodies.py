"""A16, the side of HTTP: bodies and results that are too deep, too large or no text."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.api.conftest import Answer
from tests.integration.api.ground import Ground, Plot, a_ground, good_request
from tests.support.database import DatabaseUrls
from tests.support.waiting import eventually
from tidemill.api.app import OWN_ROUTES
from tidemill.api.http.route import Route, Who

WITH_A_BODY = [route for route in OWN_ROUTES if route.body is not None or route.raw_body is not None]
LIMIT = 16 * 1024 * 1024
DEEP = 100_000
ESCAPED = "NUL by its number"

BODIES: dict[str, bytes] = {
    "arrays in arrays": b"[" * DEEP + b"]" * DEEP,
    "objects in objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep in a field": b'{"name":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "never closed": b"[" * DEEP,
    "NaN": b'{"name": NaN}',
    "Infinity": b'{"name": -Infinity}',
    "no UTF-8": b'{"name": "\xff\xfe"}',
    "half a pair": b'{"name": "\\ud800"}',
    "NUL": b'{"name": "a\x00b"}',
    ESCAPED: b'{"name": "a\\u0000b"}',
    "two documents": b"{} {}",
    "a comment": b"{} // no",
}


@pytest.fixture(scope="module")
async def ground(database_urls: DatabaseUrls, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    settings = {
        "TIDEMILL_REQUEST_BYTES": str(LIMIT),
        "TIDEMILL_WAIT_RESULT_TIMEOUT": "90s",
        "TIDEMILL_JOB_RESULT": "12288",
    }
    async with a_ground(database_urls, tmp_path_factory.mktemp("home"), settings) as ground:
        yield ground


async def send(ground: Ground, route: Route, data: Any) -> Answer:
    plot = ground.shared
    named = plot.named(route)
    if route.policy.who is Who.JOB:
        plot, good = await good_request(ground, route)
        named = good.named
    path = route.path.replace("...}", "}").format(**named)
    return await plot.who.call(route.method, path, data=data, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("route", WITH_A_BODY, ids=lambda route: route.name)
async def test_a16_a_body_that_is_no_good_json_is_refused_by_every_route(ground: Ground, route: Route) -> None:
    """A16: 10^5 levels, NaN, NUL and broken UTF-8 are the caller's mistake, never ours."""
    for name, data in BODIES.items():
        answer = await send(ground, route, data)
        if route.raw_body is not None and name == ESCAPED:
            # What a script is given is kept letter by letter.
            assert answer.status in (200, 201), answer.text
            continue
        assert answer.status in (400, 422), f"{name}: {answer.status} {answer.text}"
        assert len(answer.text) < 500


@pytest.mark.parametrize("route", WITH_A_BODY, ids=lambda route: route.name)
async def test_a16_a_body_beyond_the_limit_is_refused_by_every_route(ground: Ground, route: Route) -> None:
    """A16, A29: whether its size is told before or not."""

    async def in_pieces() -> AsyncIterator[bytes]:
        for _ in range(LIMIT // 65536 + 1):
            yield b" " * 65536

    assert (await send(ground, route, in_pieces())).status == 413


async def run(plot: Plot, content: str, args: Any = None, language: str = "python3") -> Answer:
    code = {"content": content, "language": language, "args": args or {}}
    return await plot.who.post(f"/w/{plot.workspace}/jobs/run_wait_result/preview", code)


async def test_a16_eleven_megabytes_go_in_and_come_out(ground: Ground) -> None:
    """A16: large is not too large."""
    large = "x" * (11 * 1024 * 1024)
    answer = await run(ground.shared, "def main(text):\n    return text", {"text": large})
    assert answer.status == 200
    assert answer.json == large


RESULTS = {
    "too large": ("return 'x' * (13 * 1024 * 1024)", None),
    "too deep": ("value = []\n    for _ in range(100_000):\n        value = [value]\n    return value", None),
    "itself": ("value = []\n    value.append(value)\n    return value", None),
    "no numbers": ("return [float('nan'), float('inf'), -float('inf')]", [None, None, None]),
    "NUL": ("return {'a\\0': 'b\\0'}", {"a\ufffd": "b\ufffd"}),
    "half a pair": ("return 'a\\ud800b'", "a?b"),
    "no UTF-8": ("return b'\\xff\\xfe'", "//4="),
}


@pytest.mark.parametrize("name", RESULTS)
async def test_a16_a_result_that_can_not_be_kept_fails_its_job_and_nothing_else(ground: Ground, name: str) -> None:
    """A16: the job fails with a named reason, or what is no text is replaced; it can be read in every way."""
    plot, (code, becomes) = ground.shared, RESULTS[name]
    answer = await run(plot, f"def main():\n    {code}")
    assert answer.status == 200
    (job,) = (await plot.who.get(f"/w/{plot.workspace}/jobs/completed/list?per_page=1")).json
    whole = (await plot.who.get(f"/w/{plot.workspace}/jobs_u/get/{job['id']}")).json
    assert whole["result"] == answer.json
    assert whole["success"] is (becomes is not None)
    if becomes is None:
        assert answer.json["error"]["name"]
        assert answer.json["error"]["message"]
    else:
        assert answer.json == becomes
    # The worker is as it was.
    assert (await run(plot, "def main():\n    return 1")).json == 1


async def test_a16_what_is_printed_may_be_anything(ground: Ground) -> None:
    """A16: NUL and broken UTF-8 in a log are replaced, and the log can be read."""
    plot = ground.shared
    answer = await run(plot, "printf 'a\\0b\\xff\\xfec\\n'", language="bash")
    assert answer.status == 200
    (job,) = (await plot.who.get(f"/w/{plot.workspace}/jobs/completed/list?per_page=1")).json

    async def logged() -> str | None:
        log = await plot.who.get(f"/w/{plot.workspace}/jobs_u/get_logs/{job['id']}")
        assert log.status == 200
        return log.text if "c\n" in log.text else None

    assert "a\ufffdb" in (await eventually(logged) or "")


async def test_a16_a_payload_in_a_query_is_held_to_the_same(ground: Ground) -> None:
    """A16: arguments that come as base64 in the address."""
    plot = ground.shared
    for data in (b"[" * 5000, b'{"a": NaN}', b'{"a": "\xff"}'):
        payload = base64.urlsafe_b64encode(data).decode()
        answer = await plot.who.get(f"/w/{plot.workspace}/jobs/run_wait_result/p/u/boss/greet?payload={payload}")
        assert answer.status in (400, 422), answer.text
