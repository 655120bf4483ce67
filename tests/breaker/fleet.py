"""One process of a fleet whose threads all ask while a circuit is half open.

`python fleet.py <store> <name> <seconds>`; prints how many of its calls reached the server.
"""

import sys
import threading
import time

from ratekit import CircuitBreaker, CircuitOpen
from ratekit.call import Call, Outcome
from ratekit.stores import Store

__all__ = ["HOST", "breaker_for"]

HOST = "https://api.example.com"
_THREADS = 6


def breaker_for(store: Store | str, name: str) -> CircuitBreaker:
    """Give the fleet's breaker: two probes at a time, every half second."""
    return CircuitBreaker(
        "1 in a row", cooldown=0.5, longest_cooldown=0.5, probes=2, name=name, store=store
    )


def main() -> None:
    """Ask all the time; whatever comes through takes a while, and fails."""
    breaker = breaker_for(sys.argv[1], sys.argv[2])
    until = time.monotonic() + float(sys.argv[3])
    reached: list[int] = []

    def attempt(call: Call) -> Outcome:
        reached.append(1)
        time.sleep(0.2)
        return Outcome(None, 500, {})

    def ask() -> None:
        while time.monotonic() < until:
            try:
                breaker.run(Call("GET", HOST, {}, key=HOST), attempt)
            except CircuitOpen:
                time.sleep(0.005)

    threads = [threading.Thread(target=ask) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdout.write(f"{len(reached)}\n")


if __name__ == "__main__":
    main()
