#!/usr/bin/env python3
"""Counts what each operation of cost.cpp takes, and compares that with baseline.txt.

usage: run.py [operation...]     measures, and judges; ends with `N passed, N failed`
       run.py --accept           measures all with g++ and clang++, writes baseline.txt and the table in docs/performance.md
       run.py --markdown         writes that table anew, from the baseline
       run.py --show OPERATION   which instructions the atomic ones are, which system calls, and the dearest functions
       run.py --why-not          prints what is missing to run here at all; nothing when nothing is
       ... --with=FLAG           compiles with this flag too: -I/of/another/header, say, which goes before ours

What is counted does not drift with the machine's load: instructions, atomic read-modify-writes, full fences, allocations,
system calls and looks at the clock, each for one operation. Each runs twice under callgrind, with two counts; the
difference is that of so many operations, and what starting and stopping take is not in it. Callgrind says how often each
instruction ran, the disassembly which of them are atomic. CXX (g++) is what is compiled with; BUILD as in the Makefile.

An operation fails that takes over 5 % more than the baseline says, in any column. A baseline holds for one compiler, C
library and processor; with another one the figures are printed and nothing is judged.

Where an operation is done in crowds of two sizes (`park_1000`, `park_100000`), one in the larger may take 8 % more
instructions than one in the smaller. That is judged with any compiler, and there is nothing to accept.
"""

import argparse
import concurrent.futures
import os
import platform
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"), "cost")
COMPILERS = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]  # --accept: all; else the first
FLAGS = ["-std=c++17", "-O2", "-pthread"]
BASELINE = os.path.join(HERE, "baseline.txt")
PAGE = os.path.join(ROOT, "docs", "performance.md")
BEGIN, END = "<!-- costs: begin -->", "<!-- costs: end -->"
COLUMNS = ["instructions", "atomics", "libc atomics", "fences", "allocations", "system calls", "clock"]
FEW, MANY = 1000, 6000
GROWTH = 1.05
GROWTH_OF_CROWD = 1.08  # a worker's ring holds a few hundred: what does not find room goes by the shared queue, 40 instructions
SMALL_CROWD, LARGE_CROWD = "_1000", "_100000"
SLACK = {"instructions": 1}  # by which a start that took another course, and rounding, move a figure; for the others:
SLACK_OF_COUNTS = 0.02
# What the ruler of cost.cpp is known to take, and its longer form.
RULER = {"atomics": 2, "fences": 1, "allocations": 1, "system calls": 1, "clock": 0}
LONGER = {"atomics": 3, "fences": 2, "allocations": 2, "system calls": 2, "clock": 1}
RULERS = {"known": RULER, "known_grown": LONGER}


# --- reading what the tools say ---


class Counts:
    """Of one run: how often each instruction ran, and what else was counted."""

    def __init__(self):
        self.instructions = {}  # (object, address) -> times
        self.places = {}  # (object, address) -> (function, file, line)
        self.calls = {}  # system call -> times
        self.allocations = 0
        self.clock = 0


def named(text, names):
    """`(3) name`, the first time, and `(3)` later on."""
    found = re.match(r"\((\d+)\)(?: (.*))?$", text)
    if not found:
        return text
    if found.group(2) is not None:
        names[found.group(1)] = found.group(2)
    return names.get(found.group(1), "?")


def read_profile(lines, counts):
    """Callgrind's format, written with --dump-instr=yes and --compress-pos=no."""
    objects, files, functions = {}, {}, {}
    where, file, function, skip = "?", "?", "?", False
    for line in lines:
        line = line.rstrip("\n")
        if line.startswith("0x"):
            if skip:  # what a call took, all in all: counted where it was taken
                skip = False
                continue
            address, number, times = line.split()[:3]
            key = (where, int(address, 16))
            counts.instructions[key] = counts.instructions.get(key, 0) + int(times)
            counts.places.setdefault(key, (function, file, number))
            continue
        word, _, rest = line.partition("=")
        if word == "calls":
            skip = True
        elif word == "ob":
            where = named(rest, objects)
        elif word in ("fl", "fi", "fe"):
            file = named(rest, files)
        elif word == "fn":
            function = named(rest, functions)
        elif word == "cob":
            named(rest, objects)
        elif word in ("cfi", "cfl"):
            named(rest, files)
        elif word == "cfn":
            named(rest, functions)


