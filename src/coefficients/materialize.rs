//! From a coefficients file to a model folder, tensor by tensor: never a whole model in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use super::mix::mix_range;
use super::shards::{PlannedTensor, ShardPlan, index, plan};
use super::{CoefficientsFile, companions, model_card};
use crate::files::{NewFolder, free_bytes, parent_of};
use crate::source;
use crate::sweep::paired::Comparison;
use crate::zoo::{
    HashCache, Ingredient, Layout, TensorClass, Zoo, ZooError, ZooHashes, encode, hash_ingredient, is_mixable,
};

/// Elements mixed at a time: 32 MiB of sums.
const SLAB: usize = 4 << 20;
/// Room for everything in the folder but weights.
const SMALL_FILES: u64 = 16 << 20;

/// How a model is written.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The folder to write; its parents are made.
    pub out: PathBuf,
    /// Dtype of all float tensors: F32, F16, BF16 or F64. `None`: each as in most ingredients.
    pub dtype: Option<Dtype>,
    /// Most bytes of tensors a file. `None`: split like the zoo's reference.
    pub max_shard_bytes: Option<u64>,
    /// Where to look for the ingredients, found by their contents. `None`: where they were when the soup was made.
    pub zoo: Option<Vec<PathBuf>>,
    /// Whether a model that this program wrote to `out` before is replaced.
    pub overwrite: bool,
    /// The soup against other tasks of its sweep, for the model card.
    pub comparisons: Vec<Comparison>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaterializeReport {
    /// The folder.
    pub out: PathBuf,
    /// Names of the files in it, sorted.
    pub files: Vec<String>,
    /// Tensors, of which so many are mixed.
    pub tensors: usize,
    /// Mixed tensors; the others were copied.
    pub mixed: usize,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
}

