//! A zoo whose ingredients differ from one base by rank 1, on disk and in factors.

use std::path::PathBuf;

use mehl_soup::zoo::Zoo;
use mehl_soup_worker::hyperplane::MixedTensors;
use mehl_soup_worker::rng;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tch::{Device, Kind, Tensor};

/// Rows and columns of each tensor.
pub const SHAPES: [[usize; 2]; 3] = [[40, 300], [100, 20], [64, 64]];
/// Layer group of each tensor.
pub const GROUP_OF: [usize; 3] = [0, 1, 0];
/// L.
pub const GROUPS: usize = 2;
/// K.
pub const INGREDIENTS: usize = 4;
/// The model batch.
pub const MEMBERS: [usize; 3] = [0, 1, 3];

/// `theta[k] = base + left[k] right[k]^T` for each tensor.
pub struct Factors {
    /// The base, row-major.
    pub base: Vec<f64>,
    /// `[K]` vectors, as long as there are rows.
    pub left: Vec<Vec<f64>>,
    /// `[K]` vectors, as long as there are columns.
    pub right: Vec<Vec<f64>>,
}

impl Factors {
    /// `theta[k] - base`, row-major.
    fn difference(&self, k: usize) -> Vec<f64> {
        let row = |u: &f64| -> Vec<f64> { self.right[k].iter().map(|v| u * v).collect() };
        self.left[k].iter().flat_map(row).collect()
    }
}

/// The zoo, and what a model batch of it is in f64.
pub struct Case {
    _folder: tempfile::TempDir,
    pub zoo: Zoo,
    pub mixed: MixedTensors,
    pub factors: Vec<Factors>,
    /// Of the centre, row-major `[K, L]`; columns sum to 1.
    pub coefficients: Vec<f64>,
}

