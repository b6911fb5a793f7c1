//! What compact directions cost in exactness, on the ingredients of a sweep: errors of directions, of gradients of x, of the soup.

use std::path::Path;

use anyhow::Context;
use mehl_soup::coefficients::Coefficients;
use mehl_soup::sweep::parse::parse_spec;
use mehl_soup::sweep::spec::{DirectionDtype, Grouping};
use mehl_soup::zoo::{HashCache, LayerGroups};
use mehl_soup_worker::engine::{Inputs, device};
use mehl_soup_worker::families::{Pass, Precision};
use mehl_soup_worker::hyperplane::{Directions, MixedTensors, Stored, write_soup};
use mehl_soup_worker::rng;
use rand_chacha::rand_core::Rng;
use tch::{Kind, Reduction, Tensor};

use super::BenchArgs;

/// Samples of the pass that gives the gradient.
const SAMPLES: usize = 128;
/// What an ingredient's coordinate is drawn from, as a part of its distance from the centre: where learned soups are.
const REACH: f64 = 0.5;

const COMPACT: [(DirectionDtype, &str); 3] =
    [(DirectionDtype::Bf16, "bf16"), (DirectionDtype::Int8, "int8"), (DirectionDtype::Int4, "int4")];

/// Compares each compact dtype with f32 for all ingredients of `spec` in one model batch, in layer groups of one tensor.
pub fn run(args: &BenchArgs, spec: &Path) -> anyhow::Result<()> {
    let threads = args.threads.unwrap_or_else(device::cores);
    tch::set_num_threads(threads as i32);
    device::limit_threads(threads);
    let spec = parse_spec(spec)?;
    let cache = HashCache::from_environment();
    let inputs =
        Inputs::open(&spec, tch::Device::Cpu, Kind::Float, cache.as_ref(), &mut |note| eprintln!("note: {note}"))?;
    let groups = LayerGroups::new(Grouping::Tensor, &inputs.layout);
    let mixed = MixedTensors::new(&inputs.layout, &groups, inputs.model.as_ref());
    let members: Vec<usize> = (0..inputs.zoo.len()).collect();
    let leaves = inputs.leaves(&mixed.names, Precision::Full)?.tensors;
    let open = |dtype| -> anyhow::Result<Directions> {
        let mean = Coefficients::mean_of(members.len(), mixed.group_count, &members);
        let mut centre = Vec::with_capacity(mixed.names.len());
        for ((name, &group), &n) in mixed.names.iter().zip(&mixed.groups).zip(&mixed.sizes) {
            let tensor = Tensor::f_zeros([n as i64], (Kind::Float, inputs.device))?;
            write_soup(&inputs.zoo, name, &mean.column(group), &tensor)?;
            centre.push(tensor);
        }
        let stored = Stored { device: inputs.device, kind: inputs.kind, dtype };
        Ok(Directions::new(&inputs.zoo, &members, &mixed, centre, stored)?)
    };
    let exact = open(DirectionDtype::F32)?;
    let at = |directions: &Directions, x: &[f64]| -> anyhow::Result<Vec<Tensor>> {
        directions.span.mix_into(x, &leaves)?;
        Ok(leaves.iter().map(|leaf| leaf.detach().copy()).collect())
    };
    let origin = vec![0.0; exact.norms.len()];
    let centre = at(&exact, &origin)?;
    let mut random = rng::generator(spec.seed, "directions", &[]);
    let mut draw = || f64::from(random.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0;
    let x: Vec<f64> = exact.norms.iter().map(|n| draw() * REACH * n).collect();
    let (soup, along) = (at(&exact, &x)?, along(&exact, members.len(), &origin, &at)?);
    exact.span.mix_into(&x, &leaves)?;
    let wanted = leaves.iter().collect::<Vec<_>>();
    let batch = inputs.data.learn.range(0, inputs.data.learn.samples().min(SAMPLES), inputs.device)?;
    let logits = inputs.model.outputs(&batch.inputs, Pass::Learn.with(Precision::Full))?;
    let loss = logits.f_cross_entropy_loss::<Tensor>(&batch.targets, None, Reduction::Mean, -100, 0.0)?;
    let gradients = Tensor::f_run_backward(&[&loss], &wanted, false, false)?;
    let dots = exact.span.project(&gradients)?.dots;
    println!(
        "{} ingredients, {} values in {} tensors; errors relative to f32: |difference| / |f32|",
        members.len(),
        mixed.elements(),
        mixed.names.len()
    );
    println!("dtype  bytes/value  directions  gradients of x  soup (of its distance from the centre)");
    for (dtype, name) in COMPACT {
        let compact = open(dtype)?;
        let of_directions = error(&self::along(&compact, members.len(), &origin, &at)?, &along, &centre)?;
        let of_soup = error(&[at(&compact, &x)?], std::slice::from_ref(&soup), &centre)?;
        let found = compact.span.project(&gradients)?.dots;
        let of_gradients = norm(found.iter().zip(&dots).map(|(a, b)| a - b)) / norm(dots.iter().copied());
        let bytes = compact.span.bytes() as f64 / (mixed.elements() * members.len()) as f64;
        println!("{name:5}  {bytes:11.2}  {of_directions:10.5}  {of_gradients:14.5}  {of_soup:.5}");
    }
    Ok(())
}

/// The soup one unit along each member's direction in turn, in all layer groups at once.
fn along(
    directions: &Directions,
    members: usize,
    origin: &[f64],
    at: &impl Fn(&Directions, &[f64]) -> anyhow::Result<Vec<Tensor>>,
) -> anyhow::Result<Vec<Vec<Tensor>>> {
    let groups = origin.len() / members.max(1);
    (0..members)
        .map(|k| {
            let mut x = origin.to_vec();
            x[k * groups..(k + 1) * groups].fill(1.0);
            at(directions, &x)
        })
        .collect()
}

/// Norm of the difference over all tensors of all soups, over the norm of what the exact ones are from the centre.
fn error(found: &[Vec<Tensor>], exact: &[Vec<Tensor>], centre: &[Tensor]) -> anyhow::Result<f64> {
    let (mut difference, mut whole) = (0.0, 0.0);
    for (found, exact) in found.iter().zip(exact) {
        for ((found, exact), centre) in found.iter().zip(exact).zip(centre) {
            let square = |a: &Tensor, b: &Tensor| -> anyhow::Result<f64> {
                let d = (a.f_to_kind(Kind::Double)?).f_sub(&b.f_to_kind(Kind::Double)?)?;
                d.f_square()?.f_sum(Kind::Double)?.f_double_value(&[]).context("a sum of squares")
            };
            difference += square(found, exact)?;
            whole += square(exact, centre)?;
        }
    }
    Ok((difference / whole).sqrt())
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}
