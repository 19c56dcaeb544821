#!/usr/bin/env python3
"""Plants each bug that a schedule can show, and demands that its exploration finds it.

usage: run.py check [mutant...]   the test goes red with each bug planted; ends with `planted: N passed, N failed`
       run.py table [mutant...]   counts the schedules it takes, and writes them into the table in docs/testing.md

The rows are those of tests/explore/mutants.txt, `mutant | test program | test case`, and those of tests/mutants.txt whose
program is an exploration. The programs are built once, with every bug in them (CONCUR_MUTANT_CHOSEN); the environment
chooses one. BUILD, CXX and CXXFLAGS as in the Makefile; JOBS programs run side by side.
"""

import concurrent.futures
import os
import re
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
JOBS = int(os.environ.get("JOBS", os.cpu_count() or 2))
PAGE = os.path.join(ROOT, "docs", "testing.md")
BEGIN, END = "<!-- planted bugs: begin -->", "<!-- planted bugs: end -->"
HUNTS = 9
SCHEDULES = 20000  # of a scenario, in each of its four ways; more than the test itself takes, for bugs that are rare
LIMIT_S = 300


def rows_of(name):
    with open(os.path.join(ROOT, "tests", name), encoding="utf-8") as file:
        for line in file:
            fields = [field.strip() for field in line.split("|")]
            if len(fields) == 3 and fields[0].isdigit():
                yield int(fields[0]), fields[1], fields[2]


def all_rows():
    """Number, program, test case, and what the bug takes out; one row for each bug."""
    told = {number: what for number, _, what in rows_of("mutants.txt")}
    rows = {}
    for number, program, case in rows_of("explore/mutants.txt"):
        what = told.get(number, "")
        if "#" in case:
            case, what = [part.strip() for part in case.split("#", 1)]
        rows.setdefault(number, (number, program, case, what))
    for number, program, what in rows_of("mutants.txt"):
        words = program.split()
        if not words[0].startswith("explore_"):
            continue
        case = next((word[len("-tc=") :] for word in words if word.startswith("-tc=")), "*")
        rows.setdefault(number, (number, words[0], case, what))
    return [rows[number] for number in sorted(rows)]


def build(rows):
    programs = sorted({program for _, program, _, _ in rows})
    tests = " ".join(f"tests/{program}.cpp" for program in programs)
    subprocess.run(["make", "--no-print-directory", "-C", ROOT, "test-programs", f"BUILD={BUILD}", f"TESTS={tests}"], check=True)


def run(program, case, mutant, hunts, schedules=SCHEDULES):
    """The exit status, None when it took too long, and what was printed."""
    environment = dict(os.environ, CONCUR_CHOSEN_MUTANT=str(mutant), CONCUR_SCHEDULES=str(schedules))
    if hunts:
        environment["CONCUR_HUNT"] = str(hunts)
    command = [os.path.join(BUILD, "tests", program), f"-tc={case}", "--no-path-filenames=true"]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


def check_one(row):
    number, program, case, what = row
    begin = time.monotonic()
    status, text = run(program, case, number, 0)
    if status == 0:  # the rarest, and which ones those are changes with each change of the runtime
        status, text = run(program, case, number, 0, 8 * SCHEDULES)
    ran_none = re.search(r"test cases:\s+0 ", text)
    result = "NOT FOUND: no such test case" if ran_none else "found" if status != 0 else "NOT FOUND"
    return f"mutant {number:3} {program:20} {what or case}: {result} ({time.monotonic() - begin:.1f} s)", result == "found"


def count_one(row):
    """The table's line. A search that goes to its end does not hunt: there the test alone says."""
    number, program, case, what = row
    status, text = run(program, case, number, HUNTS)
    found = {"random": [], "pct": []}
    for lot, priority in re.findall(r"hunt: random (\d+) pct (\d+)", text):
        found["random"].append(int(lot))
        found["pct"].append(int(priority))
    counts = []
    for strategy in ("random", "pct"):
        needed = [count for count in found[strategy] if count]
        counts.append(f"{min(needed):,}" if needed else ("> 20,000" if found[strategy] else ""))
    if not any(found.values()):
        counts = ["found, not counted", ""]  # it took too long, or a failing schedule took the process and its count with it
        if status is not None and status >= 0:
            status, _ = run(program, case, number, 0)
            counts = ["search" if status != 0 else "not found", ""]
    print(f"mutant {number:3} {program:20} random {counts[0]:>10} pct {counts[1]:>10}", flush=True)
    return f"| {number} | {what or case} | `{program}` | {counts[0]} | {counts[1]} |"


# Those of the table that stand there already are kept, unless it is counted anew as a whole.
def write_table(lines, is_whole):
    with open(PAGE, encoding="utf-8") as file:
        before, rest = file.read().split(BEGIN)
        kept, after = rest.split(END)
    number_of = re.compile(r"\| (\d+) \|")
    found = {} if is_whole else {int(match[1]): line for line in kept.splitlines() if (match := number_of.match(line))}
    found.update({int(number_of.match(line)[1]): line for line in lines})
    lines = [found[number] for number in sorted(found)]
    head = "| planted | what it takes out | found by | random | pct(3) |\n|--:|---|---|--:|--:|"
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n{head}\n" + "\n".join(lines) + f"\n{END}{after}")


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in ("check", "table"):
        sys.exit(__doc__)
    wanted = {int(word) for word in sys.argv[2:]}
    rows = [row for row in all_rows() if not wanted or row[0] in wanted]
    build(rows)
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        if sys.argv[1] == "table":
            lines = list(pool.map(count_one, rows))
            write_table(lines, is_whole=not wanted)
            return
        found = 0
        for line, is_found in pool.map(check_one, rows):
            print(line, flush=True)
            found += is_found
    print(f"planted: {found} passed, {len(rows) - found} failed")
    sys.exit(0 if found == len(rows) else 1)


if __name__ == "__main__":
    main()
