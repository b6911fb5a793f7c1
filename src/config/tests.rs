use super::*;

fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
    let environment = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
    Surroundings { environment, host: "node 1.example".to_string(), process: 42 }
}

fn resolve(set: &[&str], variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let set = set.iter().map(|text| Assignment::from(text.to_string())).collect();
    Config::resolve(&ConfigArgs { config: None, set }, &[], &surroundings(variables))
}

fn from(config: &Config, key: &str) -> String {
    config.shown.iter().find(|row| row.key == key).unwrap().from.to_string()
}

fn file(name: &str, content: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

fn of_file(path: &std::path::Path) -> Result<Config, ConfigError> {
    let args = ConfigArgs { config: Some(path.to_path_buf()), set: Vec::new() };
    Config::resolve(&args, &[], &surroundings(&[]))
}

#[test]
fn without_anything_there_are_the_defaults() {
    let config = resolve(&[], &[("PATH", "/bin"), ("MEHL_SOUP_SERVICE_PORT", "tcp://10.0.0.1:80")]).unwrap();
    assert_eq!(config.installation, "mehl-soup");
    assert_eq!(config.redis_settings().unwrap().url.read().unwrap(), "redis://127.0.0.1:6379/");
    assert_eq!(config.redis.timeout, Duration::from_secs(2));
    assert_eq!(config.scheduler.listen.to_string(), "127.0.0.1:7070");
    assert_eq!((config.scheduler.max_body_bytes, config.scheduler.max_tasks), (2_162_688, 100_000));
    assert_eq!(config.scheduler.retention, None);
    assert!(config.scheduler.token().unwrap().is_none() && config.client.token().unwrap().is_none());
    assert_eq!(config.worker.name, "node-1.example-42");
    assert_eq!((config.worker.lease, config.worker.orphan), (Duration::from_secs(30), Duration::from_secs(150)));
    assert_eq!((config.worker.threads, config.worker.device.as_str()), (None, "cpu"));
    assert_eq!(config.worker.listen.unwrap().port(), 9464);
    assert_eq!(config.client.server, "http://127.0.0.1:7070");
    assert!(config.worker.input_roots().unwrap_err().to_string().contains("worker.input_roots"));
    assert!(config.shown.iter().all(|row| row.from == Origin::Default));
    assert_eq!(config.shown.len(), SETTINGS.len());
    let settings = config.worker.settings(true);
    assert!(settings.once && settings.attempt.orphan == Duration::from_secs(150));
}

#[test]
fn later_layers_win_and_each_value_says_where_it_came_from() {
    let (_folder, path) = file(
        "pool.toml",
        "installation = 'file'\n[redis]\ntimeout_seconds = 3\n[amqp]\ntimeout_seconds = 4\n[client]\ntimeout_seconds = 5\n[worker]\nlease_seconds = 6\ninput_roots = ['/a,b']\n",
    );
    let variables = [
        ("MEHL_SOUP_CONFIG", path.to_str().unwrap()),
        ("MEHL_SOUP__AMQP__TIMEOUT_SECONDS", "14"),
        ("MEHL_SOUP__CLIENT__TIMEOUT_SECONDS", "15"),
        ("MEHL_SOUP__WORKER__LEASE_SECONDS", "16"),
        ("MEHL_SOUP__WORKER__LISTEN", ""),
    ];
    let set = ["client.timeout_seconds=25", "worker.lease_seconds=26"];
    let args = ConfigArgs { config: None, set: set.map(|text| Assignment::from(text.to_string())).to_vec() };
    let named = [("worker.lease_seconds", "36".to_string())];
    let config = Config::resolve(&args, &named, &surroundings(&variables)).unwrap();
    let seconds = [config.redis.timeout, config.amqp.timeout, config.client.timeout, config.worker.lease];
    assert_eq!(seconds.map(|duration| duration.as_secs()), [3, 14, 25, 36]);
    assert_eq!(config.worker.orphan.as_secs(), 180);
    assert_eq!(config.worker.input_roots().unwrap(), [PathBuf::from("/a,b")]);
    assert_eq!(config.worker.listen, None);
    assert_eq!(config.installation, "file");
    assert_eq!(from(&config, "redis.timeout_seconds"), format!("file {}", path.display()));
    assert_eq!(from(&config, "amqp.timeout_seconds"), "environment MEHL_SOUP__AMQP__TIMEOUT_SECONDS");
    assert_eq!(from(&config, "client.timeout_seconds"), "flag");
    assert_eq!(from(&config, "amqp.heartbeat_seconds"), "default");
}

#[test]
fn files_of_all_three_kinds_say_the_same() {
    for (name, content) in [
        ("a.toml", "[worker]\nlease_seconds = 9\ninput_roots = [\"/x\", \"/y\"]\n"),
        ("a.yaml", "worker:\n  lease_seconds: 9\n  input_roots: [/x, /y]\nclient:\n"),
        ("a.yml", "worker: {lease_seconds: 9, input_roots: [/x, /y]}\n"),
        ("a.json", r#"{"worker": {"lease_seconds": 9, "input_roots": ["/x", "/y"]}}"#),
    ] {
        let (_folder, path) = file(name, content);
        let config = of_file(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(config.worker.lease.as_secs(), 9, "{name}");
        assert_eq!(config.worker.input_roots().unwrap(), [PathBuf::from("/x"), PathBuf::from("/y")], "{name}");
    }
    let (_folder, path) = file("empty.yaml", "\n");
    assert!(of_file(&path).is_ok());
}

#[test]
fn every_fault_is_told_with_its_key_and_origin() {
    let (_folder, path) =
        file("pool.toml", "redsi = 1\n[redis]\nurll = 'x'\ntimeout_seconds = '2'\n[worker]\nlease_seconds = 1\n");
    let args = ConfigArgs {
        config: Some(path.clone()),
        set: ["client.servre=x", "novalue", "amqp=3"].map(|text| Assignment::from(text.to_string())).to_vec(),
    };
    let variables = [
        ("MEHL_SOUP__AMQP__HEARTBEAT", "3"),
        ("MEHL_SOUP__SCHEDULER__LISTEN", "everywhere"),
        ("MEHL_SOUP__WORKER__ORPHAN_SECONDS", "5"),
        ("MEHL_SOUP__INSTALLATION", "a b"),
    ];
    let error = Config::resolve(&args, &[], &surroundings(&variables)).unwrap_err();
    let file = format!("file {}", path.display());
    let expected = [
        format!("redis.timeout_seconds ({file}): expected 1 to 300 seconds, found text"),
        format!("redis.urll ({file}): unknown key; did you mean `redis.url`?"),
        format!("redsi ({file}): unknown key; did you mean `redis.url`?"),
        format!("worker.lease_seconds ({file}): expected 2 to 3600 seconds, found `1`"),
        "amqp.heartbeat (environment MEHL_SOUP__AMQP__HEARTBEAT): unknown key; did you mean \
         `MEHL_SOUP__AMQP__HEARTBEAT_SECONDS`?".to_string(),
        "installation (environment MEHL_SOUP__INSTALLATION): expected letters, digits and `+ - . _`, found `a b`".to_string(),
        "scheduler.listen (environment MEHL_SOUP__SCHEDULER__LISTEN): expected an IP address with a port, found `everywhere`".to_string(),
        "client.servre (flag): unknown key; did you mean `client.server`?".to_string(),
        "--set: expected section.key=value, found no `=`".to_string(),
        "amqp (flag): unknown key; did you mean `amqp.url`?".to_string(),
        "worker.orphan_seconds (environment MEHL_SOUP__WORKER__ORPHAN_SECONDS): expected at least \
         the value of worker.lease_seconds (30), found `5`".to_string(),
    ];
    let told: Vec<_> = error.0.iter().map(ToString::to_string).collect();
    assert_eq!(told, expected);
}

#[test]
fn a_file_that_cannot_be_read_is_one_fault() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content, what) in [
        ("none.toml", None, "No such file"),
        ("a.ini", Some(""), ".toml, .yaml, .yml or .json"),
        ("a.toml", Some("x = 1\n[redis]\nurl = \"redis://:hunter2@h\n"), "not valid TOML at line 3, column "),
        ("a.toml", Some("[redis]\nurl = hunter2\n"), "not valid TOML at line 2, column "),
        ("a.toml", Some("[client]\ntoken = 'a'\ntoken = 'hunter2'\n"), "not valid TOML at line 3, column "),
        ("a.yaml", Some("redis:\n  url: \"hunter2\n"), "not valid YAML at line "),
        ("a.yaml", Some("redis:\n  url: 'x'hunter2\n"), "not valid YAML at line 2, column "),
        ("a.yaml", Some("- hunter2\n"), "not valid YAML"),
        ("a.yaml", Some("hunter2\n"), "not valid YAML"),
        ("a.json", Some("{\"redis\": {\"url\": hunter2}}"), "not valid JSON at line 1, column "),
        ("a.json", Some("[\"hunter2\"]"), "not valid JSON"),
        ("b.toml", Some("client = 'hunter2'\n"), "expected a table with keys"),
    ] {
        let path = folder.path().join(name);
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let error = of_file(&path).expect_err(name).to_string();
        assert!(error.contains(what) && error.contains(name), "{content:?}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn secrets_come_directly_or_by_file_and_are_shown_by_nothing() {
    let (_folder, token) = file("token", "hunter2\n");
    let token = token.to_str().unwrap();
    let direct = [
        ("MEHL_SOUP__REDIS__URL", "redis://me:hunter2@h/"),
        ("MEHL_SOUP__AMQP__URL", "amqp://me:hunter2@h/"),
        ("MEHL_SOUP__SCHEDULER__TOKEN", "hunter2"),
        ("MEHL_SOUP__SCHEDULER__LISTEN", "0.0.0.0:7070"),
        ("MEHL_SOUP__CLIENT__TOKEN", "hunter2"),
    ];
    let config = resolve(&[], &direct).unwrap();
    assert_eq!(config.redis_settings().unwrap().url.read().unwrap(), "redis://me:hunter2@h/");
    assert_eq!(config.rabbitmq_settings("x").unwrap().url.read().unwrap(), "amqp://me:hunter2@h/");
    assert_eq!(config.scheduler.token().unwrap().unwrap().expose(), "hunter2");
    assert_eq!(config.client.token().unwrap().unwrap().expose(), "hunter2");
    let shown = format!("{config:?} {}", serde_json::to_string(&config.shown).unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains(HIDDEN));

    let by_file = resolve(&[], &[("MEHL_SOUP__CLIENT__TOKEN_FILE", token)]).unwrap();
    assert_eq!(by_file.client.token().unwrap().unwrap().expose(), "hunter2");

    let error =
        resolve(&[], &[("MEHL_SOUP__SCHEDULER__LISTEN", "0.0.0.0:7070")]).unwrap().scheduler.token().unwrap_err();
    assert!(error.to_string().contains("scheduler.token") && error.to_string().contains("0.0.0.0:7070"), "{error}");
    for bad in [("MEHL_SOUP__REDIS__URL", "hunter2"), ("MEHL_SOUP__CLIENT__SERVER", "http://me:hunter2@h")] {
        let error = resolve(&[], &[bad]).unwrap_err().to_string();
        assert!(error.contains(bad.0) && !error.contains("hunter2"), "{error}");
    }
    let args = ConfigArgs { config: None, set: vec![Assignment::from("client.token=hunter2".to_string())] };
    assert!(!format!("{args:?}").contains("hunter2"));
}

#[test]
fn a_secret_of_a_later_layer_takes_the_place_of_the_other_form_and_both_in_one_are_a_fault() {
    let set = ["client.token=flag"];
    let config = resolve(&set, &[("MEHL_SOUP__CLIENT__TOKEN_FILE", "/nowhere")]).unwrap();
    assert_eq!(config.client.token().unwrap().unwrap().expose(), "flag");
    let config = resolve(&["client.token_file=/nowhere"], &[("MEHL_SOUP__CLIENT__TOKEN", "x")]).unwrap();
    let error = config.client.token().unwrap_err().to_string();
    assert!(error.contains("client.token_file (flag): /nowhere"), "{error}");
    let error = resolve(&["client.token=x", "client.token_file=/nowhere"], &[]).unwrap_err().to_string();
    assert!(
        error.contains("client.token_file (flag): expected either this key or `client.token`, found both"),
        "{error}"
    );
    // The default address gives way to a file.
    let config = resolve(&["redis.url_file=/nowhere"], &[]).unwrap();
    assert!(config.redis_settings().err().unwrap().to_string().contains("redis.url_file (flag): /nowhere"));
}

#[test]
fn the_older_name_of_the_server_works_and_the_longer_one_wins() {
    let older = ("MEHL_SOUP_SERVER", "https://older/");
    let config = resolve(&[], &[older]).unwrap();
    assert_eq!(
        (config.client.server.as_str(), from(&config, "client.server").as_str()),
        ("https://older", "environment MEHL_SOUP_SERVER")
    );
    for variables in
        [[older, ("MEHL_SOUP__CLIENT__SERVER", "https://new")], [("MEHL_SOUP__CLIENT__SERVER", "https://new"), older]]
    {
        assert_eq!(resolve(&[], &variables).unwrap().client.server, "https://new");
    }
}

/// Each key, given something other than its default, changes the configuration: none is read by nobody.
#[test]
fn every_key_has_an_effect() {
    let hash = "ab".repeat(32);
    let before = format!("{:?}", Config { shown: Vec::new(), ..resolve(&[], &[]).unwrap() });
    for setting in SETTINGS {
        let value = match setting.kind {
            Kind::Name => "other".to_string(),
            Kind::Secret => "x".to_string(),
            Kind::Url(schemes) => format!("{}://other", schemes[0]),
            Kind::Path => "/other".to_string(),
            Kind::Address | Kind::MaybeAddress => "127.0.0.2:1".to_string(),
            Kind::Server => "http://other".to_string(),
            Kind::Device => "cuda:1".to_string(),
            Kind::Seconds(_, limit) | Kind::Count(_, limit) | Kind::Bytes(_, limit) => limit.to_string(),
            Kind::Folders => "/other".to_string(),
            Kind::Hashes => hash.clone(),
            Kind::Word(words) => words[words.len() - 1].to_string(),
        };
        let mut set = vec![format!("{}={value}", setting.key)];
        if setting.key == "worker.lease_seconds" {
            set.push("worker.orphan_seconds=3600".to_string());
        }
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        let after = resolve(&set, &[]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(from(&after, setting.key), "flag");
        assert_ne!(format!("{:?}", Config { shown: Vec::new(), ..after }), before, "{}", setting.key);
    }
}
