//! Runs the programs as a person would: in a place of their own, each under a deadline.

#![allow(clippy::unwrap_used, reason = "a test that fails by unwrapping says all that is needed")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mehl_soup::sweep::results::SweepResults;
use mehl_soup::task::TaskState;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

use super::fixture;

/// Longest time that any one child may take.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// How a child ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Asserts the exit code, showing what was said if it is another.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "signal {:?}\n{}\n{}", self.signal, self.stdout, self.stderr);
        self
    }

    /// Asserts that stderr holds all of these texts.
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "expected `{text}` in:\n{}", self.stderr);
        }
        self
    }
}

/// A child at work. Dropped, it is killed.
pub struct Running {
    child: Child,
    what: String,
    began: Instant,
    output: Option<(JoinHandle<String>, JoinHandle<String>)>,
}

impl Running {
    /// Starts a command, reading what it says as it says it.
    pub fn start(mut command: Command) -> Self {
        let what = format!("{command:?}");
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect(&what);
        let output = (reader(child.stdout.take().unwrap()), reader(child.stderr.take().unwrap()));
        Self { child, what, began: Instant::now(), output: Some(output) }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: plain system call; the child is not waited for yet, so its id is its own.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Looks again and again until `seen`, or the child has ended. Says which: true if `seen`.
    pub fn watch(&mut self, mut seen: impl FnMut() -> bool) -> bool {
        loop {
            if seen() {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            self.keep_deadline();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            self.keep_deadline();
            std::thread::sleep(Duration::from_millis(2));
        };
        let (stdout, stderr) = self.output.take().unwrap();
        Ended {
            code: status.code(),
            signal: status.signal(),
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
        }
    }

    /// Kills it with SIGKILL and waits.
    pub fn kill(self) -> Ended {
        self.signal(libc::SIGKILL);
        self.wait()
    }

    fn keep_deadline(&mut self) {
        if self.began.elapsed() > DEADLINE {
            drop(self.child.kill());
            panic!("not done within {DEADLINE:?}: {}", self.what);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both are no-ops on a child that was waited for.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn reader(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(pipe.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// `mehl-soup`, beside the worker. Cargo builds the worker for these tests but not the other package's program, so this does; it takes
/// no time if it is fresh.
pub fn mehl_soup() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let worker = Path::new(env!("CARGO_BIN_EXE_mehl-soup-worker"));
        let folder = worker.parent().unwrap();
        let profile = match folder.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            other => other,
        };
        let mut build = Command::new(env!("CARGO"));
        // What cargo tells this test of its own package would look to build scripts (ring's) like a change, and all that stands on them would be compiled anew.
        let of_this_test = |name: &str| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "OUT_DIR"]
                .iter()
                .any(|known| name.starts_with(known))
        };
        for (name, _) in std::env::vars().filter(|(name, _)| of_this_test(name)) {
            build.env_remove(name);
        }
        let built = build
            // Of the whole workspace, as everything here is built: for one package alone cargo chooses other features of what both need, and compiles it anew.
            .args(["build", "--quiet", "--workspace", "--bins", "--profile", profile])
            .arg("--target-dir")
            .arg(folder.parent().unwrap())
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
            .status()
            .unwrap();
        assert!(built.success(), "mehl-soup does not build");
        folder.join("mehl-soup")
    })
}

/// A temporary folder for specifications, zoos, runs and the cache of hashes.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a specification.
    pub fn spec(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// `mehl-soup` with a cache of its own; arguments are the caller's.
    pub fn command(&self) -> Command {
        let mut command = Command::new(mehl_soup());
        command
            .env("MEHL_SOUP_CACHE_DIR", self.path("cache"))
            .env("MEHL_SOUP_WORKER", env!("CARGO_BIN_EXE_mehl-soup-worker"))
            .current_dir(self.0.path());
        command
    }

    /// `mehl-soup` with arguments, to its end.
    pub fn mehl_soup(&self, arguments: &[&str]) -> Ended {
        let mut command = self.command();
        command.args(arguments);
        Running::start(command).wait()
    }

    /// Starts `mehl-soup run SPEC --out OUT`; both are names in this place.
    pub fn start(&self, spec: &str, out: &str) -> Running {
        let mut command = self.command();
        command.args(["run", spec, "--out", out]);
        Running::start(command)
    }

    /// The same, to its end.
    pub fn run(&self, spec: &str, out: &str) -> Ended {
        self.start(spec, out).wait()
    }

    /// `results.json` of a run.
    pub fn results(&self, out: &str) -> SweepResults {
        serde_json::from_slice(&self.read(&format!("{out}/results.json"))).unwrap()
    }

    /// A file's bytes.
    pub fn read(&self, name: &str) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// The coefficients file of a task.
    pub fn coefficients_of(&self, out: &str, task: &str) -> Vec<u8> {
        self.read(&format!("{out}/tasks/{task}/coefficients.safetensors"))
    }

    /// The coefficients files of all tasks of a finished run.
    pub fn coefficients(&self, out: &str) -> BTreeMap<String, Vec<u8>> {
        let rows = self.results(out).tasks;
        rows.iter().map(|row| (row.task_id.clone(), self.coefficients_of(out, &row.task_id))).collect()
    }

    /// The coefficients files of those tasks of a run that succeeded.
    pub fn coefficients_by_task(&self, out: &str) -> BTreeMap<String, Vec<u8>> {
        let mut rows = self.results(out).tasks;
        rows.retain(|row| row.state == TaskState::Succeeded);
        rows.iter().map(|row| (row.task_id.clone(), self.coefficients_of(out, &row.task_id))).collect()
    }

    /// Every file and folder below a folder of this place, relative to it, sorted. Empty if it is not there.
    pub fn tree(&self, name: &str) -> Vec<String> {
        let root = self.path(name);
        let mut found = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                found.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_string());
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        found.sort();
        found
    }

