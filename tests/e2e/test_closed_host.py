"""Attack A13 against a whole installation: a job tries every port and socket that its processes listen on."""

import os

import psutil
import pytest

from tests.support.installation import Installation

TRY = """\
# network: {policy}
import json, os, socket, urllib.request

def answers(family, target):
    with socket.socket(family) as sock:
        sock.settimeout(5)
        try:
            sock.connect(tuple(target) if isinstance(target, list) else target)
        except OSError:
            return False
        return True

def main(ports: list, paths: list):
    opened = [each for each in ports if answers(socket.AF_INET, each)]
    opened += [path for path in paths if answers(socket.AF_UNIX, path)]
    request = urllib.request.Request(
        f"{{os.environ['BASE_INTERNAL_URL']}}/api/users/whoami",
        headers={{"Authorization": f"Bearer {{os.environ['WM_TOKEN']}}"}},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return {{"opened": opened, "api": json.load(answer)["email"]}}
"""


def listening() -> tuple[list[list[str | int]], list[str]]:
    """Return where the processes that tests have started listen: ports at every address of this host, and sockets."""
    ports: set[int] = set()
    paths: set[str] = set()
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            for each in process.net_connections("all"):
                if each.status == psutil.CONN_LISTEN:
                    ports.add(getattr(each.laddr, "port", 0))
                elif isinstance(each.laddr, str) and each.laddr:
                    paths.add(each.laddr)
        except psutil.NoSuchProcess:
            continue
    addresses = [
        each.address for card in psutil.net_if_addrs().values() for each in card if each.family.name == "AF_INET"
    ]
    return [[address, port] for port in sorted(ports) for address in addresses], sorted(paths)


@pytest.mark.parametrize("policy", ["none", "all"])
async def test_a13_only_the_api_answers_a_job(tidemill: Installation, policy: str) -> None:
    (worker,) = await tidemill.call("GET", "/workers/list")
    if policy == "all" and "own network" in worker["job_isolation"]:
        pytest.skip("without pasta or slirp4netns jobs whose policy is all share the host's network, and are told so")
    api = int(tidemill.url.rpartition(":")[2])
    ports, paths = listening()
    assert [each for each in ports if each[1] == api]
    others = [each for each in ports if each != ["127.0.0.1", api]]
    preview = {"language": "python3", "content": TRY.format(policy=policy), "args": {"ports": others, "paths": paths}}
    result = await tidemill.call("POST", "/w/:w/jobs/run_wait_result/preview", preview)
    assert result == {"opened": [], "api": "admin@tidemill.local"}
