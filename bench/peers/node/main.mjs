// The workloads of bench/*.cpp, on Node: one program, one subcommand each.
//
// Measured as the C++ programs are: inside the process, on the monotonic clock, and printed as `name value unit`. The engine
// interprets first and compiles what is hot, so the warm-up repeats the work until half a second has gone by. What a fiber is
// elsewhere is here an async function. It runs in its caller up to its first await; where it has to wait its turn as a fiber
// does it awaits nothing first. Node runs all of them on one thread, and only http can be given more, as processes.
import { createServer } from "node:net";
import { chosen, cpuNs, expectSum, nowNs, number, has, perOperation, report, statusBytes, warmUp } from "./measure.mjs";
import { echo, http } from "./network.mjs";

// To await what is there already lets every other function run that can, but looks at no socket and no timer.
const yieldTogether = (fibers, each) => {
  const one = async () => {
    for (let k = 0; k < each; k++) await undefined;
  };
  return Promise.all(Array.from({ length: fibers }, one));
};

const yields = async () => {
  const fibers = number("--fibers", 2);
  const each = Math.floor(number("--count", 1000000) / fibers);
  await warmUp(() => yieldTogether(fibers, Math.floor(each / 10) + 1));
  report("yield", await perOperation(each * fibers, () => yieldTogether(fibers, each)), "ns");
};

const empty = async () => {
  await undefined;
};

const spawnInTurn = async (n) => {
  for (let i = 0; i < n; i++) await empty();
};

const spawnAtOnce = async (room) => {
  for (let i = 0; i < room.length; i++) room[i] = empty();
  for (const one of room) await one;
};

const spawn = async () => {
  const count = number("--count", 1000000);
  if (!has("--many")) {
    await warmUp(() => spawnInTurn(Math.floor(count / 10) + 1));
    report("spawn_join", await perOperation(count, () => spawnInTurn(count)), "ns");
    return;
  }
  const room = new Array(count).fill(null);
  report("spawn_many_cold", await perOperation(count, () => spawnAtOnce(room)), "ns");
  await warmUp(() => spawnAtOnce(room));
  report("spawn_many", await perOperation(count, () => spawnAtOnce(room)), "ns");
};

// Node has no channels. This is the least one can be: whoever comes first leaves a promise, and a sender is answered when its
// value has been taken.
class Rendezvous {
  #sender = null;
  #receiver = null;

  send(value) {
    if (this.#receiver) {
      const take = this.#receiver;
      this.#receiver = null;
      take(value);
      return Promise.resolve();
    }
    return new Promise((taken) => (this.#sender = { value, taken }));
  }

  receive() {
    if (this.#sender) {
      const { value, taken } = this.#sender;
      this.#sender = null;
      taken();
      return Promise.resolve(value);
    }
    return new Promise((take) => (this.#receiver = take));
  }
}

const roundTrips = (n) => {
  const there = new Rendezvous();
  const back = new Rendezvous();
  const answers = async () => {
    for (let value; (value = await there.receive()) >= 0; ) await back.send(value + 1);
  };
  const asks = async () => {
    for (let i = 0; i < n; i++) {
      await there.send(i);
      await back.receive();
    }
    await there.send(-1);
  };
  return Promise.all([answers(), asks()]);
};

const pingPong = async () => {
  const count = number("--count", 1000000);
  await warmUp(() => roundTrips(Math.floor(count / 10) + 1));
  report("ping_pong", await perOperation(count, () => roundTrips(count)), "ns");
};

const CHILDREN = 10;

const joined = async (first, leaves) => {
  await undefined;
  if (leaves === 1) return first;
  const each = Math.floor(leaves / CHILDREN);
  const results = await Promise.all(Array.from({ length: CHILDREN }, (_, i) => joined(first + i * each, each)));
  return results.reduce((sum, one) => sum + one, 0);
};

const skynet = async () => {
  const leaves = number("--count", 1000000);
  const tree = async () => expectSum("skynet", await joined(0, leaves), (leaves * (leaves - 1)) / 2);
  report("skynet_cold", (await perOperation(1, tree)) / 1e6, "ms");
  await warmUp(tree);
  report("skynet", (await perOperation(1, tree)) / 1e6, "ms");
};

const sleep = (pauseMs) => new Promise((woken) => setTimeout(woken, pauseMs));

const meanLatenessNs = async (n) => {
  const lateNs = new Float64Array(n);
  const one = async (i) => {
    const pauseMs = 1 + Math.floor((i * 999) / n);
    const due = nowNs() + pauseMs * 1e6;
    await sleep(pauseMs);
    lateNs[i] = nowNs() - due;
  };
  await Promise.all(Array.from({ length: n }, (_, i) => one(i)));
  return lateNs.reduce((sum, late) => sum + late, 0) / n;
};

// The crowd in between is the warm-up: its code has been compiled when the last one sleeps.
const sleepers = async () => {
  const count = number("--count", 100000);
  const before = cpuNs();
  await meanLatenessNs(count);
  report("cpu_cold", (cpuNs() - before) / 1e6, "ms");
  await meanLatenessNs(count);
  const between = cpuNs();
  const lateNs = await meanLatenessNs(count);
  report("cpu", (cpuNs() - between) / 1e6, "ms");
  report("late", lateNs / 1e6, "ms");
};

// Many async functions wait for one promise.
class Crowd {
  arrived = 0;
  gone = 0;
  gate = new Promise((open) => (this.open = open));

  async grow(n) {
    const one = async () => {
      this.arrived++;
      await this.gate;
      this.gone++;
    };
    const before = this.arrived;
    for (let i = 0; i < n; i++) one();
    while (this.arrived !== before + n) await undefined;
  }

  async wake() {
    this.open();
    while (this.gone !== this.arrived) await undefined;
  }
}

// The warm-up is by small crowds that come and go: a large one would leave behind the memory that the next is to be charged for.
// Memory is read when what nobody holds any more has been collected, which is not part of any time.
const parked = async () => {
  const count = number("--count", 1000000);
  const crowd = new Crowd();
  await crowd.grow(1);
  gc();
  const resident = statusBytes("VmRSS");
  const tables = statusBytes("VmPTE");
  await warmUp(async () => {
    const small = new Crowd();
    await small.grow(1000);
    await small.wake();
  });
  report("create", await perOperation(count, () => crowd.grow(count)), "ns");
  gc();
  report("resident", (statusBytes("VmRSS") - resident) / count, "bytes");
  report("page_tables", (statusBytes("VmPTE") - tables) / count, "bytes");
  report("wake", await perOperation(count, () => crowd.wake()), "ns");
};

// Async functions that wait and a socket nobody connects to. The script that started us watches what it costs.
const idle = async () => {
  const crowd = new Crowd();
  await crowd.grow(number("--count", 10000));
  createServer().listen(0, "127.0.0.1", () => console.log("ready"));
  await crowd.gate;
};

await chosen({ yield: yields, spawn, ping_pong: pingPong, skynet, sleepers, parked, idle, echo, http })();
