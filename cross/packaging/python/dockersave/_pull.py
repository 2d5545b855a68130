"""A pull: the program as a child process, its events, and its archive as a file or a stream."""

from __future__ import annotations

import io
import json
import logging
import os
import selectors
import subprocess
import threading
from collections import deque
from dataclasses import replace
from types import TracebackType
from typing import IO, Any, Callable, Optional, Sequence, Type, Union

from ._errors import Cancelled, Error, error
from ._program import StrPath, program
from ._values import Image, Progress, Result

_log = logging.getLogger("dockersave")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}
# The size of a pipe on Linux: more is never read at once.
_PIECE = 65536
# A line of the program's is far shorter; this bounds what is kept of one that is not its own.
_LONGEST_LINE = 1 << 20
# How long the program may take to sync what it has, once it was asked to end.
_PATIENCE = 30.0


class Pull:
    """A running pull: wait() for its result, close() to cancel it. A context manager.

    Without `output` the archive gets its default name in the current directory; a path that ends
    in / is a directory for it. `args` are further flags of the command line. `progress` is called
    in the thread that waits. Notes of the program go to the logger "dockersave".
    """

    def __init__(
        self,
        reference: str,
        output: Optional[StrPath] = None,
        *,
        progress: Optional[Callable[[Progress], object]] = None,
        platform: Optional[str] = None,
        user: Optional[str] = None,
        password: Optional[str] = None,
        insecure: bool = False,
        args: Sequence[StrPath] = (),
    ) -> None:
        path = None if output is None else os.fspath(output)
        flags = ["--json"] if path is None else ["--json", f"--output={'./-' if path == '-' else path}"]
        self._start(flags, reference, progress, platform, user, password, insecure, args)

    def _start(
        self,
        flags: Sequence[str],
        reference: str,
        progress: Optional[Callable[[Progress], object]],
        platform: Optional[str],
        user: Optional[str],
        password: Optional[str],
        insecure: bool,
        args: Sequence[StrPath],
    ) -> None:
        command: list[StrPath] = [program(), *flags, "--progress=json"]
        if platform is not None:
            command.append(f"--platform={platform}")
        if user is not None:
            command.append(f"--user={user}")
        if password is not None:
            if "\n" in password:
                raise ValueError("a password is one line")
            command.append("--password-stdin")
        if insecure:
            command.append("--insecure")
        self._callback = progress
        self._progress = Progress()
        self._line = b""
        self._lines: deque[bytes] = deque()
        self._done: dict[str, Any] = {}
        self._failure = ""
        self._plain = ""
        self._final: Optional[Result] = None
        self._output = b""
        self._closed = False
        self._lock = threading.RLock()
        self._process = subprocess.Popen(
            [*command, *args, "--", reference],
            bufsize=0,
            stdin=subprocess.DEVNULL if password is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout and self._process.stderr
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._selector.register(self._process.stderr, selectors.EVENT_READ)
        if password is not None and self._process.stdin:
            try:
                self._process.stdin.write(password.encode() + b"\n")
            except BrokenPipeError:
                pass  # It has ended already: its status says why.
            self._process.stdin.close()

    def wait(self) -> Result:
        """Waits for the end of the pull. Raises the exception for the program's exit status."""
        while not self._final:
            piece = self._read(_PIECE)
            if piece:
                self._keep(piece)
            else:
                self._final = self._result()
        return self._final

    def close(self) -> None:
        """Ends the program if it still runs, and waits for that. A partial archive is kept.

        Any thread may call it; a wait() in another one then raises Cancelled.
        """
        self._closed = True
        if not self._has_ended(0):
            self._process.terminate()
            # A program that waits for a reader of its output learns that there is none.
            self._release()
            if not self._has_ended(_PATIENCE):
                self._process.kill()
                self._process.wait()
        self._release()

    def _has_ended(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def __enter__(self) -> Pull:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            # A terminal sends it to both, and a second signal would end the program at once.
            self._has_ended(1)
        self.close()

    def _keep(self, piece: bytes) -> None:
        self._output += piece

    def _result(self) -> Result:
        """What came of it, once both pipes have ended."""
        status = self._process.wait()
        self._release()
        if self._closed:
            raise Cancelled(self._failure or "closed", status)
        if status != 0:
            raise error(status, self._failure or self._plain)
        told = {**self._done, **(json.loads(self._output) if self._output else {})}
        try:
            return Result(
                told.get("path") if self._output else None,
                told["size"],
                told.get("sha256"),
                told["unchanged"],
                told["downloaded"],
                told["kept"],
                tuple(Image(i["reference"], i["name"], i["digest"], i["platform"]) for i in told.get("images", ())),
            )
        except KeyError as missing:
            raise Error(f"the program ended without saying {missing}: do the flags make it a pull?") from None

    def _read(self, size: int) -> bytes:
        """The next bytes of standard output; nothing once it and standard error have ended."""
        try:
            with self._lock:
                return self._read_locked(size)
        finally:
            # close() in another thread leaves the pipes to the reader.
            if self._closed:
                self._release()

    def _read_locked(self, size: int) -> bytes:
        self._report()
        while not self._closed and self._selector.get_map():
            for key, _ in self._selector.select():
                assert not isinstance(key.fileobj, int)
                archive = key.fileobj is self._process.stdout
                piece = os.read(key.fd, size if archive else _PIECE)
                if not piece:
                    self._selector.unregister(key.fileobj)
                elif archive:
                    return piece
                else:
                    *lines, self._line = (self._line + piece).split(b"\n")
                    self._line = self._line[:_LONGEST_LINE]
                    self._lines.extend(lines)
                    self._report()
                if self._closed:  # by the callback
                    break
        return b""

    def _report(self) -> None:
        """Takes in what the program said. Where the callback raises, the rest stays for the next time."""
        while self._lines:
            before, line = self._progress, self._lines.popleft()
            try:
                event = json.loads(line)
                self._event(event["event"], event)
            except (ValueError, TypeError, KeyError):
                # Not an event: a flag that could not be parsed, for example.
                self._plain = line[:4096].decode(errors="replace")
            if self._callback and self._progress != before:
                self._callback(self._progress)

    def _event(self, name: str, event: dict[str, Any]) -> None:
        now = self._progress
        if name == "started":
            now = replace(now, total=event["total"], layers=event["layers"])
        elif name == "progress":
            now = replace(
                now, done=event["done"], total=event["total"], downloaded=event["downloaded"], rate=event["rate"]
            )
        elif name == "layer":
            now = replace(now, layers_done=now.layers_done + 1)
        elif name == "stage":
            now = replace(now, stage=event["doing"], done=0, total=event["total"], rate=0)
        elif name == "finishing":
            now = replace(now, stage="finishing", rate=0)
        elif name == "note":
            _log.log(_LEVELS.get(event["level"], logging.INFO), "%s", event["text"])
        elif name == "done":
            self._done = event
        elif name == "failed":
            self._failure = event["text"]
        self._progress = now

    def _release(self) -> None:
        """Closes the pipes, unless a thread is reading them: it does that itself."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._selector.close()
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe:
                    pipe.close()
        finally:
            self._lock.release()


class _ToStream(Pull):
    """A pull whose standard output is the archive."""

    def __init__(
        self,
        reference: str,
        progress: Optional[Callable[[Progress], object]],
        platform: Optional[str],
        user: Optional[str],
        password: Optional[str],
        insecure: bool,
        args: Sequence[StrPath],
    ) -> None:
        self._start(["--output=-"], reference, progress, platform, user, password, insecure, args)

    def _keep(self, piece: bytes) -> None:
        pass  # wait() discards what nobody has read.


class Stream(io.RawIOBase):
    """An archive to read, without disk. It is whole and verified once read() returned b"" or wait() a result."""

    def __init__(self, running: _ToStream) -> None:
        super().__init__()
        self._pull = running

    def __exit__(
        self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._pull.__exit__(kind, value, trace)
        self.close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.closed:
            raise ValueError("the stream is closed")
        if len(buffer) == 0:
            return 0
        piece = self._pull._read(len(buffer))
        if not piece:
            self._pull.wait()
        buffer[: len(piece)] = piece
        return len(piece)

    def wait(self) -> Result:
        """Reads the rest, and returns the result. Raises the exception for the program's exit status."""
        return self._pull.wait()

    def close(self) -> None:
        """Ends the program if it still runs."""
        if not self.closed:
            self._pull.close()
        super().close()


def stream(
    reference: str,
    *,
    progress: Optional[Callable[[Progress], object]] = None,
    platform: Optional[str] = None,
    user: Optional[str] = None,
    password: Optional[str] = None,
    insecure: bool = False,
    args: Sequence[StrPath] = (),
) -> Stream:
    """Starts a pull, and returns its archive as a binary stream. Use it in a with statement."""
    return Stream(_ToStream(reference, progress, platform, user, password, insecure, args))


def pull(
    reference: str,
    output: Union[StrPath, IO[bytes], None] = None,
    *,
    progress: Optional[Callable[[Progress], object]] = None,
    platform: Optional[str] = None,
    user: Optional[str] = None,
    password: Optional[str] = None,
    insecure: bool = False,
    args: Sequence[StrPath] = (),
) -> Result:
    """Pulls an image into `output`: a path, a binary stream, or by default a file named after the image.

    An exception, also one of `progress`, ends the pull. A partial file is kept, and the same pull resumes.
    """
    if output is None or isinstance(output, (str, os.PathLike)):
        with Pull(
            reference,
            output,
            progress=progress,
            platform=platform,
            user=user,
            password=password,
            insecure=insecure,
            args=args,
        ) as running:
            return running.wait()
    with stream(
        reference,
        progress=progress,
        platform=platform,
        user=user,
        password=password,
        insecure=insecure,
        args=args,
    ) as source:
        while True:
            piece = source.read(_PIECE)
            if not piece:
                return source.wait()
            while piece:
                count = output.write(piece)
                if isinstance(output, io.RawIOBase) and not count:
                    raise BlockingIOError("the output takes nothing: it is non-blocking")
                # Only a raw stream takes a part, and not every object with a write() counts.
                piece = piece[count:] if isinstance(output, io.RawIOBase) else b""
