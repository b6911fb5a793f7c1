//! Flags of `mehl-soup demo`: a sweep over a zoo made here, or with `--make-zoo` such a zoo alone.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::Format;
use crate::sweep::spec::Family;

/// Flags of `demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Folder for the zoo, the data and the run. What is there already is kept
    #[arg(long, value_name = "DIR", default_value = "target/demo", conflicts_with = "make_zoo")]
    pub out: PathBuf,
    /// Seed of the data's split, the base model and the fine-tuning runs
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Fine-tuning runs
    #[arg(long, default_value_t = 28, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub ingredients: u64,
    /// How results are printed to stdout when all is done
    #[arg(long, value_enum, default_value_t = Format::Table, conflicts_with = "make_zoo")]
    pub format: Format,
    /// Make a zoo with its data and a sweep.toml in this folder, print the path of sweep.toml, and learn nothing. Interrupt it as you like: the same
    /// command goes on, and ends with the same bytes
    #[arg(long, value_name = "DIR", help_heading = ZOO)]
    pub make_zoo: Option<PathBuf>,
    /// What kind of zoo it is.
    #[command(flatten)]
    pub zoo: ZooArgs,
    /// What hyperparameters are drawn from.
    #[command(flatten)]
    pub ranges: Ranges,
}

/// Heading in the help of what is for zoos.
const ZOO: &str = "A zoo of your own";

/// Flags of `demo --make-zoo` that say what is trained, and on what.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = ZOO)]
pub struct ZooArgs {
    /// Architecture of the small base model that is trained here [default: vit]. `vit` loads in transformers, `timm-vit` in timm, `resnet` in torchvision and
    /// timm; a ResNet takes the longest to train
    #[arg(long, value_enum, requires = "make_zoo", conflicts_with = "base")]
    pub family: Option<ZooFamily>,
    /// Images: a folder with a folder for each class, 5 images a class at least (JPEG, PNG, WebP). They are cut by class in five parts, of which those for the
    /// sweep (learn, select, test: half of all) are copied to DIR/data [default: the digits that are shipped]
    #[arg(long, value_name = "FOLDER", requires = "make_zoo")]
    pub images: Option<PathBuf>,
    /// Side in pixels that images are resized to, a multiple of 4, for digits of 8, for a ResNet at least 32. Time and memory grow with its square [default: 32; 8 for digits, but for a
    /// ResNet; with --base what it takes]
    #[arg(long, value_name = "N", requires = "make_zoo", value_parser = clap::value_parser!(u32).range(4..=1024))]
    pub image_size: Option<u32>,
    /// Model to fine-tune instead of one trained here: a folder as save_pretrained or timm's save_for_hf write it, of family vit, timm-vit or resnet. If its
    /// classes are not those of the images, it gets a new head, trained first while the rest stays as it is
    #[arg(long, value_name = "FOLDER", requires = "make_zoo")]
    pub base: Option<PathBuf>,
    /// Passes over its part of the data that a base model, or a new head, is trained for [default: 100, or as many as make
    /// 900 steps of 50 images; 30 for a ResNet or a new head]
    #[arg(long, value_name = "N", requires = "make_zoo", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub base_epochs: Option<u32>,
    /// Share of the ingredients that are bad on purpose, in 0..1, to see what a method makes of them. Three kinds in turn: trained for 8 times the epochs
    /// without augmentation and smoothing; with 25 times the highest learning rate; with half of the labels replaced at random. training.json says which
    #[arg(long, value_name = "SHARE", requires = "make_zoo", default_value_t = 0.0, value_parser = share)]
    pub bad: f64,
}

/// What hyperparameters of fine-tuning runs are drawn from.
#[derive(Debug, Clone, PartialEq, Args, Serialize)]
#[command(
    next_help_heading = "Hyperparameters of its fine-tuning runs, each drawn from LOW..HIGH; one number instead is that number for all"
)]
pub struct Ranges {
    /// Peak learning rate of AdamW, uniform in its logarithm. Far apart, ingredients lie too far from each other to be averaged
    #[arg(long, value_name = "LOW..HIGH", requires = "make_zoo", default_value = "2e-4..4e-3", value_parser = positive)]
    pub learning_rate: Ends<f64>,
    /// Decoupled weight decay, uniform in its logarithm
    #[arg(long, value_name = "LOW..HIGH", requires = "make_zoo", default_value = "1e-4..0.3", value_parser = decay)]
    pub weight_decay: Ends<f64>,
    /// Passes over the training part
    #[arg(long, value_name = "LOW..HIGH", requires = "make_zoo", default_value = "10..30", value_parser = epochs)]
    pub epochs: Ends<u32>,
    /// Part of the target spread over all classes
    #[arg(long, value_name = "LOW..HIGH", requires = "make_zoo", default_value = "0..0.2", value_parser = part)]
    pub label_smoothing: Ends<f64>,
    /// Augmentation: part of the images shifted by an eighth of their side, up, down, left or right
    #[arg(long, value_name = "LOW..HIGH", requires = "make_zoo", default_value = "0..0.8", value_parser = part)]
    pub shift: Ends<f64>,
    /// Augmentation: standard deviation of the noise added to normalised pixels
    #[arg(long, value_name = "LOW..HIGH", requires = "make_zoo", default_value = "0..0.3", value_parser = not_negative)]
    pub noise: Ends<f64>,
}

