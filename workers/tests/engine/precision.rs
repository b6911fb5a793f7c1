//! bf16 and recomputed activations: gradients near those in f32 and equal to those without, exact resumption, and scores that are in f32 whatever the task was
//! learned in.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::golden::{tensor, try_load_in, zoo_spec};
use crate::support::{Recorder, engine, fixture, run};
use mehl_soup::checkpoint::Checkpoint;
use mehl_soup::coefficients::CoefficientsFile;
use mehl_soup::runner::engine::{Completion, EngineError, SoupEngine};
use mehl_soup::sweep::parse::parse_spec;
use mehl_soup::sweep::spec::{ComputeDtype, ZooSpec};
use mehl_soup_worker::data::Batch;
use mehl_soup_worker::engine::{Clock, Inputs, dtype};
use mehl_soup_worker::families::{Model, ModelInputs, Pass, Precision};
use mehl_soup_worker::hyperplane::write_soup;
use mehl_soup_worker::objectives::{
    Backward, Classification, Course, GradientSink, Leaves, Objective, Step, WholeGradient,
};
use safetensors::SafeTensors;
use tch::{Device, Kind, TchError, Tensor};

/// Bound on the relative error of logits and gradients in bf16, as Euclidean norms. One rounding to bf16 is off by at most 2^-9 = 0.002; these models have
/// some ten to thirty of them in a row.
const TOLERANCE: f64 = 0.05;

/// Where gradients are discontinuous (ReLU), what is near 0 may fall on either side: then no dtype is near another. So an error is allowed too if it is at most
/// this many times the one that f32 itself shows when its images alone are rounded to bf16. PyTorch's autocast has the same: 0.27 where the first case of a ResNet
/// has 0.24.
const OF_ROUNDED_IMAGES: f64 = 4.0;

/// Images for ResNets.
const IMAGES: i64 = 16;

/// Named inputs.
type Named = Vec<(String, Tensor)>;

/// A model of the fixtures in f32, its inputs and labels.
type Case = (Box<dyn Model>, Named, Tensor);

fn inputs(named: &Named) -> ModelInputs {
    ModelInputs::new(named.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect())
}

/// The inputs that a golden file has.
fn golden_inputs(golden: &Path) -> Named {
    let bytes = std::fs::read(golden).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let is_there = |name: &&str| file.names().contains(name);
    let read = |name: &str| {
        let kind = if name == "pixel_values" { Kind::Float } else { Kind::Int64 };
        (name.to_string(), tensor(golden, name, kind))
    };
    ["pixel_values", "input_ids", "attention_mask", "token_type_ids"].into_iter().filter(is_there).map(read).collect()
}

fn model(case: &str, heads: Option<usize>) -> Case {
    let folder = fixture(case);
    let ingredient =
        if folder.join("config.json").exists() { folder.clone() } else { folder.join("model.safetensors") };
    let spec = ZooSpec { heads, ..zoo_spec(None) };
    let (_, model) = try_load_in(Kind::Float, &[ingredient], &spec).unwrap_or_else(|error| panic!("{error}"));
    let golden = folder.join("golden.safetensors");
    let named = golden_inputs(&golden);
    if case.starts_with("resnet") {
        // The fixture's few small images leave 4 values a channel to the last norms.
        let channels = named[0].1.size()[1];
        let pixel = |i: i64| ((i * 7919 + i / 64 * 104_729) % 1009) as f32 / 504.0 - 1.0;
        let pixels: Vec<f32> = (0..IMAGES * channels * 64 * 64).map(pixel).collect();
        let pixels = Tensor::from_slice(&pixels).view([IMAGES, channels, 64, 64]);
        let labels = Tensor::arange(IMAGES, (Kind::Int64, Device::Cpu)).remainder(5);
        return (model, vec![("inputs".to_string(), pixels)], labels);
    }
    (model, named, tensor(&golden, "labels", Kind::Int64))
}

