//! A folder of class folders, as torchvision's `ImageFolder` and Hugging Face's `imagefolder` read it.

use std::path::{Path, PathBuf};

use super::{Listing, Place, Sample, by_name, io, is_hidden, is_image, is_unread_image};
use crate::data::DataError;
use mehl_soup::source;
use mehl_soup::zoo::nfc;

/// Folders within folders that are followed; links may lead in a circle.
const DEEPEST: usize = 16;

/// Lists a folder: images by class, then path, in byte order. Names that begin with a dot are left out.
/// Images that nothing here decodes are a fault, unless `skip_unreadable`.
pub(super) fn list(root: &Path, skip_unreadable: bool) -> Result<Listing, DataError> {
    let mut ignored = Ignored::default();
    let mut classes = Vec::new();
    let mut loose = 0;
    for entry in entries(root)? {
        if source::of(&entry).is_folder(&entry) {
            classes.push(entry);
        } else {
            loose += usize::from(is_image(&entry));
            ignored.add(entry);
        }
    }
    let fault = |what: String| DataError::Content { file: root.display().to_string(), what };
    if classes.is_empty() {
        return Err(fault(format!(
            "expected one subfolder per class with images (JPEG, PNG, WebP, BMP, GIF, TIFF), or \
             only .parquet files; found no subfolder and {loose} images (if the labels are in a \
             CSV file, give that file)"
        )));
    }
    let mut samples = Vec::new();
    let mut names = Vec::new();
    let mut all = Vec::new();
    for class in classes {
        let name =
            class.file_name().unwrap_or_default().to_str().map(str::to_string).ok_or_else(|| {
                fault(format!("expected class folders with names in UTF-8, found {}", class.display()))
            })?;
        let mut files = Vec::new();
        walk(&class, DEEPEST, &mut files, &mut ignored)?;
        files.sort_unstable_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
        names.extend(std::iter::repeat_n(name.clone(), files.len()));
        if all.iter().any(|other: &String| nfc(other) == nfc(&name)) {
            return Err(fault(format!(
                "expected one subfolder per class, found two with the name `{}` in Unicode NFC",
                nfc(&name)
            )));
        }
        all.push(name);
        samples.extend(
            files.into_iter().map(|path| Sample { name: path.display().to_string(), place: Place::File(path) }),
        );
    }
    if !skip_unreadable && let Some(first) = ignored.images.first() {
        return Err(fault(format!(
            "found {} images in formats that cannot be decoded, the first is {}: convert them (to \
             skip them, set data.skip_unreadable = true)",
            ignored.images.len(),
            first.display()
        )));
    }
    let notes = ignored.notes(root);
    Ok(Listing { path: root.to_path_buf(), samples, labels: by_name(names, all), parquet: vec![], notes })
}

/// Files that are not taken.
#[derive(Default)]
struct Ignored {
    /// Images that nothing here decodes.
    images: Vec<PathBuf>,
    others: Vec<PathBuf>,
}

impl Ignored {
    fn add(&mut self, path: PathBuf) {
        if is_unread_image(&path) { self.images.push(path) } else { self.others.push(path) }
    }

    fn notes(&self, root: &Path) -> Vec<String> {
        let note = |files: &[PathBuf], what: &str| {
            let first = files.first()?;
            Some(format!("{}: {} {what} were skipped, such as {}", root.display(), files.len(), first.display()))
        };
        note(&self.images, "images in formats that cannot be decoded")
            .into_iter()
            .chain(note(&self.others, "files in class folders that are not images"))
            .collect()
    }
}

/// What is in a folder, sorted, without hidden entries.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let files = source::of(folder);
    files.check(folder).map_err(io(folder))?;
    let mut paths = files.list(folder).map_err(io(folder))?;
    paths.retain(|path| !is_hidden(path));
    paths.sort_unstable_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(paths)
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>, ignored: &mut Ignored) -> Result<(), DataError> {
    if depth == 0 {
        return Err(DataError::Content {
            file: folder.display().to_string(),
            what: format!("expected at most {DEEPEST} folders within a class folder"),
        });
    }
    for path in entries(folder)? {
        if source::of(&path).is_folder(&path) {
            walk(&path, depth - 1, files, ignored)?;
        } else if is_image(&path) {
            files.push(path);
        } else {
            ignored.add(path);
        }
    }
    Ok(())
}
