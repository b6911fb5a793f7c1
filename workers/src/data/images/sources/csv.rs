//! A CSV with a header, a column of paths and a column of labels.

use std::io::BufReader;
use std::path::{Component, Path, PathBuf};

use super::{Columns, Listing, Place, Sample, by_text, io, whole_number};
use crate::data::DataError;
use mehl_soup::source::{self, Blob, BlobReader};

const PATHS: [&str; 5] = ["path", "file", "filename", "file_name", "image"];
const LABELS: [&str; 3] = ["label", "class", "target"];

/// Lists a CSV in the order of its rows. Paths are relative to its folder, and must stay in it once links are followed.
pub(super) fn list(path: &Path, columns: &Columns<'_>) -> Result<Listing, DataError> {
    let fault = |what: String| DataError::Content { file: path.display().to_string(), what };
    let files = source::of(path);
    let file = files.open(path).map_err(io(path))?;
    let again = &*file;
    let malformed = |error: csv::Error| fault(described(&error, again));
    let text = BufReader::new(BlobReader::new(file.clone(), 0));
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text);
    let header = reader.headers().map_err(malformed)?.clone();
    let column = |stated: Option<&str>, usual: &[&str], what: &str| {
        // A byte order mark belongs to no name.
        let names: Vec<String> =
            header.iter().map(|name| name.trim_start_matches('\u{feff}').to_ascii_lowercase()).collect();
        let wanted: Vec<String> = match stated {
            Some(name) => vec![name.to_ascii_lowercase()],
            None => usual.iter().map(ToString::to_string).collect(),
        };
        wanted.iter().find_map(|name| names.iter().position(|found| found == name)).ok_or_else(|| {
            let found: Vec<&str> = header.iter().collect();
            fault(format!("expected a column of {what} named {}, found only {}", wanted.join(" or "), found.join(", ")))
        })
    };
    let (path_column, label_column) =
        (column(columns.image, &PATHS, "paths")?, column(columns.label, &LABELS, "labels")?);
    let folder = mehl_soup::files::parent_of(path);
    let root = files.canonical(folder).map_err(io(folder))?;
    let (mut samples, mut labels) = (Vec::new(), Vec::new());
    for record in reader.into_records() {
        let record = record.map_err(malformed)?;
        let line = || record.position().map_or(0, |position| line_at(position, again));
        // The reader refuses records of another length than the header's.
        let (name, label) = (&record[path_column], &record[label_column]);
        if name.is_empty() || label.is_empty() {
            return Err(fault(format!("line {}: expected a path and a label, found `{name}` and `{label}`", line())));
        }
        let image = inside(&root, name).ok_or_else(|| {
            fault(format!(
                "line {}: expected a path within {}, found `{name}`, which points outside",
                line(),
                root.display()
            ))
        })?;
        samples.push(Sample { name: folder.join(name).display().to_string(), place: Place::File(image) });
        labels.push((record.position().cloned(), label.to_string()));
    }
    let numbers: Option<Vec<i64>> = labels.iter().map(|(_, label)| whole_number(label)).collect();
    if let Some(numbers) = &numbers
        && let Some(at) = numbers.iter().position(|&number| number < 0)
    {
        let line = labels[at].0.as_ref().map_or(0, |position| line_at(position, again));
        return Err(fault(format!("line {line}: expected a class from 0, found {}", numbers[at])));
    }
    let labels = by_text(labels.into_iter().map(|(_, label)| label).collect());
    Ok(Listing { path: path.to_path_buf(), samples, labels, parquet: vec![], notes: vec![] })
}

/// The line that a record begins on. Where lines end in CR LF, the reader counts the LF to the record after it.
fn line_at(position: &csv::Position, file: &dyn Blob) -> u64 {
    let mut byte = [0];
    let is_end = file.read_exact_at(&mut byte, position.byte()).is_ok() && byte == *b"\n";
    position.line() + u64::from(is_end)
}

fn described(error: &csv::Error, file: &dyn Blob) -> String {
    let line = error.position().map(|position| format!("line {}: ", line_at(position, file))).unwrap_or_default();
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{line}expected {expected_len} columns as in the header, found {len}")
        }
        csv::ErrorKind::Utf8 { .. } => format!("{line}expected text in UTF-8, found other bytes"),
        _ => format!("not a CSV file: {error}"),
    }
}

/// Where a row's path leads, if that is within `root`. A file that does not exist is inside if its path says so: reading it will fail, and say why.
fn inside(root: &Path, name: &str) -> Option<PathBuf> {
    let joined = root.join(name);
    match source::of(&joined).canonical(&joined) {
        Ok(real) => real.starts_with(root).then_some(real),
        Err(_) => {
            let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
            Path::new(name).components().all(plain).then_some(joined)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.csv");
        std::fs::write(&path, text).unwrap();
        let columns = Columns { image: None, label: None, skip_unreadable: false };
        list(&path, &columns).unwrap_err().to_string().rsplit_once("x.csv: ").unwrap().1.to_string()
    }

    #[test]
    fn lines_are_counted_as_an_editor_does_whatever_they_end_in() {
        for (text, line) in [
            ("path,label\na.png,1\nb.png,\n", 3),
            ("path,label\n\"a\nb.png\",1\nb.png,-1\n", 4),
            ("path,label\na.png,-1\n", 2),
            ("path,label\na.png,1\n../b.png,1\n", 3),
            ("path,label\na.png,1\nb.png,1,x\n", 3),
        ] {
            for text in [text.to_string(), text.replace('\n', "\r\n")] {
                let told = fault(&text);
                assert!(told.starts_with(&format!("line {line}: ")), "{told} for {text:?}");
            }
        }
    }
}
