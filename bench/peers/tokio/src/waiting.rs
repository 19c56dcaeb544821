//! bench/waiters.cpp and bench/timers.cpp: what a wait costs while many others wait as well.
use crate::measure::{expect_sum, report, usage, Arguments};
use crate::{cpu_ns, elapsed_ns};
use std::future::{poll_fn, Future};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{mpsc, watch, Mutex, Semaphore};
use tokio::task::{unconstrained, yield_now, JoinHandle};
use tokio::time::{sleep, sleep_until, Instant};

async fn join_all<T>(running: Vec<JoinHandle<T>>) -> Vec<T> {
    let mut results = Vec::with_capacity(running.len());
    for one in running {
        results.push(one.await.unwrap());
    }
    results
}

async fn to_receivers(waiters: usize, each: usize) {
    let (items, gate) = async_channel::bounded::<usize>(1);
    let sender = tokio::spawn(async move {
        for sent in 0..waiters * each {
            items.send(sent).await.unwrap();
            yield_now().await;
        }
    });
    let receive = |gate: async_channel::Receiver<usize>| async move {
        let mut mine = 0;
        while gate.recv().await.is_ok() {
            mine += 1;
        }
        mine
    };
    let receivers = (0..waiters).map(|_| tokio::spawn(receive(gate.clone()))).collect();
    let received = join_all(receivers).await.iter().sum::<usize>();
    sender.await.unwrap();
    expect_sum("receivers", received, waiters * each);
}

async fn from_senders(waiters: usize, each: usize) {
    let (items, mut received) = mpsc::channel::<usize>(1);
    let receiver = tokio::spawn(async move {
        let mut sum = 0;
        for _ in 0..waiters * each {
            sum += received.recv().await.unwrap();
            yield_now().await;
        }
        sum
    });
    let send = |items: mpsc::Sender<usize>| async move {
        for _ in 0..each {
            items.send(1).await.unwrap();
        }
    };
    join_all((0..waiters).map(|_| tokio::spawn(send(items.clone()))).collect()).await;
    expect_sum("senders", receiver.await.unwrap(), waiters * each);
}

async fn through_mutex(waiters: usize, each: usize) {
    let total = Arc::new(Mutex::new(0));
    let lock = |total: Arc<Mutex<usize>>| async move {
        for _ in 0..each {
            let mut held = total.lock().await;
            *held += 1;
            yield_now().await;
        }
    };
    join_all((0..=waiters).map(|_| tokio::spawn(lock(total.clone()))).collect()).await;
    expect_sum("mutex", *total.lock().await, (waiters + 1) * each);
}

async fn through_semaphore(waiters: usize, each: usize) {
    let shared = Arc::new((Semaphore::new(1), AtomicUsize::new(0)));
    let acquire = |shared: Arc<(Semaphore, AtomicUsize)>| async move {
        for _ in 0..each {
            let _held = shared.0.acquire().await.unwrap();
            shared.1.store(shared.1.load(SeqCst) + 1, SeqCst);
            yield_now().await;
        }
    };
    join_all((0..=waiters).map(|_| tokio::spawn(acquire(shared.clone()))).collect()).await;
    expect_sum("semaphore", shared.1.load(SeqCst), (waiters + 1) * each);
}

async fn work(side: &str, waiters: usize, each: usize) {
    match side {
        "receivers" => to_receivers(waiters, each).await,
        "senders" => from_senders(waiters, each).await,
        "mutex" => through_mutex(waiters, each).await,
        "semaphore" => through_semaphore(waiters, each).await,
        _ => usage("waiters --side receivers|senders|mutex|semaphore"),
    }
}

pub async fn waiters(arguments: Arguments) {
    let side = arguments.text("--side", "receivers");
    let waiters = arguments.number("--waiters", 100);
    let tasks = waiters + ["mutex", "semaphore"].contains(&side) as usize;
    let each = arguments.number("--count", 1000000) / tasks;
    work(side, waiters, each / 10 + 1).await;
    report(side, elapsed_ns(work(side, waiters, each)).await / (tasks * each) as f64, "ns");
}

const SPREAD: Duration = Duration::from_millis(1);

/// Tasks that all sleep when they are told until when. Who is too slow to arm before the first of them wakes tries again, with
/// more time.
struct Crowd {
    size: usize,
    pause: Duration,
    first: watch::Sender<Instant>,
    asleep: Arc<AtomicUsize>,
    fired: Arc<AtomicUsize>,
}

impl Crowd {
    fn new(size: usize) -> Crowd {
        let pause = Duration::from_millis(2) + Duration::from_micros(size as u64);
        let (first, news) = watch::channel(Instant::now());
        let (asleep, fired) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        for i in 0..size {
            let (mut news, asleep, fired) = (news.clone(), asleep.clone(), fired.clone());
            let offset = SPREAD * i as u32 / size as u32;
            tokio::spawn(async move {
                while news.changed().await.is_ok() {
                    let first = *news.borrow_and_update();
                    asleep.fetch_add(1, SeqCst);
                    sleep_until(first + offset).await;
                    fired.fetch_add(1, SeqCst);
                }
            });
        }
        Crowd { size, pause, first, asleep, fired }
    }

    /// Returns when all sleep, the first of them at least for `longer` from now.
    async fn lie_down(&mut self, longer: Duration) {
        loop {
            self.asleep.store(0, SeqCst);
            self.fired.store(0, SeqCst);
            let first = Instant::now() + self.pause + longer;
            self.first.send(first).unwrap();
            while self.asleep.load(SeqCst) != self.size {
                yield_now().await;
            }
            yield_now().await;
            if Instant::now() + longer < first {
                return;
            }
            self.wake().await;
            self.pause *= 2;
        }
    }

    async fn wake(&self) {
        let first = *self.first.borrow();
        sleep_until(first + SPREAD + Duration::from_micros(200)).await;
        while self.fired.load(SeqCst) != self.size {
            yield_now().await;
        }
    }
}

/// A timer is armed when it is first polled, and called off when it is dropped. Without the budget that makes a task pause after
/// so many operations: a timer that is polled beyond it is not armed.
async fn limit_ns(end: Instant) -> f64 {
    let mut done = 0;
    let arm_and_call_off = async {
        while Instant::now() < end {
            for _ in 0..1000 {
                let mut timer = pin!(sleep(Duration::from_secs(30) + Duration::from_micros(done)));
                poll_fn(|context| Poll::Ready(timer.as_mut().poll(context).is_ready())).await;
                done += 1;
            }
        }
    };
    elapsed_ns(unconstrained(arm_and_call_off)).await / done as f64
}

pub async fn timers(arguments: Arguments) {
    let timers = arguments.number("--timers", 1000);
    let rounds = (100000 / timers).clamp(1, 100);
    let mut crowd = Crowd::new(timers);
    crowd.lie_down(Duration::from_millis(150)).await;
    limit_ns(Instant::now() + Duration::from_millis(10)).await;
    report("arm_cancel", limit_ns(Instant::now() + Duration::from_millis(100)).await, "ns");
    crowd.wake().await;
    let mut fire_ns = 0.0;
    for _ in 0..rounds {
        crowd.lie_down(Duration::ZERO).await;
        let before_ns = cpu_ns();
        crowd.wake().await;
        fire_ns += cpu_ns() - before_ns;
    }
    report("fire", fire_ns / (timers * rounds) as f64, "ns");
}
