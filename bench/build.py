# bench/build.py - makes every program a contender needs, and says by name what cannot be had.
#
# All C++ programs get the same flags, ours included. Peers come from the system's packages, those in Rust from crates.io at the
# versions that their Cargo.lock names; of Java, Kotlin and Node see managed.py. As root what is missing is installed, otherwise
# it is named.
import os
import shutil
import subprocess
import sys

import managed

BENCH = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(BENCH)
OUT = os.path.join(os.environ.get("BUILD") or os.path.join(TOP, "build"), "bench")
CXX = os.environ.get("CXX") or "g++"
FLAGS = ["-std=c++17", "-O2", "-DNDEBUG", "-pthread"]


# What drives HTTP servers at a constant rate: from crates.io, built once, some minutes long.
OHA_VERSION = "1.16.0"
OHA = os.path.join(OUT, "oha", "bin", "oha")


def install_oha():
    if os.path.exists(OHA) or not shutil.which("cargo"):
        return
    print(f"building oha {OHA_VERSION}, which takes some minutes", flush=True)
    done = subprocess.run(["cargo", "install", "oha", "--version", OHA_VERSION, "--locked", "--quiet", "--root",
                           os.path.join(OUT, "oha"), "--target-dir", os.path.join(OUT, "cargo")], capture_output=True, text=True)
    if done.returncode != 0:
        print("failed: cargo install oha:", (done.stderr.strip().splitlines() or ["no message"])[-1])


# A Python that has the plotting library; what Debian installs is there for Debian's own Python, which need not be ours.
def plotting_python():
    for python in (sys.executable, "/usr/bin/python3"):
        if os.path.exists(python) and subprocess.run([python, "-c", "import matplotlib"], capture_output=True).returncode == 0:
            return python
    return None


CARGO = "the Rust peers' cargo"

# what it is for, how it shows, what Debian calls it
PEERS = {
    "Go": (lambda: shutil.which("go"), "golang-go"),
    "Boost.Fiber": (lambda: os.path.exists("/usr/include/boost/fiber/all.hpp"), "libboost-fiber-dev"),
    "Boost.Context": (lambda: os.path.exists("/usr/include/boost/context/fiber.hpp"), "libboost-context-dev"),
    CARGO: (lambda: shutil.which("cargo"), "cargo"),
    "Boost.Lockfree": (lambda: os.path.exists("/usr/include/boost/lockfree/queue.hpp"), "libboost-dev"),
    "moodycamel": (lambda: os.path.exists("/usr/include/concurrentqueue/concurrentqueue.h"), "libconcurrentqueue-dev"),
    "moodycamel's 1 to 1": (lambda: os.path.exists("/usr/include/readerwriterqueue/readerwriterqueue.h"),
                            "libreaderwriterqueue-dev"),
    "TBB": (lambda: os.path.exists("/usr/include/tbb/concurrent_queue.h"), "libtbb-dev"),
    "Asio": (lambda: os.path.exists("/usr/include/asio/experimental/channel.hpp"), "libasio-dev"),
    "libuv": (lambda: os.path.exists("/usr/include/uv.h"), "libuv1-dev"),
    "Java": (managed.jdk, f"openjdk-{managed.JDK_LEAST}-jdk-headless"),
    "Kotlin's Maven": (lambda: shutil.which("mvn"), "maven"),
    "Node": (lambda: shutil.which("node"), "nodejs"),
    "wrk": (lambda: shutil.which("wrk"), "wrk"),
    "nginx": (lambda: shutil.which("nginx") or os.path.exists("/usr/sbin/nginx"), "nginx-light"),
    "matplotlib": (plotting_python, "python3-matplotlib"),
    "oha": (lambda: os.path.exists(OHA), f"by cargo: oha {OHA_VERSION}"),
}


# a folder of peers/ in C++: what must be there, and what its programs are linked with; Asio's are in the C++ of its coroutines
CXX_PEERS = {
    "boost_fiber": (["Boost.Fiber"], ["-lboost_fiber", "-lboost_context"]),
    "boost_context": (["Boost.Context"], ["-lboost_context"]),
    "boost_lockfree": (["Boost.Lockfree"], ["-latomic"]),
    "moodycamel": (["moodycamel", "moodycamel's 1 to 1"], []),
    "tbb": (["TBB"], ["-ltbb"]),
    "asio": (["Asio"], ["-std=c++20"]),
    "libuv": (["libuv"], ["-luv"]),
}

# folders of peers/ in Rust, each one program; what they share is measure.rs
RUST_PEERS = ("tokio", "rayon", "crossbeam")


class Unavailable(Exception):
    pass


# with_oha: a row needs it, and it takes minutes to build.
def install_peers(may_install, with_oha):
    missing = {name: package for name, (is_there, package) in PEERS.items() if not is_there()}
    packages = [package for package in missing.values() if not package.startswith("by cargo")]
    if packages and may_install and os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing", ", ".join(packages))
        # One at a time: a package that cannot be had must not cost the others.
        for command in [["update"]] + [["install", "-y", "--no-install-recommends", one] for one in packages]:
            done = subprocess.run(["apt-get", "-qq"] + command, stdout=subprocess.DEVNULL,
                                  env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
            if done.returncode != 0:
                print("failed: apt-get", " ".join(command))
    if may_install and with_oha:
        install_oha()
    missing = {name: package for name, (is_there, package) in PEERS.items() if not is_there()}
    for name, package in missing.items():
        if name == "oha" and not with_oha:
            continue
        effect = "there are no plots" if name == "matplotlib" else "its columns stay empty"
        print(f"missing: {name} (package {package}); {effect}")
    return set(missing)


def header_directory():
    for directory in (TOP, os.path.join(TOP, "src")):
        if os.path.exists(os.path.join(directory, "concur.hpp")):
            return directory
    raise Unavailable("there is no concur.hpp: run `make amalgamate`")


def newest(*paths):
    times = []
    for path in paths:
        if os.path.isdir(path):
            times += [newest(os.path.join(path, name)) for name in os.listdir(path)]
        elif path.endswith((".cpp", ".hpp", ".go", ".mod", ".rs", ".toml", ".lock", ".java", ".kt", ".xml", ".mjs")):
            times.append(os.path.getmtime(path))
    return max(times, default=0)


def run_compiler(command, output, directory=None, **variables):
    os.makedirs(os.path.dirname(output), exist_ok=True)
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, env={**os.environ, **variables})
    if done.returncode != 0:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if "error" in line.lower()] or ["no message"]
        raise Unavailable(f"does not build: {lines[0].strip()}")


