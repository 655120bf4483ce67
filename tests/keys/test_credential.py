"""A key for each credential: nobody shares one, nobody escapes one, and nothing shows."""

import os
import pickle
import re

import httpx
import pytest

from ratekit import ConfigurationError
from ratekit.call import Call
from ratekit.keys import CREDENTIAL_HEADERS, by_credential, by_each, by_origin, by_route
from ratekit.testing import Answer, ApiServer
from tests.contracts.edges import Edge
from tests.faults.scripts import run
from tests.keys.calls import ORIGIN, SECRET, TOKEN, Noted, a_call, authorized

AWS = "AWS4-HMAC-SHA256 Credential={}/{}/eu-west-1/s3/aws4_request, Signature={}"


def test_each_credential_has_a_key_of_its_own() -> None:
    """Two tokens, the same again, none at all, and the same at another origin."""
    key_of = by_credential()
    first, second = authorized("Bearer a"), authorized("Bearer b")
    elsewhere = a_call(key="https://other.example", Authorization="Bearer a")
    keys = [key_of(call) for call in (first, second, a_call(), elsewhere)]
    assert len(set(keys)) == 4
    assert key_of(authorized("Bearer a")) == keys[0]
    assert re.fullmatch(re.escape(ORIGIN) + " [0-9a-f]{16}", keys[0] or "")


def test_calls_without_a_credential_share_the_key_of_their_origin() -> None:
    """Empty values are none, and headers that say nothing of the caller do not count."""
    key_of = by_credential(params=["key"], cookies=["session"])
    for call in (
        a_call(),
        a_call("/?key=&other=1"),
        a_call("/#?key=1"),
        a_call(Authorization="", X_Api_Key="  ", Cookie="seen=1; session="),
        a_call(User_Agent="x", Accept="*/*", Idempotency_Key="1", X_Request_Id="1"),
    ):
        assert key_of(call) == ORIGIN


@pytest.mark.parametrize("name", CREDENTIAL_HEADERS)
def test_every_header_of_the_list_is_looked_at_in_any_case(name: str) -> None:
    """The same key in whatever case the name is sent."""
    key_of = by_credential()
    keys = {
        key_of(Call("GET", ORIGIN, {spelled: TOKEN}, key=ORIGIN))
        for spelled in (name, name.lower(), name.upper())
    }
    assert len(keys) == 1
    assert ORIGIN not in keys


def test_all_that_identifies_a_caller_counts_together() -> None:
    """In whatever order it was sent, and not the value of one as if it were the other's."""
    key_of = by_credential()
    pairs = [("Authorization", "Bearer a"), ("X-Api-Key", "b")]
    both = [Call("GET", ORIGIN, dict(some), key=ORIGIN) for some in (pairs, pairs[::-1])]
    swapped = a_call(Authorization="b", X_Api_Key="Bearer a")
    keys = {key_of(call) for call in (authorized("Bearer a"), a_call(X_Api_Key="b"), swapped)}
    assert len(keys) == 3
    assert key_of(both[0]) == key_of(both[1])
    assert key_of(both[0]) not in keys


def test_the_user_names_what_is_looked_at() -> None:
    """Headers that are named replace the list; one name needs no list around it."""
    key_of = by_credential("X-Tenant")
    assert key_of(a_call(X_Tenant="a")) != key_of(a_call(X_Tenant="b"))
    assert key_of(a_call(X_Tenant="a", Authorization="Bearer a")) == key_of(a_call(X_Tenant="a"))
    by_param = by_credential([], params="key")
    assert by_param(a_call("/?key=1", Authorization="Bearer a")) == by_param(a_call("/?key=1"))
    assert by_param(authorized("Bearer a")) == ORIGIN


def test_parameters_and_cookies_count_when_they_are_named() -> None:
    """However they are encoded and wherever they stand; others beside them do not matter."""
    key_of = by_credential(params=["api key"], cookies=["session"])
    one = key_of(a_call("/?api%20key=a%2fb"))
    assert one != ORIGIN
    assert key_of(a_call("/x?page=2&api+key=a%2Fb#top")) == one
    assert key_of(a_call("/?api%20key=c")) != one
    session = key_of(a_call(Cookie="session=a; seen=1"))
    assert session not in {ORIGIN, one}
    assert key_of(a_call(Cookie="seen=2;session=a")) == session
    assert key_of(a_call(Cookie="session=b")) != session
    assert by_credential()(a_call("/?api%20key=a", Cookie="session=a")) == ORIGIN


