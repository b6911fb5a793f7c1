//! A model batch on the device: its rows, and what is done with them in every iteration.

use mehl_soup::zoo::{Element, LayerGroups, Layout, Zoo, ZooError};
use tch::{Device, Kind, TchError, Tensor};

use super::kernels::{self, Base, Float, MixJob, ProjectJob};
use super::{copy_from_slice, slice, slice_mut};
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
    groups: Vec<usize>,
    group_count: usize,
    /// The centre, a flat tensor for each mixed tensor; `None` for `learned`.
    base: Option<Vec<Tensor>>,
    /// `[b, n]` for each mixed tensor.
    rows: Vec<Tensor>,
}

/// A span of unit directions, with their lengths before division.
pub struct Directions {
    /// Centre and unit directions.
    pub span: Span,
    /// n, row-major `[b, L]`; 0 where a direction vanishes.
    pub norms: Vec<f64>,
}

/// A direction of a group counts as vanished below this part of the larger of the two norms: it is rounding noise then.
const VANISHED: f64 = 1e-6;

macro_rules! by_kind {
    ($kind:expr, $function:ident ( $($argument:expr),* )) => {
        match $kind {
            Kind::Double => $function::<f64>($($argument),*),
            _ => $function::<f32>($($argument),*),
        }
    };
}

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
            rows,
        })
    }

    /// Sets each target to the mix at coordinates `x`, row-major `[b, L]`. Targets are leaves, one a mixed tensor.
    pub fn mix_into(&self, x: &[f64], targets: &[Tensor]) -> Result<(), TchError> {
        by_kind!(self.kind, mix_tensors(self, x, Target::Leaves(targets)))
    }

    /// Step 5 of a model batch, on the centre: `c += sum_k x[k,l] d[k,l]`, k ascending, in the centre's dtype; gives the centre back.
    ///
    /// The chain of folds and the mix that `A` stands for differ by rounding alone. In f32, elementwise and relative to the largest `|theta|` of the
    /// tensor: at most `folds (4 b + 8) 2^-24 s g`, with s the largest `sum_k |A[k,l]|` seen and g the product of `max(1, |1 - sum_k beta[k,l]|)` over the
    /// folds (shown by a property test).
    ///
    /// # Panics
    /// If the span has no base.
    pub fn fold(self, x: &[f64]) -> Result<Vec<Tensor>, TchError> {
        assert!(self.base.is_some(), "only a span with a centre is folded");
        by_kind!(self.kind, mix_tensors(&self, x, Target::Base))?;
        Ok(self.base.unwrap_or_default())
    }

    /// Inner products of every row with the gradient, and the gradient's norm (arXiv 2407.03641, equation (6)).
    /// An undefined gradient (a parameter that the loss does not depend on) counts as 0.
    pub fn project(&self, gradients: &[Tensor]) -> Result<Projection, TchError> {
        let (dots, squares) = by_kind!(self.kind, project_tensors(self, gradients))?;
        Ok(Projection { dots, gradient_norm: squares.sqrt() })
    }

    fn coordinates(&self, x: &[f64], tensor: usize) -> Vec<f64> {
        (0..self.members).map(|k| x[k * self.group_count + self.groups[tensor]]).collect()
    }
}

