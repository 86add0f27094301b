"""JavaScript in real processes: what it gives, what it can't do, and what happens when it misbehaves."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path

import msgspec
import psutil
import pytest

import tidemill.chassis.javascript
from tests.support.waiting import eventually
from tidemill.chassis.javascript import EvaluationFailed, JavaScript, JavaScriptSettings, JavaScriptUnavailable, Refused

FOLDER = Path(tidemill.chassis.javascript.__file__).parent
PATIENT = JavaScriptSettings(
    objects=("results",), functions=("resource", "variable"), time_limit=timedelta(seconds=60), longest=1 << 20
)
KNOWN = {"flow_input": msgspec.Raw(b'{"a": [1, 2, {"b": "x"}]}'), "previous_result": msgspec.Raw(b"null")}


class Values:
    """A scope that has some values and notes what was asked of it."""

    def __init__(self, values: Mapping[tuple[str, str], object] | None = None) -> None:
        self.values = values or {}
        self.asked: list[tuple[str, str]] = []

    async def get(self, name: str, key: str) -> msgspec.Raw | None:
        self.asked.append((name, key))
        if (name, key) in self.values:
            return msgspec.Raw(msgspec.json.encode(self.values[name, key]))
        if name == "results":
            return None
        raise Refused(f"{name} {key} not found")


@pytest.fixture(scope="module")
async def javascript() -> AsyncIterator[JavaScript]:
    async with JavaScript(PATIENT) as javascript:
        yield javascript


async def value(
    javascript: JavaScript, source: str, scope: Values | None = None, known: Mapping[str, msgspec.Raw] = KNOWN
) -> object:
    return msgspec.json.decode(await javascript.evaluate(source, known, scope or Values()))


async def failure(javascript: JavaScript, source: str, scope: Values | None = None) -> str:
    with pytest.raises(EvaluationFailed) as failed:
        await javascript.evaluate(source, KNOWN, scope or Values())
    return str(failed.value)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("1 + 1", 2),
        ("flow_input.a[2].b;", "x"),
        ("previous_result", None),
        ("{a: 1}", {"a": 1}),
        ("{a: 1, b: [flow_input.a[0]]};  // all of it", {"a": 1, "b": [1]}),
        ("/* first */ `${flow_input.a[1]}\n${[1].map(x => `<${x}>`)}`", "2\n<1>"),
        ("let x = 1;\nx + 1", 2),
        ("let x = 1\nx\n+ 1", 2),
        ("const f = () => {\n  return 7\n}\nf()", 7),
        ("function f() { return 7 } f()", 7),
        ("let s = 0; for (let i = 0; i < 3; i++) { s += i }\ns", 3),
        ("if (flow_input.a) { 'yes' } else { 'no' }", "yes"),
        ("if (flow_input.b) return 'yes'; return 'no'", "no"),
        ("if (flow_input.b) { return 'yes' }\n'no'", "no"),
        ("let x = 1; {a: x, b: x}", {"a": 1, "b": 1}),
        ("await 3", 3),
        ("const x = await (async () => 3)();\nx + `;${\n'}'\n}`;", "3;}"),
        ("const re = /[;/)]\\//.test(';/'); (await 1) && re // ;", True),
        ('const q = \'a;b\' + "c;\\""; await q', 'a;bc;"'),
        ("flow_input.a\n  .filter(x => x > 1) // numbers; only\n  .map(x => x)", [2]),
        ("const x = 6;\n// a comment; with `ticks\nx / 2 / 3 // trailing; '", 1),
        ("async function f() { return await 4 }\nawait f()", 4),
        ("class A { n = 5 }\nnew A().n", 5),
        ("let {a} = flow_input;\n({n: a.length})", {"n": 3}),
        ("try { flow_input.x.y } catch (e) { null ?? 'none' }", "none"),
        ("try { return await Promise.reject(1) } catch (e) { return e }", 1),
        ("const t = `a${[1, 2].map(n => `${n};\n`).join('')}b`\nawait t", "a1;\n2;\nb"),
        ("let y = await 2\n;[1].concat(y)", [1, 2]),
        ("const o = { return: 1 }; await o.return", 1),
        ("new Promise(done => done([1]))", [1]),
        ("undefined", None),
        ("", None),
        ("let x = 1", None),
        ("[NaN, Infinity, undefined, new Date(0)]", [None, None, None, "1970-01-01T00:00:00.000Z"]),
        ("new Date(2020, 0, 1).toISOString()", "2020-01-01T00:00:00.000Z"),
        ("'👍'.slice(0, 1) + '\\\\ud83d' + '👍'", "\ufffd\\ud83d👍"),
        ("2 ** 53 + 1", 2**53),
    ],
)
async def test_an_expression_gives_its_last_value(javascript: JavaScript, source: str, expected: object) -> None:
    assert await value(javascript, source) == expected
    assert await javascript.check(source) is None


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("let a; a.b", "TypeError: cannot read property 'b' of undefined"),
        ("nothing.there", "ReferenceError: nothing is not defined"),
        ("throw new RangeError('a\\nb')", "RangeError: a b"),
        ("throw {code: 1}", 'the expression threw {"code":1}'),
        ("JSON.parse('{')", "SyntaxError: Expected property name or '}' in JSON at position 1 (line 1 column 2)"),
        ("() => 1", "TypeError: a function can't be written as JSON"),
        ("10n", "TypeError: BigInt are forbidden in JSON.stringify"),
        ("const a = {}; a.a = a; a", "TypeError: circular reference"),
        ("await Promise.reject(new Error('no'))", "Error: no"),
        ("new Promise(() => {})", "the expression waits for something that never comes"),
    ],
)
async def test_an_expression_without_a_value_says_why(javascript: JavaScript, source: str, reason: str) -> None:
    assert await failure(javascript, source) == reason
    assert await javascript.check(source) is None


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 +* 2", "SyntaxError: unexpected token in expression: '*' (line 1, column 4)"),
        ("let a = 1;\na +* 2", "SyntaxError: unexpected token in expression: '*' (line 2, column 4)"),
        ("await 1; if (1) { 2 }", "SyntaxError: it has no value: let it end with an expression, or return one"),
        (
            "await 1\n" + "if (1) { 2 }\n" * 60,
            "SyntaxError: its value is not in one of its last 50 statements:"
            " end statements with semicolons, or return the value",
        ),
        ("let a = await 1", "SyntaxError: it has no value: let it end with an expression, or return one"),
        ("1) + (2", "SyntaxError: expecting ';' (line 1, column 2)"),
        ("1}); while (true); (() => {", "SyntaxError: a bracket closes what it did not open"),
        ("await 1; }); (async () => { return 1", "SyntaxError: a bracket closes what it did not open"),
        ("'\ud800'", "SyntaxError: the expression has half of a surrogate pair"),
        ("'\0'", "SyntaxError: the expression has a character of code 0"),
    ],
)
async def test_what_cannot_be_read_is_refused_before_and_at_the_run(
    javascript: JavaScript, source: str, reason: str
) -> None:
    assert await javascript.check(source) == reason
    assert await failure(javascript, source) == reason


@pytest.mark.parametrize(
    "source", ["let a = await 3\n" + "a\n" * 500, "let a = await 3;" + "a\n+" * 500 + "a - 1500"], ids=["many", "one"]
)
async def test_of_many_lines_without_semicolons_the_last_counts(javascript: JavaScript, source: str) -> None:
    assert await javascript.check(source) is None
    assert await value(javascript, source) == 3


async def test_places_where_the_last_expression_may_begin_are_not_tried_without_end(javascript: JavaScript) -> None:
    said = await javascript.check("if (1) { a }\n" * 5_000 + "let a = await 1")
    assert said is not None
    assert "one of its last 50 statements" in said


async def test_checking_executes_nothing(javascript: JavaScript) -> None:
    assert await javascript.check("while (true) { await variable('x') } 1") is None
    assert await javascript.check("while (true);") is None


@pytest.mark.parametrize(
    ("source", "truth"),
    [("Infinity", True), ("NaN", False), ("() => 1", True), ("10n", True), ("''", False), ("({})", True)],
)
async def test_truth_is_that_of_javascript(javascript: JavaScript, source: str, truth: bool) -> None:
    assert await javascript.test(source, KNOWN, Values()) is truth


async def test_results_are_fetched_only_when_they_are_touched_and_only_once(javascript: JavaScript) -> None:
    scope = Values({("results", "a"): {"n": 1}, ("results", "x-y"): [2], ("results", "c"): 3})
    source = "const name = 'c'; results.a.n + results.a.n + results['x-y'][0] + results[name]"
    assert await value(javascript, source, scope) == 7
    assert scope.asked == [("results", "a"), ("results", "x-y"), ("results", "c")]

    scope = Values({("results", "a"): None})
    assert await value(
        javascript, "['a' in results, 'b' in results, results.a, results.b, results.toString]", scope
    ) == [
        True,
        False,
        None,
        None,
        None,
    ]
    assert "can't be listed" in await failure(javascript, "({...results})", scope)


async def test_resources_and_variables_are_awaited_and_may_be_refused(javascript: JavaScript) -> None:
    scope = Values({("resource", "u/ann/db"): {"host": "h"}, ("variable", "f/x/v"): "secret"})
    both = "const [r, v] = await Promise.all([resource('u/ann/db'), variable(`f/x/v`)]); r.host + v"
    assert await value(javascript, both, scope) == "hsecret"
    assert await failure(javascript, "variable('f/x/w')", scope) == "Error: variable f/x/w not found"
    assert await value(javascript, "variable('f/x/w').catch(e => e.message)", scope) == "variable f/x/w not found"


async def test_a_large_known_value_is_there_and_can_be_replaced(javascript: JavaScript) -> None:
    known = {"result": msgspec.Raw(json.dumps(["x" * 1000] * 1000).encode())}
    assert await value(javascript, "result.length + result[999].length", known=known) == 2000
    assert await value(javascript, "var result = 5; result", known=known) == 5
    assert await value(javascript, "let result = 6; result", known=known) == 6


async def test_what_the_scope_itself_fails_of_comes_to_the_caller(javascript: JavaScript) -> None:
    class Away(Values):
        async def get(self, name: str, key: str) -> msgspec.Raw | None:
            raise ConnectionError("the database is away")

    with pytest.raises(ConnectionError):
        await javascript.evaluate("try { results.a } catch { 1 }", KNOWN, Away())
    assert await value(javascript, "1") == 1


ABSENT = ("require", "process", "fetch", "std", "os", "bjson", "Worker", "setTimeout", "console", "Deno", "WebAssembly")


async def test_there_is_nothing_to_reach_the_outside_with(javascript: JavaScript) -> None:
    assert await value(javascript, f"[{', '.join(f'typeof {name}' for name in ABSENT)}]") == ["undefined"] * len(ABSENT)
    chains = [
        "this.constructor.constructor('return this')().process",
        "({}).constructor.constructor('return typeof process')()",
        "variable.constructor('return typeof require')()",
        "(async () => {}).constructor('return globalThis.ask')()",
        "Object.getOwnPropertyNames(globalThis).filter(n => n.startsWith('ask'))",
    ]
    assert await value(javascript, f"Promise.all([{', '.join(chains)}])") == [
        None,
        "undefined",
        "undefined",
        None,
        [],
    ]
    for module in ("fs", "os", "std", "qjs:std", "/etc/passwd", "data:text/javascript,1"):
        assert "could not load module" in await failure(javascript, f"await import({module!r})")


async def test_nothing_of_one_evaluation_is_seen_by_the_next() -> None:
    async with JavaScript(msgspec.structs.replace(PATIENT, processes=1)) as javascript:
        (process,) = javascript.pids
        pollution = """
            Object.prototype.polluted = 1; Array.prototype.map = () => 'mine'; globalThis.left = 1; var declared = 1;
            JSON.stringify = () => '"stolen"'; Promise.prototype.then = null; Object.defineProperty = null;
            ({}).__proto__.toJSON = () => 'mine'; function f() {}
            [1]
        """
        await javascript.evaluate(pollution, KNOWN, Values())
        seen = "[({}).polluted, typeof left, typeof declared, typeof f, [1].map(x => x), JSON.stringify({})]"
        assert await value(javascript, seen) == [None, "undefined", "undefined", "undefined", [1], "{}"]
        assert javascript.pids == {process}


GREEDY = {
    "endless loop": "while (true);",
    "endless loop behind an await": "await 1; for (;;) { try { while (true); } catch {} finally { continue } } 1",
    "endless microtasks": "const again = () => { Promise.resolve().then(again) }; again(); await new Promise(() => {})",
    "catastrophic regular expression": "/^(a+)+$/.test('a'.repeat(60) + 'b')",
    "sort that compares for ever": "Array.from({length: 1e6}, Math.random).sort(() => { while (true); })",
}
HUGE = {
    "text of 10^9 characters": "'a'.repeat(1e9)",
    "array of 3 million numbers, sorted": "new Array(3e6).fill(0).map(Math.random).sort().length",
    "array that grows": "const a = []; for (;;) a.push(new Array(10000).fill(1))",
    "buffer": "new ArrayBuffer(1e9).byteLength",
}


async def test_who_takes_too_long_or_too_much_is_stopped_and_the_others_go_on() -> None:
    settings = msgspec.structs.replace(PATIENT, processes=6, time_limit=timedelta(seconds=4))
    async with JavaScript(settings) as javascript:
        await asyncio.gather(*(javascript.evaluate("1", {}, Values()) for _ in range(6)))
        before = javascript.pids
        endless = [asyncio.create_task(failure(javascript, source)) for source in GREEDY.values()]
        for name, source in HUGE.items():
            assert await failure(javascript, source) == "the expression needs more than 64 MiB of memory", name
        assert await failure(javascript, "let s = 'x'; for (;;) s += s") == "InternalError: string too long"
        waiting = "const again = () => Promise.resolve().then(again); await again()"
        assert "memory" in await failure(javascript, waiting)
        assert await asyncio.gather(*endless) == ["the expression took longer than 4 s"] * len(GREEDY)

        async def replaced() -> bool:
            return len(javascript.pids) == 6

        await eventually(replaced)
        assert not before & javascript.pids
        assert not any(map(psutil.pid_exists, before))
        assert await value(javascript, "1 + 1") == 2


async def test_deep_recursion_is_an_error_of_the_expression(javascript: JavaScript) -> None:
    assert "Maximum call stack size exceeded" in await failure(javascript, "(function f() { return f() + 1 })()")
    assert "Maximum call stack size exceeded" in str(await javascript.check("(" * 100_000))
    nested = "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; a"
    assert "Maximum call stack size exceeded" in await failure(javascript, nested)


async def test_a_value_or_a_reason_may_only_be_so_long(javascript: JavaScript) -> None:
    assert await failure(javascript, "'a'.repeat(2e6)") == "the value of the expression is larger than 1 MiB"
    assert len(await failure(javascript, "throw new Error('a'.repeat(1e6))")) <= 2000
    assert (
        await failure(javascript, "for (let i = 0; ; i++) results[i]")
        == "the expression asks for more than 1000 values"
    )


async def test_waiting_for_the_scope_costs_the_expression_no_time() -> None:
    class Slow(Values):
        async def get(self, name: str, key: str) -> msgspec.Raw | None:
            await asyncio.sleep(2.2)  # longer than the expression may take
            return msgspec.Raw(b"1")

    async with JavaScript(msgspec.structs.replace(PATIENT, time_limit=timedelta(seconds=2))) as javascript:
        assert await value(javascript, "results.a", Slow()) == 1


async def test_more_than_there_are_processes_for_wait_in_line() -> None:
    async with JavaScript(msgspec.structs.replace(PATIENT, processes=2)) as javascript:
        assert await asyncio.gather(*(value(javascript, f"{n} * 2") for n in range(50))) == [n * 2 for n in range(50)]
        assert len(javascript.pids) <= 2


class Killer(Values):
    """A scope that kills the process which asks, so many times."""

    def __init__(self, javascript: JavaScript, times: int) -> None:
        super().__init__({("results", "a"): 1})
        self.javascript, self.times = javascript, times

    async def get(self, name: str, key: str) -> msgspec.Raw | None:
        if len(self.asked) < self.times:
            for pid in self.javascript.pids:
                os.kill(pid, signal.SIGKILL)
        return await super().get(name, key)


async def test_an_evaluation_whose_process_is_killed_is_tried_once_more() -> None:
    async with JavaScript(msgspec.structs.replace(PATIENT, processes=1)) as javascript:
        once = Killer(javascript, times=1)
        assert await value(javascript, "results.a", once) == 1
        assert len(once.asked) == 2
        assert "ended unexpectedly, twice" in await failure(javascript, "results.a", Killer(javascript, times=2))
        assert await value(javascript, "1") == 1
        for pid in javascript.pids:  # and one that waits idly is not even missed
            os.kill(pid, signal.SIGKILL)
        assert await value(javascript, "1 + 1") == 2


async def test_a_cancelled_evaluation_leaves_its_place_to_the_next() -> None:
    async with JavaScript(msgspec.structs.replace(PATIENT, processes=1)) as javascript:
        begun = asyncio.Event()

        class Telling(Values):
            async def get(self, name: str, key: str) -> msgspec.Raw | None:
                begun.set()
                return None

        endless = asyncio.create_task(javascript.evaluate("results.a; while (true);", KNOWN, Telling()))
        await begun.wait()
        endless.cancel()
        assert await value(javascript, "1 + 1") == 2


async def test_closing_ends_all_processes() -> None:
    async with JavaScript(PATIENT) as javascript:
        endless = asyncio.create_task(javascript.evaluate("while (true);", KNOWN, Values()))
        assert await value(javascript, "1") == 1
        pids = javascript.pids
    assert pids
    assert not any(map(psutil.pid_exists, pids))
    with pytest.raises(JavaScriptUnavailable):
        await endless
    with pytest.raises(JavaScriptUnavailable):
        await javascript.evaluate("1", KNOWN, Values())


async def test_a_host_that_cannot_start_a_process_is_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(JavaScriptUnavailable, match="ended at its start: exit code 1"):
        await JavaScript(PATIENT).__aenter__()
    monkeypatch.setattr(sys, "executable", "/bin/nothing")
    with pytest.raises(JavaScriptUnavailable, match="can't be started"):
        await JavaScript(PATIENT).__aenter__()


async def test_the_processes_die_with_whoever_started_them() -> None:
    program = """
        import asyncio
        from tidemill.chassis.javascript import JavaScript, JavaScriptSettings
        async def main():
            async with JavaScript(JavaScriptSettings(processes=1)) as javascript:
                print(*javascript.pids, flush=True)
                await javascript.evaluate("while (true);", {}, None)
        asyncio.run(main())
    """
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(program), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 60))
    assert psutil.pid_exists(pid)
    parent.kill()
    await parent.wait()

    async def gone() -> bool:
        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

    await eventually(gone)


def test_a_process_is_confined_by_every_layer(javascript: JavaScript) -> None:
    pid = next(iter(javascript.pids))
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines())
    assert (status["NoNewPrivs"], status["Seccomp"], status["Threads"]) == ("1", "2", "1")
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert os.getsid(pid) == pid
    if os.geteuid() == 0:
        assert status["Uid"].split() == status["Gid"].split() == ["65534"] * 4
        assert status["Groups"].split() == []
        assert Path(f"/proc/{pid}/environ").read_bytes() == b"TZ=UTC0\0"
        assert {each.name for each in Path(f"/proc/{pid}/fd").iterdir()} == {"0", "1", "2"}
        assert str(Path(f"/proc/{pid}/fd/1").readlink()) == "/dev/null"


ATTEMPTS = """
    "read a file": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "write a file": lambda: os.open("/tmp/made", os.O_CREAT | os.O_WRONLY),
    "look at a file": lambda: os.stat("/etc/passwd"),
    "list a folder": lambda: os.listdir("/"),
    "remove a file": lambda: os.unlink("/tmp/made"),
    "connect": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "connect locally": lambda: socket.socketpair(),
    "fork": lambda: os.fork() or os._exit(0),
    "execute": lambda: os.execv("/bin/nothing", ["nothing"]),
    "signal its parent": lambda: os.kill(os.getppid(), 0),
    "copy a descriptor": lambda: os.dup(0),
    "become root": lambda: os.setuid(0),
    "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_NPROC, (1, 1)),
    "execute what it wrote": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
