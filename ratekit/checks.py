"""What a number must be, said in one way wherever a user may set one."""

from ratekit.errors import ConfigurationError

__all__ = ["check_number"]


def check_number(what: str, value: object, *, unit: str = "a number") -> None:
    """Raise `ConfigurationError` unless `value` is a number from 0 up (infinity is one)."""
    # `not >=` instead of `<`: not-a-number compares false with everything.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ConfigurationError(f"{what} {value!r}: use {unit}, from 0 up")
