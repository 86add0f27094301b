"""Run both servers in a process of its own, which tests may kill: `launcher.py postgres|rabbitmq HOME`."""

import asyncio
import sys
from pathlib import Path

from tidemill.allinone.postgres import PostgresNode
from tidemill.allinone.rabbitmq import RabbitMqNode


async def main(kind: str, home: Path) -> None:
    node = PostgresNode(home) if kind == "postgres" else RabbitMqNode(home)
    await node.start()
    print("ready", node.pid, flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until our parent closes it
    await node.stop()


asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
