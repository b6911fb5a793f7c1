//! A model batch on the device: its rows, and what is done with them in every iteration.

use mehl_soup::zoo::{Element, LayerGroups, Layout, Zoo, ZooError};
use tch::{Device, Kind, TchError, Tensor};

use super::kernels::Float;
use super::read::check_members;
use super::rows::{Rows, Start, TensorProjection};
use super::tensors::{copy_from_slice, slice_mut};
use super::whole::Whole;
use crate::families::Model;

/// The tensors that soups move: which they are, and the layer group of each.
#[derive(Debug, Clone)]
pub struct MixedTensors {
    /// Names on disk, sorted.
    pub names: Vec<String>,
    /// Layer group of each.
    pub groups: Vec<usize>,
    /// Elements of each.
    pub sizes: Vec<usize>,
    /// L.
    pub group_count: usize,
    /// Groups all of whose tensors cannot change the loss: their coordinates stay 0.
    pub masked: Vec<bool>,
}

impl MixedTensors {
    /// The mixed tensors of a zoo under a grouping.
    pub fn new(layout: &Layout, groups: &LayerGroups, model: &dyn Model) -> Self {
        let mut mixed = Self {
            names: vec![],
            groups: vec![],
            sizes: vec![],
            group_count: groups.len(),
            masked: vec![true; groups.len()],
        };
        // A tensor that the model ties to another has no leaf of its own; the layout ties the two as well.
        for tensor in layout.mixed().filter(|tensor| model.parameters().contains_key(&tensor.name)) {
            let group = groups.of(&tensor.name).expect("every mixed tensor has a layer group");
            mixed.masked[group] &= model.gradient_free(&tensor.name);
            mixed.names.push(tensor.name.clone());
            mixed.groups.push(group);
            mixed.sizes.push(tensor.shape.iter().product());
        }
        mixed
    }

    /// D: elements of all mixed tensors together.
    pub fn elements(&self) -> usize {
        self.sizes.iter().sum()
    }
}

/// What a backward pass says about the coordinates.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// `<row[k,l], g[l]>`, row-major `[b, L]`.
    pub dots: Vec<f64>,
    /// Euclidean norm of the gradient over all mixed tensors.
    pub gradient_norm: f64,
}

/// `w[l] = base[l] + sum_k x[k,l] row[k,l]` for one model batch.
pub struct Span {
    kind: Kind,
    members: usize,
    /// Layer group of each tensor.
    groups: Vec<usize>,
    group_count: usize,
    /// The centre, a flat tensor for each mixed tensor; `None` for `learned`.
    base: Option<Vec<Tensor>>,
    rows: Box<dyn Rows>,
    /// `1 / n`, row-major `[b, L]`, 0 where a direction vanishes; `None` where the rows themselves
    /// are divided by their lengths, or are no directions.
    inverse_norms: Option<Vec<f64>>,
}

impl Span {
    /// Of the rows of `members` ingredients; see the fields.
    pub(super) fn new(
        rows: Box<dyn Rows>,
        members: usize,
        mixed: &MixedTensors,
        base: Option<Vec<Tensor>>,
        kind: Kind,
        inverse_norms: Option<Vec<f64>>,
    ) -> Self {
        let (groups, group_count) = (mixed.groups.clone(), mixed.group_count);
        Self { kind, members, groups, group_count, base, rows, inverse_norms }
    }

    /// The ingredients themselves as rows, without a base: for `learned`.
    ///
    /// # Errors
    /// If an ingredient cannot be read or memory cannot be had.
    pub fn of_ingredients(
        zoo: &Zoo,
        members: &[usize],
        mixed: &MixedTensors,
        device: Device,
        kind: Kind,
    ) -> Result<Self, SpanError> {
        let rows = Whole::of_ingredients(zoo, members, mixed, device, kind)?;
        check_members(zoo, members)?;
        Ok(Self::new(Box::new(rows), members.len(), mixed, None, kind, None))
    }

