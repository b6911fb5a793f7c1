//! `healthcheck`, of both programs: asks the one that runs beside it, as its configuration says where it listens. For `HEALTHCHECK` of an image, which
//! has no other HTTP client in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::Args;

use super::exit::{Exit, say};
use crate::config::{Config, ConfigArgs};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes.
const LARGEST_ANSWER: u64 = 1 << 16;

/// Flags of `healthcheck`.
#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Check readiness (/readyz) instead of liveness (/healthz)
    #[arg(long)]
    ready: bool,
}

/// Asks the scheduler of this machine.
pub fn scheduler(args: &HealthcheckArgs) -> Exit {
    check(args, |config| Ok(config.scheduler.listen))
}

/// Asks the worker of this machine.
pub fn worker(args: &HealthcheckArgs) -> Exit {
    check(args, |config| {
        config
            .worker
            .listen
            .ok_or("worker.listen is empty, so the worker serves no health endpoint. Set it to an address")
    })
}

fn check(args: &HealthcheckArgs, listens: impl Fn(&Config) -> Result<SocketAddr, &'static str>) -> Exit {
    let config = match Config::load(&args.config, &[]) {
        Ok(config) => config,
        Err(error) => return Exit::Usage.say(error),
    };
    let address = match listens(&config) {
        Ok(address) => address,
        Err(error) => return Exit::Usage.say(error),
    };
    let path = if args.ready { "/readyz" } else { "/healthz" };
    match ask_any(&reachable(address), path) {
        Ok((true, answer)) => {
            say(&answer);
            Exit::Done
        }
        Ok((false, answer)) => Exit::Failed.say(answer),
        Err(error) => Exit::Failed.say(format!("http://{address}{path}: {error}")),
    }
}

/// Where this machine reaches what listens on `address`, which may be all addresses. All of IPv6 is
/// all of IPv4 where there is no IPv6.
fn reachable(address: SocketAddr) -> Vec<SocketAddr> {
    let ips = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![Ipv4Addr::LOCALHOST.into()],
        IpAddr::V6(ip) if ip.is_unspecified() => vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()],
        ip => vec![ip],
    };
    ips.into_iter().map(|ip| SocketAddr::new(ip, address.port())).collect()
}

/// Asks the first of these addresses where somebody listens.
fn ask_any(addresses: &[SocketAddr], path: &str) -> Result<(bool, String), ureq::Error> {
    let mut answer = Err(ureq::Error::HostNotFound);
    for address in addresses {
        answer = ask(*address, path);
        if !matches!(answer, Err(ureq::Error::Io(_) | ureq::Error::ConnectionFailed)) {
            break;
        }
    }
    answer
}

/// Whether the answer is a good one, and what it says.
fn ask(address: SocketAddr, path: &str) -> Result<(bool, String), ureq::Error> {
    let settings = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(PATIENCE));
    let agent = ureq::Agent::new_with_config(settings.build());
    let mut answer = agent.get(format!("http://{address}{path}")).call()?;
    let text = answer.body_mut().with_config().limit(LARGEST_ANSWER).lossy_utf8(true).read_to_string()?;
    Ok((answer.status().is_success(), text))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers one request with this, and gives the first line of the request.
    fn server(answer: &'static str) -> (SocketAddr, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&buffer[..read]).lines().next().unwrap().to_string()
        });
        (address, asked)
    }

    fn run(address: SocketAddr, ready: bool) -> Exit {
        let set = vec![format!("worker.listen={address}").into()];
        worker(&HealthcheckArgs { config: ConfigArgs { config: None, set }, ready })
    }

    #[test]
    fn the_answer_is_the_exit_code() {
        let (address, asked) = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        assert_eq!(run(address, false), Exit::Done);
        assert_eq!(asked.join().unwrap(), "GET /healthz HTTP/1.1");

        let (address, asked) = server("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\nnot ready");
        assert_eq!(run(address, true), Exit::Failed);
        assert_eq!(asked.join().unwrap(), "GET /readyz HTTP/1.1");
    }

    #[test]
    fn nobody_there_is_a_failure_and_nowhere_is_bad_usage() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(run(address, false), Exit::Failed);
        let set = vec!["worker.listen=".to_string().into()];
        assert_eq!(worker(&HealthcheckArgs { config: ConfigArgs { config: None, set }, ready: false }), Exit::Usage);
    }

    #[test]
    fn all_addresses_are_reached_by_loopback() {
        for (listens, asked) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:2", "[::1]:2 127.0.0.1:2"), ("10.0.0.1:3", "10.0.0.1:3")]
        {
            let asked: Vec<SocketAddr> = asked.split(' ').map(|address| address.parse().unwrap()).collect();
            assert_eq!(reachable(listens.parse().unwrap()), asked);
        }
    }

    #[test]
    fn where_ipv6_does_not_answer_ipv4_is_asked() {
        let (address, asked) = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        // On this port nobody listens for IPv6, or there is none.
        let addresses = reachable(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port()));
        assert_eq!(ask_any(&addresses, "/healthz").unwrap(), (true, "ok".to_string()));
        asked.join().unwrap();
    }
}
