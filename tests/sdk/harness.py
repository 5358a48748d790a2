"""What the checks share: where the gateway is, what passed, what was asked.

A check is a function that takes a Session and raises when something is wrong.
Each request carries an `x-client-request-id`, by which its usage row is found
at the end and compared with what the SDK saw.
"""

import dataclasses
import itertools
import time
import traceback


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Tokens in the buckets of a usage row."""

    input: int
    output: int
    cached: int = 0
    reasoning: int = 0


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request that was made, and what its usage row has to say."""

    request_id: str
    api: str
    model: str
    streamed: bool = False
    status: str = "success"
    # None: the SDK was told of no tokens; the row must have counted them.
    tokens: Tokens | None = None
    counted: bool = True
    finish: str | None = None
    tools: int | None = None
    attempts: int | None = 1


class Session:
    """One run of all checks against one gateway."""

    def __init__(self, url, key, tag):
        self.url = url
        self.key = key
        self.tag = tag
        self.results = []
        self.asked = []
        self._numbers = itertools.count(1)

    def headers(self, name):
        """A new request's id, and the header fields that carry it."""
        request_id = f"{self.tag}-{next(self._numbers)}-{name}"
        return request_id, {"x-client-request-id": request_id}

    def note(self, request_id, api, model, **rest):
        """Remembers what was asked, for the comparison at the end."""
        self.asked.append(Asked(request_id, api, model, **rest))

    def run(self, checks):
        """Runs the checks in order; a failing one does not stop the others."""
        for check in checks:
            name = f"{self.tag}: {check.__module__}.{check.__name__}"
            started = time.monotonic()
            try:
                check(self)
                error = None
            except Exception:
                error = traceback.format_exc(limit=-4)
            self.results.append((name, error, time.monotonic() - started))


CHECKS = []


def check(function):
    """Marks a function as a check."""
    CHECKS.append(function)
    return function


def equal(found, wanted, what="value"):
    """Raises when two values differ, with both."""
    if found != wanted:
        raise AssertionError(f"{what}: found {found!r}, wanted {wanted!r}")


def raises(kind, action):
    """The exception of that kind which the action must raise."""
    try:
        action()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


TOOL = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
