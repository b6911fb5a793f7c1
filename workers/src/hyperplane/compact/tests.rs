use super::kernels::{CompactMix, CompactProject, mix, project};
use super::*;
use crate::hyperplane::kernels::{BLOCK, Sink, Source};
use proptest::prelude::*;

const CODES: [Code; 3] = [Code::Bf16, Code::Int8, Code::Int4];

fn values(n: usize, seed: u32) -> Vec<f32> {
    let word = |i: u32| (i + 1_000_003 * seed).wrapping_mul(2_654_435_761);
    (0..n as u32).map(|i| ((word(i) >> 8) as f32 / (1 << 23) as f32 - 1.0) * 1e-3).collect()
}

fn row(rows: &CompactRows, k: usize) -> Vec<f64> {
    Vec::try_from(rows.unpacked(k..k + 1, Kind::Double).unwrap().contiguous().view(-1)).unwrap()
}

/// What a value may be off by in a group with this largest magnitude.
fn bound(code: Code, value: f32, largest: f32) -> f64 {
    match code {
        Code::Bf16 => f64::from(value.abs()) * 2f64.powi(-8),
        _ => f64::from(largest / code.limit()) * 0.5 * (1.0 + 2f64.powi(-6)) + 1e-42,
    }
}

fn stored(code: Code, values: &[f32], members: usize) -> CompactRows {
    let mut rows = CompactRows::new(code, members, values.len() / members).unwrap();
    values.chunks(values.len() / members).enumerate().for_each(|(k, row)| rows.store(k, row));
    rows
}

proptest! {
    #[test]
    fn values_come_back_within_the_bound(
        group in proptest::collection::vec((-1f32..1.0, -30..3i32), 1..200), code in 0..3usize,
    ) {
        let (code, group): (_, Vec<f32>) = (CODES[code], group.iter().map(|(v, e)| v * 10f32.powi(*e)).collect());
        let rows = stored(code, &group, 1);
        for (i, (&value, back)) in group.iter().zip(row(&rows, 0)).enumerate() {
            let whole = &group[i / GROUP * GROUP..group.len().min((i / GROUP + 1) * GROUP)];
            let largest = whole.iter().fold(0f32, |m, v| m.max(v.abs()));
            let error = (f64::from(value) - back).abs();
            prop_assert!(error <= bound(code, value, largest), "{code:?} {i}: {value} came back as {back}");
        }
    }
}

#[test]
fn kernels_agree_with_the_rows_as_libtorch_reads_them_on_any_number_of_threads() {
    let (n, b) = (2 * CHUNK + BLOCK + 37, 3);
    let (all, base, gradient) = (values(b * n, 1), values(n, 2), values(n, 3));
    let x = vec![0.5f32, -2.0, 3.0];
    for code in CODES {
        let rows = stored(code, &all, b);
        let host = rows.host();
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut out = vec![0f32; n];
                mix(vec![CompactMix { out: Sink::Own(&mut out), base: &base, rows: host, x: x.clone() }]);
                (out, project(&[CompactProject { rows: host, gradient: Source::Own(&gradient) }]))
            })
        };
        let (mixed, projected) = run(1);
        assert_eq!((mixed.clone(), projected.clone()), run(3));
        let whole: Vec<Vec<f64>> = (0..b).map(|k| row(&rows, k)).collect();
        for i in 0..n {
            let wanted = f64::from(base[i]) + (0..b).map(|k| f64::from(x[k]) * whole[k][i]).sum::<f64>();
            assert!((f64::from(mixed[i]) - wanted).abs() < 1e-9, "{code:?} {i}: {} {wanted}", mixed[i]);
        }
        for (k, dot) in projected[0].0.iter().enumerate() {
            let wanted: f64 = whole[k].iter().zip(&gradient).map(|(v, g)| v * f64::from(*g)).sum();
            let size: f64 = whole[k].iter().map(|v| v * v).sum::<f64>();
            assert!((dot - wanted).abs() < 1e-6 * size, "{code:?} {k}: {dot} {wanted}");
        }
        let square: f64 = gradient.iter().map(|g| f64::from(*g) * f64::from(*g)).sum();
        assert!((projected[0].1 / square - 1.0).abs() < 1e-6);
    }
}

#[test]
fn bytes_of_values() {
    assert_eq!(CODES.map(|code| code.bytes(640)), [1280, 660, 340]);
    assert_eq!(Code::Int4.bytes(1), 34);
}
