"""The bucket's lifecycle rules: compare, write, read back; looked at once a day.

What they should be is decided by `gateway.policy.lifecycle`. S3 replaces all rules of a bucket at once and without a
condition. CRASH: a kill before the PUT changes nothing, one after it leaves the rules as they should be; what is read
back says which.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from gateway import api
from gateway.api import BucketRule, LifecycleReport, RuleDrift, RuleDriftKind
from gateway.catalog import ChainState
from gateway.clock import milliseconds
from gateway.config.classes import ClassConfig
from gateway.errors import Corrupt, GatewayError, IntegrityError
from gateway.format import names
from gateway.format.log import ChainHeader
from gateway.jobs.alarms import Alarms, Kind
from gateway.jobs.context import Context
from gateway.model.ids import ChainName
from gateway.policy.lifecycle import LifecyclePlan, Rule, in_words, own_prefix, plan
from gateway.repository.chain import read_header
from gateway.store.lifecycle import Lifecycle
from gateway.store.s3_lifecycle import lifecycle_of, request_of

EVERY = timedelta(days=1)
AGAIN = timedelta(hours=1)
"""LIMIT: after a check that failed: the next one."""
READ_BACKS = 5
READ_BACK_SECONDS = 2.0
"""LIMIT: S3 may show new rules only after some time; so often, and so far apart, they are asked for."""
CHECKED = "lifecycle-checked"
"""Under this the catalog keeps when the rules were looked at last, in ms."""
SUBJECT = "bucket"


class Rules:
    """Of the bucket of one repository. Every method reads them anew. `StoreRefused`: the store has none."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.repository.store
        self._prefix = self._store.base.rstrip("/")
        # Headers never change: read once, however often the rules are.
        self._in_use: tuple[ClassConfig, ...] | None = None

    def plan(self) -> LifecycleReport:
        """What `apply` would do; `rules` are those there would be."""
        found = self._decide(self._store.get_lifecycle())
        return self._report(found, rules=found.after)

    def check(self, alarms: Alarms) -> LifecycleReport:
        """Compare, and open or close alarms."""
        found = self._decide(self._store.get_lifecycle())
        self._tell(found, alarms)
        self._context.catalog.set_meta(CHECKED, str(milliseconds(self._context.clock.now())))
        return self._report(found, rules=found.before)

    def apply(self, alarms: Alarms) -> LifecycleReport:
        """Write what differs, read it back and compare. What the store did not keep as it was sent is drift again."""
        before = self._decide(self._store.get_lifecycle())
        if not before.changes:
            self._tell(before, alarms)
            return self._report(before, rules=before.before)
        self._store.put_lifecycle(_values(before))
        self._context.log.info("lifecycle.written", rules=len(before.after), drift=[str(each) for each in before.drift])
        after, lost = self._read_back(before)
        for _ in range(READ_BACKS - 1):
            if not after.drift and not lost:
                break
            self._context.clock.sleep(READ_BACK_SECONDS)
            after, lost = self._read_back(before)
        for text in lost:
            self._context.log.error("lifecycle.rule_lost", problem=text)
        self._tell(after, alarms)
        return self._report(after, rules=after.before, written=True, notes=lost)

    # --- values ------------------------------------------------------------------------------------------------------

    def _decide(self, existing: Lifecycle) -> LifecyclePlan:
        sent = request_of(existing)
        return plan(
            self._prefix, self._used(), sent["LifecycleConfiguration"]["Rules"], in_use=self._living(),
            minimum_object_size=sent["TransitionDefaultMinimumObjectSize"],
        )  # fmt: skip

    def _used(self) -> tuple[ClassConfig, ...]:
        """Classes that a source names: one that nobody uses needs no rule."""
        config = self._context.config
        return tuple(config.class_named(name) for name in sorted({str(each.storage_class) for each in config.sources}))

    def _living(self) -> tuple[ClassConfig, ...]:
        """Classes as the headers of chains that have not ended fix them.

        A chain that does not open is passed over, with a word: what it needs nobody knows. At worst the rule of a class
        that no source uses goes, and the chain's packs stay where they are.
        """
        if self._in_use is None:
            found: dict[ClassConfig, None] = {}
            for row in self._context.catalog.chains():
                if row.state is ChainState.ENDED:
                    continue
                try:
                    found[_fixed(read_header(self._context.repository, row.chain), row.chain)] = None
                except IntegrityError as error:
                    self._context.log.error("chain.damaged", chain=str(row.chain), problem=str(error))
            self._in_use = tuple(found)
        return self._in_use

    def _read_back(self, before: LifecyclePlan) -> tuple[LifecyclePlan, tuple[str, ...]]:
        after = self._decide(self._store.get_lifecycle())
        return after, self._lost(before, after)

    def _lost(self, before: LifecyclePlan, after: LifecyclePlan) -> tuple[str, ...]:
        """Rules of others that are not there any more as they were."""
        ours = own_prefix(self._prefix)
        there = [in_words(rule) for rule in after.before]
        return tuple(
            f"the rule {rule.get('ID') or 'without a name'} of somebody else is not there as it was: {in_words(rule)}"
            for rule in before.before
            if not _is_own(rule, ours) and in_words(rule) not in there
        )

    def _report(
        self, found: LifecyclePlan, *, rules: Iterable[Rule], written: bool = False, notes: tuple[str, ...] = ()
    ) -> LifecycleReport:
        ours = own_prefix(self._prefix)
        return LifecycleReport(
            url=self._store.url,
            written=written,
            rules=tuple(
                BucketRule(rule=str(rule.get("ID") or ""), own=_is_own(rule, ours), does=in_words(rule))
                for rule in rules
            ),
            drift=tuple(
                RuleDrift(rule=each.rule, kind=RuleDriftKind(each.kind.value), wanted=each.wanted, found=each.found)
                for each in found.drift
            ),
            foreign=tuple(
                api.ForeignRule(
                    rule=each.rule, prefix=each.prefix, does=each.does, deletes=each.deletes, what=str(each)
                )
                for each in found.foreign
            ),
            conflicts=tuple(each.text for each in found.conflicts),
            notes=notes,
        )

    # --- alarms ------------------------------------------------------------------------------------------------------

    def _tell(self, found: LifecyclePlan, alarms: Alarms) -> None:
        """Drift is an alarm where packs depend on rules, or where somebody has once written ours.

        A bucket whose classes have no second step works without any.
        """
        ours = own_prefix(self._prefix)
        matters = any(len(each.steps) > 1 for each in (*self._used(), *self._living()))
        matters = matters or any(_is_own(rule, ours) for rule in found.before)
        drift = [str(each) for each in found.drift] if matters else []
        conflicts = [each.text for each in found.conflicts]
        alarms.set(
            Kind.DRIFT, SUBJECT, "; ".join((*conflicts, *drift)),
            meaning="Packs do not move to the storage classes that were promised, or move too early.",
            advice="Look at `gateway lifecycle plan`, then run `gateway lifecycle apply`.",
        )  # fmt: skip
        for each in found.foreign:
            alarms.open(
                Kind.FOREIGN, each.rule, str(each),
                meaning="It deletes what restores need." if each.deletes
                else "It acts on objects that only the gateway should act on.",
                advice="Change or remove it, or give the repository a bucket of its own; the gateway never changes it.",
            )  # fmt: skip
        there = {each.rule for each in found.foreign}
        for alarm in self._context.catalog.open_alarms():
            if alarm.kind == Kind.FOREIGN and alarm.subject not in there:
                alarms.close(Kind.FOREIGN, alarm.subject)


