"""The one place that retries.

What is tried again, and when an unclear answer is looked at instead, is the same for every store:

* `StoreUnreachable` and `Conflict`: again, after a wait of full jitter below an exponentially growing bound.
* `AnswerUnknown` of a put or a completion: look at the store first, then either it is done or it is tried again.
* `AnswerUnknown` of a part, a delete, an abort, a thaw, of lifecycle rules: again; doing them twice is doing them once.
  Of a start of an upload: again; what the first may have begun holds no parts and goes with the old uploads.
* `StoreAbsent` before the first answer of all: only for `ABSENT`; a mistyped address must not keep anybody waiting.
  Once the store has answered, it is an outage like any other.
* Everything else, `ClockSkew` and `StoreDenied` included, is final at once: asking again changes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from gateway.clock import Clock
from gateway.errors import (
    AnswerUnknown,
    Conflict,
    Corrupt,
    ObjectCold,
    ObjectExists,
    ObjectMissing,
    StoreAbsent,
    StoreError,
    StoreUnreachable,
)
from gateway.store.crc import crc64 as crc64_of
from gateway.store.lifecycle import Lifecycle
from gateway.store.passing import PassingStore
from gateway.store.port import ObjectFacts, ObjectStore, Part, ThawAnswer, ThawTier, Upload

T = TypeVar("T")

# How much of an object is held in memory while it is read back for comparison.
_READ_BACK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long a call is tried.

    The wait before try n + 1 is drawn evenly between 0 and ``min(longest_wait, first_wait * 2 ** (n - 1))`` ("full
    jitter": many gateways that were thrown out together do not come back together). No try begins when `tries` are
    used up, or when its wait would pass `total` since the first. Progress of a listing starts the count anew.

    LIMIT: the defaults ride out 5 minutes of an unreachable store; longer outages are the job's, which resumes.
    """

    tries: int = 12
    first_wait: timedelta = timedelta(seconds=0.5)
    longest_wait: timedelta = timedelta(seconds=60)
    total: timedelta = timedelta(minutes=5)

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ValueError("at least one try")
        if min(self.first_wait, self.longest_wait, self.total) < timedelta(0):
            raise ValueError("waits are not negative")


ABSENT = timedelta(seconds=10)
"""LIMIT: how long a store that never answered yet is looked for: enough for a name server or a mount that wakes up."""


class _Budget:
    """The tries of one call. `answered`: whether the store has ever answered."""

    def __init__(self, clock: Clock, policy: RetryPolicy, answered: Callable[[], bool]) -> None:
        self._clock = clock
        self._policy = policy
        self._answered = answered
        self._began = clock.monotonic()
        self._used = 1

    def wait(self, error: StoreError) -> None:
        """Sleep until the next try may begin, or raise `error` when there is none left."""
        policy = self._policy
        if isinstance(error, StoreAbsent) and not self._answered():
            policy = replace(policy, total=min(policy.total, ABSENT))
        if self._used >= policy.tries:
            raise error
        bound = min(policy.longest_wait.total_seconds(), policy.first_wait.total_seconds() * 2.0 ** (self._used - 1))
        pause = self._clock.uniform(0.0, bound)
        if self._clock.monotonic() - self._began + pause > policy.total.total_seconds():
            raise error
        self._used += 1
        self._clock.sleep(pause)


