//! Everything a task computes with: zoo, layout, data, model. Opened once a device.

use std::collections::BTreeMap;

use mehl_soup::host;
use mehl_soup::sweep::manifest::{IngredientEntry, Manifest};
use mehl_soup::sweep::objective::{Objective as NamedObjective, Unit};
use mehl_soup::sweep::score::SplitScore;
use mehl_soup::sweep::spec::{DataSpec, Family, Spec};
use mehl_soup::zoo::{HashCache, Ingredient, Layout, Zoo, ZooHashes, config_faults, mixed_dtypes};
use safetensors::Dtype;
use tch::{Device, Kind, Tensor};

use super::errors::{data_error, family_error, torch_error, zoo_error};
use super::probe::Subject;
use super::{allocations, budget, linear, memory, module_check, objective, scoring, statistics};
use crate::data::images::ImageInputs;
use crate::data::images::cache::ImageCache;
use crate::data::images::resolve::ModelFacts;
use crate::data::text::TextFacts;
use crate::data::text::cache::TokenCache;
use crate::data::text::stored::{IDS, MASK};
use crate::data::{Data, Kinds};
use crate::families::{self, Model, Precision};
use crate::hyperplane::cuda;
use crate::objectives::{self, Leaves, Measured, Objective};
use mehl_soup::runner::engine::EngineError;

/// Faults of configurations that one error tells; the rest is counted.
const MOST_FAULTS: usize = 20;
/// Data are kept on a GPU if they are at most one part in so many of what is free there.
const DATA_SHARE: u64 = 4;

/// The opened inputs of a sweep, on one device.
pub struct Inputs {
    /// The ingredients.
    pub zoo: Zoo,
    /// Which of their tensors are mixed, frozen, copied.
    pub layout: Layout,
    /// Family of the model.
    pub family: Family,
    /// The model, whose parameters the soup is written to.
    pub model: Box<dyn Model>,
    /// What coefficients are learned for.
    pub objective: Box<dyn Objective>,
    /// The same, as files have it.
    pub named_objective: NamedObjective,
    /// The splits.
    pub data: Data,
    /// What was passed over, counted once or assumed.
    notes: Vec<String>,
    /// Where all of it is computed.
    pub device: Device,
    /// Dtype of parameters, their gradients and float inputs: f32, or f64 for checks.
    pub kind: Kind,
    /// Seed of the sweep: of the learn samples that running statistics are collected on, and of the units that are kept.
    pub seed: u64,
    hashes: Vec<String>,
    /// Memory on the device once all was open and the model had run for the first time.
    base: u64,
    /// Whether the process computes on the CPU, in one slot.
    is_alone: bool,
}

/// Anonymous memory of the process, after the allocator has given back what it keeps.
fn anonymous() -> u64 {
    memory::give_back_freed_pages();
    host::memory().anonymous
}

