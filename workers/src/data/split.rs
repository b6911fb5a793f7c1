//! A split: samples with targets, weights and lengths, and batches of them.

use tch::{Device, Kind, TchError, Tensor};

use super::Batch;
use super::images::stored::StoredImages;
use super::text::stored::StoredTokens;
use crate::families::ModelInputs;

/// Samples with targets: in host memory, mapped into it, or [kept on a device](Split::keep_on).
pub struct Split {
    inputs: Samples,
    /// First dimension N; labels `[N]`, i64, for classification.
    pub targets: Tensor,
    /// `[N]`; `None`: all samples count the same.
    weights: Option<Tensor>,
    /// Length of each text of each sample, sample by sample; `None`: all have the same.
    lengths: Option<Vec<i64>>,
    /// Texts of a sample, which are the second dimension of inputs then; `None`: a sample is no tuple.
    texts: Option<usize>,
}

/// The inputs of a split.
enum Samples {
    /// Named, first dimension N: float ones in the model's dtype, whole numbers as i64.
    Tensors(Vec<(String, Tensor)>),
    /// One input: images.
    Images(StoredImages),
    /// Tokens of texts.
    Tokens(StoredTokens),
}

/// Which samples a batch is of.
enum Taken<'a> {
    /// Those at indices, which are in a tensor too: `[n]`, i64.
    At(&'a [usize], Tensor),
    /// From the first to before the second.
    Range(usize, usize),
}

impl<'a> Taken<'a> {
    fn at(indices: &'a [usize]) -> Result<Self, TchError> {
        let rows: Vec<i64> = indices.iter().map(|&i| i as i64).collect();
        Ok(Self::At(indices, Tensor::f_from_slice(&rows)?))
    }

    /// Their part of a tensor whose first dimension is all samples, where that tensor is.
    fn of(&self, t: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::At(_, rows) => t.f_index_select(0, &rows.f_to_device(t.device())?),
            Self::Range(start, end) => t.f_narrow(0, *start as i64, (end - start) as i64),
        }
    }

    /// Their part of the lengths of all samples, `texts` each.
    fn lengths(&self, all: &[i64], texts: usize) -> Vec<i64> {
        match self {
            Self::At(indices, _) => indices.iter().flat_map(|&i| &all[i * texts..(i + 1) * texts]).copied().collect(),
            Self::Range(start, end) => all[start * texts..end * texts].to_vec(),
        }
    }
}

impl Split {
    /// Of named tensors, one an input, first dimension N.
    pub fn of_tensors(inputs: Vec<(String, Tensor)>, targets: Tensor) -> Self {
        Self { inputs: Samples::Tensors(inputs), targets, weights: None, lengths: None, texts: None }
    }

    /// Of images.
    pub fn of_images(images: StoredImages, targets: Tensor) -> Self {
        Self { inputs: Samples::Images(images), targets, weights: None, lengths: None, texts: None }
    }

    /// Of texts.
    pub fn of_tokens(tokens: StoredTokens, targets: Tensor) -> Self {
        let texts = Some(tokens.texts()).filter(|texts| *texts > 1);
        Self { inputs: Samples::Tokens(tokens), targets, weights: None, lengths: None, texts }
    }

    /// The same samples with a weight each in the mean loss, `[N]`, above 0.
    ///
    /// # Errors
    /// If their shape or a value is not as stated.
    pub fn with_weights(self, weights: Tensor) -> Result<Self, TchError> {
        let n = self.samples() as i64;
        if weights.size() != [n] {
            return Err(TchError::Shape(format!("expected weights [{n}], found {:?}", weights.size())));
        }
        let are_weights = weights.f_isfinite()?.f_logical_and(&weights.f_gt(0.0)?)?.f_all()?;
        if are_weights.f_int64_value(&[])? != 1 {
            return Err(TchError::Shape("expected weights above 0, found others".to_string()));
        }
        Ok(Self { weights: Some(weights), ..self })
    }

