# SPDX-License-Identifier: MIT
"""Bars as plain SVG text, for tests/bench/compare."""
from xml.sax.saxutils import escape

COLOURS = {"floor-copy": "#b9bec6", "floor-splice": "#d9dce1", "moongate": "#3b5bdb", "nginx": "#2f9e44", "haproxy": "#e8890c"}
NAMES = {"floor-copy": "floor, copy", "floor-splice": "floor, splice", "moongate": "Moongate", "nginx": "nginx",
         "haproxy": "HAProxy"}
LEFT, SCALE, LIMIT = 330, 110, 5.0   # pixels of text, pixels a unit, where bars are cut
BAR, GAP, TOP = 11, 12, 62


def bars(groups, title):
    """groups: (work, own cost, {proxy: ratio}) each."""
    width, y, out = LEFT + int(SCALE * LIMIT) + 70, TOP, []
    for work, cost, ratios in groups:
        height = BAR * len(ratios)
        middle = y + height / 2
        out.append(f'<text x="{LEFT - 8}" y="{middle:.0f}" text-anchor="end">{escape(work)}</text>')
        out.append(f'<text x="{LEFT - 8}" y="{middle + 12:.0f}" text-anchor="end" class="s">Moongate: {escape(cost)}</text>')
        for name in sorted(ratios, key=list(COLOURS).index):
            ratio = ratios[name]
            length = SCALE * min(ratio, LIMIT)
            out.append(f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 1}" fill="{COLOURS[name]}"/>')
            out.append(f'<text x="{LEFT + length + 4:.1f}" y="{y + 8.5}" class="s">{ratio:.2f}{" (cut)" if ratio > LIMIT else ""}</text>')
            y += BAR
        y += max(GAP, 30 - height)
    legend, x = [], LEFT
    for name, colour in COLOURS.items():
        legend.append(f'<rect x="{x}" y="34" width="10" height="10" fill="{colour}"/><text x="{x + 14}" y="43">{NAMES[name]}</text>')
        x += 100
    line = f'<line x1="{LEFT + SCALE}" y1="{TOP - 8}" x2="{LEFT + SCALE}" y2="{y}" stroke="#888" stroke-dasharray="3 3"/>'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y + 10}" width="{width}" height="{y + 10}">',
        "<style>text{font:12px sans-serif;fill:#222}.s{font-size:9.5px;fill:#555}.t{font-size:14px;font-weight:bold}</style>",
        f'<rect width="{width}" height="{y + 10}" fill="#fff"/>', f'<text x="12" y="22" class="t">{escape(title)}</text>',
        *legend, *out, line, "</svg>", ""])
