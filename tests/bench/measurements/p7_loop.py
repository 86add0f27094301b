"""P7: a long parallel loop: what an iteration costs, how much memory it takes, and whether the api still answers."""

import asyncio
import time

from tests.bench.figures import Figure, Measured, spread
from tests.bench.measurements.flows import rawscript, run_flow, save_flow
from tests.bench.progress import tell
from tests.bench.sizes import Sizes
from tests.bench.subject import Subject, subject
from tests.support.installation import Shape

PATH = "u/admin/bench_loop"
NO_OP = "def main(x):\n    return x\n"


async def measure(shape: Shape, sizes: Sizes) -> Measured:
    """Measure one loop, and ask how far it is while it runs."""
    iterations = 20 * sizes.samples
    loop = {
        "type": "forloopflow",
        "iterator": {"type": "javascript", "expr": "Array.from({length: flow_input.n}, (_, i) => i)"},
        "parallel": True,
        "skip_failures": False,
        "modules": [{"id": "body", "value": rawscript(NO_OP, x="flow_input.iter.value")}],
    }
    async with subject(shape) as it:
        await save_flow(it, PATH, {"modules": [{"id": "loop", "value": loop}]})
        await run_flow(it, PATH, 50)
        tell(f"p7 {shape}: {iterations} iterations")
        before = memory(it)
        began = time.perf_counter()
        async with it.session.post(it.url(f"jobs/run/f/{PATH}"), json={"n": iterations}) as answer:
            job = await answer.text()
        watching = Watch()
        ended = await watching.until_the_end(it, job)
        took = time.perf_counter() - began
        if ended.get("success") is not True:
            raise RuntimeError(f"the loop ended with {str(ended.get('result'))[:200]}")
    figures = [
        Figure("an iteration", round(took * 1000 / iterations, 2), "ms"),
        Figure("iterations", iterations, ""),
        Figure("most unfinished jobs at once", watching.most_unfinished, ""),
        Figure("memory of all our processes, growth", round((watching.most_memory - before) / 2**20, 1), "MB"),
        Figure("getupdate p95 meanwhile", spread(watching.answers).p95, "ms"),
    ]
    return Measured(measurement="p7", shape=shape, figures=figures)


class Watch:
    """What was seen while the loop ran."""

    def __init__(self) -> None:
        self.most_unfinished = 0
        self.most_memory = 0
        self.answers: list[float] = []

    async def until_the_end(self, it: Subject, job: str) -> dict[str, object]:
        """Look twice a second until the job has ended, and return it."""
        async with asyncio.timeout(900):
            while True:
                began = time.perf_counter()
                url = it.url(f"jobs_u/getupdate/{job}?running=false&log_offset=0")
                async with it.session.get(url) as answer:
                    update = await answer.json()
                self.answers.append(time.perf_counter() - began)
                self.most_unfinished = max(
                    self.most_unfinished, await it.admin.fetchval("SELECT count(*) FROM queue.live_job")
                )
                self.most_memory = max(self.most_memory, memory(it))
                if update.get("completed"):
                    async with it.session.get(it.url(f"jobs_u/completed/get/{job}")) as answer:
                        ended: dict[str, object] = await answer.json()
                        return ended
                await asyncio.sleep(0.5)


def memory(it: Subject) -> int:
    """Return the resident memory of our own processes outside of sandboxes, in bytes."""
    return sum(process.memory_info().rss for process, command in it.processes() if "sandbox" not in " ".join(command))
