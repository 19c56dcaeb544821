#!/usr/bin/env python3
"""Tests of what is in tools/: amalgamate, tidy, the test runner, the checks of examples and snippets, on small trees made
for the purpose; that conformance.md tells the truth; and what tests/cost/run.py makes of counts.

Each rule of tidy gets a tree that is clean but for one planted violation, and must name exactly that line; the tree without
the plant must be clean. A rule for which no violation is planted here fails the test by its absence.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import types
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tools"))
sys.path.insert(0, os.path.join(ROOT, "tests", "cost"))
import amalgamate  # noqa: E402
import run as cost  # noqa: E402
import run_snippets  # noqa: E402
import tidy  # noqa: E402

CONFIG = """// base/config.hpp - the ground.
#ifndef CONCUR_BASE_CONFIG_HPP
#define CONCUR_BASE_CONFIG_HPP

#include <cstddef>
#include <atomic>

#define CONCUR_BODIES 1

#if CONCUR_BODIES
#include <unistd.h>
#include <cstddef>
#endif  // CONCUR_BODIES
#endif
"""

QUEUE = """// runtime/queue.hpp - a part.
#ifndef CONCUR_RUNTIME_QUEUE_HPP
#define CONCUR_RUNTIME_QUEUE_HPP

#include <atomic>

#include "base/config.hpp"

struct queue {
  // acquire: pairs with the store in put.
  int take() { return head_.load(std::memory_order_acquire); }
  void put(int value) { head_.store(value, std::memory_order_release); }  // release: publishes the value
  bool swap(int value) {
    int old = 0;
    // acq_rel: both. relaxed on failure: nothing is read.
    return head_.compare_exchange_strong(old, value, std::memory_order_acq_rel,
                                         std::memory_order_relaxed);
  }
  atomic<int> head_{0};
};
// HERE

#if CONCUR_BODIES
#include <sys/types.h>
#if CONCUR_MUTANT_IS(1)
#endif
#endif  // CONCUR_BODIES
#endif
"""

MANIFEST = """// concur - the manifest.
#ifndef CONCUR_HPP
#define CONCUR_HPP

// base: the ground
#include "base/config.hpp"
// runtime: the rest
#include "runtime/queue.hpp"

