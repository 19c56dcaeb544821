#!/usr/bin/env python3
"""Style as a test: looks through the repository and prints `file:line: rule: what is wrong`; exit 1 when anything was found.

    tools/tidy.py               everything
    tools/tidy.py --rules       the rules, one a line
    tools/tidy.py --warnings    also what is not yet wrong

A rule is a function below, marked @rule. tests/test_tools.py plants at least one violation of each rule and fails when the
rule does not see it, so a rule that cannot fail does not stay.
"""

import argparse
import ast
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cpp_text import CppText  # noqa: E402

LAYERS = "base atomic machine runtime sync channel structure io hook coro flow observe".split()
PART_LINES_MAX = 400
PART_LINES_LARGE = 250
FUNCTION_LINES_MAX = 70
CODE_COLUMNS_MAX = 120
TEXT_COLUMNS_MAX = 130
CPP = (".hpp", ".cpp")
TEXT = CPP + (".py", ".sh", ".md", ".txt", ".build", ".yml")
FORBIDDEN = "linux unix major minor min max yield emit signals slots interface near far small check verify".split()
SLOW_HEADERS = "iostream functional mutex thread future regex sstream fstream iomanip condition_variable filesystem".split()

RULES = {}


def rule(function):
    RULES[function.__name__] = function
    return function


