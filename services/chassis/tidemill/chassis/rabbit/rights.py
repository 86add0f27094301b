"""What each service's own RabbitMQ user may do, and the definitions that a node loads. Pure, made from the catalog.

| right     | on                                                                                        |
|-----------|-------------------------------------------------------------------------------------------|
| configure | the service's own queues                                                                  |
| write     | its queues, the exchanges of what it publishes, those of dead letters and of `again`      |
| read      | its queues, the exchanges of what it hears, `again`                                       |
| by key    | on topic exchanges it publishes and binds only the keys that the catalog says             |

Nobody may use the default exchange, by which any message could be put into any queue.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from tidemill.chassis.rabbit.topology import (
    ALL_EXCHANGES,
    QueueType,
    arguments,
    bindings,
    dead_letter_arguments,
)
from tidemill.shared.catalog import (
    AGAIN,
    CATALOG,
    DEAD_LETTERS,
    DURABLE_QUEUES,
    EXCHANGES,
    QUEUES_OF,
    Exchange,
    Service,
    publishes,
)

EVERYTHING: Final = ".*"
NOTHING: Final = "^$"
_PLACEHOLDER = re.compile(r"\{\w+\}")
_FILLED = "[^*#]+"
"""What a placeholder stands for: nobody may bind to a pattern in its place."""


class KeyRights(msgspec.Struct, frozen=True, kw_only=True):
    """The routing keys of one topic exchange, as regular expressions."""

    exchange: str
    write: str
    read: str


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """What a user may do, as the regular expressions that RabbitMQ knows."""

    configure: str
    write: str
    read: str
    keys: tuple[KeyRights, ...] = ()
    """One for each topic exchange: RabbitMQ allows all keys of one that is not named."""


OPERATOR: Final = Rights(configure=EVERYTHING, write=EVERYTHING, read=EVERYTHING)


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """A user that RabbitMQ shall know."""

    name: str
    password: str
    rights: Rights


def rights_of(service: Service) -> Rights:
    """Return the least rights with which a service can do its work."""
    queues = [queue.name for queue in QUEUES_OF[service]]
    said = [entry for entry in CATALOG if publishes(service, entry)]
    heard = [entry for entry in CATALOG if service in entry.hears]

    def keys_of(exchange: Exchange) -> KeyRights:
        bound = [key for queue in QUEUES_OF[service] if queue.exchange is exchange for key in queue.keys]
        return KeyRights(
            exchange=exchange.value,
            write=any_of(entry.key for entry in said if entry.exchange is exchange),
            read=any_of([*bound, *(entry.key for entry in heard if entry.exchange is exchange)]),
        )

    return Rights(
        configure=any_of(queues),
        write=any_of([*queues, *(entry.exchange for entry in said), DEAD_LETTERS, AGAIN]),
        read=any_of([*queues, *(entry.exchange for entry in heard), AGAIN]),
        keys=(
            *(keys_of(exchange) for exchange, kind in EXCHANGES.items() if kind == "topic"),
            KeyRights(exchange=AGAIN, write=any_of(queues), read=any_of(queues)),
        ),
    )


def any_of(names: Iterable[str]) -> str:
    """Return the regular expression of these names, which may have placeholders, and of nothing else."""
    escaped = sorted({_FILLED.join(map(re.escape, _PLACEHOLDER.split(name))) for name in names})
    return f"^({'|'.join(escaped)})$" if escaped else NOTHING


def definitions(logins: Iterable[Login], vhost: str, queue_type: QueueType) -> bytes:
    """Return the JSON that RabbitMQ loads at its boot or by `rabbitmqctl import_definitions`."""
    each_login = list(logins)
    document: Mapping[str, Any] = {
        "vhosts": [{"name": vhost}],
        "users": [_user(login) for login in each_login],
        "permissions": [
            {
                "user": login.name,
                "vhost": vhost,
                "configure": login.rights.configure,
                "write": login.rights.write,
                "read": login.rights.read,
            }
            for login in each_login
        ],
        "topic_permissions": [
            {"user": login.name, "vhost": vhost, "exchange": keys.exchange, "write": keys.write, "read": keys.read}
            for login in each_login
            for keys in login.rights.keys
        ],
        "exchanges": [
            {
                "name": name,
                "vhost": vhost,
                "type": kind,
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": {},
            }
            for name, kind in ALL_EXCHANGES.items()
        ],
        "queues": [
            _queue(DEAD_LETTERS, vhost, dead_letter_arguments(queue_type)),
            *(_queue(queue.name, vhost, arguments(queue, queue_type)) for queue in DURABLE_QUEUES),
        ],
        "bindings": [
            _binding(DEAD_LETTERS, vhost, DEAD_LETTERS, ""),
            *(
                _binding(queue.name, vhost, exchange, key)
                for queue in DURABLE_QUEUES
                for exchange, key in bindings(queue)
            ),
        ],
    }
    return msgspec.json.format(msgspec.json.encode(document))


def password_hash(password: str, salt: bytes) -> str:
    """Return a password as RabbitMQ keeps it: four bytes of salt and the SHA-256 of both."""
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _user(login: Login) -> Mapping[str, Any]:
    return {
        "name": login.name,
        "password_hash": password_hash(login.password, secrets.token_bytes(4)),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": [],
        "limits": {},
    }


def _queue(name: str, vhost: str, with_arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"name": name, "vhost": vhost, "durable": True, "auto_delete": False, "arguments": with_arguments}


def _binding(queue: str, vhost: str, exchange: str, key: str) -> Mapping[str, Any]:
    return {
        "source": exchange,
        "vhost": vhost,
        "destination": queue,
        "destination_type": "queue",
        "routing_key": key,
        "arguments": {},
    }