/// One model of each family and of each of its ways to compute.
const CASES: [(&str, Option<usize>); 19] = [
    ("vit/vit", None),
    ("vit/vit_nobias_relu", None),
    ("vit/vit_quick_gelu", None),
    ("vit/deit_teacher", None),
    ("clip/openai", Some(2)),
    ("clip/hugging_face", None),
    ("timm/vit", None),
    ("timm/gap", None),
    ("timm/clip", None),
    ("timm/distilled", None),
    ("resnet/basic", None),
    ("resnet/bottleneck", None),
    ("resnet/timm", None),
    ("encoders/bert", None),
    ("encoders/xlm_roberta", None),
    ("encoders/distilbert", None),
    ("encoders/st_normalised", None),
    ("encoders/modernbert", None),
    ("encoders/modernbert_mean", None),
];

fn compute(
    (model, named, labels): &Case,
    precision: Precision,
    course: Course,
    temperature: Option<f64>,
) -> WholeGradient {
    let backward = Backward { how: Pass::Learn.with(precision), course };
    let batch = Batch::new(inputs(named), labels.shallow_clone());
    gradient_of(model.as_ref(), &batch, &Leaves::all(model.as_ref()), temperature, backward)
}

fn gradient_of(
    model: &dyn Model,
    batch: &Batch,
    leaves: &Leaves,
    temperature: Option<f64>,
    backward: Backward,
) -> WholeGradient {
    let mut clock = Clock::new(Device::Cpu);
    WholeGradient::compute(&Classification, model, batch, leaves, temperature, backward, &mut clock).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.to_kind(Kind::Double).contiguous().view(-1)).unwrap()
}

/// `|a - b| / |b|` over all values together.
fn relative_error(a: &[Tensor], b: &[Tensor]) -> f64 {
    let (mut difference, mut own) = (0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        for (a, b) in values(a).iter().zip(values(b)) {
            difference += (a - b) * (a - b);
            own += b * b;
        }
    }
    (difference / own).sqrt()
}

#[test]
fn bf16_is_near_f32_in_every_family() {
    for (case, heads) in CASES {
        let case_model = model(case, heads);
        let (model, named, _) = &case_model;
        for pass in [Pass::Learn, Pass::Score] {
            let logits = |precision| {
                let logits = model.outputs(&inputs(named), pass.with(precision)).unwrap().detach();
                assert_eq!(logits.kind(), Kind::Float, "{case}");
                [logits]
            };
            let error = relative_error(&logits(Precision::Bf16), &logits(Precision::Full));
            println!("{case}: {pass:?}: logits {error:.5}");
            // Not 0 either: that would be f32.
            assert!(error > 1e-6 && error < TOLERANCE, "{case}, {pass:?}: logits are off by {error}");
        }
        let (full, narrow) = (
            compute(&case_model, Precision::Full, Course::Whole, None),
            compute(&case_model, Precision::Bf16, Course::Whole, None),
        );
        let error = relative_error(&narrow.leaves, &full.leaves);
        // Numbers of tokens are not rounded.
        let round = |t: &Tensor| match t.kind() {
            Kind::Float => t.to_kind(Kind::BFloat16).to_kind(Kind::Float),
            _ => t.shallow_clone(),
        };
        let rounded = named.iter().map(|(name, t)| (name.clone(), round(t))).collect();
        let batch = Batch::new(ModelInputs::new(rounded), case_model.2.shallow_clone());
        let backward = Backward { how: Pass::Learn.full(), course: Course::Whole };
        let of_rounded = gradient_of(model.as_ref(), &batch, &Leaves::all(model.as_ref()), None, backward);
        let floor = relative_error(&of_rounded.leaves, &full.leaves);
        println!("{case}: gradients {error:.5}, of rounded images {floor:.5}");
        let bound = TOLERANCE.max(OF_ROUNDED_IMAGES * floor);
        assert!(
            error > 1e-6 && error < bound && error < 0.5,
            "{case}: gradients are off by {error}, images by {floor}"
        );
        assert!((narrow.loss - full.loss).abs() < TOLERANCE * full.loss, "{case}: {} {}", narrow.loss, full.loss);
        for (name, (gradient, leaf)) in
            model.parameters().keys().zip(narrow.leaves.iter().zip(model.parameters().values()))
        {
            assert_eq!((gradient.kind(), gradient.size()), (Kind::Float, leaf.size()), "{case}: {name}");
        }
    }
}

