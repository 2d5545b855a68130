#!/usr/bin/env python3
"""What a fleet's update costs a registry: single pulls are measured here, the rest is calculated.

fleet.py --binary DOCKERSAVE --registry REGISTRY [--boards 1000] [--sites 20] [--out DIR]

An image of 12 layers, 36 MB, is updated: 4 layers of 1 MB are new. A real docker-registry stands for
the registry, a real pull-through one (pull-through.yml) for the LAN's, with a counting proxy before
each. Every way to pull the update is pulled once and counted; boards times that is the fleet. Then
ten boards pull at once from a cold and from a warm LAN registry, to see where the product is wrong.
How long it takes is simulated: boards start within a window, their sites' lines are shared.
"""
import argparse
import os
import random
import shutil
import sys
import time

sys.dont_write_bytecode = True
from count import Counter  # noqa: E402
from measure import empty, run  # noqa: E402
from place import HERE, Place  # noqa: E402
from report import markdown, put, table  # noqa: E402
from tools import Source, Tools, path_of  # noqa: E402

MB = 1_000_000
OLD = "8x4000000,seed=1+4x1000000,seed=2"
NEW = "8x4000000,seed=1+4x1000000,seed=3"
TOGETHER = 10  # boards that really pull at once
WINDOW = 60  # seconds within which boards look for the update
SITE_LINE, LAN, BOARD = 5 * MB, 100 * MB, 8 * MB  # bytes a second
REGISTRY_LINE = 50 * MB
THIN_LINE = 125_000  # 1 Mbit/s


class Fleet:
    def __init__(self, place, tools):
        self.place, self.tools = place, tools
        self.origin = Counter(place.distribution())
        self.caches = 0
        place.push(self.origin.target, {"fleet/app": OLD})
        self.old = os.path.join(place.path, "old.tar")
        run([(tools.dockersave(Source(self.origin.target), "fleet/app", "-o", self.old), place.path)])
        # The same tag, as an update is: the boards have what it meant before.
        place.push(self.origin.target, {"fleet/app": NEW})

    def lan(self):
        """A new, cold pull-through registry, counted."""
        self.caches += 1
        port = self.place.distribution(f"cache-{self.caches}", configuration=f"{HERE}/pull-through.yml",
                                       REGISTRY_PROXY_REMOTEURL=f"http://127.0.0.1:{self.origin.port}", REGISTRY_LOG_LEVEL="error")
        return Counter(port)

    def pull(self, way, lan, boards=1):
        """So many boards pull at once; what the registry and the LAN's saw of it."""
        self.origin.forget()
        if lan:
            lan.forget()
        empty(self.place.out)
        commands = []
        for number in range(boards):
            directory = os.path.join(self.place.out, str(number))
            os.mkdir(directory)
            source = Source(lan.port if "through" in way else self.origin.port)
            if "crane" in way:
                commands.append((self.tools.crane(source, "fleet/app"), directory))
                continue
            more = ["-o", "x.tar"]
            if "reuse" in way:
                shutil.copy(self.old, f"{directory}/old.tar")
                more += ["--reuse", "old.tar"]
            if "mirror" in way:
                more += ["--mirror", f"http://127.0.0.1:{lan.port}"]
            if "tags" in way:
                more += ["--mirror-tags"]
            commands.append((self.tools.dockersave(source, "fleet/app", *more), directory))
        run(commands, environment=self.tools.environment())
        return {"registry": counts(self.origin), "lan": counts(lan) if lan else None}

    def ways(self):
        """{title: (cold, warm, through a LAN registry?)}: the first pull at a site, and each further one."""
        found = {}
        ways = [("dockersave", ()), ("dockersave --reuse", ("reuse",)), ("dockersave --mirror LAN", ("mirror",)),
                ("dockersave --mirror LAN --reuse", ("mirror", "reuse")),
                ("dockersave --mirror LAN --mirror-tags --reuse", ("mirror", "tags", "reuse"))]
        if path_of("crane"):
            ways = [("crane", ("crane",)), *ways, ("crane, pulling from LAN", ("crane", "through"))]
        for title, way in ways:
            lan = self.lan() if {"mirror", "through"} & set(way) else None
            cold = self.pull(way, lan)
            time.sleep(1)  # what the LAN's registry has passed on, it stores a moment later
            # The middle one: what was on its way when a connection was left differs.
            warm = sorted((self.pull(way, lan) for _ in range(3)), key=lambda seen: seen["registry"]["bytes"])[1]
            found[title] = (cold, warm, lan is not None)
        return found

    def carried(self):
        """The update as a thin archive, made once: what that took, and its size."""
        self.origin.forget()
        empty(self.place.out)
        run([(self.tools.dockersave(Source(self.origin.port), "fleet/app", "-o", "x.tar", "--base", self.old), self.place.out)])
        return counts(self.origin), os.path.getsize(os.path.join(self.place.out, "x.tar"))

    def together(self):
        """Ten at once: what the registry gave, beside what one cold and nine warm ones make."""
        rows = []
        for title, way in (("--mirror LAN", ("mirror",)), ("--mirror LAN --reuse", ("mirror", "reuse"))):
            lan = self.lan()
            cold = self.pull(way, lan, TOGETHER)["registry"]
            time.sleep(1)
            warm = self.pull(way, lan, TOGETHER)["registry"]
            rows.append((title, cold, warm))
        return rows