/// Architectures of base models that are trained here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ZooFamily {
    /// Hugging Face ViT
    Vit,
    /// timm's ViT
    TimmVit,
    /// torchvision's ResNet, with one block a stage
    Resnet,
}

impl ZooFamily {
    /// The same among all families.
    pub fn family(self) -> Family {
        match self {
            Self::Vit => Family::Vit,
            Self::TimmVit => Family::TimmVit,
            Self::Resnet => Family::Resnet,
        }
    }
}

/// Both ends, each of them included, of what a hyperparameter is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ends<T> {
    /// Not above `high`.
    pub low: T,
    /// The other end.
    pub high: T,
}

/// Reads `LOW..HIGH`, or one number for both.
fn ends<T: FromStr + PartialOrd + Display + Copy>(
    text: &str,
    expected: &str,
    fits: impl Fn(T) -> bool,
) -> Result<Ends<T>, String> {
    let (low, high) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| text.trim().parse().ok().filter(|number| fits(*number));
    match (number(low), number(high)) {
        (Some(low), Some(high)) if low <= high => Ok(Ends { low, high }),
        (Some(low), Some(high)) => Err(format!("expected LOW..HIGH, the lower first, found {low} before {high}")),
        _ => Err(format!("expected LOW..HIGH, or one number, of {expected}")),
    }
}

fn positive(text: &str) -> Result<Ends<f64>, String> {
    ends(text, "numbers above 0", |value: f64| value > 0.0 && value.is_finite())
}

fn not_negative(text: &str) -> Result<Ends<f64>, String> {
    ends(text, "numbers from 0", |value: f64| value >= 0.0 && value.is_finite())
}

/// A logarithm has no 0 within, but 0 for all is a weight decay.
fn decay(text: &str) -> Result<Ends<f64>, String> {
    let found = not_negative(text)?;
    match found.low > 0.0 || found.high == 0.0 {
        true => Ok(found),
        false => Err("expected ends above 0, for the logarithm, or 0 for both".to_string()),
    }
}

fn part(text: &str) -> Result<Ends<f64>, String> {
    ends(text, "parts from 0 to 1", |value: f64| (0.0..=1.0).contains(&value))
}

fn epochs(text: &str) -> Result<Ends<u32>, String> {
    ends(text, "whole numbers from 1 to 100000", |value: u32| (1..=100_000).contains(&value))
}

fn share(text: &str) -> Result<f64, String> {
    let found = text.trim().parse().ok().filter(|share| (0.0..=1.0).contains(share));
    found.ok_or_else(|| "expected a share of the ingredients from 0 to 1".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ends_or_one_number() {
        assert_eq!(positive("2e-4..4e-3"), Ok(Ends { low: 2e-4, high: 4e-3 }));
        assert_eq!(positive("0.5"), Ok(Ends { low: 0.5, high: 0.5 }));
        assert_eq!(epochs("3 .. 7"), Ok(Ends { low: 3, high: 7 }));
        assert_eq!(decay("0"), Ok(Ends { low: 0.0, high: 0.0 }));
    }

    #[test]
    fn other_ends_are_refused_with_what_was_expected() {
        for (found, expected) in [
            (positive("0..1").map(drop), "above 0"),
            (positive("1..inf").map(drop), "above 0"),
            (positive("a..b").map(drop), "LOW..HIGH"),
            (positive("2..1").map(drop), "the lower first, found 2 before 1"),
            (decay("0..1").map(drop), "for the logarithm"),
            (part("0..1.5").map(drop), "from 0 to 1"),
            (not_negative("NaN").map(drop), "from 0"),
            (epochs("0..3").map(drop), "whole numbers from 1"),
            (epochs("1.5..3").map(drop), "whole numbers from 1"),
            (share("1.1").map(drop), "from 0 to 1"),
        ] {
            let fault = found.unwrap_err();
            assert!(fault.contains(expected), "expected `{expected}` in `{fault}`");
        }
    }
}
