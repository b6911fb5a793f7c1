//! By what a sweep and its inputs are recognised. Structures are documented in `docs/formats.md`; version 1 is kept as
//! it was, for run folders and sweeps that were begun with it.

use serde_json::{Value, json};

use super::manifest::Manifest;
use super::spec::{ComputeDtype, Family, SearchSpec, Spec, ZooSpec};
use crate::canonical;
use crate::sweep::task::Task;

impl Spec {
    /// Version of [`identity`](Self::identity).
    pub const IDENTITY: u32 = 2;

    /// Hash (blake3, hexadecimal) over all that determines the sweep's results: everything but the name, `[compute]`,
    /// `zoo.allow_chance` and `search.max_seconds`. What the files hold is not in it, see [`Manifest::inputs_hash`].
    pub fn identity(&self) -> String {
        canonical::identity("sweep", Self::IDENTITY, &self.relevant())
    }

    /// The identity as version `version` of it was made; `None` if there is no such version.
    pub fn identity_of_version(&self, version: u32) -> Option<String> {
        match version {
            1 => Some(self.identity_1()),
            Self::IDENTITY => Some(self.identity()),
            _ => None,
        }
    }

    fn relevant(&self) -> Value {
        json!({
            "seed": self.seed,
            // It decides whether there are results, not which.
            "zoo": ZooSpec { allow_chance: false, ..self.zoo.clone() },
            "data": self.data,
            "soup": self.soup,
            "soup_given": self.soup_given,
            "search": SearchSpec { max_seconds: None, ..self.search.clone() },
        })
    }

    /// Version 1: a JSON array of the parts, each with its fields in the order that they had in the program.
    fn identity_1(&self) -> String {
        let relevant = self.relevant();
        let zoo = ordered(&relevant["zoo"], &ZOO_1);
        let mut data = ordered(&relevant["data"], &DATA_1);
        for (key, value) in &mut data {
            if key == "image" {
                *value = text(&ordered(&relevant["data"]["image"], &IMAGE_1));
            }
        }
        let soup = ordered(&relevant["soup"], &SOUP_1);
        let search = ordered(&relevant["search"], &SEARCH_1);
        let (zoo, data, soup, search) = (text(&zoo), text(&data), text(&soup), text(&search));
        let text = format!("[{},{zoo},{data},{soup},{},{search}]", self.seed, relevant["soup_given"]);
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }
}

const ZOO_1: [&str; 8] =
    ["ingredients", "family", "base", "architecture", "heads", "activation", "top", "keep_duplicates"];
const DATA_1: [&str; 11] = [
    "learn",
    "select",
    "test",
    "inputs",
    "labels",
    "select_fraction",
    "metric",
    "image",
    "classes",
    "skip_unreadable",
    "allow_missing_classes",
];
const IMAGE_1: [&str; 8] = ["size", "resize", "crop", "interpolation", "mean", "std", "orientation", "max_pixels"];
const SOUP_1: [&str; 17] = [
    "method",
    "layer_groups",
    "model_batch",
    "direction_dtype",
    "inner_epochs",
    "outer_epochs",
    "batch",
    "learning_rate",
    "weight_decay",
    "shrink",
    "average",
    "warmup",
    "gradient_clip",
    "init",
    "early_stopping",
    "patience",
    "seed",
];
const SEARCH_1: [&str; 7] = ["strategy", "tasks", "asha", "points", "space", "max_seconds", "greedy_baseline"];

/// Fields of a JSON object with the JSON text of their values: those of `order` first, in this order, then the others.
fn ordered(object: &Value, order: &[&str]) -> Vec<(String, String)> {
    let mut fields: Vec<_> =
        object.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.to_string())).collect();
    fields.sort_by_key(|(key, _)| (order.iter().position(|other| other == key).unwrap_or(order.len()), key.clone()));
    fields
}