    /// The same samples, each of several texts: inputs are tensors `[N, texts, ...]`. Batches of n samples have inputs
    /// `[texts * n, ...]`, whose row `t * n + i` is text t of sample i, and targets of n samples. Comes before
    /// [`with_lengths`](Self::with_lengths).
    ///
    /// # Errors
    /// If an input is not as stated, or samples have lengths already.
    pub fn with_texts(self, texts: usize) -> Result<Self, TchError> {
        let Samples::Tensors(tensors) = &self.inputs else {
            return Err(TchError::Shape("an image has no texts, and tokens have their own".to_string()));
        };
        if self.lengths.is_some() {
            return Err(TchError::Shape("expected samples without lengths yet, found some".to_string()));
        }
        for (name, tensor) in tensors {
            let size = tensor.size();
            if texts == 0 || size.get(1) != Some(&(texts as i64)) {
                return Err(TchError::Shape(format!("input `{name}`: expected [N, {texts}, ...], found {size:?}")));
            }
        }
        Ok(Self { texts: Some(texts), ..self })
    }

    /// The same samples with a length each, from 1 to T. Inputs are tensors `[N, T, ...]`; what is
    /// behind the length of a sample is padding. A batch is as long as its longest sample. Targets
    /// stay as they are. Samples of [several texts](Self::with_texts) have inputs `[N, texts, T, ...]`
    /// and a length for each text, sample by sample.
    ///
    /// # Errors
    /// If an input or a length is not as stated.
    pub fn with_lengths(self, lengths: Vec<i64>) -> Result<Self, TchError> {
        let Samples::Tensors(tensors) = &self.inputs else {
            return Err(TchError::Shape("images have no lengths, and texts have their own".to_string()));
        };
        if lengths.len() != self.samples() * self.texts() {
            let (found, expected) = (lengths.len(), self.samples());
            let each = if self.texts() > 1 { format!(" of {} texts", self.texts()) } else { String::new() };
            return Err(TchError::Shape(format!("expected lengths of {expected} samples{each}, found {found}")));
        }
        for (name, tensor) in tensors {
            let size = tensor.size();
            let room = size.get(self.tokens()).copied().unwrap_or(0);
            if let Some(length) = lengths.iter().find(|length| !(1..=room).contains(length)) {
                let what = format!("input `{name}` of shape {size:?}: expected lengths 1 to {room}, found {length}");
                return Err(TchError::Shape(what));
            }
        }
        Ok(Self { lengths: Some(lengths), ..self })
    }

    /// N.
    pub fn samples(&self) -> usize {
        self.targets.size()[0] as usize
    }

    /// Texts of a sample; 1 where samples are no tuples.
    pub fn texts(&self) -> usize {
        self.texts.unwrap_or(1)
    }

    /// The dimension of inputs that lengths count.
    fn tokens(&self) -> usize {
        if self.texts.is_some() { 2 } else { 1 }
    }

    /// blake3 of each text of each sample, sample by sample, over all inputs; of each sample where they are no tuples.
    ///
    /// # Errors
    /// What libtorch reports; images have no texts.
    pub fn text_hashes(&self) -> Result<Vec<blake3::Hash>, TchError> {
        let tensors = match &self.inputs {
            Samples::Tensors(tensors) => tensors,
            Samples::Tokens(tokens) => return Ok(tokens.text_hashes()),
            Samples::Images(_) => return Err(TchError::Shape("images have no texts".to_string())),
        };
        let mut hashes = vec![blake3::hash(&[]); self.samples() * self.texts()];
        for (_, tensor) in tensors {
            let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
            tensor.f_to_device(Device::Cpu)?.f_contiguous()?.f_copy_data_u8(&mut bytes, tensor.numel())?;
            let row = (bytes.len() / hashes.len()).max(1);
            for (hash, row) in hashes.iter_mut().zip(bytes.chunks(row)) {
                *hash = blake3::Hasher::new().update(hash.as_bytes()).update(row).finalize();
            }
        }
        Ok(hashes)
    }

