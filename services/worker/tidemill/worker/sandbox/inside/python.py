"""Runs one Python script: loads it as the module `main`, calls its function, and says what came of it."""

from __future__ import annotations

import atexit
import contextvars
import errno
import json
import os
import random
import sys
import threading
import traceback
import types
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from . import arguments, encode, room, workflow
from .answer import Answer, failure
from .link import Link
from .place import Place
from .warm import Warmth

MODULE = "main"
SDK = "wmill"
FULL = (errno.ENOSPC, errno.EDQUOT)
REHEARSAL = "import json\n\ndef main(x: int = 1, **rest):\n    print(end='')\n    return {'x': x, 'rest': rest}\n"


def run(order: dict[str, Any], place: Place, link: Link, warmth: Warmth | None) -> Answer:
    """Run the script to its end, threads and exit handlers included, and return its answer."""
    own_pid = os.getpid()
    reseed()
    code, path = order["code"], f"{place.job}/{MODULE}.py"
    module = partial(load, code, path)
    if warmth is not None:
        module = partial(warmth.module, path, code, module)
    answer = evaluate(module, order["entrypoint"], order["args"], path, link, order["checkpoint"])
    if os.getpid() == own_pid:
        if warmth is None or warmth.needs_an_end():
            finish()
        else:
            warmth.flush()
        flush()
    return answer


def is_own(function: Callable[..., Any], name: str) -> bool:
    """Tell whether a script means this to be called: who may choose the name must not choose among its imports."""
    return name == "main" or (not name.startswith("__") and getattr(function, "__module__", None) == MODULE)


def rehearse(folder: str, link: Link) -> None:
    """Run a trivial script once and leave no trace of it."""
    order = json.loads(json.dumps({"entrypoint": "main", "args": {"x": 1, "y": "z"}}))
    path = f"{folder}/{MODULE}.py"
    evaluate(partial(load, REHEARSAL, path), order["entrypoint"], order["args"], path, link)
    del sys.modules[MODULE]
    Path(path).unlink()


def import_ahead(environment: list[str]) -> None:
    """Import the SDK where it is among the packages of the job to come: that takes longer than most jobs run."""
    if not any(Path(folder, SDK).is_dir() for folder in environment):
        return
    with suppress(BaseException):  # the script that imports it is told
        __import__(SDK)


def evaluate(
    module: Callable[[], types.ModuleType],
    entrypoint: str,
    args: dict[str, Any],
    path: str,
    link: Link,
    checkpoint: dict[str, Any] | None = None,
) -> Answer:
    """Return the answer of one call; every exception becomes one."""
    try:
        function = getattr(module(), entrypoint, None)
        if not callable(function) or not is_own(function, entrypoint):
            return failure("raised", "EntrypointNotFound", f"the script defines no function named {entrypoint!r}")
        positional, keywords = arguments.bind(function, args)
        # In a context of its own, so that what it sets there is gone afterwards.
        context = contextvars.copy_context()
        if workflow.is_one(function):
            return context.run(workflow.run_round, partial(function, *positional), keywords, checkpoint, link.keep)
        value = context.run(_call, function, positional, keywords, link)
        return Answer(True, "returned", encode.to_json(value))
    except SystemExit as stop:
        return stopped(stop)
    except BaseException as error:
        return raised(error, path)


def _call(function: Callable[..., Any], positional: list[Any], keywords: dict[str, Any], link: Link) -> Any:
    return gather(function(*positional, **keywords), link)


def load(code: str, path: str) -> types.ModuleType:
    """Return the script as a module; its source is a real file, so that tracebacks and inspect show its lines."""
    Path(path).write_text(code, encoding="utf-8")
    module = types.ModuleType(MODULE)
    module.__file__ = path
    sys.modules[MODULE] = module
    exec(compile(code, path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 (this is what a worker is for)
    return module


def gather(value: Any, link: Link) -> Any:
    """Return what the call came to: awaited if it must be, streamed item by item and joined if it is a generator."""
    if isinstance(value, types.GeneratorType):
        return "".join([_say(item, link) for item in value])
    if isinstance(value, types.AsyncGeneratorType):
        return _run_async(_join(value, link))
    if hasattr(value, "__await__"):
        return _run_async(_await(value))
    return value


async def _join(items: types.AsyncGeneratorType[Any, None], link: Link) -> str:
    return "".join([_say(item, link) async for item in items])


async def _await(value: Any) -> Any:
    return await value


def _run_async(coroutine: Any) -> Any:
    import asyncio  # the zygote has it; a rehearsal does without

    return asyncio.run(coroutine)


def _say(item: object, link: Link) -> str:
    chunk = item if isinstance(item, str) else encode.to_json(item).decode()
    link.stream(chunk)
    return chunk


def stopped(stop: SystemExit) -> Answer:
    """Return the answer of a script that called exit(): failed unless the code says otherwise."""
    if stop.code is None or stop.code == 0:
        return Answer(True, "returned", b"null")
    code = stop.code if isinstance(stop.code, int) else 1
    text = f": {stop.code}" if isinstance(stop.code, str) else ""
    return failure("exit_code", "ExecutionErr", f"exit code {code}{text}", exit_code=code)


def raised(error: BaseException, path: str) -> Answer:
    """Return the answer of a script that raised, with the part of the traceback that is the script's."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != path:
        frames = frames.tb_next
    name = type(error).__name__
    try:
        message = str(error)
        stack = "".join(traceback.TracebackException(type(error), error, frames).format())
    except BaseException as second:
        return failure(reason_of(error), name, f"the exception cannot be shown: {type(second).__name__}", stack="")
    return failure(reason_of(error), name, message, stack=stack)


def reason_of(error: BaseException) -> str:
    """Return which limit an exception tells of, or that it was merely raised."""
    if isinstance(error, MemoryError):
        return "memory"
    if not isinstance(error, OSError) or error.errno is None:
        return "raised"
    if error.errno in FULL:
        return room.exhausted() or "disk"
    return "disk" if error.errno == errno.EFBIG else "files" if error.errno == errno.EMFILE else "raised"


def finish() -> None:
    """Do what an interpreter does at its end: wait for threads, run exit handlers."""
    threading._shutdown()  # type: ignore[attr-defined]  # what Py_FinalizeEx calls; there is no public name
    atexit._run_exitfuncs()


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # the script may have closed or replaced it
            stream.flush()


def reseed() -> None:
    """Make random numbers differ between children of one zygote."""
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
