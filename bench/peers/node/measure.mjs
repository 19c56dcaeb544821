// How the programs here take their arguments, take time, and speak: as bench/measure.hpp does.
import { readFileSync } from "node:fs";

const WARM_UP_NS = 5e8;
const NUMBERS = ["--workers", "--count", "--fibers", "--connections", "--port"];
const FLAGS = ["--many", "--join", "--serve", "--nodehttp"];

const words = process.argv.slice(2);

export const number = (name, otherwise) => {
  const at = words.indexOf(name);
  return at >= 0 ? Number(words[at + 1]) : otherwise;
};
export const has = (name) => words.includes(name);
export const report = (name, value, unit) => console.log(`${name} ${value.toFixed(3)} ${unit}`);
export const nowNs = () => performance.now() * 1e6;

export const warmUp = async (work) => {
  const start = nowNs();
  while (nowNs() - start < WARM_UP_NS) await work();
};

// The rate of a timed run, in nanoseconds for each of n operations.
export const perOperation = async (n, work) => {
  const start = nowNs();
  await work();
  return (nowNs() - start) / n;
};

export const statusBytes = (field) => {
  const line = readFileSync("/proc/self/status", "utf8").split("\n").find((one) => one.startsWith(field + ":"));
  return Number(line.split(/\s+/)[1]) * 1024;
};

// Work that was not done must not be timed.
export const expectSum = (what, got, wanted) => {
  if (got === wanted) return;
  console.error(`${what}: got ${got}, expected ${wanted}`);
  process.exit(1);
};

// The time this process has been on a processor, in all its threads and in the kernel on its behalf.
export const cpuNs = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) * 1000;
};

// The subcommand that was asked for; unknown words end the program.
export const chosen = (commands) => {
  const unknown = words.find((one) => one.startsWith("--") && !NUMBERS.includes(one) && !FLAGS.includes(one));
  if (unknown || !commands[words[0]]) {
    const usage = `usage: ${Object.keys(commands).join("|")} [--workers N] ...`;
    console.error(unknown ? `unknown argument ${unknown}` : usage);
    process.exit(2);
  }
  return commands[words[0]];
};
