#!/usr/bin/env python3
# bench/readme.py - writes the short table of the README from the results that are kept: no figure there is typed by hand.
#
#     bench/readme.py           rewrites what stands between the two marks
#     bench/readme.py --check   exit code 1 when it would be another text
#
# One line for a workload and figure, on one and on two workers; Go, and the best of the others. bench/results/table.md has all.
import os
import sys

sys.dont_write_bytecode = True

import build  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402
import run  # noqa: E402

README = os.path.join(build.TOP, "README.md")
BEGIN = "<!-- figures: bench/readme.py -->"
END = "<!-- end of figures -->"
FLOORS = ("bare switch", "bare queue", "bare thread", "epoll loop", "concur http_server", "concur, declarations",
          "concur, -fno-exceptions")


# [(row, title, label), [(workers, result), ...]] in the order of the results.
def grouped(measured):
    groups = {}
    for row in measured:
        for result in row["results"]:
            one = {**result, "notes": row.get("notes", {})}
            groups.setdefault((row["row"], row["title"], result["label"]), []).append((row["workers"], one))
    return groups.items()


def ratio_of(result, name):
    ours, theirs = result["figures"].get(report.OURS), result["figures"].get(name)
    if not ours or not theirs or not theirs["median"]:
        return ""
    return f"{report.ratio(ours, theirs)['median']:.2f}"


def peer_text(result, name):
    figure = result["figures"].get(name)
    if figure is None:
        return "-"
    ratio = ratio_of(result, name)
    return report.text_of(figure["median"], result["unit"]) + (f" ({ratio})" if ratio else "")


def best_other(result):
    others = [name for name in report.peers_of(result)
              if name in result["figures"] and name != "Go" and name not in FLOORS]
    return f"{report.marked(others[0], result['notes'])} {peer_text(result, others[0])}" if others else "-"


def floor_text(result):
    floors = [name for name in FLOORS if name in result["figures"] and not name.startswith("concur")]
    return f"; {floors[0]} {peer_text(result, floors[0])}" if floors else ""


def joined(parts):
    return parts[0] if len(set(parts)) == 1 else " / ".join(parts)


def lines_of(measured):
    lines = ["| workload | concur | Go | the best other; the floor | goal |", "|---|--:|--:|---|---|"]
    for (_, title, label), results in grouped(measured):
        workers = "".join(f"[{count}]" for count, _ in results)
        ours = [report.text_of(one["figures"][report.OURS]["median"], one["unit"]) if report.OURS in one["figures"] else "-"
                for _, one in results]
        verdicts = [report.verdict_text(one) for _, one in results]
        beside_go = joined([peer_text(one, "Go") for _, one in results])
        lines.append(f"| {title}, {label} {workers} | {' / '.join(ours)} | {beside_go} | "
                     f"{joined([best_other(one) + floor_text(one) for _, one in results])} | {joined(verdicts)} |")
    return lines


def text_with(text, lines):
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return text[:begin] + "\n" + "\n".join(lines) + "\n" + text[end:]


def main():
    found = [row for letter in rows.ROWS for row in (run.kept(f"row_{letter}.json") or {"rows": []})["rows"]]
    if not found:
        print("no results are kept yet: run bench/run.py first")
        return 1
    with open(README, encoding="utf-8") as file:
        before = file.read()
    after = text_with(before, lines_of(found))
    if "--check" in sys.argv[1:]:
        if before != after:
            print("README.md: the figures are not those of bench/results: run bench/readme.py and commit the result")
        return int(before != after)
    with open(README, "w", encoding="utf-8") as file:
        file.write(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