#endif
"""

CLEAN = {
    "LICENSE": "MIT License\n\nsome text\n",
    "src/concur.hpp": MANIFEST,
    "src/base/config.hpp": CONFIG,
    "src/runtime/queue.hpp": QUEUE,
    "tests/test_queue.cpp": "// tests/test_queue.cpp - a test.\n#include \"concur.hpp\"\n",
    "tests/mutants.txt": "# number | test program | what it takes out\n1 | test_queue | the recheck\n",
    "tools/run.sh": "#!/bin/sh\nset -u\n",
    "tools/make.py": "def main():\n    return 0\n",
}

LONG_FUNCTION = "int long_one() {\n" + "  ++count;\n" * 70 + "}"
TAB, BLANK = "\t", " "

# rule -> plants: (file, text to replace, replacement, the text of the line that must be named).
# `// HERE` in queue.hpp is a place for a statement at namespace scope.
PLANTS = {
    "layers": [
        ("src/base/config.hpp", "#include <atomic>", '#include "runtime/queue.hpp"', '#include "runtime/queue.hpp"'),
        ("src/runtime/queue.hpp", '"base/config.hpp"', '"base/missing.hpp"', '#include "base/missing.hpp"'),
    ],
    "manifest": [
        ("src/concur.hpp", '#include "runtime/queue.hpp"\n', "", "// runtime/queue.hpp - a part."),
        ("src/concur.hpp", "// base: the ground\n", '#include "runtime/queue.hpp"\n', '#include "base/config.hpp"'),
    ],
    "opening": [
        ("src/runtime/queue.hpp", "// runtime/queue.hpp - a", "// A", "// A part."),
        ("tests/test_queue.cpp", "tests/test_queue.cpp", "queue.cpp", "// queue.cpp - a test."),
    ],
    "guard": [("src/runtime/queue.hpp", "CONCUR_RUNTIME_QUEUE_HPP", "CONCUR_QUEUE_HPP", "#ifndef CONCUR_QUEUE_HPP")],
    "part_size": [("src/runtime/queue.hpp", "// HERE\n", "\n" * 380, "#endif")],
    "function_size": [
        ("src/runtime/queue.hpp", "// HERE", LONG_FUNCTION, "int long_one() {"),
        ("src/runtime/queue.hpp", "// HERE", f"struct s {{\n  template <class T>\n{LONG_FUNCTION}\n}};", "  template <class T>"),
        ("tools/make.py", "    return 0\n", "    print()\n" * 71, "def main():"),
    ],
    "memory_order": [
        ("src/runtime/queue.hpp", "load(std::memory_order_acquire)", "load()", "  int take() { return head_.load(); }"),
        ("src/runtime/queue.hpp", "  // release: publishes the value", "", None),
        ("src/runtime/queue.hpp", "// acquire: pairs with the store in put.", "// pairs with put.", None),
        ("src/runtime/queue.hpp", "// acquire: pairs", "// relaxed: pairs", None),
        ("src/runtime/queue.hpp", "// acq_rel: both.", "// both.", None),
        ("src/runtime/queue.hpp", "// HERE", "inline void f() { std::atomic_thread_fence(std::memory_order_seq_cst); }", None),
    ],
    "implicit_order": [
        ("src/runtime/queue.hpp", "int old = 0;", "int old = 0; ++head_;", "    int old = 0; ++head_;"),
        ("src/runtime/queue.hpp", "int old = 0;", "int old = 0; head_ = 1;", "    int old = 0; head_ = 1;"),
        ("src/runtime/queue.hpp", "int old = 0;", "int old = 0; head_ |= 1;", "    int old = 0; head_ |= 1;"),
    ],
    "seen_by_the_driver": [
        ("src/runtime/queue.hpp", "// HERE", "inline std::atomic<int> one;", "inline std::atomic<int> one;"),
    ],
    "thread_locals": [
        ("src/runtime/queue.hpp", "// HERE", "thread_local int a;\nthread_local int b;", "thread_local int b;"),
        ("src/runtime/queue.hpp", "// HERE", "thread_local int a;\n__thread int b;", "__thread int b;"),
    ],
    "ways_out": [
        ("src/runtime/queue.hpp", "// HERE", "inline void f() { throw 1; }", None),
        ("src/runtime/queue.hpp", "// HERE", "inline void f() { std::abort(); }", None),
        ("src/runtime/queue.hpp", "// HERE", "inline void f() { std::terminate(); }", None),
    ],
    "forbidden_names": [
        ("src/runtime/queue.hpp", "// HERE", "inline int f(int a, int b) { return std::min(a, b); }", None),
        ("src/runtime/queue.hpp", "// HERE", "int slots;", None),
        ("src/runtime/queue.hpp", "// HERE", "void yield();", None),
    ],
    "headers": [
        ("src/runtime/queue.hpp", "#include <atomic>", "#include <sys/types.h>", "#include <sys/types.h>"),
        ("src/runtime/queue.hpp", "#include <atomic>", "#include <functional>", "#include <functional>"),
    ],
    "macros": [("src/runtime/queue.hpp", "// HERE", "#define LIKELY(x) x", None)],
    "mutants": [
        ("src/runtime/queue.hpp", "CONCUR_MUTANT_IS(1)", "CONCUR_MUTANT_IS(2)", "#if CONCUR_MUTANT_IS(2)"),
        ("tests/mutants.txt", "1 | test_queue", "1 | test_missing", None),
        ("tests/mutants.txt", "1 | test_queue | the recheck", "1 | test_queue", None),
        ("tests/mutants.txt", "the recheck\n", "the recheck\n1 | test_queue | again\n", "1 | test_queue | again"),
        ("tests/mutants.txt", "the recheck\n", "the recheck\n7 | test_queue | nothing\n", "7 | test_queue | nothing"),
    ],
    "plain_text": [
        ("src/runtime/queue.hpp", "// HERE", "int a;" + BLANK, None),
        ("src/runtime/queue.hpp", "// HERE", TAB + "int a;", None),
        ("src/runtime/queue.hpp", "// HERE", "int a;\r", None),
        ("src/runtime/queue.hpp", "// HERE", "int " + "a" * 120 + ";", None),
        ("src/runtime/queue.hpp", "// HERE", "// " + "a" * 130, None),
        ("tools/make.py", "return 0\n", "return 0", "    return 0"),
    ],
    "comments": [
        ("src/runtime/queue.hpp", "// HERE", "// =======", None),
        ("src/runtime/queue.hpp", "// HERE", "/// A thing.", None),
        ("src/runtime/queue.hpp", "// HERE", "/** A thing. */", None),
        ("src/runtime/queue.hpp", "// HERE", "// TO" + "DO: more", None),
    ],
    "scripts": [
        ("tools/run.sh", "set -u\n", "", "#!/bin/sh"),
        ("tools/run.sh", "#!/bin/sh\n", "", "set -u"),
    ],
}


class ScratchTree(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp(prefix="concur_tools_")
        self.addCleanup(shutil.rmtree, self.root)
        for path, text in CLEAN.items():
            self.write(path, text)

    def write(self, path, text):
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8", newline="") as file:
            file.write(text)

    def replace(self, path, old, new):
        self.assertIn(old, CLEAN[path])
        self.write(path, CLEAN[path].replace(old, new))


class Tidy(ScratchTree):
    def found(self):
        return tidy.run(self.root).findings

    def test_the_clean_tree_is_clean(self):
        self.assertEqual(self.found(), [])

    def test_every_rule_has_a_plant(self):
        self.assertEqual(set(tidy.RULES), set(PLANTS))

    def test_every_plant_is_found(self):
        for name, plants in PLANTS.items():
            for path, old, new, expected in plants:
                with self.subTest(rule=name, plant=new[:40] or f"without {old[:40]}"):
                    self.replace(path, old, new)
                    found = [finding for finding in self.found() if finding[2] == name]
                    self.assertTrue(found, "not found")
                    if expected is not None:
                        places = [self.line(found_path, line) for found_path, line, _, _ in found]
                        self.assertIn(expected, places)
                self.write(path, CLEAN[path])

    def line(self, path, number):
        with open(os.path.join(self.root, path), encoding="utf-8") as file:
            return file.read().split("\n")[number - 1]

    def test_what_looks_like_a_violation_and_is_none(self):
        harmless = [
            "inline int f(int a, int b) { return (std::min)(a, b); }",
            'inline const char* f() { return "throw abort() min slots"; }',
            "// throw, abort(), min and slots are only words here",
            "void (yield)();",
            "struct state { static state load(); };\ninline state f() { return state::load(); }",
            "#include <chrono>",
            'inline const char* f() { return R"(\n// ======\n)"; }',
            "inline void f() {\n  // relaxed: counts only.\n  a.load(std::memory_order_relaxed);\n"
            "  b.load(std::memory_order_relaxed);\n}",
        ]
        for text in harmless:
            with self.subTest(text=text[:50]):
                self.replace("src/runtime/queue.hpp", "// HERE", text)
                self.assertEqual(self.found(), [])

    def test_the_command_says_where_and_fails(self):
        self.replace("src/runtime/queue.hpp", "// HERE", "int slots;")
        command = [sys.executable, os.path.join(ROOT, "tools/tidy.py"), "--root", self.root]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(answer.returncode, 1)
        self.assertRegex(answer.stdout, r"^src/runtime/queue.hpp:\d+: forbidden_names: ")
        self.write("src/runtime/queue.hpp", QUEUE)
        self.assertEqual(subprocess.run(command, check=False).returncode, 0)


class Amalgamate(ScratchTree):
    def text(self):
        return amalgamate.Amalgamation(self.root).text()

    def refused(self, pattern):
        with self.assertRaisesRegex(amalgamate.AmalgamationError, pattern):
            self.text()

    def command(self, *arguments):
        line = [sys.executable, os.path.join(ROOT, "tools/amalgamate.py"), "--root", self.root, *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    def test_each_part_is_there_once_in_order_and_without_its_guard(self):
        text = self.text()
        self.assertEqual(text.count("// base/config.hpp - "), 1)
        self.assertLess(text.index("// base/config.hpp - "), text.index("// runtime/queue.hpp - "))
        self.assertNotIn("CONCUR_BASE_CONFIG_HPP", text)
        self.assertNotIn('#include "', text)
        self.assertTrue(text.endswith("#endif\n"))
        self.assertEqual(text.count("#if"), text.count("#endif"))

    def test_the_licence_is_in_it(self):
        self.assertIn("// some text\n", self.text())

    def test_system_includes_are_left_out_only_where_they_would_be_empty(self):
        text = self.text()
        self.assertEqual(text.count("#include <atomic>"), 1)
        self.assertEqual(text.count("#include <cstddef>"), 1)
        self.write("src/runtime/queue.hpp", QUEUE.replace("// HERE", "#include <unistd.h>"))
        # Outside of any condition it is another one than under CONCUR_BODIES.
        self.assertEqual(self.text().count("#include <unistd.h>"), 2)

    def test_other_branches_are_other_conditions(self):
        branches = "#if A\n#include <vector>\n#else\n#include <vector>\n#endif\n#if A\n#include <vector>\n#endif"
        self.write("src/runtime/queue.hpp", QUEUE.replace("// HERE", branches))
        self.assertEqual(self.text().count("#include <vector>"), 2)

    def test_the_same_input_gives_the_same_output_wherever_it_lies(self):
        first = self.text()
        moved = self.root + "_moved"
        shutil.copytree(self.root, moved)
        self.addCleanup(shutil.rmtree, moved)
        self.assertEqual(amalgamate.Amalgamation(moved).text(), first)

    def test_check_fails_when_out_of_step_and_says_so(self):
        self.assertEqual(self.command("--check").returncode, 1)
        self.assertEqual(self.command().returncode, 0)
        self.assertEqual(self.command("--check").returncode, 0)
        self.write("src/runtime/queue.hpp", QUEUE.replace("// HERE", "// new"))
        answer = self.command("--check")
        self.assertEqual(answer.returncode, 1)
        self.assertRegex(answer.stderr, r"^concur.hpp:\d+: out of step")

    def test_a_part_under_a_condition_and_elsewhere_is_refused(self):
        extra = "// base/extra.hpp - more.\n#ifndef CONCUR_BASE_EXTRA_HPP\n#define CONCUR_BASE_EXTRA_HPP\n#endif\n"
        self.write("src/base/extra.hpp", extra)
        inside = CONFIG.replace("#include <unistd.h>", '#include "base/extra.hpp"')
        self.write("src/base/config.hpp", inside)
        self.assertIn("// base/extra.hpp - more.", self.text())
        self.write("src/runtime/queue.hpp", QUEUE.replace("// HERE", '#include "base/extra.hpp"'))
        self.refused("also included by src/base/config.hpp:11, there under `if CONCUR_BODIES`")

    def test_mistakes_are_named_with_their_place(self):
        plants = [
            ("base/config.hpp", CONFIG.replace("#include <atomic>", '#include "runtime/queue.hpp"'), "include each other"),
            ("base/config.hpp", CONFIG.replace("<atomic>", '"base/none.hpp"'), "src/base/config.hpp:6: .*no src/base/none"),
            ("base/config.hpp", CONFIG.replace("<atomic>", '"../secret.hpp"'), "relative to src"),
            ("base/config.hpp", CONFIG.replace("#endif  // CONCUR_BODIES\n", ""), "an #if is not closed"),
            ("base/config.hpp", CONFIG.replace("#ifndef CONCUR_BASE_CONFIG_HPP\n", ""), "include guard"),
            ("concur.hpp", MANIFEST.replace("// runtime: the rest", "int stray;"), "includes and comments only"),
        ]
        for path, text, pattern in plants:
            with self.subTest(plant=pattern):
                self.write(f"src/{path}", text)
                self.refused(pattern)
                self.write(f"src/{path}", CLEAN[f"src/{path}"])


SUMMARY = "echo '[doctest] test cases:  {} |  {} passed | {} failed | 0 skipped'\n"

# What a program does -> cases passed and failed that the runner must count, and a word it must say.
PROGRAMS = {
    "passes": (SUMMARY.format(3, 3, 0), 3, 0, ""),
    "fails": (SUMMARY.format(3, 2, 1) + "exit 1", 2, 1, "test cases"),
    "ends_early": ("exit 0", 0, 1, "before its summary"),
    "runs_nothing": (SUMMARY.format(0, 0, 0), 0, 1, "no test case"),
    "crashes_late": (SUMMARY.format(2, 2, 0) + "kill -SEGV $$", 2, 1, "Segmentation"),
    "bad_status": (SUMMARY.format(2, 2, 0) + "exit 66", 2, 1, "status 66"),
    "says_why": ("echo 'a.cpp:7: ERROR: CHECK( 1 == 2 ) is NOT correct!'\necho '  values: CHECK( 1 == 2 )'\necho\n" +
                 SUMMARY.format(2, 1, 1) + "exit 1", 1, 1, "values"),
    "hangs": (SUMMARY.format(2, 2, 0) + "sleep 100", 2, 1, "still running"),
    "leaves_a_child": ("sleep 100 &\n" + SUMMARY.format(1, 1, 0), 1, 0, ""),
}


class Runner(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="concur_runner_")
        cls.runner = os.path.join(cls.folder, "run_tests")
        source = os.path.join(ROOT, "tools/run_tests.cpp")
        subprocess.run([os.environ.get("CXX", "g++"), "-std=c++17", "-O0", source, "-o", cls.runner], check=True)
        for name, (text, _, _, _) in PROGRAMS.items():
            path = os.path.join(cls.folder, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write("#!/bin/sh\n" + text + "\n")
            os.chmod(path, 0o755)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def run_programs(self, *names, options=()):
        command = [self.runner, "--limit", "1", *options, *(os.path.join(self.folder, name) for name in names)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def test_each_program_is_judged(self):
        for name, (_, passed, failed, word) in PROGRAMS.items():
            with self.subTest(program=name):
                answer = self.run_programs(name)
                self.assertEqual(answer.stdout.splitlines()[-1], f"{passed} passed, {failed} failed")
                self.assertEqual(answer.returncode, 1 if failed else 0)
                self.assertIn(word, answer.stdout)

    def test_the_sum_is_over_all(self):
        answer = self.run_programs("passes", "fails", "missing")
        self.assertEqual(answer.stdout.splitlines()[-1], "5 passed, 2 failed")

    def test_what_failed_is_named_before_the_sum(self):
        lines = self.run_programs("says_why", "passes", "hangs").stdout.splitlines()
        program = os.path.join(self.folder, "says_why")
        self.assertEqual(lines[-5:-2], [f"failed: {program}", "    a.cpp:7: ERROR: CHECK( 1 == 2 ) is NOT correct!",
                                        "      values: CHECK( 1 == 2 )"])
        self.assertIn("hangs: still running", lines[-2])

    def test_again_is_once_and_after_the_others(self):
        recovers = os.path.join(self.folder, "recovers")
        mark = os.path.join(self.folder, "was_here")
        with open(recovers, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\n{SUMMARY.format(2, 2, 0)}if [ -e {mark} ]; then exit 0; fi\ntouch {mark}\nexit 3\n")
        os.chmod(recovers, 0o755)
        for options, sums, status in ((["--again"], "5 passed, 0 failed", 0), ([], "5 passed, 1 failed", 1)):
            with self.subTest(options=options):
                if os.path.exists(mark):
                    os.remove(mark)
                answer = self.run_programs("recovers", "passes", options=options)
                self.assertEqual(answer.stdout.splitlines()[-1], sums)
                self.assertEqual(answer.returncode, status)
                self.assertEqual(f"failed, and ran again: {recovers}: ended with status 3" in answer.stdout, bool(options))
        answer = self.run_programs("fails", "passes", options=["--again"])
        self.assertEqual(answer.stdout.splitlines()[-1], "5 passed, 1 failed")
        self.assertEqual(answer.stdout.count("FAILED"), 2)

    def test_no_program_is_a_failure(self):
        self.assertEqual(self.run_programs().returncode, 1)

    def test_nothing_is_left_running(self):
        self.run_programs("leaves_a_child", "hangs")
        listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=False).stdout
        self.assertNotIn(self.folder, listing)


HELLO = """// hello.cpp - says it.
//
//     g++ -std=c++17 examples/hello.cpp -o hello
//
// Output:
//     hello
//       world
//     took ... ms
#include <cstdio>
int main() { std::puts("hello\\n  world\\ntook 5 ms"); }
"""


class Examples(ScratchTree):
    def setUp(self):
        super().setUp()
        shutil.copy(os.path.join(ROOT, "tools/run_examples.sh"), os.path.join(self.root, "tools"))

    def sum_of(self, text):
        self.write("examples/hello.cpp", text)
        script = os.path.join(self.root, "tools/run_examples.sh")
        answer = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
        return answer.stdout.splitlines()[-1]

    def test_examples_are_held_to_what_they_say(self):
        good, bad = "examples: 1 passed, 0 failed", "examples: 0 passed, 1 failed"
        self.assertEqual(self.sum_of(HELLO), good)
        self.assertEqual(self.sum_of(HELLO.replace("//     hello", "//     goodbye")), bad)
        self.assertEqual(self.sum_of(HELLO.replace("//       world", "//     world")), bad)
        self.assertEqual(self.sum_of(HELLO.replace("// Output:", "// Prints:")), bad)
        self.assertEqual(self.sum_of(HELLO.replace("int main", "int mian")), bad)
        self.assertEqual(self.sum_of(HELLO.replace("); }", "); return 1; }")), bad)
        self.assertEqual(self.sum_of(HELLO.replace("-o hello", "")), bad)
        self.assertEqual(self.sum_of(HELLO.replace("// Output:", "// Runs until stopped.")), good)


PAGE = """# A page

