"""The chain of a workspace's entries, as pure computation: what each hash must be, and what is wrong with a walk.

    genesis ── entry 1 ── entry 2 ── ... ── entry n        hash n = SHA-256(hash n-1, all other columns of entry n)
                  ▲                   ▲
                floor               anchor                 signed by a key that is not in the database

`migrations/audit/functions.sql` computes the same hashes when an entry is written down. A whole chain can be made anew
by whoever owns the database; the anchors can't.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CHAIN = "tidemill audit 1"
_ANCHOR = "tidemill audit anchor 1"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the log."""

    id: int
    workspace_id: str
    seq: int
    event_id: UUID
    recorded_at: datetime
    at: datetime
    username: str
    email: str
    operation: str
    action_kind: str
    resource: str
    parameters: str
    """The JSON text exactly as it is stored."""
    span: str | None
    previous_hash: bytes
    hash: bytes


@dataclass(frozen=True, kw_only=True)
class Link:
    """A place in a chain."""

    seq: int
    hash: bytes


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """What a chain was at some moment."""

    workspace_id: str
    link: Link
    at: datetime
    is_floor: bool
    """Whether retention has dropped the rows up to this one."""
    signature: bytes = b""


class Wrong(StrEnum):
    """What can be wrong with a row."""

    ALTERED = "altered"
    MISSING = "missing"
    INSERTED = "inserted"
    UNPROVEN = "unproven"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The first thing that is wrong with a chain."""

    workspace_id: str
    seq: int
    wrong: Wrong
    why: str

    def __str__(self) -> str:
        return f"workspace {self.workspace_id!r}, row {self.seq}: {self.wrong} ({self.why})"


def canonical(*fields: str | None) -> bytes:
    """Return texts as one text that can't be read in two ways: each with its length in bytes, `-` for None."""
    return b",".join(b"-" if field is None else b"%d:%s" % (len(text := field.encode()), text) for field in fields)


def genesis(workspace_id: str) -> Link:
    """Return the place before a workspace's first entry."""
    return Link(seq=0, hash=hashlib.sha256(canonical(_CHAIN, workspace_id)).digest())


def digest(entry: Entry) -> bytes:
    """Return what the hash of an entry must be."""
    fields = canonical(
        str(entry.id),
        entry.workspace_id,
        str(entry.seq),
        str(entry.event_id),
        _micros(entry.recorded_at),
        _micros(entry.at),
        entry.username,
        entry.email,
        entry.operation,
        entry.action_kind,
        entry.resource,
        entry.parameters,
        entry.span,
    )
    return hashlib.sha256(entry.previous_hash + fields).digest()


def signature(key: bytes, anchor: Anchor) -> bytes:
    """Return what the signature of an anchor must be."""
    kind = "floor" if anchor.is_floor else "head"
    fields = (_ANCHOR, kind, anchor.workspace_id, str(anchor.link.seq), anchor.link.hash.hex(), _micros(anchor.at))
    return hmac.digest(key, canonical(*fields), "sha256")


def is_signed(key: bytes, anchor: Anchor) -> bool:
    """Return whether an anchor was made with this key and is as it was made."""
    return hmac.compare_digest(anchor.signature, signature(key, anchor))


def start_of(workspace_id: str, anchors: Sequence[Anchor]) -> Link:
    """Return the place from which a chain can be verified: what retention has left, or its beginning."""
    floors = [anchor.link for anchor in anchors if anchor.is_floor]
    return max(floors, key=lambda link: link.seq, default=genesis(workspace_id))


class Walk:
    """A walk along one chain; every step returns what is wrong, or None, and after the first finding it is over."""

    def __init__(self, workspace_id: str, start: Link, anchors: Sequence[Anchor]) -> None:
        """`anchors` are those whose signature is right."""
        self.last = start
        self._workspace_id = workspace_id
        self._anchors = {anchor.link.seq: anchor for anchor in anchors if anchor.link.seq > start.seq}
        self._proven = start.seq
        self._unproven_since: datetime | None = None

    def step(self, entry: Entry) -> Finding | None:
        """Look at the next row in the order of `seq`."""
        expected = self.last.seq + 1
        if entry.seq < expected:
            return self._found(entry.seq, Wrong.INSERTED, "there is no place for it in the chain")
        if entry.seq > expected:
            return self._found(expected, Wrong.MISSING, f"the next row is {entry.seq}")
        if digest(entry) != entry.hash:
            return self._found(entry.seq, Wrong.ALTERED, "its hash is not that of its columns")
        if entry.previous_hash != self.last.hash:
            return self._found(self.last.seq, Wrong.ALTERED, f"row {entry.seq} was chained to another hash")
        anchor = self._anchors.get(entry.seq)
        if anchor is not None and anchor.link.hash != entry.hash:
            return self._found(self._proven + 1, Wrong.ALTERED, f"{_of(anchor)} knows rows up to {entry.seq} otherwise")
        if anchor is not None:
            self._proven, self._unproven_since = entry.seq, None
        elif self._unproven_since is None:
            self._unproven_since = entry.recorded_at
        self.last = Link(seq=entry.seq, hash=entry.hash)
        return None

    def end(self, head: Link | None, unproven_before: datetime) -> Finding | None:
        """Look at the end of the chain: `head` is where the next entry would be added.

        Rows recorded before `unproven_before` need an anchor behind them, or somebody has taken the anchors away.
        """
        beyond = [anchor for anchor in self._anchors.values() if anchor.link.seq > self.last.seq]
        if beyond:
            furthest = max(beyond, key=lambda anchor: anchor.link.seq)
            return self._found(self.last.seq + 1, Wrong.MISSING, f"{_of(furthest)} knows row {furthest.link.seq}")
        if head is None:
            return self._found(self.last.seq + 1, Wrong.MISSING, "the chain has no head")
        if head.seq > self.last.seq:
            return self._found(self.last.seq + 1, Wrong.MISSING, f"the head of the chain is row {head.seq}")
        if head != self.last:
            return self._found(self.last.seq, Wrong.ALTERED, "the head of the chain is another row")
        if self._unproven_since is not None and self._unproven_since < unproven_before:
            why = "no signed anchor follows it: either the audit service does not run, or anchors were removed"
            return self._found(self._proven + 1, Wrong.UNPROVEN, why)
        return None

    def _found(self, seq: int, wrong: Wrong, why: str) -> Finding:
        return Finding(workspace_id=self._workspace_id, seq=seq, wrong=wrong, why=why)


def _micros(at: datetime) -> str:
    return str((at - _EPOCH) // _MICROSECOND)


def _of(anchor: Anchor) -> str:
    return f"the anchor of {anchor.at:%Y-%m-%dT%H:%M:%SZ}"
