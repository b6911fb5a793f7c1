//! A graph that `python -m mehl_soup export` made of a model of another library, with the names of its tensors on disk.
//!
//! The graph has a method for each [`Pass`]: `forward` normalises with running statistics, `learn` with those of the batch,
//! `collect` with those of the batch, which it keeps. They are methods of one module, and not modules of their own, so that they
//! share parameters, and so that a pool's list of graphs has one hash for each architecture.
//!
//! The same methods with `_bf16` behind their names take inputs and parameters in bf16, those of batch normalisation in f32.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use mehl_soup::untrusted;
use mehl_soup::zoo::{Ingredient, Layout, TensorClass, Zoo};
use tch::{CModule, Device, Kind, TchError, Tensor};

use super::export_description::{COMMAND, Description, Export, Outputs, torch_fault};
use super::state::ExpectedInput;
use super::torchscript::{load_module, with_values};
use super::{FamilyError, Forward, Model, ModelInputs, Pass, Precision, State, is_mixed};
use crate::hyperplane::write_soup;

/// Names that an error lists of each side.
const LISTED: usize = 5;

/// An exported model.
pub(super) struct Exported {
    module: CModule,
    inputs: Vec<ExpectedInput>,
    classes: i64,
    gives_embeddings: bool,
    least_batch: i64,
    parameters: BTreeMap<String, Tensor>,
    statistics: BTreeMap<String, Tensor>,
    /// Whether the running statistics are those of all ingredients, and no soup has others.
    fixed: bool,
    kind: Kind,
    /// Names on disk of what the methods in bf16 take in f32; `None` without such methods.
    in_f32: Option<BTreeSet<String>>,
    /// Parameters of a float type that no soup moves and that the methods in bf16 take in bf16.
    unmoved: Vec<Unmoved>,
    identity: serde_json::Value,
    assumed: Vec<String>,
}

/// A parameter that follows the dtype of a pass without being mixed for it.
struct Unmoved {
    leaf: Tensor,
    /// What the leaf holds in a full pass, while it is in bf16.
    full: RefCell<Option<Tensor>>,
}

impl Unmoved {
    /// Changes dtype before a pass. Not after one: a backward pass may still need the values.
    fn follow(&self, precision: Precision) -> Result<(), TchError> {
        let mut leaf = self.leaf.shallow_clone();
        let is_narrow = leaf.kind() == Kind::BFloat16;
        match precision {
            Precision::Bf16 if !is_narrow => {
                let held = leaf.f_detach()?;
                leaf.f_set_data(&held.f_to_kind(Kind::BFloat16)?)?;
                self.full.replace(Some(held));
            }
            Precision::Full if is_narrow => {
                if let Some(held) = self.full.take() {
                    leaf.f_set_data(&held)?;
                }
            }
            Precision::Bf16 | Precision::Full => {}
        }
        Ok(())
    }
}

impl Exported {
    /// Loads the graph and takes its parameters for the zoo's tensors.
    pub(super) fn load(
        export: Export,
        zoo: &Zoo,
        layout: &Layout,
        device: Device,
        kind: Kind,
    ) -> Result<Self, FamilyError> {
        let path = &export.graph_path;
        let torch = torch_fault(path);
        untrusted::check_module(path, &export.graph_hash).map_err(|error| torch(TchError::Io(error)))?;
        let module = load_module(path, &export.graph, device)?;
        let (description, first) = (&export.description, &zoo.ingredients()[0]);
        check_tensors(description, first, layout)?;
        check_constants(description, first)?;
        let of_layout = |name: &String| layout.get(name).map(|tensor| tensor.class);
        let fixed = description.statistics.iter().all(|name| of_layout(name) == Some(TensorClass::Frozen));
        let in_f32 = description.bf16.as_ref().map(|bf16| bf16.in_f32.clone());
        let (mut parameters, mut statistics) = (BTreeMap::new(), BTreeMap::new());
        let mut unmoved = Vec::new();
        for (name, tensor) in module.named_parameters().map_err(&torch)? {
            let Some(disk) = description.tensors.get(&name) else {
                let what = format!("expected a name on disk for `{name}` in the description; make the folder again");
                return Err(FamilyError::Config { file: path.display().to_string(), what });
            };
            let is_statistic = description.statistics.contains(disk);
            let moves = !is_statistic && !description.buffers.contains(disk) && is_mixed(layout, disk);
            let leaf = with_values(tensor, kind, moves).map_err(&torch)?;
            let is_wide = in_f32.as_ref().is_none_or(|names| names.contains(disk));
            if !moves && !is_wide && leaf.is_floating_point() {
                unmoved.push(Unmoved { leaf: leaf.shallow_clone(), full: RefCell::new(None) });
            }
            let tensors = if is_statistic { &mut statistics } else { &mut parameters };
            tensors.insert(disk.clone(), leaf);
        }
        let mut one_hot = vec![0.0; zoo.rows()];
        one_hot[0] = 1.0;
        for (name, tensor) in &statistics {
            write_soup(zoo, name, &one_hot, tensor).map_err(|error| tensor_fault(first, &[error.to_string()]))?;
        }
        Ok(Self {
            module,
            inputs: description.inputs(),
            classes: description.classes,
            gives_embeddings: description.outputs == Outputs::Embeddings,
            least_batch: description.least_batch,
            parameters,
            statistics,
            fixed,
            kind,
            in_f32,
            unmoved,
            identity: serde_json::json!({ "graph": export.graph_hash, "description": export.description_hash }),
            assumed: other_version(description),
        })
    }

