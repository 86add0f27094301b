"""One request end to end: the trace id of its answer leads to all that was done for it, in both shapes.

The commands are the README's; the collector is the one that it names.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.test_readme import README, block, here, run
from tests.support.collector import Traced, collector
from tests.support.installation import SHAPES, Installation, Shape, installation
from tests.support.waiting import eventually

RUN = "POST /w/{workspace}/jobs/run_wait_result/p/{path...}"
AUDITED = "process audit.events"
SPANS = {RUN: "api", "wait in line": "worker", "run job": "worker", "execute": "worker", AUDITED: "audit"}
"""Who says which span, where each service is a process of its own."""
LINES = {("api", "request"), ("worker", "job ran"), ("audit", "written down")}
HELLO = "def main(name: str):\n    return f'hello {name}'"


@dataclass
class Watched:
    """A running Tidemill and what it has exported."""

    tidemill: Installation
    spans: list[Traced] = field(default_factory=list)

    def of(self, trace: str) -> dict[str, str]:
        """Return the spans of a trace: who said each."""
        return {each.name: each.service for each in self.spans if each.trace_id == trace}

    def expected(self, spans: Mapping[str, str]) -> dict[str, str]:
        """Return who says these spans in this shape."""
        alone = self.tidemill.shape == "all-in-one"
        return {name: "tidemill-all-in-one" if alone else f"tidemill-{service}" for name, service in spans.items()}

    def logged(self, trace: str) -> set[tuple[str, str]]:
        """Return the lines of a trace by service and message."""
        lines = (line[line.find("{") :] for line in self.tidemill.output if trace in line)
        records: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return {(each["service"], each["message"]) for each in records if each["trace_id"] == trace}

    async def until_known(self, trace: str, spans: Mapping[str, str], lines: set[tuple[str, str]]) -> None:
        """Return when all that is expected of a trace has been exported and logged."""

        async def look() -> bool:
            return self.of(trace).items() >= self.expected(spans).items() and self.logged(trace) >= lines

        try:
            await eventually(look, 60, 0.1)
        except AssertionError:
            raise AssertionError(f"spans {self.of(trace)}\nlines {self.logged(trace)}") from None

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[str, str]:
        """Call the api as the admin and return the trace id and the text of the answer."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session,
            session.request(
                method,
                f"{self.tidemill.url}/api/w/starter/{path}",
                json=body,
                headers={"Authorization": f"Bearer {self.tidemill.token}"},
            ) as answer,
        ):
            text = await answer.text()
            assert answer.status < 300, text
            return answer.headers["Tidemill-Trace-Id"], text


@pytest_asyncio.fixture(scope="module", params=SHAPES)
async def watched(request: pytest.FixtureRequest) -> AsyncIterator[Watched]:
    shape: Shape = request.param
    spans: list[Traced] = []
    async with collector(spans.append) as port:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "TIDEMILL_LOG_FORMAT": "json",
        }
        async with installation(shape, settings) as tidemill:
            await tidemill.save_script("u/admin/hello", HELLO)
            yield Watched(tidemill, spans)


async def test_the_trace_id_of_an_answer_finds_everything_that_was_done_for_it(
    watched: Watched, tmp_path: Path
) -> None:
    asked = await run(watched.tidemill, tmp_path, "bash", "-eu", "-c", here(watched.tidemill, block("trace")))
    trace = asked.strip().splitlines()[-1]
    await watched.until_known(trace, SPANS, LINES)
    (tmp_path / "spans.log").write_text("".join(f"{each}\n" for each in watched.spans))
    (tmp_path / "tidemill.log").write_text("".join(f"{each}\n" for each in watched.tidemill.output))
    process = await asyncio.create_subprocess_exec(
        *("bash", "-eu", "-c", block("find")),
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "TRACE": trace},
        stdout=asyncio.subprocess.PIPE,
    )
    found, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    for name, service in watched.expected(SPANS).items():
        assert re.search(rf"^{service} +{re.escape(name)}  .* ms  trace={trace}$", found.decode(), re.MULTILINE)
    for _, message in LINES:
        assert f'"{message}"' in found.decode()


async def test_the_spans_of_a_request_are_one_tree(watched: Watched) -> None:
    trace, _ = await watched.ask("POST", "jobs/run_wait_result/p/u/admin/hello", {"name": "you"})
    await watched.until_known(trace, SPANS, LINES)
    spans = {each.name: each for each in watched.spans if each.trace_id == trace}
    assert spans[RUN].parent_id == ""
    for name in ("wait in line", "run job", AUDITED):
        assert spans[name].parent_id == spans[RUN].span_id, name
    assert spans["execute"].parent_id == spans["run job"].span_id
    assert spans["wait in line"].ended <= spans["run job"].ended
    assert all(each.began <= each.ended for each in spans.values())


async def test_what_is_done_to_a_job_later_has_the_trace_of_who_does_it(watched: Watched) -> None:
    audited = {AUDITED: "audit"}, {("audit", "written down")}
    later = "jobs/run/p/u/admin/hello?scheduled_in_secs=3600"
    begun, job = await watched.ask("POST", later, {"name": "you"})
    _, other = await watched.ask("POST", later, {"name": "you"})
    await watched.until_known(begun, *audited)
    before = [each for each in watched.spans if each.trace_id == begun]
    for path, body in (
        ("jobs/queue/cancel_selection", [job]),
        (f"jobs_u/queue/cancel/{other}", {}),
        (f"jobs/completed/delete/{job}", None),
    ):
        trace, _ = await watched.ask("POST", path, body)
        assert trace != begun
        await watched.until_known(trace, *audited)
    assert [each for each in watched.spans if each.trace_id == begun] == before


async def test_a_callers_own_trace_goes_on_to_the_end(watched: Watched) -> None:
    trace, caller = os.urandom(16).hex(), os.urandom(8).hex()
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session,
        session.post(
            f"{watched.tidemill.url}/api/w/starter/jobs/run_wait_result/p/u/admin/hello",
            json={"name": "you"},
            headers={
                "Authorization": f"Bearer {watched.tidemill.token}",
                "traceparent": f"00-{trace}-{caller}-01",
            },
        ) as answer,
    ):
        assert answer.headers["Tidemill-Trace-Id"] == trace
    await watched.until_known(trace, SPANS, LINES)
    assert caller in {each.parent_id for each in watched.spans if each.name == RUN}


def test_the_readme_names_the_header_and_the_collector() -> None:
    assert "Tidemill-Trace-Id" in README
    assert "tests.support.collector" in README
