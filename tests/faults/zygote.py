"""A process that has imported everything and forks a child for each command; the child's calls of the C library fail as
`tests/faults/shim.c` is told to. Run as ``python -m tests.faults.zygote``, the shim preloaded; speaks lines of JSON.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
import threading
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

from gateway.api import Depth, Reference
from gateway.config.sizes import WriterSizes
from gateway.config.values import CacheConfig, Config, LimitsConfig, RepositoryConfig, SourceConfig, StateConfig
from gateway.engine import open_engine
from gateway.errors import GatewayError

CLASSES = {"write": 1, "sync": 2, "name": 4, "read": 8}
KIB = 1024
SIZES = WriterSizes(
    pack_bytes=256 * KIB, part_bytes=64 * KIB, segment_bytes=16 * KIB, extent_bytes=64 * KIB * KIB,
    own_stream_bytes=96 * KIB, small_pack_bytes=1, list_part_records=8, runs_per_record=4, outline_runs_bytes=64,
    checkpoint_packs=4096, chunk_average_bytes=4 * KIB,
)  # fmt: skip


def config(place: dict[str, str]) -> Config:
    return Config(
        repository=RepositoryConfig(url=f"file://{place['store']}"),
        state=StateConfig(directory=Path(place["state"])),
        cache=CacheConfig(max_bytes=64 * KIB * KIB),
        limits=LimitsConfig(workers=2, uploaders=2),
        writer=SIZES,
        sources=(SourceConfig(name="src", path=Path(place["spool"]), settle=timedelta(0)),),
    )


def run(request: dict[str, Any]) -> dict[str, Any]:
    """One command in a process of its own; what it said, as the command line would."""
    place = request["place"]
    engine = open_engine(config(place), recovery_sheet=place["sheet"], environment={})
    said: dict[str, Any] = {}
    try:
        match request["verb"]:
            case "ingest":
                (report,) = engine.ingest("src").sources
                made = report.generation
                said["made"] = [made.number, made.state] if made else None
                said["held_back"] = [os.fsdecode(left.path) for left in report.held_back]
            case "restore":
                restored = engine.restore(Reference.parse(request["what"]), Path(request["to"]), overwrite=True)
                said["left_out"] = [left.reason for left in restored.left_out]
            case "rebuild":
                said["problems"] = [problem.what for problem in engine.rebuild().problems]
                said["generations"] = [[info.number, info.state] for info in engine.generations()]
            case "verify":
                said["problems"] = [problem.what for problem in engine.verify(depth=Depth.DATA).problems]
    except GatewayError as error:
        said |= {
            "error": type(error).__name__, "exit": error.exit_code, "what": error.what, "meaning": error.meaning,
            "advice": error.advice,
        }  # fmt: skip
    except BaseException as error:  # noqa: BLE001 - it is what the test is looking for
        said |= {"error": type(error).__name__, "exit": -1, "what": "".join(traceback.format_exception(error)[-6:])}
    try:
        engine.close()
    except GatewayError as error:
        said.setdefault("error", f"close: {type(error).__name__}")
    except BaseException as error:  # noqa: BLE001 - the same
        said |= {"exit": -1, "what": "close: " + "".join(traceback.format_exception(error)[-6:])}
    return said


def main() -> None:
    shim = ctypes.CDLL(None)
    for line in sys.stdin:
        request = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            arm = request["arm"]
            if arm:
                mask = sum(CLASSES[each] for each in arm["calls"])
                shim.fault_arm(arm["below"].encode(), mask, errno.__dict__[arm["errno"]], arm["first"], arm["times"])
            said = run(request)
            shim.fault_arm(b"", 0, 0, 0, 0) if not arm else None
            if arm:
                said |= {
                    "seen": shim.fault_seen(), "failed": shim.fault_failed(), "synced_again": shim.fault_synced_again()
                }  # fmt: skip
            said["threads"] = sorted(t.name for t in threading.enumerate() if t.name.startswith(("upload", "worker")))
            os.write(writer, json.dumps(said).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as answers:
            answer = answers.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write((answer.decode() or json.dumps({"error": "died", "exit": status})) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
