//! The two memory-bound loops of an iteration on the CPU: mixing and projection.
//!
//! Both read every stored value once, over all ingredients of the model batch together, and give the same bits for any
//! number of threads: work is cut in chunks of fixed size, and sums over chunks are taken in order.

use rayon::prelude::*;

pub use super::narrow::{Sink, Source};

/// Elements that one thread works on at a time: 256 kB of f32, so that the slice of the soup stays in the second-level cache
/// while the rows of the model batch pass by, four at a time.
const CHUNK: usize = 1 << 16;

/// Values that one thread reads in about the time that waking another takes.
const SMALL: usize = 1 << 20;

/// Elements over which a dot product is summed in the value's own type before it goes on in f64: bounds its rounding error
/// at about `sqrt(BLOCK / LANES)` ulps without the cost of converting every value.
pub(super) const BLOCK: usize = 1 << 11;

/// Independent partial sums of a dot product, so that the compiler can use vector instructions.
const LANES: usize = 16;

/// A floating point type that soups are computed in.
pub trait Float:
    Copy
    + Send
    + Sync
    + Default
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::AddAssign
    + 'static
{
    /// Rounds to this type.
    fn from_f64(value: f64) -> Self;
    /// The value in this type, exact.
    fn from_f32(value: f32) -> Self;
    /// The value in f64, exact.
    fn to_f64(self) -> f64;
    /// The nearest f32.
    fn to_f32(self) -> f32;
}

impl Float for f32 {
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    fn from_f32(value: f32) -> Self {
        value
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn to_f32(self) -> f32 {
        self
    }
}

impl Float for f64 {
    fn from_f64(value: f64) -> Self {
        value
    }
    fn from_f32(value: f32) -> Self {
        f64::from(value)
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn to_f32(self) -> f32 {
        self as f32
    }
}

/// One tensor's part of a mix: `out = base + sum_k x[k] rows[k]`.
pub struct MixJob<'a, T> {
    /// Where the sum goes, length n.
    pub out: Sink<'a, T>,
    /// Length n.
    pub base: Base<'a, T>,
    /// Row-major `[b, n]`.
    pub rows: &'a [T],
    /// Length b.
    pub x: Vec<T>,
}

/// What a mix starts from.
#[derive(Clone, Copy)]
pub enum Base<'a, T> {
    /// Nothing.
    Zero,
    /// These values.
    From(&'a [T]),
    /// What the output already holds, which is not rounded.
    InPlace,
}

/// Computes `out[i] = base[i] + sum_k x[k] rows[k, i]` for all jobs, k ascending, each sum rounded after every term.
///
/// This is step 4 (and, in place on the centre, step 5) of a model batch: arXiv 2407.03641, equation (5).
pub fn mix<T: Float>(jobs: Vec<MixJob<'_, T>>) {
    let (outs, jobs): (Vec<_>, Vec<_>) =
        jobs.into_iter().map(|MixJob { out, base, rows, x }| (out, (base, rows, x))).unzip();
    let (mut pieces, mut work) = (Vec::with_capacity(jobs.len()), 0);
    for (out, (base, rows, x)) in outs.into_iter().zip(&jobs) {
        let n = out.count();
        debug_assert_eq!(rows.len(), n * x.len());
        work += n + rows.len();
        for (i, out) in out.chunks(CHUNK).into_iter().enumerate() {
            pieces.push((i * CHUNK, n, out, *base, *rows, x.as_slice()));
        }
    }
    let mix_piece = |scratch: &mut Vec<T>, (start, n, out, base, rows, x): Piece<'_, T>| {
        let length = out.count();
        let row = |k: usize| &rows[k * n + start..k * n + start + length];
        out.write(scratch, |out| {
            let mut k = 0;
            let mut fresh = match base {
                Base::Zero => Some(None),
                Base::From(base) => Some(Some(&base[start..start + length])),
                Base::InPlace => None,
            };
            // Four rows a pass over `out`: fewer passes than rows, and few enough streams for the hardware to read ahead on each.
            while x.len() - k >= 4 {
                let rows = [row(k), row(k + 1), row(k + 2), row(k + 3)];
                add_rows(out, fresh.take(), rows, [x[k], x[k + 1], x[k + 2], x[k + 3]]);
                k += 4;
            }
            match x.len() - k {
                3 => add_rows(out, fresh, [row(k), row(k + 1), row(k + 2)], [x[k], x[k + 1], x[k + 2]]),
                2 => add_rows(out, fresh, [row(k), row(k + 1)], [x[k], x[k + 1]]),
                1 => add_rows(out, fresh, [row(k)], [x[k]]),
                _ => match fresh {
                    Some(Some(base)) => out.copy_from_slice(base),
                    Some(None) => out.fill(T::default()),
                    None => {}
                },
            }
        });
    };
    if is_small(work) {
        let mut scratch = Vec::new();
        pieces.into_iter().for_each(|piece| mix_piece(&mut scratch, piece));
    } else {
        pieces.into_par_iter().for_each_init(Vec::new, mix_piece);
    }
}

