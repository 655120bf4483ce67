"""What each setting takes, what it does not, and what an error says of it."""

import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest

from ratekit import Config, ConfigurationError
from ratekit.config.fields import SETTINGS

SECRET = "a secret of 16 bytes or more"  # noqa: S105
# What else must be said for a value to be right: a detail of what is off is an error.
BESIDE: dict[str, dict[str, Any]] = {
    "cache": {"cache_ttl": 60},
    "cache_ttl": {"cache": "rfc"},
    "cache_size": {"cache": "rfc"},
    "stale_if_error": {"cache": "ttl", "cache_ttl": 60},
    "namespace": {"store": "memcached://127.0.0.1"},
    "on_store_error": {"store": "memcached://127.0.0.1"},
}
GOOD: dict[str, list[tuple[str, Any]]] = {
    "limit": [
        ("100/minute", "100/minute"),
        ("10/second; 300/15 minutes window", "10/second; 300/15 minutes window"),
        ("off", None),
    ],
    "tiers": [
        ("free=60/minute", {"free": "60/minute"}),
        (
            "a=1/second; 9/hour fixed, b = 2/second",
            {"a": "1/second; 9/hour fixed", "b": "2/second"},
        ),
    ],
    "key": [
        ("origin", "origin"),
        ("credential", "credential"),
        ("/users/{id}; POST /search/{kind}; credential",) * 2,
    ],
    "name": [("example-api", "example-api")],
    "headroom": [("0.9", 0.9), ("90%", 0.9), ("1", 1)],
    "max_wait": [("30", 30), ("0.5", 0.5), ("0", 0), ("30 s", 30), ("off", None)],
    "max_retry_after": [("600", 600), ("0", 0), ("unlimited", math.inf)],
    "adapt": [("headers", "headers"), ("AIMD", "aimd"), ("off", "off")],
    "spend": [("even", "even"), ("greedy", "greedy")],
    "warn_below": [("20%", 0.2), ("0", 0)],
    "throttle_statuses": [("420", {420}), ("420, 430", {420, 430}), ("off", set())],
    "concurrency": [("8", 8), ("off", None)],
    "cache": [("rfc", "rfc"), ("ttl", "ttl"), ("off", "off")],
    "cache_ttl": [("60", 60), ("0", 0)],
    "cache_size": [("64 MiB", 64 << 20), ("500kB", 500_000), ("1000", 1000), ("1.5 GiB", 3 << 29)],
    "stale_if_error": [("3600", 3600)],
    "read_bodies": [("on", True), ("off", False)],
    "dedup": [("on", True), ("true", True), ("1", True), ("off", False), ("no", False)],
    "retry_attempts": [("6", 6), ("1", 1), ("off", 0)],
    "retry_base": [("0.1", 0.1)],
    "retry_cap": [("60", 60)],
    "retry_budget": [("20%", 0.2), ("0.2", 0.2), ("off", None)],
    "retry_statuses": [("502 503", {502, 503}), ("202", {202}), ("off", set())],
    "retry_methods": [("get, PUT", {"GET", "PUT"}), ("off", set())],
    "breaker": [("3 in a row", "3 in a row"), ("50% of 4 in 5; 5 in a row",) * 2, ("off", None)],
    "breaker_cooldown": [("5", 5), ("900", 900)],
    "refusal": [("raise", "raise"), ("response", "response")],
    "timeout": [("10", 10), ("3, 10.5", (3, 10.5)), ("off", False)],
    "deadline": [("60", 60), ("off", None)],
    "store": [
        ("memory:", "memory:"),
        ("memcached://10.0.0.5:11211,[::1]:11212",) * 2,
        ("memcached+unix:///run/ratekit.sock",) * 2,
    ],
    "namespace": [("staging", "staging")],
    "on_store_error": [("local", "local"), ("closed", "closed"), ("open", "open")],
    "secret": [(SECRET, SECRET.encode())],
    "log": [("debug", "debug"), ("off", "off")],
}
BAD: dict[str, list[Any]] = {
    "limit": ["many", "100", "0/minute", "100/fortnight", "100/minute often", 100, True],
    "tiers": ["free", "free=", "=1/second", "a=1/second, a=2/second", "free=lots", {}, {"a": 1}],
    "key": ["host", "users/{id}", "/users/{id", "origin; x", 5],
    "name": [7, "a\nb"],
    "headroom": ["0", "1.1", "-1", "110%", "x", "nan", True],
    "max_wait": ["-1", "nan", "inf", "soon", "5 min", True, []],
    "max_retry_after": ["-1", "off", "x"],
    "adapt": ["header", True],
    "spend": ["slowly", 1],
    "warn_below": ["2", "-1%", "x"],
    "throttle_statuses": ["200", "600", "4xx", 42, [True], "429.5"],
    "concurrency": ["0", "-1", "1.5", "many", True],
    "cache": ["on", "memory", True],
    "cache_ttl": ["-1", "forever"],
    "cache_size": ["0", "64 MX", "-1", "big", True],
    "stale_if_error": ["-1", "yes"],
    "read_bodies": ["maybe", 1],
    "dedup": ["maybe", 1, "2"],
    "retry_attempts": ["-1", "1.5", "x", True],
    "retry_base": ["-1", "x", "31"],
    "retry_cap": ["-1", "x", "0.1"],
    "retry_budget": ["2", "x", True],
    "retry_statuses": ["199", "5xx", "600", {"a": 1}],
    "retry_methods": ["GET;PUT", "2", [5]],
    "breaker": ["5", "120% of 10 in 30", "0 in a row", True],
    "breaker_cooldown": ["0", "-5", "x"],
    "refusal": ["ignore", False],
    "timeout": ["0", "-1", "1,2,3", "5,", "0,5", "x", True],
    "deadline": ["0", "-1", "x"],
    "store": ["redis://h", "memcached:/h", "memcached://h:port", "memcached://", 5],
    "namespace": [5],
    "on_store_error": ["ignore", "off"],
    "secret": ["short", 5],
    "log": ["loud", True],
}


