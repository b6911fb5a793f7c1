//! `mehl-soup serve`: the scheduler and its HTTP API.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use clap::Args;
use prometheus::Registry;
use tokio::sync::watch;

use super::exit::Exit;
use super::service::{Service, ServiceError, connect_queue, connect_store};
use crate::api::{Api, ApiSettings, Token, handed_over, router, serve as listen, waiting};
use crate::config::{Config, ConfigArgs, ConfigError};
use crate::logging;
use crate::metrics::Metrics;
use crate::queue::{RabbitMq, TicketQueue};
use crate::scheduler::{PlanSettings, Scheduler, SchedulerSettings, Turn, Watcher};
use crate::serving::bind;
use crate::store::StoreError;

/// How long requests on their way have to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Address and port of the HTTP API. Overrides `scheduler.listen`. An address that is not
    /// loopback needs a token
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Log format on stderr: text, json. Overrides `log.format`
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
    let listener = bind(config.scheduler.listen)
        .map_err(|error| ServiceError::usage(format!("cannot listen on {}: {error}", config.scheduler.listen)))?;
    let address = listener.local_addr().unwrap_or(config.scheduler.listen);
    tracing::info!("listening on http://{address}");
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).map_err(ServiceError::internal)?;
    let (take_over, current) = watch::channel(waiting(registry.clone()));
    let mut asked = stop.clone();
    let until = async move { drop(asked.wait_for(|stop| *stop).await) };
    let answering = listen(listener, handed_over(current), until, PATIENCE);
    let working = schedule(config, token, (registry, metrics), take_over, stop);
    let (queue, ()) = tokio::try_join!(working, async { answering.await.map_err(ServiceError::internal) })?;
    if let Some(queue) = queue {
        TicketQueue::close(&*queue).await;
    }
    Ok(())
}

/// Connects to Redis, lets the API take over from what answers probes until then, and schedules until it is to stop. Returns the connection to the queue, which requests on their way may still ask.
async fn schedule(
    config: &Config,
    token: Option<Token>,
    (registry, metrics): (Registry, Metrics),
    take_over: watch::Sender<Router>,
    stop: watch::Receiver<bool>,
) -> Result<Option<Arc<RabbitMq>>, ServiceError> {
    let Some(store) = connect_store(config, stop.clone()).await? else { return Ok(None) };
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
    drop(take_over.send_replace(router(api)));
    let settings = scheduler_settings(config);
    let scheduler = Scheduler { store: &*store, queue: &*queue, settings: &settings, wake: &wake };
    scheduler.run(stop, &Counted(metrics)).await;
    Ok(Some(queue))
}

const NO_TOKEN: &str = "scheduler.token: expected a token, found only spaces";

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
        ..SchedulerSettings::default()
    }
}

/// Counts what turns do.
struct Counted(Metrics);

impl Watcher for Counted {
    fn turned(&self, turn: &Turn, _: Duration) {
        self.0.turned(turn);
    }

    fn faulted(&self, _: &StoreError) {
        self.0.redis_connected.set(0);
    }
}

impl From<ConfigError> for ServiceError {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}
