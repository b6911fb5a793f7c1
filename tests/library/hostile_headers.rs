//! Every malformation of a safetensors header ends in an error that names the file and says what was expected and found.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::{blob, counter, entry, floats, raw};
use mehl_soup::untrusted::{LARGEST_HEADER, LONGEST_TENSOR_NAME, MOST_DIMENSIONS, MOST_TENSORS};
use mehl_soup::zoo::{Ingredient, Zoo, ZooError};

struct Place {
    _root: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("hostile.safetensors");
        Self { _root: root, path }
    }

    /// What opening a file of these bytes says; the file must be named.
    fn refusal(&self, bytes: &[u8]) -> String {
        fs::write(&self.path, bytes).unwrap();
        self.refusal_as_is()
    }

    fn refusal_as_is(&self) -> String {
        let begin = Instant::now();
        let error = Ingredient::open(&self.path).unwrap_err();
        assert!(begin.elapsed() < Duration::from_secs(20), "refused after {:?}", begin.elapsed());
        assert!(matches!(&error, ZooError::Malformed { file, .. } if *file == self.path), "{error}");
        let text = error.to_string();
        assert!(text.contains("hostile.safetensors"), "{text}");
        assert!(text.len() < 4096, "a message of {} bytes", text.len());
        text
    }

    fn refuses(&self, bytes: &[u8], part: &str) {
        let text = self.refusal(bytes);
        assert!(text.contains(part), "expected `{part}` in: {text}");
    }

    fn opens(&self, bytes: &[u8]) -> Ingredient {
        fs::write(&self.path, bytes).unwrap();
        Ingredient::open(&self.path).unwrap()
    }
}

fn one(entry: &str, data: usize) -> Vec<u8> {
    raw(format!("{{{entry}}}"), data)
}

#[test]
fn a_file_of_no_bytes() {
    Place::new().refuses(b"", "expected at least 8 bytes, found 0");
}

#[test]
fn a_header_of_no_bytes() {
    Place::new().refuses(&raw("", 16), "not a safetensors file, or damaged");
}

#[test]
fn a_header_longer_than_the_file() {
    let place = Place::new();
    place.refuses(&9u64.to_le_bytes(), "expected a header of 9 bytes, found 0 in all");
    place.refuses(&u64::MAX.to_le_bytes(), "expected a header of 18446744073709551615 bytes");
    let mut file = one(&entry("a", "[4]", 0, 4), 4);
    file[0] += 5;
    place.refusal(&file);
}

#[test]
fn a_header_above_the_limit_is_not_read() {
    let place = Place::new();
    let mut file = File::create(&place.path).unwrap();
    file.write_all(&(LARGEST_HEADER + 1).to_le_bytes()).unwrap();
    // Sparse: as long as it says, and not on the disk.
    file.set_len(1 << 30).unwrap();
    let text = place.refusal_as_is();
    assert!(text.contains("expected a header of at most 100000000 bytes, found one of 100000001"), "{text}");
}

#[test]
fn a_header_that_is_no_json_or_no_map() {
    let place = Place::new();
    for header in ["nonsense", "[]", "3", "null", "\"a\"", "{", "{}}", "{} trailing", "{\"a\":}"] {
        place.refuses(&raw(header, 0), "not a safetensors file, or damaged");
    }
    place.refuses(&raw([0u8; 64], 0), "not a safetensors file, or damaged");
    place.refuses(b"PK\x03\x04 a zip file, as pickled checkpoints are", "not a safetensors file");
}

#[test]
fn a_tensor_with_a_key_that_the_format_does_not_know() {
    let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"other":9e999}}"#;
    Place::new().refuses(&raw(header, 1), "tensor `a`: unknown field `other`");
}

#[test]
fn bytes_after_the_last_tensor() {
    Place::new().refuses(&one(&entry("a", "[4]", 0, 4), 5), "expected 4 bytes of tensors, found 5");
}

#[test]
fn offsets_out_of_bounds() {
    let place = Place::new();
    place.refuses(
        &one(&entry("a", "[8]", 0, 8), 4),
        "tensor `a`: truncated or damaged: expected it to end at byte 8, found only 4 bytes of data",
    );
    place.refuses(&one(&entry("a", "[0]", 4, 0), 4), "tensor `a`: expected it to begin at byte 0, found 4");
    place.refuses(&one(&entry("a", "[4]", u64::MAX - 3, u64::MAX), 4), "tensor `a`: expected it to begin at byte 0");
    let backwards = format!("{},{}", entry("a", "[3]", 0, 3), entry("b", "[1]", 3, 2));
    place.refuses(&one(&backwards, 3), "tensor `b`: expected it to end at byte 3 or later, found 2");
}

#[test]
fn offsets_that_overlap_or_leave_a_gap() {
    let place = Place::new();
    let two =
        |b: (u64, u64)| format!("{},{}", entry("a", "[3]", 0, 3), entry("b", &format!("[{}]", b.1 - b.0), b.0, b.1));
    place.refuses(&one(&two((1, 4)), 4), "tensor `b`: expected it to begin at byte 3, found 1: it overlaps");
    place.refuses(&one(&two((0, 3)), 3), "overlaps another tensor");
    place.refuses(&one(&two((4, 6)), 6), "tensor `b`: expected it to begin at byte 3, found 4: it leaves a gap");
}

