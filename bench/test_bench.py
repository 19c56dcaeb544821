#!/usr/bin/env python3
# bench/test_bench.py - the judgements of run.py, tested: a table that flatters us would be worse than none.
import json
import os
import statistics
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

sys.dont_write_bytecode = True

import build  # noqa: E402
import contenders  # noqa: E402
import curves  # noqa: E402
import measure  # noqa: E402
import readme  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402
import run  # noqa: E402


def figure(median, noisy=False):
    values = median if isinstance(median, list) else [median]
    return {"median": statistics.median(values), "least": min(values), "most": max(values), "noisy": noisy, "values": values}


def curve(limit=2.0, floor="", **costs):
    points = [{"x": 10 ** i, "absent": {}, "notes": {}, "failed": {name: "crashed" for name in costs if costs[name][i] is None},
               "figures": {name: figure(costs[name][i]) for name in costs if costs[name][i] is not None}} for i in range(3)]
    return {"key": "k", "title": "t", "axis": "fibers", "label": "l", "unit": "ns", "limit": limit, "promise": "flat",
            "floor": floor, "points": points}


def result(goal, more_is_better=False, failed=(), **medians):
    return {"name": "f", "label": "f", "unit": "ns", "more_is_better": more_is_better, "failed": dict(failed),
            "goal": goal and {"value": goal.value, "against": goal.against, "limit": goal.limit(),
                              "ratio_only": bool(goal.ratio)},
            "figures": {name.replace("_", " "): figure(value) for name, value in medians.items()}}


class Readme(unittest.TestCase):
    def test_workers_share_a_line_and_a_floor_is_no_peer(self):
        goal = rows.Goal(50, "Go", 100)
        measured = [{"row": "b", "title": "yield", "workers": workers, "notes": {},
                     "results": [result(goal, concur=ours, Go=100, tokio=50, bare_queue=5)]}
                    for workers, ours in ((1, 40), (2, 60))]
        line = readme.lines_of(measured)[-1]
        self.assertTrue(line.startswith("| yield, f [1][2] | 40 ns / 60 ns | 100 ns (0.40) / 100 ns (0.60) | tokio 50 ns (0.80)"))
        self.assertIn("bare queue 5 ns (8.00)", line)
        self.assertTrue(line.endswith("| met / **not met** |"))

    def test_only_what_is_between_the_marks_changes(self):
        text = f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter"
        self.assertEqual(readme.text_with(text, ["new"]), f"before\n{readme.BEGIN}\nnew\n{readme.END}\nafter")


