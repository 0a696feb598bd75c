"""A real Samba on loopback: one smbd with one share and one user, all its directories in a temporary one.

::

    with Samba(spool) as server:
        client = SmbHands(server.address)      # tests.writers.smb
        server.kill()                          # its clients see a broken connection, as in a power cut
        server.start()                         # same port, same share

No nmbd and no winbindd: nobody looks up names. It needs root, because smbd changes its user for every request.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.process import Child, ServerError, accepts, free_ports, running, tail, until

READY_SECONDS = 30.0
ATTEMPTS = 3
USER = "nobody"
"""Exists on every Linux. Who logs in only opens the door: `force user` says as whom files are written."""

DIRECTORIES = (
    "lock directory", "state directory", "cache directory", "private dir", "pid directory", "ncalrpc dir",
    "binddns dir", "winbindd socket directory", "usershare path",
)  # fmt: skip
"""Samba's own; each gets a directory of the test's, so that nothing of an installed Samba is touched or read."""

GLOBAL = {
    # Only this machine; no NetBIOS, whose ports are privileged and fixed.
    "bind interfaces only": "yes",
    "interfaces": "127.0.0.1",
    "disable netbios": "yes",
    # A file server of its own, not a member of a domain.
    "server role": "standalone server",
    "workgroup": "GATEWAY",
    "server string": "spool",
    # Printers would be looked for with CUPS at every start, and spoolss would be a process more.
    "load printers": "no",
    "printing": "bsd",
    "printcap name": "/dev/null",
    "disable spoolss": "yes",
    "usershare max shares": "0",
    "map to guest": "never",
    "log level": "1",
    "max log size": "0",
}

SHARE = {
    # pytest's directories are closed to all but their owner, and the gateway reads as root in the tests, too.
    "force user": "root",
    "read only": "no",
    "browseable": "no",
    # What follows are Samba's defaults. They are written down since the tests rest on them.
    "oplocks": "yes",
    "smb2 leases": "yes",
    # no: an SMB client's oplock is not a lease of the kernel, so that our reading breaks none of them and the
    # kernel's read lease of ours is refused for one reason only: smbd has the file open for writing.
    "kernel oplocks": "no",
    # no: with yes smbd would flock its files; ext4 and XFS know no such share modes.
    "kernel share modes": "no",
    # yes: a client's flush is an fsync, as producers that flush expect.
    "strict sync": "yes",
    # no: setting the end of a file makes a sparse one of its full size at once. This is what makes a copy by the
    # Explorer look whole when 1 % of it is there.
    "strict allocate": "no",
    # yes: smbd writes the attribute user.DOSATTRIB, which moves ctime once more after the data.
    "store dos attributes": "yes",
    # yes, and so no durable handles: the file of a client that died is closed as soon as its connection ends.
    "posix locking": "yes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """What a client must know."""

    port: int
    share: str
    user: str
    password: str
    server: str = "127.0.0.1"


def find_smbd() -> Path | None:
    """`smbd` with `smbpasswd` beside it; Debian has it in /usr/sbin, which is not in everybody's PATH."""
    found = shutil.which("smbd") or shutil.which("smbd", path="/usr/sbin:/usr/local/sbin:/usr/local/samba/sbin")
    return Path(found) if found and shutil.which("smbpasswd") else None


def can_run() -> bool:
    """Whether this process may run smbd."""
    return os.geteuid() == 0


