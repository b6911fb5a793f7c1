//! `sweep.toml` of a zoo made here.

use std::path::Path;

/// Inner epochs of the demo's sweep.
const EPOCHS: usize = 15;

/// Where a sweep has its data from.
pub enum Sources {
    /// `data/*.safetensors`.
    Tensors,
    /// `data/*/`, folders of classes.
    Images {
        /// Side that images are resized to, where the ingredients do not say.
        size: Option<usize>,
    },
    /// `data/*.jsonl`.
    Texts {
        /// Most tokens of a text.
        longest: usize,
    },
}

/// That of a zoo in `folder`: every method once, with the demo's values.
pub fn of_zoo(folder: &Path, ingredients: usize, sources: &Sources) -> String {
    let name = folder.file_name().map_or("zoo".into(), |name| name.to_string_lossy());
    // A string of JSON is one of TOML too.
    let name = serde_json::Value::from(name);
    let (ending, image) = match sources {
        Sources::Tensors => (".safetensors", String::new()),
        Sources::Images { size: None } => ("", String::new()),
        Sources::Images { size: Some(size) } => ("", format!("image.size = {size}\n")),
        Sources::Texts { longest } => (".jsonl", format!("text.max_length = {longest}\n")),
    };
    // A quarter of the ingredients at once, as in the demo.
    let model_batch = ingredients.div_ceil(4).max(2).min(ingredients);
    let (comment, epochs) = match sources {
        // An encoder of a user is large: an epoch of it costs what one of fine-tuning does.
        Sources::Texts { .. } => ("# Every method once, with few epochs.", 3),
        Sources::Tensors | Sources::Images { .. } => {
            ("# Every method once, with the values of the demo, which suit a few hundred learn samples.", EPOCHS)
        }
    };
    text(comment, &name.to_string(), ending, &image, model_batch, epochs)
}

/// The demo's.
pub fn of_demo() -> String {
    let comment = "# The demo's sweep: every method once. Batch, inner epochs and model batch suit a few hundred learn samples; they were chosen by select loss on\n\
                   # zoos of other seeds.";
    text(comment, "\"digits\"", ".safetensors", "", 7, EPOCHS)
}

/// `name` in quotes; `image` whole lines of `[data]`, or nothing.
fn text(comment: &str, name: &str, ending: &str, image: &str, model_batch: usize, epochs: usize) -> String {
    format!(
        r#"{comment}
name = {name}

[zoo]
ingredients = ["zoo/*"]

[data]
learn = "data/learn{ending}"
select = "data/select{ending}"
test = "data/test{ending}"
{image}
[soup]
model_batch = {model_batch}
batch = 32
inner_epochs = {epochs}

[search]
strategy = "grid"
greedy_baseline = true

[search.space]
method = {{ choice = ["best", "uniform", "greedy", "learned", "learned+", "hl", "hl+", "mehl", "mehl+", "steady"] }}
"#
    )
}
