//! Layers that families are made of, on tensors named as on disk.

use std::cell::Cell;
use std::collections::BTreeMap;

use mehl_soup::sweep::spec::LinearLibrary;
use tch::{Device, Kind, TchError, Tensor};

use super::{ModelInputs, Precision};
use crate::torch;

/// Products of fewer multiplications are libtorch's whatever the library. oneDNN takes longer to begin, and copies the
/// gradient for that of the weights: on a Zen 3 the two are equal at about a hundred million.
const SMALL_PRODUCT: i64 = 1 << 26;

/// A model's tensors by their names on disk; layers are named without the root that all of them share.
pub(super) struct Weights {
    root: String,
    tensors: BTreeMap<String, Tensor>,
    /// Dtype of the parameters, whatever some of them are in while coefficients are learned.
    kind: Kind,
    linear_library: Cell<LinearLibrary>,
}

impl Weights {
    /// `root` is empty or ends with a dot.
    pub(super) fn new(root: impl Into<String>, tensors: BTreeMap<String, Tensor>) -> Self {
        let kind = tensors.values().next().map_or(Kind::Float, Tensor::kind);
        Self { root: root.into(), tensors, kind, linear_library: Cell::default() }
    }

    /// As [`Model::use_linear_library`](super::Model::use_linear_library).
    pub(super) fn use_linear_library(&self, library: LinearLibrary) -> LinearLibrary {
        self.linear_library.set(library);
        library
    }

