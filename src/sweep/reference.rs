//! Every key of a specification: what it takes, its default, and what it means. From this come the table of
//! `docs/specification.md` and the JSON Schema `docs/sweep.schema.json`, by which editors complete a specification.
//! A test compares it with what the reader asks for.

use serde_json::{Map, Value, json};

use super::image_spec::Interpolation;
use super::metric::Metric;
use super::objective::ObjectiveName;
use super::spec::{Family, MethodName};

/// One key.
pub struct Key {
    /// `section.key`, or `key` at the top.
    pub path: &'static str,
    /// JSON Schema of its value.
    pub schema: Value,
    /// Default value in words; empty if there is none.
    pub default: &'static str,
    /// What it means, in Markdown.
    pub meaning: &'static str,
}

/// Every key, in the order of the documentation.
pub fn keys() -> Vec<Key> {
    let key = |path, schema, default, meaning| Key { path, schema, default, meaning };
    let text = || json!({ "type": "string", "minLength": 1 });
    let texts = || json!({ "anyOf": [text(), { "type": "array", "items": text(), "minItems": 1 }] });
    let flag = || json!({ "type": "boolean" });
    let count = || json!({ "type": "integer", "minimum": 1, "maximum": 1_000_000 });
    let seed = || json!({ "type": "integer", "minimum": 0 });
    let above_0 = || json!({ "type": "number", "exclusiveMinimum": 0 });
    let word = |words: &[&str]| json!({ "enum": words });
    let auto_or = |schema: Value| json!({ "anyOf": [{ "const": "auto" }, schema] });
    let size = || json!({ "type": ["integer", "string"] });
    let side = || json!({ "type": "integer", "minimum": 1, "maximum": 16_384 });
    let extent = || json!({ "anyOf": [side(), { "type": "array", "items": side(), "minItems": 2, "maxItems": 2 }] });
    let channels = || {
        let several = json!({ "type": "array", "items": { "type": "number" }, "minItems": 1, "maxItems": 3 });
        json!({ "anyOf": [{ "type": "number" }, several] })
    };
    let families: Vec<&str> = std::iter::once("auto").chain(Family::NAMED.iter().map(|(name, _)| *name)).collect();
    let objectives: Vec<&str> =
        std::iter::once("auto").chain(ObjectiveName::NAMED.iter().map(|(name, _)| *name)).collect();
    let metrics: Vec<&str> = Metric::all().map(Metric::name).collect();
    let methods = MethodName::ALL.map(MethodName::as_str);
    let interpolations = Interpolation::NAMED.map(|(name, _)| name);
    vec![
        key("name", text(), "the file's name", "name of the sweep"),
        key("seed", seed(), "0", "decides what is set aside for select, the samples of the search, and `soup.seed`"),
        key(
            "zoo.ingredients",
            texts(),
            "required",
            "files, folders or globs; ingredients are in the order of the sorted paths",
        ),
        key("zoo.family", word(&families), "`auto`", "family of the model ([families.md](families.md))"),
        key(
            "zoo.base",
            text(),
            "",
            "the model that the ingredients were fine-tuned from: one more row of soups on the hyperplane, and the baseline `model-stock` ([methods.md](methods.md#the-base))",
        ),
        key("zoo.heads", count(), "from the files", "attention heads, if the files do not say"),
        key(
            "zoo.activation",
            text(),
            "from the files",
            "activation function, by its name in Hugging Face configurations, if the files do not say",
        ),
        key(
            "zoo.architecture",
            text(),
            "",
            "folder that `python -m mehl_soup export` made, or file of a module saved by `torch.jit`; the family is then `torchscript`",
        ),
        key(
            "zoo.duplicates",
            word(&["once", "keep"]),
            "`once`",
            "whether ingredients with equal contents count once, or each time (`keep`)",
        ),
        key("zoo.allow_chance", flag(), "false", "continue if no ingredient is better than guessing"),
        key("zoo.top", count(), "all", "use only the best n ingredients by select"),
        key(
            "data.learn",
            text(),
            "required",
            "data that coefficients are learned on: a folder of images, CSV, Parquet (`FOLDER#train` for one split, or a glob), or a tensor file",
        ),
        key(
            "data.select",
            text(),
            "a part of `learn`",
            "data for early stopping, ranking and the choice of the winner",
        ),
        key("data.test", text(), "", "data that is only reported"),
        key(
            "data.inputs",
            texts(),
            "`[\"inputs\"]`",
            "names of the input tensors, in the order in which the model takes them",
        ),
        key("data.labels", text(), "`\"labels\"`", "name of the label tensor"),
        key(
            "data.select_fraction",
            json!({ "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1 }),
            "0.3",
            "part of `learn` that is set aside without `data.select`",
        ),
        key(
            "data.metric",
            word(&metrics),
            "`loss`",
            "what ranks tasks and decides early stopping: the loss, or a metric of the objective ([objectives.md](objectives.md))",
        ),
        key(
            "data.objective",
            word(&objectives),
            "`auto`",
            "what coefficients are learned for, and what targets and outputs mean. `auto`: what `config.json` of the ingredients says ([objectives.md](objectives.md))",
        ),
        key("data.scale", above_0(), "20", "with objective `pairs`: factor on the cosines of two embeddings"),
        key(
            "data.classes",
            texts(),
            "from the ingredients",
            "names of the classes, in the order of the model's outputs ([images.md](images.md))",
        ),
        key(
            "data.skip_unreadable",
            flag(),
            "false",
            "leave out images and rows that cannot be read, instead of failing",
        ),
        key("data.allow_missing_classes", flag(), "false", "allow a split that lacks classes of another split"),
        key(
            "data.text.columns",
            texts(),
            "columns of usual names",
            "columns of the texts of a sample, in their order ([text.md](text.md))",
        ),
        key(
            "data.text.max_length",
            json!({ "type": "integer", "minimum": 1, "maximum": 1 << 20 }),
            "from the ingredients",
            "most tokens of a sample; longer ones are truncated and counted",
        ),
        key(
            "data.text.truncate",
            word(&["left", "right"]),
            "from the ingredients",
            "the end that tokens are removed from",
        ),
        key(
            "data.image.size",
            extent(),
            "from the ingredients",
            "size of the model's input in pixels: a side, or `[height, width]`",
        ),
        key(
            "data.image.resize",
            extent(),
            "from the ingredients",
            "size before the crop: the shorter side, or exactly `[height, width]`",
        ),
        key("data.image.crop", extent(), "from the ingredients", "size of the part that is cut from the middle"),
        key("data.image.interpolation", word(&interpolations), "from the ingredients", "how images are resized"),
        key(
            "data.image.mean",
            channels(),
            "from the ingredients",
            "mean of each channel, of values in [0, 1]; one number for all, or three",
        ),
        key("data.image.std", channels(), "from the ingredients", "standard deviation of each channel, above 0"),
        key("data.image.orientation", flag(), "true", "turn images as their EXIF data say"),
        key(
            "data.image.max_pixels",
            json!({ "type": "integer", "minimum": 1 }),
            "100,000,000",
            "largest image, in pixels before it is resized",
        ),
        key("soup.method", word(&methods), "`steady`", "[methods.md](methods.md)"),
        key(
            "soup.layer_groups",
            word(&["tensor", "block", "model"]),
            "from the method",
            "what shares a coefficient: a tensor (default) or a transformer block for `steady` and methods with a plus sign, the model for others",
        ),
        key(
            "soup.model_batch",
            auto_or(count()),
            "`auto`",
            "ingredients in memory at once, b; `auto`: as many as memory allows",
        ),
        key(
            "soup.direction_dtype",
            word(&["auto", "f32", "bf16", "int8", "int4"]),
            "`auto`",
            "how directions are stored: 4, 2, 1.03 or 0.53 bytes a value. They steer the search only; soups and scores are mixed from the files ([speed.md](speed.md))",
        ),
        key(
            "soup.inner_epochs",
            count(),
            "5; `steady` 12",
            "passes over learn for each model batch. Use more with a few hundred samples",
        ),
        key("soup.outer_epochs", count(), "1", "passes over the ingredients"),
        key(
            "soup.batch",
            count(),
            "128; `steady` 32",
            "samples of learn in an iteration. Use fewer with a few hundred samples",
        ),
        key(
            "soup.learning_rate",
            above_0(),
            "0.01; `learned` 0.05, `steady` 0.02",
            "peak learning rate of AdamW on the coefficients",
        ),
        key(
            "soup.weight_decay",
            json!({ "type": "number", "minimum": 0 }),
            "0",
            "decoupled weight decay of the coefficients; not with `steady`",
        ),
        key(
            "soup.shrink",
            json!({ "anyOf": [{ "const": "model" }, { "type": "number", "minimum": 0 }] }),
            "20",
            "with `steady`: how strongly the coefficients of an ingredient are held together; `\"model\"`: one coefficient for an ingredient",
        ),
        key(
            "soup.average",
            json!({ "type": "number", "minimum": 0, "exclusiveMaximum": 1 }),
            "0.97",
            "with `steady`: decay of the mean of the iterates, which is the result; 0 takes the last iterate",
        ),
        key(
            "soup.warmup",
            json!({ "type": "number", "minimum": 0, "maximum": 1 }),
            "0.2",
            "part of the steps over which the learning rate rises",
        ),
        key("soup.gradient_clip", above_0(), "1", "largest global norm of the model's gradient"),
        key(
            "soup.init",
            word(&["auto", "batch-mean", "uniform", "best", "greedy"]),
            "`auto`",
            "where methods on the hyperplane start. `batch-mean` is the mean of the first model batch, as published. `auto` is `batch-mean`, or `greedy` if that mean's loss on select is twice the best ingredient's and, unless it is a squared error, 0.1 above it ([experiment 5](experiments.md#5-robustness))",
        ),
        key("soup.early_stopping", flag(), "true", "end a model batch with its best coefficients by select"),
        key("soup.patience", count(), "3", "inner epochs without improvement after which a model batch ends"),
        key("soup.seed", seed(), "`seed`", "seed of model batches and data order"),
        key(
            "search.strategy",
            word(&["grid", "random", "asha"]),
            "`grid`",
            "how tasks are drawn ([search.md](search.md)). `asha` ends tasks early that fall behind",
        ),
        key("search.tasks", count(), "", "number of samples, required with `random` and `asha`"),
        key(
            "search.eta",
            json!({ "type": "integer", "minimum": 2 }),
            "3",
            "with `asha`: of n tasks at a rung, floor(n / eta) continue",
        ),
        key("search.grace", count(), "1", "with `asha`: epochs of the first rung"),
        key(
            "search.space",
            json!({ "type": "object" }),
            "",
            "fields of `[soup]`, or `zoo.top`, with their values: a list, or a distribution such as `{ log_uniform = [a, b] }` ([search.md](search.md))",
        ),
        key(
            "search.points",
            json!({ "type": "array", "items": { "type": "object" } }),
            "",
            "list of tables: tasks that run first",
        ),
        key("search.greedy_baseline", flag(), "false", "compute `greedy`, in addition to `best` and `uniform`"),
        key(
            "search.max_seconds",
            above_0(),
            "",
            "start nothing new after so many seconds; unfinished tasks keep their checkpoints",
        ),
        key(
            "compute.devices",
            texts(),
            "`[\"cpu\"]`",
            "one task at a time on each: `cpu`, `cuda`, `cuda:1`; `[\"cpu\", \"cpu\"]` runs two at once ([gpu.md](gpu.md))",
        ),
        key(
            "compute.threads",
            json!({ "type": "integer", "minimum": 1, "maximum": 4096 }),
            "cores / devices",
            "CPU threads of a device. Bits depend on it",
        ),
        key(
            "compute.dtype",
            word(&["auto", "f32", "bf16", "f64"]),
            "`auto`",
            "dtype of forward and backward passes while learning; scores are in f32. `auto`: bf16 for models of 4 million mixed values and more on devices with instructions for it, else f32 ([speed.md](speed.md))",
        ),
        key(
            "compute.linear",
            word(&["auto", "libtorch", "onednn"]),
            "`auto`",
            "library of linear layers in f32 on a CPU. `auto`: oneDNN on processors of AMD, else what libtorch chooses, which is MKL on x86 ([speed.md](speed.md#linear-layers))",
        ),
        key(
            "compute.recompute",
            flag(),
            "false",
            "compute activations again in the backward pass: less memory, same bits, more time",
        ),
        key(
            "compute.memory",
            size(),
            "80 % of what is free",
            "memory budget, for example `\"8GiB\"`: `model_batch = \"auto\"` fills it, and a task that needs more is refused",
        ),
        key(
            "compute.checkpoint_seconds",
            json!({ "type": "number", "minimum": 0 }),
            "10",
            "seconds between checkpoints: at most this much work is repeated after a kill",
        ),
        key("compute.score_batch", count(), "256", "samples in a batch when scoring"),
        key(
            "compute.paired_tasks",
            json!({ "type": "integer", "minimum": 0, "maximum": 1000 }),
            "16",
            "tasks whose losses of single samples are kept for paired comparisons: the best, besides baselines",
        ),
        key(
            "compute.image_cache",
            size(),
            "`\"20GiB\"`",
            "limit of decoded images, and of tokens, in the user's cache folder",
        ),
    ]
}

/// The table of `docs/specification.md`.
pub fn markdown() -> String {
    let rows = keys().into_iter().map(|key| format!("| `{}` | {} | {} |\n", key.path, key.default, key.meaning));
    format!("| key | default | meaning |\n|---|---|---|\n{}", rows.collect::<String>())
}

/// JSON Schema (draft 2020-12) of a specification.
pub fn json_schema() -> Value {
    let mut root = object();
    for key in keys() {
        let mut place = &mut root;
        let mut parts: Vec<&str> = key.path.split('.').collect();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            place = &mut place["properties"][part];
            if place.is_null() {
                *place = object();
            }
        }
        let mut schema = key.schema;
        let default = if key.default.is_empty() { String::new() } else { format!(" Default: {}.", key.default) };
        schema["description"] = format!("{}.{default}", key.meaning).into();
        place["properties"][last] = schema;
        if key.default == "required" {
            place["required"].as_array_mut().into_iter().for_each(|list| list.push(last.into()));
        }
    }
    root["required"] = json!(["zoo", "data"]);
    root["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    root["title"] = "mehl-soup specification".into();
    root
}

fn object() -> Value {
    json!({ "type": "object", "properties": Map::new(), "additionalProperties": false, "required": [] })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::sweep::parse::{Format, asked_keys, parse_spec_text};

    const WRITE: &str =
        "mehl-soup schema > docs/sweep.schema.json, and the table by mehl-soup schema --format markdown";

    fn docs(file: &str) -> String {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(file)).unwrap()
    }

    #[test]
    fn every_key_that_the_reader_asks_for_is_here_and_no_other() {
        asked_keys();
        parse_spec_text("zoo.ingredients = 'z'\ndata.learn = 'l'\nsearch.strategy = 'asha'\nsearch.tasks = 1\nsoup.outer_epochs = 9", Format::Toml, Path::new("/"))
            .unwrap();
        let asked = asked_keys();
        let sections = ["zoo", "data", "data.image", "data.text", "soup", "search", "compute"];
        let asked: BTreeSet<&str> = asked.iter().map(String::as_str).filter(|key| !sections.contains(key)).collect();
        let here: Vec<&str> = keys().iter().map(|key| key.path).collect();
        assert_eq!(here.iter().copied().collect::<BTreeSet<_>>(), asked);
        assert_eq!(here.len(), asked.len(), "a key is here twice");
    }

    #[test]
    fn the_documentation_is_that_of_the_program() {
        assert!(docs("specification.md").contains(&markdown()), "docs/specification.md: write it anew: {WRITE}");
        let found: Value = serde_json::from_str(&docs("sweep.schema.json")).unwrap();
        assert!(found == json_schema(), "docs/sweep.schema.json: write it anew: {WRITE}");
    }
}
