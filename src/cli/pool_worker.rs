//! `mehl-soup-worker serve`: one worker of a pool, with one device.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use super::exit::{Exit, leave};
use super::service::{Service, ServiceError, connect_queue, connect_store};
use crate::config::{Config, ConfigArgs, WorkerConfig};
use crate::logging;
use crate::metrics::{Probed, WorkerMetrics, serve_metrics};
use crate::queue::TicketQueue;
use crate::runner::engine::{EngineError, SoupEngine};
use crate::runner::pool::{Compute, Lines, WorkerError, WorkerObserver, serve};
use crate::serving::bind;
use crate::store::Promise;
use crate::store::traits::Reading;
use crate::sweep::spec::Spec;
use crate::untrusted::{Confinement, confine, printable};
use crate::zoo::{HashCache, is_writable};

/// Longest wait for the answer of the store, or of an input root, to a probe.
const PROBE: Duration = Duration::from_secs(2);
/// So long the answer of a probe holds.
const PROBE_AGE: Duration = Duration::from_secs(1);
/// Longest wait for the engine's last iteration when the worker ends.
const LAST_ITERATION: Duration = Duration::from_secs(10);

/// Flags of `mehl-soup-worker serve`.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Run one task, then exit with 0. Exit with 0 at once if no task is waiting. For Kubernetes Jobs
    #[arg(long)]
    once: bool,
    /// Device: cpu, cuda, cuda:1. Overrides `worker.device`
    #[arg(long)]
    device: Option<String>,
    /// Log format on stderr: text, json. Overrides `log.format`
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

/// Makes the engine for a sweep on a worker's device.
pub type PoolEngineFactory<E> = fn(&Spec, &WorkerConfig, Option<HashCache>) -> Result<E, EngineError>;

/// Works until asked to end. A task that is under way then is kept and given back, and another worker can go on with it at once.
///
/// `prepare` is called first: a worker whose device cannot be used ends with its fault, and takes no task that it would only fail.
pub fn serve_worker<E: SoupEngine + 'static>(
    args: &WorkerArgs,
    prepare: fn(&WorkerConfig) -> Result<(), EngineError>,
    engine: PoolEngineFactory<E>,
) -> Exit {
    let flags = [("worker.device", &args.device), ("log.format", &args.log_format)];
    let flags: Vec<_> = flags.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect();
    let config = match Config::load(&args.config, &flags) {
        Ok(config) => config,
        Err(error) => return Exit::Usage.say(error),
    };
    if let Err(error) = logging::start(config.log_format) {
        return Exit::Usage.say(error);
    }
    if let Err(error) = restrict(&config) {
        return Exit::Usage.say(error);
    }
    let cache = match usable_cache() {
        Ok(cache) => cache,
        Err(error) => return Exit::Usage.say(error),
    };
    if let Err(error) = prepare(&config.worker) {
        return Exit::Usage.say(format!("worker.device: {error}"));
    }
    // What it computes on has threads of its own; what it says to others takes little.
    let service = match Service::start("worker", 1) {
        Ok(service) => service,
        Err(error) => return Exit::Failed.say(error),
    };
    let exit = service.end(run(&config, args.once, engine, cache, service.stop()));
    // An engine that stands still keeps its thread. Exit handlers must not run beside it.
    leave(exit)
}

/// From now on, specifications make this process read and run only what its configuration allows.
fn restrict(config: &Config) -> Result<(), String> {
    let worker = &config.worker;
    let roots = worker.input_roots().map_err(|error| error.to_string())?;
    let modules = worker.torchscript_allow.iter().map(|hash| hash.to_hex().to_string());
    let confinement = Confinement::new(roots, modules).map_err(|error| error.to_string())?;
    let confinement = confinement.hiding(config.operator_files.iter().cloned());
    confine(confinement).map_err(|_| "the file restrictions of this process are already set".to_string())
}

/// Where hashes and images are kept between tasks. Image sweeps need it, so a folder that an operator named has to be writable.
///
/// # Errors
/// If it cannot be written to.
fn usable_cache() -> Result<Cache, String> {
    let Some(hashes) = HashCache::from_environment() else { return Ok(Cache::default()) };
    match hashes.writable_root() {
        Ok(root) => Ok(Cache { hashes: Some(hashes), watched: Some(root) }),
        Err(error) if HashCache::is_named() => Err(error),
        Err(error) => {
            tracing::warn!("{}; sweeps with images will fail on this worker", printable(&error));
            Ok(Cache { hashes: Some(hashes), watched: None })
        }
    }
}

#[derive(Default)]
struct Cache {
    hashes: Option<HashCache>,
    /// Folder that has to stay writable for the worker to be ready.
    watched: Option<PathBuf>,
}

