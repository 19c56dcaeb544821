#!/usr/bin/env python3
"""Runs what the documentation shows: every ```cpp block of README.md and docs/*.md is compiled, run, and held to its output.

    tools/run_snippets.py            all pages
    tools/run_snippets.py PAGE...    these

A block that has a `main` is a program as it stands. Any other is put into one, below concur.hpp, the headers in HEADERS and
`using namespace std::chrono_literals`:

    a block that calls concur::run itself    int main() { ... }
    a block that calls explore or replay     the same; explore_failure ends it with status 1
    any other                                int main() { concur::run([] { ... }); }

A block without a language that follows at once, with nothing but blank lines between, is what the program prints. In it a
line of only `...` stands for any number of lines, `...` within a line for any text; lines that begin with `$ ` are for the
reader. Comments directly before a block say what is to be done otherwise:

    <!-- not compiled: reason -->            left out
    <!-- not run: reason -->                 compiled only
    <!-- compiled with: -std=c++20 -->       with these flags, behind the others
    <!-- defines: NAME -->                   functions and types, which stand before main in later blocks that use them
    <!-- uses: NAME -->                      those of that block
    <!-- prints to: stderr -->               what is compared
    <!-- ends with: 1 -->                    the status that is right
    <!-- numbers: may differ -->             a number in the output stands for any, and so does a schedule ("w2 10=1")

The bodies of concur.hpp are compiled once for all snippets with the same flags, since both must agree. CXX,
CXXFLAGS (put after the tool's own), BUILD, JOBS as in the Makefile. Ends with `snippets: N passed, N failed`.
"""

import argparse
import concurrent.futures
import difflib
import glob
import os
import re
import shlex
import subprocess
import sys

HEADERS = (
    "atomic chrono cstdio cstdlib exception functional iostream map memory mutex optional stdexcept string system_error thread "
    "tuple utility vector"
).split()
FENCE = re.compile(r"^(`{3,})[ \t]*([^`]*?)[ \t]*$")
UNSEEN_FENCE = re.compile(r"^(?:[ \t>]+`{3,}|[ \t]*~{3,})[ \t]*(?:cpp|c\+\+|cc)\b", re.IGNORECASE)
COMMENT = re.compile(r"^<!--.*-->$")
MARK = re.compile(
    r"^<!-- (not compiled|not run|compiled with|defines|uses|prints to|ends with|numbers): (\S.*?) *-->$"
)
MAIN = re.compile(r"^int main\(", re.MULTILINE)
RUN_ITSELF = re.compile(r"\bconcur::run\(")
EXPLORES = re.compile(r"\bconcur::(?:try_)?(?:explore|replay|replay_schedule)\(")
NUMBER = re.compile(r"\bw\d+[mf]*(?: \d+=\d+)*|\d+")
RUN_SECONDS_MAX = 60


class PageError(Exception):
    """What is wrong with a page, and where."""


class Snippet:
    def __init__(self, page, line, text):
        self.page, self.line, self.text = page, line, text
        self.marks = {}  # what a comment said -> the words behind the colon
        self.definitions = []  # the snippets that it uses
        self.output = None  # what it is to print; None: nobody says

    @property
    def place(self):
        return f"{self.page}:{self.line}"

    def program(self):
        """The text that is compiled. Errors in it are told with the lines of the page."""
        here = self.placed()
        if MAIN.search(self.text) and not self.definitions:
            return here
        head = "".join(f"#include <{header}>\n" for header in HEADERS)
        head = f'#include "concur.hpp"\n\n{head}\nusing namespace std::chrono_literals;\n\n'
        head += "".join(one.placed() for one in self.definitions)
        if "defines" in self.marks:
            return f"{head}{here}int main() {{}}\n"
        if MAIN.search(self.text):
            return head + here
        if any(EXPLORES.search(one.text) for one in (*self.definitions, self)):
            return f"{head}int main() try {{\n{here}}} catch (const concur::explore_failure&) {{\nreturn 1;\n}}\n"
        if RUN_ITSELF.search(self.text):
            return f"{head}int main() {{\n{here}}}\n"
        return f"{head}int main() {{\nconcur::run([] {{\n{here}}});\n}}\n"

    def placed(self):
        return f'#line {self.line} "{self.page}"\n{self.text}\n'

    def prints_as_promised(self, text):
        may_differ = "numbers" in self.marks
        promised = "".join("(?:.*\n)*" if line == "..." else like(line, may_differ) + "\n" for line in self.output)
        return re.fullmatch(promised, text if text.endswith("\n") or not text else text + "\n") is not None


def like(line, may_differ=False):
    return ".*".join(like_numbers(part) if may_differ else re.escape(part) for part in line.split("..."))


def like_numbers(text):
    """Any number, or any schedule, where there is one."""
    between = [re.escape(part) for part in NUMBER.split(text)]
    numbers = [r"w\d+[mf]*(?: \d+=\d+)*" if found.startswith("w") else r"\d+" for found in NUMBER.findall(text)]
    return between[0] + "".join(number + part for number, part in zip(numbers, between[1:]))


def blocks(page, text):
    """The fenced blocks of a page, each as (line of its first line, language, its lines, the lines since the block before)."""
    between, lines, fence, language, begin = [], [], None, "", 0
    for number, line in enumerate(text.split("\n"), 1):
        match = FENCE.match(line)
        if fence is None and match:
            fence, language = match.groups()
            begin, lines = number + 1, []
        elif fence is None:
            if UNSEEN_FENCE.match(line):
                raise PageError(f"{page}:{number}: a block of code begins with ``` in the first column, or it is not tried")
            between.append(line)
        elif line.startswith(fence) and not line.strip("` "):
            yield begin, language, lines, between
            between, fence = [], None
        else:
            lines.append(line)
    if fence is not None:
        raise PageError(f"{page}:{begin - 1}: this block is not closed")