/// A soup that the mix writes in bf16 is what the pass would have rounded it to, and nothing that a pass takes in f32 is among it.
#[test]
fn leaves_in_bf16_give_the_bits_of_leaves_that_the_pass_rounds() {
    for (case, heads) in CASES {
        let case_model = model(case, heads);
        let model = &case_model.0;
        for course in [Course::Whole, Course::ByParts { recompute: false }, Course::ByParts { recompute: true }] {
            let wide = compute(&case_model, Precision::Bf16, course, None);
            let mut rounded = 0;
            for (name, leaf) in model.parameters().iter().filter(|(name, _)| model.rounds(name)) {
                rounded += leaf.numel();
                leaf.shallow_clone().set_data(&leaf.detach().to_kind(Kind::BFloat16));
                assert!(model.parameters()[name].kind() == Kind::BFloat16 && model.parameters()[name].requires_grad());
            }
            let all: usize = model.parameters().values().map(Tensor::numel).sum();
            assert!(rounded > all / 2, "{case}: {rounded} of {all} values are rounded");
            let narrow = compute(&case_model, Precision::Bf16, course, None);
            assert_eq!(wide.loss, narrow.loss, "{case}");
            for (name, (a, b)) in model.parameters().keys().zip(wide.leaves.iter().zip(&narrow.leaves)) {
                let kind = if model.rounds(name) { Kind::BFloat16 } else { Kind::Float };
                assert_eq!((a.kind(), b.kind()), (Kind::Float, kind), "{case}: {name}");
                assert!(values(a) == values(b), "{case}: {name} differs");
            }
            for leaf in model.parameters().values() {
                leaf.shallow_clone().set_data(&leaf.detach().to_kind(Kind::Float));
            }
        }
    }
}

#[test]
fn a_pass_by_parts_and_recomputed_activations_give_the_same_bits() {
    for (case, heads) in CASES {
        let case_model = model(case, heads);
        assert!(case_model.0.parts() > 2, "{case} is cut in parts");
        for precision in [Precision::Full, Precision::Bf16] {
            for temperature in [None, Some(1.5)] {
                let whole = compute(&case_model, precision, Course::Whole, temperature);
                for recompute in [false, true] {
                    let parts = compute(&case_model, precision, Course::ByParts { recompute }, temperature);
                    let where_ = format!("{case}, {precision:?}, recompute {recompute}");
                    assert_eq!((whole.loss, whole.temperature), (parts.loss, parts.temperature), "{where_}");
                    for (name, (a, b)) in case_model.0.parameters().keys().zip(whole.leaves.iter().zip(&parts.leaves)) {
                        assert!(values(a) == values(b), "{where_}: {name} differs");
                    }
                }
            }
        }
    }
}

/// Notes how many gradients came at a time.
#[derive(Default)]
struct Counted(Vec<usize>);

impl GradientSink for Counted {
    fn take(&mut self, gradients: Vec<(usize, Tensor)>) -> Result<(), TchError> {
        assert!(gradients.is_sorted_by_key(|(leaf, _)| *leaf));
        self.0.push(gradients.len());
        Ok(())
    }
}

#[test]
fn gradients_are_given_away_part_by_part() {
    for (case, heads) in CASES {
        let (model, named, labels) = model(case, heads);
        let batch = Batch::new(ModelInputs::new(named), labels);
        let leaves = Leaves::all(model.as_ref());
        for course in [Course::Whole, Course::ByParts { recompute: false }] {
            let mut sink = Counted::default();
            let backward = Backward { how: Pass::Learn.full(), course };
            let clock = &mut Clock::new(Device::Cpu);
            let mut step = Step { leaves: &leaves, inverse_temperature: None, backward, clock, sink: &mut sink };
            Classification.gradients(model.as_ref(), &batch, &mut step).unwrap();
            assert_eq!(sink.0.iter().sum::<usize>(), leaves.tensors.len(), "{case}, {course:?}");
            if course == Course::Whole {
                assert_eq!(sink.0.len(), 1, "{case}");
            } else {
                // Each part has parameters of its own, all but a pooling, and gives their gradients when it is done.
                let owners: BTreeSet<usize> = model.parameters().keys().map(|name| model.first_part_of(name)).collect();
                let given = sink.0.iter().filter(|&&count| count > 0).count();
                assert_eq!((sink.0.len(), given), (model.parts(), owners.len()), "{case}: {:?}", sink.0);
                let is_pooling = case.starts_with("encoders/st_");
                assert_eq!(model.parts() - owners.len(), usize::from(is_pooling), "{case}");
            }
        }
    }
}