def variable(name: str) -> str:
    """Return the variable of a setting."""
    return f"RATEKIT_{name.upper()}"


@pytest.mark.parametrize("table", [GOOD, BAD])
def test_every_setting_is_tested(table: dict[str, Any]) -> None:
    """A new one needs values of its own here."""
    assert table.keys() == SETTINGS.keys()


@pytest.mark.parametrize(
    ("name", "text", "value"), [(name, *pair) for name, pairs in GOOD.items() for pair in pairs]
)
def test_a_variable_reads_as_its_value(name: str, text: str, value: Any) -> None:
    """So does the same text in code; and the value itself, and what shows it, read as the value."""
    beside = BESIDE.get(name, {})
    config = Config.from_env(environ={variable(name): text}, **beside)
    assert getattr(config, name) == value
    assert config.source(name) == variable(name)
    in_code: dict[str, Any] = {name: text}
    assert getattr(Config(**in_code, **beside), name) == value
    again = Config(**{name: getattr(config, name)}, **beside)
    assert again == config
    assert hash(again) == hash(config)
    if name != "secret" and value is not None:
        shown: dict[str, Any] = {name: config.shown(name)}
        assert getattr(Config(**shown, **beside), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in BAD.items() for value in values if isinstance(value, str)],
)
def test_a_wrong_variable_is_named_with_its_value_and_the_remedy(name: str, value: str) -> None:
    """All three are in the message; of a secret only the name is."""
    with pytest.raises(ConfigurationError) as caught:
        Config.from_env(environ={variable(name): value}, **BESIDE.get(name, {}))
    said = str(caught.value)
    assert said.startswith(variable(name))
    assert "use " in said
    if name == "secret":
        assert value not in said
    else:
        # Of a list of tiers the wrong one alone.
        assert repr(value.rpartition("=")[2] if name == "tiers" else value)[1:-1] in said


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_a_wrong_value_in_code_or_in_a_file_is_named_by_its_place(
    name: str, value: Any, tmp_path: Path
) -> None:
    """In code by the field and the host; in a file by the file, the section and the key."""
    beside = BESIDE.get(name, {})
    with pytest.raises(ConfigurationError, match=f"^{name}"):
        Config(**{name: value}, **beside)
    if isinstance(value, dict):
        return
    said = f"{name} = {json.dumps(value)}\n"
    file = tmp_path / "ratekit.toml"
    file.write_text(said + "".join(f"{other} = {json.dumps(it)}\n" for other, it in beside.items()))
    with pytest.raises(ConfigurationError) as caught:
        Config.from_env(environ={"RATEKIT_CONFIG": str(file)})
    assert str(caught.value).startswith(f"{file}: {name}")
    if SETTINGS[name].process_wide:
        return
    file.write_text('[host."a.example.com"]\n' + file.read_text())
    with pytest.raises(ConfigurationError) as caught:
        Config.from_env(environ={"RATEKIT_CONFIG": str(file)})
    assert str(caught.value).startswith(f'{file} [host."a.example.com"]: {name}')


