"""Running jobs of scripts and flows again, many at a time, and what such jobs have in common."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal
from uuid import UUID

import msgspec
from aiohttp import web

from tidemill.api.flows.version import number_of
from tidemill.api.http.answer import json
from tidemill.api.http.errors import HttpError, NotFound, Unprocessable
from tidemill.api.http.route import Call
from tidemill.api.jobs import args as arguments
from tidemill.api.jobs import rules, store, transforms
from tidemill.api.jobs.rules import Runnable
from tidemill.api.jobs.schemas import BatchRerun, JobGroup, RequestQuery, RerunOptions, SchemaGroup
from tidemill.api.jobs.transforms import Changes, Evaluation, JobAsItWas
from tidemill.chassis.errors import DatabaseUnavailable
from tidemill.chassis.outbox import to_say
from tidemill.chassis.telemetry import current_traceparent
from tidemill.shared.ids import new_job_id
from tidemill.shared.script import JobKind

_NO_SCHEMA = msgspec.Raw(b"{}")
_AS_IT_WAS = RerunOptions()

_Of = tuple[str, str]
"""The kind of a job, and the path of its script or flow."""
_Options = Mapping[_Of, RerunOptions]
_Grouped = Mapping[str, Mapping[str, list[UUID]]]
"""Jobs by path and version."""


async def batch(call: Call) -> web.StreamResponse:
    """Run jobs again and answer a line for each: nothing runs unless all can be found and all options understood."""
    body: BatchRerun = call.body
    jobs = await _selected(call, body.job_ids)
    options = _options(body, jobs)
    evaluation = Evaluation(call.ctx.javascript)
    changes = await _changes(options, evaluation)
    runnables = await _runnables(call, jobs, options)
    audit: str | None = to_say([call.audit("Execute", f"{len(jobs)} jobs", {"ids": [str(each.id) for each in jobs]})])
    response = web.StreamResponse(status=201, headers={"Content-Type": "text/plain; charset=utf-8"})
    await response.prepare(call.request)
    for each, runnable in zip(jobs, runnables, strict=True):
        try:
            of = changes.get((each.kind, each.path or ""), {})
            line = str(await _again(call, each, runnable, of, evaluation, audit))
            audit = None
        except HttpError as error:
            line = f"Error: {error.message}"
        except DatabaseUnavailable:
            # Too late for a status: it has been sent.
            await response.write(b"Error: The database can't be reached at this moment; the rest was not run.\n")
            break
        await response.write(f"{line}\n".encode())
    return response


async def groups(call: Call) -> web.StreamResponse:
    """Answer the jobs by script or flow and version."""
    jobs = await store.selected(call.ctx.database, call.workspace, _unique(call.body), call.viewer)
    scripts = _by_version(jobs, JobKind.SCRIPT)
    flows = _by_version(jobs, JobKind.FLOW)
    db, viewer = call.ctx.database, call.viewer
    return json(
        [
            *_groups("script", scripts, await store.schemas(db, call.workspace, *_named(scripts), viewer)),
            *_groups("flow", flows, await store.flow_schemas(db, call.workspace, *_named(flows), viewer)),
        ]
    )


def _by_version(jobs: Sequence[store.Selected], kind: JobKind) -> _Grouped:
    of_paths: dict[str, dict[str, list[UUID]]] = {}
    for each in jobs:
        if each.kind == kind and each.path is not None and each.hash is not None:
            of_paths.setdefault(each.path, {}).setdefault(each.hash, []).append(each.id)
    return of_paths


def _named(of_paths: _Grouped) -> tuple[Sequence[str], Sequence[str]]:
    return [version for of_path in of_paths.values() for version in of_path], list(of_paths)


def _groups(kind: Literal["script", "flow"], of_paths: _Grouped, known: Sequence[store.Schema]) -> Iterator[JobGroup]:
    by_hash = {each.hash: _schema(each) for each in known}
    latest = {each.path: _schema(each) for each in known if each.is_head}
    for path, of_path in sorted(of_paths.items()):
        yield JobGroup(
            kind=kind,
            script_path=path,
            latest_schema=latest.get(path, _NO_SCHEMA),
            schemas=[
                SchemaGroup(schema=by_hash.get(version, _NO_SCHEMA), script_hash=version, job_ids=ids)
                for version, ids in of_path.items()
            ],
        )


async def _selected(call: Call, ids: Sequence[UUID]) -> Sequence[store.Selected]:
    """Return the jobs to run again; raises NotFound or Unprocessable naming one that can't be."""
    wanted = _unique(ids)
    jobs = await store.selected(call.ctx.database, call.workspace, wanted, call.viewer)
    if missing := set(wanted) - {each.id for each in jobs}:
        raise NotFound(f"There is no job {min(missing)}.")
    for each in jobs:
        if each.kind not in (JobKind.SCRIPT, JobKind.FLOW):
            raise Unprocessable(
                f"The field job_ids names {each.id}, a {each.kind}: only jobs of scripts and flows run again."
            )
    return jobs


