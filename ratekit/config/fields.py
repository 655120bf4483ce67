"""`Config`: every setting, what it takes, and what goes together.

Each setting is one field, with the kind of its values and a line about it; the variables, the keys
of a file and the tables of the docs follow from these.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Self

from ratekit.config import hosts as patterns
from ratekit.config import parsing as kinds
from ratekit.config import texts
from ratekit.config.parsing import shortened
from ratekit.config.setting import Setting, Source, nearest, setting
from ratekit.config.together import check_together
from ratekit.errors import ConfigurationError
from ratekit.policy import Pipeline

__all__ = ["SETTINGS", "Config"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every setting of ratekit, checked; a `Pipeline` is made of it.

    The fields are the `RATEKIT_` variables in small letters, and take a value or a variable's text.
    `hosts`: other values for the calls to a host, `{"api.example.com": {"limit": "10/second"}}`.

    Raises `ConfigurationError` that names the setting, the value, and what would be right.
    """

    # fmt: off
    limit: str | None = setting(
        texts.LIMIT, "the limit of each key", unset="none: what the server tells is kept to",
    )
    tiers: Mapping[str, str] | None = setting(
        texts.TIERS, "limits by name, for `options(tier=...)`", unset="none",
    )
    key: str = setting(
        texts.KEY, "what counts on its own: origins, credentials, routes", default="origin",
    )
    name: str | None = setting(
        kinds.TEXT, "whose budget it is; who names the same shares it",
        unset="none, or `ratekit` in memcached",
    )
    headroom: float = setting(
        kinds.share(above_0=True), "the share of the limit's pace to use", default=0.99,
    )
    max_wait: float | None = setting(
        kinds.seconds(word="off"), "the longest wait for a permit or a slot", unset="off",
    )
    max_retry_after: float = setting(
        kinds.seconds(word="unlimited", means=float("inf")),
        "the longest pause that a server may ask for", default=300,
    )
    adapt: str = setting(
        kinds.one_of("headers", "aimd", "off"),
        "learn the pace from quota headers and refusals, or from refusals alone",
        default="headers",
    )
    spend: str = setting(
        kinds.one_of("greedy", "even"),
        "use what a server's quota has left at once, or spread over its window", default="greedy",
    )
    warn_below: float = setting(
        kinds.share(), "log a warning when less of a quota is left", default=0.1,
    )
    throttle_statuses: Collection[int] = setting(
        kinds.statuses(400), 'statuses besides 429 that mean "too fast"', default=frozenset(),
    )
    read_bodies: bool = setting(
        kinds.SWITCH, "read what the bodies of answers say of limits too", default=False,
    )
    concurrency: int | None = setting(
        kinds.whole(1, None), "the most attempts in flight for each host", unset="off",
    )
    cache: str | None = setting(
        kinds.one_of("off", "rfc", "ttl"),
        "keep answers as the server says (RFC 9111), or for `CACHE_TTL` whatever it says",
        unset="off",
    )
    cache_ttl: float | None = setting(
        kinds.seconds(), "for how long, where the server says nothing; with `ttl`, always",
        unset="none",
    )
    cache_size: int | None = setting(kinds.SIZE, "how much is kept in memory", unset="64 MiB")
    stale_if_error: float | None = setting(
        kinds.seconds(), "for how long an old answer may stand in for a failure", unset="0 s",
    )
    dedup: bool = setting(
        kinds.SWITCH, "make one request of equal ones at the same time", default=False,
    )
    retry_attempts: int = setting(
        kinds.whole(1, 0),
        "tries for a failure, the first included; off: nothing is repeated, also no refusal",
        default=4,
    )
    retry_base: float = setting(kinds.seconds(), "the first pause, which doubles", default=0.5)
    retry_cap: float = setting(
        kinds.seconds(), "the longest pause of the back-off's own", default=30,
    )
    retry_budget: float | None = setting(
        kinds.share(off=True), "the most retries, as a share of the calls", default=0.1,
    )
    retry_statuses: Collection[int] = setting(
        kinds.statuses(200), "answers worth another attempt",
        default=frozenset({408, 425, 429, 500, 502, 503, 504, 529}),
    )
    retry_methods: Collection[str] = setting(
        kinds.METHODS, "what may be repeated though the server may have acted on it",
        default=frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}),
    )
    breaker: str | None = setting(
        texts.TRIP, "when a server is left alone", default="50% of 10 in 30; 5 in a row",
        unset="off",
    )
    breaker_cooldown: float = setting(
        kinds.seconds(above_0=True), "for how long; doubling, to 300 s or this if it is more",
        default=30,
    )
    refusal: str = setting(
        kinds.one_of("raise", "response"), "what a refusal of ratekit's own becomes",
        default="raise",
    )
    timeout: float | tuple[float, float] | bool | None = setting(
        kinds.TIMEOUT, "of an attempt on requests, where the program gave none", unset="5, 30",
    )
    deadline: float | None = setting(
        kinds.seconds(above_0=True, word="off"), "when a whole call must be over", unset="off",
    )
    store: str | None = setting(
        texts.STORE, "where limits, circuits and cached answers are", unset="memory:",
    )
    namespace: str | None = setting(
        kinds.TEXT, "who shares a memcached's state, and who does not", unset="none",
    )
    on_store_error: str | None = setting(
        kinds.one_of("local", "closed", "open"),
        "while memcached is away: keep to a share of the limit, refuse, or let all through",
        unset="local",
    )
    secret: bytes | str | None = setting(
        texts.SECRET, "what credentials are hashed with in keys", unset="none",
    )
    log: str | None = setting(
        kinds.one_of("debug", "info", "warning", "error", "off"),
        "the level of the logger `ratekit`; to standard error where the program logs nowhere",
        unset="as the program set it", process_wide=True,
    )
    # fmt: on
    hosts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    _sources: Mapping[tuple[str, str], Source] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for one in SETTINGS.values():
            value = one.read(getattr(self, one.name), self._label("", one.name))
            object.__setattr__(self, one.name, value)
        object.__setattr__(self, "hosts", self._read_hosts())
        object.__setattr__(self, "_sources", MappingProxyType(dict(self._sources)))
        check_together(self, lambda name: self._label("", name))
        for pattern in self.hosts:
            self._at(pattern)

    def _label(self, pattern: str, name: str) -> str:
        """Return how an error names a setting: by its variable, or its place."""
        if (pattern, name) in self._sources:
            return self._sources[pattern, name].label
        return f"hosts[{pattern!r}]: {name}" if pattern else name

    def _read_hosts(self) -> Mapping[str, Mapping[str, Any]]:
        if not isinstance(self.hosts, Mapping):
            raise ConfigurationError(
                f"hosts {shortened(self.hosts)}: use settings by host, such as "
                '{"api.example.com": {"limit": "10/second"}}'
            )
        hosts: dict[str, Mapping[str, Any]] = {}
        for given, values in self.hosts.items():
            pattern = patterns.pattern_of(given)
            if pattern in hosts or not isinstance(values, Mapping):
                wrong = "named twice" if pattern in hosts else "no settings"
                raise ConfigurationError(f"hosts[{given!r}]: {wrong}; give its settings once")
            read = {}
            for name, value in values.items():
                label = self._label(pattern, name)
                if name not in SETTINGS:
                    raise ConfigurationError(f"{label}: no such setting{nearest(name, SETTINGS)}")
                if SETTINGS[name].process_wide:
                    raise ConfigurationError(
                        f"{label}: it holds for the whole process; set it outside of the hosts"
                    )
                read[name] = SETTINGS[name].read(value, label)
            hosts[pattern] = MappingProxyType(read)
        return MappingProxyType(hosts)

    @property
    def is_shared(self) -> bool:
        """Whether the state is in memcached."""
        return self.store not in (None, "memory:")

    @property
    def counts_credentials(self) -> bool:
        """Whether callers with another credential have a limit of their own."""
        return "credential" in [part.strip() for part in self.key.split(";")]

    @property
    def keeps_answers(self) -> bool:
        """Whether there is a cache."""
        return self.cache not in (None, "off")

    def shown(self, name: str) -> str:
        """Return the text of a setting's value; no secret is in it."""
        return SETTINGS[name].show(getattr(self, name))

    def source(self, name: str) -> str | None:
        """Return where a setting's value came from; None where it is the default."""
        source = self._sources.get(("", name))
        if source is not None:
            return source.where or None
        return None if getattr(self, name) == SETTINGS[name].default else "in code"

    def for_host(self, host: str) -> "Config":
        """Return what holds for the calls to a host: "api.example.com", with a port, or a URL."""
        pattern = patterns.best(self.hosts, host)
        return self if pattern is None and not self.hosts else self._at(pattern or "")

    def _at(self, pattern: str) -> "Config":
        values = {name: getattr(self, name) for name in SETTINGS}
        sources = {place: source for place, source in self._sources.items() if not place[0]}
        for name, value in self.hosts.get(pattern, {}).items():
            values[name] = value
            label = self._label(pattern, name)
            sources["", name] = self._sources.get(
                (pattern, name), Source(f"in code, host {pattern}", label)
            )
        return Config(**values, _sources=sources)

    def pipeline(self, host: str | None = None) -> Pipeline:
        """Return a new pipeline, which has a state of its own where that is in memory.

        With `hosts` it sends each call down the pipeline of its host. `host`: that one's alone.
        """
        from ratekit.config.build import build

        return build(self if host is None else self.for_host(host))

    @classmethod
    def from_env(
        cls,
        prefix: str = "RATEKIT_",
        environ: Mapping[str, str] | None = None,
        *,
        file: str | None = None,
        **settings: Any,
    ) -> Self:
        """Return what the environment says, over what the file says that `RATEKIT_CONFIG` names.

        `environ`: in place of this process's. `file`: in place of `RATEKIT_CONFIG`. `settings`: go
        before both. Raises `ConfigurationError` for a wrong value, and for an unknown name.
        """
        from ratekit.config.env import gather

        return cls(**gather(prefix, environ, file, settings))

    def canonical(self, names: Iterable[str] = ()) -> str:
        """Return a text that is equal where these settings are (all of them); it may hold a secret.

        What holds for the whole process is not among all of them.
        """
        chosen = names or [name for name in SETTINGS if not SETTINGS[name].process_wide]
        hosts = [] if names else sorted((host, _plain(its)) for host, its in self.hosts.items())
        return repr((_plain({name: getattr(self, name) for name in chosen}), hosts))

    def __repr__(self) -> str:
        said = [
            f"{name}={one.repr(getattr(self, name))}"
            for name, one in SETTINGS.items()
            if getattr(self, name) != one.default
        ]
        sections = []
        for pattern, values in self.hosts.items():
            its = [f"{name!r}: {SETTINGS[name].repr(value)}" for name, value in values.items()]
            sections.append(f"{pattern!r}: {{{', '.join(its)}}}")
        if sections:
            said.append(f"hosts={{{', '.join(sections)}}}")
        return f"Config({', '.join(said)})"

    def __hash__(self) -> int:
        return hash(self.canonical())

    def __reduce__(self) -> tuple[object, ...]:
        # The mappings in it are views, which do not pickle.
        hosts = {pattern: dict(values) for pattern, values in self.hosts.items()}
        values = {name: getattr(self, name) for name in SETTINGS}
        values["tiers"] = None if self.tiers is None else dict(self.tiers)
        return _rebuilt, ({**values, "hosts": hosts, "_sources": dict(self._sources)},)


SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {
        one.name: Setting(one.name, default=one.default, **one.metadata)
        for one in fields(Config)[:-2]
    }
)
"""Every setting, in the order of the tables."""


def _plain(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return what is equal, and has an equal `repr`, where the values are equal."""
    plain = {}
    for name, value in values.items():
        items = value.items() if isinstance(value, Mapping) else value
        plain[name] = sorted(items) if isinstance(value, (Mapping, frozenset)) else value
    return sorted(plain.items())


def _rebuilt(values: dict[str, Any]) -> Config:
    return Config(**values)