class Judgement(unittest.TestCase):
    def test_both_readings_must_hold(self):
        goal = rows.Goal(50, "Go", 100)
        self.assertEqual(report.verdict_text(result(goal, concur=49, Go=100)), "met")
        self.assertEqual(report.verdict_text(result(goal, concur=51, Go=100)), "**not met**")
        self.assertEqual(report.verdict_text(result(goal, concur=49, Go=80)), "met in time, **not in ratio**")
        self.assertEqual(report.verdict_text(result(goal, concur=60, Go=130)), "**not in time**, met in ratio")

    def test_a_ratio_is_that_of_runs_that_took_turns_and_has_a_spread(self):
        # The machine halves its speed in the middle: the runs differ, the pairs do not.
        ours, theirs = figure([10, 20, 20]), figure([20, 40, 44])
        self.assertEqual(report.ratios(ours, theirs), [0.5, 0.5, 20 / 44])
        self.assertEqual(report.ratio(ours, theirs), {"median": 0.5, "least": 20 / 44, "most": 0.5})
        self.assertEqual(report.ratio_text(ours, theirs), " (0.50, 0.45 - 0.50)")
        self.assertIsNone(report.ratio(ours, figure([0, 0, 0])))

    def test_a_ratio_of_one_who_was_measured_once_is_that_of_the_first_pair(self):
        self.assertEqual(report.ratios(figure([10, 30, 30]), figure([20])), [0.5])

    def test_a_goal_that_only_some_pairs_reach_says_how_many(self):
        goal = rows.Goal(0, "Go", ratio=0.5)
        self.assertEqual(report.verdict_text(result(goal, concur=[10, 10, 14], Go=[20, 20, 20])), "met, in 2 of 3 pairs")
        self.assertEqual(report.verdict_text(result(goal, concur=[10, 14, 14], Go=[20, 20, 20])), "**not met**, in 1 of 3 pairs")
        self.assertEqual(report.verdict_text(result(goal, concur=[14, 14], Go=[20, 20])), "**not met**")

    def test_the_middle_ratio_judges_not_the_ratio_of_the_middles(self):
        goal = rows.Goal(0, "Go", ratio=0.5)
        ours, theirs = [10, 30, 20], [30, 40, 41]  # medians: 20 / 40 = 0.5; pairs: 0.33, 0.75, 0.49
        self.assertEqual(report.verdict_text(result(goal, concur=ours, Go=theirs)), "met, in 2 of 3 pairs")
        self.assertEqual(report.verdict_text(result(goal, concur=[10, 30, 21], Go=theirs)), "**not met**, in 1 of 3 pairs")

    def test_a_curve_that_collapses_at_one_point_has_collapsed(self):
        for limit, costs, words in ((2.0, (10, 20, 15), "met: at most 2.00"), (2.0, (10, 21, 10), "**not met**: at most 2.10"),
                                    (2.0, (20, 10, 21), "**not met**: at most 2.10"), (3.0, (20, 10, 21), "met: at most 2.10")):
            self.assertTrue(curves.verdict_text(curve(limit=limit, concur=costs)).startswith(words), costs)

    def test_what_gets_cheaper_does_not_collapse(self):
        self.assertTrue(curves.verdict_text(curve(concur=(30, 10, 12))).startswith("met: at most 1.20"))
        self.assertTrue(curves.verdict_text(curve(concur=(30, 20, 10))).startswith("met: at most 0.67"))

    def test_a_point_that_failed_is_not_left_out_of_the_judgement(self):
        self.assertEqual(curves.verdict_text(curve(concur=(10, 10, None), Go=(1, 1, 1))), "**not measured** with 100 fibers")
        self.assertEqual(curves.verdict_text(curve(Go=(1, 1, 1))), "**not measured** with 1, 10, 100 fibers")
        self.assertIsNone(curves.growth(curve(concur=(10, None, None)), "concur"))

    def test_peers_do_not_change_the_verdict_on_ours(self):
        self.assertTrue(curves.verdict_text(curve(concur=(10, 10, 10), Go=(1, 50, 1))).startswith("met"))
        self.assertEqual(curves.growth_text(curve(concur=(10, 10, 10), Go=(1, 50, 1)), "Go"), "Go 50.00")

    def test_beside_a_floor_it_counts_what_is_added_not_by_how_many_times(self):
        def said(ours, floors):
            return curves.verdict_text(curve(floor="Bare", concur=ours, Bare=floors)).split(":")[0]
        self.assertEqual(said((10, 10, 20), (1, 1, 1)), "met")
        self.assertEqual(said((10, 10, 40), (1, 1, 16)), "met beside the floor, **not** within 2 times")
        self.assertEqual(said((10, 10, 40), (1, 1, 15)), "**not met**, nor beside the floor")
        # Ten times what it was, and less than the floor grows by: yet it adds nine times as much.
        self.assertEqual(said((10, 10, 100), (1, 1, 11)), "**not met**, nor beside the floor")

    def test_each_point_that_passes_the_limit_is_compared_with_the_floor_there(self):
        text = curves.verdict_text(curve(floor="Bare", concur=(10, 30, 40), Bare=(1, 5, 40)))
        self.assertTrue(text.startswith("**not met**, nor beside the floor"))
        self.assertIn("20 ns more at 10, the floor 4 ns more", text)
        self.assertTrue(curves.verdict_text(curve(floor="Bare", concur=(10, 30, 40), Bare=(1, 11, 40))).startswith("met beside"))

    def test_a_floor_that_does_not_grow_or_is_not_there_excuses_nothing(self):
        for floors in ((5, 5, 5), (5, 5, 4), (0, 0, 9), (5, 5, None)):
            text = curves.verdict_text(curve(floor="Bare", concur=(10, 10, 30), Bare=floors))
            self.assertTrue(text.startswith("**not met**"), (floors, text))
        self.assertTrue(curves.verdict_text(curve(concur=(10, 10, 30), Go=(1, 1, 100))).startswith("**not met**: at most 3.00"))

    def test_what_ours_costs_more_than_the_floor_has_a_line(self):
        with_floor = curve(floor="Bare", concur=(10, 12, 40), Bare=(1, 2, None))
        self.assertIn("| | concur less Bare | 9 | 10 | - | |", curves.markdown([with_floor]))
        self.assertFalse(any(" less Bare" in line for line in curves.markdown([curve(concur=(1, 2, 3), Bare=(1, 2, 3))])))

    def test_every_curve_over_fibers_has_its_floor(self):
        for one in curves.selected(["fibers"], True):
            for point in one.points.values():
                self.assertTrue(os.path.exists(os.path.join(
                    build.BENCH, "peers", point.contenders[one.floor][0] + ".cpp")), one.key)
                self.assertEqual(point.contenders[one.floor][1:], point.contenders["concur"][1:])

    def test_who_fails_on_a_curve_is_named_and_not_tried_further(self):
        figures = [rows.Figure("f", "f", "ns")]
        points = {n: curves.point("t", 1, figures, {"contenders": {"concur": [], "Go": []}, "absent": {}}) for n in (1, 10, 100)}
        tried = []

        def measured(experiment):
            tried.append("Go" in experiment.contenders)
            failed = {"Go": "not ended after 60 s"} if len(tried) == 2 else {}
            there = {name: figure(10) for name in experiment.contenders if name not in failed}
            return {"results": [{"name": "f", "label": "f", "unit": "ns", "figures": there, "failed": failed}],
                    "absent": experiment.absent, "notes": {}}
        found, = curves.measure_curve(curves.Curve("k", "t", "fibers", points, "flat"), measured)
        self.assertEqual(tried, [True, True, False])
        self.assertIn("failed with 10 fibers", found["points"][2]["absent"]["Go"])
        self.assertTrue(curves.verdict_text(found).startswith("met"))

    def test_percentiles_are_samples_and_the_rare_ones_are_the_worst(self):
        hundred = list(range(1, 101))
        self.assertEqual([measure.percentile(hundred, share) for share in (0.5, 0.99, 0.999, 1)], [50, 99, 100, 100])
        self.assertEqual(measure.percentile(list(range(1, 1001)), 0.999), 999)
        self.assertEqual([measure.percentile([7], share) for share in (0.5, 0.999)], [7, 7])

    def test_samples_are_sorted_and_too_few_are_a_failure(self):
        script = "for i in range(1000, 0, -1): print('sample', i * 1000, 'ns')"
        found = measure.latency([sys.executable, "-c", script], {"samples": 1000})
        self.assertEqual(found, {"p50": 500, "p99": 990, "p99_9": 999, "worst": 1000})
        with self.assertRaisesRegex(measure.Failed, "0 samples"):
            measure.latency([sys.executable, "-c", "pass"], {"samples": 1})

    def test_a_load_that_was_not_sent_or_not_answered_gives_no_latency(self):
        def said(rate=1000.0, codes=(("200", 5000),), errors=()):
            return {"summary": {"requestsPerSec": rate}, "statusCodeDistribution": dict(codes), "errorDistribution": dict(errors),
                    "latencyPercentiles": {"p50": 0.0001, "p99": 0.002, "p99.9": 0.03}}
        self.assertEqual({name: round(value) for name, value in measure.oha_figures(said(), 1000).items()},
                         {"p50": 100, "p99": 2000, "p99_9": 30000})
        measure.oha_figures(said(errors=(("aborted due to deadline", 3),)), 1000)
        for trouble in (said(rate=900.0), said(codes=(("200", 5000), ("500", 1))), said(errors=(("connection closed", 1),))):
            with self.assertRaises(measure.Failed):
                measure.oha_figures(trouble, 1000)

    def test_the_rate_is_half_of_what_the_weakest_can(self):
        served = iter([90000.0, 60000.0])
        settings, gone = {"connections": 64, "wrk_seconds": 1}, []
        with unittest.mock.patch.multiple(measure, http_server=unittest.mock.MagicMock(), wrk=unittest.mock.MagicMock(),
                                          requests_a_second=lambda _: next(served)):
            measure.choose_rate({"concur": [], "Go": []}, settings, lambda *why: gone.append(why))
        self.assertEqual((settings["rate"], gone), (30000, []))

    def test_every_peer_says_its_version_or_that_it_is_missing(self):
        said = build.versions({"Go"})
        self.assertEqual(set(said), set(build.PEERS) | set(build.RUST_PEERS) | {"Kotlin"})
        self.assertEqual(said["Go"], "not there")

    def test_what_is_left_is_reckoned_from_what_was_done(self):
        experiments = [rows.Experiment("d", str(i), 1, [], {"concur": []}) for i in range(4)]
        with tempfile.TemporaryDirectory() as folder, \
                unittest.mock.patch.object(run.Progress, "PATH", os.path.join(folder, "none.json")):
            progress = run.Progress([(one, 50) for one in experiments])
        self.assertAlmostEqual(progress.minutes_left(), sum(progress.expected) / 60)
        progress.done, progress.begin = 1, run.time.monotonic() - 2 * progress.expected[0]
        self.assertAlmostEqual(progress.minutes_left(), 2 * sum(progress.expected[1:]) / 60, 3)

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

    def test_who_is_noisy_is_measured_again_beside_ours_and_with_ours_all(self):
        contending = {name: [name] for name in ("concur", "Go", "tokio")}
        experiment = rows.Experiment("d", "t", 1, [rows.Figure("f", "f", "ns")], contending)
        with unittest.mock.patch.object(build, "program", lambda name, _: name):
            samples = run.Samples(experiment, set())
        for ours, theirs, again in (((10, 10), (20, 20), set()), ((10, 10), (20, 30), {"concur", "Go"}),
                                    ((10, 15), (20, 20), {"concur", "Go", "tokio"})):
            samples.values = {"concur": {"f": list(ours)}, "Go": {"f": list(theirs)}, "tokio": {"f": [5, 5]}}
            self.assertEqual(samples.noisy(), again)

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
        self.assertIn("| t [1], f | 10 ns | Go 20 ns (0.50), tokio* 40 ns (0.25) |", table)
        self.assertIn("- tokio*: has no rendezvous.", table)
        self.assertIn("- Boost.Fiber: has no select.", table)
        self.assertIn("memory", table)

    def test_plots_are_the_same_bytes_for_the_same_figures_and_name_the_missing(self):
        python = build.plotting_python()
        if python is None:
            self.skipTest("no Python here has matplotlib")
        row = {"row": "d", "title": "a & b", "workers": 1, "absent": {"Boost.Fiber": "has no select"}, "notes": {},
               "results": [result(None, failed={"tokio": "crashed"}, concur=0, Go=20)]}
        drawn = []
        for _ in range(2):
            with tempfile.TemporaryDirectory() as folder:
                line = curve(concur=(1, 2, 3), Go=(2, 3, None))
                for name, what in (("row_d", {"rows": [row]}), ("curves", {"curves": [line]})):
                    with open(os.path.join(folder, name + ".json"), "w", encoding="utf-8") as file:
                        json.dump(what, file)
                subprocess.run([python, os.path.join(build.BENCH, "plot.py"), folder], check=True, capture_output=True)
                whole = ""
                for name in ("row_d.svg", "curves_fibers.svg"):
                    with open(os.path.join(folder, name), encoding="utf-8") as file:
                        whole += file.read()
                drawn.append(whole)
        self.assertEqual(drawn[0], drawn[1])
        for words in ("a &amp; b", "not there: has no select", "not there: crashed", "not there: Go: crashed",
                      "at most 3.00"):
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
        for name, peer in (("tokio", "cargo"), ("go", "Go"), ("boost_fiber/mutex", "Boost.Fiber"),
                           ("rayon", "cargo"), ("asio/echo", "Asio"), ("libuv/echo", "libuv"), ("tbb/fib", "TBB"),
                           ("java", "Java"), ("kotlin", "Java"), ("node", "Node")):
            with self.assertRaisesRegex(build.Unavailable, peer):
                build.program(name, set(build.PEERS))

    def test_the_newest_jdk_that_has_virtual_threads_is_taken(self):
        homes = {"/8": "1.8.0_402", "/9": "9.0.4", "/17": "17.0.15"}
        with unittest.mock.patch.object(build.managed.glob, "glob", lambda _: list(homes)), \
                unittest.mock.patch.object(build.managed, "java_version", lambda home: homes.get(home, "")):
            self.assertEqual(build.managed.jdk(), "")
            homes.update({"/25": "25.0.3", "/21": "21.0.9"})
            self.assertEqual(build.managed.jdk(), "/25")

    def test_who_has_one_way_of_running_a_program_takes_part_in_that_alone(self):
        by_join, by_channels = contenders.everyone("skynet", 1, count=10, join=True), contenders.everyone("skynet", 1, count=10)
        self.assertIn("TBB", by_join["contenders"])
        self.assertEqual((by_join["differs"]["TBB"], by_channels["absent"]["TBB"]), (contenders.TASKS, contenders.TASKS_ALONE))

    def test_who_cannot_run_with_so_many_workers_says_so(self):
        one, two = contenders.everyone("sleepers", 1, count=10), contenders.everyone("sleepers", 2, count=10)
        self.assertIn("libuv", one["contenders"])
        self.assertIn("loop", two["absent"]["libuv"])

    def test_who_takes_longer_has_a_count_of_its_own(self):
        found = contenders.everyone("fib", 2, count=36)["contenders"]
        self.assertEqual((found["concur"][-1], found["rayon"][-1], found["Go"][-1]), ("36", "36", "27"))

    def test_every_row_has_a_title(self):
        self.assertEqual(set(report.TITLES), set(rows.ROWS))

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
