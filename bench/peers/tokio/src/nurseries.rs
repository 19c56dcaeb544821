//! bench/nursery.cpp with a JoinSet, which is joined and cancelled as a whole, and tokio's timeout.
use crate::elapsed_ns;
use crate::measure::{expect_sum, report, Arguments};
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{yield_now, JoinSet};

const TOGETHER: usize = 100;

async fn join_all(mut set: JoinSet<()>) {
    while let Some(one) = set.join_next().await {
        one.unwrap();
    }
}

async fn children(count: usize) {
    let sum = Arc::new(AtomicUsize::new(0));
    for _ in 0..count.div_ceil(TOGETHER) {
        let mut set = JoinSet::new();
        for _ in 0..TOGETHER {
            let sum = sum.clone();
            set.spawn(async move {
                sum.fetch_add(1, Relaxed);
            });
        }
        join_all(set).await;
    }
    expect_sum("children", sum.load(SeqCst), count.div_ceil(TOGETHER) * TOGETHER);
}

async fn limits(count: usize) {
    for _ in 0..count {
        tokio::time::timeout(Duration::from_secs(3600), yield_now()).await.unwrap();
    }
}

/// Who is aborted ends at its await: there is nothing to receive, as there is not in the others' channel.
async fn cancel_crowd_ns(count: usize) -> f64 {
    let arrived = Arc::new(AtomicUsize::new(0));
    let mut set = JoinSet::new();
    for _ in 0..count {
        let arrived = arrived.clone();
        set.spawn(async move {
            arrived.fetch_add(1, SeqCst);
            pending::<()>().await;
        });
    }
    while arrived.load(SeqCst) != count {
        yield_now().await;
    }
    yield_now().await;
    elapsed_ns(async { set.shutdown().await }).await
}

pub async fn nursery(arguments: Arguments) {
    let count = arguments.number("--count", 1000000);
    let crowd = arguments.number("--crowd", 100000);
    children(count / 10 + 1).await;
    report("child", elapsed_ns(children(count)).await / count as f64, "ns");
    limits(count / 10 + 1).await;
    report("limit", elapsed_ns(limits(count)).await / count as f64, "ns");
    cancel_crowd_ns(crowd).await;
    report("cancelled", cancel_crowd_ns(crowd).await / crowd as f64, "ns");
}
