"""Warm runnables, tried rather than looked up: a script counts its own calls, and a warm one comes to two."""

from tests.bench.subject import Subject

WARM_PATH = "u/admin/bench_warm"
SCRIPT = """\
calls = 0

def main(x: int):
    global calls
    calls += 1
    return calls if x < 0 else x
"""
_ATTEMPTS = 20


async def why_no_warm_runnables(it: Subject) -> str | None:
    """Deploy a warm script and return None, or say why there is no such thing."""
    script = {
        "path": WARM_PATH,
        "content": SCRIPT,
        "language": "python3",
        "summary": "",
        "description": "",
        "dedicated_worker": True,
    }
    async with it.session.post(it.url("scripts/create"), json=script) as answer:
        if answer.status >= 400:
            return f"not available yet: {(await answer.text()).strip()}"
    for _ in range(_ATTEMPTS):
        if await it.call_and_wait(WARM_PATH, {"x": -1}) > 1:
            return None
    return f"not available yet: {_ATTEMPTS} calls in a row each met a new interpreter"
