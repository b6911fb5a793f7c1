//! Mixing and projecting on a device: do they say what the host says, and how long do they take?

use std::fs;
use std::time::Instant;

use anyhow::{bail, ensure};
use mehl_soup::sweep::parse::parse_spec;
use mehl_soup::sweep::spec::{DirectionDtype, Grouping};
use mehl_soup::zoo::{LayerGroups, Layout, Zoo};
use mehl_soup_worker::engine::device;
use mehl_soup_worker::families;
use mehl_soup_worker::hyperplane::{Directions, MixedTensors, Stored, cuda};
use mehl_soup_worker::rng;
use rand_chacha::rand_core::Rng;
use tch::{Cuda, Device, Kind, Tensor};

use super::zoo::{self, Size};
use super::{BenchArgs, lines};

/// Calls that are timed together.
const CALLS: usize = 20;
/// Most by which the device may differ, relative to the norm of what the host finds: rounding in another order; rounded to bf16 afterwards.
const TOLERANCE: [f64; 2] = [1e-5, 4e-3];

/// Makes a zoo if there is none, then compares and times each dtype of directions.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let on = device::parse(&args.device)?;
    let Device::Cuda(index) = on else { bail!("--part kernels: expected --device cuda, found `{}`", args.device) };
    let out = args.out.join("small");
    zoo::make(&out, Size::VitS, args.ingredients, args.batch)?;
    let path = out.join("kernels.toml");
    fs::write(&path, "[zoo]\ningredients = [\"zoo/*\"]\n[data]\nlearn = \"learn.safetensors\"\n")?;
    let spec = parse_spec(&path)?;
    let mut paths = Zoo::find(&spec.zoo.ingredients, &out)?.paths;
    paths.truncate(args.ingredients);
    let zoo = Zoo::open(&paths)?;
    let layout = Layout::new(&zoo, &zoo.hash(None, &mut |_, _| ())?)?;
    let family = families::detect(spec.zoo.family, &zoo)?;
    let model = families::load(family, &spec.zoo, &zoo, &layout, Device::Cpu, Kind::Float)?;
    let mixed = MixedTensors::new(&layout, &LayerGroups::new(Grouping::Tensor, &layout), model.as_ref());
    let members: Vec<usize> = (0..zoo.len()).collect();
    match cuda::prepare(on) {
        Ok(()) => println!("by kernels: {} tensors, {} values, b = {}", mixed.names.len(), mixed.elements(), zoo.len()),
        Err(why) => println!("by libtorch's operations: {why}"),
    }
    let mut rng = rng::generator(1, "bench kernels", &[]);
    let mut number = || f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5;
    let x: Vec<f64> = (0..zoo.len() * mixed.group_count).map(|_| number()).collect();
    let gradients: Vec<Tensor> = mixed
        .sizes
        .iter()
        .map(|&n| Tensor::f_randn([n as i64], (Kind::Float, Device::Cpu)))
        .collect::<Result<_, _>>()?;
    for dtype in [DirectionDtype::F32, DirectionDtype::Bf16, DirectionDtype::Int8, DirectionDtype::Int4] {
        let directions = |device| -> anyhow::Result<Directions> {
            let zeros = |&n: &usize| Tensor::f_zeros([n as i64], (Kind::Float, device));
            let centre = mixed.sizes.iter().map(zeros).collect::<Result<_, _>>()?;
            Ok(Directions::new(&zoo, &members, &mixed, centre, Stored { device, kind: Kind::Float, dtype })?)
        };
        let (here, there) = (directions(Device::Cpu)?, directions(on)?);
        for (kind, tolerance) in [Kind::Float, Kind::BFloat16].into_iter().zip(TOLERANCE) {
            let leaves = |device| -> Result<Vec<Tensor>, tch::TchError> {
                mixed.sizes.iter().map(|&n| Tensor::f_zeros([n as i64], (kind, device))).collect()
            };
            let moved = |device: Device| -> Result<Vec<Tensor>, tch::TchError> {
                gradients.iter().map(|gradient| gradient.f_to_kind(kind)?.f_to_device(device)).collect()
            };
            let (expected, found) = (leaves(Device::Cpu)?, leaves(on)?);
            here.span.mix_into(&x, &expected)?;
            there.span.mix_into(&x, &found)?;
            let (mut off, mut all) = (0.0, 0.0);
            for (expected, found) in expected.iter().zip(&found) {
                let [expected, found] =
                    [expected.f_to_kind(Kind::Double)?, found.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?];
                off += (&expected - found).f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
                all += expected.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
            }
            let mix_error = f64::sqrt(off / all);
            let (expected, gradients) = (here.span.project(&moved(Device::Cpu)?)?, moved(on)?);
            let projected = there.span.project(&gradients)?;
            let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
            let mut differences = expected.dots.iter().zip(&projected.dots).map(|(a, b)| a - b);
            let project_error = f64::sqrt(squares(&mut differences) / squares(&mut expected.dots.iter().copied()));
            let norm_error = (projected.gradient_norm / expected.gradient_norm - 1.0).abs();
            let timed = |call: &dyn Fn() -> Result<(), tch::TchError>| -> Result<f64, tch::TchError> {
                call()?;
                Cuda::synchronize(index as i64);
                let began = Instant::now();
                (0..CALLS).try_for_each(|_| call())?;
                Cuda::synchronize(index as i64);
                Ok(began.elapsed().as_secs_f64() / CALLS as f64)
            };
            let mix_seconds = timed(&|| there.span.mix_into(&x, &found))?;
            let project_seconds = timed(&|| there.span.project(&gradients).map(drop))?;
            let bytes = there.span.bytes() as f64;
            println!(
                "{:<5} with {kind:?}: off by {mix_error:.1e} in mixing, {project_error:.1e} in projecting, {norm_error:.1e} in the norm; \
                 mix {:.3} ms ({:.0} GB/s of rows), project {:.3} ms ({:.0} GB/s)",
                format!("{dtype:?}").to_lowercase(),
                mix_seconds * 1e3,
                bytes / mix_seconds / 1e9,
                project_seconds * 1e3,
                bytes / project_seconds / 1e9,
            );
            ensure!(
                mix_error <= tolerance && project_error <= 1e-5 && norm_error <= 1e-5,
                "the device is off by more than rounding"
            );
            if let Some(file) = &args.lines {
                let line = serde_json::json!({
                    "what": "kernels", "device": args.device, "dtype": format!("{kind:?}"), "direction_dtype": format!("{dtype:?}").to_lowercase(),
                    "kernels": cuda::prepare(on).is_ok(), "k": zoo.len(), "b": zoo.len(), "parameters": mixed.elements(),
                    "mix_seconds": mix_seconds, "project_seconds": project_seconds, "stored_bytes": bytes,
                    "mix_error": mix_error, "project_error": project_error,
                });
                lines::append(file, 0, line)?;
            }
        }
    }
    Ok(())
}
