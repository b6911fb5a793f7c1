//! One open safetensors file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use safetensors::tensor::TensorInfo;

use super::error::ZooError;
use super::header;
use crate::source::{self, Blob, Hint, Identity, State, change_told_by};

/// Bytes that are read and hashed at a time.
const HASH_BLOCK: usize = 1 << 20;

/// One safetensors file of an ingredient, open for reading.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    blob: Arc<dyn Blob>,
    /// Where tensor data begins in the file.
    data: u64,
    tensors: Vec<String>,
    /// State in which the contents were found, last.
    identity: Mutex<Identity>,
}

impl Shard {
    /// Opens `path` and checks its header: sizes, offsets without gap or overlap, shapes that fit
    /// them, no byte too many or too few.
    ///
    /// # Errors
    /// If it is no regular file, cannot be read, or is malformed.
    pub fn open(path: &Path) -> Result<Self, ZooError> {
        Ok(Self::open_with_header(path)?.0)
    }

    pub(super) fn open_with_header(path: &Path) -> Result<(Self, Vec<(String, TensorInfo)>), ZooError> {
        let blob = source::of(path).open(path).map_err(|e| match e.kind() {
            io::ErrorKind::InvalidInput => ZooError::NotAnIngredient { path: path.into(), reason: e.to_string() },
            _ => ZooError::io(path)(e),
        })?;
        blob.hint(Hint::Sequential);

        let size = blob.identity().size;
        let malformed = |reason: String| ZooError::Malformed { file: path.to_path_buf(), reason };
        let mut beginning =
            vec![0; usize::try_from(size).map_or(header::BEGINNING, |size| size.min(header::BEGINNING))];
        blob.read_exact_at(&mut beginning, 0).map_err(ZooError::io(path))?;
        if let Some(kind) = header::other_kind(&beginning) {
            return Err(malformed(format!("not a safetensors file but {kind}")));
        }
        let Some(prefix) = beginning.first_chunk::<{ header::PREFIX }>() else {
            return Err(malformed(header::too_short(size)));
        };
        let mut json = vec![0; header::length(*prefix, size).map_err(malformed)?];
        blob.read_exact_at(&mut json, prefix.len() as u64).map_err(ZooError::io(path))?;
        let data = (prefix.len() + json.len()) as u64;
        let header = header::parse(&json, size - data).map_err(malformed)?;
        let tensors = header.offset_keys();
        let infos = tensors
            .iter()
            .map(|name| (name.clone(), header.info(name).expect("a name of the same header").clone()))
            .collect();
        let identity = Mutex::new(blob.identity().clone());
        Ok((Self { path: path.to_path_buf(), blob, data, tensors, identity }, infos))
    }

    /// Asks the source to have the whole file at hand. Returns at once or soon, whatever the disk
    /// does.
    pub(super) fn read_ahead(&self) {
        self.blob.hint(Hint::WillNeed);
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the tensors in it, in the order in which they lie in the file.
    pub fn tensors(&self) -> &[String] {
        &self.tensors
    }

    /// Fills `out` with the data from byte `start` on.
    pub(super) fn read_at(&self, start: usize, out: &mut [u8]) -> Result<(), ZooError> {
        self.read_from_file(self.data + start as u64, out)
    }

    fn read_from_file(&self, at: u64, out: &mut [u8]) -> Result<(), ZooError> {
        // The header fits the file's size when it was opened.
        self.blob.read_exact_at(out, at).map_err(|error| match change_told_by(&error) {
            Some(reason) => self.changed(reason),
            None => ZooError::io(&self.path)(error),
        })
    }

    /// blake3 of the whole file, header too, as long as it was when it was opened; hexadecimal.
    pub(super) fn hash_file(&self) -> Result<String, ZooError> {
        let bytes = self.blob.identity().size;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; HASH_BLOCK];
        let mut at = 0;
        while at < bytes {
            let block = &mut buffer[..usize::try_from(bytes - at).map_or(HASH_BLOCK, |left| left.min(HASH_BLOCK))];
            self.read_from_file(at, block)?;
            hasher.update_rayon(block);
            at += block.len() as u64;
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    pub(super) fn changed(&self, reason: String) -> ZooError {
        ZooError::Changed { file: self.path.clone(), reason }
    }

    /// The file beside the state in which its contents were found.
    pub(super) fn state(&self) -> State {
        self.identity().compare(self.blob.now())
    }

    /// Whether the file is as it was found, and no later change can look like that.
    pub(super) fn is_settled(&self) -> bool {
        let identity = self.identity();
        identity.compare(self.blob.now()) == State::Same && identity.is_settled()
    }

    /// After the contents were found to be the same.
    pub(super) fn renew(&self, identity: Identity) {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// Adds the file's name and state to the key of a cache.
    pub(super) fn add_to_key(&self, hasher: &mut blake3::Hasher) {
        let name = self.blob.name().as_os_str().as_encoded_bytes();
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update(&self.identity().to_bytes());
    }

    fn identity(&self) -> Identity {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
