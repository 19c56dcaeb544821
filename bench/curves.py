# bench/curves.py - how a cost grows: with more workers than there are processors, with more fibers, waiters, timers.
#
# A curve is a row of experiments (rows.py) that differ in one number. Each operation of ours should cost no more as that grows;
# this is judged: a point divided by the cheapest of those with less, the worst such ratio of the curve, may not pass its limit.
# (What gets cheaper, because two processors share it or many share a wake-up, is no fault.) The same is said of the peers, for
# comparison. Their number is kept small, since each point costs a run of everybody: Go, and tokio and Boost.Fiber
# where they have the workload.
from dataclasses import dataclass

import report
import rows
from contenders import NO_RENDEZVOUS, TAKES_PART, everyone
from rows import Experiment, Figure

PEERS = ("Go", "tokio", "Boost.Fiber")
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
                     among("spawn", workers, many=True, count=n, rounds=max(1, most // n // 3))) for n in crowds}, "flat"))
    found.append(Curve("fibers_parked", "made and parked, woken and ended [1]", "fibers", {
        n: point(f"{n:,} parked and woken", 1,
                 [Figure("create_again", "made and parked, each", "ns"), Figure("wake_again", "woken and ended, each", "ns")],
                 among("parked", 1, count=n, rounds=max(1, most // n // 3))) for n in crowds}, "flat"))
    for workers in (1, 2):
        found.append(Curve(f"fibers_yield_{workers}", f"yield among n [{workers}]", "fibers", {
            n: point(f"yield among {n:,}", workers, [Figure("yield", "a yield", "ns")],
                     among("yield", workers, fibers=n, count=max(scale(5000000), 20 * n))) for n in crowds}, "flat"))
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
                "label": result["label"], "unit": result["unit"], "points": []})
            own["points"].append({"x": x, "figures": result["figures"], "failed": result["failed"], "absent": row["absent"],
                                  "notes": row["notes"]})
            given_up.update({name: f"failed with {x:,} {curve.axis}: {why}" for name, why in result["failed"].items()
                             if name != report.OURS})
    return list(found.values())


def contenders(curve):
    return list(dict.fromkeys(name for point in curve["points"] for name in point["figures"]))


def costs(curve, name):
    return [(point["x"], point["figures"][name]["median"]) for point in curve["points"] if name in point["figures"]]


# How many times what it costs with less it costs at the worst point, and which that is. None when there are not two points.
def growth(curve, name):
    there = costs(curve, name)
    ratios = [(cost / min(before for _, before in there[:i]), x) for i, (x, cost) in enumerate(there)
              if i > 0 and min(before for _, before in there[:i]) > 0]
    return max(ratios, default=None)


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
    return f"met: {words}" if times <= curve["limit"] else f"**not met**: {words}"


def ours_first(names):
    return sorted(names, key=lambda name: (name != report.OURS, names.index(name)))


def growth_text(curve, name):
    found = growth(curve, name)
    return f"{name} {found[0]:.2f}" if found else f"{name} -"


# A line for each curve and contender, a column for each number.
def markdown(curves):
    lines = ["", "## Growth curves", "", "Cost of one operation (ns unless it is said) as one number grows. Last column: a point "
             "divided by the cheapest one before it, at the worst. Judged for ours: it may not pass the limit."]
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
