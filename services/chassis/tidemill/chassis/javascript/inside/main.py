"""The process: confine itself, then evaluate one expression after the other, each in a context of its own.

    parent ──▶ {do: evaluate | test | check, known: [[name, length]], large: [name]}  and source and values as text
           ◀── {ask: [kind, key]}            as often as the expression touches what only the host has
           ──▶ {answer: value | nothing | refused}  and the value or the reason
           ◀── {end: value | error | memory | output}  and the value or the reason

Time is bounded by a timer of the kernel that ends the process: the engine's own limit forbids asking the host, and is
not looked at in sorts. The parent has a clock as well.
"""

from __future__ import annotations

import json
import os
import re
import signal
from functools import lru_cache, partial
from typing import Any

from _quickjs import Context, JSException

from . import frames
from .confine import confine
from .forms import Form, Unreadable, form_of

OUT_OF_MEMORY = 77  # the exit code
_REMEMBERED = 256
_SHORT = 1 << 14  # longer expressions are not remembered
_OVERHEAD = 3  # what the engine may have, its text on the way out, and Python's
_LONE = re.compile(rb"\\(?:(ud[89a-f][0-9a-f]{2})|.)")  # JSON.stringify escapes no whole pair

with open(os.path.join(os.path.dirname(__file__), "prelude.js"), encoding="utf-8") as _file:
    _PRELUDE = _file.read()


def main() -> None:
    """Serve until the parent has gone."""
    try:
        plan, _ = frames.receive()
        evaluator = Evaluator(plan)
        evaluator.evaluate({"do": "evaluate", "known": [], "large": []}, "1")  # what is loaded late is loaded now
        evaluator.prepare()
        frames.send({"missing": confine(plan["parent"], plan["memory"] * _OVERHEAD)})
        while True:
            head, text = frames.receive()
            signal.setitimer(signal.ITIMER_PROF, plan["seconds"])
            end, answer = evaluator.answer(head, text)
            frames.send({"end": end}, answer)
            evaluator.prepare()
            signal.setitimer(signal.ITIMER_PROF, 0)
    except (EOFError, OSError):
        os._exit(0)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)


class Evaluator:
    """Evaluates expressions as its plan says."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._form = partial(form_of, fresh=self._fresh)
        self._remembered = lru_cache(_REMEMBERED)(self._form)
        self._prepared: tuple[Any, Any] | None = None

    def prepare(self) -> None:
        """Make the context of the next expression before that comes: it takes longer than most expressions."""
        if self._prepared is None:
            context = self._fresh()
            context.add_callable("ask", _ask)
            part = context.eval(_PRELUDE)
            for name in self._plan["objects"]:
                part("object", name)
            for name in self._plan["functions"]:
                part("callable", name)
            self._prepared = context, part

    def answer(self, head: dict[str, Any], text: bytes) -> tuple[str, bytes]:
        """Return how it ended, and with what."""
        decoded = text[: head["source"]].decode()
        try:
            if head["do"] == "check":
                self._form(decoded)
                return "value", b"null"
            return self.evaluate(head, decoded, text[head["source"] :])
        except Unreadable as error:
            return "error", str(error).encode()

    def evaluate(self, head: dict[str, Any], source: str, values: bytes = b"") -> tuple[str, bytes]:
        """Run it in a new context and return how it ended, and with what."""
        form: Form = (self._remembered if len(source) < _SHORT else self._form)(source)
        self.prepare()
        assert self._prepared is not None
        (context, part), self._prepared = self._prepared, None
        try:
            start = 0
            for name, length in head["known"]:
                part("know", name, values[start : start + length].decode())
                start += length
            for name in head["large"]:
                part("know_large", name)
            part("run", form.code, form.called, head["do"] == "test")
            while part("state") == "pending" and context.execute_pending_job():
                pass
            end, answer = part("state"), part("text").encode()
        except JSException as error:
            # What an expression throws is caught in the frame; this is the engine's, null when memory has ended.
            reason = str(error).partition("\n")[0]
            out_of_memory = reason == "null" or "out of memory" in reason
            end, answer = ("memory", b"") if out_of_memory else ("error", json.dumps(reason).encode())
        if end == "value" and len(answer) > self._plan["longest"]:
            return "output", b""
        if end == "pending":
            return "error", b"the expression waits for something that never comes"
        if end == "error":
            return end, json.loads(answer).encode(errors="replace")
        return end, _LONE.sub(_whole, answer) if b"\\ud" in answer else answer

    def _fresh(self) -> Any:
        context = Context()
        context.set_memory_limit(self._plan["memory"])
        return context


def _ask(kind: str, key: str) -> str:
    """Return what the host has under this name, marked as a value or a reason, or nothing."""
    frames.send({"ask": [kind, json.loads(key).encode(errors="replace").decode()]})
    head, text = frames.receive()
    match head["answer"]:
        case "value":
            return "=" + text.decode()
        case "refused":
            return "!" + json.dumps(text.decode())
        case _:
            return ""


def _whole(escape: re.Match[bytes]) -> bytes:
    """Replace half of a surrogate pair, which is no text outside of JavaScript, as every encoder of UTF-8 does."""
    return "\ufffd".encode() if escape[1] else escape[0]
