"""What was measured, as text, Markdown and JSON, and held against what is wanted."""
import dataclasses
import json
import re
import sys

from compare import CASES, IMAGES, LINK, STATES, Row

# wanted in each state: case, measure, of what, at most
WANTED = [
    ("twelve", "wall", "crane+sync", 0.60), ("twelve", "wall", "crane", 0.80), ("twelve", "wall", "curl+sync", 1.00),
    ("one", "wall", "crane+sync", 0.60), ("one", "wall", "crane", 0.80), ("one", "wall", "curl+sync", 1.00),
    ("tls-twelve", "wall", "crane+sync", 0.65), ("tls-one", "wall", "crane+sync", 0.65),
    ("thirty", "wall", "crane+sync", 0.65),
    ("small", "wall", "crane", 0.50),
    ("wan-twelve", "wall", "crane", 0.30), ("wan-twelve", "wall", "floor", 1.08),
    ("wan-one", "wall", "crane", 0.30), ("wan-one", "wall", "floor", 1.08),
    ("wan-stream", "wall", "crane", 0.35), ("wan-stream", "wall", "floor", 1.08),
    *[(case, measure, "skopeo", most) for case in ("gunzip-one", "gunzip-five") for measure, most in (("wall", 0.55), ("cpu", 0.60))],
    ("verify", "wall", "sha256sum", 0.60),
    *[(case, "cpu", "crane", 0.75) for case in ("twelve", "one", "small", "tls-twelve", "tls-one", "thirty", "wan-twelve", "wan-one")],
]
GROWTH = {"layers": "Growth with the number of layers of 16 KB", "sizes": "Growth with the size of one layer, in MB"}
SPREAD = 1.3  # the slower state over the faster one
MEMORY = 8 << 20
WRITTEN, DISK = 1.01, 1.00