    /// Length of the longest sample; `None` where all have the same.
    pub fn longest(&self) -> Option<usize> {
        match &self.inputs {
            Samples::Tokens(tokens) => Some(tokens.longest()),
            _ => self.lengths.as_ref().map(|lengths| lengths.iter().max().map_or(0, |&longest| longest as usize)),
        }
    }

    /// Dtype and shape of one row of each input, as batches have them: a sample, or one text of it; the longest where
    /// samples have a length each.
    pub fn sample_shapes(&self) -> Vec<(Kind, Vec<i64>)> {
        match &self.inputs {
            Samples::Tensors(tensors) => {
                tensors.iter().map(|(_, t)| (t.kind(), t.size()[self.tokens()..].to_vec())).collect()
            }
            Samples::Images(images) => vec![(Kind::Float, images.shape().to_vec())],
            Samples::Tokens(tokens) => vec![(Kind::Int64, vec![tokens.longest() as i64]); tokens.names().len()],
        }
    }

    /// Whether samples are in the order of their lengths.
    pub fn is_by_length(&self) -> bool {
        matches!(self.inputs, Samples::Tokens(_))
    }

    /// Names of the inputs, where they have any.
    pub fn input_names(&self) -> Option<Vec<String>> {
        match &self.inputs {
            Samples::Tensors(tensors) => Some(tensors.iter().map(|(name, _)| name.clone()).collect()),
            Samples::Tokens(tokens) => Some(tokens.names().to_vec()),
            Samples::Images(_) => None,
        }
    }

    /// The images, if it is of images.
    pub fn images(&self) -> Option<&StoredImages> {
        match &self.inputs {
            Samples::Images(images) => Some(images),
            Samples::Tensors(_) | Samples::Tokens(_) => None,
        }
    }