/// A chunk of a job: where it starts, the length of a row, the output, and the job's base, rows and coordinates.
type Piece<'a, T> = (usize, usize, Sink<'a, T>, Base<'a, T>, &'a [T], &'a [T]);

/// Whether the calling thread does the work on so many values sooner than it hands it over to others.
fn is_small(values: usize) -> bool {
    values <= SMALL || rayon::current_num_threads() == 1
}

/// `out = start + sum_k x[k] rows[k]`, k ascending; `start` is what `out` holds (`None`), zeros (`Some(None)`), or other values.
///
/// Wider vector instructions only do more of the same operations at once: the bits are those of any other processor.
fn add_rows<T: Float, const R: usize>(out: &mut [T], start: Option<Option<&[T]>>, rows: [&[T]; R], x: [T; R]) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide<T: Float, const R: usize>(out: &mut [T], start: Option<Option<&[T]>>, rows: [&[T]; R], x: [T; R]) {
            add_rows_plain(out, start, rows, x);
        }
        // SAFETY: the processor has the instructions, as was just asked.
        return unsafe { wide(out, start, rows, x) };
    }
    add_rows_plain(out, start, rows, x);
}

#[inline(always)]
fn add_rows_plain<T: Float, const R: usize>(out: &mut [T], start: Option<Option<&[T]>>, rows: [&[T]; R], x: [T; R]) {
    let n = out.len();
    let rows = rows.map(|row| &row[..n]);
    let sum = |mut value: T, i: usize| {
        for k in 0..R {
            value += x[k] * rows[k][i];
        }
        value
    };
    match start {
        None => (0..n).for_each(|i| out[i] = sum(out[i], i)),
        Some(None) => (0..n).for_each(|i| out[i] = sum(T::default(), i)),
        Some(Some(base)) => {
            let base = &base[..n];
            (0..n).for_each(|i| out[i] = sum(base[i], i));
        }
    }
}

/// Inner products of `b` rows with one vector, and that vector's squared norm.
pub struct ProjectJob<'a, T> {
    /// Row-major `[b, n]`.
    pub rows: &'a [T],
    /// Length n.
    pub gradient: Source<'a, T>,
}

