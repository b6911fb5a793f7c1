//! What there is of a sweep at a moment, in a few bytes a task: for readers of its results, who take
//! their time.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::error::ApiError;
use super::known::Known;
use super::results::result;
use crate::runner::engine::Effort;
use crate::scheduler::SCORES;
use crate::store::traits::Reading;
use crate::store::{StoreError, TaskRecord};
use crate::sweep::manifest::Manifest;
use crate::sweep::paired::UnitScores;
use crate::sweep::results::{BaselineResult, Baselines, Row, SweepResults, TaskOutcome};
use crate::sweep::rows::Rows;
use crate::sweep::score::SplitScore;
use crate::sweep::spec::{Family, MethodName, Spec};
use crate::task::{TaskKey, TaskState};

/// Tasks that are read at once.
const PAGE: usize = 500;
/// Results that are asked for at once. Each brings its coefficients along, which may have megabytes.
const AT_ONCE: usize = 8;
/// Bytes from which on a piece of the results is sent.
const PIECE: usize = 64 << 10;

/// What there is of a sweep.
#[derive(Debug)]
pub struct Snapshot {
    known: Arc<Known>,
    manifest: Option<Manifest>,
    /// The results without their rows.
    head: SweepResults,
    rows: Rows,
    /// What came of each task, in the order of the sweep.
    outcomes: Vec<Outcome>,
    /// Places of the tasks, in the order of the rows.
    order: Vec<u32>,
}

/// What came of a task.
#[derive(Debug, Clone)]
enum Outcome {
    /// Nothing that has to be kept: it has not begun, or not ended.
    Bare(TaskState, u32),
    /// What it has to show.
    Told(Arc<TaskOutcome>),
}

impl Outcome {
    /// How it is ranked.
    fn standing(&self) -> (TaskState, Option<&SplitScore>) {
        match self {
            Self::Bare(state, _) => (*state, None),
            Self::Told(outcome) => {
                let select = outcome.scores.as_ref().map(|scores| &scores.select);
                (outcome.state, select.or(outcome.at_rung.as_ref()))
            }
        }
    }
}

impl Snapshot {
    /// Reads a sweep's tasks.
    ///
    /// # Errors
    /// If there is no such sweep any more, or the store does not tell.
    pub async fn read(store: &impl Reading, id: &str, known: Arc<Known>) -> Result<Self, ApiError> {
        let (_, manifest) = store.documents(id).await?.ok_or_else(|| ApiError::no_sweep(id))?;
        let manifest: Option<Manifest> = manifest
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|e| StoreError::Protocol(format!("the manifest of {id}: {e}")))?;
        let mut outcomes = vec![Outcome::Bare(TaskState::Queued, 0); known.tasks.len()];
        let (mut scores, mut from) = (None, 0);
        loop {
            let page = store.tasks(id, from, PAGE).await?;
            from += PAGE;
            let is_last = page.len() < PAGE;
            let mut others = Vec::with_capacity(page.len());
            for record in page {
                if record.key.task == SCORES {
                    scores = Some(record);
                } else if let Some(place) = known.tasks.place_of(&record.key.task) {
                    others.push((place, record));
                }
            }
            let read = stream::iter(others)
                .map(|(place, record)| {
                    let known = &known;
                    async move { Ok::<_, ApiError>((place, outcome(store, known, place, record).await?)) }
                })
                .buffer_unordered(AT_ONCE);
            for (place, outcome) in read.try_collect::<Vec<_>>().await? {
                outcomes[place] = outcome;
            }
            if is_last {
                break;
            }
        }
        let built = tokio::task::spawn_blocking(move || Self::build(known, manifest, scores.as_ref(), outcomes));
        let mut built = built.await.map_err(|e| ApiError::Internal(format!("results were not built: {e}")))?;
        built.compare(store, id).await?;
        Ok(built)
    }

    /// Compares the winner with the baselines and the runner-up, by what the store keeps of their units.
    async fn compare(&mut self, store: &impl Reading, id: &str) -> Result<(), ApiError> {
        let baselines = self.known.tasks.baselines();
        let mut others = 0;
        let wanted = self.order.iter().filter(|&&place| {
            let is_baseline = (place as usize) < baselines;
            others += usize::from(!is_baseline);
            // The winner and the runner-up are among the first two that are no baselines.
            is_baseline || others <= 2
        });
        let tasks = wanted.filter_map(|&place| self.row(place)).collect();
        let mut few = SweepResults { tasks, ..self.head.clone() };
        let mut units = BTreeMap::new();
        for task in few.compared() {
            let key = TaskKey::new(id, &task).map_err(|e| StoreError::Protocol(e.to_string()))?;
            if let Some(bytes) = store.units(&key).await? {
                // Scores are there all the same: one record that cannot be read must not hide the results.
                match UnitScores::from_bytes(&bytes) {
                    Ok(read) => drop(units.insert(task, read)),
                    Err(why) => {
                        let fallback = "its scores are compared as independent ones";
                        self.head
                            .notes
                            .push(format!("task {task}: cannot read values of single samples ({why}); {fallback}"));
                    }
                }
            }
        }
        few.compare(|task| units.get(task));
        self.head.comparisons = few.comparisons;
        Ok(())
    }

    fn build(
        known: Arc<Known>,
        manifest: Option<Manifest>,
        scores: Option<&TaskRecord>,
        outcomes: Vec<Outcome>,
    ) -> Self {
        let baselines = Baselines::of(|method| baseline(&known, &outcomes, method));
        let spec = known.spec();
        let head = match &manifest {
            Some(manifest) => SweepResults::head(spec, manifest, baselines),
            None => {
                let mut head = SweepResults::head(spec, &nothing_known(spec), baselines);
                head.inputs_hash.clear();
                head.notes.push(unscored(scores));
                head
            }
        };
        let rows = Rows::new(&head);
        let mut order: Vec<u32> = (0..outcomes.len() as u32).collect();
        let standing = |place: &u32| outcomes[*place as usize].standing();
        order.sort_by(|a, b| rows.compare(standing(a), standing(b)));
        Self { known, manifest, head, rows, outcomes, order }
    }

    /// The specification.
    pub fn spec(&self) -> &Spec {
        self.known.spec()
    }

    /// What the scores task found out, once it has.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// The results in one piece: a kilobyte or two for each task.
    pub fn results(&self) -> SweepResults {
        let tasks = self.order.iter().filter_map(|&place| self.row(place)).collect();
        SweepResults { tasks, ..self.head.clone() }
    }

    /// The results as JSON, piece by piece: the text of [`results`](Self::results).
    ///
    /// # Errors
    /// If the results without rows cannot be written.
    pub fn pieces(self: Arc<Self>) -> Result<Pieces, ApiError> {
        let fault = |e: &dyn std::fmt::Display| ApiError::Internal(format!("results were not written: {e}"));
        let mut text = serde_json::to_vec(&self.head).map_err(|e| fault(&e))?;
        // Rows are the last that is written.
        if !text.ends_with(EMPTY) {
            return Err(fault(&"the head does not end with its rows"));
        }
        text.truncate(text.len() - CLOSE.len());
        Ok(Pieces { snapshot: self, text, next: 0, is_begun: false, is_done: false })
    }

    fn row(&self, place: u32) -> Option<Row> {
        let task = self.known.tasks.task(place as usize)?;
        Some(match &self.outcomes[place as usize] {
            Outcome::Told(outcome) => self.rows.row(task, outcome),
            Outcome::Bare(state, attempts) => {
                let outcome = TaskOutcome { state: *state, attempts: *attempts, ..TaskOutcome::queued() };
                self.rows.row(task, &outcome)
            }
        })
    }
}

