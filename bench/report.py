# bench/report.py - turns the figures into what people read: lines for the terminal, a Markdown table, plots.
#
# The plots are SVG written by hand: bars on a logarithmic scale, since the contenders differ by factors, and no library is
# needed to draw a rectangle.
import math
from html import escape

OURS = "concur"


def text_of(value, unit):
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}" + (f" {unit}" if unit and unit != "1/s" else "")


# Both readings of a goal: None where a reading does not apply or cannot be taken.
def verdict(result):
    goal, ours = result.get("goal"), result["figures"].get(OURS)
    if not goal or not ours:
        return None, None
    better = (lambda a, b: a >= b) if result["more_is_better"] else (lambda a, b: a <= b)
    plain = None if goal["ratio_only"] else better(ours["median"], goal["value"])
    peer = result["figures"].get(goal["against"])
    fair = better(ours["median"], goal["limit"] * peer["median"]) if peer and goal["limit"] else None
    return plain, fair


def verdict_text(result):
    plain, fair = verdict(result)
    if plain is None and fair is None:
        return "not measured" if result.get("goal") else ""
    if plain is None or fair is None or plain == fair:
        return "met" if (fair if plain is None else plain) else "**not met**"
    return "met in time, **not in ratio**" if plain else "**not in time**, met in ratio"


def goal_text(result):
    goal = result.get("goal")
    if not goal:
        return ""
    sign = ">=" if result["more_is_better"] else "<="
    parts = [] if goal["ratio_only"] else [f"{sign} {text_of(goal['value'], result['unit'])}"]
    if goal["limit"]:
        parts.append(f"{sign} {goal['limit']:.3g} x {goal['against']}")
    return "; ".join(parts)


def cell(result, name):
    figure = result["figures"].get(name)
    if figure is None:
        return "failed" if name in result["failed"] else ""
    text = ("~" if figure["noisy"] else "") + text_of(figure["median"], result["unit"])
    ours = result["figures"].get(OURS)
    if name != OURS and ours and figure["median"]:
        text += f" ({ours['median'] / figure['median']:.2f})"
    return text


COLUMNS = ("Go", "Boost.Fiber", "tokio", "Boost.Context", "epoll loop", "nginx", "Go net/http", "concur http_server",
           "Boost.Lockfree", "moodycamel", "TBB", "rayon", "crossbeam", "Asio", "libuv", "bare switch", "bare queue")


def marked(name, notes):
    return name + "*" if name in notes else name


def markdown(rows, machine):
    lines = ["| workload [workers] | concur | peers (ours / theirs) | goal | |", "|---|--:|---|---|---|"]
    for row in rows:
        for result in row["results"]:
            notes = row.get("notes", {})
            peers = [f"{marked(name, notes)} {cell(result, name)}" for name in COLUMNS if cell(result, name)]
            ours = cell(result, OURS) or "-"
            lines.append(f"| {row['row']}. {row['title']} [{row['workers']}], {result['label']} | {ours} | "
                         f"{', '.join(peers) or '-'} | {goal_text(result)} | {verdict_text(result)} |")
    lines += ["", f"Medians; `~`: the runs differ by more than 20 %; `*`: see below. In brackets ours divided by theirs. "
              f"{machine['cpu']}, "
              f"{machine['cpus']} CPUs, {machine['kernel']}, {machine['compiler']}, {machine['go']}, Boost {machine['boost']}, "
              f"tokio {machine.get('tokio', 'not there')}, rayon {machine.get('rayon', 'not there')}, crossbeam "
              f"{machine.get('crossbeam', 'not there')}, TBB {machine.get('tbb', 'not there')}, Asio "
              f"{machine.get('asio', 'not there')}, libuv {machine.get('libuv', 'not there')}."]
    for row in rows:
        for name, note in row.get("notes", {}).items():
            lines.append(f"{row['row']}. {row['title']} [{row['workers']}]: {name}*: {note}.  ")
        for name, why in {**row["absent"], **{n: w for r in row["results"] for n, w in r["failed"].items()}}.items():
            lines.append(f"{row['row']}. {row['title']} [{row['workers']}]: {name}: {why}.  ")
    return "\n".join(lines) + "\n"


def print_result(result, notes=()):
    ours = result["figures"].get(OURS)
    for name, figure in result["figures"].items():
        ratio = f"{ours['median'] / figure['median']:8.3f}" if ours and figure["median"] and name != OURS else " " * 8
        noise = "  noisy" if figure["noisy"] else ""
        print(f"    {result['label']:28} {marked(name, notes):18} {text_of(figure['median'], result['unit']):>14}"
              f"   {text_of(figure['least'], ''):>10} - {text_of(figure['most'], ''):<10} {ratio}{noise}")
    if result.get("goal"):
        print(f"    {'':28} goal {goal_text(result)}: {verdict_text(result).replace('**', '')}")


def svg(rows):
    bars = []
    for row in rows:
        for result in row["results"]:
            shown = [(name, figure["median"]) for name, figure in result["figures"].items() if figure["median"] > 0]
            if shown:
                bars.append((f"{row['title']} [{row['workers']}], {result['label']}", result["unit"], shown))
    height = 10 + sum(26 + 18 * len(shown) for _, _, shown in bars)
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{height}" font-family="sans-serif" font-size="12">',
             f'<rect width="720" height="{height}" fill="#fff"/>']
    y = 20
    for title, unit, shown in bars:
        lines.append(f'<text x="8" y="{y}" font-weight="bold">{escape(title)} (logarithmic)</text>')
        low = math.log10(min(value for _, value in shown)) - 0.5
        high = math.log10(max(value for _, value in shown))
        for name, value in shown:
            y += 18
            width = 380 * (math.log10(value) - low) / (high - low)
            colour = "#1f6feb" if name.startswith(OURS) else "#9aa4af"
            lines.append(f'<text x="150" y="{y}" text-anchor="end">{escape(name)}</text>'
                         f'<rect x="156" y="{y - 11}" width="{width:.1f}" height="13" fill="{colour}"/>'
                         f'<text x="{162 + width:.1f}" y="{y}">{escape(text_of(value, unit))}</text>')
        y += 26
    return "\n".join(lines + ["</svg>"]) + "\n"