/// Why no model was written; `out` is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum MaterializeError {
    /// An ingredient cannot be read, or they do not fit together.
    #[error(transparent)]
    Zoo(#[from] ZooError),
    /// An ingredient is no longer what the soup was made of.
    #[error("ingredient `{name}` changed: {}: expected contents with hash {expected}, found {found}", path.display())]
    Changed {
        /// Its name in the coefficients file.
        name: String,
        /// Where it was read from.
        path: PathBuf,
        /// The coefficients file's.
        expected: String,
        /// The file's.
        found: String,
    },
    /// An ingredient is not among those that were given.
    #[error("ingredient `{name}` with content hash {hash} is not among the {candidates} files given")]
    NotFound {
        /// Its name in the coefficients file.
        name: String,
        /// Its content hash.
        hash: String,
        /// How many were looked at.
        candidates: usize,
    },
    /// The coefficients file speaks of other tensors than the ingredients have.
    #[error("tensor `{tensor}`: expected {expected}, found {found}")]
    Tensors {
        /// The tensor.
        tensor: String,
        /// What the coefficients file says.
        expected: &'static str,
        /// What the ingredients have.
        found: &'static str,
    },
    /// A value of the soup does not fit the dtype: write a wider one.
    #[error("tensor `{tensor}`: element {element} is {value}, too large for {dtype}")]
    Overflow {
        /// The tensor.
        tensor: String,
        /// Flat index of the first such element.
        element: usize,
        /// The value.
        value: f64,
        /// The dtype.
        dtype: Dtype,
    },
    /// Models are not written in this dtype.
    #[error("dtype {0} cannot be written: expected F32, F16, BF16 or F64")]
    Dtype(Dtype),
    /// Something is where the model should be.
    #[error("{}: {reason}", path.display())]
    OutputExists {
        /// The output.
        path: PathBuf,
        /// What is in the way.
        reason: String,
    },
    /// The disk is too full.
    #[error("{}: {needed} bytes needed, {available} available", path.display())]
    NoSpace {
        /// Folder that the output would be in.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes available.
        available: u64,
    },
    /// The file system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Writes the soup `soup_l = sum_k A[k,l] theta[k,l]` as a model folder: weights split like the zoo's reference, its
/// configuration and tokenizer files, a model card, and the coefficients.
///
/// Sums are in f64 and rounded to f32, then to F16 or BF16 where asked (ties to even): in F32 the tensors are exactly those of
/// [`mix_tensor`](super::mix_tensor). Frozen and non-float tensors are the ingredients' own; running statistics are the coefficients file's.
/// The folder appears under its name when it is complete, or not at all.
/// `progress` hears (bytes done, bytes in all) of verified ingredients and written tensors.
///
/// # Errors
/// If an ingredient is missing, changed or malformed, a value does not fit the dtype, `out` is taken, or the file system says no.
pub fn materialize(
    file: &CoefficientsFile,
    options: &Options,
    cache: Option<&HashCache>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<MaterializeReport, MaterializeError> {
    if let Some(dtype) = options.dtype.filter(|dtype| !is_mixable(*dtype)) {
        return Err(MaterializeError::Dtype(dtype));
    }
    check_output(&options.out, options.overwrite)?;
    let paths = match &options.zoo {
        Some(paths) => paths.clone(),
        None => file.about.ingredients.iter().map(|i| i.path.clone()).collect(),
    };
    let opened = paths.iter().map(|path| Ingredient::open(path)).collect::<Result<Vec<_>, _>>()?;
    let to_verify: u64 = opened.iter().map(Ingredient::total_bytes).sum();
    // The soup has the tensors of any of its ingredients.
    let mut total = to_verify + opened.first().map_or(0, |first| written_bytes(first, options));
    let mut done = 0;
    let mut advance = |bytes: u64| {
        done += bytes;
        total = total.max(done);
        progress(done, total);
    };
    let (zoo, hashes) = verified(file, opened, options.zoo.is_some(), cache, &mut advance)?;
    let layout = Layout::new(&zoo, &hashes)?;
    write(file, &zoo, &layout, options, &mut advance)
}

/// As [`materialize`], of ingredients that are open and whose contents are those that the file was made of.
///
/// # Errors
/// As [`materialize`].
pub(super) fn write(
    file: &CoefficientsFile,
    zoo: &Zoo,
    layout: &Layout,
    options: &Options,
    advance: &mut dyn FnMut(u64),
) -> Result<MaterializeReport, MaterializeError> {
    if let Some(dtype) = options.dtype.filter(|dtype| !is_mixable(*dtype)) {
        return Err(MaterializeError::Dtype(dtype));
    }
    check_output(&options.out, options.overwrite)?;
    check_tensors(file, layout)?;
    let like = zoo.reference();
    refuse_own_ingredient(zoo, &options.out)?;
    let shards = plan(like, &|name| dtype_of(layout, name), options.dtype, options.max_shard_bytes);
    let folder = begin(&options.out, &shards)?;
    let soup = Soup { file, zoo, layout };
    let mut files: Vec<String> = Vec::new();
    for shard in &shards {
        soup.write_shard(shard, &folder.path().join(&shard.file_name), advance)?;
        files.push(shard.file_name.clone());
    }
    let licences: Vec<_> =
        zoo.ingredients().iter().chain(zoo.base()).map(|i| model_card::licence_of(i.path())).collect();
    let mut small = vec![
        ("README.md", model_card::render(file, &licences, &options.comparisons).into_bytes()),
        (model_card::COEFFICIENTS_NAME, file.to_bytes()),
    ];
    small.extend(index(&shards));
    for (name, content) in small {
        write_file(&folder.path().join(name), &content)?;
        files.push(name.to_string());
    }
    if let Some(own) = like.folder() {
        let copied = companions::copy(own, folder.path(), options.dtype).map_err(io_error(own))?;
        files.extend(copied);
    }
    zoo.check_unchanged()?;
    folder.commit().map_err(io_error(&options.out))?;
    files.sort();
    Ok(MaterializeReport {
        out: options.out.clone(),
        files,
        tensors: layout.tensors.len(),
        mixed: layout.mixed().count(),
        parameters: layout.tensors.iter().map(|tensor| tensor.numel() as u64).sum(),
        bytes: shards.iter().map(ShardPlan::bytes).sum(),
    })
}

fn io_error(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> MaterializeError {
    let path = path.into();
    move |source| MaterializeError::Io { path, source }
}

fn dtype_of(layout: &Layout, name: &str) -> Option<Dtype> {
    layout.get(name).map(|tensor| tensor.dtype)
}

fn written_bytes(like: &Ingredient, options: &Options) -> u64 {
    plan(like, &|name| like.info(name).map(|info| info.dtype), options.dtype, options.max_shard_bytes)
        .iter()
        .map(ShardPlan::bytes)
        .sum()
}

/// `out` may be missing, an empty folder, or (to be overwritten) a model that this program wrote: anything else is somebody's work.
fn check_output(out: &Path, overwrite: bool) -> Result<(), MaterializeError> {
    let taken = |reason: &str| MaterializeError::OutputExists { path: out.to_path_buf(), reason: reason.into() };
    match std::fs::symlink_metadata(out) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io_error(out)(e)),
        Ok(metadata) if !metadata.is_dir() => return Err(taken("expected a folder, or nothing at this path")),
        Ok(_) => {}
    }
    if std::fs::read_dir(out).map_err(io_error(out))?.next().is_none() {
        return Ok(());
    }
    if !overwrite {
        return Err(taken("the folder is not empty (replace it with --overwrite)"));
    }
    if !out.join(model_card::COEFFICIENTS_NAME).is_file() {
        let name = model_card::COEFFICIENTS_NAME;
        return Err(taken(&format!("not replaced: it contains no `{name}`, so this program did not write it")));
    }
    Ok(())
}

/// Replacing `out` must not delete what the soup is made of.
fn refuse_own_ingredient(zoo: &Zoo, out: &Path) -> Result<(), MaterializeError> {
    let Ok(out) = out.canonicalize() else { return Ok(()) };
    let inside = |i: &&Ingredient| source::of(i.path()).canonical(i.path()).is_ok_and(|path| path.starts_with(&out));
    match zoo.ingredients().iter().chain(zoo.base()).find(inside) {
        None => Ok(()),
        Some(ingredient) => {
            let reason = format!("not replaced: ingredient `{}` is in this folder", ingredient.name());
            Err(MaterializeError::OutputExists { path: out, reason })
        }
    }
}

/// The ingredients in the file's order, each with the contents that the file names.
fn verified(
    file: &CoefficientsFile,
    opened: Vec<Ingredient>,
    by_contents: bool,
    cache: Option<&HashCache>,
    advance: &mut dyn FnMut(u64),
) -> Result<(Zoo, ZooHashes), MaterializeError> {
    let candidates = opened.len();
    let mut found = Vec::new();
    for ingredient in opened {
        let hashes = hash_ingredient(&ingredient, cache, advance)?;
        found.push(Some((ingredient, hashes)));
    }
    let (mut ingredients, mut hashes) = (Vec::new(), Vec::new());
    for (k, wanted) in file.about.ingredients.iter().enumerate() {
        let matching = |slot: &Option<(Ingredient, _)>| {
            slot.as_ref().is_some_and(|(_, h): &(_, crate::zoo::IngredientHashes)| h.total == wanted.hash)
        };
        let at = if by_contents { found.iter().position(matching) } else { Some(k) };
        let Some((ingredient, own)) = at.and_then(|at| found[at].take()) else {
            let (name, hash) = (wanted.name.clone(), wanted.hash.clone());
            return Err(MaterializeError::NotFound { name, hash, candidates });
        };
        if own.total != wanted.hash {
            return Err(MaterializeError::Changed {
                name: wanted.name.clone(),
                path: ingredient.path().to_path_buf(),
                expected: wanted.hash.clone(),
                found: own.total,
            });
        }
        ingredients.push(ingredient);
        hashes.push(own);
    }
    let base = if file.about.has_base { ingredients.pop().zip(hashes.pop()) } else { None };
    let zoo = Zoo::of(ingredients)?;
    Ok(match base {
        None => (zoo, ZooHashes { ingredients: hashes, base: None }),
        Some((base, own)) => (zoo.with_base(base.path())?.0, ZooHashes { ingredients: hashes, base: Some(own) }),
    })
}

/// The file must have a layer group for exactly the mixed tensors.
fn check_tensors(file: &CoefficientsFile, layout: &Layout) -> Result<(), MaterializeError> {
    let groups: &BTreeMap<String, usize> = &file.about.tensors;
    let wrong =
        |tensor: &str, expected, found| Err(MaterializeError::Tensors { tensor: tensor.to_string(), expected, found });
    for name in groups.keys() {
        match layout.get(name).map(|tensor| tensor.class) {
            Some(TensorClass::Mixed) => {}
            Some(_) => return wrong(name, "a tensor that differs between ingredients", "one that is equal in all"),
            None => return wrong(name, "a tensor that differs between ingredients", "no such tensor"),
        }
    }
    for tensor in layout.tensors.iter().filter(|tensor| tensor.class == TensorClass::Statistic) {
        match file.statistics.get(&tensor.name) {
            Some(statistic) if statistic.shape == tensor.shape => {}
            Some(_) => {
                return wrong(
                    &tensor.name,
                    "a running statistic with the shape in the ingredients",
                    "one of another shape",
                );
            }
            None => return wrong(&tensor.name, "a running statistic of the soup in the coefficients file", "none"),
        }
    }
    let is_statistic = |name: &str| layout.get(name).is_some_and(|tensor| tensor.class == TensorClass::Statistic);
    if let Some(name) = file.statistics.keys().find(|name| !is_statistic(name)) {
        return wrong(name, "a running statistic that differs between ingredients", "no such tensor");
    }
    match layout.mixed().find(|tensor| !groups.contains_key(&tensor.name)) {
        None => Ok(()),
        Some(tensor) => wrong(&tensor.name, "a tensor that is equal in all ingredients", "one that differs"),
    }
}

fn begin(out: &Path, shards: &[ShardPlan]) -> Result<NewFolder, MaterializeError> {
    let folder = NewFolder::begin(out).map_err(io_error(out))?;
    let parent = parent_of(out);
    let needed = shards.iter().map(ShardPlan::bytes).sum::<u64>() + SMALL_FILES;
    let available = free_bytes(parent).map_err(io_error(parent))?;
    if available < needed {
        return Err(MaterializeError::NoSpace { path: parent.to_path_buf(), needed, available });
    }
    Ok(folder)
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), MaterializeError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(io_error(path))
}

