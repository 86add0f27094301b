"""Scopes: what a token may do when that is less than its person may.

    domain:action[:resource,...]      scripts:read    scripts:write:f/billing/*    users:*
    jobs:action[:kind[:path,...]]     jobs:run    jobs:run:scripts    jobs:run:scripts:f/a/x,u/ann/*
    *                                 everything, as a token without scopes
    if_jobs:filter_tags:tag[,tag...]  of jobs only those of these tags

A resource is a path, all paths below one (`f/a/*`), or `*`. To write implies to read, to run implies to read one's own
job that runs, and nothing else implies anything. A scope with paths covers only what names one of them: no list, no
preview and no version by its hash. A filter of tags grants nothing and narrows what the other scopes grant, or, alone,
what the person may: jobs of other tags can't be run and are not there. Pure: what a request does to what is told by its
route and decided in `http/policy.py`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

EVERYTHING = "*"
# fmt: off
DOMAINS = frozenset(
    {
        "acls", "agent_workers", "ai", "amqp_triggers", "apps", "audit", "azure_triggers", "capture",
        "concurrency_groups", "configs", "data_metrics", "docs", "drafts", "email_triggers", "favorites",
        "flow_conversations", "flows", "folders", "gcp_triggers", "git_sync", "github_app", "groups",
        "http_triggers", "indexer", "inputs", "job_helpers", "jobs", "kafka_triggers", "mqtt_triggers",
        "native_triggers", "nats_triggers", "oauth", "oidc", "openapi", "postgres_triggers", "raw_apps",
        "resources", "schedules", "scripts", "service_logs", "settings", "sqs_triggers", "teams", "users",
        "variables", "websocket_triggers", "workers", "workspaces",
    }
)
# fmt: on
"""What clients know; a domain that we have no routes of lets its token do nothing."""
ACTIONS = frozenset({"read", "write", "run", EVERYTHING})
KINDS = frozenset({"scripts", "flows"})
JOBS = "jobs"

_PATH = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*(/\*)?")
_FILTER = "if_jobs:filter_tags:"
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/+-]{0,99}", re.ASCII)


class NotAScope(ValueError):
    """Half a sentence on what is wrong with a scope."""


@dataclass(frozen=True, kw_only=True)
class Use:
    """What one request does, to what."""

    domain: str
    action: str
    kind: str = ""
    """Of which kind the job is, or is to be."""
    path: str | None = None
    """None when the request is about no single path."""
    follows_job: bool = False
    """True for what reads one job of the viewer's own: whoever may run it may see what became of it."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """One scope, taken apart."""

    domain: str
    action: str
    kind: str = ""
    paths: tuple[str, ...] = ()
    """Empty for all of them."""

    def allows(self, use: Use) -> bool:
        """Return whether this scope covers what a request does."""
        return (
            self.domain in (EVERYTHING, use.domain)
            and (_implies(self.action, use.action) or (self.action == "run" and use.follows_job))
            and self.kind in ("", use.kind)
            and (not self.paths or (use.path is not None and self._reaches(use.path)))
        )

    def contains(self, other: "Scope") -> bool:
        """Return whether the other scope allows nothing that this one does not."""
        return (
            self.domain in (EVERYTHING, other.domain)
            and _implies(self.action, other.action)
            and self.kind in ("", other.kind)
            and (not self.paths or (bool(other.paths) and all(self._reaches(each) for each in other.paths)))
        )

    def _reaches(self, path: str) -> bool:
        return any(
            path.startswith(each.removesuffix("*")) if each.endswith("/*") else path == each for each in self.paths
        )


@dataclass(frozen=True)
class Scopes:
    """All scopes of a token."""

    texts: tuple[str, ...]
    each: tuple[Scope, ...]
    """Empty when only a filter limits the token."""
    tags: tuple[str, ...] | None = None
    """The tags of the only jobs that there are for the token, None for all of them."""

    def allow(self, use: Use) -> bool:
        """Return whether one of them covers what a request does."""
        return not self.each or any(scope.allows(use) for scope in self.each)

    def contain(self, others: "Scopes") -> bool:
        """Return whether the others allow nothing that these do not."""
        if self.tags is not None and (others.tags is None or not set(others.tags) <= set(self.tags)):
            return False
        if not self.each:
            return True
        return bool(others.each) and all(any(scope.contains(other) for scope in self.each) for other in others.each)


def scopes_of(texts: Sequence[str] | None) -> Scopes | None:
    """Return what limits a token, or None when nothing does; raises NotAScope."""
    if not texts or (EVERYTHING in texts and not any(each.startswith(_FILTER) for each in texts)):
        return None
    return _parsed(tuple(texts))


def parse(text: str) -> Scope:
    """Return a scope taken apart; raises NotAScope."""
    if text == EVERYTHING:
        return Scope(domain=EVERYTHING, action=EVERYTHING)
    domain, _, rest = text.partition(":")
    action, has_resource, resource = rest.partition(":")
    if domain not in DOMAINS:
        raise NotAScope(f"{text!r} begins with no domain that is known")
    if action not in ACTIONS:
        raise NotAScope(f"{text!r} names no action: read, write, run or *")
    if action == "run" and domain != JOBS:
        raise NotAScope(f"{text!r} runs what can't be run: only jobs can")
    kind = ""
    if domain == JOBS and resource.partition(":")[0] in KINDS:
        kind, has_resource, resource = resource.partition(":")
    return Scope(domain=domain, action=action, kind=kind, paths=_paths(text, resource) if has_resource else ())


def _paths(text: str, resource: str) -> tuple[str, ...]:
    paths = tuple(resource.split(","))
    if EVERYTHING in paths:
        return ()
    for each in paths:
        if _PATH.fullmatch(each) is None or {".", ".."} & set(each.split("/")):
            raise NotAScope(f"{text!r} names no path in {each!r}")
    return paths


def _implies(own: str, wanted: str) -> bool:
    return own in (EVERYTHING, wanted) or (own == "write" and wanted == "read")


@lru_cache(maxsize=256)
def _parsed(texts: tuple[str, ...]) -> Scopes:
    filters = [each for each in texts if each.startswith(_FILTER)]
    if len(filters) > 1:
        raise NotAScope(f"{filters[1]!r} is a second filter of tags")
    tags = _tags(filters[0]) if filters else None
    return Scopes(texts, tuple(parse(each) for each in texts if each not in filters), tags)


def _tags(text: str) -> tuple[str, ...]:
    tags = tuple(text.removeprefix(_FILTER).split(","))
    for each in tags:
        if _TAG.fullmatch(each) is None:
            raise NotAScope(f"{text!r} names no tag in {each!r}")
    return tags
