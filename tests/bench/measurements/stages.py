"""Where the milliseconds of P1 go: its spans, added up by name, and the order in which they begin and end.

Every call carries a `traceparent` of ours, so its spans are found again. Tracing costs time itself: this is a run apart
from P1, and its own median stands beside the shares.
"""

import asyncio
import secrets
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tests.bench.collector import Span, collector
from tests.bench.figures import Figure, Measured, Table, spread
from tests.bench.progress import Steps
from tests.bench.sizes import Sizes
from tests.bench.subject import PATH, SCRIPT, subject
from tests.support.installation import Shape

MILLI = 1e6  # nanoseconds
_ENOUGH = 200


async def measure(shape: Shape, sizes: Sizes) -> Measured:
    """Trace some jobs and take their spans apart."""
    jobs = min(_ENOUGH, sizes.samples)
    traces: dict[str, float] = {}
    async with collector() as here:
        async with subject(shape, here.settings()) as it:
            await it.installation.save_script(PATH, SCRIPT)
            for number in range(sizes.warm_ups):
                await it.call_and_wait(PATH, {"x": number})
            steps = Steps(f"stages {shape}", jobs)
            for number in range(jobs):
                trace, parent = secrets.token_hex(16), secrets.token_hex(8)
                began = time.perf_counter()
                await it.call_and_wait(PATH, {"x": number}, {"traceparent": f"00-{trace}-{parent}-01"})
                traces[trace] = time.perf_counter() - began
                steps.done(number + 1)
            await it.until_nothing_is_left()
        # Stopped: what was still in the services' hands has been exported with their farewell.
        await asyncio.sleep(0)
        jobs_spans = of_traces(here.spans, traces)
    if not jobs_spans:
        missing = {"everything": "no span has arrived"}
        return Measured(measurement="stages", shape=shape, missing=missing)
    return Measured(
        measurement="stages",
        shape=shape,
        figures=[Figure("one traced job p50", spread(traces.values()).p50, "ms")],
        tables=[shares(shape, jobs_spans), timeline(shape, jobs_spans)],
    )


def of_traces(spans: Iterable[Span], wanted: Mapping[str, object]) -> list[list[Span]]:
    """Return the spans of each wanted trace, the request first."""
    found: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        if span.trace in wanted:
            found[span.trace].append(span)
    # The audit entry is written after the answer: only what overlaps the request is a part of it.
    whole = [sorted(each, key=lambda span: span.began) for each in found.values()]
    return [[span for span in each if span.began < each[0].ended] for each in whole]


def own_time(span: Span, others: Iterable[Span]) -> int:
    """Return the nanoseconds of a span in which none of its children ran."""
    busy, until = 0, span.began
    for began, ended in sorted((each.began, each.ended) for each in others if each.parent == span.id):
        began, ended = max(began, until), min(ended, span.ended)
        if ended > began:
            busy += ended - began
            until = ended
    return span.ended - span.began - busy


def shares(shape: Shape, jobs: Sequence[Sequence[Span]]) -> Table:
    """Return each kind of span with its medians and the share of the request in which only it ran."""
    took: dict[str, list[float]] = defaultdict(list)
    own: dict[str, list[float]] = defaultdict(list)
    request = statistics.median((spans[0].ended - spans[0].began) / MILLI for spans in jobs)
    for spans in jobs:
        for span in spans:
            within = min(span.ended, spans[0].ended)
            clipped = Span(**{**{name: getattr(span, name) for name in Span.__struct_fields__}, "ended": within})
            took[span.name].append((span.ended - span.began) / MILLI)
            own[span.name].append(own_time(clipped, spans) / MILLI)
    rows = []
    for name in sorted(own, key=lambda each: -sum(own[each])):
        each_own = sum(own[name]) / len(jobs)
        rows.append(
            (
                name,
                f"{len(took[name]) / len(jobs):.2f}",
                f"{statistics.median(took[name]):.2f}",
                f"{each_own:.2f}",
                f"{100 * each_own / request:.0f} %",
            )
        )
    head = ("span", "a job", "median ms", "ms in which no span within it ran", "share of the request")
    return Table(f"Spans of {len(jobs)} traced jobs, {shape}", head, rows)


def timeline(shape: Shape, jobs: Sequence[Sequence[Span]]) -> Table:
    """Return what begins and ends during the request, in the order of the medians, with the gaps between."""
    moments: dict[tuple[str, str], list[float]] = defaultdict(list)
    for spans in jobs:
        root = spans[0]
        for span in spans:
            moments[span.name, "begins"].append((span.began - root.began) / MILLI)
            if span.ended <= root.ended:
                moments[span.name, "ends"].append((span.ended - root.began) / MILLI)
    usual = {moment: offsets for moment, offsets in moments.items() if len(offsets) * 2 >= len(jobs)}
    rows = []
    before = 0.0
    for (name, what), offsets in sorted(usual.items(), key=lambda each: statistics.median(each[1])):
        at = statistics.median(offsets)
        rows.append((f"{name} {what}", f"{at:.2f}", f"{at - before:.2f}"))
        before = at
    return Table(
        f"A traced job's way, {shape}", ("moment", "ms since the request came", "ms since the line above"), rows
    )
