"""What a Python script gets and gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.worker_sandbox.harness import Scripts
from tidemill.worker.sandbox.pool import ZygoteKey


async def test_main_gets_its_arguments_by_name_and_its_value_is_the_result(scripts: Scripts) -> None:
    assert await scripts.result("def main(x, y=3): return {'sum': x + y}", {"x": 4, "extra": 1}) == {"sum": 7}


async def test_arguments_become_what_the_annotations_say(scripts: Scripts) -> None:
    code = """
from __future__ import annotations
from datetime import datetime, date
def main(when: datetime, day: date, data: bytes, text: str):
    return [when.year, day.month, data.decode(), text]
"""
    args = {"when": "2026-11-23T10:00:00Z", "day": "2026-11-23", "data": "aGk=", "text": "2026-11-23"}
    assert await scripts.result(code, args) == [2026, 11, "hi", "2026-11-23"]


async def test_an_async_main_is_awaited(scripts: Scripts) -> None:
    code = "import asyncio\nasync def main(): \n    await asyncio.sleep(0)\n    return 'awaited'"
    assert await scripts.result(code) == "awaited"


async def test_another_entrypoint_can_be_called(scripts: Scripts) -> None:
    assert await scripts.result("def preprocessor(): return 5", entrypoint="preprocessor") == 5


@pytest.mark.parametrize("prefix", ["def", "async def"])
async def test_a_generator_streams_its_items_and_results_in_their_text(scripts: Scripts, prefix: str) -> None:
    ending, run = await scripts.run(f"{prefix} main():\n    yield 'one '\n    yield {{'two': 2}}")
    assert run.stream == ["one ", '{"two":2}']
    assert json.loads(bytes(ending.result)) == 'one {"two":2}'


async def test_marked_lines_are_streamed_and_not_logged(scripts: Scripts) -> None:
    ending, run = await scripts.run("def main():\n    print('a')\n    print('WM_STREAM: b\\\\nc')\n    print('d')")
    assert ending.success
    assert (run.log, run.stream) == ("a\nd\n", ["b\nc"])


async def test_an_exception_is_told_with_the_lines_of_the_script_only(scripts: Scripts) -> None:
    error = await scripts.error("def main():\n    inner()\n\ndef inner():\n    raise LookupError('gone')\n")
    assert (error["name"], error["message"], error["reason"]) == ("LookupError", "gone", "raised")
    assert error["stack"].startswith(
        'Traceback (most recent call last):\n  File "/job/main.py", line 2, in main\n    inner()'
    )
    assert error["stack"].endswith("    raise LookupError('gone')\nLookupError: gone\n")


async def test_a_script_that_does_not_compile_says_where(scripts: Scripts) -> None:
    error = await scripts.error("def main(:\n    pass")
    assert error["name"] == "SyntaxError"
    assert "line 1" in error["message"]


async def test_a_missing_argument_and_a_missing_function_are_named(scripts: Scripts) -> None:
    assert "'y'" in (await scripts.error("def main(x, y): pass", {"x": 1}))["message"]
    assert "'main'" in (await scripts.error("x = 1"))["message"]


async def test_an_exception_that_cannot_be_shown_still_fails_the_job(scripts: Scripts) -> None:
    code = "class Odd(Exception):\n    def __str__(self): raise RuntimeError\ndef main(): raise Odd"
    assert (await scripts.error(code))["name"] == "Odd"


@pytest.mark.parametrize(
    "code", ["raise SystemExit(7)", "import sys; sys.exit(7)", "import os; os._exit(7)", "exit(7)"]
)
async def test_an_exit_code_is_a_failure_that_tells_it(scripts: Scripts, code: str) -> None:
    error = await scripts.error(f"def main(): {code}")
    assert (error["name"], error["exit_code"], error["reason"]) == ("ExecutionErr", 7, "exit_code")


async def test_leaving_with_code_0_is_success(scripts: Scripts) -> None:
    assert await scripts.result("def main(): raise SystemExit") is None


@pytest.mark.parametrize(
    ("code", "signal"),
    [("import ctypes; ctypes.string_at(0)", "SIGSEGV"), ("import os; os.kill(os.getpid(), 15)", "SIGTERM")],
)
async def test_a_signal_that_ends_the_process_is_named(scripts: Scripts, code: str, signal: str) -> None:
    error = await scripts.error(f"def main(): {code}")
    assert error["reason"] == "killed"
    assert signal in error["message"]


async def test_threads_and_exit_handlers_finish_before_the_answer(scripts: Scripts) -> None:
    code = """
