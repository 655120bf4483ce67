"""Every window that an answer's headers tell of: `read_quota`.

Most answers tell of none, and all are asked: so one pass looks for a word that all such headers
have in their names, and nothing else is done where it is missing.
"""

from collections.abc import Iterable, Mapping

from ratekit.quota.times import Receipt
from ratekit.quota.values import Quota
from ratekit.quota.vendors import Reader, place_of

__all__ = ["read_quota"]

# Whatever a server sends, reading it is a bounded amount of work.
_LONGEST_NAME = 100
_LONGEST_VALUE = 1024
_MOST_FIELDS = 64
_MOST_WINDOWS = 16

_MARK = "limit"
_RAW_MARK = b"limit"
_RAW_OTHERS = (b"age", b"date")


def read_quota(
    status: int,
    headers: Mapping[str, str],
    *,
    now: float | None = None,
    milliseconds: bool = False,
) -> tuple[Quota, ...]:
    """Return every window that `headers` tell of, the tightest first; at most 16. Never raises.

    First stand those that are exhausted, the longest wait before the others; then those of which
    the smallest share is left; then those of which only the rest is known, the smallest first.
    An answer that a cache has kept for a while (`Age`) tells nothing of now: it has none.

    `headers` is any mapping that ignores case, those of requests and httpx are read faster; `now`
    stands in for the wall clock; `milliseconds`: this server's resets are, where others' are
    seconds.
    """
    fields, headers = _fields(headers)
    if not fields or _is_old(headers.get("age")):
        return ()
    windows: dict[tuple[Reader, str, str], dict[str, str]] = {}
    for name, value in fields[:_MOST_FIELDS]:
        if len(name) > _LONGEST_NAME or not isinstance(value, str) or len(value) > _LONGEST_VALUE:
            continue
        place = place_of(name)
        if place is not None:
            window, slot = place
            if milliseconds and slot == "reset":
                slot = "reset-ms"
            said = windows.setdefault(window, {})
            # A header that came in several lines is one list.
            said[slot] = f"{said[slot]}, {value}" if slot in said else value.strip()
    if not windows:
        return ()
    at = Receipt(headers, now)
    quotas: list[Quota] = []
    for (reader, _, dimension), said in windows.items():
        # A limit of nothing that let this answer through is none.
        quotas += [
            quota for quota in reader(said, dimension, at) if quota.limit != 0 or status >= 400
        ]
        if len(quotas) >= _MOST_WINDOWS:
            del quotas[_MOST_WINDOWS:]
            break
    if len(quotas) < 2:
        return tuple(quotas)
    return tuple(sorted(_merged(quotas), key=_tightness))


def _fields(headers: Mapping[str, str]) -> tuple[list[tuple[str, str]], Mapping[str, str]]:
    """Return the headers that might tell of a limit, in small letters, and where the others are."""
    lower_items = getattr(headers, "lower_items", None)
    if lower_items is not None:
        # requests keeps the small letters. Its own way to them costs more than all the rest here.
        store = getattr(headers, "_store", None)
        try:
            if isinstance(store, dict) and _MARK not in "\n".join(store):
                return [], headers
            return [field for field in lower_items() if _MARK in field[0]], headers
        except TypeError:
            # A name that is no text, as only a stand-in for a server has it.
            pass
    raw = getattr(headers, "raw", None)
    if not isinstance(raw, list):
        return [
            (name.lower(), value)
            for name, value in headers.items()
            if isinstance(name, str) and _MARK in name.lower()
        ], headers
    # httpx keeps bytes, and looking up one name costs it as much as this whole pass.
    if _RAW_MARK not in b"\n".join([name for name, _ in raw]).lower():
        return [], headers
    fields: list[tuple[str, str]] = []
    others: dict[str, str] = {}
    for name, value in raw:
        lower = name.lower()
        if _RAW_MARK in lower:
            fields.append((lower.decode("latin-1"), value.decode("latin-1")))
        elif lower in _RAW_OTHERS:
            others.setdefault(lower.decode(), value.decode("latin-1"))
    return fields, others


def _is_old(age: str | None) -> bool:
    return isinstance(age, str) and age.strip().isdecimal() and bool(age.strip(" 0"))


def _merged(quotas: Iterable[Quota]) -> list[Quota]:
    """Return `quotas`, each once: many servers say the same in two families of headers."""
    kept: list[Quota] = []
    for quota in quotas:
        for place, other in enumerate(kept):
            if _are_one(quota, other):
                kept[place] = _union(quota, other)
                break
        else:
            kept.append(quota)
    return kept


def _are_one(one: Quota, other: Quota) -> bool:
    if one.limit is None or one.limit != other.limit or one.unit != other.unit:
        return False
    if one.name != other.name and (
        (one.name and other.name) or one.remaining is None or other.remaining is None
    ):
        return False
    return all(
        mine is None or theirs is None or mine == theirs
        for mine, theirs in (
            (one.remaining, other.remaining),
            (one.window, other.window),
            (one.partition, other.partition),
        )
    )


def _union(one: Quota, other: Quota) -> Quota:
    resets = [quota.reset for quota in (one, other) if quota.reset is not None]
    return Quota(
        one.limit,
        other.remaining if one.remaining is None else one.remaining,
        # Neither is too early; the later one is so by rounding.
        min(resets, default=None),
        other.window if one.window is None else one.window,
        one.name or other.name,
        one.partition or other.partition,
        one.unit,
        one.scope or other.scope,
    )


def _tightness(quota: Quota) -> tuple[int, float]:
    if quota.remaining is None:
        return 3, 0.0
    if not quota.remaining:
        return 0, -(quota.reset or 0.0)
    return (1, quota.remaining / quota.limit) if quota.limit else (2, quota.remaining)
