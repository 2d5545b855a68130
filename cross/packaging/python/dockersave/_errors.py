"""Exceptions: one class for each exit status of the program."""

from __future__ import annotations

import signal
from typing import Optional


class Error(Exception):
    """The program failed: `status` is its exit status, negative if a signal ended it.

    `output` is what run() found on standard output, such as the defects of --verify.
    """

    status = 1

    def __init__(self, text: str, status: Optional[int] = None, output: str = "") -> None:
        super().__init__(text)
        if status is not None:
            self.status = status
        self.output = output


class Failed(Error):
    """Another failure, such as a malformed document or an untrusted certificate."""

    status = 1


class UsageError(Error):
    """A flag, a reference or a combination of flags that the program does not take."""

    status = 2


class AccessDenied(Error):
    """Missing or wrong credentials."""

    status = 3


class NotFound(Error):
    """No such image, tag or platform."""

    status = 4


class NetworkError(Error):
    """The network or the registry failed. The same pull resumes."""

    status = 5


class IntegrityError(Error):
    """A digest or size mismatch, a missing signature, or --verify found a defect."""

    status = 6


class OutputError(Error):
    """The disk or the output failed."""

    status = 7


class NotInflated(Error):
    """--verify found no defect, but did not inflate some layers."""

    status = 8


class BaseMissing(Error):
    """A thin archive needs layers that no --base has."""

    status = 9


class LockOutdated(Error):
    """--check found that a renewal would change the lock."""

    status = 10


class Cancelled(Error):
    """The pull was closed or interrupted. The same pull resumes."""

    status = 130


_BY_STATUS = {
    kind.status: kind
    for kind in (
        Failed,
        UsageError,
        AccessDenied,
        NotFound,
        NetworkError,
        IntegrityError,
        OutputError,
        NotInflated,
        BaseMissing,
        LockOutdated,
    )
}
_INTERRUPTED = {
    sign * number + base
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    for sign, base in ((-1, 0), (1, 128))
}


def error(status: int, text: str, output: str = "") -> Error:
    """The exception for an exit status other than 0."""
    if status in _INTERRUPTED:
        return Cancelled(text or "interrupted", status, output)
    if status < 0:
        return Error(text or f"signal {-status} ended the program", status, output)
    return _BY_STATUS.get(status, Error)(text or f"the program ended with status {status}", status, output)
