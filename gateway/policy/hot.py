"""When what was stored moves on to another storage class: until when it is readable without a thaw. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.policy.rolling import DAY_MS, transition


def cold_at(steps: tuple[int | str, ...], dated: int) -> int | None:
    """When a rule of a class moves an object of that date into a cold storage class; None: never. Times in ms.

    `dated` is what the store says of the object. S3 dates a multipart object by the start of its upload and counts from
    there, and rounds up to the next midnight UTC (S3 User Guide, "Understanding object expiration" and "Lifecycle
    configuration elements").
    """
    days = transition(steps)
    return None if days is None else -(-(dated + days * DAY_MS) // DAY_MS) * DAY_MS


def entered_at(steps: tuple[int | str, ...], storage_class: str, dated: int) -> int:
    """When an object of that date came into the storage class that it is in, by the rules of its class; its own date
    where these do not name it, or say that it was there from the first day. Times in ms. A class bills its least time
    from then on.
    """
    days = next((int(day) for day, name in zip(steps[::2], steps[1::2], strict=True) if name == storage_class), 0)
    return -(-(dated + days * DAY_MS) // DAY_MS) * DAY_MS if days else dated


def hot_until(steps: tuple[int | str, ...], dates: Iterable[int]) -> int | None:
    """Of all that a generation needs: when the first goes cold; None: nothing of it ever does."""
    oldest = min(dates, default=None)
    return None if oldest is None else cold_at(steps, oldest)
