"""The approval page as HTML: plain, without scripts, everything escaped. Pure."""

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import Any

import msgspec

from tidemill.api.approvals.form import Field, Kind

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;"
    "background:#fff}h1{font-size:1.4rem}dt{color:#555}dd{margin:0 0 .5rem}pre{white-space:pre-wrap;"
    "overflow-wrap:anywhere;background:#f4f4f4;padding:.75rem}label{display:block;margin:1rem 0 .25rem;font-weight:600}"
    "input,select,textarea{font:inherit;width:100%;box-sizing:border-box;padding:.4rem}input[type=checkbox]{width:auto}"
    "small{color:#555}button{font:inherit;padding:.5rem 1.25rem;margin:1.5rem .5rem 0 0}.wrong{color:#a40000}"
)
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
"""The Content-Security-Policy of these pages."""

_LONGEST_SHOWN = 20_000


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a person is to decide."""

    created_by: str
    path: str | None
    flow: str | None
    step: str | None
    description: Any
    approver: str | None
    until: datetime | None
    needed: int | None
    approvers: Sequence[str]
    fields: Sequence[Field]
    hide_refuse: bool


def question(asked: Asked, wrong: str | None = None) -> str:
    """Return the page on which a person decides; `wrong` says what was filled in wrongly."""
    facts = {
        "Asked by": asked.created_by,
        "Flow": ": ".join(filter(None, (asked.path or "a preview, saved nowhere", asked.flow))),
        "Step": asked.step,
        "Asked of": asked.approver,
        "Until": None if asked.until is None else f"{asked.until:%Y-%m-%d %H:%M} UTC",
        "Approved by": ", ".join(asked.approvers) or None,
        "Approvals needed": None if asked.needed in (None, 1) else str(asked.needed),
    }
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if value)
    described = "" if asked.description is None else f"<pre>{escape(_shown(asked.description))}</pre>"
    refuse = "" if asked.hide_refuse else '<button name="do" value="refuse" formnovalidate>Refuse</button>'
    return _page(
        "A flow waits for your approval",
        f"<dl>{listed}</dl>{described}{_wrong(wrong)}"
        f'<form method="post">{"".join(map(_asked_for, asked.fields))}'
        f'<button name="do" value="approve">Approve</button>{refuse}</form>',
    )


def told(title: str, sentence: str) -> str:
    """Return a page that says one thing."""
    return _page(title, f"<p>{escape(sentence)}</p>")


def login(sentence: str, *, wrong: bool) -> str:
    """Return the page on which a person logs in before they see what waits for them."""
    return _page(
        "Log in to approve",
        f"{_wrong(sentence) if wrong else f'<p>{escape(sentence)}</p>'}"
        '<form method="post"><label for="email">Email</label>'
        '<input id="email" name="email" type="email" autocomplete="username" required>'
        '<label for="password">Password</label>'
        '<input id="password" name="password" type="password" autocomplete="current-password" required>'
        '<button name="do" value="log in">Log in</button></form>',
    )


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="robots" content="noindex">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )


def _wrong(sentence: str | None) -> str:
    return "" if sentence is None else f'<p class="wrong" role="alert">{escape(sentence)}</p>'


def _asked_for(field: Field) -> str:
    name = escape(field.name)
    common = f'id="{name}" name="{name}"'
    needed = " required" if field.required and field.kind is not Kind.TICK else ""
    value = "" if field.value is None else escape(_text(field))
    match field.kind:
        case Kind.TICK:
            control = f'<input {common} type="checkbox" value="yes"{" checked" if field.value is True else ""}>'
        case Kind.CHOICE:
            control = f"<select {common}{needed}>{_choices(field)}</select>"
        case Kind.TEXT | Kind.JSON:
            # A line break right after the tag is not part of the text.
            control = f'<textarea {common} rows="5"{needed}>\n{value}</textarea>'
        case Kind.NUMBER | Kind.WHOLE:
            step = "1" if field.kind is Kind.WHOLE else "any"
            control = f'<input {common} type="number" step="{step}" value="{value}"{needed}>'
        case Kind.HIDDEN:
            control = f'<input {common} type="password" autocomplete="off" value="{value}"{needed}>'
        case Kind.LINE:
            control = f'<input {common} type="text" value="{value}"{needed}>'
    said = f"<br><small>{escape(field.description)}</small>" if field.description else ""
    return f'<label for="{name}">{escape(field.title)}</label>{control}{said}'


def _choices(field: Field) -> str:
    options = "" if field.required else '<option value=""></option>'
    for at, choice in enumerate(field.choices):
        chosen = " selected" if choice == field.value else ""
        options += f'<option value="{at}"{chosen}>{escape(_shown(choice))}</option>'
    return options


def _text(field: Field) -> str:
    if field.kind is Kind.JSON:
        return msgspec.json.encode(field.value).decode()
    return _shown(field.value)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value[:_LONGEST_SHOWN]
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()[:_LONGEST_SHOWN]
