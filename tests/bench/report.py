"""What was measured, as text, Markdown and JSON, and held against what is wanted."""
import dataclasses
import json

from compare import LINK

# wanted in each state: case, measure, of what, at most
WANTED = [
    ("twelve", "wall", "crane+sync", 0.60), ("twelve", "wall", "crane", 0.80), ("twelve", "wall", "curl+sync", 1.00),
    ("one", "wall", "crane+sync", 0.60), ("one", "wall", "crane", 0.80), ("one", "wall", "curl+sync", 1.00),
    ("tls-twelve", "wall", "crane+sync", 0.65), ("tls-one", "wall", "crane+sync", 0.65),
    ("thirty", "wall", "crane+sync", 0.65),
    ("small", "wall", "crane", 0.50),
    ("wan-twelve", "wall", "crane", 0.30), ("wan-twelve", "wall", "floor", 1.08),
    ("wan-one", "wall", "crane", 0.30), ("wan-one", "wall", "floor", 1.08),
    *[(case, "cpu", "crane", 0.75) for case in ("twelve", "one", "small", "tls-twelve", "tls-one", "thirty", "wan-twelve", "wan-one")],
]
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
                     mb(row.written), f"{row.disk / row.archive:.3f}", row.connections or "-", requests, *ratio])
    return head, body


def layers_of(case):
    return {"twelve": 12, "one": 1, "small": 200, "thirty": 30, "hundred": 1}[case]


# The rows and columns of the table in tests/README.md.
SHOWN = {"twelve": "12 layers, 111 MB", "one": "one layer, 537 MB", "small": "200 layers, 13 MB",
         "tls-twelve": "12 layers, HTTPS", "tls-one": "one layer, HTTPS"}
BESIDE = ("dockersave", "crane", "skopeo", "oras", "curl")


def overview(cases, versions):
    """The idle runs (the busy ones where there are no others), as Markdown."""
    head = ["", *(f"{tool} {versions[tool]}".strip() for tool in BESIDE)]
    body = []
    for case, title in SHOWN.items():
        cells = [title]
        for tool in BESIDE:
            rows = sorted((row for row in cases.get(case, ()) if row.tool == tool), key=lambda row: row.state != "idle")
            cells.append(f"{rows[0].wall:.2f} s, {mb(rows[0].peak)} MB" if rows else "-")
        body.append(cells)
    return markdown(head, body)


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
            image = {"wan-one": "hundred"}.get(case, case.split("-")[-1])
            found.append((f"{case}: requests without ranges", own.requests - own.ranges, layers_of(image) + 2))
    if owns:
        found.append(("peak resident, MiB", max(row.peak for row in owns.values()) / (1 << 20), MEMORY / (1 << 20)))
        found.append(("bytes written / archive", max(row.written / row.archive for row in owns.values()), WRITTEN))
        found.append(("bytes stored / archive", max(row.stored / row.archive for row in owns.values()), WRITTEN))
        found.append(("peak disk / archive", max(row.disk / row.archive for row in owns.values()), DISK))
    return [(what, value, most, value <= most * 1.0005) for what, value, most in found]


class Report:
    """Says each part as it comes, and keeps it for the files."""

    def __init__(self, about):
        self.texts, self.marked, self.data = [], [], {"about": about}
        self.say("dockersave beside others", None, None, note="\n".join(f"{name}: {value}" for name, value in about.items()))

    def say(self, title, head, rows, note=""):
        text = f"\n{title}\n" + (f"{note}\n" if note else "") + (table(head, rows) if head else "")
        print(text, end="", flush=True)
        self.texts.append(text)
        note = note.replace("\n", "  \n")
        self.marked.append(f"## {title}\n\n" + (f"{note}\n\n" if note else "") + (markdown(head, rows) if head else ""))

    def cases(self, cases):
        self.data["cases"] = {case: [dataclasses.asdict(row) for row in rows] for case, rows in cases.items()}

    def case(self, title, rows):
        self.say(title, *comparison(rows))

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
        self.say("Fifty pulls at once (12 layers, 13 MB each)", ["tool", "wall s", "CPU s", "resident MB, all", "proportional MB"],
                 [(row["tool"], f"{row['wall']:.2f}", f"{row['cpu']:.2f}", mb(row["peak"]), mb(row["fair"])) for row in rows])

    def connections(self, lines):
        self.data["connections"] = lines
        jobs = [x for x, _ in next(iter(lines.values()))]
        self.say("Seconds over --jobs", ["", *map(str, jobs)], [(name, *[f"{y:.2f}" for _, y in line]) for name, line in lines.items()])

    def growth(self, name, title, points):
        self.data[name] = points
        rows = []
        for point in points:
            own, peer = point["dockersave"], point.get("crane", {})
            rows.append((point["x"], f"{own['wall']:.3f}", f"{own['cpu']:.3f}", mb(own["peak"]), own.get("requests", "-"), own.get("ranges", "-"),
                         f"{peer['wall']:.3f}" if peer else "-", f"{peer['cpu']:.3f}" if peer else "-", mb(peer["peak"]) if peer else "-"))
        self.say(title, ["", "wall s", "CPU s", "peak MB", "requests", "of them ranges", "crane wall s", "CPU s", "peak MB"], rows)

    def verdict(self, cases):
        rows = budgets(cases)
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


