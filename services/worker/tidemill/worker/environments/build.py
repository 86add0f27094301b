"""From a lock to a folder of libraries: wheels only, proved by their hashes, unpacked by uv, compiled once."""

import asyncio
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from tidemill.worker.environments.interpreters import Interpreter
from tidemill.worker.environments.lock import Lock
from tidemill.worker.environments.store import Store, to_its_end
from tidemill.worker.environments.together import Say
from tidemill.worker.environments.uv import Uv, execute, translated

# Nothing is run, but a compiler can be made to eat memory as well. Tests of packages are hardly ever imported.
_COMPILE = """\
import compileall, os, py_compile, re, resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
several = sum(len(files) for _, _, files in os.walk(sys.argv[1])) > 500
compileall.compile_dir(
    sys.argv[1], quiet=2, rx=re.compile("/tests/"), workers=0 if several else 1,
    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
)
"""


async def build(
    store: Store,
    uv: Uv,
    digest: str,
    lock: Lock,
    interpreter: Interpreter,
    timeout: timedelta,
    say: Say,
) -> None:
    """Build an environment, unless somebody else has meanwhile; raises NotInstallable."""
    began = time.monotonic()
    try:
        await asyncio.to_thread(store.prepare)
        async with store.building(digest) as held:
            if store.find(digest) is not None:
                return
            say(f"installing {len(lock.pins)} package{'' if len(lock.pins) == 1 else 's'} ...")
            async with store.draft(digest) as libraries:
                await _install(uv, lock, interpreter, libraries, held)
                await _compile(interpreter, libraries, timeout, held)
                await to_its_end(store.publish, digest, libraries, len(lock.pins))
    except OSError as error:
        raise translated(error) from error
    say(f"installed, took {time.monotonic() - began:.1f} s")


async def _install(uv: Uv, lock: Lock, interpreter: Interpreter, libraries: Path, held: int) -> None:
    with tempfile.NamedTemporaryFile("w", prefix="tidemill-lock-", suffix=".txt") as pins:
        pins.write("\n".join(lock.pins) + "\n")
        pins.flush()
        await uv.run(
            *("pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--link-mode", "hardlink"),
            *(("--require-hashes",) if lock.hashed else ()),
            *uv.sources.options,
            *("--python", interpreter.path, "--target", str(libraries), "-r", pins.name),
            keeps=[held],
        )
    # uv's own guard of the folder, which is of no use in one that nobody writes to.
    (libraries / ".lock").unlink(missing_ok=True)


async def _compile(interpreter: Interpreter, libraries: Path, timeout: timedelta, held: int) -> None:
    """Write the bytecode that jobs may not write; what Python can't compile is left to whoever imports it."""
    await execute([interpreter.path, "-I", "-S", "-c", _COMPILE, str(libraries)], {}, timeout, keeps=[held])
