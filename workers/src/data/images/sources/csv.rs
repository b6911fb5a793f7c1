//! A CSV with a header, a column of paths and a column of labels.

use std::path::{Component, Path, PathBuf};

use super::{Columns, Labels, Listing, Place, Sample, by_name, io};
use crate::data::DataError;
use mehl_soup::untrusted;

const PATHS: [&str; 5] = ["path", "file", "filename", "file_name", "image"];
const LABELS: [&str; 3] = ["label", "class", "target"];

/// Lists a CSV in the order of its rows. Paths are relative to its folder, and must stay in it once links are followed.
pub(super) fn list(path: &Path, columns: &Columns<'_>) -> Result<Listing, DataError> {
    let fault = |what: String| DataError::Content { file: path.display().to_string(), what };
    let malformed = |error: csv::Error| fault(format!("not a CSV file: {error}"));
    let file = untrusted::open(path).map_err(io(path))?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(std::io::BufReader::new(file));
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
    let root = folder.canonicalize().map_err(io(folder))?;
    let (mut samples, mut labels) = (Vec::new(), Vec::new());
    for record in reader.into_records() {
        let record = record.map_err(malformed)?;
        let line = record.position().map_or(0, csv::Position::line);
        // The reader refuses records of another length than the header's.
        let (name, label) = (&record[path_column], &record[label_column]);
        if name.is_empty() || label.is_empty() {
            return Err(fault(format!("line {line}: expected a path and a label, found `{name}` and `{label}`")));
        }
        let image = inside(&root, name).ok_or_else(|| {
            fault(format!(
                "line {line}: expected a path within {}, found `{name}`, which points outside",
                root.display()
            ))
        })?;
        samples.push(Sample { name: folder.join(name).display().to_string(), place: Place::File(image) });
        labels.push((line, label.to_string()));
    }
    let numbers: Option<Vec<i64>> = labels.iter().map(|(_, label)| label.parse().ok()).collect();
    if let Some(numbers) = &numbers
        && let Some(at) = numbers.iter().position(|&number| number < 0)
    {
        return Err(fault(format!("line {}: expected a class from 0, found {}", labels[at].0, numbers[at])));
    }
    let labels = match numbers {
        Some(of) => Labels::Indices { of, names: None },
        None => by_name(labels.into_iter().map(|(_, label)| label).collect(), []),
    };
    Ok(Listing { path: path.to_path_buf(), samples, labels, parquet: vec![], notes: vec![] })
}

/// Where a row's path leads, if that is within `root`. A file that does not exist is inside if its path says so: reading it will fail, and say why.
fn inside(root: &Path, name: &str) -> Option<PathBuf> {
    let joined = root.join(name);
    match joined.canonicalize() {
        Ok(real) => real.starts_with(root).then_some(real),
        Err(_) => {
            let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
            Path::new(name).components().all(plain).then_some(joined)
        }
    }
}
