"""A collector of traces: takes what the services export over OTLP and keeps the spans in memory."""

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One span; moments in nanoseconds since 1970."""

    trace: str
    id: str
    parent: str
    name: str
    service: str
    began: int
    ended: int


class Collector:
    """Where to export to, and what has come."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Span] = []

    def settings(self) -> dict[str, str]:
        """Return the environment that makes a service export its traces to here, soon."""
        return {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "500"}


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """Listen on a free port of the loopback for the block."""

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        it.spans += read(body)
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )

    app = web.Application(client_max_size=2**28)
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app, access_log=None, auto_decompress=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        it = Collector(f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces")
        yield it
    finally:
        await runner.cleanup()


def read(body: bytes) -> list[Span]:
    """Return the spans of one export."""
    request = ExportTraceServiceRequest.FromString(body)
    found = []
    for of_resource in request.resource_spans:
        names = {each.key: each.value.string_value for each in of_resource.resource.attributes}
        service = names.get("service.name", "").removeprefix("tidemill-")
        found += [
            Span(
                trace=span.trace_id.hex(),
                id=span.span_id.hex(),
                parent=span.parent_span_id.hex(),
                name=span.name,
                service=service,
                began=span.start_time_unix_nano,
                ended=span.end_time_unix_nano,
            )
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]
    return found
