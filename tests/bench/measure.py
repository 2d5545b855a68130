"""One measured run: time, processor, memory, bytes and disk of a command and all it starts.

Knows nothing of registries or of the tools it runs. Needs Linux: /proc says what is used.
"""
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time


@dataclasses.dataclass
class Run:
    wall: float  # seconds
    cpu: float  # seconds, user and system
    peak: int  # resident bytes of the whole process tree
    disk: int  # bytes of the output directory's blocks, at the most
    read: int  # bytes of read calls (not of recv: sockets)
    written: int  # bytes of write calls
    stored: int  # bytes that were to go to a disk (0 on tmpfs)
    fair: int = 0  # proportional bytes (pages that several share are divided), where asked for
    late: bool = False  # ended by the limit
    synced: float = 0.0  # seconds until `then` had ended, too
    synced_cpu: float = 0.0


def empty(directory):
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)


def blocks(directory):
    """Bytes of all blocks below a directory; what vanishes meanwhile is not counted."""
    total = 0
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += blocks(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
    except OSError:
        pass
    return total


def family(pid):
    """A process and all its descendants."""
    pids = [pid]
    for one in pids:
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{task}/children") as file:
                    pids += map(int, file.read().split())
        except OSError:
            pass
    return pids


def field(path, name):
    """The number behind `name:`, or 0."""
    try:
        with open(path) as file:
            for line in file:
                if line.startswith(name + ":"):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0


class Sampler(threading.Thread):
    """Looks at processes and a directory until it is told to stop."""

    def __init__(self, pids, directory, fair):
        super().__init__(daemon=True)
        self.pids, self.directory, self.fair_wanted = pids, directory, fair
        self.peak = self.disk = self.fair = 0
        self.done = threading.Event()

    def run(self):
        turn = 0
        # Often at first: what is over soon is seen, too.
        while not self.done.wait(0.001 if turn < 50 else 0.004):
            if turn % 5 == 0:
                tree = [each for pid in self.pids for each in family(pid)]
                self.disk = max(self.disk, blocks(self.directory)) if self.directory else 0
            if self.fair_wanted and turn % 50 == 25:
                self.fair = max(self.fair, sum(field(f"/proc/{pid}/smaps_rollup", "Pss") for pid in tree) * 1024)
            # The kernel knows one process's peak by itself. Not rusage: its peak begins with that
            # of this process, from which it was forked.
            name = "VmHWM" if len(tree) == 1 else "VmRSS"
            self.peak = max(self.peak, sum(field(f"/proc/{pid}/status", name) for pid in tree) * 1024)
            turn += 1


def run(commands, watch=None, environment=None, limit=None, fair=False, sync=True, sample=True, then=None, pipe=None):
    """Runs commands at once, each (argv, directory); what all of them took together.

    `watch`: the directory whose disk is looked at. After `limit` seconds they are ended. `then`: a
    command behind them, timed with them apart. `pipe`: the file in `watch` to which somebody who is
    not measured brings what they write to a pipe. A failure ends the program: half a measurement is none.
    """
    if sync:
        # Nobody pays for what somebody else has written before.
        os.sync()
    errors = tempfile.TemporaryFile()
    output, reader = subprocess.DEVNULL, None
    if pipe:
        with open(os.path.join(watch, pipe), "wb") as file:
            reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
        output = reader.stdin
    begin = time.perf_counter()
    processes = [
        subprocess.Popen(argv, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
        for argv, directory in commands
    ]
    if reader:
        reader.stdin.close()
    sampler = Sampler([process.pid for process in processes], watch, fair)
    if sample:
        sampler.start()
    late = []

    def stop():
        late.append(True)
        for process in processes:
            os.kill(process.pid, 9)

    timer = threading.Timer(limit, stop) if limit else None
    if timer:
        timer.start()
    for process in processes:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    if reader:
        reader.wait()
    wall = time.perf_counter() - begin
    synced = (0.0, 0.0)
    if then:
        _, status, usage = os.wait4(os.posix_spawnp(then[0], then, os.environ), 0)
        synced = (time.perf_counter() - begin, usage.ru_utime + usage.ru_stime)
        if status:
            sys.exit(f"{' '.join(then)}: failed")
    if timer:
        timer.cancel()
    sampler.done.set()
    if sample:
        sampler.join()
    total = Run(wall, 0.0, sampler.peak, sampler.disk, 0, 0, 0, sampler.fair, bool(late))
    for process, (argv, _) in zip(processes, commands):
        # Still there, as it was not waited for: its counters hold what it and its children did.
        io = f"/proc/{process.pid}/io"
        total.read += field(io, "rchar")
        total.written += field(io, "wchar")
        total.stored += field(io, "write_bytes")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        total.cpu += usage.ru_utime + usage.ru_stime
        if status and not late:
            errors.seek(0)
            sys.exit(f"{' '.join(argv)}: {errors.read().decode(errors='replace')[-800:]}")
    total.synced, total.synced_cpu = synced[0], total.cpu + synced[1]
    return total
