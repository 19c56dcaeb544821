//! What making tasks costs, and what those cost that wait: yield, spawn, parked, idle.
use crate::elapsed_ns;
use crate::measure::{report, status_bytes, Arguments};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use tokio::task::yield_now;

async fn yields(tasks: usize, each: usize) {
    let mut running = Vec::new();
    for _ in 0..tasks {
        running.push(tokio::spawn(async move {
            for _ in 0..each {
                yield_now().await;
            }
        }));
    }
    for one in running {
        one.await.unwrap();
    }
}

pub async fn yielding(arguments: Arguments) {
    let tasks = arguments.number("--fibers", 2);
    let each = arguments.number("--count", 10000000) / tasks;
    yields(tasks, each / 10 + 1).await;
    report("yield", elapsed_ns(yields(tasks, each)).await / (tasks * each) as f64, "ns");
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
    for name in ["spawn_many_cold", "spawn_many"] {
        report(name, elapsed_ns(all_at_once(&mut room, count)).await / count as f64, "ns");
    }
}

/// Tasks that wait on one channel, and how many have come and gone.
#[derive(Default)]
struct Crowd {
    arrived: Arc<AtomicUsize>,
    gone: Arc<AtomicUsize>,
}

impl Crowd {
    async fn join(&self, gate: &async_channel::Receiver<usize>, size: usize) {
        let before = self.arrived.load(SeqCst);
        for _ in 0..size {
            let (gate, arrived, gone) = (gate.clone(), self.arrived.clone(), self.gone.clone());
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
}

pub async fn parked(arguments: Arguments) {
    let count = arguments.number("--count", 1000000);
    let each = count as f64;
    let (keeper, gate) = async_channel::bounded::<usize>(1);
    let crowd = Crowd::default();
    crowd.join(&gate, 1).await;
    let (resident, tables) = (status_bytes("VmRSS"), status_bytes("VmPTE"));
    report("create", elapsed_ns(crowd.join(&gate, count)).await / each, "ns");
    report("resident", (status_bytes("VmRSS") - resident) / each, "bytes");
    report("page_tables", (status_bytes("VmPTE") - tables) / each, "bytes");
    let wake = async {
        keeper.close();
        while crowd.gone.load(SeqCst) != count + 1 {
            yield_now().await;
        }
    };
    report("wake", elapsed_ns(wake).await / each, "ns");
}

/// Parked tasks, and one at a socket nobody connects to; watched from outside.
pub async fn idle(arguments: Arguments) {
    let (_keeper, gate) = async_channel::bounded::<usize>(1);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    tokio::spawn(async move { listener.accept().await.is_ok() });
    Crowd::default().join(&gate, arguments.number("--count", 10000)).await;
    println!("ready");
    let _ = gate.recv().await;
}
