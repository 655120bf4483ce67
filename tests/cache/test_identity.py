"""Whose answer it is: who asks, as a hash, and no credential in a key."""

import pickle
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from ratekit import ConfigurationError
from ratekit.cache.identity import API_KEY_PARAMS, Identity
from ratekit.keys.credential import CREDENTIAL_HEADERS
from tests.cache.asking import OF_BOTH, ORIGIN, PLAIN, asked, key

KEY = b"sixteen bytes or more of a secret"

# Who asks.


def test_a_request_of_nobody_has_no_hash() -> None:
    """Its URL alone is what its answer is kept under."""
    one = asked(headers={"Accept": "a/b", "User-Agent": "x"})
    assert (one.url, one.who, one.variant(()), one.authorized) == (f"{ORIGIN}/a", "", "", False)


@OF_BOTH
@pytest.mark.parametrize(
    "name", [*CREDENTIAL_HEADERS, "Cookie", "Proxy-Authorization", "X-My-Session", "xi-api-key"]
)
def test_a_field_that_names_who_asks_tells_two_apart(name: str, kind: Any) -> None:
    """However its name is written; the same value is the same caller."""
    ann, bob = (asked(headers={name: value}, kind=kind) for value in ("ann-geheim", "bob-geheim"))
    assert ann.who != bob.who
    assert ann.who == asked(headers={name.lower(): "ann-geheim"}, kind=kind).who
    assert ann.authorized
    assert "geheim" not in ann.who


@pytest.mark.parametrize("name", [*API_KEY_PARAMS, "API_KEY", "ToKen"])
def test_a_parameter_that_names_who_asks_is_not_in_the_url(name: str) -> None:
    """But in the hash; what stands beside it stays, in its order."""
    ann, bob = (asked(f"/a?z=1&{name}={value}&y=2") for value in ("ann", "bob"))
    assert ann.url == bob.url == f"{ORIGIN}/a?z=1&y=2"
    assert ann.who != bob.who
    assert "" not in {ann.who, bob.who}
    assert ann.authorized


def test_one_without_a_credential_is_another_caller() -> None:
    """Also where the credential is empty."""
    keys = {
        asked(url, headers).who
        for url, headers in [
            ("/a", {}),
            ("/a", {"Authorization": ""}),
            ("/a", {"Cookie": ""}),
            ("/a?token=", {}),
            ("/a?token", {"Cookie": ""}),
        ]
    }
    assert len(keys) == 5


def test_the_same_text_elsewhere_is_another_credential() -> None:
    """By its field, by its parameter, by the parameter's place, before the host."""
    keys = [
        asked(url, headers).who
        for url, headers in [
            ("/a", {"Authorization": "x"}),
            ("/a", {"Cookie": "x"}),
            ("/a", {"X-Api-Key": "x"}),
            ("/a?token=x", {}),
            ("/a?key=x", {}),
            ("/a?b&token=x", {}),
            (f"https://x@{ORIGIN[8:]}/a", {}),
        ]
    ]
    assert len(set(keys)) == len(keys)


def test_where_one_credential_ends_another_does_not_begin() -> None:
    """Two of them are not the same as two others that read alike in one line."""
    first = asked(headers={"Authorization": "ab", "Cookie": "c"}).who
    assert first != asked(headers={"Authorization": "a", "Cookie": "bc"}).who
    assert asked("/a?key=1&token=2").who != asked("/a?key=1%26token=2").who


def test_a_name_before_the_host_is_a_credential() -> None:
    """Neither it nor its password is in the URL, whatever characters are in them."""
    ann, bob = (asked(f"https://{who}@api.example.com/a") for who in ("ann:gehe@im", "bob:gehe@im"))
    assert ann.url == bob.url == f"{ORIGIN}/a"
    assert ann.who != bob.who
    assert "gehe" not in ann.who + ann.url


def test_a_certificate_is_a_credential() -> None:
    """And so is whether the server's is looked at."""
    assert len({asked(tls=tls).who for tls in (None, "cert=a", "cert=b")}) == 3


def test_another_host_in_the_field_is_another_question() -> None:
    """The one that the URL names is none."""
    assert key(headers={"Host": "API.example.com"}) == key()
    assert len({key(headers={"Host": host}) for host in ("a.example", "b.example")} | {key()}) == 3


def test_names_of_ones_own_come_to_the_usual_ones() -> None:
    """One as text, several as a list, in whatever spelling."""
    identity = Identity("X-Who", ["Member", "guest"])
    seen = [asked(headers={name: "a"}, identity=identity).who for name in ("x-who", "Cookie")]
    seen += [
        asked(f"/a?{name}=geheim", identity=identity).who
        for name in ("Member", "member", "GUEST", "token")
    ]
    assert len(set(seen)) == 6
    assert "" not in seen
    assert asked("/a?Member=geheim", identity=identity).url == f"{ORIGIN}/a"


