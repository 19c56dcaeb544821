# bench/report.py - turns the figures into what people read: lines for the terminal, a Markdown table. plot.py draws them.
import statistics

OURS = "concur"


def text_of(value, unit):
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}" + (f" {unit}" if unit and unit != "1/s" else "")


# Ours divided by theirs, once for each pair of runs that took turns: what slows the machine down for a while slows both of a
# pair, so that these differ by less than the runs do.
def ratios(ours, theirs):
    return [a / b for a, b in zip(ours["values"], theirs["values"]) if b]


def ratio(ours, theirs):
    each = ratios(ours, theirs)
    return {"median": statistics.median(each), "least": min(each), "most": max(each)} if each else None


# Both readings of a goal: None where a reading does not apply or cannot be taken. The fair one counts pairs of runs, too.
def verdict(result):
    goal, ours = result.get("goal"), result["figures"].get(OURS)
    if not goal or not ours:
        return None, None, ()
    better = (lambda a, b: a >= b) if result["more_is_better"] else (lambda a, b: a <= b)
    plain = None if goal["ratio_only"] else better(ours["median"], goal["value"])
    peer = result["figures"].get(goal["against"])
    pairs = ratios(ours, peer) if peer and goal["limit"] else []
    fair = better(statistics.median(pairs), goal["limit"]) if pairs else None
    return plain, fair, [better(one, goal["limit"]) for one in pairs]


def verdict_text(result):
    plain, fair, pairs = verdict(result)
    if plain is None and fair is None:
        return "not measured" if result.get("goal") else ""
    divided = f", in {sum(pairs)} of {len(pairs)} pairs" if 0 < sum(pairs) < len(pairs) else ""
    if plain is None or fair is None or plain == fair:
        return ("met" if (fair if plain is None else plain) else "**not met**") + divided
    return ("met in time, **not in ratio**" if plain else "**not in time**, met in ratio") + divided


def goal_text(result):
    goal = result.get("goal")
    if not goal:
        return ""
    sign = ">=" if result["more_is_better"] else "<="
    parts = [] if goal["ratio_only"] else [f"{sign} {text_of(goal['value'], result['unit'])}"]
    if goal["limit"]:
        parts.append(f"{sign} {goal['limit']:.3g} x {goal['against']}")
    return "; ".join(parts)


def ratio_text(ours, theirs):
    one = ratio(ours, theirs)
    if one is None:
        return ""
    sides = [one[side] for side in ("median", "least", "most")]
    middle, least, most = (f"{side:.3g}" if side >= 100 else f"{side:.2f}" for side in sides)
    return f" ({middle})" if least == most else f" ({middle}, {least} - {most})"


def cell(result, name):
    figure = result["figures"].get(name)
    if figure is None:
        return "failed" if name in result["failed"] else ""
    text = ("~" if figure["noisy"] else "") + text_of(figure["median"], result["unit"])
    ours = result["figures"].get(OURS)
    if name == OURS:
        unit_less = [text_of(figure[side], "") for side in ("least", "most")]
        return text if unit_less[0] == unit_less[1] else f"{text} ({unit_less[0]} - {unit_less[1]})"
    return text + (ratio_text(ours, figure) if ours else "")


def marked(name, notes):
    return name + "*" if name in notes else name


# --- the table ---

TITLES = {"a": "Bare switch", "b": "Yield", "c": "Spawn and join", "d": "Channels", "e": "Ring", "f": "Skynet",
          "g": "Fork and join", "h": "Parked fibers", "i": "Mutex", "j": "Sleepers", "k": "TCP echo", "l": "HTTP under wrk",
          "m": "Idle", "n": "Nurseries", "q": "Queues between threads", "r": "Latency of wake-ups and timers",
          "s": "Latency of HTTP at half load", "t": "Time to compile", "u": "Size of a program"}