impl Inputs {
    /// Resolves, opens, hashes and checks everything that `spec` names.
    ///
    /// # Errors
    /// [`EngineError::Input`] with file, tensor, expected and found.
    pub fn open(
        spec: &Spec,
        device: Device,
        kind: Kind,
        cache: Option<&HashCache>,
        note: &mut dyn FnMut(&str),
    ) -> Result<Self, EngineError> {
        let found = Zoo::find(&spec.zoo.ingredients, std::path::Path::new(".")).map_err(zoo_error)?;
        let zoo = Zoo::open(&found.paths).map_err(zoo_error)?;
        check_configurations(&zoo, spec)?;
        let (named_objective, chosen) = objective::resolve(spec, &zoo)?;
        Data::check_existence(&spec.data).map_err(data_error)?;
        let mut said = std::time::Instant::now();
        let hashes = zoo
            .hash(cache, &mut |done, total| {
                if said.elapsed().as_secs() >= 5 {
                    said = std::time::Instant::now();
                    note(&format!("hashing ingredients: {} of {} MB", done >> 20, total >> 20));
                }
            })
            .map_err(zoo_error)?;
        let mut notes = found.notes();
        notes.extend(zoo.ingredients().iter().flat_map(|ingredient| ingredient.notes().iter().cloned()));
        let (zoo, mut hashes) = if spec.zoo.keep_duplicates {
            (zoo, hashes)
        } else {
            let (zoo, hashes, equal) = zoo.without_duplicates(hashes);
            notes.extend(equal.iter().map(|names| {
                format!(
                    "equal contents, counted once (count each with zoo.duplicates = \"keep\"): {}",
                    names.join(" = ")
                )
            }));
            (zoo, hashes)
        };
        let zoo = match &spec.zoo.base {
            None => zoo,
            Some(path) => with_base(zoo, &mut hashes, path, cache, &mut notes)?,
        };
        notes.extend(mixed_dtypes(zoo.ingredients()));
        notes.extend(chosen);
        notes.extend(wrapper_note(&zoo, spec));
        let layout = Layout::new(&zoo, &hashes).map_err(zoo_error)?;
        let family = families::detect(spec.zoo.family, &zoo).map_err(family_error)?;
        let model = families::load(family, &spec.zoo, &zoo, &layout, device, kind).map_err(family_error)?;
        model.use_linear_library(linear::resolve(spec.compute.linear, kind, device).0);
        notes.extend(model.assumed().iter().map(|what| format!("assumed: {what}")));
        let kinds = Kinds {
            images: image_inputs(spec, &zoo, family, model.as_ref(), cache),
            text: text_facts(&zoo, model.as_ref(), cache, spec.compute.image_cache_bytes),
        };
        let objective = objectives::of(named_objective);
        let targets = |found| objective.read_targets(found);
        let data_spec = DataSpec { objective: Some(named_objective.name()), ..spec.data.clone() };
        let mut data = Data::load(&data_spec, spec.seed, kind, &kinds, &targets, note).map_err(data_error)?;
        if let Some(expected) = model.expected_inputs() {
            data.check_inputs(&spec.data, &expected).map_err(data_error)?;
        }
        let free = allocations::device_memory(device).and_then(|memory| memory.free);
        let budget = free.map_or(0, |free| spec.compute.memory_bytes.map_or(free, |stated| stated.min(free)));
        data.keep_on(device, budget / DATA_SHARE).map_err(torch_error)?;
        if let (Device::Cuda(_), Kind::Float, Err(why)) = (device, kind, cuda::prepare(device)) {
            note(&format!(
                "mixing and projecting on the GPU use libtorch operations, which are slower than \
                 the CUDA kernels: {why}"
            ));
        }
        let mut inputs = Self {
            hashes: hashes.ingredients.iter().chain(&hashes.base).map(|h| h.total.clone()).collect(),
            zoo,
            layout,
            family,
            model,
            objective,
            named_objective,
            data,
            notes,
            device,
            kind,
            seed: spec.seed,
            base: 0,
            is_alone: device == Device::Cpu && budget::cpu_slots(&spec.compute) == 1,
        };
        inputs.write_ingredient(0)?;
        inputs.objective.check(inputs.model.as_ref(), &inputs.data, &data_spec, device)?;
        let said = inputs.objective.notes(&inputs.data).map_err(torch_error)?;
        inputs.notes.extend(said);
        if family == Family::Torchscript {
            module_check::check(inputs.model.as_ref(), &inputs.data.learn, &spec.zoo, device)?;
        }
        inputs.base = match device {
            Device::Cpu => anonymous(),
            _ => allocations::device_memory(device).map_or(0, |memory| memory.allocated),
        };
        Ok(inputs)
    }

    /// Memory on the device before a task: on the CPU, anonymous memory of the process, without what its allocator keeps for later. Passes that were tried before are in it:
    /// libtorch keeps what it needs for the next ones, in each dtype its own, some 15 MB of compiled kernels for products in bf16 for example. Where other slots compute in the
    /// same process, it is what was there when all was open: now their model batches are there too.
    pub fn base_bytes(&self) -> u64 {
        if self.is_alone { anonymous() } else { self.base }
    }

    /// Whether one sample alone makes no batch to learn on: where the model normalises with the statistics of a batch, or samples are compared
    /// with each other.
    pub fn needs_several(&self) -> bool {
        self.model.statistics().is_some() || self.objective.facts().unit == Unit::Batch
    }

