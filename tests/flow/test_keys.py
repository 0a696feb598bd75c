"""Who may open a repository, what must fit together, and what may be damaged without harm."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.config.values import StateConfig
from gateway.engine import Engine
from gateway.errors import GatewayError, NewerFormat, NoRepository, UsageError, WrongKey
from gateway.format import sheet
from gateway.format.keys import Argon2Cost
from gateway.repository.repository import create
from tests.flow.gateways import ENVIRONMENT, Gateway, make_clock, make_store
from tests.flow.trees import tree

CHEAP = Argon2Cost(iterations=1, lanes=1, memory_kib=1024)


def filled(gateway: Gateway) -> None:
    gateway.source.noise("a", 200_000)
    gateway.source.noise("b", 100)
    gateway.made()
    gateway.close()


def fails(engine: Engine, error: type[GatewayError], exit_code: int) -> None:
    with pytest.raises(error) as caught:
        engine.rebuild()
    assert caught.value.exit_code == exit_code
    assert caught.value.what


def another_repository(passphrase: str = "another") -> tuple[dict[str, bytes], str]:
    store = make_store(make_clock(b"another"))
    made = create(store, make_clock(b"another"), passphrase, region="", endpoint="", cost=CHEAP)
    return store.dump(), made.sheet


# --- wrong ones ------------------------------------------------------------------------------------------------------


def test_a_wrong_passphrase_opens_nothing(gateway: Gateway) -> None:
    filled(gateway)
    wrong = {"GATEWAY_PASSPHRASE": "incorrect horse"}
    fails(gateway.open(gateway.elsewhere(), environment=wrong), WrongKey, 12)
    with pytest.raises(WrongKey):
        gateway.open(environment=wrong).ingest("src")


def test_a_wrong_sheet_opens_nothing(gateway: Gateway) -> None:
    filled(gateway)
    text = sheet.render(
        b"\1" * 32, url="memory://store", region="", endpoint="", slot=bytes(16), created="2031-03-01T03:00:00Z",
        repository=bytes.fromhex(gateway.born.meta["repository"]),
    )  # fmt: skip
    fails(gateway.open(gateway.elsewhere(), recovery_sheet=text, environment={}), WrongKey, 12)


def test_the_sheet_of_another_repository_opens_nothing(gateway: Gateway) -> None:
    filled(gateway)
    _, text = another_repository()
    fails(gateway.open(gateway.elsewhere(), recovery_sheet=text, environment={}), WrongKey, 12)


def test_a_sheet_with_a_typing_error_says_where(gateway: Gateway) -> None:
    filled(gateway)
    found = re.search(r"^2  (\w)", gateway.born.sheet, re.MULTILINE)
    assert found is not None
    at = found.start(1)
    text = gateway.born.sheet[:at] + ("b" if found[1] != "b" else "d") + gateway.born.sheet[at + 1 :]
    with pytest.raises(GatewayError, match="2") as caught:
        gateway.open(gateway.elsewhere(), recovery_sheet=text, environment={}).rebuild()
    assert caught.value.exit_code == 2


def test_the_state_of_another_repository_is_refused(gateway: Gateway) -> None:
    filled(gateway)
    mine = gateway.store.dump()
    theirs, _ = another_repository()
    gateway.store.load(theirs)
    wrong = gateway.open(environment={"GATEWAY_PASSPHRASE": "another"})
    for verb in (lambda: wrong.ingest("src"), wrong.rebuild, wrong.verify):
        with pytest.raises(NoRepository) as caught:
            verb()
        assert caught.value.exit_code == 10
    assert gateway.store.dump() == theirs
    gateway.store.load(mine)
    gateway.open()
    assert gateway.restored() == tree(gateway.source.root)


def test_no_repository_is_said_so(gateway: Gateway) -> None:
    mine = gateway.store.dump()
    gateway.store.load({})
    fails(gateway.open(gateway.elsewhere()), NoRepository, 10)
    gateway.store.load({"repository.json": b"<html>"})
    fails(gateway.open(gateway.elsewhere()), NoRepository, 10)
    gateway.store.load(mine)


def test_a_repository_is_never_made_over_another(gateway: Gateway) -> None:
    filled(gateway)
    before = gateway.store.dump()
    for config in (gateway.config, gateway.elsewhere()):
        with pytest.raises(UsageError):
            gateway.open(config).init()
    assert gateway.store.dump() == before


def test_an_empty_machine_is_told_to_rebuild(gateway: Gateway) -> None:
    filled(gateway)
    with pytest.raises(NoRepository):
        gateway.open(gateway.elsewhere()).generations()


# --- newer ones ------------------------------------------------------------------------------------------------------


def _resealed(gateway: Gateway, name: str, change: Callable[[dict[str, object]], None]) -> None:
    """Change a JSON object as its owner could: its MAC fits."""
    from gateway.format import canonical
    from gateway.repository.repository import Secrets, open_repository

    secrets = Secrets(passphrase=ENVIRONMENT["GATEWAY_PASSPHRASE"])
    master = open_repository(gateway.store, gateway.clock, secrets).master
    for key in gateway.keys(name):
        value = dict(canonical.decode(gateway.store.dump()[key], key))
        value.pop("~mac")
        change(value)
        gateway.store.delete(key)
        gateway.put_back(key, canonical.with_mac(value, master))


def newer_format(value: dict[str, object]) -> None:
    value["format"] = 2


def unknown_feature(value: dict[str, object]) -> None:
    value["needs_features"] = ["unheard-of"]


@pytest.mark.parametrize("change", [newer_format, unknown_feature])
@pytest.mark.parametrize("name", ["repository.json", "slots/"])
def test_what_a_newer_version_wrote_is_left_alone(
    gateway: Gateway, change: Callable[[dict[str, object]], None], name: str
) -> None:
    filled(gateway)
    before = gateway.store.dump()
    _resealed(gateway, name, change)
    changed = gateway.store.dump()
    fails(gateway.open(gateway.elsewhere()), NewerFormat, 15)
    with pytest.raises(NewerFormat):
        gateway.open().ingest("src")
    assert gateway.store.dump() == changed
    gateway.store.load(before)


# --- damaged ones ----------------------------------------------------------------------------------------------------


def damage(gateway: Gateway, key: str, how: str) -> None:
    data = gateway.lose(key)
    if how == "changed":
        spoilt = bytearray(data)
        spoilt[len(spoilt) // 2] ^= 1
        gateway.put_back(key, bytes(spoilt))


@pytest.mark.parametrize("how", ["changed", "lost"])
@pytest.mark.parametrize("secret", ["passphrase", "sheet"])
@pytest.mark.parametrize(
    "what", ["repository.json", "the other slot", "header", "second header", "wrap", "second wrap"]
)
def test_one_copy_of_everything_is_enough(gateway: Gateway, what: str, how: str, secret: str) -> None:
    filled(gateway)
    before = gateway.store.dump()
    slots = {
        ("passphrase" if b'"kind":"passphrase"' in before[key] else "sheet"): key for key in gateway.keys("slots/")
    }
    (key,) = {
        "repository.json": ["repository.json"],
        "the other slot": [slots["sheet" if secret == "passphrase" else "passphrase"]],
        "header": gateway.keys("chains/src/000001/header"),
        "second header": gateway.keys("keys/src-000001-header"),
        "wrap": gateway.keys("chains/src/000001/wraps/"),
        "second wrap": [name for name in gateway.keys("keys/src-000001-") if not name.endswith("header")],
    }[what]
    damage(gateway, key, how)
    empty = gateway.elsewhere()
    options = {"recovery_sheet": gateway.born.sheet, "environment": {}} if secret == "sheet" else {}
    engine = gateway.open(empty, **options)
    engine.rebuild()
    gateway.config, machine = empty, gateway.config
    assert gateway.restored() == tree(gateway.source.root)
    found = gateway.verify()
    if not (what == "the other slot" and how == "lost"):  # a slot that was deleted leaves no trace
        assert found
        assert any(each.address == key or key.startswith(each.address) for each in found)
    gateway.close()
    gateway.config = machine
    gateway.store.load(before)


def test_without_any_slot_nothing_opens(gateway: Gateway) -> None:
    filled(gateway)
    before = gateway.store.dump()
    for key in gateway.keys("slots/"):
        gateway.lose(key)
    with pytest.raises(GatewayError) as caught:
        gateway.open(gateway.elsewhere()).rebuild()
    assert caught.value.exit_code in (12, 13)
    gateway.store.load(before)


def test_without_any_wrap_a_chain_is_gone_and_the_others_are_not(gateway: Gateway) -> None:
    other = gateway.add_source("other")
    other.noise("kept", 1000)
    gateway.made("other")
    filled(gateway)
    for key in [*gateway.keys("chains/src/000001/wraps/"), *gateway.keys("keys/src-000001-")]:
        if not key.endswith("header"):
            gateway.lose(key)
    report = gateway.lose_state()
    assert report.problems
    assert [info.source for info in gateway.engine.generations()] == ["other"]
    assert gateway.restored("other") == tree(other.root)
    # The source begins anew, in a chain of the next number.
    made = gateway.made()
    assert made.chain == "src/000002"
    assert gateway.restored() == tree(gateway.source.root)
    gateway.healthy = False


def test_indexes_may_be_lost_or_damaged(gateway: Gateway) -> None:
    filled(gateway)
    keys = gateway.keys("chains/src/000001/index/")
    before = gateway.store.dump()
    for at, key in enumerate(keys):
        damage(gateway, key, "changed" if at % 2 else "lost")
    gateway.lose_state()
    assert gateway.restored() == tree(gateway.source.root)
    gateway.source.noise("c", 1000)
    gateway.made()
    assert gateway.restored() == tree(gateway.source.root)
    found = {each.address for each in gateway.verify()}
    assert set(keys) <= found
    gateway.close()
    for key in keys:
        gateway.lose(key) if key in gateway.store.dump() else None
        gateway.put_back(key, before[key])


def test_a_pack_and_its_index_gone_leave_the_rest_to_be_restored(gateway: Gateway) -> None:
    for number in range(12):
        gateway.source.noise(f"f{number:02d}", 120_000)
    gateway.made()
    pack = gateway.keys("packs/instant/")[0]
    gateway.lose(pack)
    gateway.lose(f"chains/src/000001/index/{pack.rpartition('/')[2]}")
    gateway.lose_state()
    assert gateway.engine.generations()[0].state == "incomplete"
    target, report = gateway.restore(incomplete=True, check=False)
    assert report.left_out
    whole, found = tree(gateway.source.root), tree(target)
    assert found
    assert all(whole[path] == node for path, node in found.items())
    assert found.keys() | {left.path for left in report.left_out} == whole.keys()
    gateway.healthy = False


def test_the_state_directory_may_be_a_new_one_at_any_time(gateway: Gateway) -> None:
    for number in range(3):
        gateway.source.noise(f"f{number}", 10_000)
        made = gateway.made()
        assert made.number == number + 1
        gateway.config = replace(gateway.config, state=StateConfig(directory=gateway.root / f"s{number}"))
        gateway.close()
        assert not gateway.engine.rebuild().problems
    assert gateway.restored() == tree(gateway.source.root)
