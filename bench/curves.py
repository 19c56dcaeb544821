# bench/curves.py - how a cost grows: with more workers than there are processors, with more fibers, waiters, timers.
#
# A curve is a row of experiments (rows.py) that differ in one number. Each operation of ours should cost no more as that grows;
# this is judged: a point divided by the cheapest of those with less, the worst such ratio of the curve, may not pass its limit.
# (What gets cheaper, because two processors share it or many share a wake-up, is no fault.) The same is said of the peers, for
# comparison. Their number is kept small, since each point costs a run of everybody: Go, and tokio and Boost.Fiber
# where they have the workload.
#
# A curve may have a floor, which takes part in the same run: contexts by hand that touch the least memory with which such work
# can be done (peers/floor/crowd_*.cpp). Whoever touches a stack in a million waits for memory, longer than the whole operation
# takes from the cache, however well he does it; the floor, which does nothing else, comes to take twenty times as long.
# So a curve that passes its limit has a second reading. How many times the floor grows is no measure, for nobody who begins at
# 8 ns grows like one that begins at 2. Compared is what the crowd adds, in ns: the cost of a point less the cheapest with fewer,
# ours and the floor's, at each point that passes the limit. Memory may cost us twice what it must cost, as a point may cost
# twice what it did before. Met in this way alone is said to be so, and what ours costs more than the floor has a line of its own.
from dataclasses import dataclass

import report
import rows
from contenders import NO_RENDEZVOUS, TAKES_PART, everyone
from rows import Experiment, Figure

PEERS = ("Go", "tokio", "Boost.Fiber")
FLOOR = "bare contexts"
BESIDE_FLOOR = 2.0  # times what the crowd adds to the floor
LIMIT_S = 40  # for one run; who takes longer is not tried at the larger points
WORKERS = (1, 2, 4, 8)


@dataclass
class Curve:
    key: str
    title: str
    axis: str       # what the numbers of `points` count
    points: dict    # number -> Experiment
    promise: str    # what is judged, in words
    limit: float = 2.0
    floor: str = ""  # the contender that is one


def among(program, workers, without=None, **settings):
    taking_part = everyone(program, workers, **settings)
    for name in TAKES_PART:
        if name not in PEERS:
            for part in taking_part.values():
                part.pop(name, None)
    for name, why in (without or {}).items():
        if taking_part["contenders"].pop(name, None):
            taking_part["differs"].pop(name, None)
            taking_part["absent"][name] = why
    return taking_part


# The same, with the floor that has this program.
def among_with_floor(program, workers, **settings):
    taking_part = among(program, workers, **settings)
    taking_part["contenders"][FLOOR] = [f"floor/crowd_{program}"] + taking_part["contenders"][report.OURS][1:]
    taking_part["differs"][FLOOR] = "do the least with memory that such work needs, with no runtime around them"
    return taking_part


def point(title, workers, figures, taking_part, notes=None):
    notes = {name: note for name, note in (notes or {}).items() if name in taking_part["contenders"]}
    return Experiment("curve", title, workers, figures, settings={"limit_s": LIMIT_S}, notes=notes, **taking_part)


# --- the same work on more workers, in the end on more than there are processors ---

def over_workers(scale):
    slow = {"Boost.Fiber": "takes minutes for one tree"}
    works = [
        ("yield", "yield, 1000 fibers", Figure("yield", "a yield", "ns"), {}, "yield", {"fibers": 1000, "count": scale(5000000)}),
        ("spawn", "spawned at once, then joined", Figure("spawn_many", "a fiber", "ns"), {}, "spawn",
         {"many": True, "count": scale(300000)}),
        ("buffered", "channel, buffered 128, 4 to 4", Figure("item", "an item", "ns"), {}, "channel",
         {"pairs": 4, "capacity": 128, "count": scale(2000000)}),
        ("unbuffered", "channel, unbuffered, 4 to 4", Figure("item", "an item", "ns"), {}, "channel",
         {"pairs": 4, "capacity": 0, "count": scale(1000000)}),
        ("skynet", "skynet through channels", Figure("skynet", "100,000 leaves", "ms"), slow, "skynet", {"count": 100000}),
        ("skynet_join", "skynet, spawned and joined", Figure("skynet", "100,000 leaves", "ms"), slow, "skynet",
         {"join": True, "count": 100000}),
        ("mutex", "mutex, 8 fibers", Figure("lock", "a lock and an unlock", "ns"), {}, "mutex",
         {"fibers": 8, "count": scale(5000000)}),
        ("nursery", "a child of a nursery of 100", Figure("child", "a child", "ns"), {}, "nursery",
         {"count": scale(300000), "crowd": 1000}),
    ]
    notes = {"unbuffered": {"tokio": f"{rows.ASYNC_CHANNEL}; {NO_RENDEZVOUS}"},
             "buffered": {"tokio": rows.ASYNC_CHANNEL, "Boost.Fiber": rows.ONE_LESS},
             "skynet": {"tokio": "has no rendezvous: a node's channel has capacity 10"}}
    return [Curve(f"workers_{key}", title, "workers", {
        n: point(f"{title}: {n} worker{'s' if n > 1 else ''}", n, [figure], among(program, n, without, **settings),
                 notes.get(key)) for n in WORKERS}, "never collapses")
            for key, title, figure, without, program, settings in works]