class Tree:
    """The repository as the rules see it: paths, texts, and what has been found so far."""

    def __init__(self, root):
        self.root = root
        self.findings, self.warnings = [], []
        self.paths = sorted(path for path in self._listed() if self._is_text(path))
        self.text = {}
        for path in self.paths:
            with open(os.path.join(root, path), encoding="utf-8", errors="replace", newline="") as file:
                self.text[path] = file.read()
        self.cpp = {path: CppText(self.text[path]) for path in self.paths if path.endswith(CPP)}
        self.parts = {path[4:]: text for path, text in self.cpp.items() if path.startswith("src/") and path != "src/concur.hpp"}

    def _listed(self):
        """What git knows or would add; outside of git, every file."""
        git = ["git", "-C", self.root, "ls-files", "--cached", "--others", "--exclude-standard"]
        answer = subprocess.run(git, capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout:
            names = answer.stdout.splitlines()
        else:
            names = [
                os.path.relpath(os.path.join(folder, name), self.root)
                for folder, _, files in os.walk(self.root)
                for name in files
            ]
        # concur.hpp says again what the parts say.
        return {name for name in names if name != "concur.hpp" and os.path.isfile(os.path.join(self.root, name))}

    @staticmethod
    def _is_text(path):
        name = os.path.basename(path)
        return path.endswith(TEXT) or name in ("Makefile", "LICENSE", ".clang-format", ".gitignore") or path == ".ci/run"

    def find(self, path, line, rule_name, text):
        self.findings.append((path, line, rule_name, text))

    def warn(self, path, line, rule_name, text):
        self.warnings.append((path, line, rule_name, text))

    def words(self, part, pattern):
        """(line, match) of a pattern in the code of a part, directives for other headers left out."""
        for index, line in enumerate(self.parts[part].code):
            directive = self.parts[part].directives[index]
            if directive and directive[0] in ("include", "error"):
                continue
            for match in re.finditer(pattern, line):
                yield index + 1, match


def part_includes(text):
    for index, line in enumerate(text.lines):
        match = re.match(r'[ \t]*#[ \t]*include[ \t]*"([^"]+)"', line)
        if match:
            yield index + 1, match.group(1)


# --- the house ---


@rule
def layers(tree):
    """A part includes only lower layers, and earlier parts of its own (and what lies below it: poller has poller/epoll)."""
    manifest = tree.cpp.get("src/concur.hpp")
    order = {part: place for place, (_, part) in enumerate(part_includes(manifest))} if manifest else {}
    for part, text in tree.parts.items():
        layer = part.split("/")[0]
        if layer not in LAYERS:
            tree.find(f"src/{part}", 1, "layers", f"{layer} is no layer; they are: {' '.join(LAYERS)}")
            continue
        for line, other in part_includes(text):
            theirs = other.split("/")[0]
            if other not in tree.parts:
                tree.find(f"src/{part}", line, "layers", f'there is no part "{other}"')
            elif theirs in LAYERS and LAYERS.index(theirs) > LAYERS.index(layer):
                tree.find(f"src/{part}", line, "layers", f"{layer} lies below {theirs} and may not include it")
            elif theirs == layer and order.get(other, -1) > order.get(part, len(order)):
                tree.find(f"src/{part}", line, "layers", f'"{other}" comes later in src/concur.hpp than this part')


@rule
def manifest(tree):
    """Every part is reached from src/concur.hpp, which lists the layers in their order."""
    text = tree.cpp.get("src/concur.hpp")
    if text is None:
        return
    reached, pending, place = set(), [], 0
    for line, part in part_includes(text):
        pending.append(part)
        layer = part.split("/")[0]
        if layer in LAYERS:
            if LAYERS.index(layer) < place:
                tree.find("src/concur.hpp", line, "manifest", f"{part} stands after a part of a higher layer")
            place = max(place, LAYERS.index(layer))
    while pending:
        part = pending.pop()
        if part in tree.parts and part not in reached:
            reached.add(part)
            pending.extend(other for _, other in part_includes(tree.parts[part]))
    for part in sorted(set(tree.parts) - reached):
        tree.find(f"src/{part}", 1, "manifest", "no include in src/concur.hpp leads to this part")


@rule
def opening(tree):
    """A C++ file opens with `// <where>/<file> - what it is`; parts say their layer, others only what they are called."""
    for path, text in tree.cpp.items():
        name = path[4:] if path.startswith("src/") else path
        if path == "src/concur.hpp":
            name = "concur"
        allowed = [name] + ([os.path.basename(path)] if not path.startswith("src/") else [])
        if not any(re.match(rf"// {re.escape(allow)} - \S", text.lines[0]) for allow in allowed):
            tree.find(path, 1, "opening", f"the first line must be `// {name} - ...`")


@rule
def guard(tree):
    """The include guard of a part says its path."""
    for part, text in tree.parts.items():
        name = "CONCUR_" + re.sub(r"[/.]", "_", part).upper()
        first = next(((index, entry) for index, entry in enumerate(text.directives) if entry), (0, None))
        if first[1] is None or first[1][0] != "ifndef" or first[1][1].split() != [name]:
            tree.find(f"src/{part}", first[0] + 1, "guard", f"the first directive must be `#ifndef {name}`")


@rule
def part_size(tree):
    """A part answers one question: at most 400 lines, rather 250."""
    for part, text in tree.parts.items():
        count = len(text.lines) - 1
        if count > PART_LINES_MAX:
            tree.find(f"src/{part}", count, "part_size", f"{count} lines; at most {PART_LINES_MAX}: it answers two questions")
        elif count > PART_LINES_LARGE:
            tree.warn(f"src/{part}", count, "part_size", f"{count} lines; {PART_LINES_LARGE} would be better")


@rule
def function_size(tree):
    """A function fits a screen: at most 70 lines."""
    for path, text in tree.cpp.items():
        for function in text.functions():
            count = function.last - function.first + 1
            if count > FUNCTION_LINES_MAX and "TEST_CASE" not in function.head:
                tree.find(path, function.first, "function_size", f"{count} lines; at most {FUNCTION_LINES_MAX}")
    for path in tree.paths:
        if not path.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(tree.text[path])):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                count = node.end_lineno - node.lineno + 1
                if count > FUNCTION_LINES_MAX:
                    tree.find(path, node.lineno, "function_size", f"{count} lines; at most {FUNCTION_LINES_MAX}")


# --- memory orders ---