impl Directions {
    /// Reads the model batch and takes its unit directions from the centre (step 2 of a model batch).
    ///
    /// `d[k,l] = (theta[k,l] - c[l]) / n[k,l]` with n the Euclidean norm over the group, squares summed in f64. Where
    /// `n <= 1e-6 max(|theta|, |c|)` the direction is 0 and n is given as 0.
    ///
    /// Reads each member once, tensor by tensor, straight into its row.
    ///
    /// # Errors
    /// If an ingredient cannot be read or memory cannot be had.
    pub fn new(
        zoo: &Zoo,
        members: &[usize],
        mixed: &MixedTensors,
        centre: Vec<Tensor>,
        device: Device,
        kind: Kind,
    ) -> Result<Self, SpanError> {
        let (b, l) = (members.len(), mixed.group_count);
        let mut difference = vec![0.0; b * l];
        let mut own = vec![0.0; b * l];
        let mut centres = vec![0.0; l];
        let mut rows = Vec::with_capacity(mixed.names.len());
        for (i, (name, &n)) in mixed.names.iter().zip(&mixed.sizes).enumerate() {
            let row = by_kind!(kind, load_rows(zoo, members, name, n))?;
            let host_centre = centre[i].f_to_device(Device::Cpu)?;
            let (squares, centre_square) = by_kind!(kind, subtract(&row, &host_centre));
            let group = mixed.groups[i];
            centres[group] += centre_square;
            for (k, (d, o)) in squares.into_iter().enumerate() {
                difference[k * l + group] += d;
                own[k * l + group] += o;
            }
            rows.push(row);
        }
        check_members(zoo, members)?;
        let norms: Vec<f64> = (0..b * l)
            .map(|i| {
                let n = difference[i].sqrt();
                if n <= VANISHED * own[i].max(centres[i % l]).sqrt() { 0.0 } else { n }
            })
            .collect();
        for (i, row) in rows.iter_mut().enumerate() {
            by_kind!(kind, normalise_rows(row, |k| norms[k * l + mixed.groups[i]]));
            if device != Device::Cpu {
                *row = row.f_to_device(device)?;
            }
        }
        let span = Span { kind, members: b, groups: mixed.groups.clone(), group_count: l, base: Some(centre), rows };
        Ok(Self { span, norms })
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
fn check_members(zoo: &Zoo, members: &[usize]) -> Result<(), ZooError> {
    members.iter().try_for_each(|&k| zoo.ingredients()[k].check_unchanged())
}

fn load_rows<T: Float + Element>(zoo: &Zoo, members: &[usize], name: &str, n: usize) -> Result<Tensor, SpanError> {
    let kind = if size_of::<T>() == 4 { Kind::Float } else { Kind::Double };
    let rows = Tensor::f_empty([members.len() as i64, n as i64], (kind, Device::Cpu))?;
    for (row, &k) in slice_mut::<T>(&rows).chunks_mut(n.max(1)).zip(members) {
        zoo.ingredients()[k].read(name, row)?;
    }
    Ok(rows)
}

fn subtract<T: Float>(rows: &Tensor, centre: &Tensor) -> (Vec<(f64, f64)>, f64) {
    kernels::subtract_centre(slice_mut::<T>(rows), slice::<T>(centre))
}

fn normalise_rows<T: Float>(rows: &Tensor, norm: impl Fn(usize) -> f64) {
    let n = rows.size()[1].max(1) as usize;
    for (k, row) in slice_mut::<T>(rows).chunks_mut(n).enumerate() {
        kernels::normalise(row, norm(k));
    }
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
    if on_host {
        let jobs = outputs
            .iter()
            .enumerate()
            .map(|(i, out)| MixJob {
                out: slice_mut::<T>(out),
                base: match (target, &span.base) {
                    (Target::Base, _) => Base::InPlace,
                    (_, Some(base)) => Base::From(slice::<T>(&base[i])),
                    (_, None) => Base::Zero,
                },
                rows: slice::<T>(&span.rows[i]),
                x: span.coordinates(x, i).into_iter().map(T::from_f64).collect(),
            })
            .collect();
        kernels::mix(jobs);
        return Ok(());
    }
    tch::no_grad(|| {
        for (i, out) in outputs.iter().enumerate() {
            let x = Tensor::f_from_slice(&span.coordinates(x, i))?.f_to_kind(span.kind)?.f_to_device(out.device())?;
            let flat = out.f_view(-1)?;
            let mixed = match &span.base {
                Some(base) => base[i].f_addmv(&span.rows[i].f_transpose(0, 1)?, &x)?,
                None => span.rows[i].f_transpose(0, 1)?.f_mv(&x)?,
            };
            flat.shallow_clone().f_copy_(&mixed)?;
        }
        Ok(())
    })
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
    if span.rows.first().is_none_or(|t| t.device() == Device::Cpu) {
        let contiguous: Vec<Tensor> = defined.iter().map(|&i| gradients[i].f_contiguous()).collect::<Result<_, _>>()?;
        let jobs: Vec<ProjectJob<'_, T>> = defined
            .iter()
            .zip(&contiguous)
            .map(|(&i, gradient)| ProjectJob { rows: slice::<T>(&span.rows[i]), gradient: slice::<T>(gradient) })
            .collect();
        for (&i, (row_dots, square)) in defined.iter().zip(kernels::project(&jobs)) {
            add(i, &row_dots, square);
        }
        return Ok((dots, squares));
    }
    // All products are queued before the first is waited for.
    let mut pending = Vec::with_capacity(defined.len());
    for &i in &defined {
        let gradient = gradients[i].f_reshape(-1)?;
        pending.push((i, span.rows[i].f_mv(&gradient)?, gradient.f_dot(&gradient)?));
    }
    for (i, row_dots, square) in pending {
        add(i, &Vec::<f64>::try_from(row_dots.f_to_kind(Kind::Double)?)?, square.f_double_value(&[])?);
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
