//! The HTTP API through a real socket, over the store and the queue of one process.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use crate::support::service::{SPEC, Service, TOKEN};
use crate::support::stub_engine::expected;
use base64::prelude::{BASE64_STANDARD, Engine};
use mehl_soup::api::{ApiSettings, ROUTES, serve};
use mehl_soup::queue::{InProcess, TicketQueue};
use mehl_soup::scheduler::{Terms, new_sweep, new_tasks};
use mehl_soup::store::traits::*;
use mehl_soup::store::{Letter, Memory};
use mehl_soup::sweep::parse::{Format, parse_spec_text};
use mehl_soup::sweep::results::SweepResults;
use mehl_soup::task::TaskKey;
use serde_json::{Value, json};

fn body() -> Value {
    json!({"spec": SPEC, "format": "toml", "folder": "/base"})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_from_its_submission_to_its_coefficients() {
    let service = Service::in_memory().await;
    let mut asked = body();
    for (field, value) in [("priority", json!(5)), ("max_running", json!(2)), ("attempts", json!(4))] {
        asked[field] = value;
    }
    asked["name"] = json!("mine");
    let created = service.call("POST", "/v1/sweeps", Some(asked)).await;
    assert_eq!(created.status, 201);
    let id = created.json()["id"].as_str().unwrap().to_string();
    assert!(id.starts_with("mine-"), "{id}");
    let at = format!("/v1/sweeps/{id}");
    assert_eq!(created.header("location"), at);
    assert_eq!(created.header("cache-control"), "no-store");

    // Before anybody works on it.
    let sweep = service.get(&at).await;
    assert_eq!(
        (&sweep["stage"], &sweep["order"], &sweep["outcome"]),
        (&json!("scoring"), &json!("continue"), &Value::Null)
    );
    assert_eq!((&sweep["priority"], &sweep["max_running"], &sweep["tasks"]), (&json!(5), &json!(2), &json!(6)));
    assert_eq!(service.get(&format!("{at}/spec")).await["zoo"]["ingredients"], json!(["/base/zoo/*"]));
    let early: SweepResults = serde_json::from_value(service.get(&format!("{at}/results")).await).unwrap();
    assert_eq!((early.tasks.len(), early.inputs_hash.as_str()), (5, ""));
    assert!(early.notes[0].contains("not checked yet"), "{:?}", early.notes);
    let nothing = service.call("GET", &format!("{at}/tasks/best/coefficients"), None).await;
    assert_eq!((nothing.status, nothing.code().as_str()), (404, "not_found"));
    assert_eq!(service.get(&format!("{at}/tasks/best/history")).await, json!({"points": []}));
    assert_eq!(service.get("/v1/load").await["runnable"], 1, "the scores task");

    service.work("a");
    service.work("b");
    let done = service.until(&id, "it ends", |sweep| !sweep["outcome"].is_null()).await;
    assert_eq!((&done["outcome"], &done["progress"]), (&json!("done"), &json!(100.0)));
    assert_eq!(done["counts"], json!({"succeeded": 6}));

    let results: SweepResults = serde_json::from_value(service.get(&format!("{at}/results")).await).unwrap();
    assert_eq!(results.name, "mine");
    let mut tasks: Vec<_> = results.tasks.iter().map(|row| row.task_id.as_str()).collect();
    tasks.sort_unstable();
    assert_eq!(tasks, ["0001-mehl+", "0002-mehl+", "0003-mehl+", "best", "uniform"]);
    assert!(results.tasks.iter().all(|row| row.iterations == 10 && row.select.is_some()), "{results:?}");
    // The second time they come from what is remembered.
    assert_eq!(serde_json::from_value::<SweepResults>(service.get(&format!("{at}/results")).await).unwrap(), results);

    let task = service.get(&format!("{at}/tasks/0002-mehl+")).await;
    assert_eq!(
        (&task["state"], &task["attempts"], &task["has_result"]),
        (&json!("succeeded"), &json!(1), &json!(true))
    );
    assert_eq!((&task["hyperparameters"]["batch"], &task["searched"]), (&json!(2), &json!({"batch": 2})));
    assert_eq!(task["progress"]["iterations"], 10);
    assert_eq!(service.get(&format!("{at}/tasks/scores")).await["hyperparameters"], Value::Null);
    let events = service.get(&format!("{at}/tasks/0002-mehl+/events")).await;
    let words: Vec<_> = events["events"].as_array().unwrap().iter().map(|e| e["what"].as_str().unwrap()).collect();
    assert_eq!(words, ["claimed", "succeeded"]);
    let history = service.get(&format!("{at}/tasks/0002-mehl+/history")).await;
    assert_eq!(history["points"].as_array().unwrap().len(), 10);
    assert_eq!(history["points"][9]["iteration"], 10);
    let coefficients = service.call("GET", &format!("{at}/tasks/0002-mehl+/coefficients"), None).await;
    assert_eq!((coefficients.status, coefficients.header("content-type")), (200, "application/octet-stream"));
    assert_eq!(coefficients.bytes, expected(10));
    let scores = service.call("GET", &format!("{at}/tasks/scores/coefficients"), None).await;
    assert_eq!(scores.status, 404);

    assert_eq!(service.call("DELETE", &at, None).await.status, 204);
    assert_eq!(service.call("GET", &at, None).await.status, 404);
    assert_eq!(service.call("DELETE", &at, None).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_makes_one_sweep() {
    let service = Service::in_memory().await;
    let mut asked = body();
    asked["key"] = json!("k1");
    let first = service.call("POST", "/v1/sweeps", Some(asked.clone())).await;
    let again = service.call("POST", "/v1/sweeps", Some(asked.clone())).await;
    let by_header = service.call_with("POST", "/v1/sweeps", &[("idempotency-key", "k1")], Some(body())).await;
    assert_eq!((first.status, again.status, by_header.status), (201, 200, 200));
    assert_eq!((again.json(), by_header.json()), (first.json(), first.json()));
    assert_eq!(service.get("/v1/sweeps").await["sweeps"].as_array().unwrap().len(), 1);

    // The same in another format is the same; anything else is not.
    let spec = json!({"name": "digits", "zoo": {"ingredients": "zoo/*"}, "data": {"learn": "learn.safetensors"},
                      "soup": {"method": "mehl+"}, "search": {"space": {"batch": [1, 2, 3]}}});
    let same = json!({"spec": spec.to_string(), "format": "json", "folder": "/base", "key": "k1"});
    assert_eq!(service.call("POST", "/v1/sweeps", Some(same)).await.status, 200);
    for (field, value, what) in [
        ("spec", json!(SPEC.replace("[1, 2, 3]", "[1, 2]")), "specification"),
        ("folder", json!("/elsewhere"), "specification"),
        ("name", json!("other"), "specification"),
        ("priority", json!(1), "priority"),
        ("max_running", json!(1), "limit"),
    ] {
        let mut other = asked.clone();
        other[field] = value;
        let refused = service.call("POST", "/v1/sweeps", Some(other)).await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "conflict"), "{field}");
        let message = refused.json()["error"]["message"].as_str().unwrap().to_string();
        assert!(message.contains(what) && message.contains(first.json()["id"].as_str().unwrap()), "{message}");
    }
    let differ = service.call_with("POST", "/v1/sweeps", &[("idempotency-key", "k2")], Some(asked)).await;
    assert_eq!(differ.status, 400);
    // Without a key, each is another.
    assert_ne!(service.submit().await, service.submit().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_were_no_tickets_can_be_read() {
    let service = Service::in_memory().await;
    assert_eq!(service.get("/v1/dead-letters").await, json!({"total": 0, "letters": []}));
    for letter in [Letter::new(b"hello", "rejected", "not a ticket"), Letter::new(&[0xff; 5000], "maxlen", "too long")]
    {
        service.store.keep_letter(&letter).await.unwrap();
    }
    let all = service.get("/v1/dead-letters").await;
    assert_eq!((&all["total"], all["letters"].as_array().unwrap().len()), (&json!(2), 2));
    let [newest, oldest] = [&all["letters"][0], &all["letters"][1]];
    assert_eq!(
        (&newest["reason"], &newest["bytes"], &newest["is_text"]),
        (&json!("maxlen"), &json!(5000), &json!(false))
    );
    assert_eq!(newest["body"].as_str().unwrap(), r"\xff".repeat(4096));
    let at = oldest["at"].as_u64().unwrap();
    let expected =
        json!({"at": at, "reason": "rejected", "fault": "not a ticket", "bytes": 5, "body": "hello", "is_text": true});
    assert_eq!((at > 0, oldest), (true, &expected));
    let one = service.get("/v1/dead-letters?limit=1").await;
    assert_eq!((&one["total"], &one["letters"]), (&json!(2), &json!([newest])));
    for query in ["limit=0", "limit=1001", "limit=x", "from=1"] {
        let refused = service.call("GET", &format!("/v1/dead-letters?{query}"), None).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "bad_request"), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_was_cut_off_goes_on() {
    let service = Service::in_memory().await;
    let mut spec = parse_spec_text(SPEC, Format::Toml, std::path::Path::new("/base")).unwrap();
    spec.name = "digits".into();
    let tasks = new_tasks(&spec);
    // As far as the server came: half of the tasks, not the first ones.
    service.store.create_sweep(&new_sweep("half".into(), &spec, Terms::default()), Some("k")).await.unwrap();
    service.store.add_tasks("half", 3, &tasks[3..5]).await.unwrap();
    assert_eq!(service.get("/v1/sweeps/half").await["stage"], "creating");
    let mut asked = body();
    asked["key"] = json!("k");
    let answer = service.call("POST", "/v1/sweeps", Some(asked)).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"id": "half"})));
    let page = service.get("/v1/sweeps/half/tasks").await;
    let ids: Vec<_> = page["tasks"].as_array().unwrap().iter().map(|t| t["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["scores", "best", "uniform", "0001-mehl+", "0002-mehl+", "0003-mehl+"]);
    service.work("a");
    service.until("half", "it ends", |sweep| sweep["outcome"] == "done").await;

    // One that nobody repeats can be cancelled and deleted.
    service.store.create_sweep(&new_sweep("left".into(), &spec, Terms::default()), None).await.unwrap();
    service.store.add_tasks("left", 3, &tasks[3..5]).await.unwrap();
    assert_eq!(service.call("DELETE", "/v1/sweeps/left", None).await.status, 409);
    assert_eq!(service.call("POST", "/v1/sweeps/left/cancel", None).await.status, 200);
    assert_eq!(service.get("/v1/sweeps/left").await["outcome"], "cancelled");
    assert_eq!(service.call("DELETE", "/v1/sweeps/left", None).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_a_specification_come_all_at_once_with_their_places() {
    let service = Service::in_memory().await;
    let spec =
        "zoo.ingredients = 'zoo/*'\ndata.lern = 'x'\n[soup]\nbatch = 'many'\n[search]\npoints = [{ method = 'mel' }]\n";
    let answer = service.call("POST", "/v1/sweeps", Some(json!({"spec": spec, "format": "toml"}))).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad_spec"));
    let faults = answer.json()["error"]["faults"].as_array().unwrap().clone();
    let told: Vec<_> = faults.iter().map(|f| (f["path"].as_str().unwrap(), f["place"]["line"].as_u64())).collect();
    for expected in [("data.lern", Some(2)), ("soup.batch", Some(4)), ("search.points[0].method", Some(6))] {
        assert!(told.contains(&expected), "{expected:?} in {told:?}");
    }
    assert!(faults.iter().any(|f| f["message"].as_str().unwrap().contains("`learn`")), "{faults:?}");

    let spec = format!("{}seed = {{ int = [1, 3333334] }}\n", SPEC);
    let answer = service.call("POST", "/v1/sweeps", Some(json!({"spec": spec, "format": "toml"}))).await;
    assert_eq!(answer.status, 400);
    let message = answer.json()["error"]["faults"][0]["message"].as_str().unwrap().to_string();
    assert!(message.contains("at most 100000 tasks") && message.contains("10000002"), "{message}");

    let broken = service.call("POST", "/v1/sweeps", Some(json!({"spec": "a = [", "format": "toml"}))).await;
    assert_eq!(broken.json()["error"]["faults"].as_array().unwrap().len(), 1);
    // Faults without end are counted, long ones are cut.
    let many: String = (0..5000).map(|i| format!("{}{i} = 1\n", "x".repeat(200))).collect();
    let answer = service.call("POST", "/v1/sweeps", Some(json!({"spec": many, "format": "toml"}))).await;
    assert_eq!(answer.json()["error"]["faults"].as_array().unwrap().len(), 1000);
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("the first 1000"));
    assert!(answer.bytes.len() < 1_000_000);
    assert_eq!(service.get("/v1/sweeps").await["sweeps"], json!([]), "nothing was created");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_told_apart() {
    let service = Service::in_memory().await;
    let id = service.submit().await;
    let with = |field: &str, value: Value| {
        let mut body = body();
        body[field] = value;
        body
    };
    for (body, message) in [
        (with("colour", json!("red")), "colour"),
        (with("format", json!("xml")), "xml"),
        (with("spec", json!(7)), "spec"),
        (with("folder", json!("base")), "absolute"),
        (with("name", json!("a\u{1b}[2J")), "name"),
        (with("name", json!("")), "name"),
        (with("priority", json!(1001)), "priority"),
        (with("attempts", json!(0)), "attempts"),
        (with("max_running", json!(0)), "max_running"),
        (with("max_running", json!(-1)), "max_running"),
        (with("key", json!("two words")), "key"),
        (with("key", json!("k".repeat(201))), "key"),
        (json!([]), "expected"),
    ] {
        let answer = service.call("POST", "/v1/sweeps", Some(body.clone())).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{body}");
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains(message), "{body}: {:?}", answer.json());
    }
    let text = service.call_with("POST", "/v1/sweeps", &[("content-type", "text/plain")], None).await;
    assert_eq!((text.status, text.code().as_str()), (415, "unsupported_media_type"));
    let cut = service.call_with("POST", "/v1/sweeps", &[("content-type", "application/json")], None).await;
    assert_eq!((cut.status, cut.code().as_str()), (400, "bad_request"));
    for size in [(1 << 20) + 1, 3 << 20] {
        let large = service.call("POST", "/v1/sweeps", Some(with("spec", json!("#".repeat(size))))).await;
        assert_eq!((large.status, large.code().as_str()), (413, "too_large"), "{size}");
    }
    for query in ["sweeps?limit=0", "sweeps?limit=501", "sweeps?limit=x", "sweeps?after=x", "sweeps?first=1"] {
        let answer = service.call("GET", &format!("/v1/{query}"), None).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{query}");
    }
    for query in ["limit=0", "limit=1001", "from=-1", "from=99999999999", "state=done", "sort=id"] {
        let answer = service.call("GET", &format!("/v1/sweeps/{id}/tasks?{query}"), None).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{query}");
    }
    for (method, path) in
        [("PUT", "/v1/sweeps"), ("DELETE", "/v1/load"), ("GET", "/v1/sweeps/x/cancel"), ("BREW", "/healthz")]
    {
        let answer = service.call(method, path, None).await;
        assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"), "{method} {path}");
    }
    for path in ["/", "/v1", "/v1/sweeps/", "/v2/sweeps", "/v1/sweeps/a/b/c"] {
        let answer = service.call("GET", path, None).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
    }
}

/// Every route with an id, with ids that are not there and such as cannot be.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found() {
    let service = Service::in_memory().await;
    let id = service.submit().await;
    for (method, route) in ROUTES {
        for sweep in ["none", "..%2F..%2Fetc", "%00", &"x".repeat(500), "a%20b"] {
            if route.contains("{id}") {
                let path = route.replace("{id}", sweep).replace("{task}", "best");
                let answer = service.call(&method.to_uppercase(), &path, None).await;
                assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{method} {path}");
            }
        }
        for task in ["none", "..%2Fbest", "%0a"] {
            if route.contains("{task}") {
                let path = route.replace("{id}", &id).replace("{task}", task);
                let answer = service.call(&method.to_uppercase(), &path, None).await;
                assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{method} {path}");
                let message = answer.json()["error"]["message"].as_str().unwrap().to_string();
                assert!(message.starts_with("no task"), "{message}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_has_the_token_is_served() {
    let service = Service::start(Memory::default(), InProcess::default(), Some(TOKEN), ApiSettings::default()).await;
    let plain = |method: &str, path: &str, headers: Vec<(&'static str, String)>| {
        let (method, url) = (method.to_string(), format!("{}{path}", service.server));
        tokio::task::spawn_blocking(move || {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            crate::support::service::request(&method, &url, &headers, b"")
        })
    };
    for (method, route) in ROUTES {
        let path = route.replace("{id}", "s").replace("{task}", "t");
        let is_open = ["/healthz", "/readyz", "/metrics", "/v1/openapi.json"].contains(&path.as_str());
        for wrong in [None, Some("Bearer ".to_string()), Some("Bearer wrong".into()), Some(format!("Basic {TOKEN}"))] {
            let headers = wrong.map(|value| ("authorization", value)).into_iter().collect();
            let answer = plain(&method.to_uppercase(), &path, headers).await.unwrap();
            if is_open {
                assert_eq!(answer.status, 200, "{path}");
                assert!(!String::from_utf8_lossy(&answer.bytes).contains(TOKEN));
            } else {
                assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{method} {path}");
                // A browser asks for a password, where there is a page to see.
                let scheme = if path.starts_with("/sweeps/") { "Basic " } else { "Bearer " };
                assert!(answer.header("www-authenticate").starts_with(scheme), "{path}");
            }
        }
    }
    // The token as a password: for pages, whatever the user name is, and for nothing else.
    for (pair, is_right) in [("any:{}", true), (":{}", true), ("any:{}x", false), ("{}:", false), ("{}", false)] {
        let password = format!("Basic {}", BASE64_STANDARD.encode(pair.replace("{}", TOKEN)));
        let page = plain("GET", "/sweeps/s", vec![("authorization", password.clone())]).await.unwrap();
        assert_eq!(page.status, if is_right { 404 } else { 401 }, "{pair}");
        for (method, path) in [("GET", "/v1/sweeps"), ("POST", "/v1/sweeps/s/cancel"), ("GET", "/v1/sweeps/s/results")]
        {
            let answer = plain(method, path, vec![("authorization", password.clone())]).await.unwrap();
            assert_eq!(answer.status, 401, "{method} {path}");
        }
    }
    assert_eq!(service.call("GET", "/sweeps/s", None).await.status, 404, "a program's header will do too");
    assert_eq!(plain("GET", "/nothing", vec![]).await.unwrap().status, 401, "what there is, is not told either");
    assert_eq!(service.get("/v1/sweeps").await["sweeps"], json!([]));
    // With the token, it does not matter by what name the server was found.
    let named = service.call_with("GET", "/v1/sweeps", &[("host", "scheduler.soup.svc:7070")], None).await;
    assert_eq!(named.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_shown_the_report() {
    let service = Service::in_memory().await;
    let id = service.submit().await;
    let page = async || {
        let answer = service.call("GET", &format!("/sweeps/{id}"), None).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "text/html; charset=utf-8"));
        assert_eq!((answer.header("cache-control"), answer.header("x-content-type-options")), ("no-store", "nosniff"));
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none';") && policy.ends_with("frame-ancestors 'none'"), "{policy}");
        String::from_utf8(answer.bytes).unwrap()
    };
    let early = page().await;
    for text in ["<h1>digits</h1>", "This sweep is not finished.", "not checked yet", "0 of 5 tasks have ended"] {
        assert!(early.contains(text), "{text}: {early}");
    }
    service.work("a");
    service.until(&id, "it ends", |sweep| !sweep["outcome"].is_null()).await;
    let done = page().await;
    assert!(done.contains("Leaderboard") && done.contains("<svg") && !done.contains("not finished"), "{done}");
    // The stub's coefficients are none: that is said, and the rest is shown.
    assert!(done.contains("not a coefficients file"), "{done}");
    assert_eq!(done, page().await, "the same each time");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_web_pages_are_not_served() {
    let service = Service::in_memory().await;
    let id = service.submit().await;
    let cancel = format!("/v1/sweeps/{id}/cancel");
    let page = service.call_with("POST", &cancel, &[("origin", "http://pages.example")], None).await;
    assert_eq!((page.status, page.code().as_str()), (403, "forbidden"));
    let rebound = service.call_with("GET", "/v1/sweeps", &[("host", "pages.example:7070")], None).await;
    assert_eq!((rebound.status, rebound.code().as_str()), (403, "forbidden"));
    let page = service.call_with("GET", &format!("/sweeps/{id}"), &[("host", "pages.example:7070")], None).await;
    assert_eq!(page.status, 403);
    for host in ["localhost", "127.0.0.1:7070", "[::1]:7070", "LOCALHOST:1"] {
        assert_eq!(service.call_with("GET", "/v1/sweeps", &[("host", host)], None).await.status, 200, "{host}");
    }
    assert_eq!(service.get(&format!("/v1/sweeps/{id}")).await["order"], "continue");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_is_paused_resumed_cancelled_and_deleted() {
    let service = Service::in_memory().await;
    service.knobs.iterations.store(1_000_000, SeqCst);
    service.work("a");
    let id = service.submit().await;
    let at = format!("/v1/sweeps/{id}");
    let act = async |what: &str| service.call("POST", &format!("{at}/{what}"), None).await;
    act_when_running(&service, &id).await;
    let paused = act("pause").await;
    assert_eq!((paused.status, &paused.json()["order"]), (200, &json!("pause")));
    assert!(paused.json()["changed"].as_u64().unwrap() >= 4, "idle tasks are set aside at once: {}", paused.json());
    service.until(&id, "all are paused", |sweep| sweep["counts"]["paused"] == 5).await;
    assert_eq!(service.get("/v1/load").await["runnable"], 0);
    assert_eq!(service.call("DELETE", &at, None).await.status, 409);
    assert_eq!(act("resume").await.json()["order"], "continue");
    act_when_running(&service, &id).await;
    let busy = service.get("/v1/load").await;
    assert_eq!(
        (&busy["running"], &busy["runnable"], &busy["wanted"], &busy["workers"]),
        (&json!(1), &json!(4), &json!(5), &json!(1))
    );
    let running = service.get(&format!("{at}/tasks?state=running")).await;
    assert_eq!(running["tasks"].as_array().unwrap().len(), 1);

    assert_eq!(act("cancel").await.json()["order"], "cancel");
    let sweep = service.until(&id, "it ends", |sweep| !sweep["outcome"].is_null()).await;
    assert_eq!((&sweep["outcome"], &sweep["counts"]["cancelled"]), (&json!("cancelled"), &json!(5)));
    for what in ["pause", "resume", "retry"] {
        let late = act(what).await;
        assert_eq!((late.status, late.code().as_str()), (409, "conflict"), "{what}");
    }
    assert_eq!(act("cancel").await.status, 200, "again is no fault");
    assert_eq!(service.call("DELETE", &at, None).await.status, 204);
}

async fn act_when_running(service: &Service<Memory, InProcess>, id: &str) {
    service.until(id, "a soup is computed", |sweep| sweep["stage"] == "ready" && sweep["counts"]["running"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_tasks_are_retried_and_tell_why() {
    let service = Service::in_memory().await;
    service.knobs.fault.store(3, SeqCst);
    service.work("a");
    let id = service.submit().await;
    let at = format!("/v1/sweeps/{id}");
    let sweep = service.until(&id, "it ends", |sweep| !sweep["outcome"].is_null()).await;
    assert_eq!((&sweep["outcome"], &sweep["counts"]["failed"]), (&json!("failed"), &json!(5)));
    let results = service.get(&format!("{at}/results")).await;
    assert_eq!(results["tasks"][0]["cause"], "loss is NaN");
    assert_eq!(service.get(&format!("{at}/tasks/best")).await["cause"], "loss is NaN");
    let events = service.get(&format!("{at}/tasks/best/events")).await;
    assert_eq!(events["events"][1]["detail"], "loss is NaN");
    service.knobs.fault.store(0, SeqCst);
    assert_eq!(service.call("POST", &format!("{at}/retry"), None).await.json()["changed"], 5);
    service.until(&id, "it ends well", |sweep| sweep["outcome"] == "done").await;
    let results: SweepResults = serde_json::from_value(service.get(&format!("{at}/results")).await).unwrap();
    assert!(results.tasks.iter().all(|row| row.cause.is_none() && row.select.is_some()), "{results:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages() {
    let service = Service::in_memory().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(service.submit().await);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    made.reverse();
    let ids = |page: &Value, of: &str| -> Vec<String> {
        page[of].as_array().unwrap().iter().map(|x| x["id"].as_str().unwrap().to_string()).collect()
    };
    let first = service.get("/v1/sweeps?limit=2").await;
    assert_eq!(ids(&first, "sweeps"), made[..2]);
    // The page goes on where it was, whatever becomes of the sweep that ended it.
    service.call("POST", &format!("/v1/sweeps/{}/cancel", made[1]), None).await;
    assert_eq!(service.call("DELETE", &format!("/v1/sweeps/{}", made[1]), None).await.status, 204);
    let next = first["next"].as_str().unwrap();
    let second = service.get(&format!("/v1/sweeps?limit=3&after={next}")).await;
    assert_eq!((ids(&second, "sweeps"), &second["next"]), (made[2..].to_vec(), &Value::Null));

    let at = format!("/v1/sweeps/{}/tasks", made[0]);
    let (mut all, mut from) = (Vec::new(), json!(0));
    while !from.is_null() {
        let page = service.get(&format!("{at}?limit=4&from={from}")).await;
        all.extend(ids(&page, "tasks"));
        from = page["next"].clone();
    }
    assert_eq!(all, ["scores", "best", "uniform", "0001-mehl+", "0002-mehl+", "0003-mehl+"]);
    let pending = service.get(&format!("{at}?limit=2&state=pending")).await;
    assert_eq!((ids(&pending, "tasks"), &pending["next"]), (vec!["best".into(), "uniform".into()], &json!(3)));
    let rest = service.get(&format!("{at}?limit=9&from=3&state=pending")).await;
    assert_eq!((ids(&rest, "tasks").len(), &rest["next"]), (3, &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics() {
    // Each probe asks store and broker anew.
    let settings = ApiSettings { probe_age: Duration::ZERO, ..ApiSettings::default() };
    let service = Service::start(Memory::default(), InProcess::default(), None, settings).await;
    service.store.beat("w1", Duration::from_secs(60), r#"{"device":"cuda:0"}"#).await.unwrap();
    service.store.beat("w2", Duration::from_secs(60), "no JSON").await.unwrap();
    let workers = json!([{"name": "w1", "about": {"device": "cuda:0"}}, {"name": "w2", "about": "no JSON"}]);
    assert_eq!(service.get("/v1/workers").await["workers"], workers);
    assert_eq!(service.call("GET", "/healthz", None).await.bytes, b"ok");
    assert_eq!(service.get("/readyz").await, json!({"store": "ok", "broker": "ok"}));
    let id = service.submit().await;
    service.call("GET", "/v1/sweeps/none", None).await;
    service.call("GET", "/nothing/of/this", None).await;
    let live = service.store.live().await.unwrap();
    service.metrics.set_tasks(&live.sweeps.records, &live.ended);
    let answer = service.call("GET", "/metrics", None).await;
    assert!(answer.header("content-type").starts_with("text/plain"), "{answer:?}");
    let text = String::from_utf8(answer.bytes).unwrap();
    for line in [
        concat!("mehl_soup_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "mehl_soup_tasks{state=\"pending\"} 5",
        "mehl_soup_tasks{state=\"failed\"} 0",
        "mehl_soup_broker_connected 1",
        "mehl_soup_redis_connected 1",
        "mehl_soup_leases_expired_total 0",
        "mehl_soup_http_requests_total{code=\"201\",route=\"/v1/sweeps\"} 1",
        "mehl_soup_http_requests_total{code=\"404\",route=\"/v1/sweeps/{id}\"} 1",
        "mehl_soup_http_requests_total{code=\"404\",route=\"other\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert!(!text.contains(&id), "no sweep is named");
    service.queue.close().await;
    let answer = service.call("GET", "/readyz", None).await;
    assert_eq!((answer.status, answer.json()), (503, json!({"store": "ok", "broker": "closed"})));
    assert_eq!(service.call("GET", "/healthz", None).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_has_every_route_and_no_other() {
    let service = Service::in_memory().await;
    let document = service.get("/v1/openapi.json").await;
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(move |m| (m.clone(), path.clone())))
        .collect();
    let routes = ROUTES.iter().map(|(method, path)| (method.to_string(), path.to_string())).collect();
    assert_eq!(described, routes);
    // Whatever it refers to is in it.
    let text = document.to_string();
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    assert_eq!(document["paths"]["/healthz"]["get"]["security"], json!([{}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_takes_too_long_is_answered() {
    let settings = ApiSettings { creation_deadline: Duration::from_millis(1), ..ApiSettings::default() };
    let service = Service::start(Memory::default(), InProcess::default(), None, settings).await;
    // A hundred thousand tasks take longer than that by far.
    let spec = format!("{SPEC}seed = {{ int = [1, 33333] }}\n");
    let late = service.call("POST", "/v1/sweeps", Some(json!({"spec": spec, "format": "toml"}))).await;
    assert_eq!((late.status, late.code().as_str(), late.header("retry-after")), (504, "deadline", "2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_on_their_way_end_but_not_for_ever() {
    let slow =
        |millis| axum::routing::get(move || async move { tokio::time::sleep(Duration::from_millis(millis)).await });
    let router = axum::Router::new().route("/quick", slow(300)).route("/slow", slow(60_000));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let until = async { drop(stopped.await) };
    let serving = tokio::spawn(serve(listener, router, until, Duration::from_secs(2)));
    let quick = server.clone();
    let quick = tokio::task::spawn_blocking(move || {
        crate::support::service::request("GET", &format!("{quick}/quick"), &[], b"")
    });
    let slow = std::thread::spawn(move || ureq::get(format!("{server}/slow")).call().is_err());
    tokio::time::sleep(Duration::from_millis(150)).await;
    let began = Instant::now();
    stop.send(()).unwrap();
    assert_eq!(quick.await.unwrap().status, 200);
    tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap().unwrap();
    assert!(
        began.elapsed() >= Duration::from_secs(2) && began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
    drop(slow);
}

/// The store's side of a task's key is what the address names.
#[tokio::test(flavor = "multi_thread")]
async fn ids_with_signs_are_found_as_they_are_and_escaped() {
    let service = Service::in_memory().await;
    let id = service.submit().await;
    let key = TaskKey::new(&id, "0001-mehl+").unwrap();
    assert!(service.store.task(&key).await.unwrap().is_some());
    for task in ["0001-mehl+", "0001-mehl%2B"] {
        assert_eq!(service.get(&format!("/v1/sweeps/{id}/tasks/{task}")).await["id"], "0001-mehl+");
    }
}
