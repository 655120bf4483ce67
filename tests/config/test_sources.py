"""Where settings come from: the environment over a file, and both below what code says."""

from pathlib import Path

import pytest

from ratekit import Config, ConfigurationError

FILE = """
limit = "100/minute"
max_wait = 10
retry_statuses = [502, 503]

[tiers]
free = "60/minute"

[host."api.example.com"]
limit = "10/second"
max_wait = 5

[host."api.example.com:8443"]
limit = "11/second"

[host."*.example.com"]
limit = "free"

[host."*.b.example.com"]
limit = "12/second"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a file with sections."""
    path = tmp_path / "ratekit.toml"
    path.write_text(FILE)
    return path


def test_code_goes_before_the_environment_and_that_before_the_file(file: Path) -> None:
    """Each value knows where it came from."""
    environ = {"RATEKIT_CONFIG": str(file), "RATEKIT_MAX_WAIT": "20", "RATEKIT_DEADLINE": "60"}
    config = Config.from_env(environ=environ, deadline=30)
    assert (config.limit, config.max_wait, config.deadline) == ("100/minute", 20, 30)
    assert config.retry_statuses == {502, 503}
    assert config.source("limit") == str(file)
    assert config.source("max_wait") == "RATEKIT_MAX_WAIT"
    assert config.source("deadline") == "in code"
    assert config.source("headroom") is None


def test_the_environment_and_code_hold_for_every_host(file: Path) -> None:
    """They go before a section, too: what holds for one host alone belongs into the file."""
    environ = {"RATEKIT_CONFIG": str(file), "RATEKIT_MAX_WAIT": "20"}
    section = Config.from_env(environ=environ).for_host("api.example.com")
    assert (section.limit, section.max_wait) == ("10/second", 20)
    assert section.source("limit") == f'{file} [host."api.example.com"]'
    assert section.source("max_wait") == "RATEKIT_MAX_WAIT"
    assert section.source("tiers") == str(file)
    in_code = Config.from_env(environ=environ, limit="1/hour")
    assert in_code.for_host("api.example.com").limit == "1/hour"


def test_hosts_in_code_go_before_all_else(file: Path) -> None:
    """They replace the file's section of the same host."""
    hosts = {"api.example.com": {"limit": "1/hour"}}
    config = Config.from_env(environ={"RATEKIT_LIMIT": "5/minute"}, file=str(file), hosts=hosts)
    assert config.for_host("api.example.com").limit == "1/hour"
    assert config.for_host("api.example.com").source("limit") == "in code, host api.example.com"
    assert config.for_host("x.example.com").limit == "5/minute"


@pytest.mark.parametrize(
    ("host", "limit"),
    [
        ("api.example.com", "10/second"),
        ("API.Example.com.", "10/second"),
        ("https://api.example.com", "10/second"),
        ("https://u:p@api.example.com/path?a=https://x.example.com", "10/second"),
        ("api.example.com:8443", "11/second"),
        ("https://api.example.com:8443", "11/second"),
        ("api.example.com:80", "10/second"),
        ("a.example.com", "free"),
        ("a.c.example.com:1", "free"),
        ("a.b.example.com", "12/second"),
        ("b.example.com", "free"),
        ("example.com", "100/minute"),
        ("badexample.com", "100/minute"),
        ("api.example.com.evil.org", "100/minute"),
        ("", "100/minute"),
        ("http://[::1]:80", "100/minute"),
    ],
)
def test_the_most_specific_section_holds_for_a_host(file: Path, host: str, limit: str) -> None:
    """One section, and where that says nothing the top level."""
    section = Config.from_env(file=str(file), environ={}).for_host(host)
    assert section.limit == limit
    assert section.retry_statuses == {502, 503}
    assert section.max_wait == (5 if limit == "10/second" else 10)


def test_a_port_is_also_the_one_that_a_scheme_implies() -> None:
    """An address of version 6 stands in brackets."""
    hosts = {"a.org:443": {"limit": "1/second"}, "[::1]:80": {"limit": "2/second"}}
    config = Config(hosts=hosts)
    assert config.for_host("https://a.org").limit == "1/second"
    assert config.for_host("http://a.org").limit is None
    assert config.for_host("http://[::1]/").limit == "2/second"


