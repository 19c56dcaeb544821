# bench/weights.py - what a library costs before anything runs: the compiler's time for its header, and bytes of code.
#
# A contender is `compiler`, then what the row is about: a header with the flags of the compiler, or a source. The time is the
# compiler's own on a processor, user and system, so that other work on the machine does not count. The size is the text of
# a stripped program less that of an empty one which is built with the same flags.
import os
import resource
import subprocess
import tempfile

import build


def compile_or_fail(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise build.Unavailable("does not compile: " + (done.stderr.splitlines() or ["no message"])[0])


def children_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# command: compiler, header with its brackets or quotes, flags
def compile_time(command, _settings):
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "one.cpp")
        with open(source, "w", encoding="utf-8") as file:
            file.write(f"#include {command[1]}\nint main() {{}}\n")
        before = children_seconds()
        flags = ["-std=c++17", "-O2", "-pthread", "-I" + build.TOP, *command[2:]]
        compile_or_fail([command[0], *flags, "-c", source, "-o", "one.o"], folder)
        return {"time": (children_seconds() - before) * 1000}


def text_bytes(path):
    done = subprocess.run(["size", path], capture_output=True, text=True)
    if done.returncode != 0:
        raise build.Unavailable("there is no `size` here (package binutils)")
    return int(done.stdout.splitlines()[1].split()[0])


# command: compiler, source, flags
def size(command, _settings):
    flags = ["-std=c++17", "-Os", "-DNDEBUG", "-pthread", "-s", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections",
             "-I" + build.TOP]
    sizes = []
    with tempfile.TemporaryDirectory() as folder:
        empty = os.path.join(folder, "empty.cpp")
        with open(empty, "w", encoding="utf-8") as file:
            file.write("int main() {}\n")
        for source in (empty, os.path.join(build.BENCH, command[1])):
            compile_or_fail([command[0], *flags, source, "-o", "program", *command[2:]], folder)
            sizes.append(text_bytes(os.path.join(folder, "program")))
    return {"text": (sizes[1] - sizes[0]) / 1024}
