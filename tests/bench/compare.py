"""The comparisons: the same image by every tool, interleaved, medians and spread."""
import dataclasses
import os
import random
import statistics
import time

from count import Counter
from measure import empty, run
from push import files_of_this_machine, push
from tools import Source, path_of

IMAGES = {
    "twelve": "12x9267200",
    "one": "1x536870912",
    "small": "200x65536",
    "thirty": "30x71582788",
    "hundred": "1x104857600",
    "gigabyte": "12x83886080",
}
# Files of this machine, as tar in gzip: bytes and layers.
REAL = {"real-one": (400_000_000, 1), "real-five": (400_000_000, 5)}
# name: (image, link, title)
CASES = {
    "twelve": ("twelve", "http", "12 layers, 111 MB, loopback HTTP"),
    "one": ("one", "http", "one layer, 537 MB, loopback HTTP"),
    "small": ("small", "http", "200 layers, 13 MB, loopback HTTP"),
    "tls-twelve": ("twelve", "tls", "12 layers, 111 MB, loopback HTTPS"),
    "tls-one": ("one", "tls", "one layer, 537 MB, loopback HTTPS"),
    "thirty": ("thirty", "http", "30 layers, 2.1 GB, loopback HTTP"),
    "wan-twelve": ("twelve", "wan", "12 layers, 111 MB, 80 ms, 4 MB/s a connection, 16 MB/s in all"),
    "wan-one": ("hundred", "wan", "one layer, 105 MB, the same link"),
    "wan-stream": ("hundred", "wan", "the same to a pipe: -o -"),
    "gunzip-one": ("real-one", "http", "--gunzip of one layer, 400 MB inflated, loopback HTTP"),
    "gunzip-five": ("real-five", "http", "--gunzip of five layers, 400 MB inflated, loopback HTTP"),
    "verify": ("gigabyte", "http", "--verify of 1 GB in 12 layers, in the page cache"),
}
# How far away a peer is asked: its time there is arithmetic.
FAR_PEERS = 1
LARGE = ("thirty",)
# A virtual machine gives idle memory back to its host within seconds, and a run that follows then
# pays for every page it takes. A user's machine was idle before the pull.
STATES = {"idle": 5.0, "busy": 0.0}  # seconds of rest before each run
LINK = 16e6  # bytes a second, all connections of the distant link


@dataclasses.dataclass
class Row:
    """What one tool took in one case."""
    case: str
    tool: str
    state: str
    runs: int
    wall: float
    least: float
    most: float
    cpu: float
    peak: int
    disk: int
    read: int
    written: int
    stored: int
    archive: int
    connections: int = 0
    requests: int = 0
    ranges: int = 0


def size_of(directory):
    total = 0
    for parent, _, names in os.walk(directory):
        total += sum(os.path.getsize(os.path.join(parent, name)) for name in names)
    return total


def summary(case, tool, state, runs, archive, counted):
    wall = [one.wall for one in runs]
    middle = {name: statistics.median(getattr(one, name) for one in runs) for name in ("cpu", "read", "written", "stored")}
    counted = counted or {}
    return Row(case, tool, state, len(runs), statistics.median(wall), min(wall), max(wall), middle["cpu"],
               max(one.peak for one in runs), max(one.disk for one in runs), int(middle["read"]), int(middle["written"]),
               int(middle["stored"]), archive, **{name: counted.get(name, 0) for name in ("connections", "requests", "ranges")})


