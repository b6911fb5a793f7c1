//! A specification becomes a sweep of the store: created, filled with its tasks, opened. Each step can be repeated, so a creation that was cut off goes
//! on with the same request key.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::search::{Reach, Search, Searches, first_tasks};
use crate::store::traits::{Admission, Reading};
use crate::store::{Backoff, NewSweep, NewTask, Stage, StoreError};
use crate::sweep::spec::Spec;
use crate::sweep::task::Task;
use crate::task::{TaskKey, is_id};

/// Id of the scores task of every sweep.
pub const SCORES: &str = TaskKey::SCORES;

/// Tasks of one write: some hundred kilobytes, which a store takes in a few milliseconds.
const BATCH: usize = 500;
/// Writes on their way at once: while the store does one, the next ones travel.
const AT_ONCE: usize = 4;
/// Longest readable part of an id, in bytes.
const READABLE: usize = 60;
/// Letters of an id's random part: with 8 of 32 each, a million sweeps of one name collide with a probability below one half.
const RANDOM: usize = 8;

/// How a sweep is to be worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Sweeps of higher priority are worked on first.
    pub priority: i64,
    /// Tasks that may run at once; 0 for any number.
    pub cap: u32,
    /// Attempts that may end without progress before a task fails, at least 1.
    pub attempts: u32,
    /// Wait before the attempt after a crash.
    pub backoff: Backoff,
    /// Most tasks of a sweep whose search adds tasks while it is open, its scores task included.
    pub task_limit: usize,
}

impl Default for Terms {
    fn default() -> Self {
        Self { priority: 0, cap: 0, attempts: 3, backoff: Backoff::default(), task_limit: 100_000 }
    }
}

/// A sweep that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Its id.
    pub id: String,
    /// Whether this call created it.
    pub is_new: bool,
}

/// Why a sweep was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// The store did not answer, or not as it should. Repeat it with the same request key.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The request key made a sweep already, and what was asked then differs in this.
    #[error("the key was already used for sweep {id}, which has another {what}")]
    KeyTaken {
        /// The sweep of the key.
        id: String,
        /// What differs.
        what: &'static str,
    },
}

/// The task that every sweep begins with.
pub fn scores_task() -> NewTask {
    NewTask { id: SCORES.to_string(), body: "{}".to_string(), is_scores: true }
}

/// The tasks that a sweep begins with, as the store keeps them: the scores task, then those of its
/// search.
pub fn new_tasks(spec: &Spec) -> Vec<NewTask> {
    let first = first_tasks(&*Searches::default().of(spec));
    std::iter::once(scores_task()).chain(first.iter().map(soup_task)).collect()
}

/// A soup task as the store keeps it.
pub fn soup_task(task: &Task) -> NewTask {
    let body = serde_json::to_string(task).expect("plain data serializes");
    NewTask { id: task.id.clone(), body, is_scores: false }
}

/// A sweep as the store keeps it, with the search that its specification asks for.
pub fn new_sweep(id: String, spec: &Spec, terms: Terms) -> NewSweep {
    searched_sweep(id, spec, &*Searches::default().of(spec), terms)
}

/// A sweep as the store keeps it, with this search.
pub fn searched_sweep(id: String, spec: &Spec, search: &dyn Search, terms: Terms) -> NewSweep {
    NewSweep {
        id,
        name: spec.name.clone(),
        spec: serde_json::to_string(spec).expect("plain data with paths in UTF-8 serializes"),
        attempts: terms.attempts.max(1),
        cap: terms.cap,
        priority: terms.priority,
        // A part of a second is a second: 0 would be no limit.
        max_seconds: spec.search.max_seconds.map_or(0, |seconds| seconds.ceil() as u64),
        search_controlled: search.reach() != Reach::Nothing,
        backoff: terms.backoff,
        task_limit: if search.reach() == Reach::Tasks { terms.task_limit } else { 0 },
    }
}

/// Creates a sweep of `spec` with these `tasks` of [`new_tasks`], and opens it. `request` is the client's own key: the same again gives the same sweep,
/// and completes one that was cut off.
///
/// # Errors
/// If the store does not answer; if the key belongs to a sweep of another specification or other terms.
pub async fn admit(
    store: &(impl Admission + Reading),
    spec: &Spec,
    tasks: &[NewTask],
    terms: Terms,
    request: Option<&str>,
) -> Result<Admitted, AdmitError> {
    let mut tries = 0;
    let created = loop {
        let new = new_sweep(new_id(&spec.name), spec, terms);
        let created = store.create_sweep(&new, request).await?;
        tries += 1;
        if created.is_new || created.id != new.id || tries == 10 {
            break created;
        }
        // The id is taken, by a sweep that is not ours.
    };
    if !created.is_new {
        compare(store, &created.id, spec, terms).await?;
    }
    if created.is_new || is_creating(store, &created.id).await? {
        fill(store, &created.id, tasks).await?;
    }
    Ok(Admitted { id: created.id, is_new: created.is_new })
}

