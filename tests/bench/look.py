#!/usr/bin/env python3
"""Checks what charts look like: look.py [FILE.svg ...], and samples of its own. Without FILE: those here.

In each picture no two texts touch, no line runs through a text, every point is within the plot and
every text within the page, the lines fill two thirds of the plot, a logarithmic axis is named as
one, and letters and lines can be read on a light and on a dark page (WCAG 2: 4.5 to 1).
"""
import os
import re
import sys
import tempfile
import xml.etree.ElementTree as xml

sys.dont_write_bytecode = True
from chart import SIZE, chart  # noqa: E402

CONTRAST = 4.5
NUMBER = r"-?\d+(?:\.\d+)?"


def luminance(colour):
    parts = [int(colour[at:at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def box(text):
    """(left, top, right, bottom) of a text; letters are taken as wide as wide ones are."""
    size = float(text.get("font-size", SIZE))
    width = len(text.text) * size * 0.6
    if moved := re.match(rf"translate\(({NUMBER}) ({NUMBER})\) rotate\(-90\)", text.get("transform", "")):
        x, y = map(float, moved.groups())
        return x - size * 0.8, y - width / 2, x + size * 0.2, y + width / 2
    x, y = float(text.get("x")), float(text.get("y"))
    left = x - {"start": 0, "middle": width / 2, "end": width}[text.get("text-anchor", "start")]
    return left, y - size * 0.8, left + width, y + size * 0.2


def touch(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def crosses(begin, end, area):
    """Does a stretch of a line run through a box? Looked at every half pixel."""
    steps = int(max(abs(end[0] - begin[0]), abs(end[1] - begin[1])) * 2) + 1
    places = ((begin[0] + (end[0] - begin[0]) * at / steps, begin[1] + (end[1] - begin[1]) * at / steps) for at in range(steps + 1))
    return any(area[0] < x < area[2] and area[1] < y < area[3] for x, y in places)


def corners(data):
    return [(float(x), float(y)) for x, y in re.findall(rf"({NUMBER}) ({NUMBER})", data)]


def even(marks):
    """Are an axis' marks as far apart as their numbers are, within a pixel?"""
    if len(marks) < 3:
        return True
    (first, begin), (last, end) = marks[0], marks[-1]
    return all(abs(begin + (number - first) / (last - first) * (end - begin) - place) <= 1 for number, place in marks)


def faults(path):
    """What is wrong with a picture, in words."""
    root = xml.parse(path).getroot()
    name = {kind: "{http://www.w3.org/2000/svg}" + kind for kind in ("text", "path", "style")}
    _, _, width, height = map(float, root.get("viewBox").split())
    texts = [(text.text, box(text)) for text in root.iter(name["text"])]
    lines = [corners(line.get("d")) for line in root.iter(name["path"]) if line.get("class") == "line"]
    for at, (text, area) in enumerate(texts):
        if area[0] < 0 or area[1] < 0 or area[2] > width or area[3] > height:
            yield f"“{text}” is not within the page"
        for other, its in texts[at + 1:]:
            if touch(area, its):
                yield f"“{text}” touches “{other}”"
        if any(crosses(begin, end, area) for line in lines for begin, end in zip(line, line[1:])):
            yield f"a line runs through “{text}”"
    plots = [path.get("d") for path in root.iter(name["path"]) if path.get("class") == "plot"]
    if plots:
        left, top, foot, right = map(float, re.fullmatch(rf"M({NUMBER}) ({NUMBER})V({NUMBER})H({NUMBER})", plots[0]).groups())
        places = [place for line in lines for place in line]
        if any(not (left - 0.1 <= x <= right + 0.1 and top - 0.1 <= y <= foot + 0.1) for x, y in places):
            yield "a point is not within the plot"
        if max(x for x, _ in places) - min(x for x, _ in places) < (right - left) * 2 / 3:
            yield "a third of the plot's width is empty"
        if min(y for _, y in places) > top + (foot - top) / 3:
            yield "the upper third is empty"
        if max(y for _, y in places) < foot - (foot - top) / 3:
            yield "the lower third is empty"
        marks = {"end": [], "middle": []}
        for text in root.iter(name["text"]):
            if text.get("x") and re.fullmatch(r"[0-9.e+ ]+", text.text):
                marks.get(text.get("text-anchor"), []).append((float(text.text.replace(" ", "")), float(text.get("x")), float(text.get("y"))))
        across, up = [(number, x) for number, x, _ in marks["middle"]], [(number, y) for number, _, y in marks["end"]]
        named = " ".join(text for text, _ in texts)
        if named.count("logarithmic") < (not even(across)) + (not even(up)):
            yield "a logarithmic axis is not named as one"
    elif not any(re.search(r"\d", text) for text, _ in texts[1:]):
        yield "neither a line nor a value"
    light, _, dark = "".join(style.text for style in root.iter(name["style"])).partition("@media(prefers-color-scheme:dark)")
    for which, rules in (("light", light), ("dark", dark)):
        ground = re.search(r"\.ground\{fill:(#\w{6})\}", rules)
        if not ground:
            yield f"no colours for a {which} page"
            continue
        for what, colour in re.findall(r"\.(ink|c\d)\{color:(#\w{6})\}", rules):
            if contrast(ground[1], colour) < CONTRAST:
                yield f"{what} on a {which} page: {contrast(ground[1], colour):.1f} to 1"


def samples(directory):
    """Charts of what is hard to draw."""
    ones = [1, 10, 100, 1000]
    close = {f"tool number {at}": [(x, x / 50 + at / 1000) for x in ones] for at in range(6)}
    shown = {
        "close": ((close,), {"y_log": True}),
        "close-linear": ((close,), {}),
        "flat": (({"dockersave": [(x, 5) for x in ones]},), {}),
        "flat-two": (({"dockersave": [(x, 5) for x in ones], "crane": [(x, 7) for x in ones]},), {"notes": ["Nothing else."]}),
        "one-value": (({"dockersave": [(3, 0.25)]},), {}),
        "one-x": (({"dockersave": [(3, 0.25)], "crane": [(3, 0.5)]},), {}),
        "short": (({"dockersave": [(x, x) for x in ones], "crane": [(1, 20), (10, 30)]},), {"y_log": True, "cold": {"crane": (1, 60)}}),
        "narrow": (({"a": [(1, 10.1), (5, 10.3)], "b": [(1, 10.2), (5, 10.15)]},), {"x_log": False}),
        "narrow-log": (({"a": [(1, 3), (2, 4)], "b": [(1, 3.5), (2, 3.1)]},), {"y_log": True}),
        "bottom": (({f"line {at}": [(1, 0.01), (9, 0.01 * at)] for at in range(1, 7)} | {"top": [(1, 5), (9, 9)]},), {"x_log": False}),
        "marks": (({"dockersave": [(x, 9 / x) for x in (1, 2, 3, 4, 6, 8, 12, 16)]},), {"at": (1, 2, 3, 4, 6, 8, 12, 16), "notes": ["long " * 60]}),
        "large": (({"dockersave": [(1, 1e3), (8192, 9e9)], "crane": [(1, None), (8192, 8e9)]},), {"y_log": True}),
        "small": (({"dockersave": [(1, 0.0003), (8192, 0.0009)]},), {"y_log": True}),
    }
    for name, ((lines,), more) in shown.items():
        path = os.path.join(directory, f"{name}.svg")
        chart(path, f"A sample: {name}", "MB in one layer", "seconds", lines, **more)
        yield path


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    found = 0
    with tempfile.TemporaryDirectory() as directory:
        paths = [*samples(directory), *(sys.argv[1:] or sorted(os.path.join(here, name) for name in os.listdir(here) if name.endswith(".svg")))]
        for path in paths:
            for fault in faults(path):
                found += 1
                print(f"{os.path.basename(path)}: {fault}")
    print(f"{len(paths)} charts: {found or 'no'} faults")
    sys.exit(found > 0)


main()
