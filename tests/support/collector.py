"""A collector of traces for one machine: whatever a service exports by OTLP becomes a line.

python -m tests.support.collector [port]

tidemill-api  POST /w/{workspace}/jobs/run_wait_result/p/{path...}  19.2 ms  trace=4bf92f3577b34da6a3ce929d0e0e4736
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PORT = 4318
"""Where OTLP is spoken over HTTP by default."""


@dataclass(frozen=True)
class Traced:
    """One span as it was exported."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    began: int
    ended: int

    def __str__(self) -> str:
        milliseconds = (self.ended - self.began) / 1e6
        return f"{self.service:<18} {self.name}  {milliseconds:.1f} ms  trace={self.trace_id}"


@asynccontextmanager
async def collector(hear: Callable[[Traced], None], port: int = 0) -> AsyncIterator[int]:
    """Hand every span to somebody for the block, and give the port."""

    async def traces(request: web.Request) -> web.Response:
        for each in spans_of(await request.read()):
            hear(each)
        return web.Response(content_type="application/x-protobuf")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(content_type="application/x-protobuf")

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/traces", traces)
    app.router.add_post("/v1/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def spans_of(exported: bytes) -> list[Traced]:
    """Return the spans of one export."""
    return [
        Traced(
            service=next(each.value.string_value for each in one.resource.attributes if each.key == "service.name"),
            name=span.name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            began=span.start_time_unix_nano,
            ended=span.end_time_unix_nano,
        )
        for one in ExportTraceServiceRequest.FromString(exported).resource_spans
        for scope in one.scope_spans
        for span in scope.spans
    ]


async def _print_spans(port: int) -> None:
    async with collector(lambda each: print(each, flush=True), port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_print_spans(int(sys.argv[1]) if len(sys.argv) > 1 else PORT))