def counts(counter):
    return {"requests": len(counter.requests), "pulls": counter.count("/manifests/", method="GET"),
            "heads": counter.count("/manifests/", method="HEAD"), "bytes": counter.received}


def times(cold, warm, sites, boards, name):
    return cold[name] * sites + warm[name] * (boards - sites)


def simulate(own, first, boards, sites, through_lan, seed=1):
    """Seconds until the last board is done, and the most bytes a second that the registry gives.

    `own`: bytes a board takes from the registry, or from its LAN; `first`: what the LAN registry takes
    for that. A step is a tenth of a second; who is active shares each line evenly. A LAN registry
    brings what is new over the site's line at the first board's request, and gives no faster.
    """
    choose = random.Random(seed)
    begins = [choose.uniform(0, WINDOW) for _ in range(boards)]
    site_of = [number % sites for number in range(boards)]
    left = [float(own)] * boards
    fetched = [0.0] * sites  # what a LAN registry has
    now, step, most = 0.0, 0.1, 0.0
    waiting = sorted(range(boards), key=begins.__getitem__)
    active = []
    while waiting or active:
        while waiting and begins[waiting[0]] <= now:
            active.append(waiting.pop(0))
        here = [0] * sites
        for number in active:
            here[site_of[number]] += 1
        if through_lan:
            busy = [site for site in range(sites) if here[site] and fetched[site] < own]
            rate = min(SITE_LINE, REGISTRY_LINE / len(busy)) if busy else 0
            for site in busy:
                fetched[site] = min(own, fetched[site] + rate * step * own / first)
            most = max(most, rate * len(busy))
            for number in active:
                site = site_of[number]
                left[number] = max(own - fetched[site], left[number] - min(BOARD, LAN / here[site]) * step)
        elif active:
            rates = [min(BOARD, SITE_LINE / here[site_of[number]]) for number in active]
            scale = min(1.0, REGISTRY_LINE / sum(rates))
            most = max(most, sum(rates) * scale)
            for number, rate in zip(active, rates):
                left[number] -= rate * scale * step
        active = [number for number in active if left[number] > 0]
        now += step
    return now, most


def calculate(ways, boards, sites):
    head = ["", "requests", "manifests got (pulls)", "asked by HEAD", "GB from the registry", "its most, MB/s", "last board after, s"]
    rows = []
    for title, (cold, warm, through_lan) in ways.items():
        if not through_lan:
            cold = warm  # there is no first one
        total = {name: times(cold["registry"], warm["registry"], sites, boards, name) for name in ("requests", "pulls", "heads", "bytes")}
        own = warm["lan"]["bytes"] if through_lan else warm["registry"]["bytes"]
        last, most = simulate(own, cold["registry"]["bytes"], boards, sites, through_lan)
        rows.append((title, total["requests"], total["pulls"], total["heads"], f"{total['bytes'] / 1e9:.2f}", f"{most / MB:.0f}", f"{last:.0f}"))
    return head, rows


