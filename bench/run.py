#!/usr/bin/env python3
# bench/run.py - ours and every peer that can be had, in turn, on this machine, now.
#
# Only ratios from one run are believed: contenders alternate (A B A B), so that a machine that slows down slows both; the
# median is shown with the least and the most; figures that differ by more than 20 % are measured again, and marked when that
# does not settle them. What is missing, fails or takes no part is named with its reason.
#
#     bench/run.py                      all rows, five times each
#     bench/run.py --rows b,d --quick   two rows, a tenth of the work, twice
#     bench/run.py --markdown           only print the table of the results kept in bench/results
#
# Exit code 1 when one of our own programs does not build or run.
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True

import build  # noqa: E402
import measure  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402

RESULTS = os.path.join(build.BENCH, "results")
NOISE_LIMIT = 0.2


def spread(values):
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else float(max(values) > 0)


class Samples:
    """What one experiment has yielded so far: contender -> figure -> values, and why others yielded nothing."""

    def __init__(self, experiment, missing):
        self.experiment = experiment
        self.values = {name: {} for name in experiment.contenders}
        self.failed = {}
        self.commands = {}
        for name, command in experiment.contenders.items():
            try:
                if experiment.runner == "http" and "wrk" in missing:
                    raise build.Unavailable("wrk, which drives it, is not installed")
                self.commands[name] = [build.program(command[0], missing)] + command[1:]
            except build.Unavailable as problem:
                self.give_up(name, str(problem))

    def give_up(self, name, why):
        self.failed[name] = why
        print(f"    {name}: {why}", flush=True)

    def take(self):
        for name, command in self.commands.items():
            if name in self.failed or (name in self.experiment.once and self.values[name]):
                continue
            try:
                figures = measure.RUNNERS[self.experiment.runner](command, self.experiment.settings)
            except (measure.Failed, build.Unavailable, OSError) as problem:
                self.give_up(name, str(problem))
                continue
            for figure in self.experiment.figures:
                if figure.name not in figures:
                    self.give_up(name, f"printed no {figure.name}")
                    break
                self.values[name].setdefault(figure.name, []).append(figures[figure.name])

    def is_noisy(self):
        judged = [values for figures in self.values.values() for values in figures.values()]
        return any(len(values) > 1 and spread(values) > NOISE_LIMIT for values in judged)

    def result_of(self, figure):
        figures = {}
        for name in self.commands:
            values = self.values[name].get(figure.name)
            if values and name not in self.failed:
                figures[name] = {"median": statistics.median(values), "least": min(values), "most": max(values),
                                 "noisy": spread(values) > NOISE_LIMIT, "values": values}
        goal = None
        if figure.goal:
            goal = {"value": figure.goal.value, "against": figure.goal.against, "limit": figure.goal.limit(),
                    "ratio_only": bool(figure.goal.ratio)}
        return {"name": figure.name, "label": figure.label, "unit": figure.unit, "goal": goal,
                "more_is_better": figure.more_is_better, "figures": figures, "failed": self.failed}


def run_experiment(experiment, repeats, missing):
    print(f"\n{experiment.key()}", flush=True)
    for name, why in experiment.absent.items():
        print(f"    {name} takes no part: it {why}")
    notes = experiment.all_notes()
    for name, note in notes.items():
        print(f"    {name}*: {note}")
    samples = Samples(experiment, missing)
    for _ in range(repeats):
        samples.take()
    if samples.is_noisy():
        print(f"    some differ by more than {NOISE_LIMIT:.0%}: {repeats} more of each", flush=True)
        for _ in range(repeats):
            samples.take()
    results = [samples.result_of(figure) for figure in experiment.figures]
    for result in results:
        report.print_result(result, notes)
    return {"row": experiment.row, "title": experiment.title, "workers": experiment.workers, "results": results,
            "absent": experiment.absent, "notes": notes}


def kept_rows():
    found, machine = [], None
    for letter in rows.ROWS:
        path = os.path.join(RESULTS, f"row_{letter}.json")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                kept = json.load(file)
            found += kept["rows"]
            machine = kept["machine"]
    return found, machine


def keep(letter, measured, machine, repeats):
    os.makedirs(RESULTS, exist_ok=True)
    with open(os.path.join(RESULTS, f"row_{letter}.json"), "w", encoding="utf-8") as file:
        json.dump({"machine": machine, "repeats": repeats, "rows": measured}, file, indent=1)
        file.write("\n")


def draw():
    python = build.plotting_python()
    if python is None:
        print("no plots: no Python here has matplotlib (package python3-matplotlib)")
        return
    done = subprocess.run([python, os.path.join(build.BENCH, "plot.py"), RESULTS], capture_output=True, text=True)
    if done.returncode != 0:
        print("no plots:", (done.stderr.strip().splitlines() or ["plot.py failed"])[-1])


def write_table():
    found, machine = kept_rows()
    if not found:
        return "no results are kept yet: run bench/run.py first\n"
    table = report.markdown(found, machine)
    with open(os.path.join(RESULTS, "table.md"), "w", encoding="utf-8") as file:
        file.write(table)
    return table


def read_arguments():
    parser = argparse.ArgumentParser(description="Measure concur against its peers.")
    parser.add_argument("--rows", default=",".join(rows.ROWS), help="letters, with commas; all: %(default)s")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, twice; nothing is kept")
    parser.add_argument("--repeats", type=int, default=0, help="runs of each contender (5; quick: 2)")
    parser.add_argument("--markdown", action="store_true", help="print the table of the kept results and do nothing else")
    parser.add_argument("--no-install", action="store_true", help="never call apt-get")
    arguments = parser.parse_args()
    arguments.rows = [letter for letter in arguments.rows.replace(" ", "").split(",") if letter]
    unknown = [letter for letter in arguments.rows if letter not in rows.ROWS]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(rows.ROWS)}")
    return arguments


def main():
    arguments = read_arguments()
    if arguments.markdown:
        print(write_table(), end="")
        return 0
    if not sys.platform.startswith("linux"):
        print("this script reads /proc and pins processors: it runs on Linux alone")
        return 1
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if soft < hard else soft, hard))
    missing = build.install_peers(not arguments.no_install)
    machine = build.machine()
    for name, value in machine.items():
        print(f"{name:9} {value}")
    load = os.getloadavg()[0]
    machine["load_before"] = round(load, 2)
    if load > 0.5:
        print(f"the machine is busy (load {load:.2f}): take no figure of this run for true")
    repeats = arguments.repeats or (2 if arguments.quick else 5)
    is_whole = True
    for letter in arguments.rows:
        measured = [run_experiment(one, repeats, missing) for one in rows.experiments([letter], arguments.quick)]
        failed = [name for row in measured for result in row["results"] for name in result["failed"]]
        is_whole = is_whole and not any(name.startswith(report.OURS) for name in failed)
        if not arguments.quick:
            keep(letter, measured, machine, repeats)
    if not arguments.quick:
        write_table()
        draw()
        print(f"\nkept in {os.path.relpath(RESULTS)}: row_*.json, row_*.svg, table.md")
    if not is_whole:
        print("\none of our own programs does not build or run: see above")
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
