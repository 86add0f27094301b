"""What an expression is made into before the engine runs it, found by asking the engine what it can parse.

    one expression          `a + 1`, `{a: 1}`, `await f()`      (async () => (…))
    statements, then one    `let a = f(); a + 1`                (async () => {…; return (…)})
    statements              `if (a) { 1 } else { 2 }`           as they are: the last value counts
    statements that return  `if (a) return 1; return 2`         (async () => {…})

The first that parses is taken. Where the last expression begins is guessed by a reader of tokens, that knows strings,
comments, templates and brackets, and is then proved: what comes before must parse as statements, the rest as one
expression, and all of it together. Nothing is executed here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from _quickjs import JSException


class Form(NamedTuple):
    """What the engine is given; `called` when it gives an async function, whose value is wanted."""

    code: str
    called: bool


class Unreadable(Exception):
    """No form of it parses; the message is one line."""


class Complaint(NamedTuple):
    """Where the engine stopped reading, in lines of the expression, and why."""

    line: int
    column: int
    message: str


class Boundary(NamedTuple):
    """A place between two statements, if it is one: after a semicolon for sure, after a line or a block perhaps."""

    position: int
    sure: bool


class Outline(NamedTuple):
    """What the reader of tokens saw."""

    end: int  # of the code, without semicolons and comments
    boundaries: list[Boundary]
    balanced: bool  # all brackets are closed, and by their own kind
    returns: bool


_MOST_TRIED = 50  # places where the last expression may begin; each costs the engine a reading of everything
_NEVER = "throw 0;\n"  # stands in front of all that is only parsed
_OPENED = {"(": ")", "[": "]", "{": "}"}
_CONTINUES = frozenset("([+-*/%`.,?:=<>&|^")  # after a line's end these go on with what was before
_TOKEN = re.compile(
    r"(?P<space>[ \t\f\v\r\u00a0\ufeff]+)"
    r"|(?P<line>[\n\u2028\u2029])"
    r"|(?P<comment>//[^\n\u2028\u2029]*|/\*[\s\S]*?\*/)"
    r"""|(?P<string>"(?:[^"\\\n]|\\[\s\S])*"|'(?:[^'\\\n]|\\[\s\S])*')"""
    r"|(?P<word>[\w$]+)"
    r"|(?P<mark>[\s\S])"
)
_REGEX = re.compile(r"/(?![*/])(?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/\w*")
_TEMPLATE = re.compile(r"(?:[^`\\$]|\\[\s\S]|\$(?!\{))*(?P<end>`|\$\{)")
_BEFORE_REGEX = frozenset({"return", "typeof", "case", "in", "of", "delete", "void", "throw", "new", "await", "else"})
_PLACE = re.compile(r"<input>:(\d+):(\d+)")


def form_of(source: str, fresh: Callable[[], Any]) -> Form:
    """Return how this expression is run, asking contexts that nobody else uses; raises Unreadable."""

    def parses(code: str) -> bool:
        return _complaint(parser, code) is None

    def is_expression(code: str) -> bool:
        # Twice, so that no closing bracket of its own can end ours.
        return parses(_expression(code)) and parses(f"(async () => [\n{code}\n])")

    parser = fresh()
    outline = _read(source)
    if is_expression(code := source[: outline.end]):
        return Form(_expression(code), called=True)
    if outline.balanced and (form := _split(code, outline.boundaries, parses, is_expression)) is not None:
        return form
    as_expression, as_statements = _complaint(parser, _expression(code)), _complaint(parser, _statements(source))
    # What a script declares stays with its context, so this one is the last question.
    if parses(source):
        return Form(source, called=False)
    if as_statements is None:
        if not outline.balanced:
            raise Unreadable("SyntaxError: a bracket closes what it did not open")
        if not outline.returns and len(_tried(outline.boundaries)) == _MOST_TRIED:
            raise Unreadable(
                f"SyntaxError: its value is not in one of its last {_MOST_TRIED} statements:"
                " end statements with semicolons, or return the value"
            )
        if not outline.returns:
            raise Unreadable("SyntaxError: it has no value: let it end with an expression, or return one")
        return Form(_statements(source), called=True)
    # The complaint about the place that was reached last: the other misunderstood what comes before.
    line, column, message = max(as_statements, as_expression or as_statements)
    raise Unreadable(f"{message} (line {line}, column {column})" if line > 0 else message)


