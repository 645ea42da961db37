"""Errors that are sent to the page or the program that asked."""

from __future__ import annotations


class Refused(Exception):
    """A request that is answered with an error. The text is sent, so it never names a path of this machine.

    Attributes:
        status: of HTTP.
        retry_after: seconds after which to try again; None: not at all.
    """

    def __init__(self, status: int, reason: str, *, retry_after: int | None = None):
        super().__init__(reason)
        self.status, self.retry_after = status, retry_after
