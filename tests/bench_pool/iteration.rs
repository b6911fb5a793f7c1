//! What checkpoints cost the thread that computes: coefficients of 72 ingredients and 112 layer groups, after each iteration of 100 ms.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use mehl_soup::queue::RabbitMq;
use mehl_soup::runner::pool::{AttemptSettings, Compute, Lines, WorkerSettings, serve};
use mehl_soup::store::traits::*;
use tokio::sync::watch;

use crate::support::pool_processes::Pool;
use crate::support::stub_engine::{Knobs, stub};
use crate::{Row, Servers, median, quantile, seconds};

const SHAPE: (usize, usize) = (72, 112);
const ITERATIONS: u64 = 50;
const MILLIS: u64 = 100;

pub async fn measure(servers: &Servers) -> Vec<Row> {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::new(&servers.redis.url(), &servers.rabbit.url(), folder.path(), ITERATIONS, MILLIS).await;
    pool.submit_one(None).await;
    pool.scheduler();
    let knobs: Arc<Knobs> = Arc::default();
    knobs.iterations.store(ITERATIONS, SeqCst);
    knobs.millis.store(MILLIS, SeqCst);
    knobs.shape.set(SHAPE).unwrap();
    let queue = RabbitMq::start(&pool.site.rabbit).unwrap();
    let compute = Compute::start(stub(&knobs)).unwrap();
    let (lease, stall) = (Duration::from_secs(10), Duration::from_secs(60));
    let attempt = AttemptSettings { lease, checkpoint_interval: Duration::ZERO, stall, orphan: stall };
    let settings = WorkerSettings { name: "measured".into(), attempt, once: false, look: Duration::from_millis(50) };
    let (ask, stop) = watch::channel(false);
    let (store, work) = (pool.store.clone(), async {
        pool.until("the task ends", async |pool| pool.record().await.state.is_final()).await;
        ask.send_replace(true);
    });
    let (served, ()) = tokio::join!(serve(&store, &queue, &compute, &settings, "{}", Arc::new(Lines), stop), work);
    served.unwrap();
    let key = pool.key();
    let bytes = store.result(&key).await.unwrap().map(|_| SHAPE.0 * SHAPE.1 * 8).unwrap();
    let mut told = seconds(&knobs.told.lock().unwrap());
    assert_eq!(told.len() as u64, ITERATIONS);
    let (half, most) = (median(&mut told), quantile(&mut told, 0.99));
    let share = half / (MILLIS as f64 / 1e3);
    vec![Row {
        what: format!("a checkpoint of {bytes} bytes of coefficients after each iteration of {MILLIS} ms"),
        measured: format!(
            "{:.3}% of the iteration (median {:.3} ms, p99 {:.3} ms)",
            share * 1e2,
            half * 1e3,
            most * 1e3
        ),
        target: "under 1%",
        is_met: share < 0.01,
    }]
}