def marks_before(place, lines):
    """What the comments at the end of these lines say."""
    marks = {}
    for line in reversed(lines):
        if line and not COMMENT.match(line):
            break
        if line:
            match = MARK.match(line)
            if not match:
                raise PageError(f"{place}: {line} says nothing about the block behind it; see tools/run_snippets.py")
            marks[match.group(1)] = match.group(2)
    return marks


def snippets_of(page, text):
    found, last, defined = [], None, {}
    for line, language, lines, between in blocks(page, text):
        if language == "" and last is not None and not any(between):
            last.output = [word for word in lines if not word.startswith("$ ")]
        last = None
        if language.lower() in ("c++", "cc"):
            raise PageError(f"{page}:{line - 1}: write ```cpp, or the block is not tried")
        if language == "cpp":
            last = Snippet(page, line, "\n".join(lines))
            last.marks = marks_before(last.place, between)
            if "uses" in last.marks:
                name = last.marks["uses"]
                if name not in defined:
                    raise PageError(f"{last.place}: nothing before defines `{name}`")
                last.definitions = [*defined[name].definitions, defined[name]]
            if "defines" in last.marks:
                defined[last.marks["defines"]] = last
            found.append(last)
    return found


class Trial:
    """How the snippets are compiled and run."""

    def __init__(self):
        self.build = os.path.join(os.environ.get("BUILD") or "build", "snippets")
        os.makedirs(self.build, exist_ok=True)
        self.compiler = shlex.split(os.environ.get("CXX") or "g++")
        self.flags = shlex.split("-std=c++17 -O0 -Wall -Wextra -Werror -pthread -I.")
        self.flags += shlex.split(os.environ.get("CXXFLAGS") or "")
        self.bodies = {}  # flags of its own -> a future: what compiling them printed

    def command(self, *words):
        """What it printed when it failed, else nothing."""
        line = [*self.compiler, *self.flags, *words]
        done = subprocess.run(line, capture_output=True, text=True, errors="replace", check=False)
        return done.stdout + done.stderr if done.returncode else ""

    def bodies_path(self, own):
        return os.path.join(self.build, "bodies" + re.sub(r"\W", "_", own) + ".o")

    def compile_bodies(self, own):
        flags = ["-DCONCUR_SEPARATE_COMPILATION", *shlex.split(own)]
        return self.command(*flags, "-c", "tools/concur.cpp", "-o", self.bodies_path(own))

    def build_program(self, snippet, target):
        with open(f"{target}.cpp", "w", encoding="utf-8") as file:
            file.write(snippet.program())
        own = snippet.marks.get("compiled with", "")
        flags = shlex.split(own)
        return (
            self.command("-DCONCUR_SEPARATE_COMPILATION", *flags, "-c", f"{target}.cpp", "-o", f"{target}.o")
            or self.bodies[own].result()
            or self.command(*flags, f"{target}.o", self.bodies_path(own), "-o", target)
        )

    def judge(self, snippet):
        """(whether it passed, or None when it was left out; what to say)"""
        if "not compiled" in snippet.marks:
            return None, f"left out: {snippet.marks['not compiled']}"
        target = os.path.join(self.build, re.sub(r"\W", "_", snippet.page) + f"_{snippet.line}")
        error = self.build_program(snippet, target)
        if error:
            return False, "does not compile\n" + error
        if "not run" in snippet.marks:
            return True, f"compiles; not run: {snippet.marks['not run']}"
        if "defines" in snippet.marks:
            return True, f"compiles: {snippet.marks['defines']}"
        try:
            done = subprocess.run([os.path.abspath(target)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  errors="replace", timeout=RUN_SECONDS_MAX, check=False)  # fmt: skip
        except subprocess.TimeoutExpired:
            return False, f"still running after {RUN_SECONDS_MAX} s"
        if done.returncode != int(snippet.marks.get("ends with", "0")):
            return False, f"ended with status {done.returncode}\n{done.stdout}{done.stderr}"
        if snippet.output is None:
            return True, "runs"
        printed = done.stderr if snippet.marks.get("prints to") == "stderr" else done.stdout
        if not snippet.prints_as_promised(printed):
            difference = difflib.unified_diff(snippet.output, printed.splitlines(), "promised", "printed", lineterm="")
            return False, "prints something else than it promises\n" + "\n".join(difference)
        return True, "prints what it promises"


def main():
    parser = argparse.ArgumentParser(description="run the snippets of the documentation")
    parser.add_argument("--root", default=os.path.dirname(os.path.dirname(os.path.abspath(__file__))), help="the repository")
    parser.add_argument("pages", nargs="*", help="pages, relative to the repository; all by default")
    arguments = parser.parse_args()
    os.chdir(arguments.root)

    passed = failed = 0
    snippets = []
    for page in arguments.pages or [*glob.glob("README.md"), *sorted(glob.glob("docs/*.md"))]:
        try:
            with open(page, encoding="utf-8") as file:
                snippets += snippets_of(page, file.read())
        except (PageError, OSError) as error:
            print(error)
            failed += 1
    if not snippets and not failed:
        print("there is no snippet")
        failed = 1

    trial = Trial()
    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("JOBS") or os.cpu_count() or 2)) as pool:
        for own in sorted({snippet.marks.get("compiled with", "") for snippet in snippets}):
            trial.bodies[own] = pool.submit(trial.compile_bodies, own)
        for snippet, (has_passed, text) in zip(snippets, pool.map(trial.judge, snippets)):
            print(f"{snippet.place}: {text}", flush=True)
            passed += has_passed is True
            failed += has_passed is False
    print(f"snippets: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
