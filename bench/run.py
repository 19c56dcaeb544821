#!/usr/bin/env python3
# bench/run.py - ours and every peer that can be had, in turn, on this machine, now.
#
# Only ratios from one run are believed: contenders alternate (A B A B), so that a machine that slows down slows both; the
# median is shown with the least and the most, a ratio with those of its pairs; figures that differ by more than 20 % are
# measured again, and marked when that does not settle them. What is missing, fails or takes no part is named with its reason.
#
#     bench/run.py                      all rows, five times each, and the growth curves
#     bench/run.py --rows b,d --quick   two rows, a tenth of the work, twice
#     bench/run.py --curves             the growth curves alone
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
import time

sys.dont_write_bytecode = True

import build  # noqa: E402
import curves  # noqa: E402
import measure  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402

RESULTS = os.path.join(build.BENCH, "results")
NOISE_LIMIT = 0.2
SLOW_S = 8  # a peer that takes longer is not measured again


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
        self.slow = set(experiment.once)
        for name, command in experiment.contenders.items():
            try:
                for tool in measure.TOOLS.get(experiment.runner, ()):
                    if tool in missing:
                        raise build.Unavailable(f"{tool}, which drives it, is not installed")
                self.commands[name] = [build.program(command[0], missing)] + command[1:]
            except build.Unavailable as problem:
                self.give_up(name, str(problem))
        prepare = measure.PREPARATIONS.get(experiment.runner)
        if prepare and self.commands:
            prepare(self.commands, experiment.settings, self.give_up)

    def give_up(self, name, why):
        self.failed[name] = why
        print(f"    {name}: {why}", flush=True)

    def take(self, only=None):
        for name, command in self.commands.items():
            if name in self.failed or (only is not None and name not in only) or (name in self.slow and self.values[name]):
                continue
            begin = time.monotonic()
            try:
                figures = measure.RUNNERS[self.experiment.runner](command, self.experiment.settings)
            except (measure.Failed, build.Unavailable, OSError) as problem:
                self.give_up(name, str(problem))
                continue
            if time.monotonic() - begin > SLOW_S and not name.startswith(report.OURS) and self.experiment.runner == "program":
                self.slow.add(name)
            for figure in self.experiment.figures:
                if figure.name not in figures:
                    self.give_up(name, f"printed no {figure.name}")
                    break
                self.values[name].setdefault(figure.name, []).append(figures[figure.name])

    # Who is to be measured again: all, when we ourselves are noisy; otherwise those who are, and we beside them.
    def noisy(self):
        found = {name for name, figures in self.values.items() if name not in self.failed
                 and any(len(values) > 1 and spread(values) > NOISE_LIMIT for values in figures.values())}
        return set(self.commands) if report.OURS in found else found | {report.OURS} if found else set()

    def notes(self):
        return self.experiment.all_notes(sorted(self.slow))

    def result_of(self, figure):
        figures = {}
        for name in self.commands:
            values = self.values[name].get(figure.name)
            if values and name not in self.failed:
                figures[name] = {"median": statistics.median(values), "least": min(values), "most": max(values),
                                 "noisy": spread(values) > NOISE_LIMIT, "values": values}
        ours = figures.get(report.OURS)
        for name, one in figures.items():
            if ours and name != report.OURS:
                one["ratio"] = report.ratio(ours, one)
        goal = None
        if figure.goal:
            goal = {"value": figure.goal.value, "against": figure.goal.against, "limit": figure.goal.limit(),
                    "ratio_only": bool(figure.goal.ratio)}
        return {"name": figure.name, "label": figure.label, "unit": figure.unit, "goal": goal,
                "more_is_better": figure.more_is_better, "figures": figures, "failed": self.failed}


class Progress:
    """Says before each experiment how many there are and how long the rest may take: by what each took the last time on this
    machine, or by a guess, and by how far the guesses were off so far."""

    PATH = os.path.join(build.OUT, "durations.json")

    def __init__(self, timetable):  # pairs: an experiment, how many times each contender is run
        self.taken = {}
        if os.path.exists(self.PATH):
            with open(self.PATH, encoding="utf-8") as file:
                self.taken = json.load(file)
        self.timetable = timetable
        self.expected = [self.taken.get(one.key(), self.guess(one)) * repeats for one, repeats in timetable]
        self.done, self.begin = 0, time.monotonic()

    # Seconds for one run of each contender. Who is measured once takes long, and some figures are taken again for noise.
    @staticmethod
    def guess(experiment):
        each = 1.0 if experiment.runner in ("program", "latency", "compile") else experiment.settings.get("seconds", 3) + 2
        return 1.3 * each * len(experiment.contenders) + 10 * len(experiment.once)

    def minutes_left(self):
        behind, ahead = sum(self.expected[:self.done]), sum(self.expected[self.done:])
        factor = (time.monotonic() - self.begin) / behind if behind > 60 else 1
        return ahead * factor / 60

    def run(self, work):
        experiment, repeats = self.timetable[self.done]
        print(f"\n[{self.done + 1} of {len(self.timetable)}, about {self.minutes_left():.0f} min left] {experiment.key()}",
              flush=True)
        begin = time.monotonic()
        result = work(experiment, repeats)
        self.taken[experiment.key()] = round((time.monotonic() - begin) / repeats, 2)
        self.done += 1
        return result

    def keep(self):
        os.makedirs(build.OUT, exist_ok=True)
        with open(self.PATH, "w", encoding="utf-8") as file:
            json.dump(self.taken, file, indent=1)