ATOMIC = re.compile(
    r"(?:(?:\.|->)\s*(?:load|store|exchange|compare_exchange_weak|compare_exchange_strong|fetch_(?:add|sub|and|or|xor))"
    r"|\b(?:atomic_thread|atomic_signal|thread)_fence)\s*\("
)
ORDER = re.compile(r"memory_order(?:_|::)(relaxed|consume|acquire|release|acq_rel|seq_cst)\b|\b(\w*order\w*)\b")
SHARED_WORDS = "atomic/word.hpp"
NOTE = re.compile(r"\b(relaxed|acquire|release|acq_rel|seq_cst)\b[^:]*:\s*\S")


def arguments_of(code, index, column):
    """The text between the parenthesis at this place and its partner, and the line of the partner."""
    depth, taken = 0, ""
    for line_index in range(index, min(index + 12, len(code))):
        line = code[line_index]
        for character in line[column:] if line_index == index else line:
            depth += (character == "(") - (character == ")")
            taken += character
            if depth == 0:
                return taken, line_index
        taken += "\n"
    return taken, index


def note_for(text, index, last):
    """The comments that may explain an operation: beside it, or directly above it, over operations explained together."""
    notes = [text.comments[i] for i in range(index, last + 1)]
    above = index - 1
    # Up to the start of the statement, then over the neighbours that share the note.
    while above >= 0 and text.code[above].strip() and index - above <= 6:
        notes.append(text.comments[above])
        above -= 1
    while above >= 0 and text.comments[above] and not text.code[above].strip():
        notes.append(text.comments[above])
        above -= 1
    return " ".join(reversed(notes))


@rule
def memory_order(tree):
    """Every atomic operation names its order, and a comment on or right above it says the same word and why."""
    for part, text in tree.parts.items():
        if part == SHARED_WORDS:
            continue  # whose orders are its callers'
        for index, line in enumerate(text.code):
            for match in ATOMIC.finditer(line):
                given, last = arguments_of(text.code, index, match.end() - 1)
                notes = note_for(text, index, last)
                if re.search(r"\bplain:\s*\S", notes):
                    continue
                orders = [order or word for order, word in ORDER.findall(given)]
                if not orders:
                    tree.find(f"src/{part}", index + 1, "memory_order", "an atomic operation without its memory order")
                    continue
                said = {word for word in re.findall(r"\b(relaxed|acquire|release|acq_rel|seq_cst)\b", notes)}
                if not NOTE.search(notes):
                    tree.find(f"src/{part}", index + 1, "memory_order", f"no comment `{orders[0]}: why` on or above it")
                elif orders[0] in ("relaxed", "acquire", "release", "acq_rel", "seq_cst") and orders[0] not in said:
                    text_of_it = f"is {orders[0]}, but its comment speaks of {sorted(said)}"
                    tree.find(f"src/{part}", index + 1, "memory_order", text_of_it)


@rule
def implicit_order(tree):
    """No operator on an atomic: `count_ = 1`, `++count_` and the like are seq_cst without saying so."""
    for part, text in tree.parts.items():
        code = "\n".join(text.code)
        for name in sorted(set(re.findall(r"\batomic<[^;()]*>\s+(\w+)\s*(?:\{[^{}]*\})?;", code))):
            if re.search(rf"^\s*(?!return|using)[\w:]+[*&]?\s+{name}\s*(=[^;]*|\{{[^{{}}]*\}})?;", code, re.MULTILINE):
                continue  # also declared without std::atomic, for another machine or another struct
            uses = rf"(\+\+|--)\s*{name}\b(?!\s*[.\[(-])|(?<![\w.]){name}\s*(\+\+|--|[-+&|^]?=(?!=))"
            for index, line in enumerate(text.code):
                if re.search(uses, line) and not re.search(rf"\batomic<.*>\s+{name}\b", line):
                    tree.find(f"src/{part}", index + 1, "implicit_order", f"an operator on the atomic {name}: name the order")


