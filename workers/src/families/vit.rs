//! Hugging Face ViT and DeiT for image classification, differentiable, on tensors named as on disk.
//!
//! Follows Dosovitskiy et al. 2021 (arXiv 2010.11929) in the layout of transformers: pre-norm blocks, class token, learned positions.
//! DeiT (Touvron et al. 2021, arXiv 2012.12877) adds a distillation token.

use std::collections::BTreeMap;

use mehl_soup::zoo::{Layout, Zoo};
use tch::{Device, Kind, TchError, Tensor};

use super::vit_config::{self, Head, VitConfig};
use super::{FamilyError, Model, Pass, is_mixed, list};

/// A ViT or DeiT whose parameters are plain tensors.
pub struct Vit {
    config: VitConfig,
    classes: i64,
    parameters: BTreeMap<String, Tensor>,
}

impl Vit {
    /// From parameters that are already on a device; names and shapes are those of [`VitConfig::tensors`].
    pub fn from_parameters(config: VitConfig, classes: i64, parameters: BTreeMap<String, Tensor>) -> Self {
        Self { config, classes, parameters }
    }

    /// From a zoo whose ingredients are Hugging Face folders.
    pub(super) fn from_zoo(zoo: &Zoo, layout: &Layout, device: Device, kind: Kind) -> Result<Self, FamilyError> {
        let first = &zoo.ingredients()[0];
        let file = || first.folder().unwrap_or(first.path()).join("config.json").display().to_string();
        let json = first.config().ok_or_else(|| FamilyError::Config {
            file: file(),
            what: "expected the configuration of a ViT or DeiT, found none".to_string(),
        })?;
        let config = VitConfig::from_json(json).map_err(|what| FamilyError::Config { file: file(), what })?;
        for other in &zoo.ingredients()[1..] {
            let file = || other.folder().unwrap_or(other.path()).join("config.json").display().to_string();
            let own = other.config().ok_or_else(|| FamilyError::Config {
                file: file(),
                what: format!("expected a configuration as in {}, found none", first.path().display()),
            })?;
            if let Some(what) = vit_config::difference(json, own) {
                let what = format!("{what}, as in {}", first.path().display());
                return Err(FamilyError::Config { file: file(), what });
            }
        }
        let head = format!("{}.weight", config.heads_names()[0]);
        let classes = first.info(&head).and_then(|info| info.shape.first().copied()).unwrap_or(0) as i64;
        let expected = config.tensors(classes);
        let mut faults = Vec::new();
        for (name, shape) in &expected {
            match first.info(name) {
                None => faults.push(format!("{name}: expected shape {shape:?}, found no such tensor")),
                Some(info) if info.shape.iter().map(|&d| d as i64).ne(shape.iter().copied()) => {
                    faults.push(format!("{name}: expected shape {shape:?}, found {:?}", info.shape));
                }
                Some(_) => {}
            }
        }
        for name in first.tensor_names().filter(|name| !expected.iter().any(|(e, _)| e == name)) {
            faults.push(format!("{name}: expected no such tensor, found it"));
        }
        if !faults.is_empty() {
            return Err(FamilyError::Tensors {
                ingredient: first.path().display().to_string(),
                family: "vit",
                faults: list(&faults),
            });
        }
        let mut parameters = BTreeMap::new();
        for (name, shape) in &expected {
            let tensor = Tensor::f_zeros(shape, (kind, device))
                .and_then(|t| t.f_set_requires_grad(is_mixed(layout, name)))
                .map_err(|source| FamilyError::Torch { file: first.path().display().to_string(), source })?;
            parameters.insert(name.clone(), tensor);
        }
        Ok(Self { config, classes, parameters })
    }

    fn get(&self, name: &str) -> Result<&Tensor, TchError> {
        self.parameters.get(name).ok_or_else(|| TchError::FileFormat(format!("the model has no tensor {name}")))
    }

    fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor, TchError> {
        x.f_linear(self.get(&format!("{name}.weight"))?, self.parameters.get(&format!("{name}.bias")))
    }

    fn layer_norm(&self, x: &Tensor, name: &str) -> Result<Tensor, TchError> {
        let (weight, bias) = (self.get(&format!("{name}.weight"))?, self.get(&format!("{name}.bias"))?);
        x.f_layer_norm([self.config.hidden_size], Some(weight), Some(bias), self.config.layer_norm_eps, false)
    }

