"""Every setting: in code, from `RATEKIT_` variables, or from a file with sections for hosts."""

from ratekit.config.fields import Config

__all__ = ["Config"]
