"""A ledger: what is known in one process of the shared state of one key, and how to change it.

A change is a `Conversation`: what to ask of the server, and what its answers mean. It does no I/O
and takes no lock, so that a test can let several run into each other at every step.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ratekit.limits.rules import Price, Rule, State
from ratekit.limits.shared.turns import Turn
from ratekit.stores.memcached.wire import Command, Reply

__all__ = ["Conversation", "Ledger", "Want"]

Want = tuple[Rule, Price]
"""What one thread waits for."""


class Conversation(ABC):
    """One change or look. `result` is there once `hear` has returned True."""

    again = True
    """Whether what was asked may be asked twice, when a connection broke before the answer."""

    def __init__(self) -> None:
        self.result: Any = None

    @abstractmethod
    def ask(self, now: int) -> list[Command]:
        """Return what to send."""

    @abstractmethod
    def hear(self, replies: Sequence[Reply], now: int) -> bool:
        """Take in the replies, which came by `now`; return whether that was all."""


class Ledger(ABC):
    """The shared state of one key. Instants are of the common clock, a turn's of `time`."""

    @property
    @abstractmethod
    def held_until_ns(self) -> int:
        """Until when nothing is granted."""

    @abstractmethod
    def time(self, now: int) -> int:
        """Return the time by which turns are told, at an instant of the common clock."""

    @abstractmethod
    def due(self, at_ns: int) -> int:
        """Return the instant of the common clock at which it is that time."""

    @abstractmethod
    def estimate(self, rule: Rule, price: Price, before: Sequence[Want], now: int) -> int:
        """Return the earliest instant at which a permit could be had, by what was seen last."""

    @abstractmethod
    def empty(self, wants: Sequence[Want], now: int) -> None:
        """Take every bucket to be empty: what it held may have been given out twice."""

    @abstractmethod
    def reserve(self, wants: Sequence[Want]) -> Conversation:
        """Return what reserves a turn for each of `wants`; its result is a list of `Turn`.

        Without any it brings what is known of holds up to date.
        """

    @abstractmethod
    def look(self) -> Conversation:
        """Return what brings all that is known up to date."""

    @abstractmethod
    def hold(self, rule: Rule, length_ns: int) -> Conversation:
        """Return what sets a hold; its result is whether that was news."""

    @abstractmethod
    def raise_to(self, rule: Rule, floor: State) -> Conversation:
        """Return what counts at least what `floor` counts."""

    @abstractmethod
    def give_back(self, turns: Sequence[Turn]) -> Conversation:
        """Return what gives reserved turns back."""

    def answered(self, rule: Rule, price: Price, used_ns: int) -> Conversation | None:
        """Return what notes that an attempt was answered; None where nothing is noted."""
        return None

    def granted(self, turn: Turn, now: int) -> State:
        """Return the state that a grant tells of."""
        return self.state(turn.rule, now)

    def returned(self, rule: Rule, after: State, used_ns: int) -> object:
        """Return what `Turn.after` is to be for a permit that comes back."""
        return None

    @abstractmethod
    def state(self, rule: Rule, now: int) -> State:
        """Return the state as the rule knows it, by what was seen last."""
