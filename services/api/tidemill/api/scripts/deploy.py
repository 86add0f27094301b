"""Deploying versions and taking them away."""

from aiohttp import web
from asyncpg import UniqueViolationError

from tidemill.api.http.answer import json, text
from tidemill.api.http.errors import BadRequest, Forbidden, NotFound
from tidemill.api.http.route import Call
from tidemill.api.jobs import dependencies
from tidemill.api.scripts import rules, signatures, store
from tidemill.api.scripts.rules import NothingNew, Place
from tidemill.api.scripts.schemas import CreateQuery, NewScript
from tidemill.api.scripts.signatures.signature import Signature
from tidemill.shared.ids import new_job_id
from tidemill.shared.requirements import Requirements

NOTE_HEADER = "Tidemill-Note"


async def create(call: Call) -> web.StreamResponse:
    """Deploy a version and answer its hash."""
    new: NewScript = call.body
    query: CreateQuery = call.query
    rules.check(new)
    signature = signatures.infer(new.language, new.content)
    wanted = rules.requirements_of(new)
    try:
        new_hash = await _deploy(call, new, signature, wanted, skip_if_noop=query.skip_if_noop)
    except UniqueViolationError as taken:
        raise BadRequest(
            f"The path {new.path} was deployed to at the same moment: look at it and try again."
        ) from taken
    answer = text(new_hash, status=201)
    if signature.why is not None and rules.lacks_schema(new):
        answer.headers[NOTE_HEADER] = f"There is no schema: {signature.why}."
    return answer


async def archive_path(call: Call) -> web.StreamResponse:
    """Archive the head of a path; archiving it once more changes nothing."""
    path = call.params["path"]
    async with call.ctx.outbox.transaction() as tx:
        archived = await store.archive_head(tx, call.workspace, path, call.viewer)
        if archived is not None:
            await tx.say(call.audit("Delete", path, {"hash": archived}))
    if archived is None:
        await _refuse_archiving(call, path)
    return text(f"script {path} archived")


async def archive_version(call: Call) -> web.StreamResponse:
    """Archive one version and answer it; archiving it once more changes nothing."""
    wanted = call.params["hash"]
    async with call.ctx.outbox.transaction() as tx:
        path = await store.archive_version(tx, call.workspace, wanted, call.viewer)
        if path is not None:
            await tx.say(call.audit("Delete", path, {"hash": wanted}))
    version = await store.version(call.ctx.database, call.workspace, wanted, call.viewer)
    if version is None:
        raise NotFound(f"There is no version {wanted}.")
    if not version.archived:
        raise Forbidden(f"You may not change {version.path}.")
    return json(version)


async def _deploy(
    call: Call, new: NewScript, signature: Signature, wanted: Requirements | None, *, skip_if_noop: bool
) -> str:
    sent = store.values_of(new)
    values = rules.completed(sent, signature, wanted)
    # The head may be from a time when less could be read off a content than now.
    read_before = {**sent, "lock": values["lock"]}
    prints = (rules.fingerprint(sent), rules.fingerprint(values), rules.fingerprint(read_before))
    async with call.ctx.outbox.transaction() as tx:
        if not await store.may_write(tx, new.path, call.viewer):
            raise Forbidden(f"You may not deploy to the path {new.path}.")
        head, named = await store.lock_standing(tx, call.workspace, new.path, new.parent_hash, call.viewer)
        match rules.place(new, prints, head, named):
            case NothingNew(head=same):
                if skip_if_noop:
                    return same.hash
                raise BadRequest(f"Nothing differs from version {same.hash}, the head of the path {new.path}.")
            case Place(parent=parent):
                lock_job = new_job_id() if values["lock"] is None else None
                new_hash = await store.insert(
                    tx, call.workspace, values, prints[0], parent, new.deployment_message, call.viewer, lock_job
                )
                if lock_job is not None:
                    tx.said.append(await dependencies.request_for_version(tx, call, new, new_hash, lock_job))
        await tx.say(call.audit("Created", new.path, {"hash": new_hash}))
    return new_hash


async def _refuse_archiving(call: Call, path: str) -> None:
    if await store.exists(call.ctx.database, call.workspace, path, call.viewer):
        raise Forbidden(f"You may not change {path}.")
    if not await store.has_history(call.ctx.database, call.workspace, path, call.viewer):
        raise NotFound(f"There is no script at {path}.")
