//! Requests that are refused before a handler sees them, and what the API document says of limits.

use std::io::{Read, Write};
use std::net::TcpStream;

use mehl_soup::api::{ApiSettings, ROUTES};
use mehl_soup::queue::InProcess;
use mehl_soup::store::Memory;
use mehl_soup::task::TaskState;
use serde_json::{Value, json};

use crate::support::service::{SPEC, Service};

/// Every fault is JSON, wherever in a request it is: axum's own answers are plain text.
#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_json() {
    let service = Service::in_memory().await;
    let id = service.submit().await;
    for (method, route) in ROUTES {
        let method = method.to_uppercase();
        for bad in ["%ff", "%c3%28", "a%ffb"] {
            for path in [
                route.replace("{id}", bad).replace("{task}", "best"),
                route.replace("{id}", &id).replace("{task}", bad),
                format!("{}?{bad}=1&limit={bad}&state={bad}", route.replace("{id}", &id).replace("{task}", "best")),
            ] {
                if method == "DELETE" && !path.contains('%') {
                    continue;
                }
                let answer = service.call(&method, &path, None).await;
                if answer.status < 400 {
                    // The address takes no query, and passes over it.
                    assert!(path.contains('?') || !path.contains('%'), "{method} {path}: {}", answer.status);
                    continue;
                }
                let body = answer.json();
                assert_eq!(answer.header("content-type"), "application/json", "{method} {path}");
                assert!(body["error"]["code"].is_string() && body["error"]["message"] != "", "{method} {path}: {body}");
                assert!(answer.status < 500, "{method} {path}: {body}");
            }
        }
    }
    let unreadable = service.call("GET", "/v1/sweeps/%ff", None).await;
    assert_eq!((unreadable.status, unreadable.code().as_str()), (400, "bad_request"));
    // What no client library sends.
    for line in ["CONNECT here:1", "OPTIONS *", "GET http://elsewhere/v1/none", "TRACE /v1/sweeps", "POST /healthz"] {
        let mut stream = TcpStream::connect(service.server.trim_start_matches("http://")).unwrap();
        write!(stream, "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 4"), "{line}: {answer}");
        let body: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {line}: {answer}"));
        assert!(body["error"]["code"].is_string(), "{line}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_tasks_counts_what_the_search_asks_for() {
    let start = |most_tasks| {
        let settings = ApiSettings { most_tasks, ..ApiSettings::default() };
        Service::start(Memory::default(), InProcess::default(), None, settings)
    };
    let submit = async |service: &Service<Memory, InProcess>, spec: &str| {
        service.call("POST", "/v1/sweeps", Some(json!({"spec": spec, "format": "toml"}))).await
    };
    let refused = submit(&start(2).await, SPEC).await;
    assert_eq!(refused.status, 400);
    let message = "expected at most 2 tasks, not counting baselines, found 3";
    assert_eq!(refused.json()["error"]["message"], message);
    assert_eq!(submit(&start(3).await, SPEC).await.status, 201);
    // The largest number that is documented.
    let service = start(ApiSettings::default().most_tasks).await;
    let spec = "zoo.ingredients = 'z'\ndata.learn = 'l'\nsearch = { strategy = 'random', tasks = 100000, \
                space = { seed = { int = [0, 9000000000000000000] } } }";
    let created = submit(&service, spec).await;
    assert_eq!(created.status, 201, "{}", String::from_utf8_lossy(&created.bytes));
    let id = created.json()["id"].as_str().unwrap().to_string();
    assert_eq!(service.get(&format!("/v1/sweeps/{id}")).await["tasks"], 100_003);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_names_the_format_that_was_given() {
    let service = Service::in_memory().await;
    for (format, spec, expected) in [
        ("json", "{\"a\": 1, \"a\": 2}", "unusable JSON: duplicate key `a`"),
        ("json", "{\"a\": 1,}", "not JSON"),
        ("json", "a: 1", "not JSON"),
        ("yaml", "a: [", "not YAML"),
        ("toml", "a = [", "not TOML"),
    ] {
        let answer = service.call("POST", "/v1/sweeps", Some(json!({"spec": spec, "format": format}))).await;
        let message = answer.json()["error"]["faults"][0]["message"].as_str().unwrap().to_string();
        assert!(answer.status == 400 && message.starts_with(expected), "{format} {spec}: {message}");
        for other in ["JSON", "YAML", "TOML"].iter().filter(|other| !other.eq_ignore_ascii_case(format)) {
            assert!(!message.contains(other), "{format} {spec}: {message}");
        }
    }
    // As Python writes it.
    let spec = r#"{"name": "soup \ud83c\udf5c", "zoo": {"ingredients": "z"}, "data": {"learn": "l"}}"#;
    let answer = service.call("POST", "/v1/sweeps", Some(json!({"spec": spec, "format": "json"}))).await;
    assert_eq!(answer.status, 201, "{}", answer.json());
}

/// The parameter of this name.
fn parameter<'a>(document: &'a Value, method: &str, path: &str, name: &str) -> &'a Value {
    let parameters = document["paths"][path][method]["parameters"].as_array().unwrap();
    parameters.iter().find(|parameter| parameter["name"] == name).unwrap()
}

/// The document declares what the server refuses.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_declares_what_is_refused() {
    let service = Service::in_memory().await;
    let document = service.get("/v1/openapi.json").await;

    let states = &parameter(&document, "get", "/v1/sweeps/{id}/tasks", "state")["schema"];
    let states = [states, &states["oneOf"][1]].into_iter().find_map(|schema| schema["enum"].as_array()).unwrap();
    let expected: Vec<Value> = TaskState::ALL.iter().map(|state| json!(state)).collect();
    assert_eq!(states, &expected);

    let pattern = "^[0-9]{1,19}\\.[A-Za-z0-9+_-][A-Za-z0-9.+_-]{0,99}$";
    assert_eq!(parameter(&document, "get", "/v1/sweeps", "after")["schema"]["pattern"], pattern);
    let id = service.submit().await;
    service.submit().await;
    let next = service.get("/v1/sweeps?limit=1").await["next"].as_str().unwrap().to_string();
    let (created, _) = next.split_once('.').unwrap();
    assert!(created.bytes().all(|byte| byte.is_ascii_digit()) && created.len() <= 19, "{next}");
    assert_eq!(service.get(&format!("/v1/sweeps?after=9999999999999999999.{id}")).await["next"], Value::Null);
    for after in ["", "1", "1.", "x.y", "-1.a", "%2B1.a", "1..a", "1.a%20b", "99999999999999999999.a"] {
        let answer = service.call("GET", &format!("/v1/sweeps?after={after}"), None).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{after}");
    }

    let creation = &document["paths"]["/v1/sweeps"]["post"];
    let header = parameter(&document, "post", "/v1/sweeps", "Idempotency-Key");
    let field = &document["components"]["schemas"]["NewSweepBody"]["properties"]["key"];
    for schema in [&header["schema"], field] {
        let limits = (&schema["minLength"], &schema["maxLength"], &schema["pattern"]);
        assert_eq!(limits, (&json!(1), &json!(200), &json!("^[!-~]+$")));
    }
    for text in [&header["description"], &field["description"], &creation["responses"]["400"]["description"]] {
        assert!(text.as_str().unwrap().contains("differ"), "{text}");
    }
    let body = json!({"spec": SPEC, "format": "toml", "key": "one"});
    let both = service.call_with("POST", "/v1/sweeps", &[("idempotency-key", "two")], Some(body)).await;
    assert_eq!((both.status, both.code().as_str()), (400, "bad_request"));
}
