"""Policies and pipelines: the order of the road, and what can not be built."""

import copy
import pickle

import pytest

import ratekit
from ratekit import (
    Cache,
    ConfigurationError,
    Dedup,
    Pipeline,
    Policy,
    RateLimiter,
    Retry,
    options,
)
from ratekit.call import Call, Outcome, Proceed


class Note(Policy):
    """Writes down when it is entered and left."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        """Note, go on, note."""
        self.notes.append(f"{self.name} in")
        outcome = proceed(call)
        self.notes.append(f"{self.name} out")
        return outcome


def ok(call: Call) -> Outcome:
    """Answer."""
    return Outcome("value", 200, {})


def test_the_first_policy_is_the_outermost() -> None:
    """Policies nest in the order in which they are written."""
    notes: list[str] = []
    pipeline = Pipeline(Note("a", notes), Pipeline(Note("b", notes)), Note("c", notes))
    assert pipeline.run(Call("GET", "", {}, key=""), ok).value == "value"
    assert notes == ["a in", "b in", "c in", "c out", "b out", "a out"]


def test_an_empty_pipeline_only_makes_the_attempt() -> None:
    """Nothing is not an error."""
    assert Pipeline().run(Call("GET", "", {}, key=""), ok).value == "value"


def test_a_pipeline_decorates_a_function() -> None:
    """Each call runs through all policies, with its own arguments."""
    notes: list[str] = []

    @Pipeline(Note("a", notes))
    def add(one: int, *, two: int) -> int:
        """Add."""
        return one + two

    assert add(1, two=2) == 3
    assert add.__doc__ == "Add."
    assert notes == ["a in", "a out"]


def test_a_coroutine_function_is_refused() -> None:
    """ratekit is synchronous; a decorated coroutine would be let through unlimited."""

    async def fetch() -> None: ...

    with pytest.raises(ConfigurationError, match="decorate a plain function"):
        RateLimiter("1/second")(fetch)


def test_a_policy_twice_is_refused() -> None:
    """Also where one of the two hides in a pipeline inside the pipeline."""
    limiter = RateLimiter("1/second")
    with pytest.raises(ConfigurationError, match="stands twice"):
        Pipeline(limiter, limiter)
    inner = Pipeline(Retry(), limiter)
    with pytest.raises(ConfigurationError, match="one pipeline inside itself"):
        Pipeline(inner, inner)


def test_a_retry_below_the_limiter_is_refused() -> None:
    """Its repeats would pass unseen; the message shows the right order."""
    with pytest.raises(ConfigurationError, match=r"put it further out: Pipeline\(Retry\(\)"):
        Pipeline(RateLimiter("1/second"), Retry())


@pytest.mark.parametrize("wrong", ["100/minute", None, Retry, 5])
def test_what_is_no_policy_is_refused(wrong: object) -> None:
    """With an example of what is one."""
    with pytest.raises(ConfigurationError, match=r"is not a policy.*Retry\(\)"):
        Pipeline(wrong)  # type: ignore[arg-type]


def test_options_of_a_pipeline_are_the_defaults_of_its_calls() -> None:
    """A `with` block goes before them, and a request's own before both."""
    pipeline = Pipeline(options=options(max_wait=1, key="a", deadline=5))
    assert pipeline.options_here().max_wait == 1
    with options(max_wait=2, key="b"):
        here = pipeline.options_here(options(max_wait=3))
    assert (here.max_wait, here.key, here.deadline) == (3, "b", 5)
    outer = Pipeline(pipeline, options=options(max_wait=9))
    assert (outer.options.max_wait, outer.options.deadline) == (9, 5)
    with pytest.raises(ConfigurationError, match=r"use ratekit.options\(...\)"):
        Pipeline(options={"max_wait": 1})  # type: ignore[arg-type]


def test_a_pickled_pipeline_is_the_same_one_in_its_own_process() -> None:
    """A copied session must not come with a second budget."""
    pipeline = Pipeline(Retry(), RateLimiter("1/minute"))
    assert pickle.loads(pickle.dumps(pipeline)) is pipeline  # noqa: S301  (our own bytes)
    assert copy.deepcopy(pipeline) is pipeline


def test_copies_that_reach_another_process_share_one_budget_there() -> None:
    """However many sessions bring it along, and though none of them lives on."""
    pipeline = Pipeline(RateLimiter("1/minute"))
    data = pickle.dumps(pipeline)
    del pipeline
    first = pickle.loads(data)  # noqa: S301
    assert first.policies[0].check("k")
    del first
    assert not pickle.loads(data).policies[0].check("k")  # noqa: S301


def test_everything_says_what_it_is() -> None:
    """A repr is enough to know a pipeline by."""
    pipeline = Pipeline(Retry(attempts=2), RateLimiter("1/minute", name="api"))
    assert repr(pipeline) == ("Pipeline(Retry(attempts=2), RateLimiter('1/minute', name='api'))")


def test_the_public_names_are_those_of_the_module() -> None:
    """Nothing is missing, and nothing leaks."""
    for name in ratekit.__all__:
        assert getattr(ratekit, name) is not None


@pytest.mark.parametrize("policy", [Cache(), Dedup()], ids=repr)
def test_what_answers_by_itself_stands_before_what_counts(policy: Policy) -> None:
    """A hit that costs a permit is a mistake in the order, which a pipeline does not accept."""
    with pytest.raises(ConfigurationError, match="put it further out"):
        Pipeline(RateLimiter("1/second"), policy)
    assert Pipeline(policy, RateLimiter("1/second")).policies