/// For each job: `(<rows[k], gradient> for k in 0..b, |gradient|^2)`, in f64.
///
/// The first is `dL/dx[k]` (arXiv 2407.03641, equation (6)), the second serves the clipping of the gradient's global norm.
pub fn project<T: Float>(jobs: &[ProjectJob<'_, T>]) -> Vec<(Vec<f64>, f64)> {
    let pieces: Vec<(usize, usize)> = jobs
        .iter()
        .enumerate()
        .flat_map(|(j, job)| (0..job.gradient.count()).step_by(CHUNK).map(move |start| (j, start)))
        .collect();
    let project_piece = |&(j, start): &(usize, usize)| {
        let job = &jobs[j];
        let n = job.gradient.count();
        let b = job.rows.len() / n;
        let end = n.min(start + CHUNK);
        let (mut dots, mut squares, mut wide) = (vec![0.0; b], 0.0, [T::default(); BLOCK]);
        for block in (start..end).step_by(BLOCK) {
            let stop = end.min(block + BLOCK);
            let gradient = job.gradient.widened(block..stop, &mut wide);
            squares += dot(gradient, gradient);
            for (k, sum) in dots.iter_mut().enumerate() {
                *sum += dot(&job.rows[k * n + block..k * n + stop], gradient);
            }
        }
        (dots, squares)
    };
    let work = jobs.iter().map(|job| job.gradient.count() + job.rows.len()).sum();
    let partial: Vec<(Vec<f64>, f64)> = match is_small(work) {
        true => pieces.iter().map(project_piece).collect(),
        false => pieces.par_iter().map(project_piece).collect(),
    };
    let mut results: Vec<(Vec<f64>, f64)> =
        jobs.iter().map(|job| (vec![0.0; job.rows.len() / job.gradient.count().max(1)], 0.0)).collect();
    for (&(j, _), (dots, squares)) in pieces.iter().zip(&partial) {
        results[j].0.iter_mut().zip(dots).for_each(|(sum, dot)| *sum += dot);
        results[j].1 += squares;
    }
    results
}

/// Dot product of at most [`BLOCK`] values; the bits are those of any other processor, as in [`add_rows`].
pub(super) fn dot<T: Float>(a: &[T], b: &[T]) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide<T: Float>(a: &[T], b: &[T]) -> f64 {
            dot_plain(a, b)
        }
        // SAFETY: the processor has the instructions, as was just asked.
        return unsafe { wide(a, b) };
    }
    dot_plain(a, b)
}

#[inline(always)]
fn dot_plain<T: Float>(a: &[T], b: &[T]) -> f64 {
    let mut lanes = [T::default(); LANES];
    let (a_head, a_tail) = a.as_chunks::<LANES>();
    let (b_head, b_tail) = b.as_chunks::<LANES>();
    for (a, b) in a_head.iter().zip(b_head) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    let mut sum: f64 = lanes.iter().map(|v| v.to_f64()).sum();
    for (a, b) in a_tail.iter().zip(b_tail) {
        sum += (*a * *b).to_f64();
    }
    sum
}

/// Turns rows that hold ingredients into differences from the centre, `rows[k] -= centre`, and returns for each row
/// `(|rows[k] - centre|^2, |rows[k]|^2)` and, once, `|centre|^2`; squares summed in f64.
pub fn subtract_centre<T: Float>(rows: &mut [T], centre: &[T]) -> (Vec<(f64, f64)>, f64) {
    let n = centre.len();
    let squares = rows
        .chunks_mut(n.max(1))
        .map(|row| {
            let partial: Vec<(f64, f64)> = row
                .par_chunks_mut(CHUNK)
                .zip(centre.par_chunks(CHUNK))
                .map(|(row, centre)| {
                    let (mut difference, mut own) = (0.0, 0.0);
                    for (value, &c) in row.iter_mut().zip(centre) {
                        own += value.to_f64() * value.to_f64();
                        *value = *value - c;
                        difference += value.to_f64() * value.to_f64();
                    }
                    (difference, own)
                })
                .collect();
            partial.iter().fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
        })
        .collect();
    let partial: Vec<f64> =
        centre.par_chunks(CHUNK).map(|chunk| chunk.iter().map(|c| c.to_f64() * c.to_f64()).sum()).collect();
    (squares, partial.iter().sum())
}

/// Divides a row by its norm; a norm of 0 makes the row 0.
pub fn normalise<T: Float>(row: &mut [T], norm: f64) {
    if norm == 0.0 {
        row.fill(T::default());
    } else {
        let norm = T::from_f64(norm);
        row.par_chunks_mut(CHUNK).for_each(|chunk| chunk.iter_mut().for_each(|value| *value = *value / norm));
    }
}