/// What the weights are written from.
struct Soup<'a> {
    file: &'a CoefficientsFile,
    zoo: &'a Zoo,
    layout: &'a Layout,
}

impl Soup<'_> {
    fn write_shard(
        &self,
        shard: &ShardPlan,
        path: &Path,
        advance: &mut dyn FnMut(u64),
    ) -> Result<(), MaterializeError> {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(io_error(path))?);
        out.write_all(&shard.header()).map_err(io_error(path))?;
        for tensor in &shard.tensors {
            self.write_tensor(tensor, &mut out, path, advance)?;
        }
        let file = out.into_inner().map_err(|e| io_error(path)(e.into_error()))?;
        file.sync_all().map_err(io_error(path))
    }

    fn write_tensor(
        &self,
        tensor: &PlannedTensor,
        out: &mut impl Write,
        path: &Path,
        advance: &mut dyn FnMut(u64),
    ) -> Result<(), MaterializeError> {
        let own =
            self.layout.get(&tensor.name).expect("the plan is of an ingredient's tensors, which are those of all");
        if own.class == TensorClass::Statistic {
            let statistic = self.file.statistics.get(&tensor.name).expect("the file was checked against the layout");
            let values: Vec<f64> = statistic.values.iter().copied().map(f64::from).collect();
            return write_values(tensor, 0, &values, out, path, advance);
        }
        if own.class != TensorClass::Mixed && own.dtype == tensor.dtype {
            let mut buffer = vec![0; tensor.bytes.min(SLAB)];
            for start in (0..tensor.bytes).step_by(SLAB) {
                let slab = &mut buffer[..(tensor.bytes - start).min(SLAB)];
                self.zoo.ingredients()[0].read_bytes(&tensor.name, start, slab)?;
                out.write_all(slab).map_err(io_error(path))?;
                advance(slab.len() as u64);
            }
            return Ok(());
        }
        let weights = match self.file.about.tensors.get(&tensor.name) {
            Some(&group) => self.file.coefficients.column(group),
            // Frozen, in another dtype: the first ingredient's values.
            None => (0..self.zoo.rows()).map(|k| if k == 0 { 1.0 } else { 0.0 }).collect(),
        };
        let numel = own.numel();
        let mut sums = vec![0.0; numel.min(SLAB)];
        for start in (0..numel).step_by(SLAB) {
            let sums = &mut sums[..(numel - start).min(SLAB)];
            mix_range(self.zoo, &tensor.name, &weights, start, sums)?;
            write_values(tensor, start, sums, out, path, advance)?;
        }
        Ok(())
    }
}

/// Writes the values of `tensor` from element `start` on, in its dtype.
fn write_values(
    tensor: &PlannedTensor,
    start: usize,
    values: &[f64],
    out: &mut impl Write,
    path: &Path,
    advance: &mut dyn FnMut(u64),
) -> Result<(), MaterializeError> {
    let mut bytes = Vec::new();
    encode(values, tensor.dtype, &mut bytes).map_err(|at| MaterializeError::Overflow {
        tensor: tensor.name.clone(),
        element: start + at,
        value: values[at],
        dtype: tensor.dtype,
    })?;
    out.write_all(&bytes).map_err(io_error(path))?;
    advance(bytes.len() as u64);
    Ok(())
}