def read_calls(lines, counts):
    """Valgrind's --trace-syscalls: a line for each call, and a second one for some when they return."""
    for line in lines:
        found = re.match(r"SYSCALL\[[^\]]*\]\( *\d+\) (?:sys_)?(\w+)", line)
        if found:
            counts.calls[found.group(1)] = counts.calls.get(found.group(1), 0) + 1


def kind_of_instruction(text):
    """atomic, fence or None, of an instruction as objdump writes it."""
    if text.startswith("mfence"):
        return "fence"
    if re.match(r"lock or[bwlq]? +\$0x0,(0x0)?\(%[re]sp\)", text):  # gcc's, which is quicker than mfence
        return "fence"
    if text.startswith("lock ") or re.match(r"(xacquire |xrelease )?xchg\w* .*\(", text):
        return "atomic"
    return None


def read_disassembly(lines):
    """address -> (kind, text), of the atomic ones."""
    found = {}
    for line in lines:
        parts = re.match(r" *([0-9a-f]+):\s+(.*)", line)
        kind = kind_of_instruction(parts.group(2)) if parts else None
        if kind:
            found[int(parts.group(1), 16)] = (kind, parts.group(2).strip())
    return found


# --- running ---


def why_not(compiler):
    if platform.machine() not in ("x86_64", "AMD64") or sys.platform != "linux":
        return "instructions are told apart here for x86-64 and Linux only"
    if libc() == "another C library":
        return "allocations are counted by glibc's own names, and this is another C library"
    for tool, package in (("valgrind", "valgrind"), ("objdump", "binutils"), (compiler, compiler)):
        if not shutil.which(tool):
            return f"there is no {tool} here (Debian's package {package}; tools/setup_ci.sh installs it)"
    return None


def libc():
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "another C library"
    except (ValueError, OSError):
        return "another C library"


def circumstances(compiler):
    """What a baseline holds for."""
    line = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    versions = re.findall(r"\d+\.\d+\.\d+", line)
    name = "clang" if "clang" in line else "g++"
    return f"{platform.machine()}, {name} {versions[-1] if versions else '?'}, {libc()}, {' '.join(FLAGS)}"


def compile_program(compiler, extra):
    os.makedirs(BUILD, exist_ok=True)
    program = os.path.join(BUILD, "cost")
    source = os.path.join(HERE, "cost.cpp")
    subprocess.run([compiler, *FLAGS, *extra, "-g", f"-I{ROOT}", source, "-o", program], check=True)
    return program


def profile_of(operation, count):
    return os.path.join(BUILD, f"{operation}.{count}.callgrind")


def counts_of(operation):
    """The two counts; a crowd comes as often as there are whole ones in them."""
    crowd = int(LARGE_CROWD[1:]) if operation.endswith(LARGE_CROWD) else 0
    return (crowd, 2 * crowd) if crowd else (FEW, MANY)


