//! From a path of a specification to files: of one split, without a guess.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mehl_soup::source::{self, Head};
use mehl_soup::zoo::glob_paths;

use super::{SourceKind, ending, io, parquet};
use crate::data::DataError;

/// Words for the splits of a data set, as files are named after them, and the name that is used for each.
const SPLITS: [(&str, &str); 9] = [
    ("train", "train"),
    ("training", "train"),
    ("validation", "validation"),
    ("valid", "validation"),
    ("val", "validation"),
    ("dev", "validation"),
    ("test", "test"),
    ("testing", "test"),
    ("eval", "test"),
];

/// One split's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What they are.
    pub kind: SourceKind,
    /// As the specification names them.
    pub path: PathBuf,
    /// The files; for a folder of class folders, the folder.
    pub files: Vec<PathBuf>,
}

impl Source {
    /// Finds what a path names: a file, a folder, `FOLDER#SPLIT` for the Parquet files of one split, or a glob that matches one of these, or
    /// several Parquet files.
    ///
    /// # Errors
    /// If nothing is there, it cannot be read, or it could be several splits.
    pub fn find(path: &Path) -> Result<Self, DataError> {
        let files = source::of(path);
        files.check(path).map_err(io(path))?;
        if files.has(path) {
            return Self::of_place(path, path);
        }
        let text = path.to_string_lossy();
        if let Some((folder, split)) = text.rsplit_once('#')
            && files.is_folder(Path::new(folder))
        {
            return Self::of_split(path, Path::new(folder), split);
        }
        if !text.contains(['*', '?', '[']) {
            // It says in the system's words that nothing is there.
            files.head(path).map_err(io(path))?;
            return Self::of_place(path, path);
        }
        let fault = |what: String| DataError::Content { file: path.display().to_string(), what };
        let matches = glob_paths(&text, Path::new("/")).map_err(|error| fault(error.to_string()))?;
        match &matches[..] {
            [] => Err(fault("expected a file or folder, found no match".to_string())),
            [only] => Self::of_place(path, only),
            several => match several.iter().find(|file| ending(file) != "parquet" || !files.is_file(file)) {
                None => Ok(Self { kind: SourceKind::Parquet, path: path.to_path_buf(), files: matches }),
                Some(other) => Err(fault(format!(
                    "expected one file or folder, or only Parquet files, found {} matches, such as \
                     {}",
                    several.len(),
                    other.display()
                ))),
            },
        }
    }

    /// What is at a place that exists.
    fn of_place(path: &Path, place: &Path) -> Result<Self, DataError> {
        let found = |kind, files| Self { kind, path: path.to_path_buf(), files };
        if source::of(place).head(place).map_err(io(place))? != Head::Folder {
            let kind = match ending(place).as_str() {
                "csv" => SourceKind::Csv,
                "parquet" => SourceKind::Parquet,
                "jsonl" | "ndjson" => SourceKind::Jsonl,
                "tsv" => SourceKind::Tsv,
                _ => SourceKind::Tensors,
            };
            return Ok(found(kind, vec![place.to_path_buf()]));
        }
        let files = parquet::files(place)?;
        if files.is_empty() {
            return Ok(found(SourceKind::Folder, vec![place.to_path_buf()]));
        }
        let splits = by_split(&files);
        if splits.len() > 1 {
            let named = |(name, files): (&Option<String>, &Vec<PathBuf>)| {
                format!("{} of {}", files.len(), name.as_deref().unwrap_or("no named split"))
            };
            let all: Vec<String> = splits.iter().map(named).collect();
            let example = splits.keys().flatten().next().map_or("train", String::as_str);
            return Err(DataError::Content {
                file: path.display().to_string(),
                what: format!(
                    "expected Parquet files of one split, found {}: choose one with \
                     `{}#{example}`, or use a glob for its files",
                    all.join(", "),
                    place.display()
                ),
            });
        }
        Ok(found(SourceKind::Parquet, files))
    }