def cxx(output, source, depends, includes, libraries=()):
    if os.path.exists(output) and os.path.getmtime(output) > newest(source, *depends):
        return
    run_compiler([CXX, *FLAGS, *["-I" + path for path in includes], "-o", output, source, *libraries], output)


# The path of the program a contender's first word names; made when it is not there or older than its sources.
def program(name, missing):
    output = os.path.join(OUT, name.replace("/", "_"))
    kind, _, base = name.partition("/")
    shared = [os.path.join(BENCH, header) for header in os.listdir(BENCH) if header.endswith(".hpp")]
    if kind in ("ours", "example"):
        header = header_directory()
        folder = BENCH if kind == "ours" else os.path.join(TOP, "examples")
        source = os.path.join(folder, base + ".cpp")
        if not os.path.exists(source):
            raise Unavailable(f"there is no {os.path.relpath(source, TOP)}")
        whole = header if header != TOP else os.path.join(TOP, "concur.hpp")
        cxx(output, source, [*shared, whole], [header, TOP])
    elif kind == "floor":
        folder = os.path.join(BENCH, "peers", "floor")
        cxx(output, os.path.join(folder, base + ".cpp"), [*shared, folder], [])
    elif kind in CXX_PEERS:
        peers, libraries = CXX_PEERS[kind]
        for peer in peers:
            if peer in missing:
                raise Unavailable(f"{peer} is not installed")
        folder = os.path.join(BENCH, "peers", kind)
        cxx(output, os.path.join(folder, base + ".cpp"), [*shared, folder], [], libraries)
    elif kind == "go":
        if "Go" in missing:
            raise Unavailable("Go is not installed")
        folder = os.path.join(BENCH, "peers", "go")
        if not os.path.exists(output) or os.path.getmtime(output) < newest(folder):
            run_compiler(["go", "build", "-o", output, "."], output, folder)
    elif kind in RUST_PEERS:
        if CARGO in missing:
            raise Unavailable("cargo, which builds it, is not installed")
        folder = os.path.join(BENCH, "peers", kind)
        sources = [os.path.join(folder, name) for name in ("src", "Cargo.toml", "Cargo.lock")]
        if not os.path.exists(output) or os.path.getmtime(output) < newest(*sources, os.path.join(BENCH, "peers", "measure.rs")):
            target = os.path.join(OUT, "cargo", kind)
            run_compiler(["cargo", "build", "--quiet", "--release", "--locked", "--target-dir", target], output, folder)
            shutil.copy(os.path.join(target, "release", "concurbench"), output)
    elif kind == "compiler":
        return shutil.which(CXX) or CXX
    elif kind in managed.NEEDS:
        for need in managed.NEEDS[kind]:
            if need in missing:
                raise Unavailable(f"{need} is not installed" + (f" in version {managed.JDK_LEAST}" if need == "Java" else ""))
        if not os.path.exists(output) or os.path.getmtime(output) < newest(os.path.join(BENCH, "peers", kind)):
            managed.make(kind, output, run_compiler)
    elif kind == "oha":
        return OHA
    elif kind == "nginx":
        if "nginx" in missing:
            raise Unavailable("nginx is not installed")
        return shutil.which("nginx") or "/usr/sbin/nginx"
    return output


def first_line(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[0]
    except (OSError, IndexError):
        return "not there"


def crate_version(crate):
    with open(os.path.join(BENCH, "peers", crate, "Cargo.lock"), encoding="utf-8") as file:
        lines = file.read().splitlines()
    return lines[lines.index(f'name = "{crate}"') + 1].split('"')[1]


# What says its version itself; for the rest the package says it.
SAY_VERSION = {"Go": ("go", "version"), CARGO: ("rustc", "--version"), "Node": ("node", "--version")}


def versions(missing):
    said = {}
    for name, (_, package) in PEERS.items():
        if name in missing:
            said[name] = "not there"
        elif name == "oha":
            said[name] = OHA_VERSION
        elif name == "Java":
            said[name] = " ".join([managed.java_version(managed.jdk()), *managed.JAVA_FLAGS])
        else:
            command = SAY_VERSION.get(name, ("dpkg-query", "-W", "-f=${Version}", package.split()[0]))
            said[name] = first_line(*command)
    return {**said, "Kotlin": managed.kotlin_version(), **{crate: crate_version(crate) for crate in RUST_PEERS}}


def memory_gib():
    with open("/proc/meminfo", encoding="ascii") as file:
        return round(int(file.readline().split()[1]) / 2**20, 1)


def machine(missing=()):
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return {
        "cpu": models[0] if models else os.uname().machine, "cpus": len(os.sched_getaffinity(0)), "memory": f"{memory_gib()} GiB",
        "kernel": f"{os.uname().sysname} {os.uname().release}", "compiler": first_line(CXX, "--version"),
        "flags": " ".join(FLAGS), "peers": versions(missing),
    }