import atexit, threading, time
def late():
    time.sleep(0.05)
    print('thread')
def main():
    atexit.register(print, 'atexit')
    threading.Thread(target=late).start()
    print('main')
"""
    _, run = await scripts.run(code)
    assert run.log == "main\nthread\natexit\n"


async def test_a_fork_that_comes_back_from_main_does_not_answer_for_the_job(scripts: Scripts) -> None:
    code = """
import os
def main():
    pid = os.fork()
    if pid: os.waitpid(pid, 0)
    return 'parent' if pid else 'child'
"""
    assert await scripts.result(code) == "parent"


async def test_the_source_can_be_inspected_and_the_module_imported(scripts: Scripts) -> None:
    code = """
import inspect
def main():
    import main as again
    return [__name__, inspect.getsource(main)[:10], again.main is main]
"""
    assert await scripts.result(code) == ["main", "def main()", True]


async def test_nothing_of_ours_can_be_imported(scripts: Scripts) -> None:
    code = """
import importlib.util, sys
def main():
    found = [n for n in ('tidemill', 'msgspec', 'inside', 'pip') if importlib.util.find_spec(n)]
    return found + [n for n in sys.modules if n.startswith('inside')] + [p for p in sys.path if 'tidemill' in p]
"""
    assert await scripts.result(code) == []


async def test_each_child_has_its_own_random_numbers(scripts: Scripts) -> None:
    code = "import random, uuid\ndef main(): return [random.random(), str(uuid.uuid4())]"
    seen = [tuple(await scripts.result(code)) for _ in range(3)]
    assert len(set(seen)) == 3


async def test_peak_memory_is_reported(scripts: Scripts) -> None:
    ending, _ = await scripts.run("def main():\n    x = b'1' * (50 << 20)\n    return len(x)")
    assert ending.memory_peak_kb is not None
    assert 50_000 < ending.memory_peak_kb < 150_000


@pytest.fixture
def library(tmp_path: Path) -> str:
    (tmp_path / "greeting.py").write_text("word = 'hello'\n")
    tmp_path.chmod(0o755)
    return str(tmp_path)


async def test_libraries_of_the_environment_can_be_imported(scripts: Scripts, library: str) -> None:
    key = ZygoteKey(workspace="test", environment=(library,))
    code = "import greeting\ndef main(): return [greeting.word, greeting.__file__]"
    assert await scripts.result(code, key=key) == ["hello", "/env/0/greeting.py"]


@pytest.mark.parametrize(
    ("sdk", "seen"),
    [
        ("import os\nahead = 'WM_JOB_ID' not in os.environ\n", [True, None]),
        ("raise SystemExit(3)\n", [None, "SystemExit"]),
        ("import nosuch\n", [None, "ModuleNotFoundError"]),
    ],
)
async def test_the_sdk_is_imported_before_there_is_a_job_and_one_that_can_not_be_is_the_scripts_to_hear_of(
    scripts: Scripts, library: str, tmp_path: Path, sdk: str, seen: list[str | bool | None]
) -> None:
    (tmp_path / "wmill").mkdir()
    (tmp_path / "wmill" / "__init__.py").write_text(sdk)
    key = ZygoteKey(workspace="test", environment=(library,))
    code = """
def main():
    try:
        import wmill
        return [wmill.ahead, None]
    except BaseException as error:
        return [None, type(error).__name__]
"""
    assert await scripts.result(code, key=key, env={"WM_JOB_ID": "x"}) == seen


async def test_two_thousand_kilobytes_of_code_and_arguments_pass(scripts: Scripts) -> None:
    text = "x" * 1_000_000
    assert await scripts.result(f"# {text}\ndef main(text): return len(text)", {"text": text}) == 1_000_000