fn text(fields: &[(String, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

impl Manifest {
    /// Hash over everything that a task's result depends on in the zoo and the data: contents, order and family. As the
    /// manifest's version made it.
    pub fn inputs_hash(&self) -> String {
        if self.version == 1 {
            return self.inputs_hash_1();
        }
        let ingredients: Vec<Value> =
            self.ingredients.iter().map(|each| json!({"name": each.name, "hash": each.hash})).collect();
        let data: Vec<Value> = self
            .data
            .iter()
            .map(|each| json!({"split": each.split, "hash": each.hash, "samples": each.samples}))
            .collect();
        let mut fields = json!({
            "family": self.family.as_str(),
            "architecture": self.architecture,
            "ingredients": ingredients,
            "base": self.base.as_ref().map(|base| &base.hash),
            "data": data,
        });
        if !self.objective.is_default() {
            fields["objective"] = json!(self.objective);
        }
        canonical::identity("inputs", self.version, &fields)
    }

    /// Version 1: lines of text, the family by the name that it had in the program.
    fn inputs_hash_1(&self) -> String {
        let family = match self.family {
            Family::Vit => "Vit",
            Family::ClipVit => "ClipVit",
            Family::TimmVit => "TimmVit",
            Family::Resnet => "Resnet",
            Family::Bert => "Bert",
            Family::Modernbert => "Modernbert",
            Family::Torchscript => "Torchscript",
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{family} {}\n", self.architecture.as_str().unwrap_or_default()).as_bytes());
        if !self.objective.is_default() {
            hasher.update(format!("objective {}\n", json!(self.objective)).as_bytes());
        }
        for ingredient in &self.ingredients {
            hasher.update(format!("{} {}\n", ingredient.name, ingredient.hash).as_bytes());
        }
        if let Some(base) = &self.base {
            hasher.update(format!("base {}\n", base.hash).as_bytes());
        }
        for data in &self.data {
            hasher.update(format!("{} {} {}\n", data.split, data.hash, data.samples).as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

impl Task {
    /// Hash over everything that the task's result depends on: hyperparameters, the zoo and the data of `manifest`, and
    /// the dtype of parameters (f32, or f64). By the version of the manifest.
    pub fn identity(&self, manifest: &Manifest, parameters: ComputeDtype) -> String {
        if manifest.version == 1 {
            return self.identity_1(manifest, parameters);
        }
        let fields = json!({
            "soup": self.soup,
            "top": self.top,
            "inputs": manifest.inputs_hash(),
            "parameters": parameters,
        });
        canonical::identity("task", manifest.version, &fields)
    }

    /// Version 1: JSON with fields in the order that they had in the program, the inputs, and libtorch's name of the dtype.
    fn identity_1(&self, manifest: &Manifest, parameters: ComputeDtype) -> String {
        let soup = serde_json::to_value(&self.soup).unwrap_or_default();
        let top = self.top.map_or_else(|| "null".to_string(), |top| top.to_string());
        let kind = if parameters == ComputeDtype::F64 { "Double" } else { "Float" };
        let text = format!("[{},{top}]{}{kind}", text(&ordered(&soup, &SOUP_1)), manifest.inputs_hash());
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::objective::Objective;
    use crate::sweep::parse::{Format, parse_spec_text};
    use std::path::Path;

    /// Every part of a specification that version 1 wrote in an order of its own, in a file of any order.
    const EVERYTHING: &str = "seed = 9223372036854775807\n\
        [zoo]\ningredients = 'z/*'\nfamily = 'timm-vit'\nbase = 'b'\nheads = 4\nactivation = 'gelu'\ntop = 3\nduplicates = 'keep'\nallow_chance = true\n\
        [data]\nlearn = 'l'\nselect_fraction = 0.25\nclasses = ['a', 'b']\nskip_unreadable = true\nallow_missing_classes = true\n\
        [data.image]\nsize = 32\nmean = 0.5\norientation = false\n\
        [soup]\nmodel_batch = 2\nshrink = 5\n\
        [search]\nstrategy = 'asha'\ntasks = 4\neta = 2\npoints = [{ method = 'mehl', outer_epochs = 9 }]\n\
        [search.space]\nlearning_rate = { log_uniform = [1e-4, 0.1] }\nouter_epochs = [8, 4]\nbatch = { int = [1, 9] }\n";

    fn spec(text: &str) -> Spec {
        parse_spec_text(text, Format::Toml, Path::new("/base")).unwrap()
    }

    #[test]
    fn names_and_orders_within_the_program_do_not_matter() {
        // If this fails, run folders that exist are not recognised. Keep this encoding, and make the next version.
        let spec = spec(EVERYTHING);
        assert_eq!(spec.identity(), "0f0d9218f2a2be439ca94172e261d57f711e7ac25e1d43fea4c85e16450aac1b");
        let of_version_1 = "6483e32c54023765f7f6305f5a802eab9fe1ad3087e2585f7bb160612964a8a5";
        assert_eq!(spec.identity_of_version(1).as_deref(), Some(of_version_1));
        assert_eq!(spec.identity_of_version(3), None);
    }

    #[test]
    fn another_objective_is_another_sweep_and_other_inputs() {
        let of = |rest: &str| spec(&format!("zoo.ingredients = 'z'\ndata.learn = 'l'\n{rest}")).identity();
        let stated = ["", "data.objective = 'regression'", "data.objective = 'pairs'", "data.scale = 30"].map(of);
        assert_eq!(stated.iter().collect::<std::collections::BTreeSet<_>>().len(), stated.len());
        assert_eq!(of("data.objective = 'auto'"), stated[0]);
        let pairs = |scale, batch, seed| Objective::Pairs { scale, batch, seed };
        let objectives = [
            Objective::Classification,
            Objective::MultiLabel,
            Objective::Regression,
            Objective::Score,
            pairs(20.0, 32, 0),
            pairs(30.0, 32, 0),
            pairs(20.0, 64, 0),
            pairs(20.0, 32, 1),
        ];
        for version in Manifest::VERSIONS {
            let manifest = |objective| Manifest {
                version,
                family: Family::Vit,
                architecture: serde_json::Value::Null,
                objective,
                ingredients: vec![],
                base: None,
                data: vec![],
                notes: vec![],
            };
            let hashes: std::collections::BTreeSet<String> =
                objectives.iter().map(|objective| manifest(*objective).inputs_hash()).collect();
            assert_eq!(hashes.len(), objectives.len(), "version {version}");
            for objective in objectives {
                let text = serde_json::to_string(&manifest(objective)).unwrap();
                assert_eq!(text.contains("objective"), objective != Objective::Classification);
                assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest(objective));
            }
        }
        // As before there were others.
        let before = canonical::identity(
            "inputs",
            2,
            &json!({"family": "vit", "architecture": null, "ingredients": [], "base": null, "data": []}),
        );
        let now = Manifest {
            version: 2,
            family: Family::Vit,
            architecture: serde_json::Value::Null,
            objective: Objective::Classification,
            ingredients: vec![],
            base: None,
            data: vec![],
            notes: vec![],
        };
        assert_eq!(now.inputs_hash(), before);
    }
}