"""


def attempts(prepared: str = "") -> tuple[list[str], dict[str, str]]:
    """Run Python in a process that has confined itself; return which layers it lacks and how each attempt ended."""
    program = f"""
import errno, json, mmap, os, resource, socket, sys
sys.path.insert(0, {str(FOLDER)!r})
from inside import confine, seccomp
{prepared}
missing = confine.confine(os.getppid(), 1 << 28)
ended = {{}}
for name, attempt in {{{ATTEMPTS}}}.items():
    try:
        attempt()
        ended[name] = "done"
    except OSError as error:
        ended[name] = errno.errorcode[error.errno]
    except ValueError as error:
        ended[name] = str(error)
os.write(1, json.dumps([missing, ended]).encode())
"""
    command = [sys.executable, "-I", "-S", "-c", program]
    ended = subprocess.run(command, capture_output=True, timeout=60, env={}, check=False)
    assert ended.returncode == 0, ended.stderr
    missing, results = json.loads(ended.stdout)
    return missing, results


def test_the_kernel_refuses_all_that_a_confined_process_does_not_need() -> None:
    missing, ended = attempts()
    assert missing == []
    assert {
        name: how for name, how in ended.items() if how not in {"EPERM", "not allowed to raise maximum limit"}
    } == {}


def test_without_a_filter_the_other_layers_hold_and_it_says_so() -> None:
    missing, ended = attempts(prepared="seccomp.program = lambda machine: None")
    assert missing == ["filter of system calls"]
    assert ended["read a file"] == ended["connect"] == ended["connect locally"] == "EMFILE"
    assert ended["execute"] == "ENOENT"
    if os.geteuid() == 0:
        assert ended["become root"] == ended["signal its parent"] == "EPERM"
    assert ended["fork"] == "EAGAIN"
