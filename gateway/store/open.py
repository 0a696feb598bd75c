"""From a configuration to a store that retries."""

from __future__ import annotations

from gateway.clock import Clock
from gateway.config.values import DirectoryLocation, RepositoryConfig
from gateway.store.directory import DirectoryStore
from gateway.store.port import ObjectStore
from gateway.store.wrap import RetryingStore, RetryPolicy


def open_store(repository: RepositoryConfig, clock: Clock, policy: RetryPolicy | None = None) -> ObjectStore:
    """The store that `repository.url` names. Nothing is asked of it yet; `UsageError` when the settings cannot be."""
    location = repository.location
    if isinstance(location, DirectoryLocation):
        return RetryingStore(DirectoryStore(location.directory, clock), clock, policy)
    from gateway.store.s3 import S3Settings, S3Store

    settings = S3Settings(
        bucket=location.bucket, prefix=location.prefix, endpoint_url=repository.endpoint_url, region=repository.region,
        profile=repository.profile, addressing_style=repository.addressing_style.value,
    )  # fmt: skip
    return RetryingStore(S3Store(settings), clock, policy)
