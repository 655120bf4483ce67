"""Bulk calls: what many threads ask for one by one, asked for together.

users = Batcher(fetch_users)       # fetch_users([1, 2, 3]) -> [ann, bob, eve]
user = users.load(17)              # on any thread
"""

from ratekit.batch.batcher import Batcher
from ratekit.batch.errors import (
    BatchError,
    BatchFull,
    BatchInterrupted,
    BatchTimeout,
    ItemError,
    MissingAnswer,
    TooLarge,
)
from ratekit.batch.jsonbatch import JsonBatch

__all__ = [
    "BatchError",
    "BatchFull",
    "BatchInterrupted",
    "BatchTimeout",
    "Batcher",
    "ItemError",
    "JsonBatch",
    "MissingAnswer",
    "TooLarge",
]