    /// Copies the ViT ingredients of the fixtures to `zoo/` here, where they may be spoiled.
    pub fn copy_zoo(&self) {
        for name in ["k0", "k1", "k2", "k3"] {
            fs::create_dir_all(self.path("zoo").join(name)).unwrap();
            for file in ["config.json", "model.safetensors"] {
                let from = fixture("trajectories/zoo").join(name).join(file);
                fs::copy(from, self.path("zoo").join(name).join(file)).unwrap();
            }
        }
    }
}

/// Asserts that two runs have the same tasks with the same coefficients, byte by byte.
pub fn assert_same_coefficients(place: &Place, a: &str, b: &str) {
    let (a, b) = (place.coefficients(a), place.coefficients(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (task, bytes) in &a {
        // Not by assert_eq, which would print thousands of bytes.
        assert!(*bytes == b[task], "coefficients of {task} differ");
    }
}

/// A specification of the ViT fixtures: one task unless `rest` has a search.
pub fn vit_spec(zoo: &str, learn: &Path, soup: &str, rest: &str) -> String {
    format!(
        "seed = 4\n[zoo]\nallow_chance = true\ningredients = ['{zoo}']\n[data]\nlearn = '{learn}'\nselect = '{select}'\n[soup]\n{soup}\n{rest}\n",
        learn = learn.display(),
        select = fixture("trajectories/learn.safetensors").display()
    )
}

/// The same on the unspoiled fixtures.
pub fn sound_spec(soup: &str, rest: &str) -> String {
    let zoo = fixture("trajectories/zoo/*");
    vit_spec(zoo.to_str().unwrap(), &fixture("trajectories/learn.safetensors"), soup, rest)
}

/// Tensors by name: dtype, shape, bytes.
pub type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// All tensors of a safetensors file.
pub fn read_tensors(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    SafeTensors::deserialize(&bytes)
        .unwrap()
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect()
}

/// Writes them to a file.
pub fn write_tensors(path: &Path, tensors: &Tensors) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// Reads a safetensors file, changes it, writes it back.
pub fn edit(path: &Path, change: impl FnOnce(&mut Tensors)) {
    let mut tensors = read_tensors(path);
    change(&mut tensors);
    write_tensors(path, &tensors);
}
