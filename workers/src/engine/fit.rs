//! Memory of a pass, carried on from smaller passes: arithmetic over what they allocate.
//!
//! A pass is the same allocations for any number of samples and any length of them, each of a size
//! that is linear in the samples and at most quadratic in the length (attention compares each token
//! with each). Each is carried on from what small passes took, and then they are summed: where
//! activations give way to gradients, the peak of a large pass is elsewhere than that of a small
//! one. Where libtorch goes another way for other sizes, larger passes are tried.

use super::allocations::largest;

/// Samples of the smaller of the two passes that a larger one is carried on from; the other has
/// twice as many.
const FEW: usize = 4;
/// Samples of fewer tokens are tried at their full length.
const SHORT: usize = 128;
/// Lengths that are tried are multiples of it: products of matrices may be padded to that.
const MULTIPLE: usize = 16;
/// The part by which a carried on pass may differ from one that was tried.
const TOLERATED: f64 = 1.0 / 32.0;

/// How large a pass is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    /// Samples.
    pub samples: usize,
    /// Length of each; `None`: as they are.
    pub length: Option<usize>,
}

impl Size {
    /// Of samples as they are.
    pub fn of(samples: usize) -> Self {
        Self { samples, length: None }
    }
}

/// The largest memory of a pass, in bytes; `pass` tries one and answers its changes of memory in
/// order.
///
/// Samples that all have the same length: from two passes over few of them. Samples of a length
/// each, which is `size.length` at most: from few samples of three lengths, and one more to see
/// whether they tell of others.
///
/// # Errors
/// Those of `pass`.
pub fn predicted<E>(size: Size, pass: impl Fn(Size) -> Result<Vec<i64>, E>) -> Result<u64, E> {
    if let Some(lengths) = size.length.and_then(Lengths::new)
        && let Some(changes) = by_samples(size, |samples| by_length(samples, lengths, &pass))?
    {
        return Ok(largest(&changes));
    }
    if size.samples > 2 * FEW
        && let Some(changes) = by_samples(size, |samples| pass(Size { samples, ..size }).map(Some))?
    {
        return Ok(largest(&changes));
    }
    Ok(largest(&pass(size)?))
}

/// Changes of a pass, from those of passes over fewer samples if they can be fewer.
fn by_samples<E>(size: Size, changes_of: impl Fn(usize) -> Result<Option<Vec<i64>>, E>) -> Result<Option<Vec<i64>>, E> {
    if size.samples <= 2 * FEW {
        return changes_of(size.samples);
    }
    let Some(few) = changes_of(FEW)? else { return Ok(None) };
    let Some(more) = changes_of(2 * FEW)? else { return Ok(None) };
    Ok(carried_on(&few, &more, size.samples))
}

/// Changes of a pass over `samples` samples, from those over [`FEW`] and over twice as many; `None`
/// if they are not the same ones.
fn carried_on(few: &[i64], more: &[i64], samples: usize) -> Option<Vec<i64>> {
    let times = (samples - FEW) as f64 / FEW as f64;
    let change = |(few, more): (&i64, &i64)| few + ((more - few) as f64 * times).round() as i64;
    are_same(few, more).then(|| few.iter().zip(more).map(change).collect())
}

/// Changes of a pass over samples of a long length, from those over as many samples of shorter
/// ones.
fn by_length<E>(
    samples: usize,
    lengths: Lengths,
    pass: impl Fn(Size) -> Result<Vec<i64>, E>,
) -> Result<Option<Vec<i64>>, E> {
    let tried = |times: usize| pass(Size { samples, length: Some(lengths.unit * times) });
    let known = [tried(1)?, tried(2)?, tried(4)?];
    let Some(expected) = lengths.carried_on(&known, 3 * lengths.unit) else { return Ok(None) };
    let (expected, found) = (largest(&expected) as f64, largest(&tried(3)?) as f64);
    if (expected - found).abs() > TOLERATED * found {
        return Ok(None);
    }
    Ok(lengths.carried_on(&known, lengths.longest))
}

/// Lengths that are tried: once, twice and four times a unit, of about an eighth of the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lengths {
    unit: usize,
    longest: usize,
}

impl Lengths {
    /// `None` where samples are short.
    fn new(longest: usize) -> Option<Self> {
        (longest >= SHORT).then(|| Self { unit: longest.div_ceil(8).next_multiple_of(MULTIPLE), longest })
    }

    /// Changes at a length, by the parabola through those at the three lengths; `None` if they are
    /// not the same ones, or a change would not be an allocation or release as they are.
    fn carried_on(self, [once, twice, four]: &[Vec<i64>; 3], length: usize) -> Option<Vec<i64>> {
        if !are_same(once, twice) || !are_same(once, four) {
            return None;
        }
        let s = length as f64 / self.unit as f64;
        let weights = [(s - 2.0) * (s - 4.0) / 3.0, (s - 1.0) * (4.0 - s) / 2.0, (s - 1.0) * (s - 2.0) / 6.0];
        let change = |((once, twice), four): ((&i64, &i64), &i64)| {
            let [a, b, c] = [once, twice, four].map(|change| *change as f64);
            let there = (weights[0] * a + weights[1] * b + weights[2] * c).round() as i64;
            (there.signum() == once.signum()).then_some(there)
        };
        once.iter().zip(twice).zip(four).map(change).collect()
    }
}

