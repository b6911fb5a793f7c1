//! One fine-tuned model's weights on disk.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use safetensors::Dtype;

use super::element::{Element, decode, is_mixable};
use super::error::ZooError;
use super::folder::{self, NoWeights};
use super::hash::hash_contents;
use super::shard::Shard;
use crate::source::{self, Head, State};
use crate::untrusted::{LARGEST_CONFIG, without_mark};

/// Elements that one thread converts at a time.
pub(crate) const CHUNK: usize = 1 << 15;
/// Elements that are read at a time: their bytes stay in the processor's nearest cache until they are decoded.
const RUN: usize = 1 << 13;

/// See [`bytes_read`].
static READ: AtomicU64 = AtomicU64::new(0);

/// Bytes of ingredients' tensors that this process has read so far, hashing not counted.
pub fn bytes_read() -> u64 {
    READ.load(Ordering::Relaxed)
}

/// One fine-tuned model's weights: a `.safetensors` file, or a Hugging Face folder (single file or sharded).
///
/// Nothing but headers is in memory until it is asked for. Files that change while an `Ingredient` is open give errors, not
/// wrong numbers: see [`check_unchanged`](Self::check_unchanged).
#[derive(Debug)]
pub struct Ingredient {
    name: String,
    path: PathBuf,
    is_folder: bool,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, TensorInfo>,
    config: Option<serde_json::Value>,
    /// Its content hash, once known.
    hash: OnceLock<String>,
    /// How names begin on disk, and how they begin here.
    renamed: Option<(String, String)>,
    /// What was assumed, for people.
    notes: Vec<String>,
}

/// A tensor's header entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// As on disk.
    pub dtype: Dtype,
    /// As on disk; empty for a scalar.
    pub shape: Vec<usize>,
    shard: usize,
    range: Range<usize>,
}

impl TensorInfo {
    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> usize {
        self.range.len()
    }

    /// Where it lies: shard, then offset. Reading in this order is sequential.
    pub(crate) fn position(&self) -> (usize, usize) {
        (self.shard, self.range.start)
    }
}

impl Ingredient {
    /// Asks the system to read this ingredient's files into its cache in the background: memory that it may take back, none of this process.
    pub fn read_ahead(&self) {
        self.shards.iter().for_each(Shard::read_ahead);
    }

    /// Opens a `.safetensors` file, or a folder that holds `model.safetensors`, else `model.safetensors.index.json` and its shards.
    ///
    /// # Errors
    /// If it is neither, a file is truncated or otherwise malformed (named), a shard is not a file of the folder, or index and shards disagree.
    pub fn open(path: &Path) -> Result<Self, ZooError> {
        let files = source::of(path);
        let path = files.absolute(path).map_err(ZooError::io(path))?;
        let is_folder = files.head(&path).map_err(ZooError::io(&path))? == Head::Folder;
        let name = path.file_name().map_or_else(|| path.to_string_lossy(), |n| n.to_string_lossy()).into_owned();
        let mut ingredient = Self {
            name,
            path,
            is_folder,
            shards: Vec::new(),
            tensors: BTreeMap::new(),
            config: None,
            hash: OnceLock::new(),
            renamed: None,
            notes: Vec::new(),
        };
        if is_folder {
            ingredient.open_folder()?;
        } else if ingredient.path.extension().is_some_and(|e| e == "safetensors") {
            ingredient.add_shard(&ingredient.path.clone())?;
            // A model folder's file, named by itself, is that model still.
            ingredient.read_config(crate::files::parent_of(&ingredient.path.clone()))?;
        } else {
            let reason = "expected a `.safetensors` file or a model folder, found another file".into();
            return Err(ZooError::NotAnIngredient { path: ingredient.path, reason });
        }
        if ingredient.tensors.is_empty() {
            return Err(ZooError::Malformed { file: ingredient.path, reason: "expected tensors, found none".into() });
        }
        Ok(ingredient)
    }

    fn open_folder(&mut self) -> Result<(), ZooError> {
        let folder = self.path.clone();
        let weights = folder::find_weights(&folder).map_err(|why| {
            let (NoWeights::Other(reason) | NoWeights::Ambiguous(reason)) = why;
            ZooError::NotAnIngredient { path: folder.clone(), reason }
        })?;
        if weights.is_index {
            let index = folder::read_index(&weights.file)?;
            for path in index.shards.values() {
                self.add_shard(path)?;
            }
            self.check_index(&weights.file, &index)?;
        } else {
            self.add_shard(&weights.file)?;
        }
        self.notes.extend(weights.note);
        self.read_config(&folder)
    }

