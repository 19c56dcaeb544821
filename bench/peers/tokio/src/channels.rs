use crate::elapsed_ns;
use crate::measure::{expect_sum, report, Arguments};
use tokio::sync::mpsc;

async fn round_trips(count: usize) {
    let (there, mut from_there) = mpsc::channel::<usize>(1);
    let (back, mut from_back) = mpsc::channel::<usize>(1);
    let other = tokio::spawn(async move {
        while let Some(value) = from_there.recv().await {
            back.send(value + 1).await.unwrap();
        }
    });
    let own = tokio::spawn(async move {
        for i in 0..count {
            there.send(i).await.unwrap();
            from_back.recv().await.unwrap();
        }
    });
    own.await.unwrap();
    other.await.unwrap();
}

pub async fn ping_pong(arguments: Arguments) {
    let count = arguments.number("--count", 1000000);
    round_trips(count / 10 + 1).await;
    report("ping_pong", elapsed_ns(round_trips(count)).await / count as f64, "ns");
}

/// One to one, through tokio's own channel.
async fn pass_on_mpsc(capacity: usize, each: usize) {
    let (items, mut received) = mpsc::channel::<usize>(capacity);
    let consumer = tokio::spawn(async move { while received.recv().await.is_some() {} });
    let producer = tokio::spawn(async move {
        for k in 0..each {
            items.send(k).await.unwrap();
        }
    });
    producer.await.unwrap();
    consumer.await.unwrap();
}

async fn pass_on(capacity: usize, pairs: usize, each: usize) {
    if pairs == 1 {
        return pass_on_mpsc(capacity, each).await;
    }
    let (items, received) = async_channel::bounded::<usize>(capacity);
    let mut running = Vec::new();
    for _ in 0..pairs {
        let received = received.clone();
        running.push(tokio::spawn(async move { while received.recv().await.is_ok() {} }));
        let items = items.clone();
        running.push(tokio::spawn(async move {
            for k in 0..each {
                items.send(k).await.unwrap();
            }
        }));
    }
    drop(items); // the consumers end when the last producer has
    for one in running {
        one.await.unwrap();
    }
}

async fn send_and_receive(count: usize) {
    let (items, mut received) = mpsc::channel::<usize>(128);
    let both = async move {
        for i in 0..count {
            items.send(i).await.unwrap();
            received.recv().await.unwrap();
        }
    };
    tokio::spawn(both).await.unwrap();
}

pub async fn channel(arguments: Arguments) {
    let count = arguments.number("--count", 4000000);
    if arguments.has("--never-wait") {
        send_and_receive(count / 10 + 1).await;
        return report("never_wait", elapsed_ns(send_and_receive(count)).await / count as f64, "ns");
    }
    let pairs = arguments.number("--pairs", 1);
    let capacity = arguments.number("--capacity", 128).max(1);
    let each = count / pairs;
    pass_on(capacity, pairs, each / 10 + 1).await;
    report("item", elapsed_ns(pass_on(capacity, pairs, each)).await / (each * pairs) as f64, "ns");
}

/// Every message may come on either of two channels, and takes them in turn. A side that has ended closes its channels, and
/// a closed one only leaves the select.
async fn select_trips(count: usize) {
    let (there_0, mut from_there_0) = mpsc::channel::<usize>(1);
    let (there_1, mut from_there_1) = mpsc::channel::<usize>(1);
    let (back_0, mut from_back_0) = mpsc::channel::<usize>(1);
    let (back_1, mut from_back_1) = mpsc::channel::<usize>(1);
    let other = tokio::spawn(async move {
        for _ in 0..count {
            tokio::select! {
                Some(value) = from_there_0.recv() => back_0.send(value + 1).await.unwrap(),
                Some(value) = from_there_1.recv() => back_1.send(value + 1).await.unwrap(),
                else => break,
            }
        }
    });
    let own = tokio::spawn(async move {
        let mut sum = 0;
        for i in 0..count {
            if i % 2 == 0 { &there_0 } else { &there_1 }.send(i).await.unwrap();
            tokio::select! {
                Some(value) = from_back_0.recv() => sum += value,
                Some(value) = from_back_1.recv() => sum += value,
                else => break,
            }
        }
        expect_sum("select", sum, count * (count + 1) / 2);
    });
    own.await.unwrap();
    other.await.unwrap();
}

pub async fn select(arguments: Arguments) {
    let count = arguments.number("--count", 1000000);
    select_trips(count / 10 + 1).await;
    report("select", elapsed_ns(select_trips(count)).await / count as f64, "ns");
}
