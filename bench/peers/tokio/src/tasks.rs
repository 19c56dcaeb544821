//! What making tasks costs, and what those cost that wait: yield, spawn, parked, idle.
use crate::elapsed_ns;
use crate::measure::{report, status_bytes, Arguments};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use tokio::task::yield_now;

/// From the moment when all of them are there.
async fn yields_ns(tasks: usize, each: usize) -> f64 {
    let arrived = Arc::new(AtomicUsize::new(0));
    let is_begun = Arc::new(AtomicBool::new(false));
    let mut running = Vec::new();
    for _ in 0..tasks {
        let (arrived, is_begun) = (arrived.clone(), is_begun.clone());
        running.push(tokio::spawn(async move {
            arrived.fetch_add(1, SeqCst);
            while !is_begun.load(SeqCst) {
                yield_now().await;
            }
            for _ in 0..each {
                yield_now().await;
            }
        }));
    }
    while arrived.load(SeqCst) != tasks {
        yield_now().await;
    }
    let all = async {
        is_begun.store(true, SeqCst);
        for one in running {
            one.await.unwrap();
        }
    };
    elapsed_ns(all).await
}

pub async fn yielding(arguments: Arguments) {
    let tasks = arguments.number("--fibers", 2);
    let each = arguments.number("--count", 10000000) / tasks;
    yields_ns(tasks, each / 10 + 1).await;
    report("yield", yields_ns(tasks, each).await / (tasks * each) as f64, "ns");
}

async fn in_turn(count: usize) {
    for _ in 0..count {
        tokio::spawn(async {}).await.unwrap();
    }
}

async fn all_at_once(room: &mut Vec<tokio::task::JoinHandle<()>>, count: usize) {
    for _ in 0..count {
        room.push(tokio::spawn(async {}));
    }
    for one in room.drain(..) {
        one.await.unwrap();
    }
}

pub async fn spawn(arguments: Arguments) {
    let count = arguments.number("--count", 1000000);
    if !arguments.has("--many") {
        in_turn(count / 10 + 1).await;
        return report("spawn_join", elapsed_ns(in_turn(count)).await / count as f64, "ns");
    }
    let mut room = Vec::with_capacity(count);
    report("spawn_many_cold", elapsed_ns(all_at_once(&mut room, count)).await / count as f64, "ns");
    let rounds = arguments.number("--rounds", 1);
    let again = async {
        for _ in 0..rounds {
            all_at_once(&mut room, count).await;
        }
    };
    report("spawn_many", elapsed_ns(again).await / (count * rounds) as f64, "ns");
}

/// Tasks that wait on one channel, and how many have come and gone.
struct Crowd {
    keeper: async_channel::Sender<usize>,
    gate: async_channel::Receiver<usize>,
    arrived: Arc<AtomicUsize>,
    gone: Arc<AtomicUsize>,
}

impl Crowd {
    fn new() -> Crowd {
        let (keeper, gate) = async_channel::bounded(1);
        Crowd { keeper, gate, arrived: Arc::default(), gone: Arc::default() }
    }

    async fn park(&self, size: usize) {
        let before = self.arrived.load(SeqCst);
        for _ in 0..size {
            let (gate, arrived, gone) = (self.gate.clone(), self.arrived.clone(), self.gone.clone());
            tokio::spawn(async move {
                arrived.fetch_add(1, SeqCst);
                let _ = gate.recv().await;
                gone.fetch_add(1, SeqCst);
            });
        }
        while self.arrived.load(SeqCst) != before + size {
            yield_now().await;
        }
    }

    async fn wake(&self) {
        self.keeper.close();
        while self.gone.load(SeqCst) != self.arrived.load(SeqCst) {
            yield_now().await;
        }
    }
}

pub async fn parked(arguments: Arguments) {
    let count = arguments.number("--count", 1000000);
    let rounds = arguments.number("--rounds", 0);
    let each = count as f64;
    let crowd = Crowd::new();
    crowd.park(1).await;
    let (resident, tables) = (status_bytes("VmRSS"), status_bytes("VmPTE"));
    report("create", elapsed_ns(crowd.park(count)).await / each, "ns");
    report("resident", (status_bytes("VmRSS") - resident) / each, "bytes");
    report("page_tables", (status_bytes("VmPTE") - tables) / each, "bytes");
    report("wake", elapsed_ns(crowd.wake()).await / each, "ns");
    let (mut create_ns, mut wake_ns) = (0.0, 0.0);
    for _ in 0..rounds {
        let again = Crowd::new();
        create_ns += elapsed_ns(again.park(count)).await;
        wake_ns += elapsed_ns(again.wake()).await;
    }
    if rounds > 0 {
        report("create_again", create_ns / each / rounds as f64, "ns");
        report("wake_again", wake_ns / each / rounds as f64, "ns");
    }
}

/// Parked tasks, and one at a socket nobody connects to; watched from outside.
pub async fn idle(arguments: Arguments) {
    let crowd = Crowd::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    tokio::spawn(async move { listener.accept().await.is_ok() });
    crowd.park(arguments.number("--count", 10000)).await;
    println!("ready");
    let _ = crowd.gate.recv().await;
}
