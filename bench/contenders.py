# bench/contenders.py - who takes part with which program, in what its work differs, and why others do not.
from dataclasses import dataclass, field


# One who may take part: how its programs are called, which ones it has, and why it lacks the others.
@dataclass
class Peer:
    command: str            # `{program}` stands for the program's name; the first word is what build.py makes
    programs: set           # names; one with a flag, as `skynet --join`, stands for that way of running it alone
    lacks: dict = field(default_factory=dict)   # program -> why; "" for all that are not named
    most_workers: int = 0   # more than these it cannot run with; 0: any number
    too_many: str = ""      # why not
    any_workers: set = field(default_factory=set)  # programs that `most_workers` does not hold for
    differs: dict = field(default_factory=dict)    # program -> in what its work differs; "" for all that are not named
    counts: dict = field(default_factory=dict)     # program -> its own --count, from the others': a run takes a second or so

    def why_not(self, program, form, workers):
        if not self.programs & {program, form}:
            return self.lacks.get(form) or self.lacks.get(program) or self.lacks.get("", "has no program for it")
        is_limited = self.most_workers and program not in self.any_workers
        return self.too_many if is_limited and workers > self.most_workers else ""

    def note(self, program, form):
        return self.differs.get(form) or self.differs.get(program) or self.differs.get("", "")


SOCKETLESS = "has no sockets of its own"
JOINLESS = "has no fork-join: that would be row c again"
SCOPELESS = "has no groups of fibers that are joined and cancelled together"
NO_RENDEZVOUS = "has no rendezvous: capacity 1 stands for the unbuffered channel"
TASKS_ALONE = "has only tasks that run to their end, and wait for none but those they made"
TASKS = "its tasks cannot wait for one another"
THREADS = "its fibers are threads of the kernel, and workers the processors they may use"
STACKLESS = "its tasks are stackless: they keep what lives across a wait"
MILLISECONDS = "its timers are of whole milliseconds"
ONE_LOOP = "is one loop on one thread here"
ONE_THREAD = "runs everything on one thread"
COLLECTED = "its heap is collected before the memory is read"
PROMISES = "its async functions begin at once in their caller: these await nothing first, so that they wait their turn"
CHANNELLESS = "has no channels"
CALLBACKS = "has callbacks at its sockets"
UNWRITTEN = "has no program for it here"