```cpp
int main() { return 0; }
```

Words.

<!-- not run: it never ends -->

<!-- compiled with: -std=c++20 -->
```cpp
for (;;) {
}
```

```
said
```

```sh
cpp
```

```
nobody's
```

````cpp
concur::run([] {});
```
````
"""

RUN = """#include <utility>
namespace concur {
template <class F>
void run(F f) { f(); }
}
"""
SAYS = '```cpp\nstd::cout << "one\\n  two\\ntook 5 ms\\n";\n```\n'


class Snippets(ScratchTree):
    def setUp(self):
        super().setUp()
        self.write("concur.hpp", RUN)
        self.write("tools/concur.cpp", '#include "concur.hpp"\n')

    def answer(self, page):
        self.write("docs/page.md", page)
        script = os.path.join(ROOT, "tools/run_snippets.py")
        command = [sys.executable, script, "--root", self.root]
        kept = {name: value for name, value in os.environ.items() if name not in ("BUILD", "CXXFLAGS")}
        return subprocess.run(command, capture_output=True, text=True, env=kept, check=False)

    def sum_of(self, page):
        answer = self.answer(page)
        sum_line = answer.stdout.splitlines()[-1]
        self.assertEqual(answer.returncode == 0, sum_line.endswith(" 0 failed"))
        return sum_line

    def test_a_page_is_read_as_it_says(self):
        first, second, third = run_snippets.snippets_of("page.md", PAGE)
        self.assertEqual((first.line, first.text, first.marks, first.output), (4, "int main() { return 0; }", {}, None))
        self.assertEqual((second.line, second.text, second.output), (13, "for (;;) {\n}", ["said"]))
        self.assertEqual(second.marks, {"not run": "it never ends", "compiled with": "-std=c++20"})
        self.assertEqual((third.line, third.text, third.output), (30, "concur::run([] {});\n```", None))

    def test_what_is_no_program_becomes_one(self):
        def program(text):
            return run_snippets.Snippet("page.md", 7, text).program()

        self.assertEqual(program("int main() {}"), '#line 7 "page.md"\nint main() {}\n')
        self.assertTrue(program("f();").endswith('int main() {\nconcur::run([] {\n#line 7 "page.md"\nf();\n});\n}\n'))
        itself = program("concur::run(f);")
        self.assertTrue(itself.endswith('int main() {\n#line 7 "page.md"\nconcur::run(f);\n}\n'))
        self.assertTrue(itself.startswith('#include "concur.hpp"\n'))

    def test_a_block_may_use_what_another_defines(self):
        page = "<!-- defines: one -->\n```cpp\nint one() { return 1; }\n```\n<!-- defines: two -->\n<!-- uses: one -->\n```cpp\n"
        page += "int two() { return 2 * one(); }\n```\n<!-- uses: two -->\n```cpp\nif (two() != 2) std::exit(1);\n```\n"
        self.assertEqual(self.sum_of(page), "snippets: 3 passed, 0 failed")
        self.assertEqual(self.sum_of(page.replace("if (two", "if (1 + two")), "snippets: 2 passed, 1 failed")
        with self.assertRaisesRegex(run_snippets.PageError, "^page.md:8: nothing before defines `three`"):
            run_snippets.snippets_of("page.md", page.replace("uses: one", "uses: three"))

    def test_a_block_that_explores_stands_in_no_run_and_may_fail(self):
        snippet = run_snippets.Snippet("page.md", 7, "concur::explore(f);")
        begin = 'int main() try {\n#line 7 "page.md"\nconcur::explore(f);\n'
        self.assertIn(begin + "} catch (const concur::explore_failure&) {\nreturn 1;", snippet.program())

    def test_numbers_may_differ(self):
        for promise, text in (("seed 7.", "seed 12345."), ('("w2 1=1 3=2", f)', '("w2", f)'), ("w2", "w0mf 3=4"),
                              ("worker 1: 2", "worker 0: 33")):
            self.assertRegex(text, "^" + run_snippets.like(promise, True) + "$")
        for promise, text in (("seed 7", "seed x"), ("seed 7", "seeds 7"), ("w2", "2"), ("a.7", "ab7")):
            self.assertNotRegex(text, "^" + run_snippets.like(promise, True) + "$")

    def test_dots_stand_for_what_differs(self):
        def is_promised(promise, text):
            snippet = run_snippets.Snippet("page.md", 1, "")
            snippet.output = promise
            return snippet.prints_as_promised(text)

        for promise in ("a|b.c", "...|b.c", "a|...", "...", "a|...|b.c", "a|b...c", "a|b...", "a|...c..."):
            self.assertTrue(is_promised(promise.split("|"), "a\nb.c\n"), promise)
            self.assertTrue(is_promised(promise.split("|"), "a\nb.c"), promise)
        for promise in ("a", "a|bxc", "a|b.c|d", "b.c", "a...c", "a|.*", "a|b.c|"):
            self.assertFalse(is_promised(promise.split("|"), "a\nb.c\n"), promise)
        self.assertFalse(is_promised([], "a\n"))
        self.assertTrue(is_promised([], ""))

    def test_a_page_that_hides_a_snippet_is_refused(self):
        block = "```cpp\nf();\n```\n"
        for number, page in ((1, block[:-4]), (1, "  " + block), (1, "~~~cpp\n~~~\n"), (2, "\n" + block.replace("cpp", "c++")),
                             (3, "<!-- not run -->\n" + block), (4, "<!-- not complied: it lies -->\n\n" + block)):
            with self.subTest(page=page), self.assertRaisesRegex(run_snippets.PageError, f"^page.md:{number}: "):
                run_snippets.snippets_of("page.md", page)
        self.assertEqual(self.sum_of(SAYS), "snippets: 1 passed, 0 failed")
        self.assertEqual(self.sum_of("  " + SAYS), "snippets: 0 passed, 1 failed")
        self.assertEqual(self.sum_of("words"), "snippets: 0 passed, 1 failed")

    def test_snippets_are_held_to_what_they_say(self):
        good, bad = "snippets: 1 passed, 0 failed", "snippets: 0 passed, 1 failed"
        promise = "\n```\n$ ./one\none\n  two\ntook ... ms\n```\n"
        self.assertEqual(self.sum_of(SAYS + promise), good)
        self.assertEqual(self.sum_of(SAYS + promise.replace("  two", "two")), bad)
        self.assertEqual(self.sum_of(SAYS + "\nwords\n" + promise.replace("one", "three")), good)
        self.assertEqual(self.sum_of(SAYS.replace("cout", "cuot")), bad)
        self.assertEqual(self.sum_of(SAYS.replace("std::cout", "int unused; std::cout")), bad)
        self.assertEqual(self.sum_of(SAYS.replace("std::cout", "std::exit(3); std::cout")), bad)
        self.assertEqual(self.sum_of("<!-- not run: it fails -->\n" + SAYS.replace("std::cout", "std::exit(3); std::cout")), good)
        self.assertEqual(self.sum_of("<!-- not compiled: a sketch -->\n```cpp\n?\n```\n" + SAYS), good)
        self.assertEqual(self.sum_of("<!-- ends with: 3 -->\n" + SAYS.replace("std::cout", "std::exit(3); std::cout")), good)
        self.assertEqual(self.sum_of("<!-- ends with: 1 -->\n" + SAYS), bad)
        self.assertEqual(self.sum_of("<!-- prints to: stderr -->\n" + SAYS.replace("cout", "cerr") + promise), good)
        self.assertEqual(self.sum_of("<!-- prints to: stderr -->\n" + SAYS + promise), bad)
        five = promise.replace("...", "7")
        self.assertEqual(self.sum_of("<!-- numbers: may differ -->\n" + SAYS + five), good)
        self.assertEqual(self.sum_of(SAYS + five), bad)
        self.assertEqual(self.sum_of("<!-- compiled with: -DONE=1 -->\n```cpp\nif (ONE != 1) std::exit(1);\n```\n"), good)

    def test_an_error_is_told_with_the_line_of_the_page(self):
        answer = self.answer("\n\n" + SAYS.replace("std::cout", "\nstd::cuot"))
        self.assertIn("docs/page.md:4: does not compile", answer.stdout)
        self.assertIn("docs/page.md:5:", answer.stdout)


