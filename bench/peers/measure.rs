//! bench/measure.hpp for the peers in Rust: how each takes its arguments, takes time, and speaks.
//!
//! They are measured as the C++ programs are: inside the process, on the monotonic clock, after a warm-up, and printed as
//! `name value unit`. No peer uses all of it.
#![allow(dead_code)]

use std::time::Instant;

pub struct Arguments(Vec<String>);

impl Arguments {
    /// The first word, and the arguments behind it. An unknown one is refused, so that a misspelt `--worker 2` cannot pass
    /// as a measurement with one.
    pub fn with_command(known: &[&str]) -> (String, Arguments) {
        let mut words = std::env::args().skip(1);
        let command = words.next().unwrap_or_default();
        let arguments = Arguments(words.collect());
        if let Some(unknown) = arguments.0.iter().find(|word| word.starts_with("--") && !known.contains(&word.as_str()))
        {
            eprintln!("unknown argument {unknown}");
            std::process::exit(2);
        }
        (command, arguments)
    }

    pub fn number(&self, name: &str, otherwise: usize) -> usize {
        let at = self.0.iter().position(|word| word == name);
        at.and_then(|at| self.0.get(at + 1)).map_or(otherwise, |word| word.parse().expect("a number"))
    }

    pub fn text<'a>(&'a self, name: &str, otherwise: &'a str) -> &'a str {
        let at = self.0.iter().position(|word| word == name);
        at.and_then(|at| self.0.get(at + 1)).map_or(otherwise, String::as_str)
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|word| word == name)
    }
}

pub fn report(name: &str, value: f64, unit: &str) {
    println!("{name} {value:.3} {unit}");
}

pub fn elapsed_ns(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64
}

/// Work that was not done must not be timed.
pub fn expect_sum(what: &str, got: usize, wanted: usize) {
    if got != wanted {
        eprintln!("{what}: got {got}, expected {wanted}");
        std::process::exit(1);
    }
}

/// What the kernel says about this process, in bytes.
pub fn status_bytes(field: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.split(':').next() == Some(field));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|word| word.parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0
}

pub fn usage(commands: &str) -> ! {
    eprintln!("usage: {commands} [--workers N] ...");
    std::process::exit(2);
}
