//! Images as data: listed, decoded in parallel once into a cache, mapped into memory, normalised when a batch is taken.
//!
//! | module | does |
//! |---|---|
//! | [`sources`] | lists the images of a folder, a CSV or Parquet files, and reads their bytes |
//! | [`classes`] | names of classes to outputs of the model |
//! | [`preprocessor`], [`resolve`] | find the transform |
//! | [`decode`], [`transform`] | encoded bytes to pixels; resize, crop |
//! | `content_hashes`, [`cache`] | what is remembered between runs |
//! | [`stored`] | batches of what is cached |

pub mod cache;
pub mod classes;
mod content_hashes;
pub mod decode;
pub mod preprocessor;
pub mod resolve;
pub mod sources;
pub mod stored;
pub mod transform;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mehl_soup::sweep::spec::DataSpec;
use tch::Tensor;

use self::cache::{CacheError, ImageCache, Skipped, Slot};
use self::classes::{Assigned, ClassNames};
use self::content_hashes::ContentHashes;
use self::resolve::{ModelFacts, Resolved};
use self::sources::{Columns, Listing, Source};
use self::stored::StoredImages;
use super::{DataError, Loaded, Split};

/// Between two words about progress.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// What images need besides the specification.
pub struct ImageInputs<'a> {
    /// The model.
    pub model: ModelFacts<'a>,
    /// Where decoded images are kept.
    pub cache: ImageCache,
}

/// All splits of images.
pub struct LoadedImages {
    /// In the order in which they were asked for.
    pub splits: Vec<Loaded>,
    /// Number of classes, where names told it, and who did.
    pub classes: Option<(usize, String)>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Loads splits of images; the first is learn.
///
/// # Errors
/// If a source, an image (unless `data.skip_unreadable`), a class, the transform or the cache is at fault, with its name.
pub fn load(
    sources: &[Source],
    spec: &DataSpec,
    inputs: &ImageInputs<'_>,
    note: &mut dyn FnMut(&str),
) -> Result<LoadedImages, DataError> {
    let Resolved { pixels, normalization, output, mut notes } = resolve::resolve(&spec.image, &inputs.model)?;
    let columns = columns(spec);
    let listings: Vec<Listing> =
        sources.iter().map(|source| Listing::open(source, &columns)).collect::<Result<_, _>>()?;
    let known = ClassNames::find(
        spec.classes.as_deref(),
        inputs.model.config,
        inputs.model.folders.first().map(PathBuf::as_path),
    )?;
    let Assigned { labels, count, notes: of_classes } =
        classes::assign(&listings.iter().collect::<Vec<_>>(), known.as_ref(), spec.allow_missing_classes)?;
    notes.extend(listings.iter().flat_map(|listing| listing.notes.clone()));
    notes.extend(of_classes);
    let mut splits = Vec::new();
    for (listing, labels) in listings.iter().zip(labels) {
        let hashes = hash(listing, inputs.cache.folder.as_deref(), note)?;
        let key = key(&pixels, &hashes);
        let shape = [listing.samples.len(), pixels.channels, output.height, output.width];
        let fill = |slot: &Slot<'_>, note: &mut dyn FnMut(&str)| {
            fill(slot, listing, &hashes, &pixels, shape, spec.skip_unreadable, note)
        };
        let mut waits = false;
        let entry = {
            let note = std::cell::RefCell::new(&mut *note);
            inputs.cache.get(
                &key,
                shape,
                &mut || {
                    waits = true;
                    note.borrow_mut()(&format!(
                        "{}: waiting for another process that is decoding it",
                        listing.path.display()
                    ));
                },
                &mut |slot| fill(slot, &mut **note.borrow_mut()),
            )?
        };
        let skipped = &entry.description.skipped;
        if let Some((first, why)) = skipped.first() {
            let name = &listing.samples[*first].name;
            if !spec.skip_unreadable {
                return Err(unreadable(name, why));
            }
            if skipped.len() == listing.samples.len() {
                return Err(unreadable(name, &format!("{why}; none of the {} images could be read", skipped.len())));
            }
            notes.push(format!(
                "{}: {} of {} images could not be read and were skipped; the first is {name}: \
                 {why}",
                listing.path.display(),
                skipped.len(),
                listing.samples.len()
            ));
        }
        let mut rows: Vec<usize> = (0..listing.samples.len()).collect();
        rows.retain(|row| skipped.binary_search_by_key(row, |(skipped, _)| *skipped).is_err());
        let used: Vec<blake3::Hash> = rows.iter().filter_map(|&row| hashes[row].as_ref().ok().copied()).collect();
        let labels: Vec<i64> = rows.iter().map(|&row| labels[row]).collect();
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(serde_json::to_string(&(decode::VERSION, &pixels, &normalization)).unwrap_or_default().as_bytes());
        for (hash, label) in used.iter().zip(&labels) {
            hasher.update(hash.as_bytes());
            hasher.update(&label.to_le_bytes());
        }
        let complete = skipped.is_empty();
        let mut images = StoredImages::new(Arc::new(entry), normalization.clone())?;
        if !complete {
            images = images.subset(&rows);
        }
        splits.push(Loaded {
            split: Split::of_images(images, Tensor::f_from_slice(&labels)?),
            hash: hasher.finalize().to_hex().to_string(),
            rows: used,
        });
    }
    Ok(LoadedImages { splits, classes: count, notes })
}