# What is said about a test case, in a table of which test of others is which of ours.
MENTION = re.compile(r'`(\w+)`|"([^"]*)"')


def test_cases(path):
    with open(path, encoding="utf-8") as file:
        return re.findall(r'^TEST_CASE\w*\("((?:[^"\\\\]|\\\\.)*)"', file.read(), re.MULTILINE)


def faults_of_table(text, cases_of):
    """Lines of the tables that name no test case and no reason, or a case that is not there, or not only one.

    cases_of(program) gives the names of a program's test cases, None when there is no such program.
    """
    faults = []
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or cells[0] == "theirs" or set(line) <= set("|-"):
            continue
        cases, count = None, 0
        for program, name in MENTION.findall(cells[-1]):
            if program:
                cases = cases_of(program)
                continue
            count += 1
            begin = name[:-3] if name.endswith("...") else None
            found = [case for case in cases or [] if case == name or (begin and case.startswith(begin))]
            if len(found) != 1:
                faults.append(f"line {number}: {len(found)} cases \"{name}\"")
        if len(cells) != 2 or (count == 0 and not re.match(r"not: \S", cells[-1])):
            faults.append(f"line {number}: neither a test case nor a reason")
    return faults


class Conformance(unittest.TestCase):
    def test_each_test_case_that_the_table_names_exists(self):
        folder = os.path.join(ROOT, "tests")

        def cases_of(program):
            path = os.path.join(folder, program + ".cpp")
            return test_cases(path) if os.path.exists(path) else None

        with open(os.path.join(folder, "conformance.md"), encoding="utf-8") as file:
            text = file.read()
        self.assertEqual(faults_of_table(text, cases_of), [])
        self.assertGreater(text.count("\n| "), 150)

    def test_a_table_that_lies_is_found_out(self):
        cases = {"test_a": ["one", "two: of three", "two: of four"]}

        def faults(ours):
            return len(faults_of_table(f"| theirs | ours |\n|---|---|\n| a test | {ours} |\n", cases.get))

        for truth in ('`test_a` "one"', '`test_a` "one"; "two: of t..."', "not: a reason", 'not: as `test_a` "one"'):
            with self.subTest(cell=truth):
                self.assertEqual(faults(truth), 0)
        lies = ('`test_a` "on"', '`test_b` "one"', '`test_a` "two..."', '"one"', "", "not:", "one", "test_a one | more",
                '`test_a` "one"; "three"', 'not: as `test_a` "none"')
        for lie in lies:
            with self.subTest(cell=lie):
                self.assertGreater(faults(lie), 0)