def run_experiment(experiment, repeats, missing):
    for name, why in experiment.absent.items():
        print(f"    {name} takes no part: it {why}")
    for name, note in experiment.all_notes().items():
        print(f"    {name}*: {note}")
    samples = Samples(experiment, missing)
    for _ in range(repeats):
        samples.take()
    again = samples.noisy()
    if again:
        print(f"    some differ by more than {NOISE_LIMIT:.0%}: {repeats} more of {', '.join(sorted(again))}", flush=True)
        for _ in range(repeats):
            samples.take(again)
    results = [samples.result_of(figure) for figure in experiment.figures]
    notes = samples.notes()
    for result in results:
        report.print_result(result, notes)
    return {"row": experiment.row, "title": experiment.title, "workers": experiment.workers, "results": results,
            "settings": experiment.settings, "absent": experiment.absent, "notes": notes}


# --- what is kept ---

def kept(name):
    path = os.path.join(RESULTS, name)
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def keep(name, what):
    os.makedirs(RESULTS, exist_ok=True)
    with open(os.path.join(RESULTS, name), "w", encoding="utf-8") as file:
        json.dump(what, file, indent=1)
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
    found = [row for letter in rows.ROWS for row in (kept(f"row_{letter}.json") or {"rows": []})["rows"]]
    grown = kept("curves.json")
    if not found and not grown:
        return "no results are kept yet: run bench/run.py first\n"
    table = report.markdown(found, kept("machine.json") or {}, curves.markdown(grown["curves"]) if grown else ())
    with open(os.path.join(RESULTS, "table.md"), "w", encoding="utf-8") as file:
        file.write(table)
    return table


# --- the run ---

def read_arguments():
    parser = argparse.ArgumentParser(description="Measure concur against its peers.")
    parser.add_argument("--rows", help=f"letters, with commas; all: {','.join(rows.ROWS)}; no curves then, unless asked for")
    parser.add_argument("--curves", nargs="?", const=",".join(curves.CURVES), help="the growth curves; without --rows these "
                        f"alone; or some of them, with commas: {','.join(curves.CURVES)}")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, twice; nothing is kept")
    parser.add_argument("--repeats", type=int, default=0, help="runs of each contender (5; quick: 2)")
    parser.add_argument("--markdown", action="store_true", help="print the table of the kept results and do nothing else")
    parser.add_argument("--no-install", action="store_true", help="install nothing")
    arguments = parser.parse_args()
    is_whole = arguments.rows is None and arguments.curves is None
    for name, known in (("rows", rows.ROWS), ("curves", curves.CURVES)):
        asked = ",".join(known) if is_whole else getattr(arguments, name) or ""
        asked = [word for word in asked.replace(" ", "").split(",") if word]
        setattr(arguments, name, asked)
        unknown = [word for word in asked if word not in known]
        if unknown:
            parser.error(f"--{name}: there is no {', '.join(unknown)}; there are {', '.join(known)}")
    return arguments


# Everything is built before anything is measured: a compiler heats the machine.
def build_all(experiments, missing):
    names = dict.fromkeys(command[0] for one in experiments for command in one.contenders.values())
    print(f"building what {len(names)} programs need", flush=True)
    for name in names:
        try:
            build.program(name, missing)
        except build.Unavailable:
            pass  # said where it would have taken part


def our_failures(results):
    return [name for result in results for name in result["failed"] if name.startswith(report.OURS)]


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
    load = os.getloadavg()[0]
    missing = build.install_peers(not arguments.no_install, "s" in arguments.rows)
    machine = build.machine(missing)
    machine["load_before"] = round(load, 2)
    for name, value in [*machine.items(), *machine["peers"].items()]:
        if name != "peers":
            print(f"{name:20} {value}")
    if load > 0.5:
        print(f"the machine is busy (load {load:.2f}): take no figure of this run for true")
    repeats = arguments.repeats or (2 if arguments.quick else 5)
    by_row = {letter: rows.experiments([letter], arguments.quick) for letter in arguments.rows}
    grown = curves.selected(arguments.curves, arguments.quick)
    # A curve has its neighbours to be judged by, and so fewer runs of each point.
    timetable = [(one, repeats) for some in by_row.values() for one in some]
    timetable += [(one, (repeats + 1) // 2) for curve in grown for one in curve.points.values()]
    build_all([one for one, _ in timetable], missing)
    progress = Progress(timetable)
    print(f"{len(timetable)} experiments, {repeats} times each: about {progress.minutes_left():.0f} min", flush=True)

    def next_one(*_):
        return progress.run(lambda one, times: run_experiment(one, times, missing))
    failures = []
    for letter, some in by_row.items():
        measured = [next_one() for _ in some]
        failures += our_failures(result for row in measured for result in row["results"])
        if not arguments.quick:
            keep(f"row_{letter}.json", {"machine": machine, "repeats": repeats, "rows": measured})
    drawn = [one for curve in grown for one in curves.measure_curve(curve, next_one)]
    failures += our_failures(point for curve in drawn for point in curve["points"])
    for curve in drawn:
        curves.print_curve(curve)
    machine["load_after"] = round(os.getloadavg()[0], 2)
    if not arguments.quick:
        if drawn:
            before = {one["key"]: one for one in (kept("curves.json") or {"curves": []})["curves"]}
            merged = {**before, **{one["key"]: one for one in drawn}}
            keep("curves.json", {"machine": machine, "repeats": repeats, "curves": list(merged.values())})
        keep("machine.json", machine)
        progress.keep()
        write_table()
        draw()
        print(f"\nkept in {os.path.relpath(RESULTS)}: row_*.json, curves.json, machine.json, *.svg, table.md")
    print(f"load: {machine['load_before']} before, {machine['load_after']} after; {len(timetable)} experiments in "
          f"{(time.monotonic() - progress.begin) / 60:.0f} min")
    if failures:
        print("\none of our own programs does not build or run: see above")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
