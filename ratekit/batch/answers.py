"""What a bulk call returned, as one answer for each item."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from ratekit.batch.errors import BatchError, MissingAnswer, TooLarge, shown
from ratekit.batch.line import Entry

__all__ = ["answers_of", "is_too_large"]

_RIGHT = "return a list of one answer for each item, in their order, or a mapping {item: answer}"


def is_too_large(error: BaseException) -> bool:
    """Return whether fewer items could succeed: `TooLarge`, or a native error of status 413."""
    response = getattr(error, "response", None)
    return isinstance(error, TooLarge) or getattr(response, "status_code", None) == 413


def answers_of(entries: Sequence[Entry[Any, Any]], returned: object) -> list[Any]:
    """Return the answers in the order of the entries: a value, or the item's error.

    Raises `TooLarge` for a native response of status 413, and `BatchError` for anything that is
    not one answer for each.
    """
    status = getattr(returned, "status_code", None)
    if status == 413:
        raise TooLarge(f"a bulk call of {len(entries)} items was answered with status 413")
    if isinstance(returned, Mapping):
        return [_find(returned, entry) for entry in entries]
    plain = (str, bytes, bytearray, memoryview, AbstractSet)
    if status is not None or isinstance(returned, plain) or not isinstance(returned, Iterable):
        raise BatchError(f"send_many returned {shown(returned)}: {_RIGHT}")
    answers = list(returned)
    if len(answers) != len(entries):
        raise BatchError(
            f"send_many returned {len(answers)} answers for {len(entries)} items: {_RIGHT}"
        )
    return answers


def _find(answers: Mapping[Any, Any], entry: Entry[Any, Any]) -> Any:
    try:
        return answers[entry.key]
    except (KeyError, TypeError):
        # A TypeError: the item cannot be hashed, and so is in no mapping.
        return MissingAnswer(
            f"the bulk call has no answer for {shown(entry.item)}", item=entry.item
        )
