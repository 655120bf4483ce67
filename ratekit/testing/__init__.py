"""What ratekit is tested with, for your own tests: a fake clock and a loopback API server."""

from ratekit.testing.clock import FakeClock, instant
from ratekit.testing.server import Answer, ApiServer

__all__ = ["Answer", "ApiServer", "FakeClock", "instant"]