@pytest.mark.parametrize(
    ("settings", "wrong", "remedy"),
    [
        ({"limit": "gold"}, "RATEKIT_LIMIT 'gold'", "use a limit such as 100/minute"),
        ({"tiers": "a=1/second", "adapt": "off"}, "RATEKIT_TIERS", "set RATEKIT_LIMIT"),
        ({"cache": "ttl"}, "RATEKIT_CACHE 'ttl'", "set RATEKIT_CACHE_TTL"),
        ({"cache_ttl": "5"}, "RATEKIT_CACHE_TTL '5 s'", "RATEKIT_CACHE is not set"),
        ({"cache_size": "5"}, "RATEKIT_CACHE_SIZE '5 B'", "set that to rfc or ttl"),
        ({"stale_if_error": "5"}, "RATEKIT_STALE_IF_ERROR '5 s'", "set that to rfc or ttl"),
        ({"namespace": "n"}, "RATEKIT_NAMESPACE 'n'", "RATEKIT_STORE is not set"),
        ({"on_store_error": "open"}, "RATEKIT_ON_STORE_ERROR 'open'", "memcached://"),
        (
            {"store": "memcached://h", "cache": "rfc", "cache_size": "5"},
            "RATEKIT_CACHE_SIZE",
            "leave this out",
        ),
        ({"store": "memcached://h", "key": "credential"}, "RATEKIT_KEY", "set RATEKIT_SECRET"),
        ({"retry_cap": "0.1"}, "RATEKIT_RETRY_CAP '0.1 s'", "RATEKIT_RETRY_BASE of 0.5 s"),
    ],
)
def test_what_does_not_go_together_is_an_error(
    settings: dict[str, str], wrong: str, remedy: str
) -> None:
    """Nothing is accepted that would have no effect."""
    environ = {variable(name): text for name, text in settings.items()}
    with pytest.raises(ConfigurationError) as caught:
        Config.from_env(environ=environ)
    assert str(caught.value).startswith(wrong)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"cache": "off", "cache_ttl": 60, "cache_size": 5, "stale_if_error": 5},
        {"store": "memory:", "namespace": "n", "on_store_error": "open"},
        {"breaker": "off", "breaker_cooldown": 5},
    ],
)
def test_what_is_switched_off_may_keep_its_settings(settings: dict[str, Any]) -> None:
    """So one variable switches a part off, whatever a file says of it."""
    assert Config(**settings).pipeline().policies[0] is not None


def test_a_configuration_copies_and_hides_its_secrets() -> None:
    """It pickles, cannot be changed, and no text of it has the secret."""
    hosts = {"A.example.com": {"limit": "1/second", "secret": SECRET}}
    config = Config(secret=SECRET, tiers={"a": "1/second"}, key="credential", hosts=hosts)
    again = pickle.loads(pickle.dumps(config))  # noqa: S301
    assert (again, hash(again)) == (config, hash(config))
    assert SECRET not in repr(config) + str(config) + config.shown("secret")
    assert repr(config).endswith("{'a.example.com': {'limit': '1/second', 'secret': '***'}})")
    assert config.for_host("a.example.com").limit == "1/second"
    with pytest.raises(TypeError):
        config.hosts["b"] = {}  # type: ignore[index]


@pytest.mark.parametrize("text", ["memcached://ann:hunter2@h:1", "redis://ann:hunter2@h:1"])
def test_a_password_in_a_url_is_in_no_error(text: str) -> None:
    """The rest of the URL is, so that it can be found."""
    with pytest.raises(ConfigurationError, match=r"RATEKIT_STORE '\w+://\*\*\*@h:1'"):
        Config.from_env(environ={"RATEKIT_STORE": text})
