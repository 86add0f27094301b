"""Walk along chains in the database and say what is wrong first."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tidemill.audit.chain import Anchor, Finding, Link, Walk, Wrong, genesis, is_signed, signature, start_of
from tidemill.audit.store import anchors, entries
from tidemill.chassis.database import Database, Executor
from tidemill.chassis.errors import StartRefused

_AT_ONCE = 1000
_PROGRESS = 20_000
_NEVER = datetime.min.replace(tzinfo=UTC)
_LAST_ID = 2**63 - 1


async def verify(
    database: Database, key: bytes, patience: timedelta, say: Callable[[str], None], only: str | None = None
) -> Sequence[Finding]:
    """Verify all chains, or only that of one workspace, and return the first finding of each that is not whole.

    Entries older than `patience` have to be covered by an anchor.
    """
    findings = []
    async with database.transaction() as tx:
        await entries.see_one_moment(tx)
        known = await entries.workspaces(tx)
        if only is not None and only not in known:
            raise StartRefused(f"nothing was ever written down for the workspace {only!r}")
        for workspace in known if only is None else [only]:
            finding = await verify_chain(tx, workspace, key, await entries.now(tx) - patience, say)
            if finding is not None:
                findings.append(finding)
                say(str(finding))
    return findings


async def verify_chain(
    db: Executor, workspace: str, key: bytes, unproven_before: datetime, say: Callable[[str], None]
) -> Finding | None:
    """Return the first thing that is wrong with a chain, from the oldest row on."""
    known = await anchors.of_workspace(db, workspace)
    walk = Walk(workspace, start_of(workspace, known), known)
    finding = refuse_unsigned(known, key) or await follow(db, workspace, walk, entries.BEFORE_ALL, say=say)
    if finding is None:
        finding = walk.end(await entries.head(db, workspace), unproven_before)
    if finding is None:
        say(f"workspace {workspace!r}: whole up to row {walk.last.seq}")
    return finding


async def follow(
    db: Executor,
    workspace: str,
    walk: Walk,
    after: tuple[int, int],
    *,
    until: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Finding | None:
    """Take all steps of a walk, or those up to a row, and return the first finding."""
    taken = 0
    while page := await entries.next_entries(db, workspace, after, _AT_ONCE):
        for entry in page:
            if until is not None and entry.seq > until:
                return None
            finding = walk.step(entry)
            if finding is not None:
                return finding
        after = (page[-1].seq, page[-1].id)
        taken += len(page)
        if taken % _PROGRESS == 0:
            say(f"workspace {workspace!r}: {taken} rows read")
    return None


async def verify_end(db: Executor, workspace: str, key: bytes) -> Link | Finding:
    """Return the end of a chain that is whole since its furthest anchor, or what is wrong with it."""
    anchor = await anchors.newest(db, workspace)
    finding = refuse_unsigned([] if anchor is None else [anchor], key)
    if finding is not None:
        return finding
    start = genesis(workspace) if anchor is None else anchor.link
    walk = Walk(workspace, start, [])
    finding = await follow(db, workspace, walk, entries.BEFORE_ALL if anchor is None else (start.seq, _LAST_ID))
    if finding is None:
        finding = walk.end(await entries.head(db, workspace), unproven_before=_NEVER)
    return finding or walk.last


def signed(key: bytes, workspace: str, link: Link, at: datetime, *, is_floor: bool = False) -> Anchor:
    """Return the anchor of a place."""
    anchor = Anchor(workspace_id=workspace, link=link, at=at, is_floor=is_floor)
    return replace(anchor, signature=signature(key, anchor))


def refuse_unsigned(known: Sequence[Anchor], key: bytes) -> Finding | None:
    """Return the first anchor that was not made with this key as a finding."""
    for anchor in known:
        if not is_signed(key, anchor):
            why = f"the anchor of {anchor.at:%Y-%m-%dT%H:%M:%SZ} at this row was not signed by this key"
            return Finding(workspace_id=anchor.workspace_id, seq=anchor.link.seq, wrong=Wrong.ALTERED, why=why)
    return None