@dataclass(slots=True)
class DailyCheck:
    """Looks at the rules once a day, by the clock, also across restarts. Called by the one thread that works."""

    alarms: Alarms
    _failed: int | None = field(init=False, default=None)

    def due(self, context: Context) -> bool:
        """Never for a store without classes: it has no rules either."""
        if not context.repository.store.knows_classes:
            return False
        now = milliseconds(context.clock.now())
        if self._failed is not None:
            return now - self._failed >= AGAIN // timedelta(milliseconds=1)
        last = int(context.catalog.meta(CHECKED) or 0)
        # A clock that was set back must not put the check off.
        return last > now or now - last >= EVERY // timedelta(milliseconds=1)

    def turn(self, context: Context) -> None:
        """Never raises what a store or a damaged chain can cause: the next try is in an hour."""
        try:
            report = Rules(context).check(self.alarms)
        except GatewayError as error:
            self._failed = milliseconds(context.clock.now())
            context.log.warning("lifecycle.not_checked", problem=str(error))
            return
        self._failed = None
        context.log.info("lifecycle.checked", drift=len(report.drift), foreign=len(report.foreign))


def _values(found: LifecyclePlan) -> Lifecycle:
    answer: dict[str, Any] = {"Rules": list(found.after)}
    answer["TransitionDefaultMinimumObjectSize"] = found.minimum_object_size
    return lifecycle_of(answer)


def _is_own(rule: Rule, ours: str) -> bool:
    return str(rule.get("ID") or "").startswith(ours)


def _fixed(header: ChainHeader, chain: ChainName) -> ClassConfig:
    """The class as a header has it."""
    flat = header.steps
    steps = tuple((int(day), str(storage)) for day, storage in zip(flat[::2], flat[1::2], strict=True))
    try:
        return ClassConfig(name=header.storage, steps=steps, hot_days=header.hot_days, chain_days=header.chain_days)
    except ValueError as error:
        raise Corrupt(f"its class contradicts itself: {error}", address=names.header(chain)) from error