@pytest.mark.parametrize(
    ("first", "again", "other"),
    [
        # What is sent with every request counts as a whole, the scheme in any case.
        ("Bearer a", "bearer a", "Bearer A"),
        ("Basic YQ==", "BASIC YQ==", "Basic Yg=="),
        ("token ghp_1", "Token ghp_1", "token ghp_2"),
        ("raw-key", "raw-key", "RAW-KEY"),
        ('Own token="a", app="b"', 'Own token="a", app="b"', 'Own token="c", app="b"'),
        # What is made anew for each request: who it is, and nothing else.
        (
            'Digest username="ann", realm="r", nonce="1", uri="/?a, id=1", nc=00000001',
            'Digest nonce="2", username=ann, realm="r", uri="/?a, id=2", nc=00000002',
            'Digest username="bob", realm="r", nonce="1", uri="/?a, id=1", nc=00000001',
        ),
        (AWS.format("AK1", "20260101", "1"), AWS.format("AK1", "20260102", "2"),
         AWS.format("AK2", "20260101", "1")),
        (
            'OAuth oauth_consumer_key="c", oauth_token="t", oauth_nonce="1", oauth_signature="a"',
            'OAuth oauth_nonce="2", oauth_consumer_key="c", oauth_token="t", oauth_signature="b"',
            'OAuth oauth_consumer_key="c", oauth_token="u", oauth_nonce="1", oauth_signature="a"',
        ),
        ('Hawk id="a", ts="1", mac="x"', 'Hawk id="a", ts="2", mac="y"', 'Hawk id="b", ts="1"'),
        ('Signature keyId="a",signature="1"', 'Signature keyId="a",signature="2"',
         'Signature keyId="b",signature="1"'),
        ("EG1-HMAC-SHA256 client_token=a;access_token=b;nonce=1;signature=1",
         "EG1-HMAC-SHA256 client_token=a;access_token=b;nonce=2;signature=2",
         "EG1-HMAC-SHA256 client_token=a;access_token=c;nonce=1;signature=1"),
        ("AWS AK1:sig1", "AWS AK1:sig2", "AWS AK2:sig1"),
        ("SharedKey account:sig1", "SharedKey account:sig2", "SharedKey another:sig1"),
        # Nothing in it says who: all who use it share a key.
        ("Negotiate YIIa", "Negotiate YIIb", "NTLM TlRM"),
    ],
)  # fmt: skip
def test_what_is_signed_anew_does_not_change_the_key(first: str, again: str, other: str) -> None:
    """Otherwise each request would have a limit of its own, and none would ever wait."""
    key_of = by_credential()
    assert key_of(authorized(first)) == key_of(authorized(again)) != key_of(authorized(other))


@pytest.mark.parametrize("value", [TOKEN, "é", "\x80", "é".encode("latin-1")])
def test_the_libraries_make_one_key_of_one_credential(value: str | bytes) -> None:
    """What counts is the bytes on the wire."""
    on_wire = value if isinstance(value, bytes) else value.encode("latin-1")
    key_of = by_credential()
    theirs = Call("GET", ORIGIN, httpx.Headers([(b"X-Api-Key", on_wire)]), key=ORIGIN)
    assert key_of(theirs) == key_of(a_call(X_Api_Key=value)) != ORIGIN


def test_no_secret_shows() -> None:
    """Not in a key, a repr, a pickle or an error; not even one that was passed for a name."""
    key_of = by_credential(params=["key"], secret=SECRET)
    key = key_of(a_call(f"/?key={TOKEN}", Authorization=f"Bearer {TOKEN}"))
    errors = []
    for wrong in (f"Bearer {TOKEN}", [f"{TOKEN}:"], TOKEN.encode()):
        with pytest.raises(ConfigurationError) as caught:
            by_credential(wrong)  # type: ignore[arg-type]
        errors.append(str(caught.value))
    with pytest.raises(ConfigurationError) as caught:
        by_credential(secret=TOKEN)  # type: ignore[arg-type]
    shown = " ".join([str(key), repr(key_of), str(caught.value), *errors])
    assert TOKEN not in shown
    assert SECRET.decode() not in shown
    assert SECRET not in pickle.dumps(key_of)
    assert repr(key_of) == "by_credential(params=['key'], secret=...)"
    assert (
        repr(by_credential("X-A", cookies="b")) == "by_credential(headers=['X-A'], cookies=['b'])"
    )


