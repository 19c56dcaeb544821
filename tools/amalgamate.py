#!/usr/bin/env python3
"""Makes concur.hpp, the one file that ships, out of the parts under src/.

    tools/amalgamate.py            write concur.hpp
    tools/amalgamate.py --check    exit 1 when concur.hpp is not what src/ says

src/concur.hpp is the manifest: an ordered list of includes. Each `#include "layer/part.hpp"` is replaced by the part, once,
where it is first met; the part's own includes are treated alike. The rules:

  A1  The output is a function of src/ and LICENSE alone: no date, no path, no environment.
  A2  Include guards of parts are dropped; the output has one guard of its own.
  A3  `#include <...>` stays where it stands, under the conditions it stands under. It is left out only where the same
      include came before under the same conditions or under fewer: then it would be empty anyway.
  A4  A part met first under a condition would be missing where the condition is false. So a part may be included from
      inside `#if` only if that is the only place that includes it (the context switch of one processor, the poller of one
      system). Anything else is refused, with both places named.
  A5  A cycle, a missing part, or a part outside src/ is refused with the file and line that asked for it.
"""

import argparse
import os
import re
import sys

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"]+)"|<([^>]+)>)')
DIRECTIVE = re.compile(r"^[ \t]*#[ \t]*(if|ifdef|ifndef|elif|else|endif)\b[ \t]*(.*?)[ \t]*(?://.*)?$")
GUARD = "CONCUR_HPP"


class AmalgamationError(Exception):
    """What is wrong with src/, said for the person who must repair it."""


class Conditions:
    """The stack of `#if` conditions that a line stands under, each as text."""

    def __init__(self):
        self.stack = []

    def feed(self, line, where):
        match = DIRECTIVE.match(line)
        if not match:
            return
        word, text = match.group(1), match.group(2)
        if word in ("if", "ifdef", "ifndef"):
            self.stack.append(f"{word} {text}")
            return
        if not self.stack:
            raise AmalgamationError(f"{where}: #{word} without #if")
        if word == "endif":
            self.stack.pop()
        else:
            self.stack[-1] = f"{self.stack[-1]}; {word} {text}".rstrip()


def strip_guard(lines, where):
    """The lines without the include guard, blanked so that line numbers stay right."""
    opened = next((i for i, line in enumerate(lines) if DIRECTIVE.match(line)), None)
    if opened is None or not lines[opened].startswith("#ifndef CONCUR_"):
        raise AmalgamationError(f"{where}: the first directive must be an include guard, #ifndef CONCUR_<LAYER>_<PART>_HPP")
    name = lines[opened].split()[1]
    if lines[opened + 1 : opened + 2] != [f"#define {name}"]:
        raise AmalgamationError(f"{where}:{opened + 2}: the guard needs `#define {name}` here")
    closed = max(i for i, line in enumerate(lines) if line.strip())
    if not lines[closed].startswith("#endif"):
        raise AmalgamationError(f"{where}:{closed + 1}: the last line must be the #endif of the include guard")
    result = list(lines)
    result[opened] = result[opened + 1] = result[closed] = None
    return result


class Amalgamation:
    def __init__(self, root):
        self.root = root
        self.source = os.path.join(root, "src")
        self.parts = {}  # part -> (where it was first included, conditions there)
        self.open_parts = []  # the chain of includes being expanded, to name a cycle
        self.system = {}  # header -> list of condition stacks it was included under
        self.output = []

    def read(self, path, where):
        try:
            with open(os.path.join(self.source, path), encoding="utf-8") as file:
                return file.read().split("\n")
        except FileNotFoundError:
            raise AmalgamationError(f'{where}: there is no src/{path}') from None

    def enter(self, part, where, conditions):
        """Expands a part at its first include; says why a second one is harmless or refuses it."""
        if part in self.open_parts:
            raise AmalgamationError(f"{where}: parts include each other: {' > '.join(self.open_parts + [part])}")
        if part not in self.parts:
            if part.startswith(("/", ".")) or ".." in part.split("/"):
                raise AmalgamationError(f'{where}: write the include relative to src/: "{part}"')
            self.parts[part] = (where, tuple(conditions))
            self.expand(part, where, conditions)
            return
        first, under = self.parts[part]
        if tuple(conditions[: len(under)]) != under:
            raise AmalgamationError(
                f'{where}: "{part}" is also included by {first}, there under `{under[-1]}`: it would be missing here'
            )

    def expand(self, path, where, conditions, is_manifest=False):
        lines = self.read(path, where)
        lines = strip_guard(lines, f"src/{path}")
        self.open_parts.append(path)
        here = Conditions()
        here.stack = list(conditions)
        for number, line in enumerate(lines, 1):
            if line is None:
                continue
            place = f"src/{path}:{number}"
            match = INCLUDE.match(line)
            if match and match.group(1):
                self.enter(match.group(1), place, here.stack)
            elif match:
                self.system_include(match.group(2), line, here.stack)
            else:
                here.feed(line, place)
                if not is_manifest:
                    self.output.append(line.rstrip())
                elif line.strip() and not line.startswith("//"):
                    raise AmalgamationError(f"{place}: the manifest holds includes and comments only")
        if here.stack != list(conditions):
            raise AmalgamationError(f"src/{path}: an #if is not closed")
        self.open_parts.pop()

    def system_include(self, header, line, conditions):
        stacks = self.system.setdefault(header, [])
        if any(tuple(conditions[: len(stack)]) == stack for stack in stacks):
            return
        stacks.append(tuple(conditions))
        self.output.append(line.rstrip())

    def text(self):
        self.expand("concur.hpp", "amalgamate", [], is_manifest=True)
        with open(os.path.join(self.root, "LICENSE"), encoding="utf-8") as file:
            licence = [f"// {line}".rstrip() for line in file.read().strip().split("\n")]
        head = [
            "// concur - fibers, channels and a reactor for C++17, in this one file.",
            "//",
            "// Generated from src/ by tools/amalgamate.py: change the parts there and run `make amalgamate`.",
            "//",
            *licence,
            f"#ifndef {GUARD}",
            f"#define {GUARD}",
            "",
        ]
        body = "\n".join(head + self.output + ["", "#endif"]) + "\n"
        return re.sub(r"\n{3,}", "\n\n", body)


def first_difference(old, new):
    for number, (left, right) in enumerate(zip(old.split("\n"), new.split("\n")), 1):
        if left != right:
            return number
    return min(old.count("\n"), new.count("\n")) + 1


def main():
    parser = argparse.ArgumentParser(description="make concur.hpp out of the parts under src/")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when concur.hpp is out of step")
    parser.add_argument("--root", default=os.path.dirname(os.path.dirname(os.path.abspath(__file__))), help="the repository")
    parser.add_argument("--output", help="write here instead of <root>/concur.hpp")
    arguments = parser.parse_args()
    output = arguments.output or os.path.join(arguments.root, "concur.hpp")

    try:
        text = Amalgamation(arguments.root).text()
    except AmalgamationError as error:
        print(error, file=sys.stderr)
        return 1

    old = None
    if os.path.exists(output):
        with open(output, encoding="utf-8") as file:
            old = file.read()
    if old == text:
        return 0
    if arguments.check:
        if old is None:
            print("concur.hpp does not exist: run `make amalgamate`", file=sys.stderr)
        else:
            line = first_difference(old, text)
            print(f"concur.hpp:{line}: out of step with src/: run `make amalgamate` and commit the result", file=sys.stderr)
        return 1
    # Written beside and renamed, so that a compiler running at the same time never reads half a header.
    temporary = f"{output}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
    os.replace(temporary, output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