class _Turn:
    """A lock and how many hold it or wait for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders = 0


class RetryingStore(PassingStore):
    """Any store, with retries. What it raises is final.

    Never raised: `AnswerUnknown`, unless the store could not be looked at until the policy's end; then nothing is
    known and the caller must look later. `StoreUnreachable` and `Conflict` only after the last try.
    """

    def __init__(self, inner: ObjectStore, clock: Clock, policy: RetryPolicy | None = None) -> None:
        super().__init__(inner)
        self._clock = clock
        self._policy = policy or RetryPolicy()
        self._lock = threading.Lock()
        self._completing: dict[str, _Turn] = {}
        self._answered = False

    def _budget(self) -> _Budget:
        return _Budget(self._clock, self._policy, lambda: self._answered)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Around a request: whatever comes back, an error too, shows that somebody is there."""
        try:
            yield
        except StoreAbsent:
            raise
        except StoreError:
            self._answered = True
            raise
        self._answered = True

    def _repeat(self, call: Callable[[], T], budget: _Budget | None = None) -> T:
        """For calls that may be done twice."""
        budget = budget or self._budget()
        while True:
            try:
                with self._asking():
                    return call()
            except (StoreUnreachable, Conflict, AnswerUnknown) as error:
                budget.wait(error)

    def put(
        self,
        key: str,
        data: bytes | memoryview,
        *,
        crc64: int,
        storage_class: str = "STANDARD",
        if_absent: bool = False,
    ) -> ObjectFacts:
        """As the port says. With `if_absent` an object that is found after an unclear answer is taken for ours only
        if it was read back and is byte for byte `data`; else it is `ObjectExists`.
        """
        budget = self._budget()
        unclear = False
        while True:
            try:
                with self._asking():
                    return self.inner.put(key, data, crc64=crc64, storage_class=storage_class, if_absent=if_absent)
            except (StoreUnreachable, Conflict) as error:
                failure: StoreError = error
            except AnswerUnknown as error:
                failure = error
                unclear = True
                found = self._look(key, budget, error)
                if found is not None:
                    if self._is_ours(found, data, crc64, exact=if_absent, budget=budget, unclear=error):
                        return found
                    if if_absent:
                        raise ObjectExists(f"There is already another object {key} in {self.url}.") from error
            except ObjectExists as error:
                if not unclear:
                    raise
                found = self._look(key, budget, AnswerUnknown(error.what))
                if found is None:
                    failure = Conflict(f"{key} in {self.url} existed, and is gone again.")
                elif self._is_ours(found, data, crc64, exact=True, budget=budget, unclear=error):
                    return found
                else:
                    raise
            budget.wait(failure)

    def _look(self, key: str, budget: _Budget, unclear: AnswerUnknown) -> ObjectFacts | None:
        """What lies under a name after an unclear answer; None: nothing. Cannot look: the answer stays unclear."""
        try:
            return self._repeat(lambda: self.inner.head(key), budget)
        except ObjectMissing:
            return None
        except StoreError as error:
            raise unclear from error

    def _is_ours(
        self,
        found: ObjectFacts,
        data: bytes | memoryview,
        crc64: int,
        *,
        exact: bool,
        budget: _Budget,
        unclear: StoreError,
    ) -> bool:
        """Whether the object found is the one that was sent; by its bytes when `exact` or no checksum is stated."""
        if found.size != len(data) or (found.crc64 is not None and found.crc64 != crc64):
            return False
        if found.crc64 is not None and not exact:
            return True
        try:
            return self._repeat(lambda: self.inner.get(found.key), budget) == data
        except (Corrupt, ObjectCold, ObjectMissing):
            return False  # not proven
        except StoreError as error:
            raise unclear from error

    def put_file(
        self, key: str, path: Path, *, size: int, crc64: int, storage_class: str = "STANDARD"
    ) -> ObjectFacts | None:
        return self._repeat(lambda: self.inner.put_file(key, path, size=size, crc64=crc64, storage_class=storage_class))

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        return self._repeat(lambda: self.inner.get(key, start=start, length=length))

    def head(self, key: str) -> ObjectFacts:
        return self._repeat(lambda: self.inner.head(key))

    def list_objects(self, prefix: str, *, after: str = "") -> Iterator[ObjectFacts]:
        """As the port says; a listing that breaks off goes on behind the last object it gave."""
        budget = self._budget()
        while True:
            begun_after = after
            try:
                for facts in self.inner.list_objects(prefix, after=after):
                    after = facts.key
                    self._answered = True
                    yield facts
                self._answered = True
                return
            except (StoreUnreachable, Conflict) as error:
                if after != begun_after:
                    budget = self._budget()
                budget.wait(error)

    def delete(self, key: str) -> None:
        self._repeat(lambda: self.inner.delete(key))

    def start_upload(self, key: str, *, storage_class: str = "STANDARD") -> str:
        return self._repeat(lambda: self.inner.start_upload(key, storage_class=storage_class))

    def put_part(self, key: str, upload_id: str, number: int, data: bytes | memoryview, *, crc64: int) -> Part:
        return self._repeat(lambda: self.inner.put_part(key, upload_id, number, data, crc64=crc64))

    def list_parts(self, key: str, upload_id: str) -> list[Part]:
        return self._repeat(lambda: self.inner.list_parts(key, upload_id))

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part], *, size: int, crc64: int) -> ObjectFacts:
        """As the port says. `ObjectMissing`: the upload is unknown *and* the object is not there: send it anew.

        After an unclear answer it looks twice, with a wait in between, before the request is sent again: the store
        may still be working on the first one. Completions of one name are never on their way twice at once.
        """
        budget = self._budget()
        with self._alone(key):
            while True:
                try:
                    return self.inner.complete_upload(key, upload_id, parts, size=size, crc64=crc64)
                except (StoreUnreachable, Conflict) as error:
                    budget.wait(error)
                except AnswerUnknown as error:
                    done = self._completed(key, upload_id, size, crc64, budget, error)
                    if done is None:
                        budget.wait(error)
                        done = self._completed(key, upload_id, size, crc64, budget, error)
                    if done is not None:
                        return done
                except ObjectMissing as error:
                    found = self._look(key, budget, AnswerUnknown(error.what))
                    if found is not None and self._is_whole(found, size, crc64, budget, error):
                        return found
                    raise

    def _completed(
        self, key: str, upload_id: str, size: int, crc64: int, budget: _Budget, unclear: AnswerUnknown
    ) -> ObjectFacts | None:
        """The finished object, or None while the upload is still open. Neither: `ObjectMissing`."""
        found = self._look(key, budget, unclear)
        if found is not None and self._is_whole(found, size, crc64, budget, unclear):
            return found
        try:
            self._repeat(lambda: self.inner.list_parts(key, upload_id), budget)
        except ObjectMissing:
            # It may have been finished between the two looks.
            found = self._look(key, budget, unclear)
            if found is not None and self._is_whole(found, size, crc64, budget, unclear):
                return found
            raise
        except StoreError as error:
            raise unclear from error
        return None

    def _is_whole(self, found: ObjectFacts, size: int, crc64: int, budget: _Budget, unclear: StoreError) -> bool:
        """Whether the object found has this size and checksum, as the store states it or as it reads back."""
        if found.size != size:
            return False
        if found.crc64 is not None:
            return found.crc64 == crc64
        crc = 0
        try:
            for start in range(0, size, _READ_BACK_BYTES):
                length = min(_READ_BACK_BYTES, size - start)
                piece = self._repeat(partial(self.inner.get, found.key, start=start, length=length), budget)
                crc = crc64_of(piece, crc)
        except (Corrupt, ObjectCold, ObjectMissing):
            return False
        except StoreError as error:
            raise unclear from error
        return crc == crc64

    @contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        """One completion of a name at a time."""
        with self._lock:
            turn = self._completing.setdefault(key, _Turn())
            turn.holders += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._lock:
                turn.holders -= 1
                if not turn.holders:
                    del self._completing[key]

    def abort_upload(self, key: str, upload_id: str) -> None:
        self._repeat(lambda: self.inner.abort_upload(key, upload_id))

    def list_uploads(self, prefix: str) -> list[Upload]:
        return self._repeat(lambda: self.inner.list_uploads(prefix))

    def thaw(self, key: str, *, days: int, tier: ThawTier) -> ThawAnswer:
        """As the port says. After a lost answer RUNNING is the first request's success. NO_CAPACITY is an answer:
        whether to ask again or in a slower tier is the caller's to decide.
        """
        return self._repeat(lambda: self.inner.thaw(key, days=days, tier=tier))

    def get_lifecycle(self) -> Lifecycle:
        return self._repeat(self.inner.get_lifecycle)

    def put_lifecycle(self, lifecycle: Lifecycle) -> None:
        self._repeat(lambda: self.inner.put_lifecycle(lifecycle))
