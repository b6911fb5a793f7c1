//! A scheduler that was started before its servers: it can be probed, and begins to work once they are there.

use std::process::{Child, Command, Stdio};

use crate::support::servers::{RedisServer, free_port, until};
use crate::support::service::{Answer, request};

struct Scheduler(Child);

impl Drop for Scheduler {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn it_answers_probes_before_redis_is_there() {
    let mut redis = RedisServer::start(&["--maxmemory-policy", "noeviction"]);
    redis.stop();
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_mehl-soup"));
    command.args(["serve", "--listen", &address]).env_clear().env("MEHL_SOUP__REDIS__URL", redis.url());
    command.env("MEHL_SOUP__AMQP__URL", format!("amqp://127.0.0.1:{}/", free_port()));
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let _scheduler = Scheduler(child);
    until("it listens", || std::net::TcpStream::connect(&address).is_ok());

    let get = |path: &str| -> Answer { request("GET", &format!("http://{address}{path}"), &[], b"") };
    let metric = |name: &str| {
        let text = String::from_utf8(get("/metrics").bytes).unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok())
    };
    assert_eq!((get("/healthz").status, get("/readyz").status), (200, 503));
    assert_eq!(get("/readyz").json()["store"], "not reached yet");
    assert_eq!(metric("mehl_soup_redis_connected"), Some(0.0));
    let load = get("/v1/load");
    assert_eq!((load.status, load.code().as_str(), load.header("retry-after")), (503, "store_unreachable", "2"));

    redis.kill_and_restart();
    until("it reaches Redis", || get("/v1/load").status == 200);
    // The broker is not there yet, and each is told by itself.
    let ready = get("/readyz");
    assert_eq!((ready.status, ready.json()["store"].as_str()), (503, Some("ok")));
    assert_eq!((metric("mehl_soup_redis_connected"), metric("mehl_soup_broker_connected")), (Some(1.0), Some(0.0)));
}
