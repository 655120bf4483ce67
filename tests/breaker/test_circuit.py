"""A circuit, stepped: when it opens, whom it lets through, when it closes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekit.circuit import (
    CLOSED,
    FORCED,
    Circuit,
    Trip,
    admit,
    close,
    counted,
    failed,
    idle_at,
    probed,
)
from ratekit.clock import SECOND
from ratekit.errors import ConfigurationError

S = SECOND


def trip(text: str = "50% of 10 in 30; 5 in a row", **others: int) -> Trip:
    """Give such a rule."""
    return Trip.read(
        text,
        **{
            "cooldown_ns": 30 * S, "longest_ns": 300 * S, "probes": 1, "successes": 2,
            "lease_ns": 60 * S, **others,
        },
    )  # fmt: skip


def opened(rule: Trip, now: int = S) -> Circuit:
    """Give a circuit that has just opened."""
    circuit = CLOSED
    for _ in range(5):
        circuit = failed(circuit, now, rule, generation=0)
    assert circuit.until
    return circuit


@pytest.mark.parametrize(
    ("text", "share", "calls", "window", "row"),
    [
        ("50% of 10 in 30", 0.5, 10, 30, 0),
        ("5 in a row", 1.0, 0, 30, 5),
        ("12.5% of 8 in 0.5 seconds; 3 in a row", 0.125, 8, 0.5, 3),
    ],
)
def test_a_trip_is_read(text: str, share: float, calls: int, window: float, row: int) -> None:
    """In the words of the configuration."""
    rule = trip(text)
    assert (rule.share, rule.calls, rule.window_ns, rule.row) == (share, calls, window * S, row)


@pytest.mark.parametrize("text", ["", "often", "0% of 10 in 30", "150% of 3 in 1", "0 in a row"])
def test_what_is_no_trip_says_so(text: str) -> None:
    """And what would be one."""
    with pytest.raises(ConfigurationError, match="5 in a row"):
        trip(text)


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not() -> None:
    """Four, a success, four: closed. A fifth: open."""
    rule, circuit = trip("5 in a row"), CLOSED
    for _ in range(4):
        circuit = failed(circuit, S, rule, generation=0)
    circuit = failed(circuit, S, rule, generation=0, after_success=True)
    for _ in range(3):
        circuit = failed(circuit, S, rule, generation=0)
    assert not circuit.until
    assert failed(circuit, S, rule, generation=0).until == 31 * S


def test_half_of_ten_calls_open_it_and_nine_are_too_few() -> None:
    """Successes are told with the next failure."""
    rule, circuit = trip("50% of 10 in 30"), CLOSED
    for _ in range(4):
        circuit = failed(circuit, S, rule, generation=0)
    assert not failed(circuit, S, rule, generation=0, oks=[(0, 4)]).until
    assert failed(circuit, S, rule, generation=0, oks=[(0, 5)]).until
    assert not failed(circuit, S, rule, generation=0, oks=[(0, 6)]).until


def test_an_hour_of_successes_does_not_outvote_an_outage() -> None:
    """What is older than the window is not counted."""
    rule, circuit, now = trip("50% of 10 in 30"), CLOSED, 3600 * S
    oks = [(part, 300) for part in range(1100)]
    circuit = failed(circuit, now, rule, generation=0, oks=oks)
    for _ in range(9):
        circuit = failed(circuit, now, rule, generation=0)
    assert circuit.until


def test_a_probe_goes_when_the_cooldown_is_over_and_not_a_nanosecond_before() -> None:
    """And no second one beside it."""
    rule = trip()
    circuit = opened(rule)
    assert admit(circuit, circuit.until - 1, rule) == (circuit, 0)
    probing, lease = admit(circuit, circuit.until, rule)
    assert lease
    assert admit(probing, circuit.until + 5, rule)[1] == 0


def test_successes_close_it_and_a_failure_opens_it_for_twice_as_long() -> None:
    """Up to the longest cooldown."""
    rule = trip()
    circuit = opened(rule)
    for cooldown in (60, 120, 240, 300, 300):
        now = circuit.until
        circuit, lease = admit(circuit, now, rule)
        circuit = probed(
            circuit, now, rule, generation=circuit.generation, lease=lease, succeeded=False
        )
        assert circuit.until == now + cooldown * S
    for _ in range(2):
        now = circuit.until
        circuit, lease = admit(circuit, now, rule)
        assert lease
        circuit = probed(
            circuit, now, rule, generation=circuit.generation, lease=lease, succeeded=True
        )
    assert circuit == close(circuit, now)._replace(generation=circuit.generation)


def test_the_server_may_ask_for_a_longer_cooldown() -> None:
    """A 503 with Retry-After."""
    rule = trip("1 in a row")
    assert failed(CLOSED, 0, rule, generation=0, least_ns=90 * S).until == 90 * S
    assert failed(CLOSED, 0, rule, generation=0, least_ns=9 * S).until == 30 * S


def test_what_began_before_a_change_does_not_count() -> None:
    """Late failures of before it opened, and late probes of an earlier cycle."""
    rule = trip()
    circuit = opened(rule)
    assert failed(circuit, 2 * S, rule, generation=0) == circuit
    probing, lease = admit(circuit, circuit.until, rule)
    late = probed(probing, circuit.until, rule, generation=0, lease=lease, succeeded=False)
    assert late == probing
    closed = close(circuit)
    assert failed(closed, circuit.until, rule, generation=0) == closed


def test_a_lost_probe_costs_time_and_not_the_circuit() -> None:
    """Another one goes when its lease is over; when it comes back after all, it does not count."""
    rule = trip()
    circuit = opened(rule)
    probing, lost = admit(circuit, circuit.until, rule)
    assert admit(probing, lost - 1, rule)[1] == 0
    again, lease = admit(probing, lost, rule)
    assert lease
    assert probed(again, lost, rule, generation=1, lease=lost, succeeded=False) == again


def test_a_probe_that_tells_nothing_gives_its_place_back() -> None:
    """It was throttled, or never made."""
    rule = trip()
    circuit = opened(rule)
    probing, lease = admit(circuit, circuit.until, rule)
    back = probed(probing, circuit.until, rule, generation=1, lease=lease, succeeded=None)
    assert back == circuit
    assert admit(back, circuit.until, rule)[1]


def test_a_closed_circuit_remembers_its_generation_beyond_the_longest_cooldown() -> None:
    """Or what began two generations ago would count again, and a look would find it still open."""
    rule = trip("50% of 10 in 30")
    assert idle_at(close(opened(trip()), 7 * S), rule) == 607 * S


def test_what_is_older_than_the_window_is_not_told() -> None:
    """Where failures stopped, none are left."""
    rule = trip("50% of 10 in 30")
    circuit = failed(CLOSED, 10 * S, rule, generation=0, oks=[(2, 6)])
    assert counted(circuit, 36 * S - 1, rule) == (1, 7)
    assert counted(circuit, 36 * S, rule) == (1, 1)
    assert counted(circuit, 39 * S, rule) == (0, 0)


@given(
    st.lists(st.tuples(st.integers(0, 40 * S), st.sampled_from("fpgbn")), max_size=80),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_no_more_probes_than_said_and_it_always_recovers(
    steps: list[tuple[int, str]], probes: int, successes: int
) -> None:
    """Whatever comes in whatever order."""
    rule = trip("3 in a row", probes=probes, successes=successes)
    circuit, now, out = CLOSED, S, dict[int, int]()
    for after, what in steps:
        now += after
        if what == "f":
            circuit = failed(circuit, now, rule, generation=circuit.generation)
        elif what == "p":
            circuit, lease = admit(circuit, now, rule)
            if lease:
                out[lease] = circuit.generation
            assert len([one for one in circuit.leases if one > now]) <= probes
        elif out:
            lease, generation = out.popitem()
            verdict = {"g": True, "b": False, "n": None}[what]
            circuit = probed(
                circuit, now, rule, generation=generation, lease=lease, succeeded=verdict
            )
        assert circuit.until <= now + rule.longest_ns
    now += 400 * S
    for _ in range(successes):
        if circuit.until:
            circuit, lease = admit(circuit, now, rule)
            assert lease
            circuit = probed(
                circuit, now, rule, generation=circuit.generation, lease=lease, succeeded=True
            )
    assert not circuit.until
    assert 0 <= idle_at(circuit, rule) < FORCED
