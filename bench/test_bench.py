#!/usr/bin/env python3
# bench/test_bench.py - the judgements of run.py, tested: a table that flatters us would be worse than none.
import json
import os
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

sys.dont_write_bytecode = True

import build  # noqa: E402
import measure  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402
import run  # noqa: E402


def figure(median, noisy=False):
    return {"median": median, "least": median, "most": median, "noisy": noisy, "values": [median]}


def result(goal, more_is_better=False, failed=(), **medians):
    return {"name": "f", "label": "f", "unit": "ns", "more_is_better": more_is_better, "failed": dict(failed),
            "goal": goal and {"value": goal.value, "against": goal.against, "limit": goal.limit(),
                              "ratio_only": bool(goal.ratio)},
            "figures": {name.replace("_", " "): figure(value) for name, value in medians.items()}}


class Judgement(unittest.TestCase):
    def test_both_readings_must_hold(self):
        goal = rows.Goal(50, "Go", 100)
        self.assertEqual(report.verdict_text(result(goal, concur=49, Go=100)), "met")
        self.assertEqual(report.verdict_text(result(goal, concur=51, Go=100)), "**not met**")
        self.assertEqual(report.verdict_text(result(goal, concur=49, Go=80)), "met in time, **not in ratio**")
        self.assertEqual(report.verdict_text(result(goal, concur=60, Go=130)), "**not in time**, met in ratio")

    def test_what_was_not_measured_is_never_met(self):
        goal = rows.Goal(50, "Go", 100)
        self.assertEqual(report.verdict_text(result(goal, Go=100)), "not measured")
        self.assertEqual(report.verdict_text(result(rows.Goal(0, "epoll loop", ratio=1.1), concur=1)), "not measured")
        self.assertEqual(report.cell(result(goal, failed={"Go": "crashed"}, concur=1), "Go"), "failed")

    def test_a_ratio_alone(self):
        least = rows.Goal(0, "epoll loop", ratio=0.97)
        self.assertEqual(report.verdict_text(result(least, True, concur=97, epoll_loop=100)), "met")
        self.assertEqual(report.verdict_text(result(least, True, concur=96, epoll_loop=100)), "**not met**")

    def test_nothing_is_the_goal(self):
        self.assertEqual(report.verdict_text(result(rows.Goal(0), concur=0)), "met")
        self.assertEqual(report.verdict_text(result(rows.Goal(0), concur=1)), "**not met**")

    def test_noise(self):
        self.assertEqual(run.spread([100, 100]), 0)
        self.assertEqual(run.spread([0, 0]), 0)
        self.assertGreater(run.spread([0, 0, 1]), run.NOISE_LIMIT)
        self.assertGreater(run.spread([90, 100, 111]), run.NOISE_LIMIT)
        self.assertLess(run.spread([95, 100, 105]), run.NOISE_LIMIT)

    def test_figures_are_read_and_nothing_else(self):
        self.assertEqual(measure.printed_figures("ready\nyield 3.5 ns\nnot a figure\n"), {"yield": 3.5})

    def test_the_watch_over_idle_programs_sees_one_that_wakes(self):
        sleeps = "import time; print('ready', flush=True)\nwhile True: time.sleep({})"
        for pause, expected in ((0.05, True), (100, False)):
            seen = measure.idle([sys.executable, "-c", sleeps.format(pause)], {"seconds": 1})
            self.assertEqual(seen["switches"] > 0 and seen["cpu"] > 0, expected, seen)

    def test_a_program_that_crashes_or_says_nothing_is_a_failure(self):
        for script in ("import os; os.abort()", "raise SystemExit(3)"):
            with self.assertRaises(measure.Failed):
                measure.program([sys.executable, "-c", script], {})
            with self.assertRaises(measure.Failed):
                measure.idle([sys.executable, "-c", script], {"seconds": 1})

    def test_what_differs_is_said_in_the_table(self):
        row = {"row": "d", "title": "t", "workers": 1, "absent": {"Boost.Fiber": "has no select"},
               "notes": {"tokio": "has no rendezvous"}, "results": [result(None, concur=10, Go=20, tokio=40)]}
        table = report.markdown([row], build.machine())
        self.assertIn("Go 20 ns (0.50), tokio* 40 ns (0.25)", table)
        self.assertIn("d. t [1]: tokio*: has no rendezvous.", table)
        self.assertIn("d. t [1]: Boost.Fiber: has no select.", table)

    def test_plots_are_the_same_bytes_for_the_same_figures_and_name_the_missing(self):
        python = build.plotting_python()
        if python is None:
            self.skipTest("no Python here has matplotlib")
        row = {"row": "d", "title": "a & b", "workers": 1, "absent": {"Boost.Fiber": "has no select"}, "notes": {},
               "results": [result(None, failed={"tokio": "crashed"}, concur=0, Go=20)]}
        drawn = []
        for _ in range(2):
            with tempfile.TemporaryDirectory() as folder:
                with open(os.path.join(folder, "row_d.json"), "w", encoding="utf-8") as file:
                    json.dump({"rows": [row]}, file)
                subprocess.run([python, os.path.join(build.BENCH, "plot.py"), folder], check=True, capture_output=True)
                with open(os.path.join(folder, "row_d.svg"), encoding="utf-8") as file:
                    drawn.append(file.read())
        self.assertEqual(drawn[0], drawn[1])
        for words in ("a &amp; b", "not there: has no select", "not there: crashed"):
            self.assertIn(words, drawn[0])

    def test_who_takes_minutes_is_measured_a_single_time_and_that_is_said(self):
        calls = []
        experiment = rows.Experiment("d", "t", 1, [rows.Figure("f", "f", "ns")], {"concur": ["ours/x"], "Go": ["go"]},
                                     runner="fake", once=("Go",))
        with unittest.mock.patch.object(build, "program", lambda name, _: name), \
                unittest.mock.patch.dict(measure.RUNNERS, fake=lambda command, _: calls.append(command[0]) or {"f": 1}):
            samples = run.Samples(experiment, set())
            for _ in range(3):
                samples.take()
        self.assertEqual((calls.count("ours/x"), calls.count("go")), (3, 1))
        self.assertIn("a single time", experiment.all_notes()["Go"])

    def test_a_peer_that_is_missing_is_named(self):
        for name, peer in (("tokio", "cargo"), ("go", "Go"), ("boost_fiber/mutex", "Boost.Fiber")):
            with self.assertRaisesRegex(build.Unavailable, peer):
                build.program(name, set(build.PEERS))

    def test_every_note_names_a_contender(self):
        for experiment in rows.experiments(rows.ROWS, False):
            self.assertFalse(set(experiment.all_notes()) - set(experiment.contenders), experiment.key())

    def test_every_goal_names_a_contender(self):
        for quick in (False, True):
            for experiment in rows.experiments(rows.ROWS, quick):
                self.assertIn("concur", experiment.contenders)
                self.assertFalse(set(experiment.absent) & set(experiment.contenders))
                for one in experiment.figures:
                    if one.goal and one.goal.against:
                        self.assertIn(one.goal.against, experiment.contenders, experiment.key())


if __name__ == "__main__":
    unittest.main()
