//! A report from a scheduler, through its HTTP API.

use super::data::{Detail, Report, chosen};
use crate::api_types::HistoryBody;
use crate::client::{Client, ClientError};
use crate::sweep::results::SweepResults;
use crate::sweep::spec::Spec;
use crate::task::TaskState;

/// What there is of a sweep of a pool, finished or not.
///
/// # Errors
/// If the scheduler does not answer, or knows no such sweep, or its results are of another version. A task's files that cannot be had are noted in the report instead.
pub fn read_pool(client: &Client, sweep: &str) -> Result<Report, ClientError> {
    let at = format!("/v1/sweeps/{sweep}");
    let results = results_of(client, sweep)?;
    let spec: Spec = client.get(&format!("{at}/spec"))?;
    let details = chosen(&results).into_iter().map(|task| {
        let mut detail = Detail::new(&task);
        if results.tasks.iter().any(|row| row.task_id == task && row.state == TaskState::Succeeded) {
            match client.get::<HistoryBody>(&format!("{at}/tasks/{task}/history")) {
                Ok(body) => detail.history = body.points,
                Err(error) => detail.faults.push(format!("iterations of {task}: {error}")),
            }
            match client.get_bytes(&format!("{at}/tasks/{task}/coefficients")) {
                Ok(bytes) => detail.read_soup(&bytes),
                Err(error) => detail.faults.push(format!("coefficients of {task}: {error}")),
            }
        }
        detail
    });
    let details = details.collect();
    Ok(Report::new(results, Some(spec), None, details))
}

/// A sweep's results.
///
/// # Errors
/// If the scheduler does not answer, knows no such sweep, or speaks of another version.
pub fn results_of(client: &Client, sweep: &str) -> Result<SweepResults, ClientError> {
    #[derive(serde::Deserialize)]
    struct OnlyVersion {
        version: u32,
    }
    let bytes = client.get_bytes(&format!("/v1/sweeps/{sweep}/results"))?;
    let strange = |what: String| ClientError::Strange { server: client.server().to_string(), what };
    let OnlyVersion { version } = serde_json::from_slice(&bytes).map_err(|e| strange(e.to_string()))?;
    if version != SweepResults::VERSION {
        let what = format!("results have version {version}, this program reads version {}", SweepResults::VERSION);
        return Err(strange(what));
    }
    serde_json::from_slice(&bytes).map_err(|e| strange(e.to_string()))
}
