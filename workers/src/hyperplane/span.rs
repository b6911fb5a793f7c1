//! A model batch on the device: its rows, and what is done with them in every iteration.

use mehl_soup::zoo::{Element, LayerGroups, Layout, Zoo, ZooError};
use tch::{Device, Kind, TchError, Tensor};

use super::compact::{self, CompactMix, CompactProject, CompactRows};
use super::kernels::{self, Base, Float, MixJob, ProjectJob, Sink, Source};
use super::on_device;
use super::tensors::{copy_from_slice, slice, slice_bf16, slice_bf16_mut, slice_mut};
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
    pub(super) kind: Kind,
    pub(super) members: usize,
    pub(super) groups: Vec<usize>,
    pub(super) group_count: usize,
    /// The centre, a flat tensor for each mixed tensor; `None` for `learned`.
    pub(super) base: Option<Vec<Tensor>>,
    pub(super) rows: Rows,
}

/// What is stored of the model batch, one for each mixed tensor.
pub(super) enum Rows {
    /// `[b, n]`, the rows themselves.
    Whole(Vec<Tensor>),
    /// Rows before they are divided by their lengths; `1 / n`, row-major `[b, L]`, 0 where a direction vanishes.
    Compact { rows: Vec<CompactRows>, inverse_norms: Vec<f64> },
}

/// Calls a function for f64 or f32.
macro_rules! by_kind {
    ($kind:expr, $function:ident ( $($argument:expr),* )) => {
        match $kind {
            Kind::Double => $function::<f64>($($argument),*),
            _ => $function::<f32>($($argument),*),
        }
    };
}

pub(super) use by_kind;

impl Span {
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
        let mut rows = Vec::with_capacity(mixed.names.len());
        for (name, &n) in mixed.names.iter().zip(&mixed.sizes) {
            rows.push(by_kind!(kind, load_rows(zoo, members, name, n))?.f_to_device(device)?);
        }
        check_members(zoo, members)?;
        Ok(Self {
            kind,
            members: members.len(),
            groups: mixed.groups.clone(),
            group_count: mixed.group_count,
            base: None,
            rows: Rows::Whole(rows),
        })
    }

    /// Sets each target to the mix at coordinates `x`, row-major `[b, L]`. Targets are leaves, one a mixed tensor; the sum is in the span's dtype, and one in bf16 gets it rounded.
    pub fn mix_into(&self, x: &[f64], targets: &[Tensor]) -> Result<(), TchError> {
        by_kind!(self.kind, mix_tensors(self, x, Target::Leaves(targets)))
    }

    /// The mix at `x`, in place on the centre, which it gives back.
    ///
    /// # Panics
    /// If the span has no base.
    pub(super) fn fold(self, x: &[f64]) -> Result<Vec<Tensor>, TchError> {
        assert!(self.base.is_some(), "only a span with a centre is folded");
        by_kind!(self.kind, mix_tensors(&self, x, Target::Base))?;
        Ok(self.base.unwrap_or_default())
    }

    /// Inner products of every row with the gradient, in the span's dtype or bf16, and the gradient's norm (arXiv 2407.03641, equation (6)).
    /// An undefined gradient (a parameter that the loss does not depend on) counts as 0.
    pub fn project(&self, gradients: &[Tensor]) -> Result<Projection, TchError> {
        let (dots, squares) = by_kind!(self.kind, project_tensors(self, gradients))?;
        Ok(Projection { dots, gradient_norm: squares.sqrt() })
    }

    /// Bytes of the rows.
    pub fn bytes(&self) -> usize {
        match &self.rows {
            Rows::Whole(rows) => rows.iter().map(|row| row.numel() * row.kind().elt_size_in_bytes()).sum(),
            Rows::Compact { rows, .. } => rows.iter().map(CompactRows::bytes).sum(),
        }
    }

    /// The centre, without the rows.
    pub(super) fn into_base(self) -> Vec<Tensor> {
        self.base.unwrap_or_default()
    }

    /// Of one tensor, `[b]`, from those of all groups.
    pub(super) fn coordinates(&self, x: &[f64], tensor: usize) -> Vec<f64> {
        (0..self.members).map(|k| x[k * self.group_count + self.groups[tensor]]).collect()
    }
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

/// After reading: a file that changed meanwhile would give directions that belong to no ingredient.
pub(super) fn check_members(zoo: &Zoo, members: &[usize]) -> Result<(), ZooError> {
    members.iter().try_for_each(|&k| zoo.row(k).check_unchanged())
}

pub(super) fn load_rows<T: Float + Element>(
    zoo: &Zoo,
    members: &[usize],
    name: &str,
    n: usize,
) -> Result<Tensor, SpanError> {
    let kind = if size_of::<T>() == 4 { Kind::Float } else { Kind::Double };
    let rows = Tensor::f_empty([members.len() as i64, n as i64], (kind, Device::Cpu))?;
    load_into::<T>(zoo, members, name, &rows)?;
    Ok(rows)
}