    fn of_split(path: &Path, folder: &Path, split: &str) -> Result<Self, DataError> {
        let splits = by_split(&parquet::files(folder)?);
        let wanted = SPLITS.iter().find(|(word, _)| *word == split).map_or(split, |(_, name)| *name);
        match splits.iter().find(|(name, _)| name.as_deref() == Some(wanted)) {
            Some((_, files)) => Ok(Self { kind: SourceKind::Parquet, path: path.to_path_buf(), files: files.clone() }),
            None => {
                let found: Vec<&str> = splits.keys().flatten().map(String::as_str).collect();
                let found = if found.is_empty() { "none".to_string() } else { found.join(", ") };
                Err(DataError::Content {
                    file: folder.display().to_string(),
                    what: format!("expected Parquet files of the split `{split}`, found splits: {found}"),
                })
            }
        }
    }
}

/// Files by the split that their names tell, if they do.
fn by_split(files: &[PathBuf]) -> BTreeMap<Option<String>, Vec<PathBuf>> {
    let mut splits: BTreeMap<Option<String>, Vec<PathBuf>> = BTreeMap::new();
    for file in files {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        splits.entry(split_of(&stem)).or_default().push(file.clone());
    }
    splits
}

/// The split in a file's name: a word for one at its beginning, else what is before the number of a shard.
fn split_of(stem: &str) -> Option<String> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    let base = stem
        .rsplit_once("-of-")
        .filter(|(_, count)| is_number(count))
        .and_then(|(before, _)| before.rsplit_once('-'))
        .filter(|(_, at)| is_number(at))
        .map(|(base, _)| base);
    let first = stem.split(['-', '_', '.']).next().unwrap_or_default().to_ascii_lowercase();
    let word = SPLITS.iter().find(|(word, _)| *word == first).map(|(_, name)| (*name).to_string());
    word.or_else(|| base.map(str::to_string))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(root.path().join(name), "").unwrap();
        }
        root
    }

    fn names(source: Result<Source, DataError>) -> Result<Vec<String>, String> {
        let name = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().to_string();
        source.map(|source| source.files.iter().map(name).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn splits_are_told_by_names() {
        for (stem, split) in [
            ("train-00000-of-00002", Some("train")),
            ("val_0", Some("validation")),
            ("test", Some("test")),
            ("Train.images", Some("train")),
            ("fold1-00000-of-00001", Some("fold1")),
            ("0001", None),
            ("pictures", None),
            ("trained", None),
        ] {
            assert_eq!(split_of(stem).as_deref(), split, "{stem}");
        }
    }

    #[test]
    fn a_folder_of_several_splits_is_refused_and_one_can_be_named() {
        let files = [
            "README.md",
            "test-00000-of-00001.parquet",
            "train-00000-of-00002.parquet",
            "train-00001-of-00002.parquet",
        ];
        let root = folder(&files);
        let fault = names(Source::find(root.path())).unwrap_err();
        assert!(fault.contains("1 of test, 2 of train") && fault.contains("#test`"), "{fault}");
        let named = |split: &str| names(Source::find(Path::new(&format!("{}#{split}", root.path().display()))));
        assert_eq!(named("train").unwrap(), files[2..]);
        assert_eq!(named("training").unwrap(), files[2..]);
        assert!(named("validation").unwrap_err().contains("found splits: test, train"));
        let one = folder(&["a.parquet", "b.parquet"]);
        assert_eq!(names(Source::find(one.path())).unwrap(), ["a.parquet", "b.parquet"]);
        let odd = folder(&["a.parquet", "train.parquet"]);
        assert!(names(Source::find(odd.path())).unwrap_err().contains("1 of no named split, 1 of train"));
    }

    #[test]
    fn a_glob_names_one_thing_or_parquet_files() {
        let root = folder(&["train-0.parquet", "train-1.parquet", "x.safetensors", "y.csv"]);
        let found = |pattern: &str| Source::find(&root.path().join(pattern));
        assert_eq!(names(found("train-*.parquet")).unwrap(), ["train-0.parquet", "train-1.parquet"]);
        assert_eq!(found("*.csv").unwrap().kind, SourceKind::Csv);
        assert!(names(found("*")).unwrap_err().contains("found 4 matches"));
        assert!(names(found("z*")).unwrap_err().contains("found no match"));
        assert!(matches!(found("absent"), Err(DataError::Io { .. })));
    }
}