    /// Sets each target to the mix at coordinates `x`, row-major `[b, L]`. Targets are leaves, one a
    /// mixed tensor; the sum is in the span's dtype, and one in bf16 gets it rounded.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn mix_into(&self, x: &[f64], targets: &[Tensor]) -> Result<(), TchError> {
        let start = self.base.as_deref().map_or(Start::Zero, Start::From);
        self.rows.mix(&self.coordinates(x), start, targets)
    }

    /// The mix at `x`, in place on the centre, which it gives back.
    ///
    /// # Panics
    /// If the span has no base.
    pub(super) fn fold(self, x: &[f64]) -> Result<Vec<Tensor>, TchError> {
        let x = self.coordinates(x);
        let base = self.base.expect("only a span with a centre is folded");
        self.rows.mix(&x, Start::InPlace, &base)?;
        Ok(base)
    }

    /// Inner products of every row with the gradient, in the span's dtype or bf16, and the
    /// gradient's norm (arXiv 2407.03641, equation (6)). An undefined gradient (a parameter that the
    /// loss does not depend on) counts as 0.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn project(&self, gradients: &[Tensor]) -> Result<Projection, TchError> {
        let defined: Vec<usize> = (0..gradients.len()).filter(|&i| gradients[i].defined()).collect();
        Ok(self.sum(defined.iter().copied().zip(self.project_some(gradients, &defined)?)))
    }

    /// Inner products and squares of some tensors, ascending; only their gradients need to be defined.
    pub(super) fn project_some(
        &self,
        gradients: &[Tensor],
        which: &[usize],
    ) -> Result<Vec<TensorProjection>, TchError> {
        self.rows.project(gradients, which)
    }

    /// The projection that those of single tensors add up to, ascending.
    pub(super) fn sum(&self, of_tensors: impl Iterator<Item = (usize, TensorProjection)>) -> Projection {
        let l = self.group_count;
        let (mut dots, mut squares) = (vec![0.0; self.members * l], 0.0);
        for (i, (of_rows, square)) in of_tensors {
            for (k, dot) in of_rows.iter().enumerate() {
                dots[k * l + self.groups[i]] += dot;
            }
            squares += square;
        }
        if let Some(inverse_norms) = &self.inverse_norms {
            dots.iter_mut().zip(inverse_norms).for_each(|(dot, inverse)| *dot *= inverse);
        }
        Projection { dots, gradient_norm: squares.sqrt() }
    }

    /// Mixed tensors.
    pub(super) fn tensors(&self) -> usize {
        self.groups.len()
    }

    /// Bytes of the rows.
    pub fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    /// Whether the rows are as exact as the files.
    pub(super) fn is_exact(&self) -> bool {
        self.rows.is_exact()
    }

    /// Dtype that is computed in.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The centre, without the rows.
    pub(super) fn into_base(self) -> Vec<Tensor> {
        self.base.unwrap_or_default()
    }

    /// Coordinates as the rows take them, row-major `[tensors, b]`, from those of all groups.
    fn coordinates(&self, x: &[f64]) -> Vec<f64> {
        let divided: Option<Vec<f64>> = self
            .inverse_norms
            .as_ref()
            .map(|inverse_norms| x.iter().zip(inverse_norms).map(|(x, inverse)| x * inverse).collect());
        arranged(divided.as_deref().unwrap_or(x), self.members, &self.groups, self.group_count)
    }
}

/// Values of each tensor, row-major `[tensors, b]`, from those of each layer group, `[b, L]`.
pub(super) fn by_tensor(values: &[f64], members: usize, mixed: &MixedTensors) -> Vec<f64> {
    arranged(values, members, &mixed.groups, mixed.group_count)
}

fn arranged(values: &[f64], members: usize, groups: &[usize], group_count: usize) -> Vec<f64> {
    groups.iter().flat_map(|group| (0..members).map(move |k| values[k * group_count + group])).collect()
}

/// Why a model batch cannot be held.
#[derive(Debug, thiserror::Error)]
pub enum SpanError {
    /// An ingredient is at fault.
    #[error(transparent)]
    Zoo(#[from] ZooError),
    /// libtorch refused, for want of memory most likely.
    #[error(transparent)]
    Torch(#[from] TchError),
}

/// The soup `sum_k weights[k] theta[k]` of one tensor, written to a leaf on any device.
pub fn write_soup(zoo: &Zoo, name: &str, weights: &[f64], target: &Tensor) -> Result<(), SpanError> {
    fn write<T: Float + Element + tch::kind::Element>(
        zoo: &Zoo,
        name: &str,
        weights: &[f64],
        target: &Tensor,
    ) -> Result<(), SpanError> {
        if target.device() == Device::Cpu {
            mehl_soup::coefficients::mix_tensor(zoo, name, weights, slice_mut::<T>(target))?;
        } else {
            let mut host = vec![T::default(); target.numel()];
            mehl_soup::coefficients::mix_tensor(zoo, name, weights, &mut host)?;
            copy_from_slice(target, &host)?;
        }
        Ok(())
    }
    match target.kind() {
        Kind::Double => write::<f64>(zoo, name, weights, target),
        _ => write::<f32>(zoo, name, weights, target),
    }
}