class Samba:
    """One server with the share `spool` on a directory; two can run side by side. Not thread-safe."""

    share = "spool"
    password = "a password of the tests"

    def __init__(self, directory: Path, *, settings: dict[str, str] | None = None) -> None:
        """`settings` overrule those of the share."""
        if find_smbd() is None:
            raise ServerError("smbd is missing (Debian: samba)")
        self.directory = directory.absolute()
        self._settings = SHARE | (settings or {})
        self._home: Path | None = None
        self._port = 0
        self._child: Child | None = None

    @property
    def address(self) -> Address:
        if not self._port:
            raise ServerError("Samba was not started yet")
        return Address(port=self._port, share=self.share, user=USER, password=self.password)

    @property
    def pid(self) -> int:
        if self._child is None:
            raise ServerError("Samba is not running")
        return self._child.pid

    def start(self) -> None:
        """Start, or start again on the same port. Returns when connections are accepted."""
        if self._child is not None:
            raise ServerError("Samba is already running")
        if self._home is None:
            # Short: the path of a socket has 107 bytes.
            self._home = Path(tempfile.mkdtemp(prefix="gw-smb-", dir="/tmp"))
        for attempt in range(1, ATTEMPTS + 1):
            fresh = not self._port
            if fresh:
                self._port = free_ports(1)[0]
            try:
                self._start_once(self._home)
            except ServerError:
                self.kill()
                if fresh:
                    self._port = 0
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    def _start_once(self, home: Path) -> None:
        smbd = find_smbd()
        assert smbd is not None
        config = home / "smb.conf"
        places = {name: home / name.replace(" ", "-") for name in DIRECTORIES}
        for place in places.values():
            # 0755: smbd refuses an ncalrpc or winbindd directory with any other permissions.
            place.mkdir(mode=0o755, exist_ok=True)
        lines = ["[global]", *_lines(GLOBAL), f"smb ports = {self._port}", f"log file = {home / 'smbd.log'}"]
        lines += [f"{name} = {place}" for name, place in places.items()]
        lines += [f"[{self.share}]", f"path = {self.directory}", *_lines(self._settings)]
        config.write_text("\n".join(lines) + "\n")
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(home)}
        if not (places["private dir"] / "passdb.tdb").exists():
            self._add_user(config, environment)
        self._child = Child(
            [smbd, "--foreground", "--no-process-group", f"--configfile={config}", f"--log-basename={home}"],
            log=home / "output",
            cwd=home,
            env=environment,
        )
        try:
            until(
                "Samba accepts connections",
                lambda: accepts(self._port),
                seconds=READY_SECONDS,
                alive=self._child.alive,
            )
        except ServerError as error:
            raise ServerError(f"{error}\n{self.log()}") from error

    def _add_user(self, config: Path, environment: dict[str, str]) -> None:
        done = subprocess.run(
            ["smbpasswd", "-c", config, "-a", "-s", USER],
            input=f"{self.password}\n{self.password}\n",
            capture_output=True,
            text=True,
            timeout=READY_SECONDS,
            env=environment,
            check=False,
        )
        if done.returncode != 0:
            raise ServerError(f"smbpasswd: exit {done.returncode}\n{done.stdout}{done.stderr}")

    def log(self) -> str:
        if self._home is None:
            return ""
        return tail(self._home / "smbd.log") + tail(self._home / "output")

    def stop(self) -> None:
        """Orderly and bounded. Idempotent; `start` goes on."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL of the server and of the processes of its connections. Idempotent; `start` goes on."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._child is None:
            return
        family = descendants(self._child.pid)
        self._child.stop(number)
        self._child = None
        # They notice the end of the first by a pipe; one that is stuck in a request would not.
        for pid in family:
            if number == signal.SIGKILL:
                _signal(pid, number)
        try:
            until("the processes of Samba end", lambda: not any(map(running, family)), seconds=10)
        except ServerError:
            for pid in family:
                _signal(pid, signal.SIGKILL)
            until("the killed processes of Samba end", lambda: not any(map(running, family)), seconds=10)

    def close(self) -> None:
        """Stop and remove all but the share's directory. Idempotent."""
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


def descendants(pid: int) -> list[int]:
    """Process ids of the children of a process, and of theirs."""
    found: list[int] = []
    todo = [pid]
    while todo:
        parent = todo.pop()
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += map(int, children)
        todo += map(int, children)
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it has ended, which is what was wanted


def _lines(settings: dict[str, str]) -> list[str]:
    return [f"{name} = {value}" for name, value in settings.items()]