def _complaint(parser: Any, code: str) -> Complaint | None:
    """Return what the engine has against this code, which begins in the second line, or None."""
    try:
        parser.eval(_NEVER + code)
    except JSException as error:
        message, _, stack = str(error).partition("\n")
        if message == "0":
            return None
        place = _PLACE.search(stack)
        return Complaint(int(place[1]) - 2, int(place[2]), message) if place else Complaint(0, 0, message)
    raise AssertionError("what stands in front of the code throws")


def _split(
    code: str, boundaries: list[Boundary], parses: Callable[[str], bool], is_expression: Callable[[str], bool]
) -> Form | None:
    """Return the statements with a last expression that is returned, or None when there is no such expression."""
    for position, _ in _tried(boundaries):
        before, last = code[:position], code[position:]
        if not is_expression(last) or not parses(_statements(before)):
            continue
        if last.lstrip().startswith("{") or parses(_statements(code)):
            return Form(f"(async () => {{\n{before}\nreturn (\n{last}\n);\n}})", called=True)
    return None


def _tried(boundaries: list[Boundary]) -> list[Boundary]:
    """Return where the last expression may begin: from the last sure boundary on, the first and the last of many."""
    after_the_last_sure_one = max((n for n, each in enumerate(boundaries) if each.sure), default=0)
    candidates = boundaries[after_the_last_sure_one:]
    return candidates if len(candidates) <= _MOST_TRIED else [candidates[0], *candidates[1 - _MOST_TRIED :]]


def _expression(code: str) -> str:
    return f"(async () => (\n{code}\n))"


def _statements(code: str) -> str:
    return f"(async () => {{\n{code}\n}})"


def _read(source: str) -> Outline:
    """Return the outline of the code, which need not be right."""
    boundaries: list[Boundary] = []
    open_: list[str] = []
    end, balanced, waiting, returns = 0, True, False, False
    for kind, text, start, stop in _tokens(source):
        if kind == "line":
            waiting = True
        if kind in {"line", "space", "comment"}:
            waiting = waiting or "\n" in text
            continue
        if waiting and not open_ and text[0] not in _CONTINUES:
            boundaries.append(Boundary(start, sure=False))
        waiting = False
        if text == ";" and not open_:
            boundaries.append(Boundary(stop, sure=True))
            continue
        end = stop
        returns = returns or text == "return"
        if text in _OPENED:
            open_.append(_OPENED[text])
        elif text in {")", "]", "}"}:
            balanced = balanced and bool(open_) and open_.pop() == text
            waiting = text == "}" and not open_
    boundaries = [each for each in boundaries if each.position < end]
    return Outline(end, boundaries, balanced and not open_, returns)


def _tokens(source: str) -> Iterator[tuple[str, str, int, int]]:
    """Yield kind, text, start and stop of each token; a template is one token for each piece of text in it."""
    position, before = 0, ""
    templates: list[int] = []  # depth of braces at which each open template goes on
    depth = 0
    while position < len(source):
        character = source[position]
        if character == "`" or (character == "}" and templates and templates[-1] == depth):
            if character == "}":
                templates.pop()
            found = _TEMPLATE.match(source, position + 1)
            stop = found.end() if found else len(source)
            if found and found["end"] == "${":
                templates.append(depth)
            yield "template", "`", position, stop
            before = "`" if not (found and found["end"] == "${") else ""
            position = stop
            continue
        regex = _REGEX.match(source, position) if character == "/" and _expects_operand(before) else None
        if regex is not None:
            yield "regex", "r", position, regex.end()
            before, position = "r", regex.end()
            continue
        token = _TOKEN.match(source, position)
        assert token is not None, "the last alternative takes any character"
        kind, text = str(token.lastgroup), token[0]
        depth += (text == "{") - (text == "}")
        yield kind, text, position, token.end()
        if kind not in {"space", "line", "comment"}:
            before = text
        position = token.end()


def _expects_operand(before: str) -> bool:
    """Tell whether a slash after this token begins a regular expression."""
    if before in _BEFORE_REGEX or before == "":
        return True
    return not (before[0] in "\"'`)]}" or before[-1].isalnum() or before[-1] in "_$")
