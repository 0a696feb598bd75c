"""A real PostgreSQL in a temporary directory, as a producer of backups and as the proof of a restore.

::

    with PostgreSQL() as server:
        server.pgbench_init(scale=10)
        server.base_backup(spool / "base", format="plain")
        server.pgbench(transactions=1000)

    verify_backup(restored)
    with PostgreSQL.start_from(restored) as server:
        server.psql("select count(*) from pgbench_accounts")
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.servers.process import Child, ServerError, accepts, free_ports, privileges, running, tail, until

READY_SECONDS = 60.0
COMMAND_SECONDS = 600.0
ATTEMPTS = 3


def find_binaries() -> Path | None:
    """The directory of initdb, postgres, pgbench ...: Debian's newest, else that of `initdb` in PATH."""
    versions = sorted(
        (path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()),
        key=lambda path: int(path.parent.name),
    )
    found = shutil.which("initdb")
    for directory in [*reversed(versions), *([Path(found).resolve().parent] if found else [])]:
        if all((directory / name).exists() for name in ("initdb", "postgres", "pgbench", "pg_basebackup")):
            return directory
    return None


def server_user() -> str | None:
    """PostgreSQL refuses to run as root: whom it runs as when we are; None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise ServerError("neither user postgres nor nobody exists")


class PostgreSQL:
    """One server with data checksums, superuser `postgres`, no password on its socket and loopback port.

    fsync is off: its data dies with the test. Two can run side by side. Not thread-safe, except `psql`.
    """

    def __init__(
        self, *, settings: dict[str, str] | None = None, _data: Path | None = None, _in_place: bool = False
    ) -> None:
        binaries = find_binaries()
        if binaries is None:
            raise ServerError("PostgreSQL is missing (Debian: postgresql postgresql-contrib)")
        self.binaries = binaries
        self.port = 0
        self._user = server_user()
        self._settings = settings or {}
        self._source = _data
        self._in_place = _in_place
        self._child: Child | None = None
        self._home: Path | None = None

    @classmethod
    def start_from(cls, data: Path, *, settings: dict[str, str] | None = None) -> Self:
        """A server on a *copy* of a data directory (a plain base backup); `data` itself stays as it is."""
        return cls(settings=settings, _data=data)

    @classmethod
    def start_in(cls, data: Path, *, settings: dict[str, str] | None = None) -> Self:
        """A server in a data directory as it lies there, its owner and permissions untouched: they must be right.

        All directories above must let the server's user pass.
        """
        return cls(settings=settings, _data=data, _in_place=True)

    @property
    def socket_directory(self) -> Path:
        if self._home is None:
            raise ServerError("PostgreSQL is not running")
        return self._home

    @property
    def data(self) -> Path:
        if self._in_place and self._source is not None:
            return self._source
        return self.socket_directory / "data"

    @property
    def pid(self) -> int:
        if self._child is None:
            raise ServerError("PostgreSQL is not running")
        return self._child.pid

    def start(self) -> None:
        """Make the data directory at the first start; returns when queries are answered."""
        if self._child is not None:
            raise ServerError("PostgreSQL is already running")
        if self._home is None:
            # Short (a socket's path has 107 bytes), and below a directory that the server's user may pass.
            self._home = Path(tempfile.mkdtemp(prefix="gw-pg-", dir="/tmp"))
            self.port = free_ports(1)[0]
            self._prepare()
        for attempt in range(1, ATTEMPTS + 1):
            self.port = free_ports(1)[0]
            try:
                self._start_once()
            except ServerError:
                self.kill()
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    def _prepare(self) -> None:
        if self._source is not None and not self._in_place:
            shutil.copytree(self._source, self.data, symlinks=True)
            self.data.chmod(0o700)
        self._give_away()
        if self._source is None:
            self._run_as_server(
                "initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "--data-checksums", "--no-sync",
                "--encoding=UTF8", "--locale=C", "--no-instructions",
            )  # fmt: skip

    def _give_away(self) -> None:
        if self._user is None:
            return
        entry = pwd.getpwnam(self._user)
        for top, directories, files in os.walk(self.socket_directory):
            for path in [top, *(os.path.join(top, name) for name in [*directories, *files])]:
                os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)

    def _start_once(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_directory),
            "fsync": "off",
            "archive_mode": "off",
            "log_destination": "stderr",
            "logging_collector": "off",
        } | self._settings
        log = self.socket_directory / "postgresql.log"
        child = self._child = Child(
            [
                self.binaries / "postgres",
                "-D",
                self.data,
                *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
            ],
            log=log,
            cwd=self.socket_directory,
            env=self._environment(),
            user=self._user,
        )
        try:
            until(
                "PostgreSQL answers",
                lambda: accepts(self.port) and self._run("pg_isready", "-q", check=False).returncode == 0,
                seconds=READY_SECONDS,
                alive=child.alive,
            )
        except ServerError as error:
            raise ServerError(f"{error}\n{tail(log)}") from error

    def stop(self) -> None:
        """Orderly ("fast"), bounded. Idempotent; `start` goes on with the same data."""
        if self._child is not None:
            self._child.stop(signal.SIGINT, seconds=60)
            self._child = None

    def kill(self) -> None:
        """SIGKILL of the server; its back ends notice and end. Idempotent; `start` recovers."""
        if self._child is not None:
            # They hold its shared memory, which a restart would find in use, until they notice.
            back_ends = self._child.children()
            self._child.stop(signal.SIGKILL)
            self._child = None
            until("back ends end", lambda: not any(map(running, back_ends)), seconds=30)

    def close(self) -> None:
        """Stop and remove everything. Idempotent."""
        self.stop()
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def psql(self, sql: str, *, database: str = "postgres") -> str:
        """Rows as lines, columns separated by `|`. `ServerError` when a statement fails."""
        command = ("psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql)
        return self._run(*command).stdout.strip()

    def pgbench_init(self, scale: int = 1) -> None:
        """pgbench's tables: about 15 MB per unit of `scale`."""
        self._run("pgbench", "-i", "-q", "-s", str(scale), "postgres")

    def pgbench(self, transactions: int, *, seed: int = 1) -> None:
        """So many transactions of one client; the same seed draws the same rows."""
        self._run("pgbench", "-n", "-t", str(transactions), f"--random-seed={seed}", "postgres")

    def base_backup(self, directory: Path, *, format: Literal["plain", "tar"] = "plain") -> None:  # noqa: A002 (pg_basebackup's own word)
        """pg_basebackup into a new `directory`, its WAL included (streamed), with backup_manifest."""
        self._run(
            "pg_basebackup", "-D", str(directory), f"--format={format}", "--wal-method=stream",
            "--checkpoint=fast", "--no-sync",
        )  # fmt: skip

    def verify_backup(self, directory: Path) -> None:
        verify_backup(directory)

    def dump(self, file: Path) -> None:
        """pg_dump as SQL."""
        self._run("pg_dump", "-f", str(file), "postgres")

    def _environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.socket_directory),
            "PATH": f"{self.binaries}:{os.defpath}",
            "LC_ALL": "C",
            "TZ": "UTC",
            "PGHOST": str(self.socket_directory),
            "PGPORT": str(self.port),
            "PGUSER": "postgres",
        }

    def _run(self, name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self._finish([str(self.binaries / name), *arguments], check=check)

    def _run_as_server(self, name: str, *arguments: str | Path) -> None:
        command = [str(self.binaries / name), *map(str, arguments)]
        self._finish([*(privileges(self._user) if self._user else []), *command], check=True)

    def _finish(self, command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            env=self._environment(),
            cwd=self.socket_directory,
            check=False,
        )
        if check and done.returncode != 0:
            raise ServerError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done


def verify_backup(directory: Path) -> None:
    """pg_verifybackup of a plain base backup: files against the manifest, then the WAL. `ServerError` says what."""
    binaries = find_binaries()
    if binaries is None:
        raise ServerError("PostgreSQL is missing")
    done = subprocess.run(
        [binaries / "pg_verifybackup", "-q", directory],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        env={"PATH": f"{binaries}:{os.defpath}", "LC_ALL": "C", "TZ": "UTC"},
        check=False,
    )
    if done.returncode != 0:
        raise ServerError(f"pg_verifybackup {directory}: exit {done.returncode}\n{done.stdout}{done.stderr}")


def unpack_tar_backup(backup: Path, data: Path) -> None:
    """Make a plain data directory, to be verified and started, of what `base_backup(format="tar")` wrote."""
    data.mkdir(parents=True)
    # Not tarfile: its safe filter came with 3.11.4, and Debian 12 has 3.11.2.
    for archive, directory in (("base.tar", data), ("pg_wal.tar", data / "pg_wal")):
        subprocess.run(["tar", "-xf", backup / archive, "-C", directory], check=True, timeout=COMMAND_SECONDS)
    shutil.copy2(backup / "backup_manifest", data / "backup_manifest")
