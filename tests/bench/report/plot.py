"""The engines as one SVG: bars on a logarithmic scale, p50 dark and p99 light, with the ratio to our first shape.

The colours are two of Okabe and Ito's, which people with any kind of colour vision tell apart; the lengths, labels and
a pattern say the same without them.
"""

import math
from collections.abc import Sequence
from html import escape

from tests.bench.figures import TIMES, number
from tests.bench.run import Row, Run, side_by_side

WIDTH, LABELS, BARS, LINE = 1080, 300, 520, 46
TOP = 96
OURS, PEERS, INK, FAINT = "#0072B2", "#E69F00", "#222222", "#d0d0d0"


def plot(run: Run) -> str:
    """Return the document."""
    rows = [each for each in side_by_side(run) if each.one_job or each.jobs_per_second]
    latencies = [each for each in rows if each.one_job]
    rates = [each for each in rows if each.jobs_per_second]
    cold = run.calibration.cold_python.p50
    parts: list[str] = []
    y = 0
    if latencies:
        parts += latency_panel(latencies, cold, y)
        y += TOP + LINE * len(latencies) + 40
    if rates:
        parts += rate_panel(rates, y)
        y += TOP + LINE * len(rates) + 40
    machine = f"{run.calibration.cores} cores, {run.calibration.cpu}; Tidemill sandboxes every job; {run.began_at[:10]}"
    height = y + 30
    parts.append(text(20, height - 14, machine, size=12, colour="#555555"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="Helvetica, Arial, sans-serif" role="img">\n'
        "<title>One job and jobs a second of several engines on one machine</title>\n"
        '<defs><pattern id="stripes" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect width="6" height="6" fill="#ffffff"/><rect width="2.5" height="6" fill="#888888"/></pattern></defs>\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def latency_panel(rows: Sequence[Row], cold: float, y: int) -> list[str]:
    """Return the bars of one job; shorter is better."""
    pairs = [(row, row.one_job) for row in rows if row.one_job]
    scale = Scale([cold, *(latency.p50 for _, latency in pairs), *(latency.p99 for _, latency in pairs)])
    parts = [
        text(
            20,
            y + 30,
            "One job that does nothing, from call to answer (ms, logarithmic; shorter is better)",
            size=18,
            bold=True,
        ),
        text(
            20,
            y + 52,
            "Bar: p50; striped: up to p99; dashed: a cold start of Python. The ratio compares p50 with the first line.",
            size=13,
        ),
        *grid(scale, y, len(pairs)),
    ]
    at_cold = scale.x(cold)
    bottom = y + TOP + len(pairs) * LINE - 6
    parts.append(
        f'<line x1="{at_cold}" y1="{y + TOP - 6}" x2="{at_cold}" y2="{bottom}" stroke="{INK}" '
        'stroke-width="1.5" stroke-dasharray="5 4"/>'
    )
    first = pairs[0][1].p50
    for at, (row, latency) in enumerate(pairs):
        top = y + TOP + at * LINE
        end, far = scale.x(latency.p50), scale.x(latency.p99)
        ratio = "" if not at else f" · {number(latency.p50 / first)} {TIMES}"
        parts += [
            *label(row, top),
            f'<rect x="{end}" y="{top + 6}" width="{max(0, far - end):.1f}" height="20" fill="url(#stripes)" '
            'stroke="#888888" stroke-width="0.8"/>',
            bar(row, top, end),
            text(far + 8, top + 21, f"{number(latency.p50)} / {number(latency.p99)} ms{ratio}", size=13),
        ]
    return parts


def rate_panel(rows: Sequence[Row], y: int) -> list[str]:
    """Return the bars of jobs a second; longer is better."""
    pairs = [(row, row.jobs_per_second) for row in rows if row.jobs_per_second]
    scale = Scale([rate for _, rate in pairs])
    parts = [
        text(20, y + 30, "Jobs that do nothing, a second (logarithmic; longer is better)", size=18, bold=True),
        text(20, y + 52, "All submitted at once, all recorded. The ratio compares with the first line.", size=13),
        *grid(scale, y, len(pairs)),
    ]
    first = pairs[0][1]
    for at, (row, rate) in enumerate(pairs):
        top = y + TOP + at * LINE
        end = scale.x(rate)
        ratio = "" if not at else f" · {number(rate / first)} {TIMES}"
        parts += [*label(row, top), bar(row, top, end), text(end + 8, top + 21, f"{number(rate)}/s{ratio}", size=13)]
    return parts


class Scale:
    """A logarithmic axis over whole decades."""

    def __init__(self, values: Sequence[float]) -> None:
        self.low = math.floor(math.log10(min(values)))
        self.high = max(math.ceil(math.log10(max(values))), self.low + 1)

    def x(self, value: float) -> float:
        """Return the place of a value."""
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return round(LABELS + BARS * share, 1)

    def ticks(self) -> list[float]:
        """Return the decades."""
        return [10.0**power for power in range(self.low, self.high + 1)]


def grid(scale: Scale, y: int, rows: int) -> list[str]:
    """Return the decades as lines with their values."""
    parts = []
    bottom = y + TOP + rows * LINE - 6
    for tick in scale.ticks():
        x = scale.x(tick)
        parts.append(f'<line x1="{x}" y1="{y + TOP - 6}" x2="{x}" y2="{bottom}" stroke="{FAINT}"/>')
        parts.append(text(x, y + TOP - 12, f"{tick:g}", size=12, anchor="middle", colour="#555555"))
    return parts


def label(row: Row, top: int) -> list[str]:
    """Return the name of an engine with its isolation below."""
    isolation = row.isolation if len(row.isolation) <= 50 else row.isolation[:49] + "…"
    if row.ours:
        isolation = "own namespaces for each job"
    return [
        text(LABELS - 12, top + 15, row.title, size=13, anchor="end", bold=row.ours),
        text(LABELS - 12, top + 30, isolation, size=10.5, anchor="end", colour="#555555"),
    ]


def bar(row: Row, top: int, end: float) -> str:
    """Return a bar from the axis to its end."""
    colour = OURS if row.ours else PEERS
    return f'<rect x="{LABELS}" y="{top + 6}" width="{max(1, end - LABELS):.1f}" height="20" fill="{colour}"/>'


def text(
    x: float, y: float, words: str, *, size: float, anchor: str = "start", bold: bool = False, colour: str = INK
) -> str:
    """Return a line of text."""
    # A white rim keeps words legible where a line of the grid runs behind them.
    style = ' font-weight="bold"' if bold else ""
    style += ' paint-order="stroke" stroke="#ffffff" stroke-width="3"'
    place = f'x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}"{style}>{escape(words)}</text>'