/// Whether two passes allocate and release alike.
fn are_same(a: &[i64], b: &[i64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.signum() == b.signum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::convert::Infallible;

    /// Activations of `a` bytes a sample in four layers, then each layer's gradient of `g` bytes
    /// while its activations go.
    fn pass(samples: usize, a: i64, g: i64) -> Vec<i64> {
        let forward = [a * samples as i64; 4];
        let backward = [[g, -a * samples as i64]; 4];
        forward.into_iter().chain(backward.into_iter().flatten()).collect()
    }

    /// What `predicted` says of a size, and the passes that it tried.
    fn watched(size: Size, changes: impl Fn(Size) -> Vec<i64>) -> (u64, Vec<Size>) {
        let tried = RefCell::new(vec![]);
        let once = |size| {
            tried.borrow_mut().push(size);
            Ok::<_, Infallible>(changes(size))
        };
        let Ok(bytes) = predicted(size, once);
        (bytes, tried.into_inner())
    }

    #[test]
    fn many_samples_are_predicted_where_few_have_their_peak_elsewhere() {
        let (few, more) = (pass(FEW, 10, 1000), pass(2 * FEW, 10, 1000));
        // Few: gradients alone; as many bytes of samples as of gradients more than 25 times over.
        assert_eq!(largest(&few), 4 * 1000 + 10 * FEW as u64);
        for samples in [9, 64, 1000] {
            let changes = carried_on(&few, &more, samples).unwrap();
            assert_eq!(changes, pass(samples, 10, 1000));
        }
        assert_eq!(largest(&carried_on(&few, &more, 1000).unwrap()), 4 * 10_000 + 1000);
        let (bytes, tried) = watched(Size::of(1000), |size| pass(size.samples, 10, 1000));
        assert_eq!((bytes, tried), (41_000, vec![Size::of(FEW), Size::of(2 * FEW)]));
    }

    #[test]
    fn where_passes_differ_the_pass_itself_is_tried() {
        assert_eq!(carried_on(&[1, -1], &[1, -1, 2, -2], 16), None);
        assert_eq!(carried_on(&[1, -1], &[-1, 1], 16), None);
        let of = |samples| watched(Size::of(samples), |size| vec![7; size.samples]).0;
        assert_eq!((of(3), of(100)), (21, 700));
    }

    /// A table of positions, embeddings, attention, its gradient while tokens' values go, and
    /// weights.
    fn sequences(size: Size) -> Vec<i64> {
        let (n, t) = (size.samples as i64, size.length.unwrap() as i64);
        let (tokens, attention) = (n * t * 12 + 64, n * t * t * 4);
        vec![8 * t, 9 * t * t, tokens, attention, attention, 100_000, -attention, -tokens, 50_000, -attention]
    }

    #[test]
    fn long_samples_are_predicted_from_few_and_shorter_ones() {
        for (samples, length) in [(1, 128), (3, 1000), (8, 4096), (9, 130), (64, 513), (1000, 20_000)] {
            let size = Size { samples, length: Some(length) };
            let (bytes, tried) = watched(size, sequences);
            assert_eq!(bytes, largest(&sequences(size)), "{size:?}");
            assert_eq!(tried.len(), if samples > 2 * FEW { 8 } else { 4 }, "{size:?}: {tried:?}");
            for small in tried {
                assert!(small.samples <= samples.min(2 * FEW), "{size:?}: {small:?}");
                assert!(small.length.unwrap() <= length / 2 + 4 * MULTIPLE, "{size:?}: {small:?}");
                assert!(small.length.unwrap() <= length, "{size:?}: {small:?}");
            }
        }
        // Whoever knows samples alone, with lengths as they happen to be, is far off.
        let short = largest(&sequences(Size { samples: 64, length: Some(256) }));
        assert!(watched(Size { samples: 64, length: Some(513) }, sequences).0 > 3 * short);
    }

    #[test]
    fn short_samples_are_tried_at_their_length() {
        let size = Size { samples: 100, length: Some(127) };
        let (bytes, tried) = watched(size, sequences);
        assert_eq!(bytes, largest(&sequences(size)));
        assert_eq!(tried, [FEW, 2 * FEW].map(|samples| Size { samples, ..size }));
    }

    #[test]
    fn where_lengths_do_not_tell_of_others_the_longest_is_tried() {
        let size = Size { samples: 50, length: Some(1024) };
        let at_length = [FEW, 2 * FEW].map(|samples| Size { samples, ..size });
        let cubic = |size: Size| vec![size.samples as i64 * (size.length.unwrap() as i64).pow(3)];
        let (bytes, tried) = watched(size, cubic);
        assert_eq!((bytes, &tried[tried.len() - 2..]), (largest(&cubic(size)), &at_length[..]));
        // Another way from some length on.
        let tiled = |size: Size| {
            let all = size.samples as i64 * size.length.unwrap() as i64;
            if size.length.unwrap() > 200 { vec![all, -all, all] } else { vec![2 * all] }
        };
        let (bytes, tried) = watched(size, tiled);
        assert_eq!((bytes, &tried[tried.len() - 2..]), (largest(&tiled(size)), &at_length[..]));
    }
}
