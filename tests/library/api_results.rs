//! A sweep's results come piece by piece, as the text that they would be in one.

use mehl_soup::sweep::results::SweepResults;
use mehl_soup::task::TaskState;
use serde_json::json;

use crate::support::service::{SPEC, Service};

#[tokio::test(flavor = "multi_thread")]
async fn results_in_pieces_are_the_same_text() {
    let service = Service::in_memory().await;
    service.knobs.iterations.store(1, std::sync::atomic::Ordering::SeqCst);
    // Many pieces.
    let spec = format!("{SPEC}seed = {{ int = [1, 100] }}\n");
    let created = service.call("POST", "/v1/sweeps", Some(json!({"spec": spec, "format": "toml"}))).await;
    let id = created.json()["id"].as_str().unwrap().to_string();
    let at = format!("/v1/sweeps/{id}/results");
    let read = async || {
        let answer = service.call("GET", &at, None).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
        let results: SweepResults = serde_json::from_slice(&answer.bytes).unwrap();
        assert_eq!(serde_json::to_string(&results).unwrap(), String::from_utf8(answer.bytes).unwrap());
        results
    };
    let early = read().await;
    assert_eq!((early.tasks.len(), early.tasks[2].task_id.as_str()), (302, "0001-mehl+"));
    assert!(early.tasks.iter().all(|row| row.state == TaskState::Pending && row.select.is_none()));
    service.work("a");
    service.until(&id, "some are done", |sweep| sweep["counts"]["succeeded"].as_u64() > Some(20)).await;
    // While it is worked on, the ended come first.
    let half = read().await;
    let ended = half.tasks.iter().take_while(|row| row.state == TaskState::Succeeded).count();
    assert!(ended > 18 && half.tasks[ended..].iter().all(|row| row.state != TaskState::Succeeded), "{ended}");
    assert_eq!(half.tasks.len(), 302);
    service.until(&id, "it ends", |sweep| sweep["outcome"] == "done").await;
    let done = read().await;
    let losses: Vec<f64> = done.tasks.iter().map(|row| row.select.unwrap().loss).collect();
    assert!(losses.is_sorted() && losses.len() == 302, "{losses:?}");
    assert!(done.baselines.best.is_some() && done.baselines.uniform.is_some());
    assert_eq!(done.tasks.iter().map(|row| row.searched.len()).max(), Some(2));
}
