# bench/rows.py - what is measured: every workload, who takes part, and the goal it is held to.
#
# An experiment is one way of running several programs (the contenders) that do the same work; it yields one or more figures.
# A goal has two readings, and both are shown. The plain one is a number from the machine the goals were set on. The fair one is
# a ratio to a peer in the same run, since lone times drift by 30 % between machines: it is goal / what that peer took there.
from dataclasses import dataclass, field

from contenders import NO_RENDEZVOUS, NOT_TO_BE_HAD, everyone, words_of


@dataclass
class Goal:
    value: float            # in the figure's unit, on the machine the goals were set on; 0 with `ratio` alone
    against: str = ""       # the peer of the fair reading; none: only the plain reading counts
    took: float = 0         # what that peer took there
    ratio: float = 0        # a goal that is a ratio from the start

    def limit(self):
        return self.ratio or (self.value / self.took if self.took else 0)


@dataclass
class Figure:
    name: str               # the word the program prints
    label: str
    unit: str
    goal: Goal = None
    more_is_better: bool = False


@dataclass
class Experiment:
    row: str
    title: str
    workers: int
    figures: list
    contenders: dict        # name -> command; its first word names what build.py makes
    runner: str = "program"  # program, latency, idle, echo, http, http_latency: see measure.py
    settings: dict = field(default_factory=dict)
    absent: dict = field(default_factory=dict)  # name -> why it takes no part
    notes: dict = field(default_factory=dict)   # name -> in what its work differs; marked `*`, and said below the table
    once: tuple = ()        # who is measured a single time, because it takes minutes; marked like a note
    differs: dict = field(default_factory=dict)  # as `notes`, from the table of those who take part

    def key(self):
        return f"{self.row}: {self.title} [{self.workers}]"

    def all_notes(self, also_once=()):
        said = {name: [note] for name, note in self.differs.items() if name in self.contenders}
        for name, note in self.notes.items():
            said.setdefault(name, []).append(note)
        for name in dict.fromkeys((*self.once, *also_once)):
            said.setdefault(name, []).append("takes so long that it is measured a single time")
        return {name: "; ".join(parts) for name, parts in said.items()}


def goal(value, go):
    return Goal(value, "Go", go)


ONE_LESS = "its channel of capacity 128 holds 127"
ASYNC_CHANNEL = "its own channel has one receiver: the crate async-channel is measured"


def switches(scale):
    return [Experiment(
        "a", "bare switch", 1,
        [Figure("switch", "a switch", "ns", Goal(1.5, "Boost.Context", 5.0))],
        {"concur": ["ours/switch", "--count", str(scale(100000000))],
         "Boost.Context": ["boost_context/switch", "--count", str(scale(50000000))],
         "bare switch": ["floor/switch", "--count", str(scale(100000000))]},
        absent={"Go": "has no switch of its own to call", "Boost.Fiber": "switches by Boost.Context"})]


def yields(scale):
    rows = []
    for fibers, workers, best in ((2, 1, goal(7, 121)), (1000, 1, goal(9, 130)), (1000, 2, goal(6, 135))):
        taking_part = everyone("yield", workers, fibers=fibers, count=scale(10000000))
        if workers == 1:
            taking_part["contenders"]["bare queue"] = ["floor/yield"] + taking_part["contenders"]["concur"][1:]
            taking_part["differs"]["bare queue"] = "contexts in a list take turns, with no runtime around them"
        rows.append(Experiment("b", f"yield, {fibers} fibers", workers, [Figure("yield", "a yield", "ns", best)],
                               **taking_part))
    return rows


def spawns(scale):
    rows = []
    for workers, best in ((1, goal(45, 502)), (2, goal(50, 561))):
        rows.append(Experiment("c", "spawn and join, one after another", workers,
                               [Figure("spawn_join", "a fiber", "ns", best)],
                               **everyone("spawn", workers, count=scale(2000000))))
    for workers, best in ((1, goal(75, 1340)), (2, goal(60, 690))):
        rows.append(Experiment("c", "a million spawned, then joined", workers,
                               [Figure("spawn_many", "a fiber", "ns", best),
                                Figure("spawn_many_cold", "a fiber, on a fresh heap", "ns")],
                               **everyone("spawn", workers, many=True, count=scale(1000000))))
    return rows


