//! An open file as the Parquet reader reads it.

use std::io::BufReader;
use std::sync::Arc;

use bytes::Bytes;
use mehl_soup::source::{Blob, BlobReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

/// A file of any source.
pub(in crate::data) struct ParquetFile(pub Arc<dyn Blob>);

impl Length for ParquetFile {
    fn len(&self) -> u64 {
        self.0.identity().size
    }
}

impl ChunkReader for ParquetFile {
    type T = BufReader<BlobReader>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(BufReader::new(BlobReader::new(self.0.clone(), start)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        // Before memory is taken: a damaged file can ask for any length.
        let left = self.len().saturating_sub(start);
        if length as u64 > left {
            return Err(ParquetError::EOF(format!("expected {length} bytes from byte {start} on, found {left}")));
        }
        let mut bytes = vec![0; length];
        self.0.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}
