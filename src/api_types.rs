//! Bodies of requests and answers, for the server and for [`client`](crate::client). In answers a client passes over fields that it does not know; in
//! requests the server refuses them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::runner::pool::HistoryPoint;
use crate::store::{KeptLetter, Letter, Order, Stage, SweepRecord, TaskEvent, TaskRecord};
use crate::sweep::parse::{Fault, Format};
use crate::task::TaskState;

/// A new sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSweepBody {
    /// The specification, as text.
    pub spec: String,
    /// Format of the text.
    pub format: SpecFormat,
    /// Absolute folder at which relative paths in the specification start, as seen by workers.
    /// Default: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Name of the sweep, instead of the one in the specification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Sweeps of higher priority run first. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = -1000, maximum = 1000)]
    pub priority: Option<i64>,
    /// Largest number of tasks that run at once. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_running: Option<u32>,
    /// A task fails after this many attempts without progress. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub attempts: Option<u32>,
    /// Idempotency key. A repeated request with the same key returns the same sweep, and completes
    /// its creation if that was interrupted. The header `Idempotency-Key` does the same; if both are
    /// given and differ, the answer is 400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200, pattern = "^[!-~]+$")]
    pub key: Option<String>,
}

/// Format of a specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SpecFormat {
    /// TOML.
    Toml,
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

impl From<SpecFormat> for Format {
    fn from(format: SpecFormat) -> Self {
        match format {
            SpecFormat::Toml => Self::Toml,
            SpecFormat::Yaml => Self::Yaml,
            SpecFormat::Json => Self::Json,
        }
    }
}

/// A sweep that was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedBody {
    /// Its id.
    pub id: String,
}

/// A sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SweepBody {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `creating`, `scoring` (ingredients and data are being checked) or `ready` (tasks can run, or
    /// have ended).
    #[schema(value_type = String)]
    pub stage: Stage,
    /// Current order of the user: `continue`, `pause` or `cancel`.
    pub order: String,
    /// Outcome, once every task has ended.
    pub outcome: Option<SweepOutcome>,
    /// Sweeps of higher priority run first.
    pub priority: i64,
    /// Largest number of tasks that run at once; `null` for no limit.
    pub max_running: Option<u32>,
    /// Milliseconds since 1970.
    pub created: u64,
    /// Number of tasks, including the scores task.
    pub tasks: usize,
    /// Number of tasks by state; states without tasks are omitted.
    pub counts: BTreeMap<String, usize>,
    /// Percentage of tasks that have ended.
    pub progress: f64,
}

/// Outcome of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SweepOutcome {
    /// At least one soup succeeded.
    Done,
    /// No soup succeeded.
    Failed,
    /// It was cancelled before any soup succeeded.
    Cancelled,
}

impl From<&SweepRecord> for SweepBody {
    fn from(record: &SweepRecord) -> Self {
        let tasks = record.tasks();
        let ended = TaskState::ALL.into_iter().filter(|s| s.is_final()).map(|s| record.count(s)).sum::<usize>();
        Self {
            id: record.id.clone(),
            name: record.name.clone(),
            stage: record.stage,
            order: order_word(record.order).to_string(),
            outcome: SweepOutcome::of(record),
            priority: record.priority,
            max_running: (record.cap > 0).then_some(record.cap),
            created: record.created,
            tasks,
            counts: record.counts.iter().map(|(state, &count)| (state.as_str().to_string(), count)).collect(),
            progress: if tasks == 0 { 0.0 } else { 100.0 * ended as f64 / tasks as f64 },
        }
    }
}

impl SweepOutcome {
    /// `None` before every task is final.
    fn of(record: &SweepRecord) -> Option<Self> {
        // Without tasks the sweep is being removed, or never was filled.
        if !record.is_final() || record.tasks() == 0 {
            return None;
        }
        // A sweep is ready once its scores task succeeded, which is no soup.
        let soups = record.count(TaskState::Succeeded).saturating_sub(usize::from(record.stage == Stage::Ready));
        Some(match soups {
            1.. => Self::Done,
            0 if record.count(TaskState::Failed) > 0 => Self::Failed,
            0 => Self::Cancelled,
        })
    }
}

/// An order as in answers.
pub fn order_word(order: Order) -> &'static str {
    match order {
        Order::Continue => "continue",
        Order::Pause => "pause",
        Order::Cancel => "cancel",
    }
}

/// Sweeps, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SweepPage {
    /// The sweeps.
    pub sweeps: Vec<SweepBody>,
    /// Value of `after` for the next page; `null` at the end.
    pub next: Option<String>,
}

/// Selection of sweeps.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SweepsQuery {
    /// Value of `next` from the previous page.
    #[param(pattern = r"^[0-9]{1,19}\.[A-Za-z0-9+_-][A-Za-z0-9.+_-]{0,99}$")]
    pub after: Option<String>,
    /// Largest number of sweeps per page, 1 to 500. Default: 50.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<usize>,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskBody {
    /// Its id within the sweep.
    pub id: String,
    /// `pending`, `queued`, `running`, `waiting`, `paused`, `succeeded`, `failed`, `cancelled` or `pruned`.
    #[schema(value_type = String)]
    pub state: TaskState,
    /// Cause of its failure.
    pub cause: Option<String>,
    /// Number of claims so far.
    pub attempts: u64,
    /// Number of attempts in a row that ended without progress.
    pub crashes: u64,
    /// Increases each time the task becomes runnable again.
    pub generation: u64,
    /// Whether it has a checkpoint.
    pub has_checkpoint: bool,
    /// Whether it has a result.
    pub has_result: bool,
}