def run(program, operation, count):
    profile = profile_of(operation, count)
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}", "--dump-instr=yes", "--compress-pos=no"]
    command += ["--trace-syscalls=yes", program, "--operation", operation, "--count", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=300, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    counts = Counts()
    with open(profile, encoding="utf-8", errors="replace") as file:
        read_profile(file, counts)
    read_calls(done.stderr.splitlines(), counts)
    counts.allocations = int(re.search(r"^allocations (\d+)", done.stdout, re.MULTILINE).group(1))
    counts.clock = int(re.search(r"^clock (\d+)", done.stdout, re.MULTILINE).group(1))
    return counts


def operations_of(program):
    text = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout
    return dict(line.split("\t") for line in text.splitlines())


class Difference:
    """What one operation takes: the difference of two runs, by instruction and in all."""

    def __init__(self, few, many, share, atomics_of, program):
        self.instructions = {}
        for key, times in many.instructions.items():
            more = times - few.instructions.get(key, 0)
            if more != 0:
                self.instructions[key] = more / share
        for key, times in few.instructions.items():
            if key not in many.instructions:
                self.instructions[key] = -times / share
        self.places = {**few.places, **many.places}
        self.calls = {}
        for name in {*few.calls, *many.calls}:
            self.calls[name] = (many.calls.get(name, 0) - few.calls.get(name, 0)) / share
        self.atomics = {}  # (object, address) -> (kind, text)
        for key in self.instructions:
            atomic = atomics_of(key[0]).get(key[1])
            if atomic:
                self.atomics[key] = atomic
        self.figures = dict.fromkeys(COLUMNS, 0.0)
        self.figures["instructions"] = sum(self.instructions.values())
        for key, (kind, _) in self.atomics.items():
            column = "fences" if kind == "fence" else "atomics" if key[0] == program else "libc atomics"
            self.figures[column] += self.instructions[key]
        self.figures["allocations"] = (many.allocations - few.allocations) / share
        self.figures["system calls"] = sum(self.calls.values())
        self.figures["clock"] = (many.clock - few.clock) / share
        digits = {"instructions": 0}  # runs differ by a few tenths of one
        self.figures = {name: round(value, digits.get(name, 2)) + 0.0 for name, value in self.figures.items()}


class Disassemblies:
    def __init__(self):
        self.known = {}

    def of(self, path):
        if path not in self.known:
            lines = []
            if os.path.isfile(path):
                command = ["objdump", "-d", "--no-show-raw-insn", path]
                lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
            self.known[path] = read_disassembly(lines)
        return self.known[path]


def measure(program, operations):
    """operation -> Difference."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        runs = {(name, count): pool.submit(run, program, name, count) for name in operations for count in counts_of(name)}
        disassemblies = Disassemblies()
        path = os.path.realpath(program)
        found = {}
        for name in operations:
            few, many = counts_of(name)
            found[name] = Difference(
                runs[name, few].result(), runs[name, many].result(), many - few, disassemblies.of, path
            )
        return found


# --- judging ---


def number(value):
    return f"{value:.2f}".rstrip("0").rstrip(".")


def grown(was, now):
    """The columns that have grown too much."""
    return [name for name in COLUMNS if now[name] > was[name] * GROWTH + SLACK.get(name, SLACK_OF_COUNTS)]


def shrunk(was, now):
    return [name for name in COLUMNS if now[name] < was[name] / GROWTH - SLACK.get(name, SLACK_OF_COUNTS)]


def check_ruler(figures):
    """What is wrong with the counting, or with the judging, in words."""
    problems = []
    for name, wanted in RULERS.items():
        for column, count in wanted.items():
            if abs(figures[name][column] - count) > 0.01:
                problems.append(f"{name} does {count} {column}, and {number(figures[name][column])} were counted")
    unseen = set(COLUMNS) - {"libc atomics"} - set(grown(figures["known"], figures["known_grown"]))
    if unseen:
        problems.append(f"known_grown takes more than known, and is not found to in: {', '.join(sorted(unseen))}")
    return problems


def told_growth(name, was, difference, columns):
    now = difference.figures
    lines = [f"{name}: grown by more than 5 %"]
    for column in columns:
        line = f"    {column}: was {number(was[column])}, is {number(now[column])}"
        if column == "system calls":
            line += f" ({told_calls(difference)})"
        lines.append(line)
    lines.append(f"    where: tests/cost/run.py --show {name}; or, with the lines of the source,")
    profile = profile_of(name, counts_of(name)[1])
    lines.append(f"           callgrind_annotate --auto=yes {os.path.relpath(profile, ROOT)} concur.hpp")
    lines.append("    meant so? tests/cost/run.py --accept writes the new figures down")
    return lines


def judge(name, was, difference):
    """Whether it passes, and what is to be said about it."""
    if was is None:
        return False, [f"{name}: not in the baseline yet; tests/cost/run.py --accept writes it down"]
    columns = grown(was, difference.figures)
    if columns:
        return False, told_growth(name, was, difference, columns)
    better = shrunk(was, difference.figures)
    now = difference.figures
    gains = ", ".join(f"{column} was {number(was[column])}, is {number(now[column])}" for column in better)
    return True, [f"{name}: better, {gains}; run with --accept to keep it"] if better else []


def judge_crowds(figures):
    """Name of an operation in a large crowd -> whether it passes beside the small one, and what is to be said. By instructions:
    of the rest a large crowd has hundredths, for the ready fibers that are too many for one worker's ring."""
    verdicts = {}
    for large in figures:
        small = large.removesuffix(LARGE_CROWD) + SMALL_CROWD
        if not large.endswith(LARGE_CROWD) or small not in figures:
            continue
        passes = figures[large]["instructions"] <= figures[small]["instructions"] * GROWTH_OF_CROWD
        least, most = (number(figures[name]["instructions"]) for name in (small, large))
        said = f"{large}: {most} instructions, and {least} in a crowd of a hundredth; no more than 8 % above that is flat"
        verdicts[large] = passes, [] if passes else [said]
    return verdicts


# --- the baseline and the table ---


def read_baseline(text):
    """circumstances -> operation -> figures."""
    known, block = {}, None
    for line in text.splitlines():
        if line.startswith("["):
            block = known.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#") and not line.startswith("operation "):
            words = line.split()
            block[words[0]] = dict(zip(COLUMNS, map(float, words[1:])))
    return known


def heading():
    return f"{'operation':22}" + "".join(f"{name:>14}" for name in COLUMNS)


def row(name, figures):
    return f"{name:22}" + "".join(f"{number(figures[column]):>14}" for column in COLUMNS)


def written_baseline(known):
    lines = ["# What one operation takes. Written by tests/cost/run.py --accept; docs/performance.md explains the columns."]
    for key in sorted(known):
        lines += ["", f"[{key}]", heading(), *(row(name, figures) for name, figures in known[key].items())]
    return "\n".join(lines) + "\n"


def load_baseline():
    if not os.path.isfile(BASELINE):
        return {}
    with open(BASELINE, encoding="utf-8") as file:
        return read_baseline(file.read())


def operations_in_source():
    """Name -> what it is, in the order of cost.cpp; for the table, which needs no compiler."""
    with open(os.path.join(HERE, "cost.cpp"), encoding="utf-8") as file:
        table = file.read().split("operations[] = {", 1)[1].split("\n};", 1)[0]
    return dict(re.findall(r'\{"(\w+)",\s*&\w+,\s*"([^"]*)"\}', table))


def markdown(known):
    """The table of the first compiler that the baseline has."""
    key = next((key for key in sorted(known) if "g++" in key), None)
    if key is None:
        return ""
    lines = [f"Counted with {key}:", "", "| operation | " + " | ".join(COLUMNS) + " |", "|---|" + "--:|" * len(COLUMNS)]
    for name, what in operations_in_source().items():
        if name in RULERS or name not in known[key]:
            continue
        cells = " | ".join(number(known[key][name][column]) for column in COLUMNS)
        lines.append(f"| **{name}**: {what} | {cells} |")
    return "\n".join(lines)


def page_with(page, table):
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table}\n{END}{tail}"