def table(head, rows):
    """Plain text in columns; all but the first to the right."""
    cells = [head, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) if not at else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths))) for row in cells]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def markdown(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join("---" if not at else "---:" for at in range(len(head))) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def put(path, name, text):
    """Replaces what a README has between <!-- NAME --> and <!-- end of NAME -->."""
    with open(path) as file:
        before, rest = file.read().split(f"<!-- {name} -->\n", 1)
    _, after = rest.split(f"<!-- end of {name} -->", 1)
    with open(path, "w") as file:
        file.write(f"{before}<!-- {name} -->\n{text}<!-- end of {name} -->{after}")


def mb(number):
    return f"{number / 1e6:.1f}"


def comparison(rows):
    head = ["state", "tool", "runs", "wall s", "least-most", "CPU s", "peak MB", "read MB", "written MB", "peak disk", "conns", "requests", "ours / its wall", "CPU"]
    owns = {row.state: row for row in rows if row.tool == "dockersave"}
    body = []
    for row in rows:
        own = owns[row.state]
        ratio = [f"{own.wall / row.wall:.2f}", f"{own.cpu / max(row.cpu, 1e-3):.2f}"] if row is not own else ["", ""]
        requests = f"{row.requests}" + (f" ({row.ranges} ranges)" if row.ranges else "") if row.requests else "-"
        body.append([row.state, row.tool, row.runs, f"{row.wall:.3f}", f"{row.least:.3f}-{row.most:.3f}", f"{row.cpu:.3f}", mb(row.peak), mb(row.read),
                     mb(row.written), f"{row.disk / row.archive:.3f}" if row.archive else "-", row.connections or "-", requests, *ratio])
    return head, body


# The rows and columns of the tables in tests/README.md.
SHOWN = {"twelve": "12 layers, 111 MB", "one": "one layer, 537 MB", "thirty": "30 layers, 2.1 GB", "small": "200 layers, 13 MB",
         "tls-twelve": "12 layers, HTTPS", "tls-one": "one layer, HTTPS", "gunzip-one": "`--gunzip`, one layer, 400 MB",
         "gunzip-five": "`--gunzip`, five layers, 400 MB", "wan-twelve": "12 layers, distant", "wan-one": "one layer, 105 MB, distant",
         "wan-stream": "one layer, 105 MB, distant, `-o -`"}
BESIDE = ("dockersave", "crane", "crane+sync", "skopeo", "skopeo+sync", "oras", "curl", "curl+sync")


def overview(report):
    """Seconds of the idle runs (the busy ones where there are no others) and our memory, as Markdown."""
    about = report.data["about"]
    head = [""]
    for tool in BESIDE:
        number = re.search(r"\d+\.\d+", about.get(tool, ""))
        head.append(tool.replace("+sync", ", then sync") if "+" in tool else f"{tool} {number[0] if number and tool != 'dockersave' else ''}".strip())
    body = []
    for case, title in SHOWN.items():
        if case not in report.rows:
            continue
        cells = [title]
        for tool in BESIDE:
            rows = sorted((row for row in report.rows[case] if row.tool == tool), key=lambda row: row.state != "idle")
            memory = f", {mb(rows[0].peak)} MB" if rows and tool in ("dockersave", "crane") else ""
            cells.append(f"{rows[0].wall:.2f} s{memory}" if rows else "-")
        body.append(cells)
    runs = min((row.runs for rows in report.rows.values() for row in rows if row.tool == "dockersave"), default=0)
    loads = sorted(float(one["load before"].split()[0]) for one in report.data.get("earlier") or [about])
    return body and (f"Measured on {about['date'][:10]}: {about['processor']}, Linux {about['kernel'].split('-')[0]}, {about['file system']}, load average "
                     f"before it {loads[0]} to {loads[-1]}; medians of {runs} or more runs, each after five seconds of rest.\n\n{markdown(head, body)}")


def targets(report):
    """What is wanted, and what was found in each state, as Markdown."""
    lines = {}
    for budget in report.data.get("budgets", []):
        case, _, measure = budget["what"].partition(": ")
        case, _, state = case.partition(", ")
        lines.setdefault((case, measure, budget["most"]), {})[state] = f"{round(budget['found'], 3):g}" + ("" if budget["met"] else " **not met**")
    body = [(f"{SHOWN.get(case, case)}: {measure}" if measure else case, f"{most:g}", one.get("idle", one.get("", "-")), one.get("busy", "" if "" in one else "-"))
            for (case, measure, most), one in lines.items()]
    return body and markdown(["", "at most", "idle", "busy"], body)


def releases(report):
    """What the chain of releases takes, as Markdown."""
    found = report.data.get("releases")
    if not found:
        return ""
    def size(row, name):
        return f"{row['bytes'][name] / 1e6:.2f}" if name in row["bytes"] else "-"

    names = {"full": "full", "full-xz": "full, `--gunzip --xz`", "thin": "`--base`", "thin-xz": "`--base --gunzip --xz`", "any": "`--base-any`",
             "skopeo": "skopeo", "crane": "crane", "new": "new blobs"}
    body = [(f"{row['number']}. {row['what']}", *(size(row, name) for name in names),
             *(f"{row['seconds'][name]:.2f} s" if name in row["seconds"] else "-" for name in ("full", "thin"))) for row in found["releases"]]
    return f"{found['about']}\n\n" + markdown(["release, MB", *names.values(), "full, distant", "`--base`, distant"], body)


def budgets(cases):
    """(what, found, at most, met?) for all that was measured."""
    found = []
    owns = {(row.case, row.state): row for rows in cases.values() for row in rows if row.tool == "dockersave"}
    for (case, state), own in owns.items():
        for _, measure, peer, most in (wanted for wanted in WANTED if wanted[0] == case):
            if peer == "floor":
                other = own.archive / LINK
            else:
                other = next((getattr(row, measure) for row in cases[case] if (row.tool, row.state) == (peer, state)), None)
            if other:
                found.append((f"{case}, {state}: {'CPU' if measure == 'cpu' else measure} / {peer}", getattr(own, measure) / other, most))
        if state == "busy" and (case, "idle") in owns:
            walls = own.wall, owns[case, "idle"].wall
            found.append((f"{case}: slower state / faster state", max(walls) / min(walls), SPREAD))
        if own.requests and (state == "idle" or (case, "idle") not in owns):
            layers = int(IMAGES[CASES[case][0]].split("x")[0])
            found.append((f"{case}: requests without ranges", own.requests - own.ranges, layers + 2))
    if owns:
        found.append(("peak resident (MiB)", max(row.peak for row in owns.values()) / (1 << 20), MEMORY / (1 << 20)))
        pulls = [row for row in owns.values() if row.case not in ("verify", "wan-stream")]
        for what, field, most in (("bytes written", "written", WRITTEN), ("bytes stored", "stored", WRITTEN), ("peak disk", "disk", DISK)):
            if pulls:
                found.append((f"{what} / archive", max(getattr(row, field) / row.archive for row in pulls), most))
    return [(what, value, most, value <= most * 1.0005) for what, value, most in found]


class Report:
    """Says each part as it comes, and keeps it for the files."""

    def __init__(self, about):
        self.texts, self.marked, self.rows, self.data = [], [], {}, {"about": about}
        self.say("dockersave beside others", None, None, note="\n".join(f"{name}: {value}" for name, value in about.items()))

    def say(self, title, head, rows, note=""):
        text = f"\n{title}\n" + (f"{note}\n" if note else "") + (table(head, rows) if head else "")
        print(text, end="", flush=True)
        self.texts.append(text)
        note = note.replace("\n", "  \n")
        self.marked.append(f"## {title}\n\n" + (f"{note}\n\n" if note else "") + (markdown(head, rows) if head else ""))

    def add(self, earlier):
        """What earlier runs found, {path: data}, of the same program on the same machine; the last of each counts."""
        cases, own = {}, self.data["about"]
        for path, data in earlier.items():
            if differs := [name for name in ("dockersave", "processor", "kernel", "file system") if data["about"][name] != own[name]]:
                sys.exit(f"{path} is of another {', '.join(differs)}")
            self.data.setdefault("earlier", []).append(data["about"])
            for case, rows in data.get("cases", {}).items():
                cases.setdefault(case, {}).update({(row["state"], row["tool"]): Row(**row) for row in rows})
        for case in (case for case in CASES if case in cases):
            self.case(case, CASES[case][2], [row for state in STATES for row in cases[case].values() if row.state == state])
        for name in ("queries", "startup", "adverse", "fifty", "connections", "releases", *GROWTH):
            for data in reversed(earlier.values()):
                if name in data:
                    self.growth(name, data[name]) if name in GROWTH else getattr(self, name)(data[name])
                    break

    def case(self, case, title, rows):
        self.rows[case] = rows
        self.data.setdefault("cases", {})[case] = [dataclasses.asdict(row) for row in rows]
        self.say(f"{case}: {title}", *comparison(rows))

    def queries(self, rows):
        self.data["queries"] = rows
        self.say("Queries of an image with 12 layers", ["flag", "connections", "requests", "asked for"],
                 [(row["flag"], row["connections"], row["requests"], row["asked"]) for row in rows])

    def startup(self, times):
        self.data["startup"] = times
        own, true = times["dockersave --version"], times["true"]
        self.say("Startup, 100 runs each", ["", "ms"], [(name, f"{time * 1000:.2f}") for name, time in times.items()], f"ratio: {own / true:.2f} (at most 2)")

    def adverse(self, rows):
        self.data["adverse"] = rows
        self.say("Registries that misbehave: the default against --jobs 1",
                 ["registry", "image", "--jobs 1 s", "default s", "most s", "ratio", "lost", "never slower?"],
                 [(row["what"], row["image"], f"{row['alone']:.2f}", f"{row['wall']:.2f}", f"{row['most']:.2f}", f"{row['wall'] / row['alone']:.2f}",
                   row["lost"], "yes" if row["wall"] <= row["alone"] * 1.05 and not row["lost"] else "NO") for row in rows],
                 "At most 1.05 counts as never slower; a pull is lost after 30 s, and not tried again.")

    def fifty(self, rows):
        self.data["fifty"] = rows
        self.say("Fifty pulls at once (12 layers, 13 MB each)", ["tool", "state", "wall s", "CPU s", "resident MB, all", "proportional MB"],
                 [(row["tool"], row["state"], f"{row['wall']:.2f}", f"{row['cpu']:.2f}", mb(row["peak"]), mb(row["fair"])) for row in rows])

    def connections(self, found):
        self.data["connections"] = found
        jobs = [x for x, _ in next(iter(found["lines"].values()))]
        self.say("Seconds over --jobs", ["", *map(str, jobs), "crane"],
                 [(name, *[f"{y:.2f}" for _, y in line], f"{found['crane'][name]:.2f}" if name in found["crane"] else "-") for name, line in found["lines"].items()])

    def growth(self, name, points):
        self.data[name] = points
        rows = [(point["x"], tool, state, f"{one[state]['wall']:.3f}", f"{one[state]['cpu']:.3f}", mb(one[state]["peak"]), one.get("requests", "-"),
                 one.get("ranges", "-"), f"{one['cold']:.3f}" if "cold" in one else "")
                for point in points for tool, one in point.items() if tool != "x" for state in STATES if state in one]
        self.say(GROWTH[name], ["", "tool", "state", "wall s", "CPU s", "peak MB", "requests", "of them ranges", "first run, cold"], rows)

    def releases(self, found):
        self.data["releases"] = found
        names = list(dict.fromkeys(name for row in found["releases"] for name in row["bytes"]))
        waits = list(dict.fromkeys(name for row in found["releases"] for name in row["seconds"]))
        self.say("A chain of releases, MB and seconds on the distant link", ["", *names, *(f"{name} s" for name in waits)],
                 [(f"{row['number']}. {row['what']}", *(mb(row["bytes"].get(name, 0)) for name in names),
                   *(f"{row['seconds'][name]:.2f}" if name in row["seconds"] else "-" for name in waits)) for row in found["releases"]], found["about"])

    def verdict(self):
        rows = budgets(self.rows)
        if not rows:
            return
        self.data["budgets"] = [{"what": what, "found": found, "most": most, "met": met} for what, found, most, met in rows]
        self.say("Held against what is wanted", ["what", "found", "at most", ""],
                 [(what, f"{found:.3f}", f"{most:.2f}", "met" if met else "NOT MET") for what, found, most, met in rows])

    def write(self, text=None, marked=None, data=None):
        for path, content in ((text, "".join(self.texts)), (marked, "\n".join(self.marked)), (data, json.dumps(self.data, indent=1) + "\n")):
            if path:
                with open(path, "w") as file:
                    file.write(content)


