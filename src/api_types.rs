//! Bodies of requests and answers, for the server and for [`client`](crate::client). In answers a client passes over fields that it does not know; in
//! requests the server refuses them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::runner::pool::HistoryPoint;
use crate::store::{KeptLetter, Letter, Order, Stage, SweepRecord, TaskEvent, TaskRecord};
use crate::sweep::parse::{Fault, Format};
use crate::task::TaskState;

/// A sweep to be computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSweepBody {
    /// The specification, as text.
    pub spec: String,
    /// Format of the text.
    pub format: SpecFormat,
    /// Absolute folder that relative paths in the specification begin at, as workers see it; `/` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Name of the sweep, instead of the one in the specification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Sweeps of higher priority are worked on first; 0 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = -1000, maximum = 1000)]
    pub priority: Option<i64>,
    /// Tasks that may run at once; any number if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_running: Option<u32>,
    /// Attempts that may end without progress before a task fails; 3 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub attempts: Option<u32>,
    /// The client's own key: the same again gives the same sweep, and completes its creation if that was cut off. Also as header `Idempotency-Key`; if
    /// both are given and differ, the request is refused with 400.
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
    /// Its name, for people.
    pub name: String,
    /// `creating`, `scoring` (ingredients and data are looked at) or `ready` (tasks can be worked on, or are done).
    #[schema(value_type = String)]
    pub stage: Stage,
    /// What its owner wants: `continue`, `pause` or `cancel`.
    pub order: String,
    /// What came of it, once every task is final.
    pub outcome: Option<SweepOutcome>,
    /// Sweeps of higher priority are worked on first.
    pub priority: i64,
    /// Tasks that may run at once; `null` for any number.
    pub max_running: Option<u32>,
    /// Milliseconds since 1970.
    pub created: u64,
    /// Tasks, the scores task included.
    pub tasks: usize,
    /// Tasks by state; states without tasks are left out.
    pub counts: BTreeMap<String, usize>,
    /// Part of the tasks that are final, in percent.
    pub progress: f64,
}

/// What came of a sweep.
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
    /// What to give as `after` for the next page; `null` at the end.
    pub next: Option<String>,
}

/// Which sweeps.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SweepsQuery {
    /// `next` of the page before: its last sweep, by the time of its creation and its id.
    #[param(pattern = r"^[0-9]{1,19}\.[A-Za-z0-9+_-][A-Za-z0-9.+_-]{0,99}$")]
    pub after: Option<String>,
    /// Most sweeps of the page, 1 to 500; 50 if left out.
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
    /// Why it failed.
    pub cause: Option<String>,
    /// Claims so far.
    pub attempts: u64,
    /// Attempts since the last progress that ended without any.
    pub crashes: u64,
    /// Rises whenever it becomes runnable again.
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

/// Tasks of a sweep, in its order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskPage {
    /// The tasks.
    pub tasks: Vec<TaskBody>,
    /// What to give as `from` for the next page; `null` at the end. With `state`, a page may be short, even empty, and have a next one.
    pub next: Option<usize>,
}

/// Which tasks.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TasksQuery {
    /// Place in the sweep to begin at; 0 if left out.
    pub from: Option<usize>,
    /// Most tasks of the page, 1 to 1000; 100 if left out.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
    /// Only tasks in this state.
    #[param(inline, value_type = Option<TaskState>)]
    pub state: Option<String>,
}

/// A task with what is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskDetail {
    /// The task.
    #[serde(flatten)]
    pub task: TaskBody,
    /// Its last iteration, as its worker told it.
    #[schema(value_type = Option<Object>)]
    pub progress: Option<serde_json::Value>,
    /// Its hyperparameters, resolved; `null` for the scores task.
    #[schema(value_type = Option<Object>)]
    pub hyperparameters: Option<serde_json::Value>,
    /// The searched ones among them.
    #[schema(value_type = Object)]
    pub searched: BTreeMap<String, serde_json::Value>,
}

/// What happened to a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventsBody {
    /// Oldest first, the last 200.
    pub events: Vec<EventBody>,
}

/// One thing that happened to a task.
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

/// A finished task's iterations, thinned out, for plots. Empty before it has a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HistoryBody {
    /// `iteration, learn_loss, select_loss, samples_per_second, host_bytes, device_bytes` of each.
    #[schema(value_type = Vec<Object>)]
    pub points: Vec<HistoryPoint>,
}

/// What a request changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangedBody {
    /// The sweep.
    pub id: String,
    /// What its owner wants now: `continue`, `pause` or `cancel`.
    pub order: String,
    /// Idle tasks that changed at once; running ones follow within an iteration.
    pub changed: usize,
}

/// How much there is to do, for autoscalers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoadBody {
    /// Tasks that a free worker could take now; limits of running tasks, pauses and cancellations are taken off.
    pub runnable: usize,
    /// Tasks that a worker has.
    pub running: usize,
    /// Tasks at a rung, which need no worker unless they are promoted.
    pub waiting: usize,
    /// Workers that would all be busy: `runnable + running`.
    pub wanted: usize,
    /// Workers that are there.
    pub workers: usize,
}

/// Workers that are there.
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
    /// What it said about itself.
    #[schema(value_type = Object)]
    pub about: serde_json::Value,
}

/// How many dead letters.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LettersQuery {
    /// Most letters, 1 to 1000; 100 if left out.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
}

/// Dead letters that are no tickets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LettersBody {
    /// How many there ever were.
    pub total: u64,
    /// Newest first; the newest 1000 are kept.
    pub letters: Vec<LetterBody>,
}

/// A dead letter that is no ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LetterBody {
    /// When it was found, in milliseconds since 1970.
    pub at: u64,
    /// Why the broker made it a dead letter, such as `rejected`.
    pub reason: String,
    /// Why it is no ticket.
    pub fault: String,
    /// Bytes of its body.
    pub bytes: usize,
    /// Its body, at most the first 4096 bytes of it.
    pub body: String,
    /// Whether the body is text; if not, `body` has escapes such as `\xff` for its bytes.
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
    /// `ok`, or what is the matter with the store, in a word.
    pub store: String,
    /// `ok`, or what is the matter with the broker, in a word.
    pub broker: String,
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The fault.
    pub error: ErrorDetail,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// For programs, such as `bad_spec` or `not_found`.
    pub code: String,
    /// For people.
    pub message: String,
    /// Everything that is wrong with a specification, in the order of its text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultBody>,
}

/// One fault of a specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FaultBody {
    /// Where it is, if it has a place.
    pub place: Option<PlaceBody>,
    /// The key, such as `search.points[1].batch`; empty for the text as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlaceBody {
    /// From 1 on.
    pub line: usize,
    /// From 1 on, in characters.
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