    /// Inputs in the graph's order. A single one may have any name.
    fn ordered(&self, inputs: &ModelInputs) -> Result<Vec<Tensor>, TchError> {
        if let ([_], Some(only)) = (&self.inputs[..], inputs.only()) {
            return Ok(vec![only.shallow_clone()]);
        }
        let named = |input: &ExpectedInput| {
            let name = input.name.as_deref().unwrap_or_default();
            let missing = || TchError::Shape(format!("expected input `{name}`, found no such input"));
            inputs.get(name).map(Tensor::shallow_clone).ok_or_else(missing)
        };
        self.inputs.iter().map(named).collect()
    }

    /// Calls a method of the graph, or that of the same name in bf16.
    fn call(&self, method: &str, inputs: &[Tensor], precision: Precision) -> Result<Tensor, TchError> {
        self.unmoved.iter().try_for_each(|parameter| parameter.follow(precision))?;
        if precision == Precision::Full {
            return self.module.method_ts(method, inputs);
        }
        let narrow = |input: &Tensor| match input.is_floating_point() {
            true => input.f_to_kind(Kind::BFloat16),
            false => Ok(input.shallow_clone()),
        };
        let inputs = inputs.iter().map(narrow).collect::<Result<Vec<_>, _>>()?;
        self.module.method_ts(&format!("{method}_bf16"), &inputs)
    }

    fn check_batch(&self, samples: i64) -> Result<(), TchError> {
        if samples >= self.least_batch {
            return Ok(());
        }
        let what = format!("expected at least {} samples for statistics of a batch, found {samples}", self.least_batch);
        Err(TchError::Shape(what))
    }
}

impl Model for Exported {
    fn parameters(&self) -> &BTreeMap<String, Tensor> {
        &self.parameters
    }

    fn first_part(&self, inputs: &ModelInputs, how: Forward) -> Result<State, TchError> {
        let inputs = self.ordered(inputs)?;
        let samples = inputs[0].size().first().copied().unwrap_or(0);
        let by_running = self.fixed || self.statistics.is_empty() || how.pass == Pass::Score;
        let outputs = match how.pass {
            _ if by_running => self.call("forward", &inputs, how.precision)?,
            Pass::Learn | Pass::Score => {
                self.check_batch(samples)?;
                self.call("learn", &inputs, how.precision)?
            }
            Pass::Collect { seen } => {
                self.check_batch(samples)?;
                let before: Vec<Tensor> =
                    self.statistics.values().map(|kept| kept.f_detach_copy()).collect::<Result<_, _>>()?;
                let outputs = self.call("collect", &inputs, how.precision)?;
                // The graph keeps those of this batch; the mean over batches is that of PyTorch's `momentum=None`.
                let share = 1.0 / (seen as f64 + 1.0);
                for (kept, before) in self.statistics.values().zip(&before) {
                    let _ = kept.shallow_clone().f_mul_scalar_(share)?;
                    if seen > 0 {
                        let _ = kept.shallow_clone().f_add_(&before.f_mul_scalar(1.0 - share)?)?;
                    }
                }
                outputs
            }
        };
        Ok(outputs.f_to_kind(self.kind)?.into())
    }

    fn knows_bf16(&self) -> bool {
        self.in_f32.is_some()
    }

    fn bf16_is_chosen(&self) -> bool {
        false
    }

    fn rounds(&self, name: &str) -> bool {
        self.in_f32.as_ref().is_some_and(|names| !names.contains(name))
    }

    fn statistics(&self) -> Option<&BTreeMap<String, Tensor>> {
        (!self.fixed && !self.statistics.is_empty()).then_some(&self.statistics)
    }

    fn architecture(&self) -> serde_json::Value {
        self.identity.clone()
    }

