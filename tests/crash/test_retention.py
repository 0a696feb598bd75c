"""Killed by SIGKILL while generations expire, are held, packs are swept and a chain ends: the next run finishes it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from gateway import durable
from gateway.api import Depth, Reference
from gateway.catalog import database
from gateway.config.retention import RetentionConfig, RetentionRules
from gateway.config.values import Config, RepositoryConfig, SourceConfig, StateConfig, StorageClass
from gateway.engine import Engine, open_engine
from tests.flow.trees import Source, tree

EFFECTS = {
    "expire": ("store:expire",),
    "hold": ("store:hold",),
    "unhold": ("store:unhold",),
    "sweep": (
        "store:condemn", "store:swept-index", "store:swept-pack", "store:swept-unnamed", "store:end",
        "store:ended-object", "ended-chain:rmtree",
    ),
}  # fmt: skip
"""What is done, and where it is killed."""


class Machine:
    """A repository in a directory, a state directory and a spool; two chains, of which one is not wanted any more."""

    def __init__(self, root: Path, sheet: str = "") -> None:
        self.root, self.sheet = root, sheet

    def config(self, *, window: timedelta = timedelta()) -> Config:
        rules = RetentionRules(keep_last=1, sweep_after=window)
        return Config(
            repository=RepositoryConfig(url=f"file://{self.root}/store"),
            state=StateConfig(directory=self.root / "state"),
            sources=(SourceConfig(name="src", path=self.root / "spool", storage_class=StorageClass.HOT),),
            retention=(RetentionConfig(sources=("src",), rules=rules),),
        )

    def open(self) -> Engine:
        return open_engine(self.config(), recovery_sheet=self.sheet)

    def copy(self, root: Path) -> Machine:
        shutil.copytree(self.root, root)
        return Machine(root, self.sheet)

    def do(self, act: str) -> None:
        engine = self.open()
        try:
            match act:
                case "expire":
                    engine.retention_apply(approve=engine.retention_plan().plan)
                case "hold":
                    engine.hold_generation(Reference.parse("src@1"), reason="audit")
                case "unhold":
                    engine.unhold_generation(Reference.parse("src@1"))
                case "sweep":
                    engine.sweep()
        finally:
            engine.close()

    def killed(self, act: str, moment: str, name: str) -> bool:
        """Do it in a process that is killed when it comes to an effect for the first time."""
        child = os.fork()
        if not child:
            try:
                durable.install_hook(_at(moment, name))
                self.do(act)
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            return os.WTERMSIG(status) == signal.SIGKILL
        assert os.WEXITSTATUS(status) == 0
        return False

    def unnamed(self) -> None:
        """What a writer that was cut off long ago has left."""
        key = self.root / "store" / "packs" / "hot" / "src" / "000002" / f"{0x77:08x}-{'0' * 32}"
        key.parent.mkdir(parents=True, exist_ok=True)
        key.write_bytes(b"cut off")
        long_ago = key.stat().st_mtime - 30 * 86400
        os.utime(key, (long_ago, long_ago))


def _at(moment: str, name: str) -> Callable[[str, str], None]:
    def hook(when: str, effect: str) -> None:
        if (when, effect) == (moment, name):
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


@pytest.fixture(autouse=True)
def _no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "SYNCHRONOUS", "OFF")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Machine]:
    """The machine just before each act."""
    root = tmp_path_factory.mktemp("retention")
    first = Machine(root / "first")
    spool = Source(first.root / "spool")
    spool.root.mkdir(parents=True)
    spool.noise("a", 50_000)
    engine = open_engine(first.config(), environment={"GATEWAY_PASSPHRASE": "correct horse"})
    first.sheet = engine.init().recovery_sheet
    engine.ingest("src", seal_now=True)
    spool.noise("b", 50_000)
    engine.ingest("src", seal_now=True, new_chain=True)
    engine.close()
    found = {"expire": first.copy(root / "expire"), "hold": first.copy(root / "hold")}
    first.do("hold")
    found["unhold"] = first.copy(root / "unhold")
    first.do("unhold")
    first.do("expire")
    first.unnamed()
    found["sweep"] = first
    return found


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("act", "name"), [(act, name) for act, names in EFFECTS.items() for name in names], ids=lambda each: each
)
def test_what_was_killed_is_finished_by_the_next_run(
    machines: dict[str, Machine], tmp_path: Path, act: str, name: str, moment: str
) -> None:
    machine = machines[act].copy(tmp_path / "machine")
    wanted = tree(machine.root / "spool")
    assert machine.killed(act, moment, name), "it never came there"
    engine = machine.open()
    # The newest generation was there all the time.
    engine.restore(Reference.parse("src"), tmp_path / "between")
    engine.close()
    assert tree(tmp_path / "between") == wanted
    if act != "unhold" or moment == "before":
        machine.do(act)  # the end of a hold that has ended is refused
    elif act == "unhold":
        machine.do("expire")
    engine = machine.open()
    numbers = [each.number for each in engine.generations()]
    assert numbers == ([1, 2] if act == "hold" or (act, moment) == ("unhold", "before") else [2])
    if act == "sweep":
        left = sorted(
            each.name for each in (machine.root / "store" / "chains" / "src" / "000001").rglob("*") if each.is_file()
        )
        assert left == ["end", "header"]
        assert not list((machine.root / "store").glob("packs/*/src/000001/*"))
        assert not list((machine.root / "store").glob("packs/hot/src/000002/00000077-*"))
    assert not engine.verify(depth=Depth.DATA).problems
    engine.close()
    rebuilt = Machine(machine.root, machine.sheet)
    shutil.rmtree(machine.root / "state")
    engine = rebuilt.open()
    assert not engine.rebuild().problems
    assert [each.number for each in engine.generations()] == numbers
    engine.close()
