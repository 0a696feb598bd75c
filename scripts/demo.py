"""The demo behind scripts/demo: spool -> two generations -> everything local lost -> rebuilt and restored; then the
same frozen in a simulated archive, quoted, approved, thawed and restored.

The commands are the real ones, in processes of their own, with nothing between them and the reader but a configuration
file. What is proved at the end is proved by other means than the gateway's: bytes are compared with the spool's, and a
PostgreSQL server starts in what came back.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.servers.coldsim import ColdSim, running
from tests.servers.postgresql import PostgreSQL, find_binaries, unpack_tar_backup, verify_backup
from tests.servers.process import ServerError
from tests.servers.seaweedfs import SeaweedFS

SCALE = 15
"""pgbench's scale: about 15 MB of tables each, so a backup of some 250 MB."""
BUCKET = "demo-backups"
MIB = 1 << 20
ROWS = "select count(*), coalesce(sum(hashtext(t::text)::bigint), 0) from pgbench_accounts t"


class Failed(Exception):
    """The demo cannot go on; the message says why."""


@dataclass(slots=True, kw_only=True)
class Night:
    """One generation: what went in, what it took, and what came back."""

    number: int
    rows: str = ""
    digest: dict[str, tuple[str, int]] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    restore: dict[str, Any] = field(default_factory=dict)
    verdicts: list[tuple[str, bool]] = field(default_factory=list)


