"""`ratekit config` and `ratekit explain`: what is in force, and what it means for a request."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ratekit import Config
from ratekit.cli import commands
from ratekit.config.fields import SETTINGS
from ratekit.config.tables import in_force, markdown
from ratekit.explain import explained

SECRET = "sixteen-or-more-bytes"  # noqa: S105
HOST = '[host."api.example.com"]'
URL = "https://api.example.com/users/7?q=a-private-one"

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a file with one section."""
    path = tmp_path / "ratekit.toml"
    path.write_text(f'limit = "100/minute"\nmax_wait = 9\n{HOST}\nlimit = "1000/hour window"\n')
    return path


@pytest.fixture
def run() -> Run:
    """Run a command in an environment; return how it ended and what it printed."""

    def run(*arguments: str, **environ: str) -> tuple[int, str]:
        names = {f"RATEKIT_{name}": value for name, value in environ.items()}
        done = CliRunner().invoke(commands(), arguments, env=names)
        return done.exit_code, done.output

    return run


def told(text: str) -> dict[str, str]:
    """Return what stands beside each label, on one line."""
    rows: dict[str, str] = {}
    label = ""
    for line in text.splitlines()[2:]:
        label = line[:17].strip() or label
        rows[label] = f"{rows.get(label, '')} {line[17:].strip()}".strip()
    return rows


def test_config_tells_every_value_and_its_source(run: Run, file: Path) -> None:
    """The default, the file with its section, or the variable; in 80 columns, without a secret."""
    code, text = run("config", CONFIG=str(file), SECRET=SECRET, RETRY_CAP="60")
    lines = text.splitlines()
    assert code == 0
    assert lines[0] == f"file: {file}"
    assert max(map(len, lines[1:])) <= 80
    rows = [line.split(None, 1) for line in lines]
    top = {row[0]: " ".join(row[1].split()) for row in rows if len(row) == 2}
    assert top.keys() >= SETTINGS.keys()
    assert top["max_wait"] == "9 s file"
    assert top["retry_cap"] == "60 s RATEKIT_RETRY_CAP"
    assert top["secret"] == "*** RATEKIT_SECRET"  # noqa: S105
    assert top["headroom"] == "99% default"
    assert lines[-3:] == [
        'host "api.example.com"',
        "",
        'limit  1000/hour window                     file [host."api.example.com"]',
    ]
    assert SECRET not in text


def test_a_path_of_any_length_breaks_no_line(tmp_path: Path) -> None:
    """What is in code is told too."""
    config = Config(limit="1/second", hosts={f"{'a' * 90}.org": {"name": "b" * 90}})
    text = in_force(config)
    assert "limit              1/second                       in code" in text
    assert all(len(line) <= 80 for line in text.splitlines() if not line.startswith("host"))


@pytest.mark.parametrize("command", [["config"], ["explain", URL]])
def test_a_wrong_setting_is_told_and_ends_the_command(run: Run, command: list[str]) -> None:
    """With 2, as a wrong option does."""
    code, text = run(*command, LIMIT="lots")
    assert code == 2
    assert "Error: RATEKIT_LIMIT 'lots': neither a limit nor a tier" in text


def test_the_docs_have_the_table_that_the_command_prints(run: Run) -> None:
    """Every variable is in it."""
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    _, begin, rest = page.partition("<!-- the output of: ratekit config --markdown -->\n\n")
    assert begin
    assert rest.partition("\n\n")[0] == markdown()
    assert run("config", "--markdown") == (0, f"{markdown()}\n")
    for name in SETTINGS:
        assert f"| `RATEKIT_{name.upper()}` |" in markdown()


def test_explain_tells_what_holds_for_a_request(run: Run, file: Path) -> None:
    """Each rule with its source, in 80 columns; no query, no password, no credential."""
    code, text = run(
        "explain",
        URL.replace("//", "//ann:a-private-one@"),
        "-H",
        "Authorization: Bearer a-private-one",
        CONFIG=str(file),
        KEY="credential; /users/{id}",
        SECRET=SECRET,
        CACHE="rfc",
        CACHE_TTL="60",
        TIMEOUT="3, 10",
        THROTTLE_STATUSES="420",
        CONCURRENCY="4",
    )
    assert code == 0
    assert text.startswith("GET https://api.example.com/users/7?...\n\n")
    assert "a-private-one" not in text
    assert SECRET not in text
    assert max(len(line) for line in text.splitlines() if "the file is" not in line) <= 80


