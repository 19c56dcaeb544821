//! The workloads of bench/*.cpp, on tokio: one program, one subcommand each.
//!
//! Measured as the C++ programs are: inside the process, on the monotonic clock, after a warm-up, and printed as `name value
//! unit`. One worker is the current_thread flavour, more are multi_thread; everything else is left as tokio ships it. The body
//! is itself a task, so that it runs on a worker as everybody else's does.
//!
//! tokio has no rendezvous: where the others use an unbuffered channel, capacity 1 stands here. Its mpsc has one receiver;
//! where there are more the channel is that of the crate async-channel.
mod channels;
mod crowds;

use std::future::Future;
use std::time::Instant;

pub struct Arguments(Vec<String>);

impl Arguments {
    pub fn number(&self, name: &str, otherwise: usize) -> usize {
        let at = self.0.iter().position(|word| word == name);
        at.and_then(|at| self.0.get(at + 1)).map_or(otherwise, |word| word.parse().expect("a number"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|word| word == name)
    }
}

pub fn report(name: &str, value: f64, unit: &str) {
    println!("{name} {value:.3} {unit}");
}

pub async fn elapsed_ns(work: impl Future<Output = ()>) -> f64 {
    let start = Instant::now();
    work.await;
    start.elapsed().as_nanos() as f64
}

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

/// Work that was not done must not be timed.
pub fn expect_sum(what: &str, got: usize, wanted: usize) {
    if got != wanted {
        eprintln!("{what}: got {got}, expected {wanted}");
        std::process::exit(1);
    }
}

const KNOWN: [&str; 7] = ["--workers", "--count", "--fibers", "--pairs", "--capacity", "--never-wait", "--join"];

fn main() {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let arguments = Arguments(words.collect());
    if let Some(unknown) = arguments.0.iter().find(|word| word.starts_with("--") && !KNOWN.contains(&word.as_str())) {
        eprintln!("unknown argument {unknown}");
        std::process::exit(2);
    }
    let workers = arguments.number("--workers", 1);
    let mut builder = match workers {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if workers > 1 {
        builder.worker_threads(workers);
    }
    let runtime = builder.enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let body = match command.as_str() {
            "ping_pong" => tokio::spawn(channels::ping_pong(arguments)),
            "channel" => tokio::spawn(channels::channel(arguments)),
            "select" => tokio::spawn(channels::select(arguments)),
            "ring" => tokio::spawn(crowds::ring(arguments)),
            "skynet" => tokio::spawn(crowds::skynet(arguments)),
            "mutex" => tokio::spawn(crowds::mutex(arguments)),
            "sleepers" => tokio::spawn(crowds::sleepers(arguments)),
            _ => {
                eprintln!("usage: ping_pong|channel|select|ring|skynet|mutex|sleepers [--workers N] ...");
                std::process::exit(2);
            }
        };
        body.await.expect("the workload ends well");
    });
}
