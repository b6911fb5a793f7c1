//! How soon another worker has the task of one that was asked to end, or killed.

use std::time::Instant;

use crate::support::pool_processes::{LEASE, Pool};
use crate::{ROUNDS, Row, Servers, quantile};

pub async fn measure(servers: &Servers) -> Vec<Row> {
    let mut asked = times(servers, "-TERM").await;
    let mut killed = times(servers, "-KILL").await;
    let words =
        |times: &mut [f64]| format!("median {:.3} s, longest {:.3} s", quantile(times, 0.5), quantile(times, 1.0));
    let lease = LEASE.as_secs();
    vec![
        Row {
            what: "SIGTERM until another worker has the task".into(),
            measured: words(&mut asked),
            target: "under 1 s",
            is_met: quantile(&mut asked, 1.0) < 1.0,
        },
        Row {
            what: format!("kill -9 until another worker has the task, lease {lease} s"),
            measured: words(&mut killed),
            target: "within lease + 5 s",
            is_met: quantile(&mut killed, 1.0) < lease as f64 + 5.0,
        },
    ]
}

async fn times(servers: &Servers, signal: &str) -> Vec<f64> {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::new(&servers.redis.url(), &servers.rabbit.url(), folder.path(), 100_000, 5).await;
    pool.submit_one(None).await;
    pool.scheduler();
    for name in ["a", "b"] {
        pool.worker(name, "interval=20");
    }
    let mut times = vec![];
    for round in 1..=ROUNDS {
        let (worker, _) = pool.until_claimed(round as u64).await;
        let steps = pool.site.steps().len();
        pool.until_steps(steps + 20).await;
        let at = Instant::now();
        pool.workers[&worker].signal(signal);
        pool.until_claimed(round as u64 + 1).await;
        times.push(at.elapsed().as_secs_f64());
        pool.workers.get_mut(&worker).unwrap().end().await;
        pool.worker(&worker, "interval=20");
    }
    times
}