# Best first, then who failed.
def peers_of(result):
    there = sorted(((one["median"], name) for name, one in result["figures"].items() if name != OURS),
                   reverse=result["more_is_better"])
    return [name for _, name in there] + [name for name in result["failed"] if name != OURS]


def workload_line(row, result):
    notes = row.get("notes", {})
    peers = ", ".join(f"{marked(name, notes)} {cell(result, name)}" for name in peers_of(result))
    return (f"| {row['title']} [{row['workers']}], {result['label']} | {cell(result, OURS) or '-'} | {peers or '-'} | "
            f"{goal_text(result)} | {verdict_text(result)} |")


# What is to be said below a table, each once, with the workloads that it is true of unless that is all of them.
def remarks(rows):
    said = {}
    for row in rows:
        place = f"{row['title']} [{row['workers']}]"
        failures = {name: why for result in row["results"] for name, why in result["failed"].items()}
        noted = [(name + "*", why) for name, why in row.get("notes", {}).items()]
        for name, why in noted + [*row["absent"].items(), *failures.items()]:
            places = said.setdefault((name, why), [])
            if place not in places:
                places.append(place)
    every = len({(row["title"], row["workers"]) for row in rows})
    return [f"- {name}: {why}" + ("." if len(places) == every else f" ({'; '.join(places)}).")
            for (name, why), places in said.items()]


def summary(rows):
    judged = [(row, result, verdict_text(result)) for row in rows for result in row["results"] if result.get("goal")]
    counts = {"met": 0, "not met, or in one reading alone": 0, "not measured": 0}
    for _, _, text in judged:
        counts["not measured" if text == "not measured" else "met" if text.startswith("met") and "**" not in text
               else "not met, or in one reading alone"] += 1
    lines = ["Goals: " + ", ".join(f"{count} {words}" for words, count in counts.items()) + "."]
    return lines + [f"- {row['row']}. {row['title']} [{row['workers']}], {result['label']}: {cell(result, OURS)}, goal "
                    f"{goal_text(result)}: {text}" for row, result, text in judged if "**" in text or text == "not measured"]


def machine_lines(machine):
    lines = ["", "## Machine", "", "| | |", "|---|---|"]
    for name, value in machine.items():
        if isinstance(value, dict):
            lines += [f"| {one} | {version} |" for one, version in value.items()]
        else:
            lines.append(f"| {name.replace('_', ' ')} | {value} |")
    return lines


def markdown(rows, machine, curve_lines=()):
    lines = ["# Figures", "", "Medians of runs that took turns; [n]: worker threads. Beside ours the least and the most, beside "
             "peers ours divided by theirs, run by run: the median, the least, the most. Peers stand best first. `~`: the runs "
             "differ by more than 20 %. `*`: its work differs, as is said below. A goal's ratio is judged in the same run.", ""]
    lines += summary(rows)
    for letter in dict.fromkeys(row["row"] for row in rows):
        own = [row for row in rows if row["row"] == letter]
        lines += ["", f"## {letter}. {TITLES.get(letter, '')}", "",
                  "| workload [workers] | concur | peers (ours / theirs) | goal | verdict |", "|---|--:|---|---|---|"]
        lines += [workload_line(row, result) for row in own for result in row["results"]]
        said = remarks(own)
        lines += [""] + said if said else []
    return "\n".join([*lines, *curve_lines, *machine_lines(machine)]) + "\n"


def print_result(result, notes=()):
    ours = result["figures"].get(OURS)
    for name, figure in result["figures"].items():
        against = ratio_text(ours, figure) if ours and name != OURS else ""
        noise = "  noisy" if figure["noisy"] else ""
        print(f"    {result['label']:28} {marked(name, notes):18} {text_of(figure['median'], result['unit']):>14}"
              f"   {text_of(figure['least'], ''):>10} - {text_of(figure['most'], ''):<10}{against}{noise}")
    if result.get("goal"):
        print(f"    {'':28} goal {goal_text(result)}: {verdict_text(result).replace('**', '')}")