def a_tenth(count):
    return max(1, count // 10)


TAKES_PART = {
    "Go": Peer("go {program}", {"yield", "spawn", "ping_pong", "channel", "select", "ring", "skynet", "mutex", "sleepers",
                                "parked", "nursery", "idle", "echo", "http", "fib", "waiters", "timers", "latency"},
               counts={"fib": lambda n: n - 9}),
    "Boost.Fiber": Peer("boost_fiber/{program}", {"yield", "spawn", "ping_pong", "channel", "ring", "skynet", "mutex", "sleepers",
                                                  "parked"},
                        {"select": "has no select", "nursery": SCOPELESS, "fib": JOINLESS, "waiters": UNWRITTEN,
                         "timers": UNWRITTEN, "latency": UNWRITTEN, "": SOCKETLESS}),
    "tokio": Peer("tokio {program}", {"yield", "spawn", "ping_pong", "channel", "select", "ring", "skynet", "mutex", "sleepers",
                                      "parked", "nursery", "idle", "echo", "http", "waiters", "timers", "latency"},
                  {"fib": JOINLESS},
                  differs={"yield": STACKLESS, "spawn": STACKLESS,
                           "parked": STACKLESS + "; its channel is that of the crate async-channel",
                           "waiters": "its channels have no rendezvous, but capacity 1; with several receivers, of async-channel",
                           "timers": MILLISECONDS, "latency": MILLISECONDS,
                           "nursery": "a crowd is a JoinSet, whose tasks are dropped where they wait when it is cancelled"},
                  counts={"yield": lambda count: count // 2}),
    "rayon": Peer("rayon {program}", {"fib", "spawn", "skynet --join"}, {"": TASKS_ALONE},
                  differs={"spawn": TASKS, "skynet": TASKS}),
    "TBB": Peer("tbb/{program}", {"fib", "spawn", "skynet --join"}, {"": TASKS_ALONE},
                differs={"spawn": TASKS, "skynet": TASKS}, counts={"fib": lambda n: n - 5}),
    "crossbeam": Peer("crossbeam {program}", {"ping_pong", "channel", "select"},
                      {"": "has channels and queues between threads, and no fibers", "fib": JOINLESS},
                      differs={"": THREADS, "channel --never-wait": "its one fiber is a thread"},
                      counts={"ping_pong": lambda count: count // 20, "select": lambda count: count // 20, "channel": a_tenth,
                              "channel --never-wait": lambda count: count}),
    "Asio": Peer("asio/{program}", {"ping_pong", "channel", "sleepers", "echo", "http", "idle"},
                 {"select": "has no select: a receive that is given up may take a value along",
                  "fib": JOINLESS, "": "is a loop for I/O, and has no program for it"},
                 most_workers=1, too_many="has a loop to each thread here: its coroutines meet on one",
                 any_workers={"http", "idle"},
                 differs={"idle": ONE_LOOP},
                 counts={"channel --never-wait": lambda count: count // 3}),
    "libuv": Peer("libuv/{program}", {"sleepers", "echo", "http", "idle"},
                  {"": "has callbacks at one loop, and nothing that waits"},
                  most_workers=1, too_many="has a loop to each thread, and a timer belongs to one",
                  any_workers={"http", "idle"},
                  differs={"sleepers": MILLISECONDS + ", and may fire up to one early",
                           "idle": ONE_LOOP + ", and handles wait in it, for it has no fibers"}),
    "Java": Peer("java {program}", {"yield", "spawn", "ping_pong", "channel", "ring", "skynet", "mutex", "sleepers", "parked",
                                    "fib", "idle", "echo", "http", "latency"},
                 {"select": "has no select", "nursery": "has its StructuredTaskScope as a preview only"},
                 differs={"parked": "waits for a latch, since its queues cannot be closed; " + COLLECTED,
                          "fib": "forks tasks of a ForkJoinPool, not threads"}),
    "Kotlin": Peer("kotlin {program}", {"yield", "spawn", "ping_pong", "channel", "select", "ring", "skynet", "mutex", "sleepers",
                                        "parked", "nursery"},
                   {"fib": JOINLESS, **dict.fromkeys(("idle", "echo", "http"), SOCKETLESS)},
                   differs={"parked": STACKLESS + "; " + COLLECTED, "": STACKLESS}),
    "Node": Peer("node {program}", {"yield", "spawn", "ping_pong", "skynet --join", "sleepers", "parked", "idle", "echo", "http"},
                 {**dict.fromkeys(("channel", "select", "ring", "skynet"), CHANNELLESS), "nursery": SCOPELESS, "fib": JOINLESS,
                  "mutex": "has no mutex, since nothing interrupts a function of its one thread"},
                 most_workers=1, too_many=ONE_THREAD, any_workers={"idle", "http"},
                 differs={"yield": "awaits what is there already, and looks at no socket or timer", "spawn": PROMISES,
                          "skynet": PROMISES, "ping_pong": CHANNELLESS + ": two promises make one that is unbuffered",
                          "parked": "waits for a promise; " + COLLECTED, "idle": ONE_THREAD, "echo": CALLBACKS,
                          "http": CALLBACKS + ", and a process to a worker"}),
}

# They belong to row g, but no package has them whose version could be pinned.
NOT_TO_BE_HAD = {"Taskflow": "is in no package of this system", "libfork": "is in no package of this system"}


def words_of(workers, settings):
    words = ["--workers", str(workers)]
    for name, value in settings.items():
        words += ["--" + name.replace("_", "-")] + ([] if value is True else [str(value)])
    return words


# Ours and all that have the program, with the same arguments: `contenders`, `absent` and `differs` of an experiment.
def everyone(program, workers, **settings):
    words = words_of(workers, settings)
    form = " ".join([program] + ["--" + name.replace("_", "-") for name, value in settings.items() if value is True])
    found = {"contenders": {"concur": ["ours/" + program] + words}, "absent": {}, "differs": {}}
    for name, peer in TAKES_PART.items():
        why = peer.why_not(program, form, workers)
        if why:
            found["absent"][name] = why
            continue
        count_for = peer.counts.get(form, peer.counts.get(program))
        own = {**settings, "count": count_for(settings["count"])} if count_for else settings
        found["contenders"][name] = peer.command.format(program=program).split() + words_of(workers, own)
        if peer.note(program, form):
            found["differs"][name] = peer.note(program, form)
    return found
