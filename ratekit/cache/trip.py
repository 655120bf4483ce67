"""A call that goes to the server because a cache has no answer, and what is kept of its answer."""

from dataclasses import dataclass, replace

from ratekit.cache.answers import answer, hit, say
from ratekit.cache.entry import Entry, Grace, entry_of, fields_of, freshened
from ratekit.cache.identity import Asked
from ratekit.cache.storage import Found, Storage
from ratekit.cache.ttl import TtlRules
from ratekit.call import Call, Outcome
from ratekit.http.fields import directives, listed, opaque
from ratekit.http.freshness import Rules, why_not_stored

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

    def rules_for(self, call: Call) -> Rules:
        """Return by which rules the answer to a call is kept."""
        ttl = call.options.ttl
        if ttl is not None:
            return replace(self.rules, ttl=ttl, override=True)
        ttl = self.ttl.of(call.key, call.url) if self.ttl else None
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
        self._leads = False
        self._asked_wall = self._received_wall = call.clock.wall()
        self._asked_at = self._received_at = storage.now()
        self.why = self._reason()

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
        self._leads = self.page is None or self._storage.take_lead(self.mark())
        return self._leads

    def give_up(self, *, for_all: bool = False) -> None:
        """Say that there is nothing to keep: another one may ask, or all of them `for_all`."""
        if self._leads:
            self._leads = False
            self._storage.give_up_lead(self.mark(), for_all=for_all)

    def wants(self, outcome: Outcome) -> int:
        """Return how many bytes of an answer's body are kept at most; 0: none of it."""
        self._received_at, self._received_wall = self._storage.now(), self.call.clock.wall()
        if outcome.status is None or outcome.status == 304:
            return 0
        self._rules = self._keeping.rules_for(self.call)
        headers = outcome.headers
        self._refusal = why_not_stored(
            outcome.status,
            headers,
            directives(headers.get("cache-control", "")),
            asked=self.asked.said,
            rules=self._rules,
            authorized=bool(self.asked.who),
        )
        return 0 if self._refusal else self._keeping.most

    # When it is back.

    def end(self, outcome: Outcome) -> Outcome:
        """Keep what came of it, and hand it on."""
        status, entry = outcome.status, self.entry
        if outcome.from_cache:
            return outcome
        if status == 304 and entry is not None:
            return self._end_validation(outcome, entry)
        if (status in _ERRORS or status == 429) and self.may_stand_in(status):
            self.give_up()
            outcome.discard()
            return self.stale("stale-if-error")
        said = f"fwd={self.why}; fwd-status={status}"
        if self.call.collapsed:
            said += "; collapsed"
        if self.call.collapsed or self.call.method == "HEAD" or status == 304:
            return say(outcome, said)
        if outcome.recording is None or self._refusal is not None:
            if entry is not None and status is not None and status < 300:
                # What is kept is older than what will not be.
                self._storage.drop(self.asked.url)
            self.give_up(for_all=True)
            return say(outcome, f"{said}; detail={self._refusal or 'length'}")
        self._keep_when_whole(outcome)
        return say(outcome, f"{said}; stored")

    def _keep_when_whole(self, outcome: Outcome) -> None:
        recording = outcome.recording
        if self.page is None:
            self.page = self._storage.open(self.asked)
        page = self.page
        if recording is None or page is None:
            return
        # As the server sent them: the user's copy is the user's to change.
        sent = outcome.reply(b"")
        fields = fields_of(sent.headers)
        entry = entry_of(
            sent,
            fields,
            rules=self._rules,
            grace=self._keeping.grace,
            asked_wall=self._asked_wall,
            wall=self._received_wall,
            now=self._received_at,
        )
        vary = listed(fields.get("vary"))

        def keep(body: bytes | None) -> None:
            if body is None or len(body) > self._keeping.most:
                self.give_up(for_all=body is not None)
            elif not self._storage.keep(self.asked, page, vary, entry.with_body(body)):
                self.give_up(for_all=True)

        recording.then(keep)

    def _end_validation(self, outcome: Outcome, entry: Entry) -> Outcome:
        """Answer with what is kept: the server has said that it still holds."""
        said = f"fwd={self.why}; fwd-status=304"
        etag = outcome.headers.get("etag")
        if etag is None or opaque(etag) == opaque(entry.etag):
            entry = freshened(
                entry,
                outcome.reply(b"").headers,
                rules=self._keeping.rules_for(self.call),
                grace=self._keeping.grace,
                asked_wall=self._asked_wall,
                wall=self._received_wall,
                now=self._received_at,
            )
            if self.page is not None:
                vary = listed(fields_of(entry.reply.headers).get("vary"))
                self._storage.keep(self.asked, self.page, vary, entry)
        if self.asked.conditions is not None:
            # The user's own question, and his answer.
            return say(outcome, said)
        outcome.discard()
        return answer(self.call, entry.reply, self.age(), f"ratekit; {said}; stored")
