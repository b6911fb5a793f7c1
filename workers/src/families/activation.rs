//! Activation functions by the names of Hugging Face configurations.

use tch::{TchError, Tensor};

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x Phi(x)`, with the error function.
    Gelu,
    /// The hyperbolic tangent's approximation of it.
    GeluTanh,
    /// `x sigmoid(1.702 x)`.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `x sigmoid(x)`.
    Silu,
}

impl Activation {
    /// Names that [`Activation::parse`] knows.
    pub const NAMES: &str = "gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, relu, silu, swish";

    /// By `hidden_act`'s name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "gelu" => Self::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Self::GeluTanh,
            "quick_gelu" => Self::QuickGelu,
            "relu" => Self::Relu,
            "silu" | "swish" => Self::Silu,
            _ => return None,
        })
    }

    /// Applies it to each element; in place where no gradient is wanted, so that a scoring pass needs no second tensor
    /// of the size of the widest layer. The bits are the same.
    pub fn apply(self, mut x: Tensor) -> Result<Tensor, TchError> {
        if x.requires_grad() {
            return match self {
                Self::Gelu => x.f_gelu("none"),
                Self::GeluTanh => x.f_gelu("tanh"),
                Self::QuickGelu => x.f_mul(&x.f_mul_scalar(1.702)?.f_sigmoid()?),
                Self::Relu => x.f_relu(),
                Self::Silu => x.f_silu(),
            };
        }
        match self {
            Self::Gelu => x.f_gelu_("none"),
            Self::GeluTanh => x.f_gelu_("tanh"),
            Self::QuickGelu => {
                let gate = x.f_mul_scalar(1.702)?.f_sigmoid_()?;
                x.f_mul_(&gate)
            }
            Self::Relu => x.f_relu_(),
            Self::Silu => x.f_silu_(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn values_are_the_same_bits_in_place() {
        for name in Activation::NAMES.split(", ") {
            let activation = Activation::parse(name).unwrap();
            for kind in [Kind::Float, Kind::Double, Kind::BFloat16] {
                let x = Tensor::randn([77], (Kind::Float, Device::Cpu)).to_kind(kind);
                let kept = activation.apply(x.copy().set_requires_grad(true)).unwrap();
                let place = x.data_ptr();
                let replaced = activation.apply(x).unwrap();
                assert!(replaced.equal(&kept.detach()), "{name}, {kind:?}");
                assert_eq!(replaced.data_ptr(), place, "{name}, {kind:?}");
            }
        }
    }
}