    fn input_shapes(&self) -> Option<Vec<Vec<i64>>> {
        Some(self.inputs.iter().map(ExpectedInput::shape).collect())
    }

    fn expected_inputs(&self) -> Option<Vec<ExpectedInput>> {
        Some(self.inputs.clone())
    }

    fn assumed(&self) -> &[String] {
        &self.assumed
    }

    fn gives_embeddings(&self) -> bool {
        self.gives_embeddings
    }

    fn classes(&self) -> Option<i64> {
        (!self.gives_embeddings).then_some(self.classes)
    }
}

fn tensor_fault(ingredient: &Ingredient, faults: &[String]) -> FamilyError {
    FamilyError::Tensors {
        ingredient: ingredient.path().display().to_string(),
        family: "exported",
        faults: super::list(faults),
    }
}

/// That the zoo has the tensors of the graph, and that no other tensor that ingredients differ in is left out.
fn check_tensors(description: &Description, first: &Ingredient, layout: &Layout) -> Result<(), FamilyError> {
    let expected: BTreeSet<&String> = description.tensors.values().collect();
    let mut faults = Vec::new();
    let missing: Vec<&str> =
        expected.iter().filter(|name| first.info(name).is_none()).map(|name| name.as_str()).collect();
    let mut others = Vec::new();
    for tensor in layout.tensors.iter().filter(|tensor| !expected.contains(&tensor.name)) {
        match tensor.class {
            TensorClass::Copied => {}
            TensorClass::Frozen if description.unused.contains(&tensor.name) => {}
            TensorClass::Mixed if description.unused.contains(&tensor.name) => faults.push(format!(
                "{}: ingredients differ in it, but the library does not load it: no gradient tells how to mix it. \
                 Remove it from the ingredients",
                tensor.name
            )),
            _ => others.push(tensor.name.as_str()),
        }
    }
    if !(missing.is_empty() && others.is_empty()) {
        faults.push(format!(
            "only in the graph: {}; only in the ingredient: {}. Make the graph from an ingredient of this zoo: \
             {COMMAND} {} --out FOLDER",
            listed(&missing),
            listed(&others),
            first.folder().unwrap_or_else(|| first.path()).display()
        ));
    }
    let class = |name: &String| layout.get(name).map(|tensor| tensor.class);
    let not_to_mix = description.buffers.iter().filter(|name| class(name) == Some(TensorClass::Mixed));
    faults.extend(not_to_mix.map(|name| {
        format!("{name}: is a buffer and no running statistic, and ingredients differ in it: it cannot be mixed")
    }));
    let statistics = layout.tensors.iter().filter(|tensor| tensor.class == TensorClass::Statistic);
    let unknown =
        statistics.filter(|tensor| expected.contains(&tensor.name) && !description.statistics.contains(&tensor.name));
    faults.extend(unknown.map(|tensor| {
        format!("{}: ingredients differ in it, but the graph does not compute it anew for a soup", tensor.name)
    }));
    if faults.is_empty() { Ok(()) } else { Err(tensor_fault(first, &faults)) }
}

/// That tensors which are constants of the graph are those of the zoo. Its ingredients have equal ones, which the layout checks.
fn check_constants(description: &Description, first: &Ingredient) -> Result<(), FamilyError> {
    let mut faults = Vec::new();
    for (name, expected) in &description.constants {
        if first.info(name).is_none() {
            continue;
        }
        let bytes = first.bytes(name).map_err(|error| tensor_fault(first, &[error.to_string()]))?;
        if blake3::hash(&bytes).to_hex().as_str() != expected {
            faults.push(format!(
                "{name}: is a constant of the graph, which was made from an ingredient with other values. Make the \
                 graph from an ingredient of this zoo: {COMMAND} {} --out FOLDER",
                first.folder().unwrap_or_else(|| first.path()).display()
            ));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(tensor_fault(first, &faults)) }
}

fn listed(names: &[&str]) -> String {
    match names.len() {
        0 => "nothing".to_string(),
        n if n <= LISTED => names.join(", "),
        n => format!("{} and {} more", names[..LISTED].join(", "), n - LISTED),
    }
}

/// What a person should know where another version of torch made the graph.
fn other_version(description: &Description) -> Vec<String> {
    let release = |version: &str| version.split('+').next().unwrap_or_default().to_string();
    let own = release(env!("MEHL_SOUP_LIBTORCH_VERSION"));
    match description.versions.get("torch") {
        Some(made) if release(made) != own => {
            vec![format!("a graph that torch {made} made computes the same with libtorch {own}")]
        }
        _ => vec![],
    }
}