    fn read_config(&mut self, folder: &Path) -> Result<(), ZooError> {
        let config = folder.join("config.json");
        match source::of(&config).read(&config, LARGEST_CONFIG) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(ZooError::Io { path: config, source: e }),
            Ok(text) => {
                let value = serde_json::from_slice(without_mark(&text))
                    .map_err(|e| ZooError::Malformed { file: config, reason: format!("not JSON: {e}") })?;
                self.config = Some(value);
            }
        }
        Ok(())
    }

    fn add_shard(&mut self, path: &Path) -> Result<(), ZooError> {
        let (shard, infos) = Shard::open_with_header(path)?;
        for (name, info) in infos {
            let (start, end) = info.data_offsets;
            let info = TensorInfo { dtype: info.dtype, shape: info.shape, shard: self.shards.len(), range: start..end };
            if let Some(other) = self.tensors.get(&name) {
                let other = self.shards[other.shard].path().display();
                let reason = format!("tensor `{name}`: expected in one shard, found in {other} as well");
                return Err(ZooError::Malformed { file: path.to_path_buf(), reason });
            }
            self.tensors.insert(name, info);
        }
        self.shards.push(shard);
        Ok(())
    }

    /// The index must name every tensor of every shard, and where it is.
    fn check_index(&self, file: &Path, index: &folder::ShardIndex) -> Result<(), ZooError> {
        let malformed = |reason| ZooError::Malformed { file: file.to_path_buf(), reason };
        for (name, shard) in &index.tensors {
            let held = self.tensors.get(name).map(|info| self.shards[info.shard].path());
            if held.and_then(Path::file_name).is_none_or(|found| found != shard.as_str()) {
                return Err(malformed(format!("tensor `{name}`: expected in shard `{shard}`, not found there")));
            }
        }
        match self.tensors.iter().find(|(name, _)| !index.tensors.contains_key(*name)) {
            None => Ok(()),
            Some((name, info)) => {
                let shard = self.shards[info.shard].path().display();
                Err(malformed(format!("tensor `{name}`: expected in the index, found only in {shard}")))
            }
        }
    }

    /// The folder that holds the model's configuration: the ingredient itself, or, for a file, the one it is in if that holds a `config.json`.
    pub fn folder(&self) -> Option<&Path> {
        if self.is_folder {
            Some(&self.path)
        } else {
            self.config.as_ref().map(|_| crate::files::parent_of(&self.path))
        }
    }

    /// Short name; unique within a zoo.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn rename(&mut self, name: String) {
        self.name = name;
    }

    /// What was assumed of its files, for people.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The beginning that the names of all tensors share, up to a dot; empty without one.
    pub fn common_prefix(&self) -> String {
        let (Some(first), Some(last)) = (self.tensors.keys().next(), self.tensors.keys().next_back()) else {
            return String::new();
        };
        // Names are sorted: what the first and the last share, all share.
        let shared = first.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
        first.as_bytes()[..shared].iter().rposition(|byte| *byte == b'.').map_or("", |dot| &first[..=dot]).to_string()
    }

    /// From now on, names of tensors begin with `prefix` in place of what they all share on disk.
    pub(super) fn replace_prefix(&mut self, prefix: &str) {
        let now = self.common_prefix();
        let own = self.renamed.take().map_or_else(|| now.clone(), |(own, _)| own);
        let tensors = std::mem::take(&mut self.tensors);
        self.tensors =
            tensors.into_iter().map(|(name, info)| (format!("{prefix}{}", &name[now.len()..]), info)).collect();
        if own != prefix {
            let named = |prefix: &str| if prefix.is_empty() { "nothing".to_string() } else { format!("`{prefix}`") };
            self.notes.push(format!(
                "assumed: the prefix of all tensors of {}, {}, comes from a wrapper; in most ingredients it is {}",
                self.path.display(),
                named(&own),
                named(prefix)
            ));
            self.renamed = Some((own, prefix.to_string()));
        }
    }

    /// Whether tensors are called otherwise here than on disk.
    pub fn is_renamed(&self) -> bool {
        self.renamed.is_some()
    }

    /// What a tensor is called on disk.
    pub(super) fn disk_name<'a>(&self, name: &'a str) -> Cow<'a, str> {
        match self.renamed.as_ref().and_then(|(own, here)| Some((own, name.strip_prefix(here.as_str())?))) {
            Some((own, rest)) => Cow::Owned(format!("{own}{rest}")),
            None => Cow::Borrowed(name),
        }
    }

    /// Absolute path of the file or folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all tensors, sorted.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors.iter().map(|(name, info)| (name.as_str(), info))
    }

    /// A tensor's header entry.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The file that holds a tensor; the ingredient's own path for a tensor that it does not have.
    pub fn file_of(&self, name: &str) -> &Path {
        self.tensors.get(name).map_or(&self.path, |info| self.shards[info.shard].path())
    }

    /// A tensor's bytes as they are on disk: little-endian, row-major.
    ///
    /// # Errors
    /// [`ZooError::NoTensor`], or if the file cannot be read or was shortened.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, ZooError> {
        let mut bytes = vec![0; self.required(name)?.bytes()];
        self.read_bytes(name, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Like [`bytes`](Self::bytes), for those from `start` on that fit in `out`.
    ///
    /// # Panics
    /// If there are fewer.
    pub(crate) fn read_bytes(&self, name: &str, start: usize, out: &mut [u8]) -> Result<(), ZooError> {
        READ.fetch_add(out.len() as u64, Ordering::Relaxed);
        self.read_to_hash(name, start, out)
    }

    /// Like [`read_bytes`](Self::read_bytes), and not counted.
    ///
    /// # Panics
    /// If there are fewer.
    pub(super) fn read_to_hash(&self, name: &str, start: usize, out: &mut [u8]) -> Result<(), ZooError> {
        let info = self.required(name)?;
        assert!(start + out.len() <= info.bytes(), "the bytes are the tensor's own");
        self.shards[info.shard].read_at(info.range.start + start, out)
    }

    /// Reads a float tensor into `out`, converting from F32, F16, BF16 (exact) or F64 (rounded to nearest even for `f32`).
    ///
    /// # Errors
    /// If there is no such tensor, it is of another dtype, or `out` does not have its number of elements.
    pub fn read<T: Element>(&self, name: &str, out: &mut [T]) -> Result<(), ZooError> {
        let expected = self.required(name)?.numel();
        if out.len() != expected {
            let found = out.len();
            return Err(ZooError::WrongLength {
                file: self.file_of(name).into(),
                tensor: name.into(),
                expected,
                found,
            });
        }
        out.par_chunks_mut(CHUNK).enumerate().try_for_each(|(i, chunk)| self.read_range(name, i * CHUNK, chunk))
    }

    /// Like [`read`](Self::read), on this thread, for the elements from `start` on that fit in `out`.
    ///
    /// # Panics
    /// If there are fewer.
    pub(crate) fn read_range<T: Element>(&self, name: &str, start: usize, out: &mut [T]) -> Result<(), ZooError> {
        let dtype = self.required(name)?.dtype;
        if !is_mixable(dtype) {
            return Err(ZooError::WrongDtype { file: self.file_of(name).into(), tensor: name.into(), found: dtype });
        }
        thread_local! {
            /// What this thread reads into.
            static RAW: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let size = dtype.bitsize() / 8;
        RAW.with_borrow_mut(|raw| {
            for (i, part) in out.chunks_mut(RUN).enumerate() {
                let bytes = part.len() * size;
                if raw.len() < bytes {
                    raw.resize(bytes, 0);
                }
                self.read_bytes(name, (start + i * RUN) * size, &mut raw[..bytes])?;
                decode(dtype, &raw[..bytes], part);
            }
            Ok(())
        })
    }

    /// That the files are what they were when they were opened. Looks at sizes, times and inodes, and reads contents again only
    /// where nothing but the inode's own time differs, if they were hashed before. To be called after reading what must be right.
    ///
    /// Not noticed: a write within the resolution of the file system's clock (some milliseconds) after opening, and one whose
    /// contents were put back.
    ///
    /// # Errors
    /// [`ZooError::Changed`] with the file.
    pub fn check_unchanged(&self) -> Result<(), ZooError> {
        let mut touched = Vec::new();
        for shard in &self.shards {
            match shard.state() {
                State::Same => {}
                State::Touched(now) => touched.push((shard, now)),
                State::Changed(reason) => return Err(shard.changed(reason)),
            }
        }
        let Some((first, _)) = touched.first() else { return Ok(()) };
        if let Some(known) = self.hash.get()
            && *known != hash_contents(self, &mut |_| {})?.total
        {
            return Err(first.changed("it was modified".into()));
        }
        for (shard, now) in touched {
            shard.renew(now);
        }
        Ok(())
    }

    /// Remembers what [`check_unchanged`](Self::check_unchanged) compares with.
    pub(super) fn remember_hash(&self, total: &str) {
        // The first one stays: it is the one that was reported.
        let _ = self.hash.set(total.to_string());
    }

    /// The folder's `config.json`; `None` for a file, or a folder without one.
    pub fn config(&self) -> Option<&serde_json::Value> {
        self.config.as_ref()
    }

    /// The files that hold the tensors, sorted by name.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Bytes of all tensors.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.values().map(|info| info.bytes() as u64).sum()
    }

    fn required(&self, name: &str) -> Result<&TensorInfo, ZooError> {
        self.info(name).ok_or_else(|| ZooError::NoTensor { file: self.path.clone(), tensor: name.into() })
    }
}