def channels(scale):
    rows = []
    for workers, best in ((1, goal(65, 443)), (2, goal(85, 486))):
        rows.append(Experiment("d", "unbuffered ping-pong", workers, [Figure("ping_pong", "a round trip", "ns", best)],
                               notes={"tokio": NO_RENDEZVOUS}, **everyone("ping_pong", workers, count=scale(2000000))))
    for pairs, capacity, bests in ((1, 128, (goal(24, 50), goal(40, 92))), (4, 128, (goal(23, 51), goal(40, 57))),
                                   (4, 0, (goal(60, 224), goal(90, 252)))):
        kind = f"buffered {capacity}" if capacity else "unbuffered"
        tokio = ([ASYNC_CHANNEL] if pairs > 1 else []) + ([] if capacity else [NO_RENDEZVOUS])
        notes = {**({"tokio": "; ".join(tokio)} if tokio else {}), **({"Boost.Fiber": ONE_LESS} if capacity else {})}
        for workers, best in zip((1, 2), bests):
            rows.append(Experiment("d", f"{kind}, {pairs} to {pairs}", workers, [Figure("item", "an item", "ns", best)],
                                   notes=notes,
                                   **everyone("channel", workers, pairs=pairs, capacity=capacity, count=scale(4000000))))
    rows.append(Experiment("d", "send and receive that never wait", 1,
                           [Figure("never_wait", "a send and a receive", "ns", goal(24, 44))],
                           notes={"Boost.Fiber": ONE_LESS},
                           **everyone("channel", 1, never_wait=True, count=scale(10000000))))
    for workers, best in ((1, goal(160, 615)), (2, goal(190, 636))):
        rows.append(Experiment("d", "ping-pong, both by select over 2", workers,
                               [Figure("select", "a round trip", "ns", best)], notes={"tokio": NO_RENDEZVOUS},
                               **everyone("select", workers, count=scale(1000000))))
    return rows


def rings(scale):
    fibers = 1000
    return [Experiment("e", f"ring of {fibers}", workers, [Figure("hop", "a hop", "ns", best)],
                       notes={"tokio": NO_RENDEZVOUS}, **everyone("ring", workers, fibers=fibers, count=scale(2000000)))
            for workers, best in ((1, goal(45, 304)), (2, goal(70, 244)))]


# A goal for the whole of the work says nothing about a tenth of it.
def for_whole_work(scale, best):
    return best if scale(10) == 10 else None


# Boost.Fiber's million stacks take it up to a minute for one tree.
def skynets(scale):
    rows = []
    leaves = scale(1000000)
    for join, bests in ((False, (goal(220, 1148), goal(160, 1169))), (True, (goal(90, 1043), goal(60, 928)))):
        for workers, best in zip((1, 2), bests):
            rows.append(Experiment(
                "f", f"skynet, {leaves:,} leaves, " + ("spawned and joined" if join else "through channels"), workers,
                [Figure("skynet", "the whole", "ms", for_whole_work(scale, best)),
                 Figure("skynet_cold", "on a fresh heap", "ms")],
                notes={} if join else {"tokio": "has no rendezvous: a node's channel has capacity 10"},
                once=("Boost.Fiber",), **everyone("skynet", workers, count=leaves, **({"join": True} if join else {}))))
    return rows


def mutexes(scale):
    rows = []
    for fibers, workers, best in ((8, 1, goal(18, 21)), (8, 2, goal(22, 44)), (1, 1, goal(12, 16))):
        title = f"mutex, {fibers} fibers" if fibers > 1 else "mutex, uncontended"
        rows.append(Experiment("i", title, workers, [Figure("lock", "a lock and an unlock", "ns", best)],
                               **everyone("mutex", workers, fibers=fibers, count=scale(20000000))))
    return rows


def sleepers(scale):
    count = scale(100000)
    return [Experiment(
        "j", f"{count:,} sleepers of 1 to 1000 ms", workers,
        [Figure("cpu", "CPU", "ms", for_whole_work(scale, Goal(180, "tokio", 310))),
         Figure("late", "mean lateness", "ms", for_whole_work(scale, goal(0.5, 1.6))),
         Figure("cpu_cold", "CPU, on a fresh heap", "ms")],
        **everyone("sleepers", workers, count=count)) for workers in (1, 2)]


# A count is the n of fib(n) here, and a figure that of one call: peers that take longer are given a smaller n.
def fork_joins(scale):
    rows = []
    for workers, best in ((1, Goal(8, "rayon", 8.6)), (2, Goal(4.5, "rayon", 5.3))):
        taking_part = everyone("fib", workers, count=36 if scale(10) == 10 else 31)
        taking_part["absent"].update(NOT_TO_BE_HAD)
        rows.append(Experiment("g", "fork-join, fib without a cut-off", workers, [Figure("call", "a call", "ns", best)],
                               **taking_part))
    return rows