# --- more fibers ---

CROWDS = (1000, 10000, 100000, 1000000)


# Few fibers are done again until there have been as many as in a large crowd.
def over_fibers(scale):
    most = scale(CROWDS[-1])
    crowds = [n for n in CROWDS if n <= most]
    found = []
    for workers in (1, 2):
        found.append(Curve(f"fibers_spawn_{workers}", f"spawned at once, then joined [{workers}]", "fibers", {
            n: point(f"{n:,} spawned at once, then joined", workers, [Figure("spawn_many", "a fiber", "ns")],
                     among_with_floor("spawn", workers, many=True, count=n, rounds=max(1, most // n // 3)))
            for n in crowds}, "flat", floor=FLOOR))
    found.append(Curve("fibers_parked", "made and parked, woken and ended [1]", "fibers", {
        n: point(f"{n:,} parked and woken", 1,
                 [Figure("create_again", "made and parked, each", "ns"), Figure("wake_again", "woken and ended, each", "ns")],
                 among_with_floor("parked", 1, count=n, rounds=max(1, most // n // 3)))
        for n in crowds}, "flat", floor=FLOOR))
    for workers in (1, 2):
        found.append(Curve(f"fibers_yield_{workers}", f"yield among n [{workers}]", "fibers", {
            n: point(f"yield among {n:,}", workers, [Figure("yield", "a yield", "ns")],
                     among_with_floor("yield", workers, fibers=n, count=max(scale(5000000), 20 * n)))
            for n in crowds}, "flat", floor=FLOOR))
    return found


# --- more waiters, more timers ---

WAITERS = (1, 10, 100, 1000)
TIMERS = (10, 100, 1000, 10000, 100000, 1000000)


def over_waiters(scale):
    found = []
    for side, title, label in (("receivers", "a channel with n parked receivers", "an item"),
                               ("senders", "a channel with n parked senders", "an item"),
                               ("mutex", "a mutex that n fibers wait for", "a lock and an unlock"),
                               ("semaphore", "a semaphore of 1 that n fibers wait for", "an acquire and a release")):
        for workers in (1, 2):
            found.append(Curve(f"waiters_{side}_{workers}", f"{title} [{workers}]", "waiters", {
                n: point(f"{title}: {n:,}", workers, [Figure(side, label, "ns")],
                         among("waiters", workers, side=side, waiters=n, count=scale(1000000))) for n in WAITERS}, "flat"))
    return found


def over_timers(scale):
    most = scale(TIMERS[-1])
    figures = [Figure("arm_cancel", "armed and called off while n sleep", "ns"), Figure("fire", "one of n that wake, CPU", "ns")]
    return [Curve("timers", "timers [1]", "timers", {
        n: point(f"{n:,} timers", 1, figures, among("timers", 1, timers=n)) for n in TIMERS if n <= most}, "flat")]


CURVES = {"workers": over_workers, "fibers": over_fibers, "waiters": over_waiters, "timers": over_timers}


def selected(names, quick):
    def scale(count):
        return max(1, count // 10) if quick else count
    return [curve for name in names for curve in CURVES[name](scale)]


# --- measuring and judging ---

# One curve yields one result for each of its figures. `run` measures an experiment. Who failed is not tried at later points.
def measure_curve(curve, run):
    found, given_up = {}, {}
    for x, experiment in curve.points.items():
        for name, why in given_up.items():
            if name in experiment.contenders:
                del experiment.contenders[name]
                experiment.absent[name] = why
                experiment.notes.pop(name, None)
                experiment.differs.pop(name, None)
        row = run(experiment)
        for result in row["results"]:
            # A name may stand for several figures of one program, so that the key of a curve needs the figure's.
            key = curve.key if len(experiment.figures) == 1 else f"{curve.key}_{result['name']}"
            own = found.setdefault(key, {
                "key": key, "title": curve.title, "axis": curve.axis, "promise": curve.promise, "limit": curve.limit,
                "floor": curve.floor, "label": result["label"], "unit": result["unit"], "points": []})
            own["points"].append({"x": x, "figures": result["figures"], "failed": result["failed"], "absent": row["absent"],
                                  "notes": row["notes"]})
            given_up.update({name: f"failed with {x:,} {curve.axis}: {why}" for name, why in result["failed"].items()
                             if name != report.OURS})
    return list(found.values())


def contenders(curve):
    return list(dict.fromkeys(name for point in curve["points"] for name in point["figures"]))


def costs(curve, name):
    return [(point["x"], point["figures"][name]["median"]) for point in curve["points"] if name in point["figures"]]


# What each point costs, and what the cheapest one with less did: (x, cost, cheapest before). The first has none before it.
def steps(curve, name):
    there = costs(curve, name)
    found = [(x, cost, min(before for _, before in there[:i])) for i, (x, cost) in enumerate(there) if i > 0]
    return [step for step in found if step[2] > 0]


# How many times what it costs with less it costs at the worst point, and which that is. None when there are not two points.
def growth(curve, name):
    return max(((cost / before, x) for x, cost, before in steps(curve, name)), default=None)


# At the points that pass the limit: (times what the crowd adds to the floor, number, what it adds to ours, what to the floor),
# the worst. None when the floor is lacking at one of them. A floor that does not grow excuses nothing.
def beside_floor(curve):
    floors = {x: cost - before for x, cost, before in steps(curve, curve.get("floor"))}
    passing = [(x, cost - before) for x, cost, before in steps(curve, report.OURS) if cost > curve["limit"] * before]
    if not passing or any(x not in floors for x, _ in passing):
        return None
    return max((ours / floors[x] if floors[x] > 0 else float("inf"), x, ours, floors[x]) for x, ours in passing)


# A point that we failed at is no point to leave out.
def verdict_text(curve):
    lacking = [point["x"] for point in curve["points"] if report.OURS not in point["figures"]]
    if lacking:
        return f"**not measured** with {', '.join(f'{x:,}' for x in lacking)} {curve['axis']}"
    found = growth(curve, report.OURS)
    if found is None:
        return "not measured"
    times, x = found
    words = f"at most {times:.2f} times the cost with less (at {x:,}; limit {curve['limit']:g})"
    if times <= curve["limit"]:
        return f"met: {words}"
    beside = beside_floor(curve)
    if beside is None:
        return f"**not met**: {words}"
    times, x, ours, floors = beside
    unit = curve["unit"]
    words += (f"; {report.text_of(ours, unit)} more at {x:,}, the floor {report.text_of(floors, unit)} more"
              f" (limit {BESIDE_FLOOR:g} times)")
    if times <= BESIDE_FLOOR:
        return f"met beside the floor, **not** within {curve['limit']:g} times: {words}"
    return f"**not met**, nor beside the floor: {words}"


# What ours costs more than the floor, at each number where both are known.
def above_floor(curve):
    floors = dict(costs(curve, curve.get("floor")))
    return {x: cost - floors[x] for x, cost in costs(curve, report.OURS) if x in floors}


def ours_first(names):
    return sorted(names, key=lambda name: (name != report.OURS, names.index(name)))


def growth_text(curve, name):
    found = growth(curve, name)
    return f"{name} {found[0]:.2f}" if found else f"{name} -"


# A line for each curve and contender, a column for each number.
def markdown(curves):
    lines = ["", "## Growth curves", "", "Cost of one operation (ns unless it is said) as one number grows. Last column: a point "
             "divided by the cheapest one before it, at the worst. Judged for ours: it may not pass the limit; beside that, "
             f"where there is a floor, what more fibers add in ns may not pass {BESIDE_FLOOR:g} times what they add there."]
    for axis in dict.fromkeys(curve["axis"] for curve in curves):
        own = [curve for curve in curves if curve["axis"] == axis]
        xs = sorted({point["x"] for curve in own for point in curve["points"]})
        lines += ["", f"| by {axis} | | " + " | ".join(f"{x:,}" for x in xs) + " | growth |",
                  "|---|---|" + "--:|" * len(xs) + "---|"]
        for curve in own:
            for name in ours_first(contenders(curve)):
                found = dict(costs(curve, name))
                unit = "" if curve["unit"] == "ns" else curve["unit"]
                cells = [report.text_of(found[x], unit) if x in found else "-" for x in xs]
                title = f"{curve['title']}, {curve['label']}" if name == report.OURS else ""
                said = verdict_text(curve) if name == report.OURS else growth_text(curve, name).split()[-1]
                mark = any(name in point["notes"] for point in curve["points"])
                lines.append(f"| {title} | {name}{'*' if mark else ''} | " + " | ".join(cells) + f" | {said} |")
            above = above_floor(curve)
            if above:
                cells = [report.text_of(above[x], "") if x in above else "-" for x in xs]
                lines.append(f"| | {report.OURS} less {curve['floor']} | " + " | ".join(cells) + " | |")
        lines += remarks(own)
    return lines


def remarks(curves):
    said = {}
    for curve in curves:
        for point in curve["points"]:
            noted = [(name + "*", why) for name, why in point["notes"].items()]
            for one in noted + list(point["absent"].items()) + list(point["failed"].items()):
                places = said.setdefault(one, [])
                if curve["title"] not in places:
                    places.append(curve["title"])
    lines = [f"- {name}: {why} ({'; '.join(places)})." for (name, why), places in said.items()]
    return [""] + lines if lines else []


def print_curve(curve):
    others = ", ".join(growth_text(curve, name) for name in contenders(curve) if name != report.OURS)
    print(f"    {curve['title']}, {curve['label']}: {curve['promise']}? {verdict_text(curve).replace('**', '')}; {others or '-'}")