#[test]
fn offsets_whose_sum_wraps_around() {
    // Nine tensors that end just below 2^64: with the header's own length the sum would come round to the file's.
    let part = (1u64 << 61) - 1;
    let mut entries: Vec<String> =
        (0..8).map(|i| entry(&format!("t{i}"), &format!("[{part}]"), i * part, (i + 1) * part)).collect();
    entries.push(entry("t8", "[7]", 8 * part, 8 * part + 7));
    Place::new().refuses(&one(&entries.join(","), 0), "tensor `t0`: truncated or damaged: expected it to end");
}

#[test]
fn unsorted_entries_are_no_fault() {
    let place = Place::new();
    let unsorted = format!("{},{}", entry("a", "[2]", 2, 4), entry("b", "[2]", 0, 2));
    assert_eq!(place.opens(&one(&unsorted, 4)).tensor_names().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn names_given_twice() {
    let place = Place::new();
    let a = entry("a", "[2]", 0, 2);
    place.refuses(&one(&format!("{a},{}", entry("a", "[2]", 2, 4)), 4), "`a`: expected once, found twice");
    // Identical, empty, and spelled differently: none of them may pass for one.
    place.refuses(&one(&format!("{a},{a}"), 2), "`a`: expected once, found twice");
    let empty = entry("e", "[0]", 0, 0);
    place.refuses(&one(&format!("{empty},{empty},{a}"), 2), "`e`: expected once, found twice");
    place.refuses(&one(&format!("{a},{}", entry("\\u0061", "[2]", 2, 4)), 4), "`a`: expected once, found twice");
    let twice = r#""__metadata__":{},"__metadata__":{"x":"y"}"#;
    place.refuses(&one(&format!("{twice},{a}"), 2), "`__metadata__`: expected once, found twice");
    let field = r#""a":{"dtype":"U8","dtype":"I8","shape":[2],"data_offsets":[0,2]}"#;
    place.refuses(&one(field, 2), "duplicate field");
}

#[test]
fn shapes_that_do_not_fit_or_cannot_be() {
    let place = Place::new();
    place.refuses(&one(&entry("a", "[3]", 0, 4), 4), "tensor `a`: expected 3 bytes for shape [3] of U8, found 4");
    for shape in ["[4294967296,4294967296,16]", "[18446744073709551615,2]"] {
        place.refuses(&one(&entry("a", shape, 0, 4), 4), "has too many elements");
    }
    // As elements they are countable, as bits no more.
    place.refuses(&one(&entry("a", "[9223372036854775807]", 0, 4), 4), "has too many elements");
    for shape in ["[-1]", "[1.5]", "[1e3]", "[NaN]", "[18446744073709551616]", "\"4\"", "4", "null", "[[4]]", "{}"] {
        place.refuses(&one(&entry("a", shape, 0, 4), 4), "tensor `a`");
    }
    let deep = vec!["1"; MOST_DIMENSIONS + 1].join(",");
    place.refuses(&one(&entry("a", &format!("[{deep}]"), 0, 1), 1), "expected at most 64 dimensions, found 65");
}

#[test]
fn numbers_that_are_none() {
    let place = Place::new();
    for offsets in ["[0,NaN]", "[0,Infinity]", "[0,4.0]", "[-0.5,4]", "[0]", "[0,4,8]", "null", "\"0,4\""] {
        let text = format!(r#""a":{{"dtype":"U8","shape":[4],"data_offsets":{offsets}}}"#);
        place.refusal(&one(&text, 4));
    }
}

#[test]
fn dtypes_that_are_unknown_or_no_whole_bytes() {
    let place = Place::new();
    let of = |dtype: &str, elements: usize, bytes: usize| {
        one(&format!(r#""a":{{"dtype":{dtype},"shape":[{elements}],"data_offsets":[0,{bytes}]}}"#), bytes)
    };
    for dtype in ["\"F99\"", "\"f32\"", "\"\"", "32", "null"] {
        place.refuses(&of(dtype, 1, 4), "tensor `a`");
    }
    // Four bits an element: an odd number of them is no number of bytes.
    place.refuses(&of("\"F4\"", 3, 1), "expected whole bytes, found 12 bits");
    place.refuses(&of("\"F4\"", 2, 2), "expected 1 bytes for shape [2]");
}

#[test]
fn tensors_of_less_than_a_byte_an_element_are_hashed_and_never_mixed() {
    let place = Place::new();
    let four_bits = r#""a":{"dtype":"F4","shape":[6],"data_offsets":[0,3]}"#;
    let ingredient = place.opens(&one(four_bits, 3));
    assert_eq!((ingredient.bytes("a").unwrap(), ingredient.info("a").unwrap().numel()), (vec![0; 3], 6));
    assert!(matches!(ingredient.read("a", &mut [0f32; 6]), Err(ZooError::WrongDtype { .. })));
    Zoo::open(std::slice::from_ref(&place.path)).unwrap().hash(None, &mut |_, _| {}).unwrap();
}

#[test]
fn tensors_of_no_elements_are_read_as_that() {
    let place = Place::new();
    let empty = [
        floats("e", safetensors::Dtype::F32, &[0, 1 << 40], &[]),
        floats("f", safetensors::Dtype::F16, &[0], &[]),
        counter("n", 1),
    ];
    let ingredient = place.opens(&blob(&empty));
    ingredient.read("e", &mut [0f64; 0]).unwrap();
    assert_eq!(ingredient.bytes("f").unwrap(), b"");
    Zoo::open(std::slice::from_ref(&place.path)).unwrap().hash(None, &mut |_, _| {}).unwrap();
    // Zero elements however large the others are: overflow before the zero is refused, after it is not.
    place.refuses(&one(&entry("a", "[18446744073709551615,2,0]", 0, 0), 0), "has too many elements");
}

#[test]
fn names_that_are_not_utf_8() {
    let mut header = format!("{{{}}}", entry("aXb", "[1]", 0, 1)).into_bytes();
    let at = header.iter().position(|&b| b == b'X').unwrap();
    header[at] = 0xff;
    Place::new().refuses(&raw(header, 1), "not a safetensors file, or damaged");
    // A lone surrogate has no UTF-8 either.
    Place::new().refuses(&one(&entry("\\ud800", "[1]", 0, 1), 1), "not a safetensors file, or damaged");
}

#[test]
fn names_with_control_characters() {
    let place = Place::new();
    for (name, shown) in
        [("a\\u0000b", "a\\0b"), ("\\u001b[2J", "\\u{1b}[2J"), ("a\\nb", "a\\nb"), ("\\u009b", "\\u{9b}")]
    {
        let text = place.refusal(&one(&entry(name, "[1]", 0, 1), 1));
        assert!(text.contains(&format!("`{shown}`: expected a name without control characters")), "{text}");
    }
}

#[test]
fn names_that_look_like_paths_are_names() {
    let names = ["../../etc/passwd", "/dev/null", "a/b", "..", "."];
    let entries: Vec<String> =
        names.iter().enumerate().map(|(i, name)| entry(name, "[1]", i as u64, i as u64 + 1)).collect();
    let place = Place::new();
    let ingredient = place.opens(&one(&entries.join(","), names.len()));
    assert_eq!(ingredient.tensor_names().count(), names.len());
    assert_eq!(ingredient.bytes("../../etc/passwd").unwrap(), [0]);
}

#[test]
fn names_of_a_megabyte() {
    let place = Place::new();
    let text = place.refusal(&one(&entry(&"n".repeat(1 << 20), "[1]", 0, 1), 1));
    assert!(text.contains("expected a name of at most 1024 bytes, found 1048576"), "{text}");
    place.opens(&one(&entry(&"n".repeat(LONGEST_TENSOR_NAME), "[1]", 0, 1), 1));
}

#[test]
fn metadata_that_are_not_texts() {
    let place = Place::new();
    let a = entry("a", "[1]", 0, 1);
    for metadata in ["{\"format\":1}", "{\"x\":{\"y\":\"z\"}}", "[]", "\"pt\"", "{\"x\":[]}"] {
        place.refuses(&one(&format!("\"__metadata__\":{metadata},{a}"), 1), "not a safetensors file, or damaged");
    }
    for metadata in ["{\"format\":\"pt\"}", "{}", "null"] {
        place.opens(&one(&format!("\"__metadata__\":{metadata},{a}"), 1));
    }
}

#[test]
fn deep_json() {
    let place = Place::new();
    let deep = 1_000_000;
    place.refusal(&raw("[".repeat(deep), 0));
    place.refusal(&raw("{\"a\":".repeat(deep), 0));
    place.refusal(&one(&format!("\"__metadata__\":{}", "{\"x\":".repeat(deep)), 0));
    place.refusal(&one(&entry("a", &"[".repeat(deep), 0, 0), 0));
    // A key that nobody knows is refused before its value is looked at.
    let unknown = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
    let text = format!(r#""a":{{"x":{unknown},"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#);
    place.refuses(&one(&text, 1), "tensor `a`: unknown field `x`");
}

#[test]
fn more_tensors_than_there_are_in_any_model() {
    let place = Place::new();
    let mut header = String::from("{");
    for i in 0..=MOST_TENSORS {
        header += &format!("{}{}", if i == 0 { "" } else { "," }, entry(&i.to_string(), "[0]", 0, 0));
    }
    header.push('}');
    place.refuses(&raw(&header, 0), "expected at most 500000 tensors, found more");
    // What is allowed is also done in time.
    let begin = Instant::now();
    let fewer: Vec<String> = (0..100_000).map(|i| entry(&i.to_string(), "[1]", i, i + 1)).collect();
    assert_eq!(place.opens(&one(&fewer.join(","), 100_000)).tensor_names().count(), 100_000);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}