    /// The samples at `indices`, on `device`.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn batch(&self, indices: &[usize], device: Device) -> Result<Batch, TchError> {
        self.taken(&Taken::at(indices)?, None, device)
    }

    /// Samples `start..end`, on `device`.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn range(&self, start: usize, end: usize, device: Device) -> Result<Batch, TchError> {
        self.taken(&Taken::Range(start, end), None, device)
    }

    /// The samples at `indices` as if each were `length` long, at most T: to try what a batch
    /// takes. [`batch`](Self::batch) where all samples have the same length.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn batch_of_length(&self, indices: &[usize], length: usize, device: Device) -> Result<Batch, TchError> {
        self.taken(&Taken::at(indices)?, Some(length as i64), device)
    }

    /// Some samples; with a `length`, as if each were that long.
    fn taken(&self, which: &Taken<'_>, length: Option<i64>, device: Device) -> Result<Batch, TchError> {
        let take = |t: &Tensor| which.of(t)?.f_to_device(device);
        let inputs = match (&self.inputs, which) {
            (Samples::Images(images), Taken::At(indices, _)) => images.batch(indices, device)?.into(),
            (Samples::Images(images), Taken::Range(start, end)) => images.range(*start, *end, device)?.into(),
            (Samples::Tokens(tokens), Taken::At(indices, _)) => {
                tokens.batch(indices.iter().copied(), length.map(|length| length as usize), device)?
            }
            (Samples::Tokens(tokens), Taken::Range(start, end)) => {
                tokens.batch(*start..*end, length.map(|length| length as usize), device)?
            }
            (Samples::Tensors(tensors), _) => match &self.lengths {
                None => ModelInputs::new(each(tensors, |t| self.rows(&take(t)?))?),
                Some(all) => {
                    let mut lengths = which.lengths(all, self.texts());
                    if let Some(length) = length {
                        lengths.fill(length);
                    }
                    let longest = lengths.iter().copied().max().unwrap_or(0);
                    // A range of what was cut would not be contiguous.
                    let tokens = self.tokens() as i64;
                    let cut = |t: &Tensor| self.rows(&take(&t.f_narrow(tokens, 0, longest)?)?)?.f_contiguous();
                    let lengths = Tensor::f_from_slice(&lengths)?;
                    let lengths = match self.texts {
                        None => lengths,
                        Some(texts) => self.rows(&lengths.f_view([-1, texts as i64])?)?,
                    };
                    ModelInputs::new(each(tensors, cut)?).with_lengths(lengths.f_to_device(device)?)
                }
            },
        };
        let weights = self.weights.as_ref().map(take).transpose()?;
        Ok(Batch { inputs, texts: self.texts(), targets: take(&self.targets)?, weights })
    }

    /// The rows of a batch, of its samples: `[texts * n, ...]` of `[n, texts, ...]`, text by text.
    fn rows(&self, samples: &Tensor) -> Result<Tensor, TchError> {
        match self.texts {
            None => Ok(samples.shallow_clone()),
            Some(_) => samples.f_transpose(0, 1)?.f_contiguous()?.f_flatten(0, 1),
        }
    }

    /// Bytes of all samples, as they are stored.
    pub fn bytes(&self) -> u64 {
        let of = |t: &Tensor| (t.numel() * t.kind().elt_size_in_bytes()) as u64;
        let inputs = match &self.inputs {
            Samples::Tensors(tensors) => tensors.iter().map(|(_, t)| of(t)).sum(),
            Samples::Images(images) => images.shape().iter().product::<i64>() as u64 * images.samples() as u64,
            Samples::Tokens(tokens) => tokens.bytes(),
        };
        inputs + of(&self.targets) + self.weights.as_ref().map_or(0, of)
    }

    /// Copies all samples to a device, as they are stored: batches are then taken there, and are
    /// the same values.
    ///
    /// # Errors
    /// If memory cannot be had there.
    pub fn keep_on(&mut self, device: Device) -> Result<(), TchError> {
        let targets = self.targets.f_to_device(device)?;
        let weights = self.weights.as_ref().map(|weights| weights.f_to_device(device)).transpose()?;
        match &mut self.inputs {
            Samples::Tensors(tensors) => {
                *tensors = each(tensors, |t| t.f_to_device(device))?;
            }
            Samples::Images(images) => images.keep_on(device)?,
            // A batch of tokens is small, and is put together on the host.
            Samples::Tokens(_) => {}
        }
        (self.targets, self.weights) = (targets, weights);
        Ok(())
    }

    /// The samples at `indices`, as a split of their own; images are not copied.
    pub(crate) fn subset(&self, indices: &[usize]) -> Result<Self, TchError> {
        let which = Taken::at(indices)?;
        let take = |t: &Tensor| which.of(t)?.f_to_device(Device::Cpu);
        let inputs = match &self.inputs {
            Samples::Tensors(tensors) => Samples::Tensors(each(tensors, take)?),
            Samples::Images(images) => Samples::Images(images.subset(indices)),
            Samples::Tokens(tokens) => Samples::Tokens(tokens.subset(indices)),
        };
        Ok(Self {
            inputs,
            targets: take(&self.targets)?,
            weights: self.weights.as_ref().map(take).transpose()?,
            lengths: self.lengths.as_ref().map(|all| which.lengths(all, self.texts())),
            texts: self.texts,
        })
    }

    /// Float inputs and weights in another dtype.
    pub(super) fn into_kind(self, kind: Kind) -> Result<Self, TchError> {
        let convert = |t: Tensor| {
            if t.is_floating_point() { t.f_to_kind(kind) } else { t.f_to_kind(Kind::Int64) }
        };
        let inputs = match self.inputs {
            Samples::Tensors(tensors) => {
                let converted = tensors.into_iter().map(|(name, t)| Ok((name, convert(t)?)));
                Samples::Tensors(converted.collect::<Result<_, TchError>>()?)
            }
            Samples::Images(images) => Samples::Images(images.into_kind(kind)),
            Samples::Tokens(tokens) => Samples::Tokens(tokens),
        };
        let weights = self.weights.map(|weights| weights.f_to_kind(kind)).transpose()?;
        Ok(Self { inputs, weights, ..self })
    }
}

