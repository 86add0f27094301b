"""The run as Markdown: goals first, then engines side by side, then every figure and the details behind it."""

from collections.abc import Iterable, Sequence

from tests.bench.figures import TIMES, Table, number
from tests.bench.goals import Judgement, judge
from tests.bench.measurements import MEASUREMENTS
from tests.bench.measurements.series import HEAVY_SERIES, LIGHT_SERIES
from tests.bench.peers import PEERS
from tests.bench.run import Row, Run, side_by_side


def table(run: Run) -> str:
    """Return all of it."""
    parts = [machine(run)]
    if goals := goal_rows(run):
        head = ("id", "what", "shape", "goal", "measured", "")
        parts.append("## Goals\n\n" + markdown(head, goals))
    if engines := side_by_side(run):
        parts.append("## Side by side\n\n" + markdown(_ENGINE_HEAD, [engine_row(each, engines) for each in engines]))
        parts.append(remarks(run))
    for measured in run.measured:
        title = f"## {measured.measurement}, {measured.shape}: {MEASUREMENTS[measured.measurement][0]}"
        rows: list[Sequence[str]] = [(each.name, f"{number(each.value)} {each.unit}") for each in measured.figures]
        rows += [(name, reason) for name, reason in measured.missing.items()]
        parts.append(f"{title}\n\n" + markdown(("figure", "value"), rows))
        parts += [detail(each) for each in measured.tables if each.rows]
    return "\n".join(part for part in parts if part)


def machine(run: Run) -> str:
    """Return what the figures were measured on."""
    it = run.calibration
    of = ", ".join(f"{name} {version}" for name, version in it.versions.items())
    warning = (
        f"\nThe machine was busy when this began (load {it.load:g} on {it.cores} cores): these figures say little.\n"
        if it.load > it.cores / 2
        else ""
    )
    return (
        f"# Benchmark\n\nMeasured {run.began_at} on {it.cores} cores ({it.cpu}); {of}; {run.samples} samples.\n\n"
        f"Yardsticks: a cold `python -I -c pass` p50 {number(it.cold_python.p50)} ms, "
        f"p99 {number(it.cold_python.p99)} ms; fib(33) {number(it.fib_33)} s; "
        f"{it.selects:,.0f} SELECTs a second ({it.selects_by}).\n{warning}"
    )


def goal_rows(run: Run) -> list[Sequence[str]]:
    """Return each goal with what became of it, and where the time goes when it was missed."""
    rows: list[Sequence[str]] = []
    for each in judge(run.measured):
        goal = each.goal
        if each.judgement is Judgement.MISSING:
            value, outcome = "", each.reason
        else:
            assert each.value is not None
            value, outcome = f"{number(each.value)} {goal.unit}".strip(), f"**{each.judgement}**"
            if each.judgement is Judgement.MISSED:
                outcome += f" ({number(each.value / goal.limit)} {TIMES} the goal){where(run, goal.figure, each.shape)}"
        rows.append((goal.measurement.upper(), goal.figure, each.shape, goal.text, value, outcome))
    return rows


def where(run: Run, figure: str, shape: str) -> str:
    """Return where the time of a median job goes: the three largest gaps on a traced job's way."""
    traced = next((each for each in run.measured if each.measurement == "stages" and each.shape == shape), None)
    if figure != "one job p50" or traced is None or len(traced.tables) < 2:
        return ""
    rows = traced.tables[1].rows
    largest = sorted(range(1, len(rows)), key=lambda at: -float(rows[at][2]))[:3]
    return "; " + ", ".join(f"{rows[at - 1][0]} → {rows[at][0]}: {rows[at][2]} ms" for at in sorted(largest))


_ENGINE_HEAD = (
    "engine",
    "one job p50 / p99",
    "peer's p50 against ours",
    "jobs/s",
    "ours against peer's",
    LIGHT_SERIES,
    HEAVY_SERIES,
    "start → first",
    "isolation of user code",
)


def engine_row(row: Row, rows: Iterable[Row]) -> Sequence[str]:
    """Return one engine with its ratios against our first shape; above one means that we are ahead."""
    if row.missing:
        return (row.title, f"left out: {row.missing}", *[""] * (len(_ENGINE_HEAD) - 3), row.isolation)
    ours = next((each for each in rows if each.ours), None)
    latency = row.one_job
    slower = faster = ""
    if ours is not None and not row.ours:
        if ours.one_job and latency:
            slower = f"{latency.p50 / ours.one_job.p50:.2f} {TIMES}"
        if ours.jobs_per_second and row.jobs_per_second:
            faster = f"{ours.jobs_per_second / row.jobs_per_second:.2f} {TIMES}"
    return (
        row.title,
        f"{number(latency.p50)} / {number(latency.p99)} ms ({latency.samples})" if latency else "",
        slower,
        number(row.jobs_per_second),
        faster,
        f"{number(row.light)} s" if row.light is not None else "",
        f"{number(row.heavy)} s" if row.heavy is not None else "",
        f"{number(row.start)} s" if row.start is not None else "",
        row.isolation,
    )


def remarks(run: Run) -> str:
    """Return what one job is for each peer."""
    lines = ["In brackets: how many samples. Ratios are against our first shape; above one means that we are ahead."]
    lines += [f"- {each.title}: {each.what}." for name, each in PEERS.items() if name in run.peers]
    return "\n".join(lines) + "\n"


def detail(it: Table) -> str:
    """Return the details behind a figure."""
    return f"### {it.title}\n\n" + markdown(it.head, it.rows)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a line break or a bar would end a cell."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(" ".join(cell.split()) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