    /// Samples of a batch when scoring: `compute.score_batch`, unless the objective has batches of its own.
    pub(super) fn score_batch(&self, stated: usize) -> usize {
        self.objective.fixed_batches().map_or(stated, |fixed| fixed.size)
    }

    /// What passes are tried with to know their memory and time.
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject {
            model: self.model.as_ref(),
            objective: self.objective.as_ref(),
            learn: &self.data.learn,
            longest: self.data.longest(),
            device: self.device,
        }
    }

    /// Writes one ingredient, as it is, to the model: with its own running statistics.
    pub fn write_ingredient(&self, k: usize) -> Result<(), EngineError> {
        let names: Vec<String> = self.model.parameters().keys().cloned().collect();
        self.leaves(&names, Precision::Full)?;
        statistics::write_tensors(&self.zoo, k, self.model.parameters())?;
        self.restore_statistics(k)
    }

    /// Writes one ingredient's own running statistics to the model. Nothing is done for models without.
    pub fn restore_statistics(&self, k: usize) -> Result<(), EngineError> {
        self.model.statistics().map_or(Ok(()), |own| statistics::write_tensors(&self.zoo, k, own))
    }

    /// Computes the model's running statistics anew for the weights that it now holds. Nothing is done for models without.
    pub fn collect_statistics(&self, precision: Precision) -> Result<(), EngineError> {
        statistics::collect(self.model.as_ref(), &self.data.learn, self.seed, self.device, precision)
    }

    /// The leaves that a mix writes, in the order of `names`, in the dtypes that a pass in `precision` is to find them in: what the family
    /// [rounds](Model::rounds) is in bf16 for one in bf16. A leaf that is in another dtype changes it, for all who hold it, and keeps what it holds, rounded.
    pub fn leaves(&self, names: &[String], precision: Precision) -> Result<Leaves, EngineError> {
        let parameters: &BTreeMap<String, Tensor> = self.model.parameters();
        let leaf = |name: &String| -> Result<Tensor, EngineError> {
            let leaf = parameters
                .get(name)
                .ok_or_else(|| EngineError::Internal("a mixed tensor is no parameter of the model".to_string()))?;
            let kind = match precision {
                Precision::Bf16 if self.model.rounds(name) => Kind::BFloat16,
                _ => self.kind,
            };
            let mut leaf = leaf.shallow_clone();
            if leaf.kind() != kind {
                let held = tch::no_grad(|| leaf.f_detach()?.f_to_kind(kind)).map_err(torch_error)?;
                leaf.f_set_data(&held).map_err(torch_error)?;
            }
            Ok(leaf)
        };
        let leaves = names.iter().map(leaf).collect::<Result<Vec<_>, _>>()?;
        Ok(Leaves::new(self.model.as_ref(), names.iter().map(String::as_str).zip(leaves)))
    }

    /// Bytes that the leaves take less while a pass in `precision` finds them in its dtypes.
    pub fn saved(&self, names: &[String], precision: Precision) -> u64 {
        let rounded = names.iter().filter(|name| precision == Precision::Bf16 && self.model.rounds(name));
        let bytes = rounded
            .filter_map(|name| self.model.parameters().get(name))
            .map(|leaf| leaf.numel() * (self.kind.elt_size_in_bytes() - Kind::BFloat16.elt_size_in_bytes()));
        bytes.sum::<usize>() as u64
    }

    /// What a person should know of this zoo and data.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.notes.iter().chain(&self.data.notes).cloned().collect();
        if let Some(tensor) = self.layout.mixed().find(|tensor| !matches!(tensor.dtype, Dtype::F32 | Dtype::F64)) {
            notes.push(format!(
                "scores are of the f32 mix; the written model is rounded to the ingredients' {:?} \
                 (not with materialize --dtype f32)",
                tensor.dtype
            ));
        }
        notes
    }

    /// A manifest without scores; of version 1 only for families that have it.
    pub fn manifest(&self, version: u32) -> Manifest {
        let of_version_1 = if version == 1 { self.model.architecture_1() } else { None };
        let entry = |(ingredient, hash): (&Ingredient, &String)| IngredientEntry {
            name: ingredient.name().to_string(),
            path: ingredient.path().to_path_buf(),
            hash: hash.clone(),
            select: None,
        };
        let ingredients = self.zoo.ingredients().iter().zip(&self.hashes).map(entry).collect();
        let base = self.zoo.base().zip(self.hashes.get(self.zoo.len())).map(entry);
        Manifest {
            version: if of_version_1.is_some() { 1 } else { Manifest::VERSION },
            family: self.family,
            objective: self.named_objective,
            architecture: of_version_1.map_or_else(|| self.model.architecture(), Into::into),
            ingredients,
            base,
            data: self.data.entries.clone(),
            notes: self.notes(),
        }
    }

    /// That these are the inputs the manifest was made of.
    ///
    /// # Errors
    /// `zoo changed` or `data changed`, naming what differs.
    pub fn check(&self, manifest: &Manifest) -> Result<(), EngineError> {
        let own = self.manifest(manifest.version);
        if own.inputs_hash() == manifest.inputs_hash() {
            return Ok(());
        }
        if own.architecture != manifest.architecture {
            return Err(EngineError::Input(format!(
                "zoo changed: expected architecture {}, found {}; choose another output folder",
                manifest.architecture, own.architecture
            )));
        }
        if own.objective != manifest.objective {
            return Err(EngineError::Input(format!(
                "zoo changed: expected objective {:?}, found {:?}; choose another output folder",
                manifest.objective, own.objective
            )));
        }
        if own.base.as_ref().map(|base| &base.hash) != manifest.base.as_ref().map(|base| &base.hash) {
            let named = |base: &Option<IngredientEntry>| {
                base.as_ref()
                    .map_or_else(|| "none".to_string(), |base| format!("{} ({})", base.path.display(), base.hash))
            };
            return Err(EngineError::Input(format!(
                "zoo changed: expected base {}, found {}; choose another output folder",
                named(&manifest.base),
                named(&own.base)
            )));
        }
        if own.ingredients.len() != manifest.ingredients.len() {
            return Err(EngineError::Input(format!(
                "zoo changed: expected {} ingredients, found {}; choose another output folder",
                manifest.ingredients.len(),
                own.ingredients.len()
            )));
        }
        for (now, then) in own.ingredients.iter().zip(&manifest.ingredients) {
            if (&now.name, &now.hash) != (&then.name, &then.hash) {
                return Err(EngineError::Input(format!(
                    "zoo changed: expected {} with content {}, found {} with {}; choose another output folder",
                    then.path.display(),
                    then.hash,
                    now.path.display(),
                    now.hash
                )));
            }
        }
        for (now, then) in own.data.iter().zip(&manifest.data) {
            if (&now.hash, now.samples) != (&then.hash, then.samples) {
                return Err(EngineError::Input(format!(
                    "data changed: {}: expected {} {} samples with content {}, found {} with {}; choose another output folder",
                    now.path.display(),
                    then.samples,
                    then.split,
                    then.hash,
                    now.samples,
                    now.hash
                )));
            }
        }
        Err(EngineError::Input(
            "data changed: the splits differ from those at the start of the sweep; choose another output folder"
                .to_string(),
        ))
    }

    /// Score of what the model now holds.
    pub fn score(
        &self,
        split: &crate::data::Split,
        batch: usize,
        precision: Precision,
    ) -> Result<SplitScore, EngineError> {
        scoring::score(self.objective.as_ref(), self.model.as_ref(), split, batch, self.device, precision)
    }

    /// As [`score`](Self::score), and the values of all units: of the loss, then of each metric that is a mean over units.
    pub fn score_units(
        &self,
        split: &crate::data::Split,
        batch: usize,
        precision: Precision,
    ) -> Result<(SplitScore, Vec<Vec<f32>>), EngineError> {
        let mut values: Vec<Vec<f32>> = vec![];
        let mut keep = |measured: &Measured| {
            values.resize_with(1 + measured.metrics.len(), Vec::new);
            for (values, found) in values.iter_mut().zip(std::iter::once(&measured.losses).chain(&measured.metrics)) {
                let found = found.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
                values.extend(Vec::<f32>::try_from(found)?);
            }
            Ok(())
        };
        let (objective, model) = (self.objective.as_ref(), self.model.as_ref());
        let score = scoring::score_units(objective, model, split, batch, self.device, precision, &mut keep)?;
        Ok((score, values))
    }
}