@rule
def seen_by_the_driver(tree):
    """detail::atomic and detail::thread_fence, which an exploration can drive; std's only with the reason beside it."""
    for part, text in tree.parts.items():
        if part == SHARED_WORDS:
            continue
        for index, line in enumerate(text.code):
            if not re.search(r"\bstd::atomic(<|_thread_fence)", line):
                continue
            if "std::atomic:" not in note_for(text, index, index):
                text_of_it = "use detail::atomic or detail::thread_fence, or say `std::atomic: why`"
                tree.find(f"src/{part}", index + 1, "seen_by_the_driver", text_of_it)


# --- what may stand where ---


@rule
def thread_locals(tree):
    """One thread-local variable in all of src/, behind one accessor: others would be stale after a migration."""
    found = [(part, line) for part in tree.parts for line, _ in tree.words(part, r"\b(thread_local|__thread)\b")]
    for part, line in found[1:]:
        tree.find(f"src/{part}", line, "thread_locals", f"src/{found[0][0]}:{found[0][1]} has the only thread_local there may be")


@rule
def ways_out(tree):
    """Only base/error.hpp throws, aborts or terminates; elsewhere `throw;` may pass on what it threw."""
    for part in tree.parts:
        if part == "base/error.hpp":
            continue
        for line, match in tree.words(part, r"\bthrow\b(?!\s*;)|\b(abort|terminate|quick_exit|exit|_exit|_Exit)\s*\("):
            tree.find(f"src/{part}", line, "ways_out", f"`{match.group(0).rstrip('( ')}` outside base/error.hpp")


@rule
def forbidden_names(tree):
    """No identifier that some system header makes a macro. min, max, yield may stand in parentheses: (std::min)(a, b)."""
    shielded = re.compile(r"\b(?:min|max|yield)\s*\)")
    for part in tree.parts:
        for line, match in tree.words(part, rf"\b({'|'.join(FORBIDDEN)})\b"):
            rest = tree.parts[part].code[line - 1][match.start() :]
            if not shielded.match(rest):
                tree.find(f"src/{part}", line, "forbidden_names", f"`{match.group(1)}` is a macro somewhere")


@rule
def headers(tree):
    """Above the bodies no header of the system, nor one that costs every user compile time."""
    for part, text in tree.parts.items():
        for index, directive in enumerate(text.directives):
            match = directive and directive[0] == "include" and re.match(r"<([^>]+)>", directive[1])
            if not match or text.in_bodies(index):
                continue
            name = match.group(1)
            if (name.endswith(".h") or "/" in name) and not name.startswith("sanitizer/"):
                tree.find(f"src/{part}", index + 1, "headers", f"<{name}> belongs under #if CONCUR_BODIES")
            elif name in SLOW_HEADERS:
                tree.find(f"src/{part}", index + 1, "headers", f"<{name}> is too heavy for a user who only declares")


@rule
def macros(tree):
    """Macros of the header begin with CONCUR_."""
    for part, text in tree.parts.items():
        for index, directive in enumerate(text.directives):
            if directive and directive[0] in ("define", "undef") and not directive[1].startswith("CONCUR_"):
                tree.find(f"src/{part}", index + 1, "macros", f"`{directive[1].split()[0]}` does not begin with CONCUR_")


@rule
def mutants(tree):
    """tests/mutants.txt lists each planted bug of src/ once, with the test program that finds it, and no other."""
    path = "tests/mutants.txt"
    listed = {}
    for line, row in enumerate(tree.text.get(path, "").split("\n"), 1):
        fields = [field.strip() for field in row.split("|")]
        if not row.strip() or row.startswith("#"):
            continue
        if len(fields) != 3 or not fields[0].isdigit() or not all(fields):
            tree.find(path, line, "mutants", "a row is `number | test program | what it takes out`")
        elif int(fields[0]) in listed:
            tree.find(path, line, "mutants", f"mutant {fields[0]} is listed twice")
        else:
            listed[int(fields[0])] = line
            if f"tests/{fields[1].split()[0]}.cpp" not in tree.cpp:
                tree.find(path, line, "mutants", f"there is no tests/{fields[1].split()[0]}.cpp")
    planted = {}
    for part in tree.parts:
        for line, match in tree.words(part, r"\bCONCUR_MUTANT_IS\(\s*(\d+)|\bCONCUR_MUTANT\s*==\s*(\d+)"):
            planted.setdefault(int(match.group(1) or match.group(2)), (part, line))
    for number in sorted(set(planted) - set(listed)):
        tree.find(f"src/{planted[number][0]}", planted[number][1], "mutants", f"mutant {number} is not in {path}")
    for number in sorted(set(listed) - set(planted)):
        tree.find(path, listed[number], "mutants", f"mutant {number} is planted nowhere in src/")