def write_page(known):
    with open(PAGE, encoding="utf-8") as file:
        page = file.read()
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(page_with(page, markdown(known)))


# --- the ways to call this ---


def told_calls(difference):
    calls = sorted(difference.calls.items(), key=lambda call: -call[1])
    return ", ".join(f"{name} {number(times)}" for name, times in calls if times >= 0.005)


def source_lines(program, key):
    """Where an instruction comes from: the lines of the header it was inlined from, innermost first."""
    if key[0] != program or not shutil.which("addr2line"):
        return os.path.basename(key[0])
    command = ["addr2line", "-i", "-e", program, hex(key[1])]
    frames = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    ours = [re.sub(r".*/", "", frame).split(" ")[0] for frame in frames if re.search(r"(concur\.hpp|cost\.cpp):", frame)]
    return ", ".join(line.replace("concur.hpp:", "") for line in ours)


def show(difference, program):
    print(heading())
    print(row("", difference.figures))
    print("\natomic instructions and fences, how often for one operation, and the lines of concur.hpp, innermost first:")
    for key in sorted(difference.atomics, key=lambda key: -difference.instructions[key]):
        if difference.instructions[key] < 0.005:
            continue
        text = difference.atomics[key][1].split("#")[0].strip()
        print(f"  {difference.instructions[key]:7.2f}  {text:32} {difference.places[key][0][:120]}")
        print(f"{'':43} {source_lines(os.path.realpath(program), key)}")
    print(f"\nsystem calls: {told_calls(difference) or 'none'}")
    print("\ninstructions, by function:")
    functions = {}
    for key, times in difference.instructions.items():
        function = difference.places[key][0]
        functions[function] = functions.get(function, 0) + times
    for function in sorted(functions, key=lambda name: -functions[name])[:25]:
        if functions[function] >= 0.05:
            print(f"  {functions[function]:9.2f}  {function[:140]}")


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].replace("usage: ", ""))
    parser.add_argument("operations", nargs="*")
    for flag in ("--accept", "--markdown", "--why-not"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--show", metavar="OPERATION")
    parser.add_argument("--with", dest="extra", action="append", default=[], metavar="FLAG")
    wanted = parser.parse_args()
    if wanted.markdown:
        write_page(load_baseline())
        return 0
    compilers = [one for one in COMPILERS if shutil.which(one)] if wanted.accept else COMPILERS[:1]
    status = 0
    for compiler in compilers or COMPILERS[:1]:
        try:
            status = run_with(compiler, wanted) or status
        except (RuntimeError, subprocess.SubprocessError) as error:
            print(f"{error}\nNothing could be counted.\n0 passed, 1 failed")
            status = 1
    return status


def run_with(compiler, wanted):
    reason = why_not(compiler)
    if wanted.why_not or reason:
        if reason:
            print(reason if wanted.why_not else f"left out: {reason}")
        return 1 if wanted.accept or wanted.show else 0
    program = compile_program(compiler, wanted.extra)
    names = operations_of(program)
    for name in [*wanted.operations, *([wanted.show] if wanted.show else [])]:
        if name not in names:
            print(f"there is no operation {name}; there are: {' '.join(names)}", file=sys.stderr)
            return 2
    if wanted.show:
        show(measure(program, [wanted.show])[wanted.show], program)
        return 0
    chosen = list(names) if wanted.accept or not wanted.operations else [*RULERS, *wanted.operations]
    return conclude(circumstances(compiler), wanted.accept, measure(program, dict.fromkeys(chosen)))


def conclude(key, accepts, differences):
    figures = {name: difference.figures for name, difference in differences.items()}
    known = load_baseline()
    print(f"[{key}]")
    print(heading())
    for name in figures:
        print(row(name, figures[name]))
    print()
    problems = check_ruler(figures)
    if problems:
        print("The counting itself is wrong, so nothing is judged:", *problems, sep="\n    ")
        print("0 passed, 1 failed")
        return 1
    crowds = judge_crowds(figures)
    for _, lines in crowds.values():
        print(*lines, sep="\n", end="\n" if lines else "")
    dearer = [name for name, (passes, _) in crowds.items() if not passes]
    if accepts and dearer:
        print("nothing is written down: no baseline makes that right")
        return 1
    if accepts:
        known[key] = figures
        with open(BASELINE, "w", encoding="utf-8") as file:
            file.write(written_baseline(known))
        write_page(known)
        print(f"written: {os.path.relpath(BASELINE, ROOT)}, and the table in {os.path.relpath(PAGE, ROOT)}")
        return 0
    if key not in known:
        print(f"Nothing is judged: {key} is not in the baseline. It knows:", *sorted(known), sep="\n    ")
        print(f"{len(figures) - len(dearer)} passed, {len(dearer)} failed")
        return 1 if dearer else 0
    failed = 0
    for name, difference in differences.items():
        passes, lines = judge(name, known[key].get(name), difference)
        failed += not passes or name in dearer
        if lines:
            print(*lines, sep="\n")
    print(f"{len(figures) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