def parked(scale):
    count = scale(1000000)
    return [Experiment(
        "h", f"{count:,} parked", 1,
        [Figure("resident", "resident, each", "bytes", Goal(4500)), Figure("page_tables", "page tables, each", "bytes"),
         Figure("create", "made and parked, each", "ns", Goal(3000)), Figure("wake", "woken and ended, each", "ns")],
        **everyone("parked", 1, count=count))]


def nurseries(scale):
    rows = []
    for workers in (1, 2):
        rows.append(Experiment(
            "n", "nurseries of 100 children; limits; a crowd cancelled", workers,
            [Figure("child", "a child", "ns"), Figure("limit", "a limit that does not pass, and a yield", "ns"),
             Figure("cancelled", "one of 100,000 parked, from the cancel to its end", "ns")],
            **everyone("nursery", workers, count=scale(2000000), crowd=scale(100000))))
    return rows


def echoes(scale):
    rows = []
    for connections, best in ((1, Goal(5200, "epoll loop", 4700)), (100, goal(5000, 6650))):
        taking_part = everyone("echo", 1, connections=connections, count=scale(300000))
        taking_part["contenders"]["epoll loop"] = ["floor/echo"] + taking_part["contenders"]["concur"][1:]
        rows.append(Experiment(
            "k", f"TCP echo within one process, {connections} connection{'s' if connections > 1 else ''}", 1,
            [Figure("round_trip", "a round trip", "ns", best)], **taking_part))
    for connections in (1, 100):
        taking_part = everyone("echo", 1, serve=True)
        taking_part["contenders"]["epoll loop"] = ["floor/echo"] + taking_part["contenders"]["concur"][1:]
        rows.append(Experiment(
            "k", f"TCP echo to a client process, {connections} connection{'s' if connections > 1 else ''}", 1,
            [Figure("round_trip", "a round trip", "ns"), Figure("cpu", "the server's CPU, each", "ns")],
            runner="echo", settings={"connections": connections, "count": scale(300000)}, **taking_part))
    return rows


def http(scale):
    workers = 2
    words = words_of(workers, {})
    rows = []
    for connections in (64, 512):
        taking_part = everyone("http", workers)
        contenders = taking_part["contenders"]
        contenders["concur"] = ["ours/http_minimal"] + words
        contenders.update({"concur http_server": ["example/http_server"] + words,
                           "Go net/http": ["go", "http", "--nethttp"] + words,
                           "Node node:http": ["node", "http", "--nodehttp"] + words,
                           "epoll loop": ["floor/http"] + words, "nginx": ["nginx"] + words})
        rows.append(Experiment(
            "l", f"HTTP keep-alive, 13-byte reply, wrk with {connections} connections", workers,
            [Figure("requests", "requests a second", "1/s", Goal(0, "epoll loop", ratio=0.97), more_is_better=True),
             Figure("cpu", "the server's CPU, a request", "us", Goal(0, "epoll loop", ratio=1.12))],
            runner="http", settings={"connections": connections, "seconds": 4 if scale(10) == 10 else 2}, **taking_part))
    return rows


def idle(scale):
    seconds = 10 if scale(10) == 10 else 3
    return [Experiment(
        "m", f"idle for {seconds} s: 10,000 parked and an open socket", 2,
        [Figure("switches", "wake-ups", "", Goal(0)), Figure("cpu", "CPU", "us", Goal(0))],
        runner="idle", settings={"seconds": seconds}, **everyone("idle", 2, count=10000))]


UNBOUNDED = "is not bounded: its pushers never wait"


# Plain threads. `workers` is how many there are.
def queues(scale):
    rows = []
    kinds = {1: "spsc_queue", 2: "mpsc_queue", 3: "mpmc_queue"}
    for kind, pushers, poppers in ((1, 0, 0), (2, 0, 0), (3, 0, 0), (1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 4, 1), (3, 1, 1),
                                   (3, 2, 2), (3, 4, 4)):
        words = ["--kind", str(kind), "--pushers", str(pushers), "--poppers", str(poppers), "--capacity", "1024",
                 "--count", str(scale(2000000))]
        shape = f"{pushers} to {poppers}" if pushers else "one thread pushes and pops"
        figure = Figure("item", "an item", "ns") if pushers else Figure("alone", "a push and a pop", "ns")
        rows.append(Experiment(
            "q", f"{kinds[kind]} of 1024, {shape}", pushers + poppers or 1, [figure],
            {"concur": ["ours/queue"] + words, "Boost.Lockfree": ["boost_lockfree/queue"] + words,
             "moodycamel": ["moodycamel/queue"] + words, "TBB": ["tbb/queue"] + words,
             "crossbeam": ["crossbeam", "queue"] + words},
            notes={"moodycamel": UNBOUNDED} if kind != 1 else {}))
    return rows