class Demo:
    def __init__(self, home: Path, server: SeaweedFS, postgresql: bool) -> None:
        self.home = home
        self.spool = home / "spool"
        self.state = home / "state"
        self.kept = home / "spool-as-it-was"
        self.nights = [Night(number=1), Night(number=2)]
        self.color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.postgresql = postgresql
        self.thawed = False
        self._server = server
        self._environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(home),
            "TERM": os.environ.get("TERM", "dumb"),
            "LC_ALL": "C.UTF-8",
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "GATEWAY_CONFIG": str(home / "gateway.toml"),
        }

    # --- talking -----------------------------------------------------------------------------------------------------

    def heading(self, text: str) -> None:
        self._say(f"\n{text}", "1;36")

    def _say(self, text: str, style: str = "") -> None:
        print(f"\x1b[{style}m{text}\x1b[0m" if style and self.color else text, flush=True)

    # --- running -----------------------------------------------------------------------------------------------------

    def gateway(self, *words: str, into: str = "", within: Path | None = None, code: int = 0) -> None:
        """Show a command, then run it with its output where the reader sees it, or in the file `into`. `code`: what it
        is to end with."""
        shown = " ".join(shlex.quote(word) for word in ("gateway", *words))
        self._say(f"$ {shown}{f' > {into}' if into else ''}", "1;32")
        with contextlib.ExitStack() as stack:
            output = stack.enter_context((self.home / into).open("w")) if into else None
            done = subprocess.run(
                ["gateway", *words], env=self._environment, cwd=within or self.home, stdout=output,
                stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        if done.returncode != code:
            raise Failed(f"`{shown}` ended with exit code {done.returncode}, not {code}")

    def data(self, *words: str) -> Any:
        """What a command says as JSON, for the table at the end; not shown."""
        done = subprocess.run(
            ["gateway", "--json", *words], env=self._environment, cwd=self.home, stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Failed(f"`gateway --json {' '.join(words)}` ended with exit code {done.returncode}")
        return json.loads(done.stdout)

    def timed(self, *words: str) -> float:
        started = time.monotonic()
        self.gateway(*words)
        return time.monotonic() - started

    # --- the way -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        self.configure()
        with self.producer() as produce:
            self.heading("1. A new repository in a bucket, and the recovery sheet that opens it without anything else")
            self.gateway("init", into="sheet.txt")
            for night in self.nights:
                what = "everything is new" if night.number == 1 else "some of it has changed"
                self.heading(f"{night.number + 1}. Night {night.number}: a backup lies in the spool, {what}")
                produce(night)
                night.digest = listing(self.spool)
                shutil.copytree(self.spool, self.kept / str(night.number), symlinks=True)
                self.gateway("ingest", "demo")
        self.heading("4. What there is now")
        self.gateway("generations")
        if self.postgresql:
            self.gateway("diff", "demo@1", "demo@2")
        for night in self.nights:
            night.report = self.data("show", f"demo@{night.number}")

        self.heading("5. The machine is lost: no spool, no state, no catalog, no passphrase")
        for path in (self.spool, self.state):
            self._say(f"$ rm -r {path.name}", "1;32")
            shutil.rmtree(path)
        (self.home / "passphrase").unlink()
        self.spool.mkdir()

        self.heading("6. The bucket and the recovery sheet bring it back")
        self.gateway("rebuild", "--recovery-sheet", "sheet.txt")
        self.gateway("verify", "--depth", "data", "--recovery-sheet", "sheet.txt")
        for night in self.nights:
            self.restore(night)
        with running(ColdSim(start=datetime.now(UTC) + timedelta(days=1))) as simulator:
            self.thaw(simulator)

    def thaw(self, simulator: ColdSim) -> None:
        """The newest night again, in a simulated store with archive classes and a clock of its own, on loopback."""
        self.heading("7. The same in an archive class: a simulated store, whose time is moved by hand")
        simulator.buckets.create(BUCKET)
        source = self.kept / "2"
        text = f"""\
[repository]
url = "s3://{BUCKET}/gateway"
endpoint_url = "{simulator.url}"
region = "us-east-1"
addressing_style = "path"

[state]
dir = "{self.home / "cold-state"}"

[restore]
approval_above = 0

[[source]]
name = "demo"
path = "{source}"
settle = "1 s"
class = "deep"
"""
        (self.home / "cold.toml").write_text(text)
        self._environment |= {
            "GATEWAY_CONFIG": str(self.home / "cold.toml"), "GATEWAY_CLOCK": "store",
            "GATEWAY_PASSPHRASE": "a passphrase for the demo only",
        }  # fmt: skip
        self.gateway("init", into="cold-sheet.txt")
        self.gateway("lifecycle", "apply", into="rules.txt")
        self.gateway("ingest", "demo")
        self._later(simulator, timedelta(days=120), "the lifecycle rules have moved everything into DEEP_ARCHIVE")
        self._say("$ rm -r cold-state", "1;32")
        shutil.rmtree(self.home / "cold-state")
        self.gateway("rebuild")
        words = ("restore", "demo", "--to", "thawed", "--deadline", "13 h")
        self.gateway(*words, "--dry-run")
        self.gateway(*words, code=21)
        (job,) = self.data("jobs")
        self.gateway("jobs", "approve", job["id"])
        self._say(f"$ gateway jobs watch {job['id']}", "1;32")
        with subprocess.Popen(
            ["gateway", "jobs", "watch", job["id"]], env=self._environment, cwd=self.home, stdin=subprocess.DEVNULL
        ) as watching:
            while watching.poll() is None and set(self.data("jobs", "show", job["id"])["stages"]) & {"cold", "asking"}:
                time.sleep(0.2)
            self._later(simulator, timedelta(hours=13), "the thaws are done")
        if watching.returncode:
            raise Failed(f"the restore job ended with exit code {watching.returncode}")
        self.gateway("jobs", "show", job["id"])
        self.thawed = same(source, self.home / "thawed")

    def _later(self, simulator: ColdSim, time: timedelta, what: str) -> None:
        simulator.advance(time)
        spent = f"{time.days} days" if time.days else f"{time // timedelta(hours=1)} hours"
        self._say(f"... {spent} later: {what}", "1;33")

    def configure(self) -> None:
        self.heading("The configuration")
        (self.home / "passphrase").touch(mode=0o600)
        (self.home / "passphrase").write_text("a passphrase for the demo only\n")
        self.spool.mkdir()
        text = f"""\
[repository]
url = "s3://{BUCKET}/gateway"
endpoint_url = "{self._server.endpoint}"
region = "{self._server.region}"
addressing_style = "path"

[state]
dir = "{self.state}"

[keys]
passphrase_file = "{self.home / "passphrase"}"

[[source]]
name = "demo"
path = "{self.spool}"
settle = "1 s"
"""
        (self.home / "gateway.toml").write_text(text)
        self._say("\n".join(f"    {line}" if line else "" for line in text.splitlines()))

    @contextlib.contextmanager
    def producer(self) -> Iterator[Any]:
        """What makes the backups of both nights."""
        if not self.postgresql:
            yield self._files
            return
        with PostgreSQL() as server:
            server.pgbench_init(SCALE)

            def backup(night: Night) -> None:
                if night.number == 2:
                    server.pgbench(transactions=1000)
                night.rows = server.psql(ROWS)
                target = self.spool / "nightly"
                if target.exists():
                    shutil.rmtree(target)
                self._say("$ pg_basebackup --format=tar -D spool/nightly", "1;32")
                server.base_backup(target, format="tar")

            yield backup

    def _files(self, night: Night) -> None:
        """Without PostgreSQL: the standard library as files, and what is installed beside it as one tar file."""
        library, packages = Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))
        if night.number == 1:
            self._say(f"$ cp -r {library} spool/library", "1;32")
            leave = shutil.ignore_patterns("site-packages", "dist-packages", "__pycache__")
            shutil.copytree(library, self.spool / "library", symlinks=True, ignore=leave)
        else:
            self._say("(a line more in every twentieth file)")
            for path in sorted(self.spool.rglob("*.py"))[::20]:
                path.write_bytes(path.read_bytes() + b"# changed in the second night\n")
        words = ["tar", "-cf", "spool/packages.tar", "-C", str(packages.parent), packages.name]
        if night.number == 2:
            words += ["-C", str(self.spool), "library"]
        self._say(f"$ {shlex.join(words)}", "1;32")
        subprocess.run(words, cwd=self.home, check=True)

    def restore(self, night: Night) -> None:
        target = self.home / f"restored-{night.number}"
        seconds = self.timed("restore", f"demo@{night.number}", "--to", target.name, "--recovery-sheet", "sheet.txt")
        size = sum(size for _, size in night.digest.values())
        night.restore = {"seconds": seconds, "bytes": size}
        night.verdicts.append(
            ("same bytes", listing(target) == night.digest and same(self.kept / str(night.number), target))
        )
        if self.postgresql:
            night.verdicts.append(("database starts", self._database(night, target)))

    def _database(self, night: Night, target: Path) -> bool:
        """pg_verifybackup passes and a server that starts in it has the rows of that night."""
        unpacked = self.home / f"unpacked-{night.number}"
        try:
            unpack_tar_backup(target / "nightly", unpacked)
            verify_backup(unpacked)
            with PostgreSQL.start_from(unpacked) as server:
                return server.psql(ROWS) == night.rows
        except ServerError as error:
            print(error, file=sys.stderr)
            return False

    # --- what it saw -------------------------------------------------------------------------------------------------

    def table(self) -> bool:
        """Print what was seen; whether all verdicts are ok."""
        self.heading("What was seen")
        rows = [("", "night 1", "night 2")]
        columns = []
        for night in self.nights:
            info, statistics = night.report["info"], night.report["statistics"]
            read, stored = statistics["read_bytes"], info["stored_bytes"]
            columns.append(
                (
                    f"{info['bytes'] / MIB:,.1f} MiB",
                    f"{read / MIB:,.1f} MiB",
                    f"{statistics['new_bytes'] / MIB:,.1f} MiB",
                    f"{stored / MIB:,.1f} MiB",
                    f"{info['bytes'] / max(stored, 1):,.0f} : 1",
                    f"{read / MIB / max(statistics['seconds'], 0.001):,.0f} MiB/s",
                    f"{night.restore['bytes'] / MIB / night.restore['seconds']:,.0f} MiB/s",
                )
            )
        names = ("in the spool", "read", "of it new", "sent to the store", "reduction", "ingest", "restore")
        rows += [(name, *values) for name, *values in zip(names, *columns, strict=True)]  # type: ignore[misc]
        for at, (name, _) in enumerate(self.nights[0].verdicts):
            rows.append((name, *("ok" if night.verdicts[at][1] else "NOT OK" for night in self.nights)))  # type: ignore[arg-type]
        rows.append(("thawed: same bytes", "", "ok" if self.thawed else "NOT OK"))
        for row in rows:
            self._say(f"{row[0]:<18}{row[1]:>14}{row[2]:>14}")
        self._say("(ingest: from the first byte read to the commit; restore: with the start of the program)")
        return self.thawed and all(ok for night in self.nights for _, ok in night.verdicts)


