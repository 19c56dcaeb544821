#!/usr/bin/env python3
# bench/plot.py - draws what is kept in a folder of results: the bars of each row, the growth curves.
#
#     bench/plot.py FOLDER     FOLDER/row_*.json and curves.json become .svg files beside them
#
# A program of its own, since the library that draws (matplotlib) may be installed for another Python than the one that runs
# run.py, which looks for one that has it. The same figures give the same bytes: no date, and identifiers from a fixed salt.
import glob
import json
import math
import os
import sys
import textwrap

sys.dont_write_bytecode = True

import matplotlib  # noqa: E402

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator  # noqa: E402

import curves  # noqa: E402
import report  # noqa: E402

OURS_COLOUR, PEERS_COLOUR, FAINT = "#1f6feb", "#b3bac2", "#6b7480"
LINE_COLOURS = {"Go": "#00838f", "tokio": "#c2410c", "Boost.Fiber": "#7c3aed", curves.FLOOR: "#6b7480"}
OTHER_LINES = ("#4d7c0f", "#be185d", "#a16207", "#475569")
WIDTH, LABELS, BARS, BAR, HEAD = 9.0, 1.55, 5.1, 0.21, 0.62  # inches; HEAD: above a panel, for its title and the scale over it
MARGIN = 0.25
REASON_LENGTH = 92

matplotlib.rcParams.update({
    "svg.hashsalt": "concur", "svg.fonttype": "none", "font.size": 8, "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"], "axes.linewidth": 0.5,
    "axes.spines.top": False, "axes.spines.right": False, "figure.facecolor": "white", "axes.edgecolor": FAINT,
})


def short(value, _place=None):
    for limit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{letter}"
    return f"{value:g}"


def save(figure, path):
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    print(os.path.relpath(path))


# --- bars ---

def is_ours(name):
    return name.startswith(report.OURS)


def missing_from(row, result):
    missing = {**row["absent"], **result["failed"]}
    return [(name, why) for name, why in missing.items() if name not in result["figures"]]


# Best first; and why the others are not there, unless that is said below for all panels.
def contenders_of(row, result, said):
    shown = sorted(result["figures"].items(), key=lambda item: item[1]["median"], reverse=result["more_is_better"])
    return shown, [one for one in missing_from(row, result) if one not in said]


def missing_everywhere(panels):
    first, *others = [missing_from(*panel) for panel in panels]
    return [one for one in first if others and all(one in other for other in others)]


def draw_panel(axes, row, result, said):
    shown, missing = contenders_of(row, result, said)
    values = [one[side] for _, one in shown for side in ("median", "least", "most") if one[side] > 0]
    low, high = (min(values) / 2, max(values) * 1.05) if values else (0.5, 1)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    for place, (name, one) in enumerate(shown):
        middle = max(one["median"], low)
        least, most = max(one["least"], low), max(one["most"], low)
        axes.barh(place, middle - low, left=low, height=0.72, color=OURS_COLOUR if is_ours(name) else PEERS_COLOUR)
        if most > least:
            axes.errorbar(middle, place, xerr=[[middle - least], [most - middle]], color="#24292f", linewidth=0.7, capsize=1.8)
        axes.annotate(report.cell(result, name), (1, place), xycoords=("axes fraction", "data"), xytext=(6, 0),
                      textcoords="offset points", va="center", fontsize=7.5)
    for place, (name, why) in enumerate(missing, len(shown)):
        words = why if len(why) <= REASON_LENGTH else why[:REASON_LENGTH - 3] + "..."
        axes.annotate(f"not there: {words}", (0, place), xycoords=("axes fraction", "data"), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize=7, color=FAINT)
    names = [report.marked(name, row.get("notes", {})) for name, _ in shown] + [name for name, _ in missing]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(length=2, width=0.5, labelsize=7.5, pad=2)
    axes.xaxis.set_major_formatter(FuncFormatter(short))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title(f"{row['title']} [{row['workers']}], {result['label']}, {result['unit'] or 'times'}"
                   + (": more is better" if result["more_is_better"] else ""),
                   loc="left", x=-LABELS / BARS + 0.02, fontsize=8.5, fontweight="bold", pad=5)


def draw_bars(rows, path):
    panels = [(row, result) for row in rows for result in row["results"] if result["figures"]]
    if not panels:
        return
    said = missing_everywhere(panels)
    heights = [HEAD + BAR * sum(map(len, contenders_of(*panel, said))) for panel in panels]
    foot = 0.15 * len(said)
    whole = sum(heights) + 2 * MARGIN + foot
    figure = plt.figure(figsize=(WIDTH, whole))
    top = whole - MARGIN
    for (row, result), height in zip(panels, heights):
        bars = height - HEAD
        axes = figure.add_axes((LABELS / WIDTH, (top - 0.25 - bars) / whole, BARS / WIDTH, bars / whole))
        draw_panel(axes, row, result, said)
        top -= height
    notes = ["bars: medians on a logarithmic scale; whiskers: least and most; in brackets: ours divided by theirs, run by run"]
    figure.text(0.12 / WIDTH, 0.08 / whole, "\n".join(notes + [f"not there: {name}: {why}" for name, why in said]), fontsize=7,
                color=FAINT, va="bottom", linespacing=1.4)
    save(figure, path)


