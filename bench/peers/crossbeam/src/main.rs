//! The workloads of bench/*.cpp on plain threads with crossbeam's channels, and its ArrayQueue in bench/queue_crowd.hpp.
//!
//! Where the others have fibers on --workers threads, here is a thread for each, and --workers says how many processors they
//! may use.
#[path = "../../measure.rs"]
mod measure;

mod channels;
mod queues;

use measure::{usage, Arguments};

fn use_processors(count: usize) {
    // SAFETY: both calls are given a set of their own size, and all zeros is an empty one.
    unsafe {
        let size = std::mem::size_of::<libc::cpu_set_t>();
        let mut allowed = std::mem::zeroed::<libc::cpu_set_t>();
        let mut chosen = std::mem::zeroed::<libc::cpu_set_t>();
        libc::sched_getaffinity(0, size, &mut allowed);
        let ours = (0..libc::CPU_SETSIZE as usize).filter(|cpu| libc::CPU_ISSET(*cpu, &allowed));
        ours.take(count).for_each(|cpu| libc::CPU_SET(cpu, &mut chosen));
        libc::sched_setaffinity(0, size, &chosen);
    }
}

const KNOWN: [&str; 8] =
    ["--workers", "--count", "--pairs", "--capacity", "--never-wait", "--kind", "--pushers", "--poppers"];

fn main() {
    let (command, arguments) = Arguments::with_command(&KNOWN);
    if command != "queue" {
        use_processors(arguments.number("--workers", 1));
    }
    match command.as_str() {
        "ping_pong" => channels::ping_pong(arguments),
        "channel" => channels::channel(arguments),
        "select" => channels::select(arguments),
        "queue" => queues::queue(arguments),
        _ => usage("ping_pong|channel|select|queue"),
    }
}
