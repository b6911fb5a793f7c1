//! Mixing and projecting compact rows on the host.
//!
//! Each stored byte is read once. The bits are the same for any number of threads.

use rayon::prelude::*;

use super::{CHUNK, Code, GROUP, HostRows, decode, decode_part};
use crate::hyperplane::kernels::{self, BLOCK, Float, Sink, Source};

/// Independent partial sums of a dot product.
const LANES: usize = 16;
/// Groups that are asked for ahead of those that are computed with. The processor itself looks ahead on a few
/// streams, and not beyond a page.
const AHEAD: usize = 16;
/// Bytes that one request to the memory brings.
const CACHE_LINE: usize = 64;

/// One tensor's part of a mix: `out = base + sum_k x[k] rows[k]`.
pub struct CompactMix<'a, T> {
    /// Where the sum goes, length n.
    pub out: Sink<'a, T>,
    /// Length n.
    pub base: &'a [T],
    /// `[b, n]`, on the host.
    pub rows: HostRows<'a>,
    /// Length b: coordinates over lengths.
    pub x: Vec<T>,
}

/// Computes all mixes, k ascending, each sum rounded after every term; terms are `(x[k] scale)
/// number`.
pub fn mix<T: Float>(jobs: Vec<CompactMix<'_, T>>) {
    let mut pieces = Vec::new();
    for job in jobs {
        let (rows, x) = (job.rows, std::sync::Arc::new(job.x));
        for (i, (out, base)) in job.out.chunks(CHUNK).into_iter().zip(job.base.chunks(CHUNK)).enumerate() {
            pieces.push((i * (CHUNK / GROUP), out, base, rows, x.clone()));
        }
    }
    pieces.into_par_iter().for_each_init(Vec::new, |scratch, (first, out, base, rows, x)| {
        out.write(scratch, |out| mix_groups(out, base, rows, first, &x));
    });
}

/// `out = base + sum_k x[k] rows[k]` from group `first` of the rows on, all rows over one group before the next: the sums stay in registers.
///
/// Wider vector instructions only do more of the same operations at once: the bits are those of any other processor.
fn mix_groups<T: Float>(out: &mut [T], base: &[T], rows: HostRows<'_>, first: usize, x: &[T]) {
    // By code, so that each loop is compiled for its own.
    #[inline(always)]
    fn by_code<T: Float>(out: &mut [T], base: &[T], rows: HostRows<'_>, first: usize, x: &[T]) {
        match rows.code {
            Code::Bf16 => mix_plain(out, base, rows, Code::Bf16, first, x),
            Code::Int8 => mix_plain(out, base, rows, Code::Int8, first, x),
            Code::Int4 => mix_plain(out, base, rows, Code::Int4, first, x),
        }
    }
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide<T: Float>(out: &mut [T], base: &[T], rows: HostRows<'_>, first: usize, x: &[T]) {
            by_code(out, base, rows, first, x);
        }
        // SAFETY: the processor has the instructions, as was just asked.
        return unsafe { wide(out, base, rows, first, x) };
    }
    by_code(out, base, rows, first, x);
}

#[inline(always)]
fn mix_plain<T: Float>(out: &mut [T], base: &[T], rows: HostRows<'_>, code: Code, first: usize, x: &[T]) {
    for (g, (out, base)) in out.chunks_mut(GROUP).zip(base.chunks(GROUP)).enumerate() {
        for line in (0..GROUP).step_by(CACHE_LINE / size_of::<T>()) {
            prefetch(base.as_ptr().wrapping_add(AHEAD / 4 * GROUP + line));
        }
        let terms = x.iter().enumerate().map(|(k, &x)| {
            let (bytes, scale) = rows.group(k, first + g);
            prefetch(bytes.as_ptr().wrapping_add(AHEAD * bytes.len()));
            (bytes, x * T::from_f32(scale))
        });
        if let (Some(out), Some(base)) = (out.first_chunk_mut::<GROUP>(), base.first_chunk::<GROUP>()) {
            let mut sums = *base;
            for (bytes, factor) in terms {
                for (part, sums) in sums.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                    let values = decode_part::<T, LANES>(code, bytes, part);
                    for lane in 0..LANES {
                        sums[lane] += factor * values[lane];
                    }
                }
            }
            *out = sums;
        } else {
            out.copy_from_slice(base);
            for (bytes, factor) in terms {
                let values = decode::<T>(code, bytes);
                out.iter_mut().zip(&values).for_each(|(out, &value)| *out += factor * value);
            }
        }
    }
}

/// Asks for the cache line at an address, which may be anywhere. Nothing else changes.
#[inline(always)]
fn prefetch<P>(address: *const P) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: an address that cannot be read is passed over; nothing is read or written.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Inner products of compact rows, on the host, with one vector.
pub struct CompactProject<'a, T> {
    /// `[b, n]`, on the host.
    pub rows: HostRows<'a>,
    /// Length n.
    pub gradient: Source<'a, T>,
}

