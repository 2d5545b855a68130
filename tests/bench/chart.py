"""Line charts as SVG, with nothing but Python. `look.py` checks what they look like."""
import math
import textwrap
from xml.sax.saxutils import escape

WIDTH, PLOT, TOP = 720, 270, 40  # PLOT: the height of what is between the axes
SIZE = 12  # of the letters; one is at most 0.6 as wide
# In the order of the lines, on white and on black. look.py knows the contrast that they need.
COLOURS = {
    "light": ("#0b5cad", "#b3261e", "#1a7032", "#8a5a00", "#6f42c1", "#57606a", "#00666b"),
    "dark": ("#6cb6ff", "#ff8a80", "#5fd37a", "#e3b341", "#d2a8ff", "#adb5bd", "#4dd0d8"),
}
PAGE = {"light": ("#ffffff", "#1f2328", "#d0d7de"), "dark": ("#0d1117", "#e6edf3", "#3d444d")}  # ground, letters, grid


def style():
    """A page's own background, letters and lines, for light and dark pages."""
    def rules(page):
        ground, ink, grid = PAGE[page]
        lines = "".join(f".c{at}{{color:{colour}}}" for at, colour in enumerate(COLOURS[page]))
        return f".ground{{fill:{ground}}}.ink{{color:{ink}}}.grid{{color:{grid}}}{lines}"

    return ("<style>text{fill:currentColor}path{stroke:currentColor;fill:none}.dot{fill:currentColor}.cold{stroke-width:1.5}"
            f"{rules('light')}@media(prefers-color-scheme:dark){{{rules('dark')}}}</style>")


def ticks(least, most, logarithmic):
    if logarithmic:
        found = [base * 10.0**power for power in range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1) for base in (1, 2, 5)]
        found = [tick for tick in found if least * 0.999 <= tick <= most * 1.001]
        if len(found) > 8:
            found = [tick for tick in found if math.log10(tick) % 1 < 1e-9]
        if len(found) > 1:
            return found
    step = 10 ** math.floor(math.log10((most - least) / 4))
    step = next(step * times for times in (1, 2, 5, 10) if (most - least) / (step * times) <= 6)
    return [step * number for number in range(math.ceil(least / step * 0.999), int(most / step * 1.001) + 1)]


def label(number):
    return f"{number:,.0f}".replace(",", " ") if number >= 1000 else f"{number:.4g}"


def scale(least, most, begin, end, logarithmic):
    """A function from values to places on the page."""
    value = math.log if logarithmic else float
    return lambda at: begin + (value(at) - value(least)) / (value(most) - value(least)) * (end - begin)


def span(values, logarithmic):
    """The ends of an axis, so that no third of it is empty."""
    least, most = min(values), max(values)
    if logarithmic:
        return least / 1.15, most * 1.15
    if least > most / 3 and most > least:
        return least - (most - least) / 4, most + (most - least) / 10
    return 0, most * 1.08


def spread(heights, least, most):
    """Moves ascending heights as little as it takes to be a line apart, and not below `most`."""
    apart = SIZE + 4
    for at in range(1, len(heights)):
        heights[at] = max(heights[at], heights[at - 1] + apart)
    for at in reversed(range(len(heights))):
        heights[at] = min(heights[at], most - apart * (len(heights) - 1 - at))
    return [max(height, least + apart * at) for at, height in enumerate(heights)]


def marker(shape, x, y, hollow=False):
    r = 3.2
    data = (f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z", f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}z",
            f"M{x:.1f} {y - r - 1:.1f}l{r + 1} {2 * r}h{-2 * r - 2}z", f"M{x:.1f} {y - r - 1:.1f}l{r + 1} {r + 1}l{-r - 1} {r + 1}l{-r - 1} {-r - 1}z")
    return f'<path class="{"cold" if hollow else "dot"}" d="{data[shape % len(data)]}"/>'


def page(path, title, height, notes, body):
    """Writes a picture; the notes stand below what there is to see."""
    wrapped = [line for note in notes for line in textwrap.wrap(note, int((WIDTH - 2 * 16) / SIZE / 0.6))]
    whole = height + (16 * len(wrapped) + 10 if wrapped else 0)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {whole}" font-family="sans-serif" font-size="{SIZE}">',
           style(), f"<title>{escape(title)}</title>", f'<rect class="ground" width="{WIDTH}" height="{whole}"/>',
           f'<g class="ink"><text x="16" y="22" font-size="14" font-weight="bold">{escape(title)}</text>']
    out += [f'<text x="16" y="{height + 12 + 16 * at}">{escape(line)}</text>' for at, line in enumerate(wrapped)]
    with open(path, "w") as file:
        file.write("\n".join([*out, "</g>", *body]) + "\n</svg>\n")