# --- curves ---

CURVE_SIZE = (WIDTH, 2.5)
CURVE_COLUMNS = 2
VERDICT_LENGTH = 96


def colour_of(name, others):
    if is_ours(name):
        return OURS_COLOUR
    return LINE_COLOURS.get(name) or OTHER_LINES[others.index(name) % len(OTHER_LINES)]


# Beside the last point of each line; moved up where that would lie on another's name.
def name_lines(axes, ends):
    low, high = (math.log(limit) for limit in axes.get_ylim())
    above = -1
    for middle, x, name, colour in sorted(ends):
        above = max((math.log(middle) - low) / (high - low), above + 0.075)
        axes.annotate(name, (x, above), xycoords=("data", "axes fraction"), xytext=(5, 0), textcoords="offset points",
                      va="center", fontsize=7, color=colour, annotation_clip=False)


def draw_lines(axes, curve):
    names = curves.ours_first(curves.contenders(curve))
    others = [name for name in names if name not in LINE_COLOURS]
    ends = []
    for name in names:
        there = [(point["x"], point["figures"][name]) for point in curve["points"] if name in point["figures"]]
        xs, middles = [x for x, _ in there], [one["median"] for _, one in there]
        colour = colour_of(name, others)
        spread = [[one["median"] - one["least"] for _, one in there], [one["most"] - one["median"] for _, one in there]]
        axes.errorbar(xs, middles, yerr=spread, color=colour, linewidth=1.8 if is_ours(name) else 1.1, marker="o",
                      markersize=3 if is_ours(name) else 2.2, capsize=1.8, elinewidth=0.6, label=name)
        if xs:
            ends.append((middles[-1], xs[-1], name, colour))
    axes.set_xscale("log")
    axes.set_yscale("log")
    name_lines(axes, ends)
    xs = [point["x"] for point in curve["points"]]
    axes.set_xticks(xs, [short(x) for x in xs])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
    axes.yaxis.set_major_formatter(FuncFormatter(short))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.tick_params(length=2, width=0.5, labelsize=7, pad=2)
    axes.grid(axis="y", color="#e5e8eb", linewidth=0.5)
    axes.set_axisbelow(True)
    said = textwrap.fill(curves.verdict_text(curve).replace("**", ""), VERDICT_LENGTH)
    axes.set_title(f"{curve['title']}: {curve['label']}, {curve['unit']}", loc="left", fontsize=8, fontweight="bold",
                   pad=16 + 8 * said.count("\n"))
    axes.text(0, 1.03, said, transform=axes.transAxes, fontsize=7, color=FAINT)
    axes.set_xlabel(curve["axis"], fontsize=7, labelpad=1)


def draw_curves(some, path):
    lines = -(-len(some) // CURVE_COLUMNS)
    width, height = CURVE_SIZE
    figure, grid = plt.subplots(lines, CURVE_COLUMNS, figsize=(width, height * lines), squeeze=False)
    for axes, curve in zip(grid.flat, some):
        draw_lines(axes, curve)
    for axes in grid.flat[len(some):]:
        axes.axis("off")
    missing = sorted({f"{name}: {why}" for curve in some for point in curve["points"]
                      for name, why in {**point["absent"], **point["failed"]}.items()})
    below = 0.3 + 0.14 * len(missing)
    whole = height * lines + below
    figure.set_size_inches(width, whole)
    figure.subplots_adjust(left=0.055, right=0.925, top=1 - 0.4 / whole, bottom=(below + 0.35) / whole, wspace=0.32, hspace=0.5)
    note = ["logarithmic scales; points: medians; whiskers: least and most"] + ["not there: " + one for one in missing]
    figure.text(0.055, 0.06 / whole, "\n".join(note), fontsize=7, color=FAINT, va="bottom", linespacing=1.4)
    save(figure, path)


def draw_all_curves(folder):
    path = os.path.join(folder, "curves.json")
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8") as file:
        every = json.load(file)["curves"]
    for axis in dict.fromkeys(curve["axis"] for curve in every):
        draw_curves([curve for curve in every if curve["axis"] == axis], os.path.join(folder, f"curves_{axis}.svg"))


def main():
    if len(sys.argv) != 2:
        print("usage: plot.py FOLDER", file=sys.stderr)
        return 2
    for path in sorted(glob.glob(os.path.join(sys.argv[1], "row_*.json"))):
        with open(path, encoding="utf-8") as file:
            draw_bars(json.load(file)["rows"], path[:-len("json")] + "svg")
    draw_all_curves(sys.argv[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