impl Case {
    pub fn new() -> Self {
        let mut rng = rng::generator(11, "rank 1", &[]);
        let mut draw =
            |n: usize, scale: f64| -> Vec<f64> { (0..n).map(|_| scale * (2.0 * rng::unit(&mut rng) - 1.0)).collect() };
        let factors: Vec<Factors> = SHAPES
            .iter()
            .map(|&[rows, columns]| Factors {
                base: draw(rows * columns, 1.0),
                left: (0..INGREDIENTS).map(|_| draw(rows, 0.7)).collect(),
                right: (0..INGREDIENTS).map(|_| draw(columns, 0.7)).collect(),
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..INGREDIENTS).map(|k| write(folder.path(), k, &factors)).collect();
        let mixed = MixedTensors {
            names: (0..SHAPES.len()).map(|i| format!("tensor{i}.weight")).collect(),
            groups: GROUP_OF.to_vec(),
            sizes: SHAPES.iter().map(|[rows, columns]| rows * columns).collect(),
            group_count: GROUPS,
            masked: vec![false; GROUPS],
        };
        // In group 1 the centre is the last ingredient.
        let coefficients = vec![0.1, 0.0, 0.2, 0.0, 0.3, 0.0, 0.4, 1.0];
        Self { _folder: folder, zoo: Zoo::open(&paths).unwrap(), mixed, factors, coefficients }
    }

    /// The soup of a table of coefficients, row-major `[K, L]`.
    pub fn soup(&self, coefficients: &[f64]) -> Vec<Vec<f64>> {
        let tensor = |(factors, group): (&Factors, usize)| {
            let mut sum = factors.base.clone();
            for k in 0..INGREDIENTS {
                add(&mut sum, coefficients[k * GROUPS + group], &factors.difference(k));
            }
            sum
        };
        self.factors.iter().zip(GROUP_OF).map(tensor).collect()
    }

    pub fn centre(&self) -> Vec<Vec<f64>> {
        self.soup(&self.coefficients)
    }

    /// The centre as a model batch takes it.
    pub fn centre_tensors(&self) -> Vec<Tensor> {
        self.centre().iter().map(|values| Tensor::from_slice(values).to_kind(Kind::Float)).collect()
    }

    /// `theta[k] - c` of one tensor, in f64.
    fn direction(&self, k: usize, tensor: usize) -> Vec<f64> {
        let factors = &self.factors[tensor];
        let mut own = factors.base.clone();
        add(&mut own, 1.0, &factors.difference(k));
        add(&mut own, -1.0, &self.centre()[tensor]);
        own
    }

    /// `c + sum_k s[k,l] (theta[k,l] - c[l])`
    pub fn moved(&self, moves: &[f64]) -> Vec<Vec<f64>> {
        let mut moved = self.centre();
        for (i, sum) in moved.iter_mut().enumerate() {
            for (at, &k) in MEMBERS.iter().enumerate() {
                add(sum, moves[at * GROUPS + GROUP_OF[i]], &self.direction(k, i));
            }
        }
        moved
    }

    /// Lengths of the directions, row-major `[b, L]`.
    pub fn norms(&self) -> Vec<f64> {
        let mut squares = vec![0.0; MEMBERS.len() * GROUPS];
        for (at, &k) in MEMBERS.iter().enumerate() {
            for (i, group) in GROUP_OF.into_iter().enumerate() {
                squares[at * GROUPS + group] += self.direction(k, i).iter().map(|d| d * d).sum::<f64>();
            }
        }
        // The one that vanishes does so up to rounding in f64.
        squares.iter().map(|square| if *square < 1e-20 { 0.0 } else { square.sqrt() }).collect()
    }

    /// Inner products of unit directions with gradients, row-major `[b, L]`, and the gradients'
    /// norm.
    pub fn projection(&self, gradients: &[Tensor]) -> (Vec<f64>, f64) {
        let norms = self.norms();
        let (mut dots, mut square) = (vec![0.0; norms.len()], 0.0);
        for (i, gradient) in gradients.iter().enumerate().filter(|(_, gradient)| gradient.defined()) {
            let values = Vec::<f64>::try_from(gradient.to_kind(Kind::Double).view(-1)).unwrap();
            square += values.iter().map(|g| g * g).sum::<f64>();
            for (at, &k) in MEMBERS.iter().enumerate() {
                let here = at * GROUPS + GROUP_OF[i];
                let dot: f64 = self.direction(k, i).iter().zip(&values).map(|(d, g)| d * g).sum();
                dots[here] += if norms[here] == 0.0 { 0.0 } else { dot / norms[here] };
            }
        }
        (dots, square.sqrt())
    }

    /// Leaves, one a tensor, in its shape.
    pub fn zeros(&self, kind: Kind) -> [Tensor; 3] {
        SHAPES.map(|[rows, columns]| Tensor::zeros([rows as i64, columns as i64], (kind, Device::Cpu)))
    }

    /// A gradient that is not orthogonal to the directions.
    pub fn gradients(&self, kind: Kind) -> [Tensor; 3] {
        let mut rng = rng::generator(12, "gradient", &[]);
        let mut tensors = (0..SHAPES.len()).map(|i| {
            let [rows, columns] = SHAPES[i].map(|n| n as i64);
            let values: Vec<f64> = self.direction(0, i).iter().map(|d| 0.3 * d + rng::unit(&mut rng) - 0.5).collect();
            Tensor::from_slice(&values).to_kind(kind).view([rows, columns])
        });
        std::array::from_fn(|_| tensors.next().unwrap())
    }
}

/// `sum += factor values`
fn add(sum: &mut [f64], factor: f64, values: &[f64]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
}

/// The largest difference of any element.
pub fn largest_apart(tensors: &[Tensor], expected: &[Vec<f64>]) -> f64 {
    assert_eq!(tensors.len(), expected.len());
    let apart = tensors.iter().zip(expected).map(|(tensor, expected)| {
        let found = Vec::<f64>::try_from(tensor.to_kind(Kind::Double).view(-1)).unwrap();
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    });
    apart.fold(0.0, f64::max)
}

fn write(folder: &std::path::Path, k: usize, factors: &[Factors]) -> PathBuf {
    let path = folder.join(format!("k{k}.safetensors"));
    let bytes: Vec<Vec<u8>> = factors
        .iter()
        .map(|factors| {
            let values = factors.base.iter().zip(factors.difference(k));
            values.flat_map(|(base, difference)| ((base + difference) as f32).to_le_bytes()).collect()
        })
        .collect();
    let views = bytes.iter().zip(SHAPES).enumerate().map(|(i, (bytes, shape))| {
        (format!("tensor{i}.weight"), TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
    });
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    path
}