PROFILE = """events: Ir
ob=(1) /bin/program
fl=(1) a.cpp
fn=(1) main
0x10 7 2
cob=(2) libc.so
cfi=(2) b.c
cfn=(2) puts
calls=2 0x90
0x14 8 600
fi=(3) inlined.hpp
0x18 9 4
0x10 7 1

ob=(2)
fl=(2)
fn=(2)
0x90 1 2
"""

DISASSEMBLY = """
0000000000001130 <f>:
    1130:\tlock cmpxchg %edx,(%rdi)
    1134:\txchg   %rax,0x2a89d(%rip)        # 31438 <word>
    113b:\txchg   %ax,%ax
    113d:\tlock orq $0x0,(%rsp)
    1143:\tlock orb $0x1,(%rdi)
    1147:\tmfence
    114a:\tmov    (%rdi),%eax
    114c:\tlock xadd %rax,(%rdi)
"""

TRACED = """==7== Callgrind
SYSCALL[7,2](44) sys_sendto ( 6, 0x5599eb0, 64, 16448, 0x0, 0 ) --> [async] ...
SYSCALL[7,2](44) ... [async] --> Success(0x40)
SYSCALL[7,1](  3) sys_close ( 5 )[sync] --> Success(0x0)
SYSCALL[7,1](  3) sys_close ( 6 )[sync] --> Failure(0x9)
"""