/// For each job: `(<rows[k], gradient> for k in 0..b, |gradient|^2)`, in f64.
pub fn project<T: Float>(jobs: &[CompactProject<'_, T>]) -> Vec<(Vec<f64>, f64)> {
    let pieces: Vec<(usize, usize)> = jobs
        .iter()
        .enumerate()
        .flat_map(|(j, job)| (0..job.gradient.count()).step_by(CHUNK).map(move |start| (j, start)))
        .collect();
    let partial: Vec<(Vec<f64>, f64)> = pieces
        .par_iter()
        .map(|&(j, start)| {
            let CompactProject { rows, gradient } = &jobs[j];
            let end = gradient.count().min(start + CHUNK);
            let (mut dots, mut squares, mut wide) = (vec![0.0; rows.members], 0.0, [T::default(); BLOCK]);
            for block in (start..end).step_by(BLOCK) {
                let gradient = gradient.widened(block..end.min(block + BLOCK), &mut wide);
                squares += kernels::dot(gradient, gradient);
                let mut k = 0;
                // Four rows at once: the processor reads ahead on each of them.
                while rows.members - k >= 4 {
                    let found = dot::<T, 4>(*rows, k, block / GROUP, gradient);
                    dots[k..k + 4].iter_mut().zip(found).for_each(|(sum, dot)| *sum += dot);
                    k += 4;
                }
                for (sum, k) in dots[k..].iter_mut().zip(k..) {
                    *sum += dot::<T, 1>(*rows, k, block / GROUP, gradient)[0];
                }
            }
            (dots, squares)
        })
        .collect();
    let mut results: Vec<(Vec<f64>, f64)> = jobs.iter().map(|job| (vec![0.0; job.rows.members], 0.0)).collect();
    for (&(j, _), (dots, squares)) in pieces.iter().zip(&partial) {
        results[j].0.iter_mut().zip(dots).for_each(|(sum, dot)| *sum += dot);
        results[j].1 += squares;
    }
    results
}

/// Inner products of at most [`BLOCK`] values, from group `first` of the rows from `k` on.
fn dot<T: Float, const R: usize>(rows: HostRows<'_>, k: usize, first: usize, gradient: &[T]) -> [f64; R] {
    #[inline(always)]
    fn by_code<T: Float, const R: usize>(rows: HostRows<'_>, k: usize, first: usize, gradient: &[T]) -> [f64; R] {
        match rows.code {
            Code::Bf16 => dot_plain(rows, Code::Bf16, k, first, gradient),
            Code::Int8 => dot_plain(rows, Code::Int8, k, first, gradient),
            Code::Int4 => dot_plain(rows, Code::Int4, k, first, gradient),
        }
    }
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide<T: Float, const R: usize>(rows: HostRows<'_>, k: usize, first: usize, gradient: &[T]) -> [f64; R] {
            by_code(rows, k, first, gradient)
        }
        // SAFETY: the processor has the instructions, as was just asked.
        return unsafe { wide(rows, k, first, gradient) };
    }
    by_code(rows, k, first, gradient)
}

#[inline(always)]
fn dot_plain<T: Float, const R: usize>(
    rows: HostRows<'_>,
    code: Code,
    k: usize,
    first: usize,
    gradient: &[T],
) -> [f64; R] {
    let (mut lanes, mut tails) = ([[T::default(); LANES]; R], [0.0; R]);
    for (g, gradient) in gradient.chunks(GROUP).enumerate() {
        for (r, (lanes, tail)) in lanes.iter_mut().zip(&mut tails).enumerate() {
            let (bytes, scale) = rows.group(k + r, first + g);
            prefetch(bytes.as_ptr().wrapping_add(AHEAD * bytes.len()));
            let scale = T::from_f32(scale);
            if let Some(gradient) = gradient.first_chunk::<GROUP>() {
                let mut sums = [T::default(); LANES];
                for (part, gradient) in gradient.as_chunks::<LANES>().0.iter().enumerate() {
                    let values = decode_part::<T, LANES>(code, bytes, part);
                    for lane in 0..LANES {
                        sums[lane] += values[lane] * gradient[lane];
                    }
                }
                for lane in 0..LANES {
                    lanes[lane] += scale * sums[lane];
                }
            } else {
                for (&value, &gradient) in decode::<T>(code, bytes).iter().zip(gradient) {
                    *tail += (scale * value * gradient).to_f64();
                }
            }
        }
    }
    let mut dots = lanes.map(|lanes| lanes.iter().map(|lane| lane.to_f64()).sum::<f64>());
    dots.iter_mut().zip(tails).for_each(|(dot, tail)| *dot += tail);
    dots
}