def test_what_is_not_known_is_reported_with_the_nearest_that_is() -> None:
    """A limit with a slip of the pen in its name must not be no limit."""
    for environ, said in (
        ({"RATEKIT_LIMTI": "1/second"}, "RATEKIT_LIMTI: .* did you mean RATEKIT_LIMIT?"),
        ({"RATEKIT_RETRY_ATTEMPT": ""}, "did you mean RATEKIT_RETRY_ATTEMPTS?"),
        ({"RATEKIT_CONFIGS": ""}, "did you mean RATEKIT_CONFIG?"),
        ({"RATEKIT_XYZ": "1"}, "RATEKIT_XYZ: .* use one of RATEKIT_LIMIT, RATEKIT_TIERS"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            Config.from_env(environ=environ)
    with pytest.raises(ConfigurationError, match=r"limits: no such setting; did you mean limit?"):
        Config.from_env(environ={}, limits="1/second")
    with pytest.raises(ConfigurationError, match=r"hosts.*lim: .*did you mean limit?"):
        Config(hosts={"a.org": {"lim": "1/second"}})


def test_another_prefix_reads_other_variables() -> None:
    """Two configurations can stand side by side in one environment."""
    environ = {"RATEKIT_LIMIT": "1/second", "SEARCH_RATEKIT_LIMIT": "2/second", "PATH": "/bin"}
    assert Config.from_env(environ=environ).limit == "1/second"
    config = Config.from_env("SEARCH_RATEKIT_", environ)
    assert (config.limit, config.source("limit")) == ("2/second", "SEARCH_RATEKIT_LIMIT")


def test_an_empty_variable_is_not_set() -> None:
    """As a compose file passes on what nobody set."""
    assert Config.from_env(environ={"RATEKIT_LIMIT": "", "RATEKIT_CONFIG": " "}) == Config()


def test_without_an_argument_the_environment_of_the_process_is_read(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the moment of the call."""
    monkeypatch.setenv("RATEKIT_CONFIG", str(file))
    assert Config.from_env().limit == "100/minute"
    monkeypatch.setenv("RATEKIT_LIMIT", "1/second")
    assert Config.from_env().limit == "1/second"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limit =", r"use TOML"),
        ("limit = 2026-01-01", r"limit datetime.date\(2026, 1, 1\): use a limit"),
        ("limt = '1/second'", "limt: no such setting; did you mean limit?"),
        ("hosts = {}", "hosts: no such setting; did you mean host?"),
        ("host = 'a'", r"host: use sections, such as \[host.\"api.example.com\"\]"),
        ("[host]\na = 1", r"\[host.\"a\"\]: use a section"),
        (
            "[host.\"a.org\"]\nlimti = '1/second'",
            r"\[host.\"a.org\"\]: limti: no such setting; did",
        ),
        ("[host.api.example]\nlimit = '1/second'", r"write the host in quotes: .*\"api.example\""),
        ('[host."https://a.org"]\n', r"\[host.\"https://a.org\"\]: host 'https://a.org': use a na"),
        (
            "[host.\"a.org\"]\nlog = 'info'",
            r"\[host.\"a.org\"\]: log: it holds for the whole proce",
        ),
        ('[host."a.org"]\n[host."A.org"]\n', r"\[host.\"A.org\"\]: this host has a section alre"),
        (
            "[host.\"a.org\"]\ncache = 'ttl'",
            r"\[host.\"a.org\"\]: cache 'ttl': for how long is not said; set RATEKIT_CACHE_TTL",
        ),
        ("[tiers]\nfree = 5", "tiers {'free': 5}: use names and limits"),
        ("limit = '1/second'\nlimit = '2/second'", "use TOML"),
        ("a = '\xff'", "use TOML"),
        ("#" * (1 << 20) + "#", "longer than 1 MiB"),
    ],
)
def test_an_error_names_the_file_the_section_and_the_key(
    tmp_path: Path, text: str, said: str
) -> None:
    """And what would be right."""
    path = tmp_path / "ratekit.toml"
    path.write_text(text, "latin-1")
    with pytest.raises(ConfigurationError, match=said) as caught:
        Config.from_env(environ={"RATEKIT_CONFIG": str(path)})
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_named_with_its_variable(tmp_path: Path) -> None:
    """It is an error, and not a program without a limit."""
    for path, said in ((tmp_path / "none.toml", "No such file"), (tmp_path, "directory")):
        with pytest.raises(ConfigurationError, match=f"^RATEKIT_CONFIG '{path}': .*{said}"):
            Config.from_env(environ={"RATEKIT_CONFIG": str(path)})


@pytest.mark.parametrize(
    "host", ["", "*", "*.", "a b", "http://a", "a/b", "ä.de", "a*.b", "a:x", 5]
)
def test_what_is_no_host_is_an_error(host: str) -> None:
    """It says what a section's name looks like."""
    with pytest.raises(ConfigurationError, match=r"use a name such as 'api.example.com'"):
        Config(hosts={host: {}})


@pytest.mark.parametrize("hosts", [5, "a.org", {"a.org": 5}, {"a.org": {}, "A.org": {}}])
def test_what_are_no_hosts_is_an_error(hosts: object) -> None:
    """Settings by host are."""
    with pytest.raises(ConfigurationError, match=r"hosts"):
        Config(hosts=hosts)  # type: ignore[arg-type]