impl From<&TaskRecord> for TaskBody {
    fn from(record: &TaskRecord) -> Self {
        Self {
            id: record.key.task.clone(),
            state: record.state,
            cause: record.cause.clone(),
            attempts: record.attempts,
            crashes: record.crashes,
            generation: record.generation,
            has_checkpoint: record.has_checkpoint,
            has_result: record.has_result,
        }
    }
}

/// Tasks of a sweep, in the order of the sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskPage {
    /// The tasks.
    pub tasks: Vec<TaskBody>,
    /// Value of `from` for the next page; `null` at the end. With `state`, a page can be short or
    /// empty although there is a next one.
    pub next: Option<usize>,
}

/// Selection of tasks.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TasksQuery {
    /// Position in the sweep of the first task. Default: 0.
    pub from: Option<usize>,
    /// Largest number of tasks per page, 1 to 1000. Default: 100.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
    /// Only tasks in this state.
    #[param(inline, value_type = Option<TaskState>)]
    pub state: Option<String>,
}

/// A task with its details.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskDetail {
    /// The task.
    #[serde(flatten)]
    pub task: TaskBody,
    /// Its last iteration, as reported by its worker.
    #[schema(value_type = Option<Object>)]
    pub progress: Option<serde_json::Value>,
    /// Its resolved hyperparameters; `null` for the scores task.
    #[schema(value_type = Option<Object>)]
    pub hyperparameters: Option<serde_json::Value>,
    /// The searched hyperparameters.
    #[schema(value_type = Object)]
    pub searched: BTreeMap<String, serde_json::Value>,
}

/// Events of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventsBody {
    /// The last 200 events, oldest first.
    pub events: Vec<EventBody>,
}

/// An event of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventBody {
    /// Milliseconds since 1970.
    pub at: u64,
    /// `claimed`, `released`, `crashed`, `failed`, `succeeded`, `cancelled`, `paused`, `resumed`, `retried`.
    pub what: String,
    /// The worker, or the cause.
    pub detail: Option<String>,
}

impl From<TaskEvent> for EventBody {
    fn from(event: TaskEvent) -> Self {
        Self { at: event.at, what: event.what, detail: event.detail }
    }
}

/// A sample of a finished task's iterations, for plots. Empty until the task has a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HistoryBody {
    /// `iteration, learn_loss, select_loss, samples_per_second, host_bytes, device_bytes` of each.
    #[schema(value_type = Vec<Object>)]
    pub points: Vec<HistoryPoint>,
}

/// Changes by a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangedBody {
    /// The sweep.
    pub id: String,
    /// Current order of the user: `continue`, `pause` or `cancel`.
    pub order: String,
    /// Number of tasks that changed now. Running tasks follow within an iteration.
    pub changed: usize,
}

/// Load of the pool, for autoscalers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoadBody {
    /// Tasks that free workers could take now, with `max_running`, pauses and cancellations taken
    /// into account.
    pub runnable: usize,
    /// Tasks that are running on a worker.
    pub running: usize,
    /// Tasks that wait at a rung. They need no worker unless they are promoted.
    pub waiting: usize,
    /// Number of workers that could be busy: `runnable + running`.
    pub wanted: usize,
    /// Number of live workers.
    pub workers: usize,
}

/// The live workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkersBody {
    /// By name.
    pub workers: Vec<WorkerBody>,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerBody {
    /// Its name.
    pub name: String,
    /// Information that it reports about itself.
    #[schema(value_type = Object)]
    pub about: serde_json::Value,
}

/// Selection of dead letters.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LettersQuery {
    /// Largest number of letters, 1 to 1000. Default: 100.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
}

/// Dead letters that are not tickets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LettersBody {
    /// Total number since the beginning.
    pub total: u64,
    /// Newest first; the newest 1000 are kept.
    pub letters: Vec<LetterBody>,
}

/// A dead letter that is not a ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LetterBody {
    /// When it was found, in milliseconds since 1970.
    pub at: u64,
    /// Why RabbitMQ dead-lettered it, for example `rejected`.
    pub reason: String,
    /// Why it is not a ticket.
    pub fault: String,
    /// Size of its body in bytes.
    pub bytes: usize,
    /// The first 4096 bytes of its body.
    pub body: String,
    /// Whether the body is text. If not, `body` contains escapes such as `\xff`.
    pub is_text: bool,
}

impl From<KeptLetter> for LetterBody {
    fn from(KeptLetter { at, letter }: KeptLetter) -> Self {
        let Letter { reason, fault, bytes, body, is_text } = letter;
        Self { at, reason, fault, bytes, body, is_text }
    }
}

/// Whether requests can be served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReadyBody {
    /// `ok`, or a short description of the problem with Redis.
    pub store: String,
    /// `ok`, or a short description of the problem with RabbitMQ.
    pub broker: String,
}

/// An error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// Machine-readable code, for example `bad_spec` or `not_found`.
    pub code: String,
    /// Human-readable message.
    pub message: String,
    /// All errors of a specification, in the order of its text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultBody>,
}

/// An error of a specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FaultBody {
    /// Its position in the text, if it has one.
    pub place: Option<PlaceBody>,
    /// The key, for example `search.points[1].batch`; empty for the text as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// A position in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlaceBody {
    /// Starts at 1.
    pub line: usize,
    /// In characters, starts at 1.
    pub column: usize,
}

/// Longest path and message of a fault, in characters: both may quote the text, and there may be many of them.
const LONGEST: usize = 300;

impl From<&Fault> for FaultBody {
    fn from(fault: &Fault) -> Self {
        let cut = |text: String| match text.char_indices().nth(LONGEST) {
            None => text,
            Some((end, _)) => format!("{}...", &text[..end]),
        };
        Self {
            place: fault.place.map(|place| PlaceBody { line: place.line, column: place.column }),
            path: cut(fault.key.clone()),
            message: cut(fault.problem.to_string()),
        }
    }
}