class Cost(unittest.TestCase):
    def figures(self, **changes):
        return {**dict.fromkeys(cost.COLUMNS, 4.0), "instructions": 200.0, **changes}

    def difference(self, figures):
        return types.SimpleNamespace(figures=figures, calls={"recvfrom": 3.0, "sendto": 1.0})

    def test_each_instruction_is_counted_where_it_ran(self):
        counts = cost.Counts()
        cost.read_profile(PROFILE.splitlines(), counts)
        self.assertEqual(
            counts.instructions,
            {("/bin/program", 0x10): 3, ("/bin/program", 0x18): 4, ("libc.so", 0x90): 2},  # and not the 600 of a call
        )
        self.assertEqual(counts.places["/bin/program", 0x18], ("main", "inlined.hpp", "9"))
        self.assertEqual(counts.places["libc.so", 0x90], ("puts", "b.c", "1"))

    def test_atomic_instructions_and_fences_are_told_from_others(self):
        kinds = {address: kind for address, (kind, _) in cost.read_disassembly(DISASSEMBLY.splitlines()).items()}
        wanted = {0x1130: "atomic", 0x1134: "atomic", 0x113D: "fence", 0x1143: "atomic", 0x1147: "fence", 0x114C: "atomic"}
        self.assertEqual(kinds, wanted)

    def test_a_system_call_counts_once(self):
        counts = cost.Counts()
        cost.read_calls(TRACED.splitlines(), counts)
        self.assertEqual(counts.calls, {"sendto": 1, "close": 2})

    def test_a_figure_that_has_grown_fails_and_says_what_to_do(self):
        was = self.figures()
        for column in cost.COLUMNS:
            with self.subTest(column=column):
                now = self.figures(**{column: was[column] * 1.06 + 1})
                passes, lines = cost.judge("yield_2", was, self.difference(now))
                self.assertFalse(passes)
                told = "\n".join(lines)
                for words in ("yield_2", f"{column}: was {cost.number(was[column])}, is ", "--show yield_2", "--accept"):
                    self.assertIn(words, told)
                self.assertIn("callgrind_annotate", told)

    def test_what_stays_within_5_percent_passes_in_silence(self):
        near = self.figures(instructions=209.0, atomics=4.1, clock=3.9)
        self.assertEqual(cost.judge("yield_2", self.figures(), self.difference(near)), (True, []))

    def test_the_first_read_modify_write_is_seen(self):
        was, now = self.figures(atomics=0.0), self.figures(atomics=1.0)
        self.assertEqual(cost.grown(was, now), ["atomics"])

    def test_a_gain_passes_and_asks_to_be_kept(self):
        passes, lines = cost.judge("yield_2", self.figures(), self.difference(self.figures(instructions=150.0)))
        self.assertTrue(passes)
        self.assertIn("better", lines[0])
        self.assertIn("--accept", lines[0])

    def test_a_crowd_a_hundred_times_as_large_may_take_8_percent_more_for_each(self):
        few = self.figures(instructions=200.0)
        for most, passes in ((150.0, True), (216.0, True), (217.0, False)):
            found = cost.judge_crowds({"park_1000": few, "park_100000": self.figures(instructions=most, atomics=9.0)})
            self.assertEqual([name for name, (is_flat, _) in found.items() if is_flat], ["park_100000"] if passes else [])
        told, = found["park_100000"][1]
        for words in ("park_100000", "217", "200"):
            self.assertIn(words, told)
        self.assertEqual(cost.judge_crowds({"park_1000": few, "yield_100000": few, "mutex": few}), {})

    def test_crowds_of_both_sizes_are_counted_and_come_as_often_as_is_divided_by(self):
        names = set(cost.operations_in_source())
        large = {name for name in names if name.endswith(cost.LARGE_CROWD)}
        self.assertGreaterEqual(len(large), 3)
        for name in large:
            self.assertIn(name.removesuffix(cost.LARGE_CROWD) + cost.SMALL_CROWD, names)
            self.assertEqual(cost.counts_of(name), (100000, 200000))
        self.assertEqual(cost.counts_of("park_1000"), (cost.FEW, cost.MANY))

    def test_an_operation_that_is_not_in_the_baseline_fails(self):
        self.assertFalse(cost.judge("fresh", None, self.difference(self.figures()))[0])

    def test_counting_that_is_wrong_is_found_out(self):
        right = {name: self.figures(instructions=100.0 + 50 * i, **{"libc atomics": 2.0, **columns})
                 for i, (name, columns) in enumerate(cost.RULERS.items())}
        self.assertEqual(cost.check_ruler(right), [])
        for name in cost.RULERS:
            for column in cost.RULER:
                with self.subTest(name=name, column=column):
                    wrong = {**right, name: {**right[name], column: right[name][column] + 1}}
                    self.assertNotEqual(cost.check_ruler(wrong), [])
        self.assertNotEqual(cost.check_ruler({name: {**right[name], "instructions": 100.0} for name in right}), [])

    def test_the_baseline_is_read_as_it_was_written(self):
        known = {"x86_64, g++ 1": {"known": self.figures(), "mutex": self.figures(clock=0.03)}, "x86_64, clang 2": {}}
        self.assertEqual(cost.read_baseline(cost.written_baseline(known)), known)

    def test_the_baseline_has_each_operation(self):
        for key, figures in cost.load_baseline().items():
            with self.subTest(baseline=key):
                self.assertEqual(list(figures), list(cost.operations_in_source()))

    def test_the_table_in_the_documentation_is_that_of_the_baseline(self):
        with open(cost.PAGE, encoding="utf-8") as file:
            page = file.read()
        self.assertIn(cost.BEGIN, page)
        self.assertEqual(page, cost.page_with(page, cost.markdown(cost.load_baseline())), "run tests/cost/run.py --markdown")
        self.assertNotEqual(page, cost.page_with(page, "another table"))


if __name__ == "__main__":
    unittest.main()
