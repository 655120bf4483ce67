"""What a server says of its limits: when to come back, what is left, and whether this was a no.

Whatever a server sends is read leniently and never raises: a value that makes no sense is the
same as none. `retry_after` reads when to come back, `read_quota` every window that the headers
name, `read_body` the few hints that stand in a body, `is_refusal` and `wait_of` what they mean.
"""

from ratekit.quota.bodies import NO_HINT, BodyHint, read_body
from ratekit.quota.refusals import is_refusal, wait_of
from ratekit.quota.retry import retry_after
from ratekit.quota.values import Quota
from ratekit.quota.windows import read_quota

__all__ = [
    "NO_HINT",
    "BodyHint",
    "Quota",
    "is_refusal",
    "read_body",
    "read_quota",
    "retry_after",
    "wait_of",
]
