"""The exception tree.

Every error the gateway raises on purpose is a `GatewayError`. A class exists if somebody catches it or if it
has an exit code of its own::

    GatewayError                      1   failed: everything not named below
    ├── UsageError                    2   the command line or the configuration is wrong
    │   └── ConfigError               2   (all mistakes of a file at once)
    ├── PartialError                  3   done, but something was left out
    ├── NoRepository                 10   nothing (or something foreign) lies at the URL
    ├── LockHeld                     11   another process owns `state.dir`
    ├── WrongKey                     12   passphrase, sheet or key file does not open this repository
    ├── IntegrityError               13   damage: bytes are not what they must be
    │   ├── Corrupt                  13     an object is there and is wrong
    │   └── Missing                  13     an object the repository needs is not there
    ├── StoreError                   14   the store did not do what was asked
    │   ├── StoreUnreachable         14     no answer, or only retryable ones, within the time bound
    │   │   └── StoreAbsent          14     nobody is there: refused, no such host, not mounted
    │   ├── StoreDenied              14     credentials missing, wrong or not allowed
    │   ├── StoreRefused             14     a definite "no" that a retry cannot change
    │   ├── ClockSkew                14     the store says that our clock is wrong
    │   ├── ObjectMissing            14     no object of that name
    │   ├── ObjectExists             14     a conditional create found an object
    │   ├── ObjectCold               14     the object is frozen and must be thawed first
    │   ├── Conflict                 14     a concurrent write; ask again
    │   │   └── Overtaken            14     another writer's entry or chain stands where ours was to
    │   └── AnswerUnknown            14     the answer was lost: the request may or may not have worked
    ├── NewerFormat                  15   written by a newer version
    ├── NotReady                     20   thawing
    ├── ApprovalNeeded               21
    ├── OverBudget                   22
    ├── TargetError                   1   the restore target cannot take the bytes
    ├── SourceError                   1   a source's directory cannot be read
    ├── LocalStateError               1   disk full or broken below `state.dir`
    └── Stopped                       1   the engine was told to end; what was under way goes on at the next start

Missing, corrupt, denied, cold and busy are five different things; never fold one into another. Foreign exceptions
are translated once, at the door of the room that meets them (``raise ... from``).
"""

from __future__ import annotations

from typing import ClassVar


class GatewayError(Exception):
    """Says what happened, what it means and what to do; each part is one sentence or empty."""

    exit_code: ClassVar[int] = 1
    usual_advice: ClassVar[str] = ""
    """What to do where the place that raises it knows nothing better."""

    def __init__(self, what: str, *, meaning: str = "", advice: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.meaning = meaning
        self.advice = advice or self.usual_advice

    def __str__(self) -> str:
        return " ".join(part for part in (self.what, self.meaning, self.advice) if part)


class UsageError(GatewayError):
    exit_code = 2


class ConfigError(UsageError):
    """Every mistake of a configuration file, one line each: ``file:line:column: text``."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class PartialError(GatewayError):
    exit_code = 3


class NoRepository(GatewayError):
    exit_code = 10


class LockHeld(GatewayError):
    exit_code = 11


class WrongKey(GatewayError):
    exit_code = 12


class IntegrityError(GatewayError):
    exit_code = 13


class Corrupt(IntegrityError):
    """Bytes that fail a check. `address` names them: an object's key, or key and frame."""

    def __init__(self, what: str, *, address: str = "", meaning: str = "", advice: str = "") -> None:
        super().__init__(f"{address}: {what}" if address else what, meaning=meaning, advice=advice)
        self.address = address


class Missing(IntegrityError):
    """An object that another object promises is not in the store. `address` is its key."""

    def __init__(self, what: str, *, address: str = "", meaning: str = "", advice: str = "") -> None:
        super().__init__(f"{address}: {what}" if address else what, meaning=meaning, advice=advice)
        self.address = address


class StoreError(GatewayError):
    exit_code = 14


class StoreUnreachable(StoreError):
    """Retryable: no connection, 5xx, throttled, answer not understood. After the retries, final."""

    usual_advice = "Check the network and the store, then run the command again: it goes on where it was."


class StoreAbsent(StoreUnreachable):
    """Nobody is at the address; the request did not leave. Before the first answer the address is most likely wrong."""


class StoreDenied(StoreError):
    usual_advice = "Check the credentials and what the policies of identity and bucket allow."


class StoreRefused(StoreError):
    usual_advice = "Check what the store says against the configuration, then run the command again."


class ClockSkew(StoreError):
    usual_advice = "Set the clock (chrony, systemd-timesyncd) and run the command again."


class ObjectMissing(StoreError):
    usual_advice = "Run the command again; if it is still missing, `gateway verify` says what depends on it."


class ObjectExists(StoreError):
    usual_advice = "Make sure that no other program writes below the repository's prefix."


class ObjectCold(StoreError):
    usual_advice = "Thaw the object, then run the command again."


class Conflict(StoreError):
    usual_advice = "Run the command again; if that does not help, another program writes to the same objects."


class Overtaken(Conflict):
    """The log went on without us, a chain of our number was opened, or ours was ended: read the log again and decide
    anew."""


class AnswerUnknown(StoreError):
    """A write whose answer was lost. The caller looks at the store before it does anything else."""

    usual_advice = "Check the network and the store, then run the command again: it first looks what was done."


class NewerFormat(GatewayError):
    exit_code = 15


class NotReady(GatewayError):
    exit_code = 20


class ApprovalNeeded(GatewayError):
    exit_code = 21


class OverBudget(GatewayError):
    exit_code = 22


class TargetError(GatewayError):
    pass


class SourceError(GatewayError):
    pass


class LocalStateError(GatewayError):
    pass


class Stopped(GatewayError):
    usual_advice = "Start the engine again, or run the command without one."
