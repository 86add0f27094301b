"""The broker port over RabbitMQ 3.10 to 4.x, on plain AMQP 0-9-1: nothing deprecated, no plug-in."""

from tidemill.chassis.rabbit.broker import RabbitBroker
from tidemill.chassis.rabbit.topology import QueueType

__all__ = ["QueueType", "RabbitBroker"]