/// How results without rows end.
const EMPTY: &[u8] = b"\"tasks\":[]}";
/// What follows the last row.
const CLOSE: &[u8] = b"]}";

/// The text of results, which is made as it is read.
#[derive(Debug)]
pub struct Pieces {
    snapshot: Arc<Snapshot>,
    text: Vec<u8>,
    next: usize,
    /// Whether there is a row before the next one.
    is_begun: bool,
    is_done: bool,
}

impl Iterator for Pieces {
    type Item = serde_json::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let mut text = std::mem::take(&mut self.text);
        while text.len() < PIECE {
            let Some(&place) = self.snapshot.order.get(self.next) else {
                text.extend_from_slice(CLOSE);
                self.is_done = true;
                break;
            };
            self.next += 1;
            let Some(row) = self.snapshot.row(place) else { continue };
            if self.is_begun {
                text.push(b',');
            }
            self.is_begun = true;
            if let Err(error) = serde_json::to_writer(&mut text, &row) {
                self.is_done = true;
                return Some(Err(error));
            }
        }
        Some(Ok(text.into()))
    }
}

fn baseline(known: &Known, outcomes: &[Outcome], method: MethodName) -> Option<BaselineResult> {
    let mut baselines = outcomes.iter().take(known.tasks.baselines()).enumerate();
    baselines.find_map(|(place, outcome)| {
        let Outcome::Told(outcome) = outcome else { return None };
        let task = known.tasks.task(place).filter(|task| task.soup.method == method)?;
        Some(BaselineResult { task_id: task.id, scores: outcome.scores.clone()? })
    })
}

async fn outcome(store: &impl Reading, known: &Known, place: usize, record: TaskRecord) -> Result<Outcome, ApiError> {
    let attempts = u32::try_from(record.attempts).unwrap_or(u32::MAX);
    if let Some(outcome) = known.outcome(place, &record) {
        return Ok(Outcome::Told(outcome));
    }
    let found = match record.state {
        TaskState::Succeeded => {
            let completed = store.result(&record.key).await?;
            completed.map(|completed| result(&record.key, &completed)).transpose()?.map(|result| result.outcome)
        }
        TaskState::Waiting | TaskState::Pruned => {
            let standing = store.standing(&record.key).await?;
            let outcome: Option<TaskOutcome> = standing
                .map(|standing| serde_json::from_str(&standing))
                .transpose()
                .map_err(|e| StoreError::Protocol(format!("where {} stands: {e}", record.key)))?;
            outcome.map(|outcome| TaskOutcome { state: record.state, attempts, ..outcome })
        }
        TaskState::Failed => record.cause.clone().map(|cause| TaskOutcome::failed(cause, Effort::default(), attempts)),
        _ => None,
    };
    Ok(match found.map(Arc::new) {
        Some(outcome) => {
            known.remember(place, &record, &outcome);
            Outcome::Told(outcome)
        }
        None => Outcome::Bare(record.state, attempts),
    })
}

/// In place of the manifest of a sweep whose scores task is not done.
fn nothing_known(spec: &Spec) -> Manifest {
    Manifest {
        objective: Default::default(),
        version: Manifest::VERSION,
        family: spec.zoo.family.unwrap_or(Family::Vit),
        architecture: serde_json::Value::Null,
        ingredients: vec![],
        base: None,
        data: vec![],
        notes: vec![],
    }
}

fn unscored(scores: Option<&TaskRecord>) -> String {
    match scores {
        Some(TaskRecord { state: TaskState::Failed, cause, .. }) => {
            format!("the scores task failed: {}", cause.as_deref().unwrap_or("unknown cause"))
        }
        Some(record) => format!("ingredients and data are not checked yet: the scores task is {}", record.state),
        None => "ingredients and data are not checked yet".to_string(),
    }
}
