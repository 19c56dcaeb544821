//! bench/latency.cpp: how long after it could have gone on a task does so. Prints every sample, in ns.
use crate::measure::{usage, Arguments};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{sleep, sleep_until, Instant};

/// On a runtime that has been idle for a third of a millisecond.
async fn woken_by_a_thread(count: usize) -> Vec<Duration> {
    let (moments, mut sent) = mpsc::channel::<Instant>(1);
    let sender = thread::spawn(move || {
        for _ in 0..count {
            thread::sleep(Duration::from_micros(300));
            moments.blocking_send(Instant::now()).unwrap();
        }
    });
    let mut samples = Vec::new();
    while let Some(moment) = sent.recv().await {
        samples.push(moment.elapsed());
    }
    sender.join().unwrap();
    samples
}

async fn woken_among_yielding(count: usize) -> Vec<Duration> {
    let is_over = Arc::new(AtomicBool::new(false));
    let received = Arc::new(AtomicUsize::new(0));
    for _ in 0..100 {
        let is_over = is_over.clone();
        tokio::spawn(async move {
            while !is_over.load(SeqCst) {
                yield_now().await;
            }
        });
    }
    let (moments, mut sent) = mpsc::channel::<Instant>(1);
    let counted = received.clone();
    let receiver = tokio::spawn(async move {
        let mut samples = Vec::new();
        while let Some(moment) = sent.recv().await {
            samples.push(moment.elapsed());
            counted.fetch_add(1, SeqCst);
        }
        samples
    });
    for i in 0..count {
        yield_now().await;
        moments.send(Instant::now()).await.unwrap();
        while received.load(SeqCst) != i + 1 {
            yield_now().await;
        }
    }
    drop(moments);
    is_over.store(true, SeqCst);
    receiver.await.unwrap()
}

async fn load_by_half(is_over: Arc<AtomicBool>) {
    let mut next = Instant::now();
    while !is_over.load(SeqCst) {
        next = (next + Duration::from_micros(200)).max(Instant::now());
        sleep_until(next).await;
        let end = Instant::now() + Duration::from_micros(100);
        while Instant::now() < end {}
    }
}

async fn lateness(count: usize, loads: usize) -> Vec<Duration> {
    const SLEEPERS: usize = 10;
    let is_over = Arc::new(AtomicBool::new(false));
    for _ in 0..loads {
        tokio::spawn(load_by_half(is_over.clone()));
    }
    let sleeper = || async move {
        let mut samples = Vec::with_capacity(count / SLEEPERS);
        for _ in 0..count / SLEEPERS {
            let due = Instant::now() + Duration::from_millis(1);
            sleep(Duration::from_millis(1)).await;
            samples.push(due.elapsed());
        }
        samples
    };
    let running: Vec<_> = (0..SLEEPERS).map(|_| tokio::spawn(sleeper())).collect();
    let mut samples = Vec::new();
    for one in running {
        samples.extend(one.await.unwrap());
    }
    is_over.store(true, SeqCst);
    samples
}

pub async fn latency(arguments: Arguments) {
    let count = arguments.number("--count", 3000);
    let samples = match arguments.text("--kind", "woken") {
        "woken" => woken_by_a_thread(count).await,
        "woken_busy" => woken_among_yielding(count).await,
        "timer" => lateness(count, 0).await,
        "timer_busy" => lateness(count, arguments.number("--workers", 1)).await,
        _ => usage("latency --kind woken|woken_busy|timer|timer_busy"),
    };
    for sample in samples {
        println!("sample {} ns", sample.as_nanos());
    }
}
