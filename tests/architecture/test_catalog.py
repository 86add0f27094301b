"""The catalog is whole: each message is in it, each listener has a queue, each speaker the right to speak."""

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from tests.architecture.repository import ASYNCAPI, REGENERATE
from tests.support.database import DatabaseUrls, connected
from tidemill.shared import messages
from tidemill.shared.asyncapi import BOUND_ON_DEMAND, as_yaml, document, queues_of
from tidemill.shared.catalog import CATALOG, DURABLE_QUEUES, EXCHANGES, QUEUES_OF, Entry, Service
from tidemill.shared.message import Message

QUEUES = [queue for queues in QUEUES_OF.values() for queue in queues]
ENTRIES = {entry.message.TYPE: entry for entry in CATALOG}


def every_message() -> Iterator[type[Message]]:
    for module in pkgutil.walk_packages(messages.__path__, f"{messages.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, Message) and value.__module__ == module.name:
                yield value


def test_every_message_is_in_the_catalog_and_nothing_else() -> None:
    assert {entry.message for entry in CATALOG} == set(every_message())


def test_a_type_stands_for_one_message_and_says_its_version() -> None:
    assert len(ENTRIES) == len(CATALOG)
    assert [kind for kind in ENTRIES if not re.fullmatch(r"[a-z]+(\.[a-z]+)+\.v[1-9]\d*", kind)] == []


@pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry.message.TYPE)
def test_every_message_is_said_by_somebody_and_heard_by_everybody_who_is_named(entry: Entry) -> None:
    assert entry.says
    assert entry.hears
    assert entry.exchange in EXCHANGES
    for service in entry.hears:
        assert queues_of(entry, service), f"{service} has no queue for {entry.message.TYPE}"


@pytest.mark.parametrize("entry", [entry for entry in CATALOG if entry.outbox], ids=lambda entry: entry.message.TYPE)
def test_what_must_not_be_lost_waits_in_a_queue_that_outlives_its_listener(entry: Entry) -> None:
    durable = {queue.name for queue in QUEUES if queue.durable}
    for service in entry.hears:
        assert durable & set(queues_of(entry, service))


def test_every_queue_has_something_to_carry() -> None:
    carried = {name for entry in CATALOG for service in entry.hears for name in queues_of(entry, service)}
    assert carried == {queue.name for queue in QUEUES}
    assert {queue.name for queue in DURABLE_QUEUES} <= carried
    assert set(BOUND_ON_DEMAND) <= {entry.key for entry in CATALOG}


async def test_the_database_lets_each_service_say_exactly_what_the_catalog_does(database_urls: DatabaseUrls) -> None:
    for service in Service:
        async with connected(database_urls[service]) as connection:
            for entry in CATALOG:
                said = json.dumps([{"type": entry.message.TYPE, "key": "k", "data": {}}])
                transaction = connection.transaction()
                await transaction.start()
                try:
                    await connection.fetchval("SELECT bus.say_all($1, NULL)", said)
                    may = True
                except asyncpg.InsufficientPrivilegeError:
                    may = False
                await transaction.rollback()
                assert may is (entry.outbox and service in entry.says), f"{service} and {entry.message.TYPE}"


async def test_the_database_knows_the_exchange_of_each_message_that_goes_through_the_outbox(
    database_urls: DatabaseUrls,
) -> None:
    async with connected(database_urls.admin) as admin:
        known = {
            row["type"]: (row["exchange"], set(row["says"])) for row in await admin.fetch("SELECT * FROM bus.kind")
        }
    assert known == {
        entry.message.TYPE: (entry.exchange.value, {each.value for each in entry.says})
        for entry in CATALOG
        if entry.outbox
    }


def test_asyncapi_yaml_is_fresh() -> None:
    assert ASYNCAPI.read_text(encoding="utf-8") == as_yaml(), REGENERATE


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    whole = document()
    for reference in references(whole):
        place: Any = whole
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert place


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    if isinstance(node, list):
        for value in node:
            yield from references(value)
