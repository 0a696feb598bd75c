"""The gateway's local database, and all its SQL.

Derived tables are a fold over the logs in the store and can be made anew at any time; local ones hold what only this
machine knows, and losing them costs time, never data. docs/design/catalog.md says which is which and what they cost.
"""

from gateway.catalog.catalog import Catalog
from gateway.catalog.database import TRANSACTIONS, set_aside
from gateway.catalog.derived import Given
from gateway.catalog.restores import (
    RestoreDone,
    RestoreJobRow,
    RestoreOrder,
    RestorePackRow,
    RestorePlanned,
)
from gateway.catalog.rows import (
    AuditRow,
    ChainRow,
    ChainRows,
    ChainState,
    EntryRow,
    GenerationKind,
    GenerationRow,
    GenerationState,
    Head,
    HoldRow,
    KnownFile,
    PackRow,
    PackState,
    PackUpload,
    Proof,
    UploadPart,
    UploadState,
)
from gateway.catalog.watching import (
    AlarmRow,
    BackupJobRow,
    JobState,
    MarkRow,
    Member,
    PendingRow,
    PendingState,
    ReleasedRow,
    ReleaseState,
)

__all__ = [
    "TRANSACTIONS",
    "AlarmRow",
    "AuditRow",
    "BackupJobRow",
    "Catalog",
    "ChainRow",
    "ChainRows",
    "ChainState",
    "EntryRow",
    "GenerationKind",
    "GenerationRow",
    "GenerationState",
    "Given",
    "Head",
    "HoldRow",
    "JobState",
    "KnownFile",
    "MarkRow",
    "Member",
    "PackRow",
    "PackState",
    "PackUpload",
    "PendingRow",
    "PendingState",
    "Proof",
    "ReleaseState",
    "ReleasedRow",
    "RestoreDone",
    "RestoreJobRow",
    "RestoreOrder",
    "RestorePackRow",
    "RestorePlanned",
    "UploadPart",
    "UploadState",
    "set_aside",
]
