//! A fixed mix of models, from files alone: nothing is learned, scored or computed.

use super::materialize::{MaterializeError, MaterializeReport, Options, write};
use super::{About, Coefficients, CoefficientsFile, IngredientRef};
use crate::sweep::spec::Grouping;
use crate::zoo::{LayerGroups, Layout, TensorClass, Zoo, ZooHashes, detect};

/// Largest distance of the sum of weights from 1.
const SUM_TOLERANCE: f64 = 1e-6;

/// Why models are not merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The weights are not those of a mix of these ingredients.
    #[error("weights: {0}")]
    Weights(String),
    /// A mix of running statistics is not that of the mixed model.
    #[error(
        "tensor `{tensor}`: the running statistics of batch normalisation differ between \
         ingredients, and must be computed on data for a mix: run a sweep with method `uniform` \
         instead"
    )]
    Statistics {
        /// The first of them.
        tensor: String,
    },
    /// The model cannot be written.
    #[error(transparent)]
    Write(#[from] MaterializeError),
}

/// The mix of a zoo with these weights, one an ingredient, that add up to 1; `None` for the plain mean.
///
/// # Errors
/// If the weights are not such weights, or the models have running statistics that differ.
pub fn fixed_mix(
    zoo: &Zoo,
    hashes: &ZooHashes,
    layout: &Layout,
    weights: Option<&[f64]>,
    notes: Vec<String>,
) -> Result<CoefficientsFile, MergeError> {
    if let Some(statistic) = layout.tensors.iter().find(|tensor| tensor.class == TensorClass::Statistic) {
        return Err(MergeError::Statistics { tensor: statistic.name.clone() });
    }
    let groups = LayerGroups::new(Grouping::Model, layout);
    let coefficients = match weights {
        None => Coefficients::mean_of(zoo.len(), groups.len(), &(0..zoo.len()).collect::<Vec<_>>()),
        Some(weights) => {
            check_weights(weights, zoo.len())?;
            Coefficients::from_values(zoo.len(), groups.len(), weights.to_vec())
                .ok_or_else(|| MergeError::Weights("expected one weight an ingredient".to_string()))?
        }
    };
    let ingredient = |(ingredient, hashes): (&crate::zoo::Ingredient, &crate::zoo::IngredientHashes)| IngredientRef {
        name: ingredient.name().to_string(),
        path: ingredient.path().to_path_buf(),
        hash: hashes.total.clone(),
    };
    let about = About {
        objective: Default::default(),
        version: About::VERSION,
        program: format!("mehl-soup {}", env!("CARGO_PKG_VERSION")),
        sweep: "merge".to_string(),
        task_id: if weights.is_some() { "weighted" } else { "mean" }.to_string(),
        method: if weights.is_some() { "fixed weights" } else { "uniform" }.to_string(),
        hyperparameters: serde_json::json!({}),
        seed: 0,
        family: detect(zoo.reference()).map_or_else(|_| "unknown".to_string(), |family| family.to_string()),
        ingredients: zoo.ingredients().iter().zip(&hashes.ingredients).map(ingredient).collect(),
        has_base: false,
        groups: groups.names.clone(),
        tensors: groups.tensors().clone(),
        scores: None,
        notes,
        data: vec![],
        better_than_best_ingredient: None,
    };
    Ok(CoefficientsFile { coefficients, statistics: Default::default(), about })
}

fn check_weights(weights: &[f64], ingredients: usize) -> Result<(), MergeError> {
    if weights.len() != ingredients {
        return Err(MergeError::Weights(format!(
            "expected {ingredients}, one per ingredient in the order of sorted paths, found {}",
            weights.len()
        )));
    }
    if let Some(bad) = weights.iter().find(|weight| !weight.is_finite()) {
        return Err(MergeError::Weights(format!("expected numbers, found {bad}")));
    }
    let sum: f64 = weights.iter().sum();
    if (sum - 1.0).abs() > SUM_TOLERANCE {
        return Err(MergeError::Weights(format!("expected a sum of 1, found {sum}")));
    }
    Ok(())
}

/// Writes the mix as a model folder, as [`materialize`](super::materialize()) does. `progress` hears (bytes done, bytes in all).
///
/// # Errors
/// If the model cannot be written; `options.out` is then as it was.
pub fn merge(
    zoo: &Zoo,
    layout: &Layout,
    file: &CoefficientsFile,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<MaterializeReport, MergeError> {
    let total = zoo.reference().total_bytes();
    let mut done = 0;
    let mut advance = |bytes: u64| {
        done += bytes;
        progress(done, total.max(done));
    };
    Ok(write(file, zoo, layout, options, &mut advance)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::testing::{f32s, open_zoo};

    fn mixed(weights: Option<&[f64]>) -> Result<Vec<f32>, MergeError> {
        let (root, zoo) = open_zoo(&[vec![f32s("a", &[2], &[1.0, 2.0])], vec![f32s("a", &[2], &[3.0, 6.0])]]);
        let hashes = zoo.hash(None, &mut |_, _| {}).unwrap();
        let layout = Layout::new(&zoo, &hashes).unwrap();
        let file = fixed_mix(&zoo, &hashes, &layout, weights, vec!["a note".to_string()])?;
        let out = root.path().join("out");
        let options = Options { out: out.clone(), ..Options::default() };
        merge(&zoo, &layout, &file, &options, &mut |_, _| {})?;
        let card = std::fs::read_to_string(out.join("README.md")).unwrap();
        assert!(card.contains("a note") && card.contains("2 fine-tuned models"), "{card}");
        let mut values = [0.0; 2];
        crate::zoo::Ingredient::open(&out).unwrap().read("a", &mut values).unwrap();
        // The written coefficients make the same model again.
        let bytes = std::fs::read(out.join("coefficients.safetensors")).unwrap();
        assert_eq!(CoefficientsFile::from_bytes(&bytes).unwrap(), file);
        Ok(values.to_vec())
    }

    #[test]
    fn the_mean_and_a_weighted_sum() {
        assert_eq!(mixed(None).unwrap(), [2.0, 4.0]);
        assert_eq!(mixed(Some(&[0.25, 0.75])).unwrap(), [2.5, 5.0]);
        assert_eq!(mixed(Some(&[-1.0, 2.0])).unwrap(), [5.0, 10.0]);
    }

    #[test]
    fn weights_that_are_none_of_a_mix_are_refused() {
        for (weights, said) in [
            (&[1.0][..], "expected 2, one per ingredient"),
            (&[0.5, 0.6], "expected a sum of 1, found 1.1"),
            (&[f64::NAN, 1.0], "found NaN"),
        ] {
            let fault = mixed(Some(weights)).unwrap_err().to_string();
            assert!(fault.contains(said), "{fault}");
        }
    }

    #[test]
    fn running_statistics_that_differ_are_refused() {
        let statistic = |mean: f32| vec![f32s("bn.running_mean", &[1], &[mean]), f32s("w", &[1], &[mean])];
        let (_root, zoo) = open_zoo(&[statistic(1.0), statistic(2.0)]);
        let hashes = zoo.hash(None, &mut |_, _| {}).unwrap();
        let layout = Layout::new(&zoo, &hashes).unwrap();
        let fault = fixed_mix(&zoo, &hashes, &layout, None, vec![]).unwrap_err();
        assert!(matches!(fault, MergeError::Statistics { tensor } if tensor == "bn.running_mean"));
    }
}