def test_with_a_secret_all_processes_find_the_same_keys() -> None:
    """The same secret, the same key; another secret, or none, another key."""
    call = authorized("Bearer a")
    key = by_credential(secret=SECRET)(call)
    assert key == "https://api.example.com bfae8e3780b1fe92"
    assert by_credential(secret=SECRET[::-1])(call) != key
    assert by_credential()(call) != key


def test_it_says_whether_its_keys_mean_something_elsewhere() -> None:
    """Only a user's secret makes them portable; parts are as portable as the least of them."""
    assert by_credential(secret=SECRET).portable
    assert not by_credential().portable
    assert by_route("/").portable
    assert by_each(by_origin, by_route("/"), by_credential(secret=SECRET)).portable
    assert not by_each(by_origin, by_credential()).portable


def test_all_without_a_secret_agree_in_one_process() -> None:
    """So limiters of one name count alike, wherever they were made."""
    call = authorized("Bearer a")
    assert by_credential()(call) == by_credential("Authorization")(call)


ELSEWHERE = """
import pickle, subprocess
from ratekit.call import Call
from ratekit.keys import by_credential

call = Call("GET", "http://x", {"Authorization": "Bearer a"}, key="http://x")
own, fleet = by_credential(), by_credential(secret=b"sixteen bytes at least")
keys = own(call), fleet(call)
there = '''
import pickle, sys
from ratekit.call import Call
call = Call("GET", "http://x", {"Authorization": "Bearer a"}, key="http://x")
print(*(of(call).split()[1] for of in pickle.load(sys.stdin.buffer)))
'''
seen = subprocess.run(
    [sys.executable, "-c", there], input=pickle.dumps((own, fleet)), stdout=-1, check=True
)
say("elsewhere:", *(a in b for a, b in zip(seen.stdout.decode().split(), keys)))
if hasattr(os, "fork") and os.fork() == 0:
    say("forked:", keys == (own(call), fleet(call)), by_credential()(call) == keys[0])
    os._exit(0)
os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_finds_the_keys_of_its_parent() -> None:
    """Another process finds them only where a secret was given; its own never leave a process."""
    code, out, err = run(ELSEWHERE, "", "")
    assert (code, err) == (0, "")
    assert out.splitlines() == ["elsewhere: False True", "forked: True True"]


def test_a_clients_own_credentials_are_seen(edge: Edge, server: ApiServer) -> None:
    """What `auth=` adds is there when the key is asked for; two credentials, two keys."""
    noted = Noted(by_credential())
    transport = edge.transport(noted)
    with edge.on(transport) as client:
        for auth in (None, ("ann", "secret-1"), ("bob", "secret-2"), ("ann", "secret-1")):
            client.native.auth = auth
            client.get(f"{server.url}/items")
        client.native.auth = None
        client.get(f"{server.url}/items", headers={"x-api-key": TOKEN})
    none, ann, bob, again, token = noted.keys
    assert none == server.url
    assert ann == again
    assert len({none, ann, bob, token}) == 4


def test_a_digest_is_one_credential_through_all_its_requests(edge: Edge, server: ApiServer) -> None:
    """The challenge's answer counts as its user's, with every nonce."""
    challenge = 'Digest realm="r", nonce="{}", qop="auth", algorithm=MD5'
    for nonce in "12":
        refusal = Answer(401, [("WWW-Authenticate", challenge.format(nonce))])
        server.script(f"/items/{nonce}", refusal)
    library = edge.library
    digest = library.auth.HTTPDigestAuth if edge.name == "requests" else library.DigestAuth
    noted = Noted(by_credential())
    with edge.client(noted) as client:
        for nonce in "12":
            client.native.auth = digest("ann", "secret")
            client.get(f"{server.url}/items/{nonce}")
            client.get(f"{server.url}/items/{nonce}")
    sent = [
        dict(one.headers).get("Authorization") for n in "12" for one in server.seen(f"/items/{n}")
    ]
    assert len(set(sent)) == 5
    key = noted.keys[1]
    assert noted.keys == [server.url, key, key] * 2
    assert key != server.url


def test_all_edges_make_the_same_keys(edge: Edge, server: ApiServer) -> None:
    """One limiter may stand under all three libraries."""
    noted = Noted(
        by_each(by_route("/users/{id}"), by_credential(params="key", cookies="c", secret=SECRET))
    )
    with edge.client(noted) as client:
        client.get(
            f"{server.url}//users/a%2Fb%20c/?key=1%2B1#x",
            headers={
                "Authorization": "Bearer a",
                "Cookie": "c=d",
            },
        )
    assert noted.keys == [f"{server.url} /users/{{id}} + 4c4df6289b7f707e"]