/// What all names begin with, where a family knows them without it.
fn wrapper_note(zoo: &Zoo, spec: &Spec) -> Option<String> {
    let prefix = zoo.reference().common_prefix();
    let is_left_out = !prefix.is_empty() && spec.zoo.family != Some(Family::Torchscript);
    is_left_out.then(|| {
        format!("assumed: the prefix of all tensors, `{prefix}`, comes from a wrapper; the written model keeps it")
    })
}

/// That the configurations of a zoo speak of models that can be mixed and scored.
fn check_configurations(zoo: &Zoo, spec: &Spec) -> Result<(), EngineError> {
    let faults = config_faults(zoo.ingredients(), spec.data.classes.is_some());
    if faults.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = faults.iter().take(MOST_FAULTS).map(ToString::to_string).collect();
    let more = match faults.len().saturating_sub(MOST_FAULTS) {
        0 => String::new(),
        more => format!("\nand {more} more"),
    };
    Err(EngineError::Input(format!("{}{more}", lines.join("\n"))))
}

/// What image data need to know of the model, and where they are kept once decoded: beside the content hashes.
fn image_inputs<'a>(
    spec: &Spec,
    zoo: &'a Zoo,
    family: Family,
    model: &dyn Model,
    cache: Option<&HashCache>,
) -> ImageInputs<'a> {
    let input = model.input_shapes().and_then(|mut shapes| (shapes.len() == 1).then(|| shapes.remove(0)));
    let folders = zoo.ingredients().iter().filter_map(|k| k.folder().map(std::path::Path::to_path_buf)).collect();
    ImageInputs {
        model: ModelFacts { family, input, config: zoo.ingredients()[0].config(), folders },
        cache: ImageCache { folder: cache.map(|cache| cache.beside("images")), bound: spec.compute.image_cache_bytes },
    }
}

