"""The charts of a run, from what it measured."""
import os

from chart import chart
from stress import CONNECTIONS, MOST_PEERS, STATES

WHY = "skopeo, oras and curl are left out: tests/README.md has their times."


def draw(directory, data):
    os.makedirs(directory, exist_ok=True)
    if "connections" in data:
        peers = ", ".join(f"{seconds:.2f} s ({name})" for name, seconds in data["connections"]["crane"].items())
        chart(f"{directory}/connections.svg", "Time over connections", "--jobs", "seconds", data["connections"]["lines"], y_log=True, at=CONNECTIONS,
              notes=["Idle: after five seconds of rest; busy: right after another run. On the distant link the line decides, not the state.",
                     f"crane has no such flag: {peers}." if peers else "crane was not there.", WHY])
    for name, across, of in (("layers", "layers of 16 KB", "number of layers"), ("sizes", "MB in one layer", "image size")):
        if name in data:
            growth(f"{directory}/{name}", across, of, data[name], MOST_PEERS[name])
    if "releases" in data:
        releases(f"{directory}/releases.svg", data["releases"])


def growth(path, across, of, points, most):
    tools = [tool for tool in ("dockersave", "crane") if any(tool in point for point in points)]
    states = [state for state in STATES if state in points[0]["dockersave"]]
    limit = [f"crane: up to {most}."] if points[-1]["x"] > most else []
    missing = [] if "crane" in tools else ["crane was not there."]

    def line(tool, value):
        return [(point["x"], found) for point in points if tool in point and (found := value(point[tool])) is not None]

    times = {f"{tool}, {state}": line(tool, lambda one, state=state: one[state]["wall"]) for tool in tools for state in states}
    cold = {f"{tool}, {states[-1]}": (points[0]["x"], points[0][tool]["cold"]) for tool in tools if "cold" in points[0].get(tool, {})}
    chart(f"{path}-time.svg", f"Time over {of}", across, "seconds", times, y_log=True, cold=cold,
          notes=["Idle: after five seconds of rest; busy: right after another run.", *limit, *missing, WHY])
    chart(f"{path}-memory.svg", f"Peak resident memory over {of}", across, "MB",
          {tool: line(tool, lambda one: max(one[state]["peak"] for state in states) / 1e6) for tool in tools},
          notes=["The larger of both states.", *limit, *missing, WHY])
    chart(f"{path}-requests.svg", f"Requests over {of}", across, "requests", {tool: line(tool, lambda one: one.get("requests")) for tool in tools},
          y_log=True, notes=["The same in both states.", *limit, *missing])


def releases(path, found):
    names = {"full": "dockersave", "full-xz": "dockersave, --gunzip --xz", "thin": "--base", "thin-xz": "--base, --gunzip --xz", "skopeo": "skopeo",
             "crane": "crane", "new": "blobs that are new"}
    rows = found["releases"]
    lines = {title: [(row["number"], row["bytes"][name] / 1e6) for row in rows if name in row["bytes"]] for name, title in names.items()}
    chart(path, "What has to be carried for each release", "release", "MB", lines, x_log=False, y_log=True, at=[row["number"] for row in rows],
          notes=["; ".join(f"{row['number']}: {row['what']}" for row in rows) + ".", "skopeo and crane have no thin archives: theirs are full."])