def listing(root: Path) -> dict[str, tuple[str, int]]:
    """Every path below a directory with its type, mode and size."""
    found = {}
    for top, directories, files in os.walk(root):
        for name in [*directories, *files]:
            path = Path(top, name)
            status = path.lstat()
            size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            found[path.relative_to(root).as_posix()] = (stat.filemode(status.st_mode), size)
    return found


def same(one: Path, other: Path) -> bool:
    """`diff` finds no difference in any byte of two trees."""
    done = subprocess.run(["diff", "--recursive", "--no-dereference", "--brief", one, other], check=False)
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description="Back up, lose everything, get it back: on this machine, with real data."
    )
    parser.add_argument("--files", action="store_true", help="use files instead of a PostgreSQL database")
    parser.add_argument("--keep", action="store_true", help="keep the directory with everything that was made")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # they clean up like Ctrl-C
    started = time.monotonic()
    postgresql = not arguments.files and find_binaries() is not None
    # Short, and open to pass: PostgreSQL's user must get through.
    home = Path(tempfile.mkdtemp(prefix="gateway-demo-", dir="/tmp"))
    home.chmod(0o711)
    try:
        with SeaweedFS(home / "seaweedfs") as server:
            server.create_bucket(BUCKET)
            demo = Demo(home, server, postgresql)
            demo.run()
            good = demo.table()
    except (Failed, ServerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; cleaning up.", file=sys.stderr)
        return 130
    finally:
        if arguments.keep:
            print(f"Everything is in {home}.")
        else:
            shutil.rmtree(home, ignore_errors=True)
    took = f"{time.monotonic() - started:.0f} s"
    if not good:
        print(f"\nNOT OK, after {took}.", file=sys.stderr)
        return 1
    print(f"\nAll ok, in {took}. Next: the ten-minute tour with your own files in README.md.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
