"""Downloads container images from their registry straight into a tar that docker load takes.

    import dockersave
    result = dockersave.pull("debian", "debian.tar")

The package holds the program and calls it: pull() for an archive in a file or a binary stream,
stream() to read one, Pull to cancel from another thread, run() for everything else.
"""

from ._errors import (
    AccessDenied,
    BaseMissing,
    Cancelled,
    Error,
    Failed,
    IntegrityError,
    LockOutdated,
    NetworkError,
    NotFound,
    NotInflated,
    OutputError,
    UsageError,
)
from ._program import program, run
from ._pull import Pull, Stream, pull, stream
from ._values import Image, Progress, Result

__version__ = "@VERSION@"

__all__ = [
    "AccessDenied",
    "BaseMissing",
    "Cancelled",
    "Error",
    "Failed",
    "Image",
    "IntegrityError",
    "LockOutdated",
    "NetworkError",
    "NotFound",
    "NotInflated",
    "OutputError",
    "Progress",
    "Pull",
    "Result",
    "Stream",
    "UsageError",
    "program",
    "pull",
    "run",
    "stream",
]
