use crate::measure::{expect_sum, report, Arguments};
use crate::{cpu_ns, elapsed_ns};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, Mutex};
use tokio::task::JoinHandle;

async fn go_round(tasks: usize, rounds: usize) {
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for _ in 0..tasks {
        let (sender, receiver) = mpsc::channel::<usize>(1);
        senders.push(sender);
        receivers.push(receiver);
    }
    senders.rotate_left(1); // each task sends on its neighbour's channel
    let mut links = senders.into_iter().zip(receivers);
    let (next, mut own) = links.next().unwrap();
    let first = tokio::spawn(async move {
        let mut token = 0;
        for _ in 0..rounds {
            next.send(token + 1).await.unwrap();
            token = own.recv().await.unwrap();
        }
        token
    });
    let mut ring = Vec::new();
    for (next, mut own) in links {
        ring.push(tokio::spawn(async move {
            for _ in 0..rounds {
                next.send(own.recv().await.unwrap() + 1).await.unwrap();
            }
        }));
    }
    let token = first.await.unwrap();
    for one in ring {
        one.await.unwrap();
    }
    expect_sum("ring", token, tasks * rounds);
}

pub async fn ring(arguments: Arguments) {
    let tasks = arguments.number("--fibers", 1000);
    let rounds = arguments.number("--count", 2000000) / tasks;
    go_round(tasks, rounds / 10 + 1).await;
    report("hop", elapsed_ns(go_round(tasks, rounds)).await / (tasks * rounds) as f64, "ns");
}

const CHILDREN: usize = 10;

/// Capacity 10, so that a child need not wait for its parent: tokio has no rendezvous.
fn node(up: mpsc::Sender<usize>, first: usize, leaves: usize) -> JoinHandle<()> {
    tokio::spawn(async move {
        if leaves == 1 {
            return up.send(first).await.unwrap();
        }
        let (own, mut received) = mpsc::channel(CHILDREN);
        let each = leaves / CHILDREN;
        for i in 0..CHILDREN {
            node(own.clone(), first + i * each, each);
        }
        let mut sum = 0;
        for _ in 0..CHILDREN {
            sum += received.recv().await.unwrap();
        }
        up.send(sum).await.unwrap();
    })
}

async fn through_channels(leaves: usize) -> usize {
    let (root, mut received) = mpsc::channel(CHILDREN);
    node(root, 0, leaves);
    received.recv().await.unwrap()
}

fn joined(first: usize, leaves: usize) -> JoinHandle<usize> {
    tokio::spawn(async move {
        if leaves == 1 {
            return first;
        }
        let each = leaves / CHILDREN;
        let below: [_; CHILDREN] = std::array::from_fn(|i| joined(first + i * each, each));
        let mut sum = 0;
        for one in below {
            sum += one.await.unwrap();
        }
        sum
    })
}

pub async fn skynet(arguments: Arguments) {
    let leaves = arguments.number("--count", 1000000);
    let join = arguments.has("--join");
    for name in ["skynet_cold", "skynet"] {
        let mut sum = 0;
        let whole =
            async { sum = if join { joined(0, leaves).await.unwrap() } else { through_channels(leaves).await } };
        let ns = elapsed_ns(whole).await;
        expect_sum("skynet", sum, leaves * (leaves - 1) / 2);
        report(name, ns / 1e6, "ms");
    }
}

async fn contend(tasks: usize, each: usize) {
    let total = Arc::new(Mutex::new(0));
    let mut running = Vec::new();
    for _ in 0..tasks {
        let total = total.clone();
        running.push(tokio::spawn(async move {
            for _ in 0..each {
                *total.lock().await += 1;
            }
        }));
    }
    for one in running {
        one.await.unwrap();
    }
    expect_sum("mutex", *total.lock().await, tasks * each);
}

pub async fn mutex(arguments: Arguments) {
    let tasks = arguments.number("--fibers", 8);
    let each = arguments.number("--count", 10000000) / tasks;
    contend(tasks, each / 10 + 1).await;
    report("lock", elapsed_ns(contend(tasks, each)).await / (tasks * each) as f64, "ns");
}

async fn mean_lateness_ns(count: usize) -> f64 {
    let mut crowd = Vec::with_capacity(count);
    for i in 0..count {
        let pause = Duration::from_millis(1 + (i * 999 / count) as u64);
        crowd.push(tokio::spawn(async move {
            let due = Instant::now() + pause;
            tokio::time::sleep(pause).await;
            due.elapsed().as_nanos() as f64
        }));
    }
    let mut sum = 0.0;
    for one in crowd {
        sum += one.await.unwrap();
    }
    sum / count as f64
}

pub async fn sleepers(arguments: Arguments) {
    let count = arguments.number("--count", 100000);
    let before = cpu_ns();
    mean_lateness_ns(count).await;
    let between = cpu_ns();
    report("cpu_cold", (between - before) / 1e6, "ms");
    let late_ns = mean_lateness_ns(count).await;
    report("cpu", (cpu_ns() - between) / 1e6, "ms");
    report("late", late_ns / 1e6, "ms");
}
