"""The sandboxes that these tests share: the default one, and the one of last resort."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.worker_sandbox.harness import Scripts, can_run
from tidemill.worker.sandbox.pool import Sandbox, SandboxSettings, ZygoteKey
from tidemill.worker.sandbox.settings import JOB_UID, own_interpreter


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(SandboxSettings()) as sandbox:
        yield sandbox


@pytest.fixture
def scripts(sandbox: Sandbox) -> Scripts:
    return Scripts(sandbox, ZygoteKey(workspace="test"))


@pytest.fixture(scope="session")
def public_interpreter() -> str:
    """Return an interpreter that every user may run."""
    for interpreter in (own_interpreter(), "/usr/bin/python3", "/usr/local/bin/python3"):
        if Path(interpreter).exists() and can_run(interpreter, JOB_UID):
            return interpreter
    pytest.skip("this machine has no Python of our version that an ordinary user can run")


@pytest.fixture(scope="module")
async def fallback(public_interpreter: str) -> AsyncIterator[Scripts]:
    """Scripts in the sandbox of last resort, for hosts that forbid namespaces."""
    settings = SandboxSettings(isolation="reduced", interpreter=public_interpreter)
    async with Sandbox(settings) as sandbox:
        yield Scripts(sandbox, ZygoteKey(workspace="test", interpreter=public_interpreter))


@pytest.fixture(params=["full", "reduced"])
def either(request: pytest.FixtureRequest, scripts: Scripts, fallback: Scripts) -> Scripts:
    """Scripts in the one sandbox and in the other."""
    return scripts if request.param == "full" else fallback
