"""A machine whose disks fail: a zygote with the shim, and copies of one state to harm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.flow.trees import Source, Tree, tree

HERE = Path(__file__).parent
SECONDS = 60


def build_shim(directory: Path) -> Path | None:
    """The shim, compiled; None where there is no compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return None
    library = directory / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "shim.c", "-ldl"], check=True)
    return library


class Zygote:
    def __init__(self, shim: Path) -> None:
        environment = os.environ | {"LD_PRELOAD": str(shim)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment, cwd=HERE.parents[1],
        )  # fmt: skip

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(SECONDS)
        self._process.stdout.close()


@dataclass(slots=True)
class Machine:
    """State, store, spool and restore target, each a directory of its own below `root`."""

    root: Path
    zygote: Zygote
    sheet: str
    trees: dict[int, Tree] = field(default_factory=dict)

    def place(self, state: str = "state") -> dict[str, str]:
        names = {name: str(self.root / name) for name in ("store", "spool")}
        return names | {"state": str(self.root / state), "sheet": self.sheet}

    def run(self, verb: str, arm: dict[str, Any] | None = None, *, state: str = "state", **more: str) -> dict[str, Any]:
        return self.zygote.ask({"verb": verb, "arm": arm, "place": self.place(state), **more})

    def arm(self, below: str, calls: str, error: str, first: int, times: int) -> dict[str, Any]:
        return {
            "below": str(self.root / below), "calls": calls.split("+"), "errno": error, "first": first, "times": times
        }  # fmt: skip

    def copy(self, root: Path) -> Machine:
        """The same machine again, to be harmed."""
        shutil.copytree(self.root, root, symlinks=True)
        return Machine(root, self.zygote, self.sheet, dict(self.trees))

    def prepare(self, born: dict[str, bytes]) -> None:
        """One generation, and news for a second. `born`: the objects of a new repository."""
        for key, data in born.items():
            path = self.root / "store" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (self.root / "store" / ".gateway-store").touch()
        source = Source(self.root / "spool")
        source.root.mkdir()
        source.noise("a/large", 200_000)
        for number in range(3):
            source.noise(f"b/{number}", 2_000)
        self.trees[1] = tree(source.root)
        answer = self.run("ingest")
        assert answer.get("made") == [1, "protected"], answer
        source.made = 50
        source.noise("b/new", 150_000)
        source.noise("b/small", 20_000)
        self.trees[2] = tree(source.root)

    def prove(self) -> None:
        """The store alone gives both generations back."""
        answer = self.run("rebuild", state="empty")
        assert answer.get("generations") == [[1, "protected"], [2, "protected"]], answer
        assert answer["problems"] == [], answer
        for number, whole in self.trees.items():
            target = self.root / f"proof-{number}"
            answer = self.run("restore", state="empty", what=f"src@{number}", to=str(target))
            assert answer.get("left_out") == [], answer
            found = tree(target)
            assert {path: node.data for path, node in found.items()} == {
                path: node.data for path, node in whole.items()
            }
