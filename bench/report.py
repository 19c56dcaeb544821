# bench/report.py - turns the figures into what people read: lines for the terminal, a Markdown table. plot.py draws them.
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
           "Boost.Lockfree", "moodycamel", "TBB")


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
              f"tokio {machine.get('tokio', 'not there')}."]
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