/// Reads one tensor of each member into its row, `[b, n]`.
pub(super) fn load_into<T: Float + Element>(
    zoo: &Zoo,
    members: &[usize],
    name: &str,
    rows: &Tensor,
) -> Result<(), SpanError> {
    let n = rows.size()[1].max(1) as usize;
    for (row, &k) in slice_mut::<T>(rows).chunks_mut(n).zip(members) {
        zoo.read_row(k, name, row)?;
    }
    Ok(())
}

/// Where a mix goes.
#[derive(Clone, Copy)]
enum Target<'a> {
    /// Into these leaves.
    Leaves(&'a [Tensor]),
    /// Into the span's own base.
    Base,
}

fn mix_tensors<T: Float>(span: &Span, x: &[f64], target: Target<'_>) -> Result<(), TchError> {
    let outputs: &[Tensor] = match (target, &span.base) {
        (Target::Leaves(leaves), _) => leaves,
        (Target::Base, base) => base.as_deref().unwrap_or_default(),
    };
    let on_host = outputs.first().is_none_or(|t| t.device() == Device::Cpu);
    match (&span.rows, &span.base) {
        (Rows::Whole(rows), _) if on_host => {
            let jobs = outputs
                .iter()
                .enumerate()
                .map(|(i, out)| MixJob {
                    out: sink(out),
                    base: match (target, &span.base) {
                        (Target::Base, _) => Base::InPlace,
                        (_, Some(base)) => Base::From(slice::<T>(&base[i])),
                        (_, None) => Base::Zero,
                    },
                    rows: slice::<T>(&rows[i]),
                    x: span.coordinates(x, i).into_iter().map(T::from_f64).collect(),
                })
                .collect();
            kernels::mix(jobs);
            Ok(())
        }
        (Rows::Compact { rows, inverse_norms }, Some(base)) if on_host => {
            let x: Vec<f64> = x.iter().zip(inverse_norms).map(|(x, inverse)| x * inverse).collect();
            let jobs = outputs
                .iter()
                .enumerate()
                .map(|(i, out)| CompactMix {
                    out: sink(out),
                    base: slice::<T>(&base[i]),
                    rows: rows[i].host(),
                    x: span.coordinates(&x, i).into_iter().map(T::from_f64).collect(),
                })
                .collect();
            compact::mix(jobs);
            Ok(())
        }
        _ => tch::no_grad(|| on_device::mix(span, x, outputs)),
    }
}

fn sink<T: Float>(out: &Tensor) -> Sink<'_, T> {
    match out.kind() {
        Kind::BFloat16 => Sink::Bf16(slice_bf16_mut(out)),
        _ => Sink::Own(slice_mut(out)),
    }
}

fn source<T: Float>(gradient: &Tensor) -> Source<'_, T> {
    match gradient.kind() {
        Kind::BFloat16 => Source::Bf16(slice_bf16(gradient)),
        _ => Source::Own(slice(gradient)),
    }
}

fn project_tensors<T: Float>(span: &Span, gradients: &[Tensor]) -> Result<(Vec<f64>, f64), TchError> {
    let (b, l) = (span.members, span.group_count);
    let mut dots = vec![0.0; b * l];
    let mut squares = 0.0;
    let mut add = |tensor: usize, row_dots: &[f64], square: f64| {
        for (k, dot) in row_dots.iter().enumerate() {
            dots[k * l + span.groups[tensor]] += dot;
        }
        squares += square;
    };
    let defined: Vec<usize> = (0..gradients.len()).filter(|&i| gradients[i].defined()).collect();
    let on_host = defined.first().is_none_or(|&i| gradients[i].device() == Device::Cpu);
    if on_host {
        let contiguous: Vec<Tensor> = defined.iter().map(|&i| gradients[i].f_contiguous()).collect::<Result<_, _>>()?;
        let gradients_of = defined.iter().copied().zip(contiguous.iter().map(source::<T>));
        let projected = match &span.rows {
            Rows::Whole(rows) => {
                let jobs = gradients_of.map(|(i, gradient)| ProjectJob { rows: slice::<T>(&rows[i]), gradient });
                kernels::project(&jobs.collect::<Vec<_>>())
            }
            Rows::Compact { rows, .. } => {
                let jobs = gradients_of.map(|(i, gradient)| CompactProject { rows: rows[i].host(), gradient });
                compact::project(&jobs.collect::<Vec<_>>())
            }
        };
        for (&i, (row_dots, square)) in defined.iter().zip(projected) {
            add(i, &row_dots, square);
        }
    } else {
        for (&i, (row_dots, square)) in defined.iter().zip(on_device::project(span, gradients, &defined)?) {
            add(i, &row_dots, square);
        }
    }
    if let Rows::Compact { inverse_norms, .. } = &span.rows {
        dots.iter_mut().zip(inverse_norms).for_each(|(dot, inverse)| *dot *= inverse);
    }
    Ok((dots, squares))
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
