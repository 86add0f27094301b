"""What a Bash script gets and gives."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.worker_sandbox.harness import Scripts


async def test_parameters_come_by_name_and_the_last_line_is_the_result(scripts: Scripts) -> None:
    code = 'who="$1"\nhow="${2:-kindly}"\nwhat="$3"\necho noise\necho "$who $how $what"\n'
    assert await scripts.result(code, {"what": {"a": [1]}, "who": "Ann"}, language="bash") == 'Ann kindly {"a": [1]}'


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("true", None),
        ("echo -n unfinished", "unfinished"),
        ("echo result; echo warning >&2", "result"),
        ("printf 'result\\n\\n'", "result"),
        ("echo '{\"a\": 1}'", '{"a": 1}'),
        ("echo line; echo '{\"a\": 1.50}' > result.json", {"a": 1.5}),
        ("echo line; printf 'two\\nlines\\n' > result.out", "two\nlines"),
        ("echo 1 > result.out; echo 2 > result.json", 2),
        (r"printf 'a\xff\n'", "a\ufffd"),
        ("pwd; echo '#' > x; ls", "x"),
    ],
)
async def test_the_result_is_a_file_or_the_last_line(scripts: Scripts, code: str, expected: Any) -> None:
    assert await scripts.result(code, language="bash") == expected


async def test_the_first_failing_command_ends_the_script_with_its_code_and_last_words(scripts: Scripts) -> None:
    error = await scripts.error("echo before\necho bad >&2\n(exit 42)\necho after", language="bash")
    assert (error["name"], error["exit_code"], error["reason"]) == ("ExecutionErr", 42, "exit_code")
    assert error["message"].startswith("exit code 42, last log lines:\n")
    assert "before" in error["message"]
    assert "bad" in error["message"]
    assert "after" not in error["message"]


async def test_a_script_killed_by_a_signal_says_which(scripts: Scripts) -> None:
    error = await scripts.error("kill -KILL $$", language="bash")
    assert (error["exit_code"], error["reason"]) == (137, "killed")
    assert "SIGKILL" in error["message"]


async def test_a_result_that_is_no_json_fails_the_job(scripts: Scripts) -> None:
    error = await scripts.error("echo '{' > result.json", language="bash")
    assert "result.json is not valid JSON" in error["message"]


async def test_stdout_and_stderr_both_reach_the_log(scripts: Scripts) -> None:
    _, run = await scripts.run("echo one; sleep 0.05; echo two >&2; sleep 0.05; echo three", language="bash")
    assert run.log == "one\ntwo\nthree\n"


async def test_marked_lines_are_streamed(scripts: Scripts) -> None:
    _, run = await scripts.run("echo 'WM_STREAM: a\\nb'; echo done", language="bash")
    assert (run.stream, run.log) == (["a\nb"], "done\n")


async def test_what_was_left_in_the_background_is_not_waited_for(scripts: Scripts) -> None:
    assert await scripts.result("sleep 1000 &\necho done", language="bash") == "done"


async def test_environment_variables_are_there_and_process_substitution_works(scripts: Scripts) -> None:
    assert (
        await scripts.result('read x < <(echo "$GREETING")\necho "$x"', language="bash", env={"GREETING": "hi"}) == "hi"
    )
