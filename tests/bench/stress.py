"""Registries that misbehave, fifty pulls at once, and how all grows with the image."""
import os
import random
import statistics
import time

from compare import STATES
from count import Counter
from measure import empty, run
from tools import Source, path_of

MB = 1_000_000
# What the tests' registry does (tests/registry/serve.rs), over connections of 16 MB/s each.
FAULTS = {
    "well": "a registry that behaves",
    "slow-range": "every second range at a byte a second",
    "resets": "every second connection reset, 1 MB into each layer",
    "busy": "429 above two requests at once",
}
PACE = 16 * MB
LIMIT = 30  # seconds, after which a pull counts as lost, and is not tried again
FIFTY = 50
CONNECTIONS = (1, 2, 3, 4, 6, 8, 12, 16)
LAYERS = (1, 10, 100, 1000)
SIZES = (1, 4, 16, 64, 256, 1024)  # MB
LARGE_SIZES = (2048, 8192)
MOST_PEERS = {"layers": 1000, "sizes": 1024}  # no peer is asked for more
FEW = 3  # runs of each point of a line


class Stress:
    def __init__(self, bench):
        self.bench, self.place, self.tools, self.runs = bench, bench.place, bench.tools, bench.runs

    def once(self, command, **more):
        empty(self.place.out)
        return run([(command, self.place.out)], self.place.out, self.tools.environment(), **more)

    def adverse(self):
        """Each fault with one connection and with the default; two shapes of image."""
        rows = []
        for fault, what in FAULTS.items():
            arguments = ["--pace", str(PACE), "bad/one:latest=1x48000000", "bad/twelve:latest=12x4000000"]
            process, port = self.place.serve(*arguments, *([] if fault == "well" else ["--fault", fault]))
            for image in ("one", "twelve"):
                took = {1: [], None: []}
                for _ in range(self.runs):
                    for jobs, runs in took.items():
                        if any(one.late for one in runs):
                            continue
                        runs.append(self.once(self.tools.pull(Source(port), f"bad/{image}", jobs), limit=LIMIT))
                alone, own = (statistics.median(one.wall for one in took[jobs]) for jobs in (1, None))
                rows.append({"fault": fault, "what": what, "image": image, "alone": alone, "wall": own,
                             "most": max(one.wall for one in took[None]), "lost": sum(one.late for one in took[None])})
            self.place.stop(process)
        return rows

    def fifty(self):
        """Fifty pulls of the same image, each to its own directory, at once."""
        self.place.push(self.bench.plain, {"bench/fifty": "12x1048576"})
        source = Source(self.bench.plain)
        names = ["dockersave"] + (["crane"] if path_of("crane") else [])
        took = {(name, state): [] for state in self.bench.states for name in names}
        for _ in range(self.runs):
            for (name, state), runs in took.items():
                empty(self.place.out)
                os.sync()
                time.sleep(STATES[state])
                commands = []
                for number in range(FIFTY):
                    directory = os.path.join(self.place.out, str(number))
                    os.mkdir(directory)
                    command = self.tools.pull(source, "bench/fifty") if name == "dockersave" else self.tools.crane(source, "bench/fifty")
                    commands.append((command, directory))
                runs.append(run(commands, environment=self.tools.environment(), fair=True))
        empty(self.place.out)
        return [{"tool": name, "state": state, "wall": statistics.median(one.wall for one in runs), "cpu": statistics.median(one.cpu for one in runs),
                 "peak": max(one.peak for one in runs), "fair": max(one.fair for one in runs)} for (name, state), runs in took.items()]

    def states(self, commands, runs, states=None):
        """{tool: {state: median seconds, processor seconds, highest peak}}; nobody follows the same tool each time."""
        took = {(tool, state): [] for tool in commands for state in states or self.bench.states}
        for _ in range(runs):
            for state in states or self.bench.states:
                for tool in random.sample(list(commands), len(commands)):
                    empty(self.place.out)
                    os.sync()
                    time.sleep(STATES[state])
                    took[tool, state].append(self.once(commands[tool]))
        found = {tool: {} for tool in commands}
        for (tool, state), them in took.items():
            found[tool][state] = {"wall": statistics.median(one.wall for one in them), "cpu": statistics.median(one.cpu for one in them),
                                  "peak": max(one.peak for one in them)}
        return found

    def connections(self):
        """Time over --jobs, near and far, and what a peer takes, which has no such flag."""
        self.place.push(self.bench.plain, {"bench/near": "12x9267200", "bench/far": "12x2666666", "bench/far-one": "1x32000000"})
        near, far = Source(self.bench.plain), Source(self.place.distant(self.bench.plain))
        lines, peers = {}, {}
        for title, source, image in (("12 layers, 111 MB", near, "bench/near"), ("distant, 12 layers, 32 MB", far, "bench/far"),
                                     ("distant, one layer, 32 MB", far, "bench/far-one")):
            # Far away the line decides, not the memory.
            states, runs = (None, min(self.runs, FEW)) if source is near else (["busy"], 1)
            self.once(self.tools.pull(source, image, 1))  # a warm-up
            for jobs in CONNECTIONS:
                for state, one in self.states({"": self.tools.pull(source, image, jobs)}, runs, states)[""].items():
                    lines.setdefault(f"{title}, {state}" if source is near else title, []).append((jobs, one["wall"]))
            if path_of("crane"):
                for state, one in self.states({"": self.tools.crane(source, image)}, runs, states)[""].items():
                    peers[f"{title}, {state}" if source is near else title] = one["wall"]
        return {"lines": lines, "crane": peers}

    def _grow(self, images, peer_up_to):
        """{x: SPEC} of the tests' registry, each pulled by dockersave and crane, then counted."""
        points = []
        for x, spec in images.items():
            process, port = self.place.serve(f"grow/image:latest={spec}")
            counter = Counter(port)
            commands = {"dockersave": self.tools.pull, **({"crane": self.tools.crane} if path_of("crane") and x <= peer_up_to else {})}
            # A first run reads programs from the disk, and the registry makes its layers.
            cold = {tool: self.once(command(Source(port), "grow/image")).wall for tool, command in commands.items()} if x <= 256 else {}
            point = self.states({tool: command(Source(port), "grow/image") for tool, command in commands.items()}, min(self.runs, FEW) if x <= 256 else 1)
            for tool, command in commands.items():
                if not points and tool in cold:
                    point[tool]["cold"] = cold[tool]
                if x <= peer_up_to:
                    counter.forget()
                    self.once(command(Source(counter.port), "grow/image"))
                    point[tool].update(counter.summary())
            empty(self.place.out)
            self.place.stop(process)
            points.append({"x": x, **point})
        return points

    def layers(self):
        """Layers of 16 KB, from one to a thousand."""
        return self._grow({count: f"{count}x16384" for count in LAYERS}, MOST_PEERS["layers"])

    def sizes(self, large):
        """One layer of zeros, which nobody keeps: 1 MB to 1 GB, or to 8 GB."""
        sizes = SIZES + (LARGE_SIZES if large else ())
        return self._grow({size: f"zeros:{size * MB}" for size in sizes}, MOST_PEERS["sizes"])
