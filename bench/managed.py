# bench/managed.py - makes the peers that run on somebody's virtual machine: Java, Kotlin, Node.
#
# Each becomes one file that calls it with the flags it is measured with. The JDK is the newest there is. Kotlin and its
# coroutines come from Maven Central at the versions of its pom.xml; what was fetched once is in ~/.m2, and not asked for again.
import glob
import os
import re
import shlex
import shutil

PEERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers")
JDK_LEAST = 21  # the first whose virtual threads are no preview

# The collector that is made for throughput: in most rows the one that is chosen by itself, G1, is slower.
JAVA_FLAGS = ["-XX:+UseParallelGC"]

# a folder of peers/: what it needs of build.PEERS
NEEDS = {"java": ["Java"], "kotlin": ["Java", "Kotlin's Maven"], "node": ["Node"]}


def java_version(home):
    try:
        with open(os.path.join(home, "release"), encoding="utf-8") as file:
            found = re.search(r'JAVA_VERSION="([^"]+)"', file.read())
    except OSError:
        return ""
    return found.group(1) if found and os.path.exists(os.path.join(home, "bin", "javac")) else ""


# Where JAVA_HOME says, or where packages put them. "" when there is none that is new enough.
def jdk():
    homes = [os.environ.get("JAVA_HOME", ""), *sorted(glob.glob("/usr/lib/jvm/*"))]
    versions = {home: [int(part) for part in re.findall(r"\d+", java_version(home))] for home in homes}
    enough = {home: version for home, version in versions.items() if version and version[0] >= JDK_LEAST}
    return max(enough, key=enough.get, default="")


def kotlin_version():
    with open(os.path.join(PEERS, "kotlin", "pom.xml"), encoding="utf-8") as file:
        pom = file.read()
    language = re.search(r"<kotlin.version>([^<]+)", pom).group(1)
    return f"{language}, kotlinx.coroutines " + re.search(r"kotlinx-coroutines-\S+\s*<version>([^<]+)", pom).group(1)


def write_launcher(output, *words):
    os.makedirs(os.path.dirname(output), exist_ok=True)
    with open(output, "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\nexec {" ".join(map(shlex.quote, words))} "$@"\n')
    os.chmod(output, 0o755)


# `run_compiler` is build.py's.
def make(kind, output, run_compiler):
    folder, target = os.path.join(PEERS, kind), os.path.abspath(output) + "_classes"
    java = os.path.join(jdk(), "bin", "java")
    if kind == "java":
        sources = sorted(glob.glob(os.path.join(folder, "*.java")))
        run_compiler([java + "c", "-d", target, *sources], output)
        write_launcher(output, java, *JAVA_FLAGS, "-cp", target, "Bench")
    elif kind == "kotlin":
        maven = ["mvn", "--quiet", "--batch-mode", "-Dstyle.color=never", "-Doutput=" + target]
        run_compiler([*maven, "package"], output, folder, JAVA_HOME=jdk())
        write_launcher(output, java, *JAVA_FLAGS, "-cp", f"{target}/classes:{target}/lib/*", "BenchKt")
    else:
        write_launcher(output, shutil.which("node"), "--expose-gc", os.path.join(folder, "main.mjs"))
