"""States as text: integers, and tuples and arrays of them, as JSON. No pickle.

Whatever comes back is untrusted: what is no state of ours reads as None.
"""

import json
from array import array
from typing import Any

from ratekit.stores import State

__all__ = ["dump", "load"]

_LONGEST = 65_536
_DEEPEST = 4
_RANGE = 1 << 63


def dump(state: State) -> bytes:
    """Return the text of a state."""
    return json.dumps(_plain(state), separators=(",", ":")).encode()


def load(text: bytes) -> State | None:
    """Return the state that a text says; None where it says none."""
    if len(text) > _LONGEST:
        return None
    try:
        return _state(json.loads(text), 0)
    except (ValueError, RecursionError):
        return None


def _plain(state: State) -> Any:
    if isinstance(state, array):
        return {"a": state.tolist()}
    if isinstance(state, tuple):
        return [_plain(part) for part in state]
    return state


def _state(plain: Any, depth: int) -> State:
    match plain:
        case bool() | float() | str() | None:
            raise ValueError
        case int() if -_RANGE <= plain < _RANGE:
            return plain
        case list() if depth < _DEEPEST:
            return tuple(_state(part, depth + 1) for part in plain)
        case {"a": list(numbers)} if len(plain) == 1:
            if not all(type(number) is int for number in numbers):
                raise ValueError
            try:
                return array("q", numbers)
            except OverflowError:
                raise ValueError from None
        case _:
            raise ValueError