EXPLAINED: list[tuple[dict[str, Any], str, str, str]] = [
    ({}, "GET", "limit", "none but what the server tells (default)"),
    ({"adapt": "off"}, "GET", "limit", "off (in code)"),
    ({"limit": "100/minute"}, "GET", "limit", "100/minute: pace 99 a minute, burst 1 (in code)"),
    (
        {"limit": "300/15 minutes burst 20", "headroom": 0.9},
        "GET",
        "limit",
        "300/15 minutes burst 20: pace 270 in 15 minutes, burst 20 (in code)",
    ),
    (
        {"limit": "9/second window; 5000/hour fixed"},
        "GET",
        "limit",
        (
            "9/second window: never more than 9 a second, wherever that begins; 5000/hour fixed: "
            "5000 a hour, counted from the full hour (in code)"
        ),
    ),
    (
        {"limit": "100/second burst 20", "store": "memcached://h"},
        "GET",
        "limit",
        "100/second burst 20: pace 99 a second, burst 20 (in memcached less a fifth) (in code)",
    ),
    (
        {"limit": "a", "tiers": "a=1/second, b=2/second"},
        "GET",
        "tier",
        "a; options(tier=...) chooses of a, b (in code)",
    ),
    (
        {"limit": "a", "tiers": "a=50/second, b=2/second"},
        "GET",
        "limit",
        "50/second: pace 49.5 a second, burst 1 (in code)",
    ),
    ({}, "GET", "key", "https://api.example.com (default)"),
    ({"key": "/users/{id}"}, "GET", "key", "https://api.example.com /users/{id} (in code)"),
    ({}, "GET", "cache", "off (default)"),
    (
        {"cache": "rfc"},
        "GET",
        "cache",
        "as the server says (RFC 9111); for the same credentials (in code)",
    ),
    (
        {"cache": "ttl", "cache_ttl": 9, "stale_if_error": 60},
        "GET",
        "cache",
        (
            "9 s, whatever the server says; 60 s longer while it fails; for the same credentials "
            "(in code)"
        ),
    ),
    (
        {"cache": "rfc"},
        "POST",
        "cache",
        "not for this method; one that changes something drops what is kept of the URL (in code)",
    ),
    (
        {"read_bodies": True},
        "GET",
        "refusals",
        (
            "429, and 403 or 503 with Retry-After; pauses obeyed: up to 300 s; what bodies say too "
            "(in code)"
        ),
    ),
    ({"dedup": True}, "GET", "dedup", "equal ones at the same time are one request (in code)"),
    ({}, "GET", "retry", "4 attempts for failures (default)"),
    ({}, "PUT", "retry", "4 attempts for failures, but none after a 500 (default)"),
    (
        {},
        "POST",
        "retry",
        (
            "4 attempts for failures, where it was surely not acted on (never sent, or refused) "
            "(default)"
        ),
    ),
    ({"retry_attempts": "off"}, "GET", "retry", "off (in code)"),
    ({"retry_budget": None}, "GET", "retry budget", "none (in code)"),
    (
        {"throttle_statuses": 420, "max_retry_after": "unlimited"},
        "GET",
        "refusals",
        "429, 420, and 403 or 503 with Retry-After; pauses obeyed: up to unlimited (in code)",
    ),
    ({"breaker": "off"}, "GET", "breaker", "off (in code)"),
    (
        {"breaker_cooldown": 5},
        "GET",
        "breaker",
        "opens at 50% of 10 in 30; 5 in a row; closed to calls for 5 s (in code)",
    ),
    (
        {"spend": "even", "warn_below": 0.2},
        "GET",
        "learning",
        (
            "from refusals and quota headers; spent evenly over its window; a warning below 20% "
            "(in code)"
        ),
    ),
    (
        {"adapt": "aimd"},
        "GET",
        "learning",
        "from refusals: slower after one, faster while there is none (in code)",
    ),
    ({"max_wait": 5}, "GET", "wait", "at most 5 s (in code)"),
    ({"concurrency": 4}, "GET", "concurrency", "4 in flight to https://api.example.com (in code)"),
    (
        {"timeout": (3, 10)},
        "GET",
        "timeouts",
        (
            "requests: 3 s to connect, 10 s to read, where the call gives none; httpx: the "
            "client's own (in code)"
        ),
    ),
    ({"deadline": 9}, "GET", "deadline", "9 s (in code)"),
    ({"refusal": "response"}, "GET", "if refused here", "a 429 with Retry-After (in code)"),
    ({}, "GET", "store", "the memory of this process (default)"),
    (
        {"store": "memcached://h", "namespace": "n", "on_store_error": "closed"},
        "GET",
        "store",
        (
            "memcached://h, namespace n, name ratekit; while it is away a process refuses every "
            "call (in code)"
        ),
    ),
    (
        {"store": "memcached://h", "hosts": {"*.example.com": {"limit": "1/second"}}},
        "GET",
        "store",
        (
            "memcached://h, name ratekit *.example.com; while it is away a process keeps to its "
            "share of the limit (in code)"
        ),
    ),
    (
        {"hosts": {"*.example.com": {"max_wait": 5}}},
        "GET",
        "wait",
        "at most 5 s (in code, host *.example.com)",
    ),
    ({"hosts": {"*.example.com": {}}}, "GET", "settings", 'those of host "*.example.com"'),
    ({}, "GET", "settings", "none of its own"),
]


@pytest.mark.parametrize(("settings", "method", "label", "text"), EXPLAINED)
def test_each_rule_is_told_in_words(
    settings: dict[str, Any], method: str, label: str, text: str
) -> None:
    """As it holds for this request."""
    assert told(explained(Config(**settings), method, URL, {}))[label] == text


def test_a_key_of_a_credential_is_a_hash_of_this_process_or_of_all() -> None:
    """Without a secret another process has another one, and so it says."""
    headers = {"authorization": "Bearer a-private-one"}
    own = explained(Config(key="credential"), "GET", URL, headers)
    assert "hashed anew in each" in own
    assert "a-private-one" not in own
    common = [explained(Config(key="credential", secret=SECRET), "GET", URL, headers)] * 2
    assert common[0] == common[1]
    assert "anew" not in common[0]


def test_an_idempotency_key_makes_a_post_repeatable(run: Run) -> None:
    """Whichever way its name is written."""
    code, text = run("explain", URL, "-X", "post", "-H", "idempotency-key: a-private-one")
    assert code == 0
    assert "4 attempts for failures, by its Idempotency-Key (default)" in text
    assert "a-private-one" not in text


@pytest.mark.parametrize("url", ["api.example.com", "ftp://a.org/", "https://", "mailto:a@b"])
def test_what_is_no_url_is_an_error(run: Run, url: str) -> None:
    """It says what is one."""
    code, text = run("explain", url)
    assert code == 2
    assert "use a whole one, such as https://api.example.com/" in text


def test_a_header_without_a_colon_is_an_error(run: Run) -> None:
    """It says how one is written."""
    code, text = run("explain", URL, "-H", "nothing")
    assert code == 2
    assert "use 'Name: value'" in text
