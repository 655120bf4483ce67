"""A call that goes to the server because a cache has no answer, and what is kept of its answer."""

from dataclasses import dataclass, replace

from ratekit.cache.answers import answer, hit, say
from ratekit.cache.entry import Entry, Grace, entry_of, fields_of, freshened
from ratekit.cache.identity import Asked
from ratekit.cache.storage import Found, Page, Storage
from ratekit.cache.ttl import TtlRules
from ratekit.call import Call, Outcome, Verdict
from ratekit.http.fields import FOREVER, Directives, directives, is_listed, listed, opaque
from ratekit.http.freshness import Rules, why_not_stored
from ratekit.http.reply import Recording

__all__ = ["Keeping", "Trip"]

# RFC 5861, 4: the answers in whose place a stale one may stand.
_ERRORS = frozenset({500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Keeping:
    """What to keep, by which rules and for how long. `most`: the longest body, in bytes."""

    rules: Rules
    ttl: TtlRules
    grace: Grace
    most: int

    def may_override(self, call: Call, said: Directives) -> bool:
        """Return whether anything could be kept of an answer that says `no-store`."""
        return self.rules.override or said.must_understand or call.options.ttl is not None

    def rules_for(self, call: Call) -> Rules:
        """Return by which rules the answer to a call is kept."""
        ttl = call.options.ttl
        if ttl is not None:
            return replace(self.rules, ttl=min(ttl, FOREVER), override=True)
        ttl = self.ttl.of(call.key, call.url) if self.ttl else None
        if ttl == 0:
            # Of these nothing is kept, whatever the server says.
            return replace(self.rules, ttl=0, override=True)
        return self.rules if ttl == self.rules.ttl else replace(self.rules, ttl=ttl)


class Trip:
    """One such call, from the moment it leaves the cache until its answer is whole."""

    def __init__(
        self, call: Call, asked: Asked, found: Found, storage: Storage, keeping: Keeping
    ) -> None:
        self.call = call
        self.asked = asked
        self.page, self.entry = found
        self._storage = storage
        self._keeping = keeping
        self._rules = keeping.rules
        self._refusal: str | None = None
        self._lead = ""
        self._drops = storage.drops
        self._asked_at = self._received_at = storage.now()
        self.why = "uri-miss" if self.page is None else self._reason()
        if self.page is None and storage.opens_early:
            self.page = storage.open(asked)

    def _reason(self) -> str:
        """Return why it goes to the server (RFC 9211, 2.2)."""
        entry, said = self.entry, self.asked.said
        if self.call.options.refresh:
            return "request"
        if entry is None:
            return "vary-miss" if self.page is not None and self.page.vary else "uri-miss"
        is_fresh = entry.age_at(self._asked_at) < entry.fresh_for and not entry.always
        demands = said.no_cache or said.max_age is not None or said.min_fresh is not None
        return "request" if is_fresh and demands else "stale"

    def mark(self) -> str:
        """Return the name of the answer that is asked for."""
        page = self.page
        return "" if page is None else f"{page.mark} {self.asked.variant(page.vary)}"

    def age(self) -> float:
        """Return how old the kept answer is now."""
        return 0.0 if self.entry is None else self.entry.age_at(self._storage.now())

    def stale(self, detail: str) -> Outcome:
        """Return what is kept, though it is stale."""
        if self.entry is None:
            raise ValueError("nothing is kept")
        return hit(self.call, self.asked, self.entry, self.age(), f"; detail={detail}")

    def may_revalidate(self) -> bool:
        """Return whether a stale answer may be used while somebody asks for a new one."""
        entry = self.entry
        return (
            entry is not None
            and entry.while_revalidate > 0
            and not self.call.options.refresh
            and entry.is_graced(self.age(), self.asked.said, entry.while_revalidate)
        )

    def may_stand_in(self, status: int | None = None) -> bool:
        """Return whether the kept answer may stand in the place of an error (RFC 5861, 4)."""
        entry = self.entry
        if entry is None or self.call.options.refresh:
            return False
        longest = max(entry.if_error, entry.while_revalidate)
        asked = self.asked.said.stale_if_error
        if status == 429:
            # The user's own grace alone: the RFC does not have it.
            longest = self._keeping.grace.if_error
        elif asked is not None:
            longest = max(longest, asked)
        return longest > 0 and entry.is_graced(self.age(), self.asked.said, longest)

    def who(self) -> str:
        """Return who asks, as a hash."""
        return self.asked.who

    def stale_within(self, seconds: float) -> Outcome | None:
        """Return what is kept, if it is not stale for longer than this and may be used so."""
        entry = self.entry
        if entry is None or not entry.is_graced(self.age(), self.asked.said, seconds):
            return None
        return self.stale("fallback")

    # While it is on its way.

    def look_again(self) -> Outcome | None:
        """Answer from what somebody else has kept meanwhile."""
        page, entry = self._storage.find(self.asked)
        if entry is None or entry is self.entry:
            return None
        age = entry.age_at(self._storage.now())
        if not entry.is_usable(age, self.asked.said):
            return None
        self.page = page
        return hit(self.call, self.asked, entry, age, "; collapsed")

    def take_lead(self) -> bool:
        """Return whether this call is the one of a fleet's that asks the server."""
        if self.page is None:
            self.page = self._storage.open(self.asked)
        mark = self.mark()
        if mark and mark != self._lead:
            if not self._storage.take_lead(mark):
                return False
            self._lead = mark
        return True

    def give_up(self, *, for_all: bool = False) -> None:
        """Say that this call asks no more: another one may, or `for_all` everybody should."""
        mark, self._lead = self._lead, ""
        if mark:
            self._storage.give_up_lead(mark, for_all=for_all)

    def wants(self, outcome: Outcome) -> int:
        """Return how many bytes of an answer's body are kept at most; 0: none of it."""
        headers = outcome.headers
        self._refusal = None
        said = directives(headers.get("cache-control", ""))
        if said.no_store and not self._keeping.may_override(self.call, said):
            # What most answers say that are not kept: nothing else need be looked at.
            self._refusal = "no-store"
            return 0
        self._received_at = self._storage.now()
        if outcome.status is None or outcome.status == 304:
            return 0
        self._rules = self._keeping.rules_for(self.call)
        self._refusal = why_not_stored(
            outcome.status,
            headers,
            said,
            asked=self.asked.said,
            rules=self._rules,
            authorized=self.asked.authorized,
        )
        if "set-cookie" in headers and not self.asked.authorized:
            # A session of its own for whoever asked, and nobody can tell who that was.
            self._refusal = self._refusal or "set-cookie"
        return 0 if self._refusal else self._keeping.most

    # When it is back.

    def end(self, outcome: Outcome) -> Outcome:
        """Keep what came of it, and hand it on."""
        status, entry = outcome.status, self.entry
        if outcome.from_cache:
            return outcome
        if entry is None and self._refusal is not None and not self._lead:
            return say(outcome, f"fwd={self.why}; fwd-status={status}; detail={self._refusal}")
        if status == 304 and entry is not None:
            return self._end_validation(outcome, entry)
        if (status in _ERRORS or status == 429) and self.may_stand_in(status):
            self.give_up()
            outcome.discard()
            return self.stale("stale-if-error")
        return say(outcome, f"fwd={self.why}; fwd-status={status}{self._end_fetch(outcome)}")

    def _end_fetch(self, outcome: Outcome) -> str:
        """Keep a new answer; return what is to be said of that."""
        if self.call.collapsed or self.call.method == "HEAD" or outcome.status == 304:
            self.give_up()
            return "; collapsed" if self.call.collapsed else ""
        if outcome.recording is None or self._refusal is not None:
            verdict = outcome.verdict(self.call.options)
            if self.entry is not None and verdict in {Verdict.OK, Verdict.IGNORED}:
                # What is kept is older than what the server says now.
                self._storage.drop(self.asked.url)
            self.give_up(for_all=True)
            return f"; detail={self._refusal or 'length'}"
        if self.page is None:
            if self._storage.drops != self._drops:
                # A write overtook it, maybe of this very URL: nobody can say what it saw.
                self.give_up()
                return "; detail=overtaken"
            self.page = self._storage.open(self.asked)
        if self.page is None:
            return "; detail=store"
        self._keep_when_whole(outcome.recording, outcome, self.page)
        return "; stored"

    def _keep_when_whole(self, recording: Recording, outcome: Outcome, page: Page) -> None:
        # As the server sent them: the user's copy is the user's to change.
        sent = outcome.reply(b"")
        fields = fields_of(sent.headers)
        entry = entry_of(
            sent,
            fields,
            rules=self._rules,
            grace=self._keeping.grace,
            **self._times(),
        )
        vary = listed(fields.get("vary"))

        def keep(body: bytes | None) -> None:
            kept = (
                body is not None
                and len(body) <= self._keeping.most
                and self._storage.keep(self.asked, page, vary, entry.with_body(body))
            )
            self.give_up(for_all=not kept and body is not None)

        recording.then(keep)

    def _times(self) -> dict[str, float]:
        """Return when it was asked for and received, by the clocks that count."""
        now, wall = self._storage.now(), self._storage.wall()
        received = wall - (now - self._received_at)
        asked = received - (self._received_at - self._asked_at)
        return {"now": self._received_at, "wall": received, "asked_wall": asked}

    def _is_of(self, entry: Entry, etag: str | None) -> bool:
        """Return whether a 304 speaks of the answer that is kept (RFC 9111, 4.3.4)."""
        if etag is not None:
            return opaque(etag) == opaque(entry.etag)
        # The user may have asked for another one.
        asked = self.asked.conditions
        return asked is None or is_listed(entry.etag, asked.get("if-none-match", ""))

    def _end_validation(self, outcome: Outcome, entry: Entry) -> Outcome:
        """Answer with what is kept: the server has said that it still holds."""
        said = f"fwd={self.why}; fwd-status=304"
        if self._is_of(entry, outcome.headers.get("etag")):
            entry = freshened(
                entry,
                outcome.reply(b"").headers,
                rules=self._keeping.rules_for(self.call),
                grace=self._keeping.grace,
                **self._times(),
            )
            fields = fields_of(entry.reply.headers)
            # What is said now may be that it must not be kept any longer.
            refusal = why_not_stored(
                entry.reply.status,
                fields,
                directives(fields.get("cache-control", "")),
                asked=self.asked.said,
                rules=self._keeping.rules_for(self.call),
                authorized=self.asked.authorized,
            )
            if refusal is not None:
                self._storage.drop(self.asked.url)
                said += f"; detail={refusal}"
            elif self.page and self._storage.keep(
                self.asked, self.page, listed(fields.get("vary")), entry
            ):
                said += "; stored"
        self.give_up()
        if self.asked.conditions is not None:
            # The user's own question, and his answer.
            return say(outcome, said)
        outcome.discard()
        age = entry.age_at(self._storage.now())
        return answer(self.call, entry.reply, age, f"ratekit; {said}")