/// Moves values from a mean of `count - 1` ingredients' values, of which they are the next one's, to the mean with them:
/// `values = mean + (values - mean) / count`.
pub fn blend<T: Float>(values: &mut [T], mean: &[T], count: usize) {
    let count = T::from_f64(count as f64);
    values.par_chunks_mut(CHUNK).zip(mean.par_chunks(CHUNK)).for_each(|(values, mean)| {
        for (value, &mean) in values.iter_mut().zip(mean) {
            *value = mean + (*value - mean) / count;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32)
            .map(|i| (((i + 1_000_003 * seed).wrapping_mul(2_654_435_761)) >> 8) as f32 / (1 << 23) as f32 - 1.0)
            .collect()
    }

    #[test]
    fn mixing_equals_the_sum_written_out() {
        let n = CHUNK + BLOCK + 3;
        let (base, rows, x) = (values(n, 1), values(3 * n, 2), vec![0.5f32, -2.0, 0.125]);
        let mut out = vec![0f32; n];
        mix(vec![MixJob { out: Sink::Own(&mut out), base: Base::From(&base), rows: &rows, x: x.clone() }]);
        for i in 0..n {
            let expected = ((base[i] + x[0] * rows[i]) + x[1] * rows[n + i]) + x[2] * rows[2 * n + i];
            assert_eq!(out[i].to_bits(), expected.to_bits(), "element {i}");
        }
        let mut in_place = base.clone();
        mix(vec![MixJob { out: Sink::Own(&mut in_place), base: Base::InPlace, rows: &rows, x }]);
        assert_eq!(in_place, out);
    }

    #[test]
    fn projection_agrees_with_f64_and_does_not_depend_on_the_threads() {
        let n = 3 * CHUNK + 17;
        let (rows, gradient) = (values(2 * n, 3), values(n, 4));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| project(&[ProjectJob { rows: &rows, gradient: Source::Own(&gradient) }]))
        };
        let (one, four) = (run(1), run(4));
        assert_eq!(one, four);
        let exact = |a: &[f32]| -> f64 { a.iter().zip(&gradient).map(|(&a, &g)| f64::from(a) * f64::from(g)).sum() };
        for k in 0..2 {
            let expected = exact(&rows[k * n..(k + 1) * n]);
            // Products of about 1, each rounded to 2^-24, n of them: a random walk.
            assert!((one[0].0[k] - expected).abs() < 1e-6 * (n as f64).sqrt(), "{} {expected}", one[0].0[k]);
        }
        assert!((one[0].1 / exact(&gradient) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn wide_instructions_give_the_same_bits() {
        let n = BLOCK - 5;
        let (a, b, rows) = (values(n, 7), values(n, 8), values(2 * n, 9));
        assert_eq!(dot(&a, &b).to_bits(), dot_plain(&a, &b).to_bits());
        let (mut wide, mut plain) = (a.clone(), a);
        let rows = [&rows[..n], &rows[n..]];
        add_rows(&mut wide, None, rows, [0.3, -1.7]);
        add_rows_plain(&mut plain, None, rows, [0.3, -1.7]);
        assert_eq!(wide, plain);
    }

    #[test]
    fn blending_gives_the_mean_whatever_the_threads() {
        let n = CHUNK + 9;
        let (mean, next) = (values(n, 10), values(n, 11));
        let run = |threads: usize| {
            let mut out = next.clone();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| blend(&mut out, &mean, 4));
            out
        };
        let (one, four) = (run(1), run(4));
        assert_eq!(one, four);
        for i in 0..n {
            let expected = (3.0 * f64::from(mean[i]) + f64::from(next[i])) / 4.0;
            assert!((f64::from(one[i]) - expected).abs() < 2e-7, "element {i}");
        }
    }

    #[test]
    fn directions_have_unit_length_and_a_zero_norm_gives_zeros() {
        let n = 1000;
        let (mut rows, centre) = (values(n, 5), values(n, 6));
        let (squares, _) = subtract_centre(&mut rows, &centre);
        let norm = squares[0].0.sqrt();
        normalise(&mut rows, norm);
        let length: f64 = rows.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        assert!((length - 1.0).abs() < 1e-6);
        normalise(&mut rows, 0.0);
        assert!(rows.iter().all(|v| *v == 0.0));
    }
}