/// Names of columns, unless they are those that tensor files have by default.
fn columns(spec: &DataSpec) -> Columns<'_> {
    Columns {
        image: spec.inputs.first().map(String::as_str).filter(|name| *name != "inputs"),
        label: Some(spec.labels.as_str()).filter(|name| *name != "labels"),
        skip_unreadable: spec.skip_unreadable,
    }
}

fn hash(
    listing: &Listing,
    cache: Option<&std::path::Path>,
    note: &mut dyn FnMut(&str),
) -> Result<ContentHashes, DataError> {
    let mut said = Instant::now();
    let total = listing.samples.len();
    content_hashes::of(listing, cache, &mut |done| {
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            note(&format!("{}: hashing images: {done} of {total}", listing.path.display()));
        }
        true
    })
}

/// Key of the cached values. Classes and normalisation are not in it: they change nothing of what is stored, and other ones find it again.
fn key(pixels: &transform::PixelTransform, hashes: &ContentHashes) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(serde_json::to_string(&(decode::VERSION, pixels)).unwrap_or_default().as_bytes());
    for hash in hashes {
        match hash {
            Ok(hash) => hasher.update(&[1]).update(hash.as_bytes()),
            Err(_) => hasher.update(&[0]),
        };
    }
    hasher.finalize().to_hex().to_string()
}

/// Decodes every image of a listing into a new cache entry; which could not be. Without `skip`, the first is an error.
fn fill(
    slot: &Slot<'_>,
    listing: &Listing,
    hashes: &ContentHashes,
    pixels: &transform::PixelTransform,
    [total, channels, height, width]: [usize; 4],
    skip: bool,
    note: &mut dyn FnMut(&str),
) -> Result<Skipped, DataError> {
    let faults: Mutex<Skipped> = Mutex::new(Vec::new());
    let broken: Mutex<Option<std::io::Error>> = Mutex::new(None);
    let stop = AtomicBool::new(false);
    let work = |i: usize, bytes: Result<&[u8], String>| {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut values = vec![0; channels * height * width];
        let decoded = bytes.and_then(|bytes| {
            if hashes[i].as_ref().is_ok_and(|hash| *hash != blake3::hash(bytes)) {
                return Err("its content changed while it was read".to_string());
            }
            pixels.apply(&decode::decode(bytes, pixels)?, &mut values)
        });
        match decoded {
            Ok(()) => {
                if let Err(error) = slot.write(i, &values) {
                    locked(&broken).get_or_insert(error);
                    stop.store(true, Ordering::Relaxed);
                }
            }
            Err(why) => {
                locked(&faults).push((i, why));
                stop.fetch_or(!skip, Ordering::Relaxed);
            }
        }
    };
    let readable: Vec<usize> = (0..total).filter(|&i| hashes[i].is_ok()).collect();
    for (i, hash) in hashes.iter().enumerate() {
        if let Err(why) = hash {
            locked(&faults).push((i, why.clone()));
        }
    }
    if skip || readable.len() == total {
        let mut said = Instant::now();
        listing.for_each(&readable, &work, &mut |done| {
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                note(&format!("{}: decoding images: {done} of {total}", listing.path.display()));
            }
            !stop.load(Ordering::Relaxed)
        })?;
    }
    if let Some(source) = locked(&broken).take() {
        return Err(DataError::Io { file: "cache of decoded images".to_string(), source });
    }
    let mut faults = std::mem::take(&mut *locked(&faults));
    faults.sort_unstable();
    match faults.first() {
        Some((first, why)) if !skip => Err(unreadable(&listing.samples[*first].name, why)),
        _ => Ok(faults),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic while it is held ends the whole loop, and nothing is half-changed by a push.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn unreadable(name: &str, why: &str) -> DataError {
    DataError::Content {
        file: name.to_string(),
        what: format!("{why} (to skip such images, set data.skip_unreadable = true)"),
    }
}

impl From<CacheError> for DataError {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Io { path, source } => Self::Io { file: path.display().to_string(), source },
            full @ CacheError::Full { .. } => {
                Self::Content { file: "decoded images".to_string(), what: full.to_string() }
            }
        }
    }
}
