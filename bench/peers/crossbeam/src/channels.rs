use crate::measure::{elapsed_ns, expect_sum, report, Arguments};
use crossbeam::channel::bounded;
use std::thread;

fn round_trips(count: usize) {
    let (there, from_there) = bounded::<usize>(0);
    let (back, from_back) = bounded::<usize>(0);
    let other = thread::spawn(move || from_there.iter().for_each(|value| back.send(value + 1).unwrap()));
    let own = thread::spawn(move || {
        for i in 0..count {
            there.send(i).unwrap();
            from_back.recv().unwrap();
        }
    });
    own.join().unwrap();
    other.join().unwrap();
}

pub fn ping_pong(arguments: Arguments) {
    let count = arguments.number("--count", 1000000);
    round_trips(count / 10 + 1);
    report("ping_pong", elapsed_ns(|| round_trips(count)) / count as f64, "ns");
}

fn pass_on(capacity: usize, pairs: usize, each: usize) {
    let (items, received) = bounded::<usize>(capacity);
    let mut running = Vec::new();
    for _ in 0..pairs {
        let received = received.clone();
        running.push(thread::spawn(move || while received.recv().is_ok() {}));
        let items = items.clone();
        running.push(thread::spawn(move || (0..each).for_each(|k| items.send(k).unwrap())));
    }
    drop(items); // the consumers end when the last producer has
    for one in running {
        one.join().unwrap();
    }
}

fn send_and_receive(count: usize) {
    let (items, received) = bounded::<usize>(128);
    let both = move || {
        for i in 0..count {
            items.send(i).unwrap();
            received.recv().unwrap();
        }
    };
    thread::spawn(both).join().unwrap();
}

pub fn channel(arguments: Arguments) {
    let count = arguments.number("--count", 4000000);
    if arguments.has("--never-wait") {
        send_and_receive(count / 10 + 1);
        return report("never_wait", elapsed_ns(|| send_and_receive(count)) / count as f64, "ns");
    }
    let pairs = arguments.number("--pairs", 1);
    let capacity = arguments.number("--capacity", 128);
    let each = count / pairs;
    pass_on(capacity, pairs, each / 10 + 1);
    report("item", elapsed_ns(|| pass_on(capacity, pairs, each)) / (each * pairs) as f64, "ns");
}

/// Every message may come on either of two channels, and takes them in turn. Each side holds both ends of what it receives
/// from, so that none is closed while the other still waits.
fn select_trips(count: usize) {
    let there = [bounded::<usize>(0), bounded::<usize>(0)];
    let back = [bounded::<usize>(0), bounded::<usize>(0)];
    let (from_there, to_back) = (there.clone(), back.clone());
    let other = thread::spawn(move || {
        for _ in 0..count {
            crossbeam::select! {
                recv(from_there[0].1) -> value => to_back[0].0.send(value.unwrap() + 1).unwrap(),
                recv(from_there[1].1) -> value => to_back[1].0.send(value.unwrap() + 1).unwrap(),
            }
        }
    });
    let own = thread::spawn(move || {
        let mut sum = 0;
        for i in 0..count {
            there[i % 2].0.send(i).unwrap();
            crossbeam::select! {
                recv(back[0].1) -> value => sum += value.unwrap(),
                recv(back[1].1) -> value => sum += value.unwrap(),
            }
        }
        expect_sum("select", sum, count * (count + 1) / 2);
    });
    own.join().unwrap();
    other.join().unwrap();
}

pub fn select(arguments: Arguments) {
    let count = arguments.number("--count", 1000000);
    select_trips(count / 10 + 1);
    report("select", elapsed_ns(|| select_trips(count)) / count as f64, "ns");
}