/// The tensors that `change` makes of named ones.
fn each(
    tensors: &[(String, Tensor)],
    change: impl Fn(&Tensor) -> Result<Tensor, TchError>,
) -> Result<Vec<(String, Tensor)>, TchError> {
    tensors.iter().map(|(name, t)| Ok((name.clone(), change(t)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: &Tensor) -> Vec<i64> {
        Vec::try_from(tensor.contiguous().view(-1)).unwrap()
    }

    /// Four samples of at most 5 tokens; sample i has the tokens `10 i`, `10 i + 1` and so on.
    fn tokens() -> Split {
        let tokens =
            Tensor::from_slice(&[0i64, 10, 20, 30]).view([4, 1]) + Tensor::arange(5, (Kind::Int64, Device::Cpu));
        let targets = Tensor::from_slice(&[0i64, 1, 2, 3]);
        Split::of_tensors(vec![("tokens".to_string(), tokens)], targets)
    }

    #[test]
    fn batches_have_lengths_and_weights_of_their_samples() {
        let split = tokens().with_lengths(vec![1, 5, 2, 3]).unwrap();
        let mut split = split.with_weights(Tensor::from_slice(&[1.0, 2.0, 3.0, 4.0])).unwrap();
        assert_eq!(split.longest(), Some(5));
        for _kept in [false, true] {
            let batch = split.batch(&[3, 0], Device::Cpu).unwrap();
            let tokens = batch.inputs.get("tokens").unwrap();
            assert_eq!((tokens.size(), values(tokens)), (vec![2, 3], vec![30, 31, 32, 0, 1, 2]));
            assert_eq!(values(batch.inputs.lengths().unwrap()), [3, 1]);
            assert_eq!(values(&batch.inputs.mask().unwrap().unwrap().to_kind(Kind::Int64)), [1, 1, 1, 1, 0, 0]);
            assert_eq!(Vec::<f64>::try_from(batch.weights.unwrap()).unwrap(), [4.0, 1.0]);
            assert_eq!(values(&batch.targets), [3, 0]);
            let range = split.range(2, 4, Device::Cpu).unwrap();
            assert_eq!(values(range.inputs.only().unwrap()), [20, 21, 22, 30, 31, 32]);
            split.keep_on(Device::Cpu).unwrap();
        }
        let subset = split.subset(&[2, 1]).unwrap().into_kind(Kind::Float).unwrap();
        let whole = subset.range(0, 2, Device::Cpu).unwrap();
        assert_eq!(whole.inputs.only().unwrap().size(), [2, 5]);
        assert_eq!(values(whole.inputs.lengths().unwrap()), [2, 5]);
        assert_eq!(Vec::<f32>::try_from(whole.weights.unwrap()).unwrap(), [3.0, 2.0]);
    }

    #[test]
    fn a_batch_can_be_tried_at_any_length() {
        let split = tokens().with_lengths(vec![1, 5, 2, 3]).unwrap();
        let batch = split.batch_of_length(&[0, 2], 4, Device::Cpu).unwrap();
        assert_eq!(values(batch.inputs.only().unwrap()), [0, 1, 2, 3, 20, 21, 22, 23]);
        assert_eq!(values(batch.inputs.lengths().unwrap()), [4, 4]);
        let plain = tokens().batch_of_length(&[0, 2], 4, Device::Cpu).unwrap();
        assert_eq!(plain.inputs.only().unwrap().size(), [2, 5]);
        assert!(plain.inputs.lengths().is_none() && plain.inputs.mask().unwrap().is_none());
    }

    /// Four samples of three texts of at most 5 tokens; text t of sample i has the tokens `100 t + 10 i` and so on.
    fn tuples() -> Split {
        let samples = Tensor::from_slice(&[0i64, 10, 20, 30]).view([4, 1, 1]);
        let texts = Tensor::from_slice(&[0i64, 100, 200]).view([1, 3, 1]);
        let tokens = samples + texts + Tensor::arange(5, (Kind::Int64, Device::Cpu));
        let split =
            Split::of_tensors(vec![("tokens".to_string(), tokens)], Tensor::zeros([4], (Kind::Int64, Device::Cpu)));
        split.with_texts(3).unwrap()
    }

    #[test]
    fn batches_of_several_texts_go_text_by_text() {
        let plain = tuples();
        assert_eq!((plain.samples(), plain.texts(), plain.sample_shapes()), (4, 3, vec![(Kind::Int64, vec![5])]));
        let batch = plain.batch(&[3, 1], Device::Cpu).unwrap();
        let first = batch.inputs.only().unwrap().narrow(1, 0, 1);
        assert_eq!((batch.texts, values(&first)), (3, vec![30, 10, 130, 110, 230, 210]));
        assert_eq!((batch.inputs.only().unwrap().size(), batch.targets.size()), (vec![6, 5], vec![2]));
        // Text t of sample i is t + 1 long, but one.
        let lengths = [1, 2, 3, 1, 2, 4, 1, 2, 3, 1, 2, 3];
        let split = tuples().with_lengths(lengths.to_vec()).unwrap();
        for split in [split.subset(&[0, 1, 2, 3]).unwrap(), split] {
            assert_eq!(split.longest(), Some(4));
            let batch = split.batch(&[3, 1], Device::Cpu).unwrap();
            assert_eq!(values(batch.inputs.lengths().unwrap()), [1, 1, 2, 2, 3, 4]);
            assert_eq!(batch.inputs.only().unwrap().size(), [6, 4]);
            let range = split.range(2, 4, Device::Cpu).unwrap();
            assert_eq!(values(range.inputs.lengths().unwrap()), [1, 1, 2, 2, 3, 3]);
            assert_eq!(values(&range.inputs.only().unwrap().narrow(1, 2, 1)), [22, 32, 122, 132, 222, 232]);
            let tried = split.batch_of_length(&[0, 0], 2, Device::Cpu).unwrap();
            assert_eq!(values(tried.inputs.only().unwrap()), [0, 1, 0, 1, 100, 101, 100, 101, 200, 201, 200, 201]);
        }
    }

    #[test]
    fn equal_texts_have_equal_hashes() {
        let tokens = Tensor::from_slice(&[1i64, 2, 3, 4, 3, 4, 5, 6]).view([2, 2, 2]);
        let split = Split::of_tensors(vec![("tokens".to_string(), tokens)], Tensor::from_slice(&[0i64, 0]));
        let hashes = split.with_texts(2).unwrap().text_hashes().unwrap();
        assert_eq!(hashes.len(), 4);
        assert!(hashes[1] == hashes[2] && hashes[0] != hashes[1] && hashes[0] != hashes[3]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |found: Result<Split, TchError>| found.err().unwrap().to_string();
        assert!(refused(tokens().with_lengths(vec![1, 2])).contains("of 4 samples, found 2"));
        let error = refused(tokens().with_lengths(vec![1, 6, 2, 3]));
        assert!(error.contains("`tokens`") && error.contains("lengths 1 to 5, found 6"), "{error}");
        assert!(refused(tokens().with_lengths(vec![0, 5, 2, 3])).contains("found 0"));
        assert!(refused(tokens().with_texts(3)).contains("input `tokens`: expected [N, 3, ...], found [4, 5]"));
        assert!(refused(tuples().with_lengths(vec![1, 2, 3, 4])).contains("of 4 samples of 3 texts, found 4"));
        assert!(refused(tokens().with_weights(Tensor::from_slice(&[1.0]))).contains("weights [4], found [1]"));
        assert!(refused(tokens().with_weights(Tensor::from_slice(&[1.0, 0.0, 1.0, 1.0]))).contains("above 0"));
        assert!(refused(tokens().with_weights(Tensor::from_slice(&[1.0, f64::NAN, 1.0, 1.0]))).contains("above 0"));
    }
}
