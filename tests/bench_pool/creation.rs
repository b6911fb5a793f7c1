//! A sweep of 10,000 tasks is created, beside bare pipelined writes of the same bytes to the same server.

use std::time::{Duration, Instant};

use mehl_soup::scheduler::{Terms, admit, new_tasks};
use mehl_soup::store::{NewTask, Redis};
use mehl_soup::sweep::parse::{Format, parse_spec_text};

use crate::program::Program;
use crate::support::servers::settings;
use crate::{ROUNDS, Row, Servers, median, seconds, spec_of};

const TASKS: usize = 9_999;

pub async fn measure(servers: &Servers) -> Vec<Row> {
    let text = spec_of(TASKS);
    let spec = parse_spec_text(&text, Format::Toml, std::path::Path::new("/base")).unwrap();
    let tasks = new_tasks(&spec);
    let url = servers.redis.url();
    let (mut plain, mut hashes, mut admitted, mut requested) = (vec![], vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        plain.push(write(&url, &format!("plain-{round}"), &tasks, plain_writes).await);
        hashes.push(write(&url, &format!("hashes-{round}"), &tasks, indexed_writes).await);
        let settings = settings(url.clone());
        let store = Redis::connect(&settings).await.unwrap();
        let began = Instant::now();
        admit(&store, &spec, &tasks, Terms::default(), None).await.unwrap();
        admitted.push(began.elapsed());
        let (redis, rabbit, text) = (url.clone(), servers.rabbit.url(), text.clone());
        let took = tokio::task::spawn_blocking(move || {
            let program = Program::start(&redis, &rabbit, &format!("{}-http", settings.installation));
            let began = Instant::now();
            program.submit(&text);
            began.elapsed()
        });
        requested.push(took.await.unwrap());
    }
    let bytes: usize = tasks.iter().map(|task| task.id.len() + task.body.len()).sum();
    println!(
        "{} tasks, {bytes} bytes: plain {plain:?}, indexed {hashes:?}, admit {admitted:?}, HTTP {requested:?}",
        tasks.len()
    );
    let [plain, hashes, admitted, requested] =
        [plain, hashes, admitted, requested].map(|times| median(&mut seconds(&times)));
    let against_plain = plain / admitted;
    vec![
        Row {
            what: format!(
                "creating a sweep of {} tasks, against pipelined `SET` of the same bytes ({plain:.3} s)",
                tasks.len()
            ),
            measured: format!("{against_plain:.2} of its speed: {admitted:.3} s; whole HTTP request {requested:.3} s"),
            target: "at least 0.5",
            is_met: against_plain >= 0.5,
        },
        Row {
            what: format!("the same against pipelined writes of the same records and indices ({hashes:.3} s)"),
            measured: format!("{:.2} of its speed", hashes / admitted),
            target: "at least 0.5",
            is_met: hashes / admitted >= 0.5,
        },
    ]
}

async fn write(
    url: &str,
    id: &str,
    tasks: &[NewTask],
    add: fn(&mut redis::Pipeline, &str, usize, &NewTask),
) -> Duration {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let began = Instant::now();
    // In pieces as large as the store's.
    for (piece, batch) in tasks.chunks(500).enumerate() {
        let mut pipe = redis::pipe();
        for (i, task) in batch.iter().enumerate() {
            add(&mut pipe, id, piece * 500 + i, task);
        }
        pipe.query_async::<()>(&mut connection).await.unwrap();
    }
    began.elapsed()
}

fn plain_writes(pipe: &mut redis::Pipeline, id: &str, _: usize, task: &NewTask) {
    pipe.cmd("SET").arg(format!("{id}/{}", task.id)).arg(&task.body).ignore();
}

/// What a task needs to be found: its record, and a place in two orders.
fn indexed_writes(pipe: &mut redis::Pipeline, id: &str, place: usize, task: &NewTask) {
    let key = format!("{id}/h/{}", task.id);
    pipe.cmd("HSET").arg(&key).arg("body").arg(&task.body).arg("state").arg("pending").arg("order").arg(place);
    for (field, value) in [("generation", 0), ("epoch", 0), ("attempts", 0), ("crashes", 0), ("sequence", 0)] {
        pipe.arg(field).arg(value);
    }
    pipe.arg("scores").arg(0).arg("updated").arg(1_790_000_000_000u64).ignore();
    for order in ["tasks", "pending"] {
        pipe.cmd("ZADD").arg(format!("{id}/{order}")).arg(place).arg(&key).ignore();
    }
}
