//! `mehl-soup serve`: the scheduler and its HTTP API.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use super::exit::Exit;
use super::service::{Service, ServiceError, connect_queue, connect_store};
use crate::api::{Api, ApiSettings, Token, router, serve as listen, waiting};
use crate::config::{Config, ConfigArgs, ConfigError};
use crate::logging;
use crate::metrics::Metrics;
use crate::scheduler::{PlanSettings, Scheduler, SchedulerSettings, Turn, Watcher};
use crate::store::Redis;

/// How long requests on their way have to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Address and port of the HTTP API, over `scheduler.listen`. Any but a loopback address needs a token
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// How the log is written to stderr, over `log.format`: text, json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

pub(super) fn serve(args: &ServeArgs) -> Exit {
    let flags = [("scheduler.listen", &args.listen), ("log.format", &args.log_format)];
    let flags: Vec<_> = flags.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect();
    let config = match Config::load(&args.config, &flags) {
        Ok(config) => config,
        Err(error) => return Exit::Usage.say(error),
    };
    if let Err(error) = logging::start(config.log_format) {
        return Exit::Usage.say(error);
    }
    let service = match Service::start("scheduler", 2) {
        Ok(service) => service,
        Err(error) => return Exit::Failed.say(error),
    };
    service.end(run(&config, service.stop()))
}

async fn run(config: &Config, stop: watch::Receiver<bool>) -> Result<(), ServiceError> {
    let token = config.scheduler.token().map_err(ServiceError::usage)?;
    // Spaces alone are no token.
    let token = match token {
        Some(secret) => Some(Token::new(secret.expose()).ok_or_else(|| ServiceError::usage(NO_TOKEN))?),
        None => None,
    };
    let listener = TcpListener::bind(config.scheduler.listen)
        .await
        .map_err(|error| ServiceError::usage(format!("cannot listen on {}: {error}", config.scheduler.listen)))?;
    let address = listener.local_addr().unwrap_or(config.scheduler.listen);
    tracing::info!("listening on http://{address}");
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).map_err(ServiceError::internal)?;
    let (listener, store) = connect_while_listening(config, listener, registry.clone(), stop.clone()).await?;
    let Some(store) = store else { return Ok(()) };
    let queue = connect_queue(config, "scheduler")?;
    let (store, queue) = (Arc::new(store), Arc::new(queue));
    let settings = ApiSettings {
        most_tasks: config.scheduler.max_tasks,
        attempts: config.scheduler.attempts,
        largest_body: config.scheduler.max_body_bytes,
        ..ApiSettings::default()
    };
    let api = Arc::new(Api::new(store.clone(), queue.clone(), token, settings, registry, metrics.clone()));
    let wake = api.changed();
    let settings = scheduler_settings(config);
    let scheduler = Scheduler { store: &*store, queue: &*queue, settings: &settings, wake: &wake };
    let mut asked = stop.clone();
    let until = async move { drop(asked.wait_for(|stop| *stop).await) };
    let answering = listen(listener, router(api), until, PATIENCE);
    tokio::try_join!(async { scheduler.run(stop, &Counted(metrics)).await.map_err(ServiceError::usage) }, async {
        answering.await.map_err(ServiceError::internal)
    },)?;
    crate::queue::TicketQueue::close(&*queue).await;
    Ok(())
}

/// Connects to Redis, and answers probes meanwhile: by a copy of the listener, so that no connection is refused when the API takes over.
async fn connect_while_listening(
    config: &Config,
    listener: TcpListener,
    registry: Registry,
    stop: watch::Receiver<bool>,
) -> Result<(TcpListener, Option<Redis>), ServiceError> {
    let listener = listener.into_std().map_err(ServiceError::internal)?;
    let copy = listener.try_clone().and_then(TcpListener::from_std).map_err(ServiceError::internal)?;
    let (connected, until) = oneshot::channel::<()>();
    let answering = listen(copy, waiting(registry), async { drop(until.await) }, Duration::from_secs(1));
    let connecting = async {
        let store = connect_store(config, stop).await;
        drop(connected);
        store
    };
    let (store, answered) = tokio::join!(connecting, answering);
    answered.map_err(ServiceError::internal)?;
    Ok((TcpListener::from_std(listener).map_err(ServiceError::internal)?, store?))
}

const NO_TOKEN: &str = "scheduler.token: expected letters, found only spaces";

fn scheduler_settings(config: &Config) -> SchedulerSettings {
    let scheduler = &config.scheduler;
    SchedulerSettings {
        plan: PlanSettings {
            window_per_worker: scheduler.window_per_worker,
            window_extra: scheduler.window_extra,
            ageing: scheduler.ageing,
        },
        interval: scheduler.interval,
        republish_after: scheduler.republish_after,
        retention: scheduler.retention,
    }
}

/// Counts what turns do.
struct Counted(Metrics);

impl Watcher for Counted {
    fn turned(&self, turn: &Turn, _: Duration) {
        self.0.turned(turn);
    }
}

impl From<ConfigError> for ServiceError {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}
