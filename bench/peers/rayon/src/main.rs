//! The workloads of bench/*.cpp that rayon has words for: those in which a task only ever waits for the tasks it made.
//!
//! A pool of --workers threads, and the body inside it; everything else is left as rayon ships it.
#[path = "../../measure.rs"]
mod measure;

use measure::{elapsed_ns, expect_sum, report, usage, Arguments};

/// Every call of it is a fork but the last ones: no cut-off.
fn fib(n: usize) -> usize {
    if n < 2 {
        return n;
    }
    let (one, other) = rayon::join(|| fib(n - 1), || fib(n - 2));
    one + other
}

fn calls_and_result(n: usize) -> (usize, usize) {
    let (mut result, mut next) = (0, 1);
    for _ in 0..n {
        (result, next) = (next, result + next);
    }
    (2 * next - 1, result)
}

fn fork_join(arguments: Arguments) {
    let n = arguments.number("--count", 32);
    let (calls, result) = calls_and_result(n);
    fib(n - 4);
    let mut got = 0;
    report("call", elapsed_ns(|| got = fib(n)) / calls as f64, "ns");
    expect_sum("fib", got, result);
}

fn spawn(arguments: Arguments) {
    let count = arguments.number("--count", 1000000);
    if !arguments.has("--many") {
        let in_turn = |count| (0..count).for_each(|_| rayon::scope(|scope| scope.spawn(|_| ())));
        in_turn(count / 10 + 1);
        return report("spawn_join", elapsed_ns(|| in_turn(count)) / count as f64, "ns");
    }
    for name in ["spawn_many_cold", "spawn_many"] {
        let all = || rayon::scope(|scope| (0..count).for_each(|_| scope.spawn(|_| ())));
        report(name, elapsed_ns(all) / count as f64, "ns");
    }
}

const CHILDREN: usize = 10;

fn joined(first: usize, leaves: usize) -> usize {
    if leaves == 1 {
        return first;
    }
    let each = leaves / CHILDREN;
    let mut results = [0; CHILDREN];
    rayon::scope(|scope| {
        for (i, result) in results.iter_mut().enumerate() {
            scope.spawn(move |_| *result = joined(first + i * each, each));
        }
    });
    results.iter().sum()
}

fn skynet(arguments: Arguments) {
    let leaves = arguments.number("--count", 1000000);
    if !arguments.has("--join") {
        usage("skynet --join");
    }
    for name in ["skynet_cold", "skynet"] {
        let ns = elapsed_ns(|| expect_sum("skynet", joined(0, leaves), leaves * (leaves - 1) / 2));
        report(name, ns / 1e6, "ms");
    }
}

fn main() {
    let (command, arguments) = Arguments::with_command(&["--workers", "--count", "--many", "--join"]);
    let workers = arguments.number("--workers", 1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(workers).build().expect("a pool");
    pool.install(|| match command.as_str() {
        "fib" => fork_join(arguments),
        "spawn" => spawn(arguments),
        "skynet" => skynet(arguments),
        _ => usage("fib|spawn|skynet"),
    });
}