def chart(path, title, across, up, lines, x_log=True, y_log=False, at=None, cold=None, notes=()):
    """Draws {name: [(x, y), ...]}; `at`: where the x axis has its marks; `cold`: {name: (x, y)}, a
    first run that is told apart; `notes`: what the picture does not say. A line of two values or
    fewer is no line: where there are no others, the values are written."""
    lines = {name: [(x, y) for x, y in line if y is not None] for name, line in lines.items()}
    lines, cold = {name: line for name, line in lines.items() if line}, {name: one for name, one in (cold or {}).items() if lines.get(name)}
    if all(len({y for _, y in line}) == 1 for line in lines.values()):
        texts = [f"{name}: {label(line[0][1])} {up} throughout, {label(line[0][0])} to {label(line[-1][0])} {across}" if len(line) > 1 else
                 f"{name}: {label(line[0][1])} {up}, {label(line[0][0])} {across}" for name, line in lines.items()]
        body = [f'<g class="c{number}"><text x="16" y="{48 + 18 * number}">{escape(text)}</text></g>' for number, text in enumerate(texts)]
        return page(path, title, 42 + 18 * len(texts), notes, body)

    points = [point for line in [*lines.values(), cold.values()] for point in line]
    y_least, y_most = span([y for _, y in points], y_log)
    left = 40 + max(len(label(tick)) for tick in ticks(y_least, y_most, y_log)) * SIZE * 0.6
    right = WIDTH - 46 - max(len(name) for name in lines) * SIZE * 0.6
    foot = TOP + PLOT
    x_least, x_most = min(x for x, _ in points), max(x for x, _ in points)
    x, y = scale(x_least, x_most, left, right, x_log), scale(y_least, y_most, foot, TOP, y_log)

    marks = [f'<path class="grid" d="M{left:.1f} {y(tick):.1f}H{right:.1f}"/><text x="{left - 8:.1f}" y="{y(tick) + 4:.1f}" text-anchor="end">{label(tick)}</text>'
             for tick in ticks(y_least, y_most, y_log)]
    edge = -math.inf
    for tick in at or ticks(x_least, x_most, x_log):
        marks.append(f'<path d="M{x(tick):.1f} {foot}v4"/>')
        half = len(label(tick)) * SIZE * 0.3
        if x(tick) - half > edge + 4:  # a mark without a number is better than two that run together
            marks.append(f'<text x="{x(tick):.1f}" y="{foot + 18}" text-anchor="middle">{label(tick)}</text>')
            edge = x(tick) + half
    marks.append(f'<path class="plot" d="M{left:.1f} {TOP}V{foot}H{right:.1f}"/>'
                 f'<text x="{(left + right) / 2:.1f}" y="{foot + 38}" text-anchor="middle">{escape(across)}{", logarithmic" if x_log else ""}</text>'
                 f'<text transform="translate(18 {TOP + PLOT / 2}) rotate(-90)" text-anchor="middle">{escape(up)}{", logarithmic" if y_log else ""}</text>')

    # A line's name stands beside the plot, at its last point's height where that is free.
    order = sorted(lines, key=lambda name: y(lines[name][-1][1]))
    heights = dict(zip(order, spread([y(lines[name][-1][1]) for name in order], TOP, foot)))
    drawn = []
    for number, (name, line) in enumerate(lines.items()):
        data = "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in line)
        drawn.append(f'<g class="c{number % len(COLOURS["light"])}"><path class="line" stroke-width="2" d="{data}"/>'
                     + "".join(marker(number, x(a), y(b)) for a, b in line)
                     + (marker(number, x(cold[name][0]), y(cold[name][1]), hollow=True) if name in cold else "")
                     + f'<path class="key" stroke-width="2" d="M{right + 10:.1f} {heights[name]:.1f}h20"/>{marker(number, right + 20, heights[name])}'
                     f'<text x="{right + 36:.1f}" y="{heights[name] + 4:.1f}">{escape(name)}</text></g>')
    notes = [*(["Hollow: a tool's first run, cold; it is not part of its line."] if cold else []), *notes]
    return page(path, title, foot + 46, notes, ['<g class="ink">', *marks, "</g>", *drawn])