FUTEX = "is a thread that a futex wakes, or that sleeps: what the machine charges"
NO_THREADS = "has no plain threads: the sender is a goroutine, on a thread of its own, that comes back from a system call"


def percentiles(goal_against=""):
    best = Goal(0, goal_against, ratio=1.0) if goal_against else None
    return [Figure("p50", "p50", "us", best), Figure("p99", "p99", "us", best), Figure("p99_9", "p99.9", "us")]


def latencies(scale):
    rows = []
    for kind, title, count, against in (("woken", "a fiber woken by a plain thread, all idle", 3000, ""),
                                        ("woken_busy", "a fiber woken by a fiber, among 100 that yield", 50000, "Go"),
                                        ("timer", "a sleep of 1 ms, lateness, all idle", 5000, "Go"),
                                        ("timer_busy", "a sleep of 1 ms, lateness, half loaded", 5000, "Go")):
        for workers in (1, 2):
            count = count if kind == "woken_busy" else max(1000, scale(count))
            taking_part = everyone("latency", workers, kind=kind, count=count)
            if kind in ("woken", "timer"):
                taking_part["contenders"]["bare thread"] = ["floor/latency"] + taking_part["contenders"]["concur"][1:]
            notes = {"bare thread": FUTEX} if kind in ("woken", "timer") else {}
            notes.update({"Go": NO_THREADS} if kind == "woken" else {})
            rows.append(Experiment("r", title, workers, percentiles(against), runner="latency", notes=notes,
                                   settings={"samples": 100}, **taking_part))
    return rows


def http_latencies(scale):
    workers = 2
    words = words_of(workers, {})
    contenders = {"concur": ["ours/http_minimal"] + words, "Go": ["go", "http"] + words, "nginx": ["nginx"] + words,
                  "Go net/http": ["go", "http", "--nethttp"] + words, "tokio": ["tokio", "http"] + words,
                  "epoll loop": ["floor/http"] + words}
    whole = scale(10) == 10
    settings = {"connections": 64, "seconds": 5 if whole else 2, "wrk_seconds": 3 if whole else 1}
    return [Experiment("s", "HTTP keep-alive at half load, 64 connections", workers, percentiles("Go"), contenders,
                       runner="http_latency", settings=settings,
                       absent={name: "is measured in row l alone" for name in ("Asio", "libuv", "concur http_server")})]


def compile_times(_scale):
    figure = Figure("time", "the compiler's time", "ms", Goal(900, "<future>", 468))
    contenders = {"concur": ["compiler", '"concur.hpp"'],
                  "concur, declarations": ["compiler", '"concur.hpp"', "-DCONCUR_SEPARATE_COMPILATION"],
                  "<future>": ["compiler", "<future>"], "<iostream>": ["compiler", "<iostream>"],
                  "Boost.Fiber": ["compiler", "<boost/fiber/all.hpp>"], "Asio": ["compiler", "<asio.hpp>"],
                  "TBB": ["compiler", "<tbb/tbb.h>"]}
    return [Experiment("t", "compiling one file that includes it", 1, [figure], contenders, runner="compile")]


def sizes(_scale):
    contenders = {"concur": ["compiler", "least.cpp"],
                  "concur, -fno-exceptions": ["compiler", "least.cpp", "-fno-exceptions", "-fno-rtti"],
                  "Boost.Fiber": ["compiler", "peers/boost_fiber/least.cpp", "-lboost_fiber", "-lboost_context"]}
    return [Experiment("u", "code of one fiber and one channel, over an empty program", 1,
                       [Figure("text", "text", "KiB", Goal(60))], contenders, runner="size",
                       notes={"Boost.Fiber": "what is in its shared libraries does not count"})]


ROWS = {"a": switches, "b": yields, "c": spawns, "d": channels, "e": rings, "f": skynets, "g": fork_joins, "h": parked,
        "i": mutexes, "j": sleepers, "k": echoes, "l": http, "m": idle, "n": nurseries, "q": queues, "r": latencies,
        "s": http_latencies, "t": compile_times, "u": sizes}


# Every experiment of the rows asked for. Quick runs do a tenth of the work: enough to see that all of it runs.
def experiments(letters, quick):
    def scale(count):
        return max(1, count // 10) if quick else count
    return [experiment for letter in letters for experiment in ROWS[letter](scale)]