class Comparison:
    def __init__(self, bench):
        self.bench, self.place, self.tools, self.runs = bench, bench.place, bench.tools, bench.runs

    def prepare(self, cases):
        wanted = {CASES[case][0] for case in cases}
        self.plain = self.bench.plain
        self.place.push(self.plain, {f"bench/{image}": IMAGES[image] for image in sorted(wanted & IMAGES.keys())})
        for image in sorted(wanted & REAL.keys()):
            push(self.plain, f"bench/{image}", files_of_this_machine(self.place.path, *REAL[image]))
        self.counter = Counter(self.plain)
        self.links = {"http": Source(self.plain)}
        if any(CASES[case][1] == "tls" for case in cases):
            self.links["tls"] = Source(self.place.distribution(tls=True), self.place.certificate()[0])
        if any(CASES[case][1] == "wan" for case in cases):
            # What passes the link is counted behind it: at its rates that costs nothing.
            self.links["wan"] = Source(self.place.distant(self.counter.port))

    def commands(self, name, source, repository, without):
        """{tool: command} of a case."""
        if name.startswith("gunzip"):
            found = {"dockersave": self.tools.dockersave(source, repository, "--gunzip", "-o", "x.tar")}
            return {**found, "skopeo": self.tools.skopeo(source, repository)} if path_of("skopeo") else found
        if name == "verify":
            archive = os.path.join(self.place.path, "verify.tar")
            run([(self.tools.dockersave(source, repository, "-o", archive), self.place.path)])
            return {"dockersave": [self.tools.binary, "-q", "--verify", archive], "sha256sum": ["sha256sum", archive]}
        if name == "wan-stream":
            found = {"dockersave": self.tools.dockersave(source, repository, "-o", "-")}
            return {**found, "crane": self.tools.crane(source, repository)} if path_of("crane") else found
        return self.tools.all(source, repository, without, pieces=name == "wan-one")

    def case(self, name):
        image, link, title = CASES[name]
        repository, source = f"bench/{image}", self.links[link]
        without = {"wan": ("skopeo",)}.get(link, ())
        commands = self.commands(name, source, repository, without)
        # On the distant link the line decides, not the memory.
        states = ["idle"] if link == "wan" else [state for state in STATES if state in self.bench.states]
        taken = {(state, tool): [] for state in states for tool in commands}
        counted, archive = {}, {}
        environment = self.tools.environment(source)
        for state in states:
            for turn in range(self.runs):
                # Nobody follows the same tool each time.
                for tool in random.sample(list(commands), len(commands)):
                    if link == "wan" and turn >= FAR_PEERS and tool in ("crane", "oras"):
                        continue
                    empty(self.place.out)
                    self.counter.forget()
                    os.sync()
                    time.sleep(0 if link == "wan" else STATES[state])
                    taken[state, tool].append(run(
                        [(commands[tool], self.place.out)], self.place.out, environment, then=None if link == "wan" else self.tools.behind(tool),
                        pipe="x.tar" if (name, tool) == ("wan-stream", "dockersave") else None))
                    if link == "wan":
                        counted[tool] = self.counter.summary()
                    archive[tool] = size_of(self.place.out)
        if link == "http" and image in IMAGES and name != "verify":
            counted = self.count(repository, without)
        rows = []
        for (state, tool), runs in taken.items():
            rows.append(summary(name, tool, state, runs, archive[tool], counted.get(tool)))
            if runs[0].synced:
                # The same runs, with the sync behind them.
                runs = [dataclasses.replace(one, wall=one.synced, cpu=one.synced_cpu) for one in runs]
                rows.append(summary(name, f"{tool}+sync", state, runs, archive[tool], counted.get(tool)))
        return title, rows

    def count(self, repository, without):
        """Once more through the counting proxy, where nothing is timed."""
        counted = {}
        for tool, command in self.tools.all(Source(self.counter.port), repository, without).items():
            empty(self.place.out)
            self.counter.forget()
            run([(command, self.place.out)], None, self.tools.environment())
            counted[tool] = self.counter.summary()
        empty(self.place.out)
        return counted

    def queries(self):
        """What --sha, --tags, --metadata and a dry run ask for."""
        rows = []
        source = Source(self.counter.port)
        for flag in ("--sha", "--tags", "--metadata", "--platforms", "--dry-run"):
            self.counter.forget()
            run([(self.tools.dockersave(source, "bench/twelve", flag), self.place.out)])
            asked = ", ".join(f"{method} {target.split('/bench/twelve')[-1][:24]}" for method, target, _ in self.counter.requests)
            rows.append({"flag": flag, **self.counter.summary(), "asked": asked})
        return rows

    def startup(self):
        """`true` and `--version`, many times each, one after the other."""
        took = {"true": [], "dockersave --version": []}
        for _ in range(100):
            for name, command in (("true", ["/bin/true"]), ("dockersave --version", [self.tools.binary, "--version"])):
                took[name].append(run([(command, self.place.out)], sync=False, sample=False).wall)
        return {name: statistics.median(times) for name, times in took.items()}
