"""The catalog as an AsyncAPI 3.1 document, for people and tools that want to listen.

python -m tidemill.shared.asyncapi > shared/asyncapi.yaml
"""

import re
import sys
from collections.abc import Mapping
from inspect import getdoc
from typing import Any

import msgspec

from tidemill.shared.catalog import (
    CATALOG,
    EXCHANGES,
    QUEUES_OF,
    Entry,
    Service,
)
from tidemill.shared.message import CONTENT_TYPE

Document = dict[str, Any]

BOUND_ON_DEMAND: Mapping[str, str] = {"follow.{job_id}": "api.{replica}"}
"""Keys that a queue is bound to only while somebody wants to know."""

PARAMETERS: Mapping[str, str] = {
    "tag": "what a worker must offer to run the job",
    "replica": "one start of one api process",
    "worker_run": "one start of one worker process",
    "job_id": "the job that is followed",
    "operation": "what was done, such as `scripts.create`",
}


def document() -> Document:
    """Return the AsyncAPI document of all messages, who sends them and who receives them by which queue."""
    kinds = [entry.message for entry in CATALOG]
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "Tidemill",
            "version": "1",
            "license": {"name": "Apache-2.0"},
            "description": "What the services of Tidemill say to each other over RabbitMQ: JSON in CloudEvents 1.0 "
            "structured form, `id` is the deduplication key. A new optional field keeps a message's version.",
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {entry.message.TYPE: _channel(entry) for entry in CATALOG},
        "operations": {
            name: operation for entry in CATALOG for name, operation in [*_sending(entry), *_receiving(entry)]
        },
        "components": {
            "messages": {entry.message.TYPE: _message(entry) for entry in CATALOG},
            "schemas": {"CloudEvent": _CLOUD_EVENT, **schemas},
        },
    }


def queues_of(entry: Entry, service: Service) -> list[str]:
    """Return the names of the queues by which a service hears a message."""
    own = (queue for queue in QUEUES_OF[service] if queue.exchange is entry.exchange)
    bound = [queue.name for queue in own if any(_fits(entry.key, pattern) for pattern in queue.keys)]
    on_demand = BOUND_ON_DEMAND.get(entry.key)
    return [*bound, on_demand] if on_demand else bound


def _fits(key: str, pattern: str) -> bool:
    """Tell whether a topic exchange passes the key on to a queue bound with the pattern."""
    words = [{"#": ".*", "*": "[^.]+"}.get(word, re.escape(word)) for word in pattern.split(".")]
    return re.fullmatch(r"\.".join(words), key) is not None


def _channel(entry: Entry) -> Document:
    channel: Document = {
        "address": entry.key,
        "messages": {entry.message.TYPE: {"$ref": f"#/components/messages/{entry.message.TYPE}"}},
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {
                    "name": entry.exchange.value,
                    "type": EXCHANGES[entry.exchange],
                    "durable": True,
                    "autoDelete": False,
                },
                "bindingVersion": "0.3.0",
            }
        },
    }
    if names := re.findall(r"\{(\w+)\}", entry.key):
        channel["parameters"] = {name: {"description": PARAMETERS[name]} for name in names}
    return channel


def _sending(entry: Entry) -> list[tuple[str, Document]]:
    how = (
        "Written in the sender's transaction and published after its commit until the broker confirms."
        if entry.outbox
        else "Said once, and lost when nobody listens."
    )
    return [
        (f"{service}.says.{entry.message.TYPE}", {"action": "send", **_place(entry), "description": how})
        for service in sorted(entry.says)
    ]


def _receiving(entry: Entry) -> list[tuple[str, Document]]:
    return [
        (
            f"{service}.hears.{entry.message.TYPE}",
            {"action": "receive", **_place(entry), "x-queues": queues_of(entry, service)},
        )
        for service in sorted(entry.hears)
    ]


def _place(entry: Entry) -> Document:
    channel = f"#/channels/{entry.message.TYPE}"
    return {"channel": {"$ref": channel}, "messages": [{"$ref": f"{channel}/messages/{entry.message.TYPE}"}]}


def _message(entry: Entry) -> Document:
    return {
        "name": entry.message.TYPE,
        "title": entry.message.__name__,
        "summary": getdoc(entry.message),
        "contentType": CONTENT_TYPE,
        "headers": {
            "type": "object",
            "properties": {"traceparent": {"type": "string", "description": "W3C Trace Context"}},
        },
        "payload": {
            "allOf": [
                {"$ref": "#/components/schemas/CloudEvent"},
                {
                    "type": "object",
                    "properties": {
                        "type": {"const": entry.message.TYPE},
                        "data": {"$ref": f"#/components/schemas/{entry.message.__name__}"},
                    },
                },
            ]
        },
    }


_CLOUD_EVENT: Document = {
    "type": "object",
    "description": "The attributes of CloudEvents 1.0.2 that every message has.",
    "required": ["specversion", "id", "source", "type", "time", "datacontenttype", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "format": "uuid"},
        "source": {"type": "string", "examples": ["/tidemill/api"]},
        "type": {"type": "string"},
        "time": {"type": "string", "format": "date-time"},
        "datacontenttype": {"const": "application/json"},
        "data": {"type": "object"},
    },
}


def as_yaml() -> str:
    """Return shared/asyncapi.yaml; needs PyYAML, which no service needs."""
    return "# Generated from tidemill/shared/catalog.py; do not edit.\n" + msgspec.yaml.encode(document()).decode()


if __name__ == "__main__":
    sys.stdout.write(as_yaml())
