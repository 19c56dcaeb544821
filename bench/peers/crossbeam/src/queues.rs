//! bench/queue_crowd.hpp with ArrayQueue, whatever the --kind: crossbeam has one bounded queue for all.
use crate::measure::{elapsed_ns, expect_sum, report, Arguments};
use crossbeam::queue::ArrayQueue;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::{hint, thread};

/// Who is told "full" or "empty" tries again as everybody does there: a few pauses, then the processor is yielded.
fn insist<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let mut tries = 0;
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        tries += 1;
        if tries % 64 == 0 {
            thread::yield_now();
        } else {
            hint::spin_loop();
        }
    }
}

/// From the moment in which all threads are there.
fn crowd_ns(capacity: usize, pushers: usize, poppers: usize, count: usize) -> f64 {
    let queue = ArrayQueue::new(capacity);
    let each = (count / pushers / poppers + 1) * poppers;
    let (ready, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let start = || {
        ready.fetch_add(1, SeqCst);
        while ready.load(SeqCst) <= pushers + poppers {
            thread::yield_now();
        }
    };
    let mut ns = 0.0;
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..pushers {
            threads.push(scope.spawn(|| {
                start();
                (1..=each).for_each(|value| insist(|| queue.push(value).ok()));
            }));
        }
        for _ in 0..poppers {
            threads.push(scope.spawn(|| {
                start();
                let mine: usize = (0..each * pushers / poppers).map(|_| insist(|| queue.pop())).sum();
                sum.fetch_add(mine, SeqCst);
            }));
        }
        while ready.load(SeqCst) < pushers + poppers {
            thread::yield_now();
        }
        ns = elapsed_ns(|| {
            ready.fetch_add(1, SeqCst);
            threads.into_iter().for_each(|one| one.join().unwrap());
        });
    });
    expect_sum("what arrived", sum.into_inner(), pushers * (each * (each + 1) / 2));
    ns / (each * pushers) as f64
}

fn alone_ns(capacity: usize, count: usize) -> f64 {
    let queue = ArrayQueue::new(capacity);
    let mut sum = 0;
    let ns = elapsed_ns(|| {
        for value in 1..=count {
            if queue.push(value).is_ok() {
                sum += queue.pop().unwrap_or(0);
            }
        }
    });
    expect_sum("what arrived", sum, count * (count + 1) / 2);
    ns / count as f64
}

const PASSES: usize = 25;

pub fn queue(arguments: Arguments) {
    let count = arguments.number("--count", 4000000);
    let capacity = arguments.number("--capacity", 1024);
    let pushers = arguments.number("--pushers", 1);
    let poppers = arguments.number("--poppers", 1);
    if pushers == 0 {
        let mut all: Vec<f64> = (0..PASSES).map(|_| alone_ns(capacity, count / PASSES + 1)).collect();
        all.sort_by(f64::total_cmp);
        return report("alone", all[PASSES / 2], "ns");
    }
    crowd_ns(capacity, pushers, poppers, count / 10);
    report("item", crowd_ns(capacity, pushers, poppers, count), "ns");
}
