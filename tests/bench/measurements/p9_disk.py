"""P9: by how much tables, indexes and toast grow for each finished small job.

What unfinished jobs and unsaid messages leave behind is room that the next ones use as soon as it has been vacuumed: it
is shown beside the figures, and taken off by a VACUUM such as autovacuum does once a minute.
"""

import asyncio

from tests.bench.figures import Figure, Measured, Table
from tests.bench.progress import Steps
from tests.bench.sizes import Sizes
from tests.bench.subject import PATH, SCRIPT, Subject, subject
from tests.support.installation import Shape
from tests.support.waiting import eventually

CLIENTS = 4
_SCHEMAS = ["audit", "bus", "platform", "queue"]


async def measure(shape: Shape, sizes: Sizes) -> Measured:
    """Run some jobs first, so that every partition and index has its first pages."""
    async with subject(shape) as it:
        await it.installation.save_script(PATH, SCRIPT)
        await run(it, sizes.warm_ups, f"p9 {shape}, warm-ups")
        await it.admin.execute("VACUUM")
        before = await relations(it)
        await run(it, sizes.burst, f"p9 {shape}")
        at_once = await relations(it)
        await it.admin.execute("VACUUM")
        after = await relations(it)
    grown, kept = (
        {name: (size - before.get(name, 0)) / sizes.burst for name, size in sizes_then.items()}
        for sizes_then in (at_once, after)
    )
    whole = sum(kept.values())
    audit = sum(each for name, each in kept.items() if name.startswith("audit."))
    rows = [
        (name, f"{kept[name]:.0f}", f"{each:.0f}")
        for name, each in sorted(grown.items(), key=lambda one: -one[1])
        if each >= 1
    ]
    return Measured(
        measurement="p9",
        shape=shape,
        figures=[
            Figure("with its audit entry", round(whole), "bytes"),
            Figure("without its audit entry", round(whole - audit), "bytes"),
            Figure("with its audit entry, before a vacuum", round(sum(grown.values())), "bytes"),
        ],
        tables=[
            Table(
                f"Bytes for each of {sizes.burst} jobs, {shape}",
                ("table with its indexes", "bytes a job", "before a vacuum"),
                rows,
            )
        ],
    )


async def run(it: Subject, jobs: int, what: str) -> None:
    """Let so many jobs come to their end, and their audit entries be written."""
    steps = Steps(what, jobs)
    numbers = iter(range(jobs))
    before = await it.admin.fetchval("SELECT count(*) FROM audit.entry")

    async def client() -> None:
        for number in numbers:
            await it.call_and_wait(PATH, {"x": number})
            steps.done(number + 1)

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client())
    await it.until_nothing_is_left()
    written = "SELECT count(*) >= $1 FROM audit.entry"
    await eventually(lambda: it.admin.fetchval(written, before + jobs), 60)


async def relations(it: Subject) -> dict[str, int]:
    """Return the size of each table of ours with its indexes and toast; a partition goes by its parent's name."""
    rows = await it.admin.fetch(_SIZES, _SCHEMAS)
    return {row["name"]: row["size"] for row in rows}


_SIZES = """
    SELECT n.nspname || '.' || coalesce(parent.relname, c.relname) AS name,
           sum(pg_total_relation_size(c.oid))::bigint AS size
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class parent ON parent.oid = i.inhparent
    WHERE c.relkind = 'r' AND n.nspname = ANY ($1) GROUP BY 1
"""