def test_two_fields_of_a_name_are_both_looked_at() -> None:
    """As one that lists them."""
    two = httpx.Headers([("Cookie", "a=1"), ("Cookie", "b=2")])
    one = httpx.Headers([("Cookie", "a=1, b=2")])
    assert asked(headers=two, kind=httpx.Headers).who == asked(headers=one).who
    assert asked(headers=two, kind=httpx.Headers).who != asked(headers={"Cookie": "b=2"}).who


# The hash.


def test_the_hash_needs_a_key() -> None:
    """Of this process, or of all that have the same secret."""
    fields = {"Authorization": "Bearer a"}
    seen = [
        asked(headers=fields, identity=one).who
        for one in (PLAIN, Identity(secret=KEY), Identity(secret=KEY[::-1]))
    ]
    assert len(set(seen)) == 3
    assert asked(headers=fields, identity=Identity()).who == seen[0]
    assert asked(headers=fields, identity=Identity(secret=KEY)).who == seen[1]


@pytest.mark.parametrize("secret", [b"", b"too short", "text that is long enough", 5])
def test_a_secret_that_is_none_is_refused_and_not_shown(secret: Any) -> None:
    """It says what to do."""
    with pytest.raises(ConfigurationError, match="random bytes") as refused:
        Identity(secret=secret)
    assert not secret or str(secret) not in str(refused.value).partition("use")[0]


@pytest.mark.parametrize("secret", [None, KEY])
def test_a_copy_describes_alike(secret: bytes | None) -> None:
    """The names and the key travel, and the secret does not."""
    identity = Identity("X-Who", "who", secret, shared=False)
    pickled = pickle.dumps(identity)
    copy = pickle.loads(pickled)  # noqa: S301  (made here)
    assert KEY not in pickled
    for url, name in (("/a", "X-Who"), ("/a?who=a", "Cookie"), ("/a?sig=x", "Accept")):
        fields = {name: "a"}
        assert key(url, fields, identity=copy) == key(url, fields, identity=identity)


def test_a_name_that_was_never_seen_costs_no_memory_for_ever() -> None:
    """Whatever a caller sends: of names that are new so many are remembered, and all count."""
    identity = Identity()
    for number in range(3000):
        asked(headers={f"X-{number}": "a"}, identity=identity)
    assert len(identity._names) < 2000
    assert asked(headers={"X-Session-3001": "a"}, identity=identity).who


# A shared cache.


def test_a_shared_cache_keeps_callers_together_and_knows_that_they_said_who_they_are() -> None:
    """RFC 9111, 3.5 decides then; what the URL asks for stays apart, and is still in no key."""
    identity = Identity(shared=True)
    ann, bob = (asked(headers={"Authorization": who}, identity=identity) for who in ("ann", "bob"))
    assert (ann.who, bob.who) == ("", "")
    assert ann.authorized
    assert not asked(identity=identity).authorized
    keys = [asked(f"/a?key={who}", {"Cookie": who}, identity=identity) for who in ("ann", "bob")]
    assert keys[0].who != keys[1].who
    assert keys[0].url == keys[1].url
    assert keys[0].who == asked("/a?key=ann", {"Cookie": "carl"}, identity=identity).who


# Whatever callers there are.

SECRETS = st.text("abcXYZ019_-.~", min_size=1, max_size=6).map("geheim".__add__)
PLACES = st.sampled_from(
    ["Authorization", "Cookie", "X-Api-Key", "X-Some-Token", "?api_key", "?token", "?SIG", "@"]
)
CALLERS = st.dictionaries(PLACES, SECRETS, max_size=4)
IDENTITIES = st.sampled_from([PLAIN, Identity(secret=KEY)])


def key_of(caller: dict[str, str], identity: Identity, kind: Any, query: str) -> str:
    """Return what is kept under for a caller who says who it is in these places."""
    pairs = [f"{name[1:]}={text}" for name, text in sorted(caller.items()) if name[0] == "?"]
    fields = {name: text for name, text in caller.items() if name[0] not in "?@"}
    host = f"{caller['@']}@api.example.com" if "@" in caller else "api.example.com"
    url = f"https://{host}/a?{'&'.join([query, *pairs])}"
    return key(url, fields, identity=identity, kind=kind)


@given(
    CALLERS, CALLERS, IDENTITIES, st.sampled_from([CaseInsensitiveDict, httpx.Headers]),
    st.text("ab=%3d+", max_size=8),
)  # fmt: skip
@example({"?token": "geheim1"}, {"?api_key": "geheim1"}, PLAIN, CaseInsensitiveDict, "")
@example({"Cookie": "geheim1"}, {}, PLAIN, httpx.Headers, "")
def test_two_callers_never_share_an_identity_and_no_secret_is_in_one(
    ann: dict[str, str], bob: dict[str, str], identity: Identity, kind: Any, query: str
) -> None:
    """Wherever they say who they are; one who says the same again is the same."""
    first, second = key_of(ann, identity, kind, query), key_of(bob, identity, kind, query)
    assert (first == second) == (ann == bob)
    assert "geheim" not in first + second
    assert first == key_of(dict(ann), identity, kind, query)