#[test]
fn recomputing_leaves_out_parts_without_gradient() {
    let (model, named, labels) = model("vit/vit", None);
    for (name, leaf) in model.parameters() {
        if !name.contains("layer.1.") {
            let _ = leaf.set_requires_grad(false);
        }
    }
    let moving = model.parameters().iter().filter(|(_, leaf)| leaf.requires_grad());
    let leaves = Leaves::new(model.as_ref(), moving.map(|(name, leaf)| (name.as_str(), leaf.shallow_clone())));
    assert!(!leaves.tensors.is_empty() && leaves.tensors.len() < model.parameters().len());
    let found = |course| {
        let backward = Backward { how: Pass::Learn.full(), course };
        let batch = Batch::new(inputs(&named), labels.shallow_clone());
        gradient_of(model.as_ref(), &batch, &leaves, None, backward).leaves.iter().map(values).collect::<Vec<_>>()
    };
    let expected = found(Course::Whole);
    assert_eq!(found(Course::ByParts { recompute: false }), expected);
    assert_eq!(found(Course::ByParts { recompute: true }), expected);
}

fn spec(soup: &str, compute: &str) -> String {
    let learn = fixture("trajectories/learn.safetensors");
    format!(
        "seed = 4\n[zoo]\nallow_chance = true\ningredients = ['{}']\n[data]\nlearn = '{learn}'\nselect = '{learn}'\ntest = '{learn}'\n[soup]\n{soup}\n[compute]\n{compute}\n",
        fixture("trajectories/zoo/*").display(),
        learn = learn.display()
    )
}

