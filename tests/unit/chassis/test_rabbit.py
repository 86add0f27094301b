"""The pure parts of the RabbitMQ adapter: arguments, properties, dead letters, and how a lost connection looks."""

import asyncio

import aiormq
import pytest
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.common import FieldTable
from pamqp.header import ContentHeader

from tidemill.chassis.broker import BrokerUnavailable, DeadLetter
from tidemill.chassis.rabbit import envelope
from tidemill.chassis.rabbit.link import lost_as_unavailable
from tidemill.chassis.rabbit.topology import arguments, dead_letter_arguments
from tidemill.shared.catalog import AUDIT_EVENTS, DEAD_LETTERS, replica_inbox


def received(headers: FieldTable | None, key: str = "audit.a") -> DeliveredMessage:
    return DeliveredMessage(
        delivery=Basic.GetOk(delivery_tag=1, exchange="tidemill.events", routing_key=key),
        header=ContentHeader(properties=Basic.Properties(message_id="id", headers=headers)),
        body=b"{}",
        channel=None,  # type: ignore[arg-type]  # nothing is said to it
    )


def test_a_process_bound_queue_has_no_arguments() -> None:
    assert arguments(replica_inbox("r"), "quorum") == {}


def test_durable_queues_bury_into_the_dead_letters() -> None:
    assert arguments(AUDIT_EVENTS, "classic")["x-dead-letter-exchange"] == DEAD_LETTERS
    assert arguments(AUDIT_EVENTS, "quorum")["x-dead-letter-exchange"] == DEAD_LETTERS


def test_dead_letters_are_not_buried_again_by_being_looked_at() -> None:
    limit = dead_letter_arguments("quorum")["x-delivery-limit"]
    assert isinstance(limit, int)
    assert limit >= 1_000_000
    assert "x-dead-letter-exchange" not in dead_letter_arguments("quorum")


def test_properties_carry_no_empty_headers() -> None:
    assert envelope.properties("id", None).headers is None


def test_a_message_buried_by_us_says_where_it_comes_from() -> None:
    letter = envelope.dead_letter(
        received(
            {"tidemill-key": "audit.b", "tidemill-queue": "audit.events", "tidemill-reason": "why", "traceparent": "t"}
        )
    )
    assert letter == DeadLetter(
        queue="audit.events", key="audit.b", body=b"{}", message_id="id", reason="why", traceparent="t"
    )


def test_a_message_buried_by_the_server_says_it_in_its_x_death() -> None:
    letter = envelope.dead_letter(received({"x-death": [{"queue": "jobs.bash", "reason": "delivery_limit"}]}, "bash"))
    assert (letter.queue, letter.key, letter.reason) == ("jobs.bash", "bash", "delivery_limit")


@pytest.mark.parametrize("headers", [None, {}, {"x-death": []}, {"x-death": "nonsense"}, {"traceparent": 5}])
def test_strange_headers_do_no_harm(headers: FieldTable | None) -> None:
    letter = envelope.dead_letter(received(headers))
    assert (letter.queue, letter.reason, letter.traceparent) == ("", "unknown", None)


@pytest.mark.parametrize(
    "error",
    [
        aiormq.ChannelClosed(None, None),
        aiormq.ChannelInvalidStateError("closed"),
        ConnectionResetError("reset"),
        TimeoutError(),
    ],
)
def test_a_lost_connection_is_one_kind_of_error(error: Exception) -> None:
    with pytest.raises(BrokerUnavailable), lost_as_unavailable():
        raise error


async def test_a_cancellation_that_nobody_asked_for_is_a_lost_connection() -> None:
    with pytest.raises(BrokerUnavailable), lost_as_unavailable():
        raise asyncio.CancelledError


async def test_a_cancellation_that_somebody_asked_for_stays_one() -> None:
    waiting = asyncio.Event()

    async def work() -> None:
        with lost_as_unavailable():
            waiting.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_mistake_of_ours_is_not_hidden() -> None:
    with pytest.raises(ValueError, match="mistake"), lost_as_unavailable():
        raise ValueError("mistake")
