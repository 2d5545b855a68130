"""Line charts as SVG, with nothing but Python."""
import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 360, 70, 200, 40, 50
COLOURS = ("#0b62a4", "#d1495b", "#3a7d44", "#8a6d3b", "#6f42c1")


def ticks(least, most, logarithmic):
    if logarithmic:
        found = [base * 10**power for power in range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1) for base in (1, 2, 5)]
        found = [tick for tick in found if least * 0.999 <= tick <= most * 1.001]
        return found if len(found) <= 8 else [tick for tick in found if math.log10(tick) % 1 < 1e-9]
    step = 10 ** math.floor(math.log10(most / 4))
    step = next(step * times for times in (1, 2, 5, 10) if most / (step * times) <= 6)
    return [step * number for number in range(int(most / step) + 1)]


def label(number):
    return f"{number:,.0f}".replace(",", " ") if number >= 10 or number == int(number) else f"{number:g}"


def chart(path, title, across, up, lines, x_log=True, y_log=False, at=None):
    """Draws {name: [(x, y), ...]}; `at`: where the x axis has its marks."""
    points = [point for line in lines.values() for point in line if point[1] is not None]
    x_least, x_most = min(x for x, _ in points), max(x for x, _ in points)
    y_most = max(y for _, y in points) * (1.5 if y_log else 1.08) or 1
    y_least = min(y for _, y in points if y > 0) / 1.5 if y_log else 0

    def place(value, least, most, begin, end, logarithmic):
        if logarithmic:
            value, least, most = math.log(max(value, least)), math.log(least), math.log(most)
        return begin + (value - least) / ((most - least) or 1) * (end - begin)

    def x(value):
        return place(value, x_least, x_most, LEFT, WIDTH - RIGHT, x_log)

    def y(value):
        return place(value, y_least, y_most, HEIGHT - BOTTOM, TOP, y_log)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f"<title>{escape(title)}</title>", f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
           f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{escape(title)}</text>']
    for tick in ticks(y_least or y_most, y_most, y_log):
        out.append(f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{label(tick)}</text>')
    for tick in at or ticks(x_least, x_most, x_log):
        out.append(f'<path d="M{x(tick):.1f} {HEIGHT - BOTTOM}v4" stroke="#333"/>'
                   f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{label(tick)}</text>')
    out.append(f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="#333"/>'
               f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(across)}</text>'
               f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">{escape(up)}</text>')
    ends = []
    for (name, line), colour in zip(lines.items(), COLOURS):
        line = [(a, b) for a, b in line if b is not None]
        path_data = "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in line)
        out.append(f'<path d="{path_data}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3" fill="{colour}"/>' for a, b in line]
        ends.append([y(line[-1][1]), x(line[-1][0]), name, colour])
    # Names stand at the lines' ends, pushed apart where those meet.
    ends.sort()
    for before, own in zip(ends, ends[1:]):
        own[0] = max(own[0], before[0] + 15)
    for height, along, name, colour in ends:
        out.append(f'<text x="{along + 8:.1f}" y="{height + 4:.1f}" fill="{colour}">{escape(name)}</text>')
    with open(path, "w") as file:
        file.write("\n".join(out) + "\n</svg>\n")
