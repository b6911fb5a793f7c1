//! Running statistics of batch normalisation: a soup has its own, whatever becomes of a mix of its ingredients'.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::{Recorder, engine, fixture, read_floats, run};
use mehl_soup::coefficients::{CoefficientsFile, Options, materialize};
use mehl_soup::runner::engine::{EngineError, SoupEngine};
use mehl_soup::sweep::parse::parse_spec;
use mehl_soup::sweep::score::SplitScore;
use mehl_soup_worker::engine::Inputs;
use mehl_soup_worker::families::Precision;
use mehl_soup_worker::hyperplane::write_soup;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind};

const SAMPLES: usize = 41;
const SIDE: usize = 16;
const CLASSES: i64 = 5;

/// Numbers in [-0.5, 0.5) that only depend on where they are.
fn noise(i: usize) -> f32 {
    let x = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x2545_f491_4f6c_dd1d);
    ((x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f32 / (1 << 24) as f32 - 0.5
}

fn bytes(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

/// Three ingredients around the fixture's model: weights a little apart; the first one's variances far below the others'.
fn write_zoo(folder: &Path) -> Vec<PathBuf> {
    let model = std::fs::read(fixture("resnet/basic/model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&model).unwrap();
    let write = |k: usize| {
        let changed: Vec<(String, TensorView<'_>, Vec<u8>)> = tensors
            .tensors()
            .into_iter()
            .map(|(name, view)| {
                let data = if view.dtype() == Dtype::F32 {
                    let at = blake3::hash(name.as_bytes()).as_bytes()[0] as usize * 4096 + k * 1_000_000;
                    let values = view.data().as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c));
                    let scale = if name.ends_with("running_var") { 1.0 + 9.0 * k as f32 } else { 1.0 };
                    let spread = if name.contains("running") { 0.0 } else { 0.1 };
                    bytes(values.enumerate().map(|(i, v)| v * scale + spread * noise(at + i)))
                } else {
                    // Fine-tunes of different lengths have counted different numbers of batches.
                    (k as i64).to_le_bytes().to_vec()
                };
                (name, view, data)
            })
            .collect();
        let views = changed.iter().map(|(name, view, data)| {
            (name.as_str(), TensorView::new(view.dtype(), view.shape().to_vec(), data).unwrap())
        });
        let path = folder.join(format!("zoo/k{k}.safetensors"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        path
    };
    (0..3).map(write).collect()
}

fn write_data(folder: &Path) {
    let pixels = bytes((0..SAMPLES * 3 * SIDE * SIDE).map(|i| 2.0 * noise(i) + (i / (3 * SIDE * SIDE)) as f32 * 0.02));
    let labels: Vec<u8> = (0..SAMPLES as i64).flat_map(|i| (i % CLASSES).to_le_bytes()).collect();
    let views = [
        ("inputs", TensorView::new(Dtype::F32, vec![SAMPLES, 3, SIDE, SIDE], &pixels).unwrap()),
        ("labels", TensorView::new(Dtype::I64, vec![SAMPLES], &labels).unwrap()),
    ];
    std::fs::write(folder.join("data.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}

fn setup() -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let zoo = write_zoo(folder.path());
    write_data(folder.path());
    (folder, zoo)
}

fn spec(ingredients: &str, soup: &str) -> String {
    format!(
        "seed = 3\n[zoo]\nallow_chance = true\ningredients = ['{ingredients}']\n[data]\nlearn = 'data.safetensors'\nselect = 'data.safetensors'\n[soup]\n{soup}\n"
    )
}

fn inputs(folder: &Path, ingredients: &str) -> Inputs {
    let path = folder.join("one.toml");
    std::fs::write(&path, spec(ingredients, "method = 'uniform'")).unwrap();
    Inputs::open(&parse_spec(&path).unwrap(), Device::Cpu, Kind::Float, None, &mut |_| {}).unwrap()
}

fn statistics(inputs: &Inputs) -> BTreeMap<String, Vec<f32>> {
    let of = inputs.model.statistics().unwrap();
    of.iter().map(|(name, t)| (name.clone(), Vec::<f32>::try_from(t.contiguous().view(-1)).unwrap())).collect()
}

fn same(a: &SplitScore, b: &SplitScore) {
    assert!((a.loss - b.loss).abs() < 1e-6 && a.metrics().eq(b.metrics()), "{a:?} {b:?}");
}

#[test]
fn a_soup_whose_mixed_variances_are_negative_has_positive_ones_of_its_own_and_is_written_with_them() {
    let (folder, zoo) = setup();
    let inputs = inputs(folder.path(), "zoo/*");
    // Coefficients of the hyperplane: they sum to 1, and extrapolate away from the second ingredient.
    let a = [2.0, -1.0, 0.0];
    for (name, tensor) in inputs.model.parameters() {
        write_soup(&inputs.zoo, name, &a, tensor).unwrap();
    }
    for (name, tensor) in inputs.model.statistics().unwrap() {
        write_soup(&inputs.zoo, name, &a, tensor).unwrap();
    }
    let mixed = statistics(&inputs);
    let variances = |of: &BTreeMap<String, Vec<f32>>| -> Vec<f32> {
        of.iter().filter(|(name, _)| name.ends_with("running_var")).flat_map(|(_, v)| v.clone()).collect()
    };
    assert!(variances(&mixed).iter().all(|&v| v < 0.0), "the mix is what this test is about");
    let broken = inputs.score(&inputs.data.select, 16, Precision::Full);
    assert!(matches!(broken, Err(EngineError::Numerics(_))), "roots of negative numbers: {broken:?}");

    inputs.collect_statistics(Precision::Full).unwrap();
    let own = statistics(&inputs);
    assert!(variances(&own).iter().all(|&v| v > 0.0 && v.is_finite()));
    let score = inputs.score(&inputs.data.select, 16, Precision::Full).unwrap();
    // Again, after whatever was there: the same bits.
    inputs.restore_statistics(1).unwrap();
    inputs.collect_statistics(Precision::Full).unwrap();
    assert_eq!(statistics(&inputs), own);

    // The soup as a coefficients file, written, and opened as an ingredient, which is scored with the statistics that it holds.
    let text = spec("zoo/*", "method = 'uniform'");
    let (completion, _) = run(folder.path(), &text, Kind::Float).unwrap();
    let mut file = CoefficientsFile::from_bytes(&completion.coefficients).unwrap();
    assert_eq!(file.statistics.len(), own.len());
    file.coefficients = mehl_soup::coefficients::Coefficients::from_values(3, 1, a.to_vec()).unwrap();
    for (name, values) in &own {
        file.statistics.get_mut(name).unwrap().values = values.clone();
    }
    let out = folder.path().join("soup");
    materialize(&file, &Options { out: out.clone(), zoo: Some(zoo), ..Options::default() }, None, &mut |_, _| {})
        .unwrap();
    let alone = self::inputs(folder.path(), "soup");
    assert_eq!(statistics(&alone), own);
    same(&alone.score(&alone.data.select, 16, Precision::Full).unwrap(), &score);
}

#[test]
fn the_best_ingredient_keeps_its_own_statistics() {
    let (folder, zoo) = setup();
    let (mut engine, task) = engine(folder.path(), &spec("zoo/*", "method = 'best'"), Kind::Float);
    let manifest = engine.scores(None, &mut Recorder::default()).unwrap();
    let completion = engine.run(&task, &manifest, None, &mut Recorder::default()).unwrap();
    let file = CoefficientsFile::from_bytes(&completion.coefficients).unwrap();
    let best = file.coefficients.single_ingredient().unwrap();
    same(&completion.scores.select, &manifest.ingredients[best].select.unwrap());
    let own = read_floats(&zoo[best]);
    for (name, statistic) in &file.statistics {
        assert!(statistic.values.iter().map(|&v| f64::from(v)).eq(own[name].iter().copied()), "{name}");
    }
}

#[test]
fn a_task_that_goes_on_ends_with_the_same_bits_statistics_included() {
    for soup in [
        "method = 'mehl+'\nmodel_batch = 2\ninner_epochs = 2\nbatch = 8\nlearning_rate = 0.5",
        "method = 'hl'\ninner_epochs = 2\nbatch = 10\ninit = 'greedy'",
        "method = 'learned+'\ninner_epochs = 2\nbatch = 20",
        "method = 'mehl+'\nmodel_batch = 2\ninner_epochs = 2\nbatch = 8\n[compute]\ndtype = 'bf16'\nrecompute = true",
    ] {
        let (folder, _zoo) = setup();
        let text = spec("zoo/*", soup);
        let (mut whole, task) = engine(folder.path(), &text, Kind::Float);
        let manifest = whole.scores(None, &mut Recorder::default()).unwrap();
        let expected = whole.run(&task, &manifest, None, &mut Recorder::default()).unwrap();
        let file = CoefficientsFile::from_bytes(&expected.coefficients).unwrap();
        assert!(!file.statistics.is_empty());
        let (mut pieces, task) = engine(folder.path(), &text, Kind::Float);
        let (mut resume, mut attempts) = (None, 0);
        let found = loop {
            attempts += 1;
            // First of all at a rung, where it is scored with statistics of its own.
            let rung = (attempts == 1 && !soup.contains("mehl")).then_some(1);
            let stop_after = rung.is_none().then_some(attempts);
            let mut recorder = Recorder { stop_after, rung, ..Recorder::default() };
            match pieces.run(&task, &manifest, resume.take(), &mut recorder) {
                Ok(completion) => break completion,
                Err(EngineError::Stopped) if rung.is_none() => resume = recorder.checkpoints.pop(),
                Err(EngineError::AtRung(_)) => resume = recorder.checkpoints.pop(),
                Err(error) => panic!("{error}"),
            }
        };
        assert!(attempts > 2 && found.exact);
        assert_eq!(found.coefficients, expected.coefficients, "{soup}");
    }
}

#[test]
fn a_last_batch_of_one_sample_is_no_fault() {
    let (folder, _zoo) = setup();
    // 41 samples in batches of 8: the last one would have one, and at 16 pixels the last stage has one value a channel of it.
    let (completion, _) =
        run(folder.path(), &spec("zoo/*", "method = 'hl'\ninner_epochs = 1\nbatch = 8"), Kind::Float).unwrap();
    assert_eq!((completion.effort.iterations, completion.effort.samples), (5, SAMPLES as u64));
}

#[test]
fn statistics_equal_in_all_ingredients_are_constants() {
    let (folder, zoo) = setup();
    // The same statistics everywhere: fine-tuned with them fixed.
    let own = std::fs::read(&zoo[0]).unwrap();
    let of_first = SafeTensors::deserialize(&own).unwrap();
    for path in &zoo[1..] {
        let bytes = std::fs::read(path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let views: Vec<_> =
            tensors
                .tensors()
                .into_iter()
                .map(|(name, view)| {
                    if name.contains("running") {
                        (name.clone(), of_first.tensor(&name).unwrap())
                    } else {
                        (name, view)
                    }
                })
                .collect();
        std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }
    let (completion, _) = run(
        folder.path(),
        &spec("zoo/*", "method = 'mehl'\nmodel_batch = 3\ninner_epochs = 1\nbatch = 16"),
        Kind::Float,
    )
    .unwrap();
    let file = CoefficientsFile::from_bytes(&completion.coefficients).unwrap();
    assert!(file.statistics.is_empty());
    let out = folder.path().join("soup");
    materialize(&file, &Options { out: out.clone(), ..Options::default() }, None, &mut |_, _| {}).unwrap();
    let (written, first) = (read_floats(&out.join("model.safetensors")), read_floats(&zoo[0]));
    assert!(first.iter().filter(|(name, _)| name.contains("running")).all(|(name, values)| written[name] == *values));
}
