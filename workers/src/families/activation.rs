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

    /// Applies it to each element.
    pub fn apply(self, x: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::Gelu => x.f_gelu("none"),
            Self::GeluTanh => x.f_gelu("tanh"),
            Self::QuickGelu => x.f_mul(&x.f_mul_scalar(1.702)?.f_sigmoid()?),
            Self::Relu => x.f_relu(),
            Self::Silu => x.f_silu(),
        }
    }
}
