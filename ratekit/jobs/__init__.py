"""Bulk and background work over threads: many calls, one result for each, whatever fails."""

from ratekit.jobs.journal import Journal, Saved
from ratekit.jobs.pool import Jobs
from ratekit.jobs.work import Result

__all__ = ["Jobs", "Journal", "Result", "Saved"]