    /// `[N, tokens, hidden]` of images `[N, channels, size, size]`.
    fn embed(&self, pixels: &Tensor) -> Result<Tensor, TchError> {
        let c = &self.config;
        let embeddings = format!("{}.embeddings", c.prefix);
        let projection = format!("{embeddings}.patch_embeddings.projection");
        let n = pixels.size()[0];
        // A convolution whose stride is its kernel: cut patches, then multiply. Same sum, and no layout change on the way back.
        let side = c.image_size / c.patch_size;
        let kept = side * c.patch_size;
        let patches = pixels
            .f_slice(2, 0, kept, 1)?
            .f_slice(3, 0, kept, 1)?
            .f_reshape([n, c.channels, side, c.patch_size, side, c.patch_size])?
            .f_permute([0, 2, 4, 1, 3, 5])?
            .f_reshape([n, side * side, c.channels * c.patch_size * c.patch_size])?;
        let weight = self.get(&format!("{projection}.weight"))?.f_flatten(1, -1)?;
        let patches = patches.f_linear(&weight, Some(self.get(&format!("{projection}.bias"))?))?;
        let mut tokens = vec![self.get(&format!("{embeddings}.cls_token"))?.f_expand([n, 1, c.hidden_size], false)?];
        if c.special_tokens() == 2 {
            let token = self.get(&format!("{embeddings}.distillation_token"))?;
            tokens.push(token.f_expand([n, 1, c.hidden_size], false)?);
        }
        tokens.push(patches);
        Tensor::f_cat(&tokens, 1)?.f_add(self.get(&format!("{embeddings}.position_embeddings"))?)
    }

    fn attention(&self, x: &Tensor, block: &str) -> Result<Tensor, TchError> {
        let c = &self.config;
        let (n, tokens) = (x.size()[0], x.size()[1]);
        let split = |name: &str| -> Result<Tensor, TchError> {
            self.linear(x, &format!("{block}.attention.attention.{name}"))?
                .f_view([n, tokens, c.heads, c.hidden_size / c.heads])?
                .f_transpose(1, 2)
        };
        let (query, key, value) = (split("query")?, split("key")?, split("value")?);
        let mixed = Tensor::f_scaled_dot_product_attention::<Tensor>(
            &query,
            &key,
            &value,
            None,
            0.0,
            false,
            None::<f64>,
            false,
        )?;
        let mixed = mixed.f_transpose(1, 2)?.f_reshape([n, tokens, c.hidden_size])?;
        self.linear(&mixed, &format!("{block}.attention.output.dense"))
    }
}

impl Model for Vit {
    fn parameters(&self) -> &BTreeMap<String, Tensor> {
        &self.parameters
    }

    fn logits(&self, inputs: &[Tensor], _: Pass) -> Result<Tensor, TchError> {
        let c = &self.config;
        let [pixels] = inputs else {
            return Err(TchError::Shape(format!("a ViT takes one input, found {}", inputs.len())));
        };
        let mut x = self.embed(pixels)?;
        for layer in 0..c.layers {
            let block = format!("{}.encoder.layer.{layer}", c.prefix);
            let attended = self.attention(&self.layer_norm(&x, &format!("{block}.layernorm_before"))?, &block)?;
            x = x.f_add(&attended)?;
            let hidden = self.layer_norm(&x, &format!("{block}.layernorm_after"))?;
            let hidden = c.activation.apply(&self.linear(&hidden, &format!("{block}.intermediate.dense"))?)?;
            x = x.f_add(&self.linear(&hidden, &format!("{block}.output.dense"))?)?;
        }
        // The norm works on each token alone, and the heads look only at the special ones.
        let special = x.f_slice(1, 0, c.special_tokens(), 1)?;
        let special = self.layer_norm(&special, &format!("{}.layernorm", c.prefix))?;
        let class = self.linear(&special.f_select(1, 0)?, c.heads_names()[0])?;
        match c.head {
            Head::ClassToken => Ok(class),
            Head::WithTeacher => {
                let teacher = self.linear(&special.f_select(1, 1)?, c.heads_names()[1])?;
                class.f_add(&teacher)?.f_div_scalar(2.0)
            }
        }
    }

    /// A key's bias adds the same to all of a query's attention logits, and softmax ignores that.
    fn gradient_free(&self, name: &str) -> bool {
        name.ends_with(".attention.attention.key.bias")
    }

    fn fingerprint(&self) -> String {
        format!("{:?}", self.config)
    }

    fn input_shapes(&self) -> Option<Vec<Vec<i64>>> {
        Some(vec![vec![self.config.channels, self.config.image_size, self.config.image_size]])
    }

    fn classes(&self) -> Option<i64> {
        Some(self.classes)
    }
}