# --- text ---


@rule
def plain_text(tree):
    """No tab, no space at the end of a line, no carriage return; code to column 120, prose to 130; a newline at the end."""
    for path in tree.paths:
        text = tree.text[path]
        if text and not text.endswith("\n"):
            tree.find(path, text.count("\n") + 1, "plain_text", "no newline at the end of the file")
        for number, line in enumerate(text.split("\n"), 1):
            if line != line.rstrip():
                tree.find(path, number, "plain_text", "space or carriage return at the end of the line")
            if "\t" in line and os.path.basename(path) != "Makefile":
                tree.find(path, number, "plain_text", "a tab")
            code_columns = len(tree.cpp[path].code[number - 1].rstrip()) if path in tree.cpp else 0
            if len(line) > TEXT_COLUMNS_MAX and not path.endswith((".md", ".txt")):
                tree.find(path, number, "plain_text", f"{len(line)} columns; at most {TEXT_COLUMNS_MAX}")
            elif code_columns > CODE_COLUMNS_MAX:
                tree.find(path, number, "plain_text", f"code to column {code_columns}; at most {CODE_COLUMNS_MAX}")


@rule
def comments(tree):
    """Plain // sentences: no banner, no documentation marks, no note to do something later."""
    for path, text in tree.cpp.items():
        for number, comment in enumerate(text.comments, 1):
            if re.match(r"(//|/\*)\s*[-=*#~_/]{4,}", comment):
                tree.find(path, number, "comments", "a banner")
            elif re.match(r"///|//!|/\*[*!]", comment):
                tree.find(path, number, "comments", "plain // comments only")
            if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", comment):
                tree.find(path, number, "comments", "do it, or say what is missing and why")


@rule
def scripts(tree):
    """A shell script says its shell, and stops at unset variables, unless it leaves that to one it sources."""
    for path in tree.paths:
        if not path.endswith(".sh") and path != ".ci/run":
            continue
        text = tree.text[path]
        if not re.match(r"#!(/bin/sh|/usr/bin/env bash|/bin/bash)\n", text):
            tree.find(path, 1, "scripts", "the first line must be #!/bin/sh or #!/usr/bin/env bash")
        if not re.search(r"^set -\w*u|^\. ", text, re.MULTILINE):
            tree.find(path, 1, "scripts", "needs `set -u` at least, rather `set -euo pipefail`")


def run(root):
    tree = Tree(root)
    for function in RULES.values():
        function(tree)
    tree.findings.sort()
    return tree


def main():
    parser = argparse.ArgumentParser(description="style as a test")
    parser.add_argument("--root", default=os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    parser.add_argument("--rules", action="store_true", help="list the rules and stop")
    parser.add_argument("--warnings", action="store_true", help="also print what is not yet wrong")
    arguments = parser.parse_args()
    if arguments.rules:
        for name, function in RULES.items():
            print(f"{name}: {function.__doc__.splitlines()[0]}")
        return 0
    tree = run(arguments.root)
    for path, line, name, text in tree.findings:
        print(f"{path}:{line}: {name}: {text}")
    if arguments.warnings:
        for path, line, name, text in sorted(tree.warnings):
            print(f"{path}:{line}: {name}: {text} (no failure)")
    if tree.findings:
        print(f"tidy: {len(tree.findings)} findings in {len({finding[0] for finding in tree.findings})} files", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