def _options(body: BatchRerun, jobs: Sequence[store.Selected]) -> _Options:
    """Return how jobs are run again, by what they are of; raises Unprocessable naming a path that none is of."""
    of = {(each.kind, each.path or "") for each in jobs}
    found: dict[_Of, RerunOptions] = {}
    for kind, field, options in (
        (JobKind.SCRIPT, "script_options_by_path", body.script_options_by_path),
        (JobKind.FLOW, "flow_options_by_path", body.flow_options_by_path),
    ):
        for path, each in options.items():
            if (kind, path) not in of:
                raise Unprocessable(f"The field {field}.{path} is not allowed: no job is of this {kind}.")
            found[(kind, path)] = each
    return found


async def _changes(options: _Options, evaluation: Evaluation) -> Mapping[_Of, Changes]:
    """Return which arguments become what, by what the jobs are of; raises Unprocessable naming the field."""
    found: dict[_Of, Changes] = {}
    for (kind, path), of in options.items():
        changes = {}
        for name, transform in of.input_transforms.items():
            where = f"{path}.input_transforms.{name}"
            changes[name] = transforms.read(where, transform)
            await evaluation.check(where, changes[name])
        found[(kind, path)] = changes
    return found


async def _runnables(call: Call, jobs: Sequence[store.Selected], options: _Options) -> Sequence[Runnable]:
    """Return what to run for each job; raises NotFound when a version, or the head that is wanted, is there no more."""
    found = dict[tuple[str, str, str], Runnable]()
    keys = []
    for each in jobs:
        path = each.path or ""
        latest = options.get((each.kind, path), _AS_IT_WAS).use_latest_version
        key = (each.kind, path, "" if latest else each.hash or "")
        if key not in found:
            runnable = await _runnable(call, *key)
            if runnable is None:
                raise NotFound(f"There is no {each.kind if latest else f'version {key[2]}'} at {path}.")
            found[key] = runnable
        keys.append(key)
    return [found[key] for key in keys]


async def _runnable(call: Call, kind: str, path: str, version: str) -> Runnable | None:
    """Return a version, or without one the head of the path; a flow's preprocessor has done its work already."""
    db, workspace, viewer = call.ctx.database, call.workspace, call.viewer
    if kind == JobKind.FLOW:
        return await (
            store.flow_by_version(db, workspace, number_of(version), viewer)
            if version
            else store.flow_by_path(db, workspace, path, viewer)
        )
    return await (
        store.script_by_hash(db, workspace, version, viewer)
        if version
        else store.script_by_path(db, workspace, path, viewer)
    )


async def _again(
    call: Call, of: store.Selected, runnable: Runnable, changes: Changes, evaluation: Evaluation, audit: str | None
) -> UUID:
    args = await store.args_of(call.ctx.database, call.workspace, of.id)
    if args is None:
        raise NotFound(f"There is no job {of.id}.")
    was = JobAsItWas(
        id=of.id,
        kind=of.kind,
        script_path=of.path or "",
        script_hash=of.hash,
        scheduled_for=of.due_at,
        input=msgspec.Raw(args.encode()),
    )
    args, job_id = arguments.with_values(args, await evaluation.values(was, changes)), new_job_id()
    job = rules.request(
        runnable,
        # Another version may have been given another time on purpose.
        RequestQuery(
            timeout=of.timeout_s if runnable.hash == of.hash else None, invisible_to_owner=not of.visible_to_owner
        ),
        args,
        call.viewer,
        call.workspace,
        job_id,
        traceparent=current_traceparent(),
    )
    said = await store.request(call.ctx.database, job, args, audit)
    call.ctx.outbox.publish_soon(said)
    return job_id


def _unique(ids: Sequence[UUID]) -> list[UUID]:
    return list(dict.fromkeys(ids))


def _schema(known: store.Schema) -> msgspec.Raw:
    return _NO_SCHEMA if known.schema is None else msgspec.Raw(known.schema.encode())
