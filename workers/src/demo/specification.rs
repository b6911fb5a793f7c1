//! `sweep.toml` of a zoo made here.

use std::path::Path;

/// The demo's.
pub const DEMO: &str = r#"# The demo's sweep: every method once. Batch, inner epochs and model batch suit a few hundred learn samples; they were chosen by select loss on
# zoos of other seeds.
name = "digits"

[zoo]
ingredients = ["zoo/*"]

[data]
learn = "data/learn.safetensors"
select = "data/select.safetensors"
test = "data/test.safetensors"

[soup]
model_batch = 7
batch = 32
inner_epochs = 15

[search]
strategy = "grid"
greedy_baseline = true

[search.space]
method = { choice = ["best", "uniform", "greedy", "learned", "learned+", "hl", "hl+", "mehl", "mehl+"] }
"#;

/// Where a sweep has its data from.
pub enum Sources {
    /// `data/*.safetensors`.
    Tensors,
    /// `data/*/`, folders of classes.
    Images {
        /// Side that images are resized to, where the ingredients do not say.
        size: Option<usize>,
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
    };
    // A quarter of the ingredients at once, as in the demo.
    let model_batch = ingredients.div_ceil(4).max(2).min(ingredients);
    format!(
        r#"# Every method once, with the values of the demo, which suit a few hundred learn samples.
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
inner_epochs = 15

[search]
strategy = "grid"
greedy_baseline = true

[search.space]
method = {{ choice = ["best", "uniform", "greedy", "learned", "learned+", "hl", "hl+", "mehl", "mehl+"] }}
"#
    )
}
