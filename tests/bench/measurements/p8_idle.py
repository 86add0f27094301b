"""P8: what an installation with nothing to do asks of Postgres, and how much memory our own processes hold."""

import asyncio
from collections.abc import Iterable, Sequence

import psutil

from tests.bench.figures import Figure, Measured, Table
from tests.bench.measurements.p1_latency import shortened
from tests.bench.progress import tell
from tests.bench.sizes import Sizes
from tests.bench.subject import PATH, SCRIPT, Counts, counted, subject
from tests.support.installation import Shape

MEBI = 1 << 20


async def measure(shape: Shape, sizes: Sizes) -> Measured:
    """Let one job run, so that everything is there that comes with the first one, then watch."""
    seconds = sizes.idle.total_seconds()
    async with subject(shape) as it:
        await it.installation.save_script(PATH, SCRIPT)
        await it.call_and_wait(PATH, {"x": 1})
        await it.until_nothing_is_left()
        tell(f"p8 {shape}: watching for {seconds:.0f} s")
        await asyncio.sleep(seconds / 3)
        async with counted(it) as counts:
            await asyncio.sleep(seconds)
        resident, proportional, table = memory(it.processes(), shape)
    figures = [
        Figure("statements", round(counts.calls / seconds, 2), "/s"),
        Figure("transactions", round(counts.transactions / seconds, 2), "/s"),
        Figure("writing transactions", round(counts.writing_transactions / seconds, 2), "/s"),
        Figure("resident memory", round(resident / MEBI, 1), "MB"),
    ]
    missing = {}
    if proportional is None:
        missing["proportional memory"] = "the kernel shows it to root alone"
    else:
        figures.append(Figure("proportional memory", round(proportional / MEBI, 1), "MB"))
    return Measured(
        measurement="p8",
        shape=shape,
        figures=figures,
        missing=missing,
        tables=[statements(shape, counts, seconds), table],
    )


def memory(processes: Iterable[tuple[psutil.Process, Sequence[str]]], shape: Shape) -> tuple[int, int | None, Table]:
    """Return the sums of resident and proportional memory, and who holds how much; shared pages count in each RSS."""
    rows = []
    resident, proportional = 0, 0
    complete = True
    for process, words in processes:
        try:
            rss = process.memory_info().rss
            pss = process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            pss, complete = 0, False
        resident += rss
        proportional += pss
        rows.append((program(words), f"{rss / MEBI:.1f}", f"{pss / MEBI:.1f}" if complete else "?"))
    head = ("process", "resident, MB", "proportional, MB")
    return resident, proportional if complete else None, Table(f"Memory when idle, {shape}", head, rows)


def program(words: Sequence[str]) -> str:
    """Return what a command line runs, without where it lies and without the code in it."""
    before_code = words[: words.index("-c")] if "-c" in words else words
    return " ".join(word.rpartition("/")[2] for word in before_code)


def statements(shape: Shape, counts: Counts, seconds: float) -> Table:
    """Return who asked what."""
    rows = [
        (each["role"], shortened(each["query"]), f"{each['calls'] / seconds:.2f}", f"{each['ms']:.3f}")
        for each in counts.statements
    ]
    return Table(f"Statements when idle, {shape}", ("service", "statement", "a second", "ms in the server"), rows)