    /// Dtype of the parameters.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// A whole name without the root.
    pub(super) fn local<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix(&self.root).unwrap_or(name)
    }

    /// All tensors, by their whole names.
    pub(super) fn all(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// A tensor that may be absent.
    pub(super) fn find(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(&format!("{}{name}", self.root))
    }

    /// A tensor.
    pub(super) fn get(&self, name: &str) -> Result<&Tensor, TchError> {
        self.find(name).ok_or_else(|| TchError::FileFormat(format!("the model has no tensor {}{name}", self.root)))
    }

    /// `x W^T + b`: `[.., out]` of `[.., in]`, without b where there is none; in the dtype of x.
    pub(super) fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor, TchError> {
        self.product(x, self.get(&format!("{name}.weight"))?, self.find(&format!("{name}.bias")))
    }

    /// `x W^T + b` in the dtype of x: parameters of another are rounded to it, and their gradients come back in their own.
    pub(super) fn product(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, TchError> {
        let bias = bias.map(|bias| bias.f_to_kind(x.kind())).transpose()?;
        let weight = weight.f_to_kind(x.kind())?;
        if self.linear_library.get() == LinearLibrary::Onednn
            && (x.kind(), x.device()) == (Kind::Float, Device::Cpu)
            && x.numel() as i64 * weight.size()[0] >= SMALL_PRODUCT
        {
            return torch::onednn_linear(x, &weight, bias.as_ref());
        }
        x.f_linear(&weight, bias)
    }

    /// Layer norm over the last dimension, without bias where there is none, in the dtype of the parameters whatever that of x is.
    pub(super) fn layer_norm(&self, x: &Tensor, name: &str, eps: f64) -> Result<Tensor, TchError> {
        let (weight, bias) = (self.get(&format!("{name}.weight"))?, self.find(&format!("{name}.bias")));
        x.f_to_kind(self.kind)?.f_layer_norm(weight.size(), Some(weight), bias, eps, false)
    }

    /// `[N, T, width]` of numbers `[N, T]`: rows of a table `[rows, width]`. As in PyTorch, the row `padding` gets no gradient.
    pub(super) fn embedding(&self, numbers: &Tensor, name: &str, padding: Option<i64>) -> Result<Tensor, TchError> {
        let table = self.get(&format!("{name}.weight"))?;
        Tensor::f_embedding(table, numbers, padding.unwrap_or(-1), false, false)
    }

    /// `[N, tokens, width]` of images `[N, channels, height, width]`: a convolution `[width, channels, height, width]` whose stride is its
    /// kernel, on the patches that fit. In the dtype of the parameters after a product in `precision`.
    pub(super) fn patches(&self, pixels: &Tensor, name: &str, precision: Precision) -> Result<Tensor, TchError> {
        let weight = self.get(&format!("{name}.weight"))?;
        let (kernel, image) = (weight.size(), pixels.size());
        let (&[_, channels, height, width], &[n, _, rows, columns]) = (&kernel[..], &image[..]) else {
            return Err(TchError::Shape(format!("expected images [N, channels, height, width], found {image:?}")));
        };
        // Cut patches, then multiply: the same sum, and no layout change on the way back.
        let (down, across) = (rows / height, columns / width);
        let patches = pixels
            .f_slice(2, 0, down * height, 1)?
            .f_slice(3, 0, across * width, 1)?
            .f_reshape([n, channels, down, height, across, width])?
            .f_permute([0, 2, 4, 1, 3, 5])?
            .f_reshape([n, down * across, channels * height * width])?;
        let bias = self.find(&format!("{name}.bias"));
        self.product(&precision.narrow(&patches)?, &weight.f_flatten(1, -1)?, bias)?.f_to_kind(self.kind)
    }

    /// Tokens `[N, k, width]` of a parameter of k tokens, the same for each of N samples.
    pub(super) fn tokens(&self, n: i64, name: &str) -> Result<Tensor, TchError> {
        let token = self.get(name)?;
        let width = token.size().last().copied().unwrap_or(0);
        token.f_view([1, -1, width])?.f_expand([n, -1, width], false)
    }
}

/// The part that uses a parameter of a transformer whose parts are embeddings, blocks and what is after them. Blocks' names begin with `blocks` and a number, those
/// of the last part with one of `after`.
pub(super) fn part_of(name: &str, blocks: &str, after: &[&str], last: usize) -> usize {
    let block =
        name.strip_prefix(blocks).and_then(|rest| rest.split_once('.')).and_then(|(n, _)| n.parse::<usize>().ok());
    match block {
        Some(block) => block + 1,
        None if after.iter().any(|start| name.starts_with(start)) => last,
        None => 0,
    }
}

/// `[N, tokens, width]` as `[N, heads, tokens, width / heads]`.
pub(super) fn split_heads(x: &Tensor, heads: i64) -> Result<Tensor, TchError> {
    let (n, tokens, width) = x.size3()?;
    x.f_view([n, tokens, heads, width / heads])?.f_transpose(1, 2)
}

/// Query, key and value, each `[N, heads, tokens, width / heads]`, of their projections side by side, `[N, tokens, 3 width]`.
pub(super) fn split_fused(x: &Tensor, heads: i64) -> Result<[Tensor; 3], TchError> {
    let (n, tokens, width) = x.size3()?;
    let parts = x.f_view([n, tokens, 3, heads, width / 3 / heads])?.f_permute([2, 0, 3, 1, 4])?;
    Ok([parts.f_select(0, 0)?, parts.f_select(0, 1)?, parts.f_select(0, 2)?])
}

/// `softmax(q k^T / sqrt(d)) v` (Vaswani et al. 2017, equation 1): `[N, tokens, heads d]` of three `[N, heads, tokens, d]`.
pub(super) fn attention(query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor, TchError> {
    masked_attention(query, key, value, None)
}

/// What is added to attention's logits where a query must not see a key. Their softmax is 0 in every dtype. Infinity would make
/// NaN of a query that sees nothing.
const UNSEEN: f64 = -1e30;

/// Like [`attention`], where queries see the keys that `seen` says: bool, of a shape that broadcasts to
/// `[N, heads, tokens, tokens]`. A query that sees no key takes the mean of all values.
pub(super) fn masked_attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    seen: Option<&Tensor>,
) -> Result<Tensor, TchError> {
    let added = |seen: &Tensor| seen.f_logical_not()?.f_to_kind(query.kind())?.f_mul_scalar(UNSEEN);
    let added = seen.map(added).transpose()?;
    let mixed =
        Tensor::f_scaled_dot_product_attention(query, key, value, added.as_ref(), 0.0, false, None::<f64>, false)?;
    let (n, heads, tokens, d) = mixed.size4()?;
    mixed.f_transpose(1, 2)?.f_reshape([n, tokens, heads * d])
}

/// What [`masked_attention`] takes of a mask of a sample's own tokens, `[N, T]`: all queries see all of them.
pub(super) fn seen_keys(mask: Option<&Tensor>) -> Result<Option<Tensor>, TchError> {
    mask.map(|mask| mask.f_unsqueeze(1)?.f_unsqueeze(1)).transpose()
}

/// The one input of a family that looks at images, `[N, channels, height, width]`.
pub(super) fn only_input<'a>(inputs: &'a ModelInputs, family: &str) -> Result<&'a Tensor, TchError> {
    let Some(pixels) = inputs.only() else {
        return Err(TchError::Shape(format!("{family} takes one input, found {}", inputs.tensors().len())));
    };
    if pixels.dim() != 4 {
        let found = pixels.size();
        return Err(TchError::Shape(format!("{family} takes images [N, channels, height, width], found {found:?}")));
    }
    Ok(pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unseen_keys_count_nothing_and_seeing_nothing_is_no_fault() {
        let random = |scale: f64| Tensor::randn([2, 3, 700, 4], (Kind::Double, Device::Cpu)) * scale;
        let (query, key, value) = (random(3.0), random(3.0), random(1.0));
        // The second sample has 5 keys, the first none.
        let keys =
            Tensor::arange(700, (Kind::Int64, Device::Cpu)).lt_tensor(&Tensor::from_slice(&[0i64, 5]).view([2, 1]));
        let seen = keys.view([2, 1, 1, 700]);
        let found = masked_attention(&query, &key, &value, Some(&seen)).unwrap();
        let one = |t: &Tensor, keys: i64| t.narrow(0, 1, 1).narrow(2, 0, keys);
        let expected = attention(&one(&query, 700), &one(&key, 5), &one(&value, 5)).unwrap();
        assert!((found.narrow(0, 1, 1) - expected).abs().max().double_value(&[]) < 1e-14);
        let mean = value.narrow(0, 0, 1).mean_dim(2, true, None::<Kind>).transpose(1, 2).reshape([1, 1, 12]);
        assert!((found.narrow(0, 0, 1) - mean).abs().max().double_value(&[]) < 1e-12);
    }

    #[test]
    fn narrow_dtypes_mask_as_well() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let random = || Tensor::randn([1, 1, 6, 4], (Kind::Float, Device::Cpu)).to_kind(kind);
            let (query, key, value) = (random(), random(), random());
            let seen = Tensor::from_slice(&[true, true, false, false, false, false]).view([1, 1, 1, 6]);
            let found = masked_attention(&query, &key, &value, Some(&seen)).unwrap();
            let expected = attention(&query, &key.narrow(2, 0, 2), &value.narrow(2, 0, 2)).unwrap();
            let far = (found - expected).to_kind(Kind::Float).abs().max().double_value(&[]);
            assert!(far < if kind == Kind::Float { 1e-5 } else { 0.05 }, "{kind:?}: {far}");
        }
    }

    #[test]
    fn large_products_in_f32_are_those_of_the_library() {
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let weights = Weights::new("", BTreeMap::new());
        let (x, weight) = (random(&[512, 384]), random(&[384, 384]));
        assert!(x.numel() as i64 * weight.size()[0] >= SMALL_PRODUCT);
        let product = |x: &Tensor| weights.product(x, &weight, None).unwrap();
        let by_libtorch = x.f_linear(&weight, None::<Tensor>).unwrap();
        assert!(product(&x).equal(&by_libtorch), "libtorch's choice is the default");
        assert_eq!(weights.use_linear_library(LinearLibrary::Onednn), LinearLibrary::Onednn);
        assert!(product(&x).equal(&torch::onednn_linear(&x, &weight, None).unwrap()));
        let few = x.f_slice(0, 0, 8, 1).unwrap();
        assert!(product(&few).equal(&few.f_linear(&weight, None::<Tensor>).unwrap()), "small products stay");
    }
}