/// The specification counts, not its text: a later version may write more fields.
async fn compare(store: &impl Reading, id: &str, spec: &Spec, terms: Terms) -> Result<(), AdmitError> {
    let taken = |what| Err(AdmitError::KeyTaken { id: id.to_string(), what });
    let (Some((stored, _)), Some(record)) = (store.documents(id).await?, store.sweep(id).await?) else {
        // It was deleted in between.
        return Err(StoreError::Protocol("a sweep of a known request key is gone".to_string()).into());
    };
    let stored: Option<Spec> = serde_json::from_str(&stored).ok();
    match stored {
        Some(stored) if stored == *spec => {}
        _ => return taken("specification"),
    }
    if record.priority != terms.priority {
        return taken("priority");
    }
    if record.cap != terms.cap {
        return taken("limit of running tasks");
    }
    if record.attempts != terms.attempts.max(1) { taken("number of attempts") } else { Ok(()) }
}

async fn is_creating(store: &impl Reading, id: &str) -> Result<bool, StoreError> {
    Ok(store.sweep(id).await?.is_some_and(|sweep| sweep.stage == Stage::Creating))
}

async fn fill(store: &(impl Admission + Reading), id: &str, tasks: &[NewTask]) -> Result<(), StoreError> {
    let batches: Vec<_> =
        tasks.chunks(BATCH).enumerate().map(|(i, batch)| store.add_tasks(id, i * BATCH, batch)).collect();
    let added: Result<Vec<usize>, StoreError> = stream::iter(batches).buffer_unordered(AT_ONCE).try_collect().await;
    match added {
        Ok(_) => {}
        // Somebody else with the same key was quicker, or it was cancelled meanwhile.
        Err(StoreError::Protocol(_)) if !is_creating(store, id).await? => return Ok(()),
        Err(error) => return Err(error),
    }
    store.open_sweep(id).await.map(drop)
}

/// A new id that begins with the sweep's name, as far as its characters allow.
fn new_id(name: &str) -> String {
    let mut readable = String::new();
    for c in name.chars() {
        let c = if c.is_ascii_alphanumeric() || "+-._".contains(c) { c } else { '-' };
        if readable.len() < READABLE && !(c == '-' && readable.ends_with('-')) {
            readable.push(c);
        }
    }
    let readable = readable.trim_matches(['-', '.']);
    let readable = if readable.is_empty() { "sweep" } else { readable };
    format!("{readable}-{}", &unique_word()[..RANDOM])
}

/// Whether a text is made as the ids of sweeps are.
pub fn is_sweep_id(text: &str) -> bool {
    let letters = |word: &str| word.len() == RANDOM && word.bytes().all(|byte| LETTERS.contains(&byte));
    is_id(text) && text.rsplit_once('-').is_some_and(|(readable, word)| !readable.is_empty() && letters(word))
}

/// Letters of an id's random part: none that another is taken for.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A word of 32 letters and digits that no other call gives, here or elsewhere. Not a secret.
pub(crate) fn unique_word() -> String {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&std::process::id().to_le_bytes());
    hasher.update(&since.as_nanos().to_le_bytes());
    hasher.update(&CALLS.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    // Where process ids and clocks may agree, as in containers started together, this differs.
    hasher.update(std::fs::read("/proc/sys/kernel/random/uuid").unwrap_or_default().as_slice());
    hasher.finalize().as_bytes().iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_readable_and_each_is_another() {
        for (name, begins) in [
            ("digits", "digits-"),
            ("Größe & more!", "Gr-e-more-"),
            ("../../etc", "etc-"),
            ("日本", "sweep-"),
            ("", "sweep-"),
            (&"long".repeat(50), "longlong"),
        ] {
            let id = new_id(name);
            assert!(is_id(&id) && id.starts_with(begins), "{name}: {id}");
            assert_ne!(id, new_id(name));
            assert!(is_sweep_id(&id), "{id}");
        }
        for other in ["none", "-abcdefgh", "a-abcdefg", "a-abcdefg1", "run/tasks", "coefficients.safetensors"] {
            assert!(!is_sweep_id(other), "{other}");
        }
    }
}
