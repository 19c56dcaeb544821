//! The workloads of bench/*.cpp, on tokio: one program, one subcommand each.
//!
//! One worker is the current_thread flavour, more are multi_thread; everything else is left as tokio ships it, and its poller of
//! sockets runs where there are sockets. The body is itself a task, so that it runs on a worker as everybody else's does.
//!
//! tokio has no rendezvous: where the others use an unbuffered channel, capacity 1 stands here. Its mpsc has one receiver;
//! where there are more the channel is that of the crate async-channel.
#[path = "../../measure.rs"]
mod measure;

mod channels;
mod crowds;
mod latency;
mod network;
mod nurseries;
mod tasks;
mod waiting;

use measure::{usage, Arguments};
use std::future::Future;
use std::time::Instant;

pub async fn elapsed_ns(work: impl Future<Output = ()>) -> f64 {
    let start = Instant::now();
    work.await;
    start.elapsed().as_nanos() as f64
}

const KNOWN: [&str; 17] = [
    "--workers",
    "--count",
    "--fibers",
    "--pairs",
    "--capacity",
    "--never-wait",
    "--join",
    "--many",
    "--crowd",
    "--connections",
    "--serve",
    "--port",
    "--rounds",
    "--side",
    "--waiters",
    "--timers",
    "--kind",
];

/// The time this process has been on a processor, in all its threads and in the kernel on its behalf.
pub fn cpu_ns() -> f64 {
    let mut used = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage fills what it is given, and all zeros is a valid rusage.
    let used = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, used.as_mut_ptr());
        used.assume_init()
    };
    let nanoseconds = |time: libc::timeval| time.tv_sec as f64 * 1e9 + time.tv_usec as f64 * 1e3;
    nanoseconds(used.ru_utime) + nanoseconds(used.ru_stime)
}

fn main() {
    let (command, arguments) = Arguments::with_command(&KNOWN);
    let workers = arguments.number("--workers", 1);
    let mut builder = match workers {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if workers > 1 {
        builder.worker_threads(workers);
    }
    if ["idle", "echo", "http"].contains(&command.as_str()) {
        builder.enable_io();
    }
    let runtime = builder.enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let body = match command.as_str() {
            "yield" => tokio::spawn(tasks::yielding(arguments)),
            "spawn" => tokio::spawn(tasks::spawn(arguments)),
            "ping_pong" => tokio::spawn(channels::ping_pong(arguments)),
            "channel" => tokio::spawn(channels::channel(arguments)),
            "select" => tokio::spawn(channels::select(arguments)),
            "ring" => tokio::spawn(crowds::ring(arguments)),
            "skynet" => tokio::spawn(crowds::skynet(arguments)),
            "mutex" => tokio::spawn(crowds::mutex(arguments)),
            "sleepers" => tokio::spawn(crowds::sleepers(arguments)),
            "parked" => tokio::spawn(tasks::parked(arguments)),
            "nursery" => tokio::spawn(nurseries::nursery(arguments)),
            "waiters" => tokio::spawn(waiting::waiters(arguments)),
            "timers" => tokio::spawn(waiting::timers(arguments)),
            "latency" => tokio::spawn(latency::latency(arguments)),
            "idle" => tokio::spawn(tasks::idle(arguments)),
            "echo" => tokio::spawn(network::echo(arguments)),
            "http" => tokio::spawn(network::http(arguments)),
            _ => usage("WORKLOAD"),
        };
        body.await.expect("the workload ends well");
    });
}