/// Beginnings of names that models give their embedding of tokens, behind any prefix.
const EMBEDDINGS: [&str; 2] = ["word_embeddings.weight", "tok_embeddings.weight"];

/// What texts need, if the model takes tokens.
pub(crate) fn text_facts<'a>(
    zoo: &'a Zoo,
    model: &dyn Model,
    cache: Option<&HashCache>,
    bound: u64,
) -> Option<TextFacts<'a>> {
    let expected = model.expected_inputs()?;
    let tokens = expected.iter().find(|input| input.name.as_deref() == Some(IDS))?;
    let positions = tokens.dimensions.first().and_then(|extent| usize::try_from(extent.most).ok());
    let first = &zoo.ingredients()[0];
    let embedding = first.tensors().find(|(name, _)| EMBEDDINGS.iter().any(|ending| name.ends_with(ending)));
    Some(TextFacts {
        folders: zoo.ingredients().iter().filter_map(|k| k.folder().map(std::path::Path::to_path_buf)).collect(),
        config: first.config(),
        // Lengths tell what a mask would.
        inputs: expected
            .iter()
            .filter(|input| !input.optional || input.name.as_deref() != Some(MASK))
            .filter_map(|input| input.name.clone())
            .collect(),
        positions,
        vocabulary: embedding.and_then(|(_, info)| info.shape.first().copied()),
        cache: TokenCache { folder: cache.map(|cache| cache.beside("tokens")), bound },
    })
}

/// The zoo with its base, whose hash goes to those of the ingredients.
fn with_base(
    zoo: Zoo,
    hashes: &mut ZooHashes,
    path: &std::path::Path,
    cache: Option<&HashCache>,
    notes: &mut Vec<String>,
) -> Result<Zoo, EngineError> {
    let (zoo, said) = zoo.with_base(path).map_err(zoo_error)?;
    hashes.base = zoo.hash_base(cache, &mut |_| {}).map_err(zoo_error)?;
    notes.extend(said);
    let of_base = hashes.base.as_ref().map(|own| &own.total);
    let equal = zoo.ingredients().iter().zip(&hashes.ingredients).find(|(_, own)| Some(&own.total) == of_base);
    if let Some((ingredient, _)) = equal {
        notes.push(format!("zoo.base has the same contents as ingredient {}", ingredient.name()));
    }
    Ok(zoo)
}