async fn run<E: SoupEngine + 'static>(
    config: &Config,
    once: bool,
    engine: PoolEngineFactory<E>,
    cache: Cache,
    stop: watch::Receiver<bool>,
) -> Result<(), ServiceError> {
    let Some(store) = connect_store(config, stop.clone()).await? else { return Ok(()) };
    let worker = config.worker.clone();
    let store = Arc::new(store);
    let queue = Arc::new(connect_queue(config, &worker.name)?);
    let registry = prometheus::Registry::new();
    let metrics = Arc::new(WorkerMetrics::new(&registry).map_err(ServiceError::internal)?);
    if let Promise::Unconfirmed(why) = store.promise() {
        tracing::warn!(
            "Redis cannot confirm that completed tasks are on disk ({why}). If Redis loses one, it \
             is computed again"
        );
    }
    let counted = metrics.clone();
    store.tell_confirmations(move |is_confirmed| counted.on_disk(is_confirmed));
    if let Some(address) = worker.listen {
        let listener = bind(address)
            .map_err(|error| ServiceError::usage(format!("cannot listen on {address} (worker.listen): {error}")))?;
        let roots = worker.input_roots().map_err(ServiceError::usage)?.to_vec();
        let (store, queue, metrics) = (store.clone(), queue.clone(), metrics.clone());
        let probe = Probe { store, queue, metrics, roots, cache: cache.watched, last: Mutex::default() };
        tokio::spawn(serve_metrics(listener, registry, probe));
    }
    let hashes = cache.hashes;
    let compute = {
        let worker = worker.clone();
        Compute::start(move |spec: &Spec| engine(spec, &worker, hashes.clone()))
            .map_err(|error| ServiceError::internal(format!("no thread: {error}")))?
    };
    let watch: Arc<dyn WorkerObserver> = Arc::new((Arc::new(Lines), metrics));
    tracing::info!("worker {} waits for tasks on {}", worker.name, worker.device);
    let settings = worker.settings(once);
    let ended = serve(&*store, &*queue, &compute, &settings, &about(&worker), watch, stop).await;
    drop(timeout(Duration::from_secs(2), queue.close()).await);
    let patience = if matches!(ended, Err(WorkerError::Stalled)) { Duration::ZERO } else { LAST_ITERATION };
    if !compute.finish(patience) {
        tracing::warn!("the engine did not stop in time; the process ends anyway");
    }
    match ended {
        Ok(_) => Ok(()),
        Err(error @ WorkerError::Stalled) => Err(ServiceError::internal(error)),
        Err(error) => Err(ServiceError::usage(error)),
    }
}

/// What is looked at when the worker is probed.
struct Probe<S, Q> {
    store: Arc<S>,
    queue: Arc<Q>,
    metrics: Arc<WorkerMetrics>,
    roots: Vec<PathBuf>,
    cache: Option<PathBuf>,
    /// What was found, and when: anybody may ask.
    last: Mutex<Option<(Instant, Vec<String>)>>,
}

impl<S: Reading + 'static, Q: TicketQueue + 'static> Probed for Probe<S, Q> {
    fn heartbeat_age(&self) -> Duration {
        self.metrics.heartbeat_age()
    }

    /// What [`look`](Self::look) finds, at most once in a while.
    async fn faults(&self) -> Vec<String> {
        self.metrics.refresh();
        let mut last = self.last.lock().await;
        if let Some((at, faults)) = &*last
            && at.elapsed() < PROBE_AGE
        {
            return faults.clone();
        }
        let faults = self.look().await;
        *last = Some((Instant::now(), faults.clone()));
        faults
    }
}

impl<S: Reading, Q: TicketQueue> Probe<S, Q> {
    /// Whether store and broker do what is asked of them, which is noted for the metrics, whether the input roots can be read, and the cache be written.
    async fn look(&self) -> Vec<String> {
        let (stored, queued) = tokio::join!(timeout(PROBE, self.store.probe()), self.queue.probe(PROBE));
        let mut faults = Vec::new();
        match stored {
            Ok(Ok(())) => {}
            Ok(Err(error)) => faults.push(error.to_string()),
            Err(_) => faults.push("Redis does not answer".to_string()),
        }
        self.metrics.redis_connected.set(i64::from(faults.is_empty()));
        self.metrics.broker_connected.set(i64::from(queued.is_ok() && !self.queue.state().is_blocked));
        if let Err(error) = queued {
            faults.push(error.to_string());
        }
        for root in &self.roots {
            if let Err(what) = patiently(root, |path| std::fs::read_dir(path).map(drop)).await {
                faults.push(format!("input root {}: {what}", root.display()));
            }
        }
        if let Some(cache) = &self.cache
            && let Err(what) = patiently(cache, is_writable).await
        {
            faults.push(format!("cache folder {}: {what}", cache.display()));
        }
        faults
    }
}

/// Asks the file system with a deadline: one that hangs must not hang the runtime.
async fn patiently(path: &Path, ask: fn(&Path) -> std::io::Result<()>) -> Result<(), String> {
    let path = path.to_path_buf();
    match timeout(PROBE, tokio::task::spawn_blocking(move || ask(&path))).await {
        Ok(Ok(asked)) => asked.map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PROBE.as_secs())),
    }
}

/// What the worker says about itself.
fn about(worker: &WorkerConfig) -> String {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "device": worker.device,
        "process": std::process::id(),
        "started": started,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::InProcess;
    use crate::store::Memory;

    /// Folders that are there when a worker starts can go away: a volume that is unmounted, a folder whose rights change.
    #[tokio::test]
    async fn a_folder_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        let file = folder.path().join("cache");
        std::fs::write(&file, "").unwrap();
        let probe = Probe {
            store: Arc::new(Memory::default()),
            queue: Arc::new(InProcess::default()),
            metrics: Arc::new(WorkerMetrics::new(&prometheus::Registry::new()).unwrap()),
            roots: vec![folder.path().to_path_buf(), gone.clone()],
            cache: Some(file.clone()),
            last: Mutex::default(),
        };
        let faults = probe.look().await;
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[1].starts_with(&format!("cache folder {}: ", file.display())), "{faults:?}");
        std::fs::remove_file(&file).unwrap();
        assert!(faults[0].starts_with(&format!("input root {}: No such file", gone.display())), "{faults:?}");
        std::fs::create_dir(&gone).unwrap();
        assert_eq!(probe.faults().await, Vec::<String>::new());
        std::fs::remove_dir(&gone).unwrap();
        assert_eq!(probe.faults().await, Vec::<String>::new(), "not asked again so soon");
        assert!(probe.heartbeat_age() < Duration::from_secs(60));
    }
}