/// Runs a task that is stopped every `interval` iterations, each attempt under the next of the `[compute]` sections in turn, by a new engine.
fn in_pieces(soup: &str, compute: &[&str], interval: u64) -> (Completion, Vec<Checkpoint>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let (mut checkpoints, mut notes, mut manifest) = (vec![], vec![], None);
    for attempt in 0..200 {
        let (mut one, task) = engine(folder.path(), &spec(soup, compute[attempt % compute.len()]), Kind::Float);
        let manifest = match &manifest {
            Some(known) => known,
            None => manifest.insert(one.scores(None, &mut Recorder::default()).unwrap()),
        };
        let resume: Option<Checkpoint> = checkpoints.last().cloned();
        let done = resume.as_ref().map_or(0, |checkpoint| checkpoint.totals.effort.iterations);
        let mut recorder = Recorder { stop_after: Some(done + interval), ..Recorder::default() };
        let ran = one.run(&task, manifest, resume, &mut recorder);
        notes.append(&mut recorder.notes);
        match ran {
            Ok(completion) => return (completion, checkpoints, notes),
            Err(EngineError::Stopped) => checkpoints.extend(recorder.checkpoints.pop()),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it does not end");
}

fn whole(soup: &str, compute: &str) -> Completion {
    run(tempfile::tempdir().unwrap().path(), &spec(soup, compute), Kind::Float).unwrap().0
}

#[test]
fn a_task_in_bf16_goes_on_with_the_same_bits_in_the_dtype_in_which_it_began() {
    for soup in [
        "method = 'mehl+'\nmodel_batch = 2\ninner_epochs = 3\nouter_epochs = 2\nbatch = 10",
        "method = 'learned+'\ninner_epochs = 3\nbatch = 10",
        "method = 'mehl'\nmodel_batch = 2\ninner_epochs = 2\nbatch = 7\ninit = 'greedy'",
    ] {
        let expected = whole(soup, "dtype = 'bf16'");
        assert!(expected.exact && expected.dtype == ComputeDtype::Bf16);
        assert_ne!(expected.coefficients, whole(soup, "dtype = 'f32'").coefficients, "bf16 is another computation");
        // Those who go on with it are told to compute in f32, or to recompute activations: neither matters.
        let compute = ["dtype = 'bf16'", "dtype = 'f32'", "recompute = true"];
        let (found, checkpoints, notes) = in_pieces(soup, &compute, 2);
        assert!(checkpoints.len() > 3 && checkpoints.iter().all(|c| c.dtype == ComputeDtype::Bf16));
        assert_eq!(found.coefficients, expected.coefficients, "{soup}");
        assert!(found.exact && notes.iter().any(|note| note.contains("continues in bf16")), "{notes:?}");
    }
}

#[test]
fn scores_are_in_f32_whatever_the_task_was_learned_in() {
    let folder = tempfile::tempdir().unwrap();
    let text = spec("method = 'mehl+'\nmodel_batch = 2\ninner_epochs = 2\nbatch = 10", "dtype = 'bf16'");
    let (completion, _) = run(folder.path(), &text, Kind::Float).unwrap();
    let file = CoefficientsFile::from_bytes(&completion.coefficients).unwrap();
    assert!(file.about.notes.iter().any(|note| note.contains("learned in bf16")), "{:?}", file.about.notes);
    let spec = parse_spec(&folder.path().join("sweep.toml")).unwrap();
    let inputs = Inputs::open(&spec, Device::Cpu, Kind::Float, None, &mut |_| {}).unwrap();
    for (name, &group) in &file.about.tensors {
        write_soup(&inputs.zoo, name, &file.coefficients.column(group), &inputs.model.parameters()[name]).unwrap();
    }
    let score = |precision| inputs.score(inputs.data.test.as_ref().unwrap(), 256, precision).unwrap();
    assert_eq!(completion.scores.test, Some(score(Precision::Full)));
    assert_ne!(completion.scores.test, Some(score(Precision::Bf16)));
}

/// What bf16 costs on a small zoo; docs/speed.md has larger ones.
#[test]
fn bf16_ends_where_f32_ends() {
    for method in ["mehl", "mehl+", "hl+", "learned+", "steady"] {
        let soup = format!("method = '{method}'\nmodel_batch = 2\ninner_epochs = 4\nbatch = 10");
        let loss = |compute: &str| whole(&soup, compute).scores.test.unwrap().loss;
        let (bf16, f32) = (loss("dtype = 'bf16'"), loss("dtype = 'f32'"));
        println!("{method}: test loss {bf16} in bf16, {f32} in f32");
        assert!((bf16 - f32).abs() <= 0.005, "{method}: {bf16} in bf16, {f32} in f32");
    }
}

#[test]
fn auto_is_f32_for_small_models_and_by_device_for_large_ones() {
    let (model, _, _) = model("vit/vit", None);
    let auto = |elements| dtype::resolve(None, Kind::Float, Device::Cpu, model.as_ref(), elements).0;
    assert_eq!(auto(dtype::LARGE - 1), ComputeDtype::F32);
    let has = std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("avx512_bf16"));
    assert_eq!(auto(dtype::LARGE), if has { ComputeDtype::Bf16 } else { ComputeDtype::F32 });
    let stated = |stated, kind| dtype::resolve(Some(stated), kind, Device::Cpu, model.as_ref(), dtype::LARGE).0;
    assert_eq!(stated(ComputeDtype::Bf16, Kind::Float), ComputeDtype::Bf16);
    assert_eq!(stated(ComputeDtype::F32, Kind::Float), ComputeDtype::F32);
    assert_eq!(stated(ComputeDtype::F64, Kind::Double), ComputeDtype::F64);
}

#[test]
fn a_torchscript_module_computes_in_f32_and_says_so() {
    let text = fixture("text");
    let spec = |compute: &str| {
        format!(
            "[zoo]\nallow_chance = true\ningredients = ['{t}/zoo/*']\nfamily = 'torchscript'\narchitecture = '{t}/model.pt'\n\
             [data]\nlearn = '{t}/learn.safetensors'\nselect = '{t}/select.safetensors'\ninputs = ['input_ids', 'attention_mask']\n\
             [soup]\nmethod = 'mehl+'\nmodel_batch = 2\ninner_epochs = 1\nbatch = 20\n[compute]\n{compute}\n",
            t = text.display()
        )
    };
    let of = |compute: &str| run(tempfile::tempdir().unwrap().path(), &spec(compute), Kind::Float).unwrap();
    let ((expected, _), (found, recorder)) = (of("dtype = 'f32'"), of("dtype = 'bf16'\nrecompute = true"));
    assert_eq!(found.coefficients, expected.coefficients);
    assert!(recorder.notes.iter().any(|note| note.contains("computes in f32")), "{:?}", recorder.notes);
}