def thin_line(size, whose, usb):
    """What passes a device's or a site's thin line, in how long; a file can be carried instead."""
    return f"{size / MB:.1f} MB {whose}, {size / THIN_LINE:.0f} s" + (" or by USB" if usb else "")


def overview(ways, carried, boards, sites):
    """What cross/README.md shows of it."""
    ways = {title: way for title, way in ways.items() if "crane" not in title}
    _, rows = calculate(ways, boards, sites)
    body = []
    for title, requests, pulls, _, size, _, last in rows:
        cold, warm, through_lan = ways[title]
        flags = [flag for flag in title.split() if flag.startswith("-")]
        line = thin_line(cold["registry"]["bytes"], "a site", False) if through_lan else thin_line(warm["registry"]["bytes"], "a device", not flags)
        body.append((" ".join(f"`{flag}`" for flag in flags) or "without a flag", requests, pulls, size, f"{last} s", line))
    once, size = carried
    body.append(("`--base`, made once", once["requests"], once["pulls"], f"{once['bytes'] / 1e9:.3f}", "-", thin_line(size, "a device", True)))
    return markdown(["dockersave", "requests", "manifests got", "GB", "last board after", "thin line or USB"], body)


def parts_of(ways, carried, together, boards, sites):
    """(title, head, rows) of each table."""
    parts, rows = [], []
    for title, (cold, warm, _) in ways.items():
        for which, seen in (("first", cold), ("next", warm)):
            at, lan = seen["registry"], seen["lan"] or {"requests": "-", "bytes": None}
            rows.append((f"{title}: {which}", at["requests"], at["pulls"], at["heads"], f"{at['bytes'] / MB:.3f}", lan["requests"],
                         f"{lan['bytes'] / MB:.3f}" if lan["bytes"] is not None else "-"))
    parts.append(("One board, measured at the registry and at the LAN's",
                  ["", "requests", "manifests got", "HEAD", "MB", "LAN requests", "LAN MB"], rows))
    parts.append((f"{boards} boards at {sites} sites, calculated", *calculate(ways, boards, sites)))
    rows = [(title, f"{cold['bytes'] / MB:.1f}", cold["requests"], f"{warm['bytes'] / MB:.1f}", warm["requests"]) for title, cold, warm in together]
    parts.append((f"{TOGETHER} boards at once, measured at the registry", ["", "cold MB", "cold requests", "warm MB", "warm requests"], rows))
    once, size = carried
    parts.append(("A thin archive (--base), made once, for any number of boards", ["requests", "MB from the registry", "MB of the archive"],
                  [(once["requests"], f"{once['bytes'] / MB:.3f}", f"{size / MB:.3f}")]))
    return parts


def say(parts, out):
    marked = ""
    for title, head, rows in parts:
        print(f"\n{title}\n{table(head, rows)}", end="")
        marked += f"## {title}\n\n{markdown(head, rows)}\n"
    print(f"\nLines: registry {REGISTRY_LINE / MB:.0f} MB/s, a site {SITE_LINE / MB:.0f}, LAN {LAN / MB:.0f}, a board {BOARD / MB:.0f}; "
          f"boards begin within {WINDOW} s.")
    if out:
        os.makedirs(out, exist_ok=True)
        with open(f"{out}/fleet.md", "w") as file:
            file.write(marked)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--registry", required=True)
    parser.add_argument("--boards", type=int, default=1000)
    parser.add_argument("--sites", type=int, default=20)
    parser.add_argument("--out")
    options = parser.parse_args()
    with Place(options.registry) as place:
        fleet = Fleet(place, Tools(options.binary, place))
        ways, carried, together = fleet.ways(), fleet.carried(), fleet.together()
    say(parts_of(ways, carried, together, options.boards, options.sites), options.out)
    if os.environ.get("BENCH_UPDATE"):
        put(f"{HERE}/../../cross/README.md", "fleet", overview(ways, carried, options.boards, options.sites))


if __name__ == "__main__":
    main()
