"""What a number must be, said in one way wherever a user may set one."""

from ratekit.errors import ConfigurationError

__all__ = ["check_number", "check_positive"]


def check_number(what: str, value: object, *, unit: str = "a number") -> None:
    """Raise `ConfigurationError` unless `value` is a number from 0 up (infinity is one)."""
    # `not >=` instead of `<`: not-a-number compares false with everything.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ConfigurationError(f"{what} {value!r}: use {unit}, from 0 up")


def check_positive(what: str, value: object) -> None:
    """Raise `ConfigurationError` unless `value` is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e18:
        raise ConfigurationError(f"{what} {value!r}: use a number above 0")
