//! Flags of `mehl-soup demo`: makes a zoo and runs a sweep on it; with `--make-zoo`, only the zoo.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::ArgPredicate;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::Format;
use crate::sweep::spec::Family;

/// Flags of `demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Folder for the zoo, the data and the run. Existing files are kept and reused
    #[arg(long, value_name = "DIR", default_value = "target/demo", conflicts_with = "make_zoo")]
    pub out: PathBuf,
    /// Seed of the data split, the base model and the fine-tuning runs
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Number of fine-tuning runs. Each gives one ingredient
    #[arg(long, default_value_t = 28, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub ingredients: u64,
    /// Format of the results on stdout
    #[arg(long, value_enum, default_value_t = Format::Table, conflicts_with = "make_zoo")]
    pub format: Format,
    /// Only make a zoo: write ingredients, data and a sweep.toml to this folder, and print the path
    /// of sweep.toml. No soup is learned. You can interrupt it: the same command continues, and
    /// writes the same bytes
    #[arg(long, value_name = "DIR", help_heading = ZOO)]
    pub make_zoo: Option<PathBuf>,
    /// Kind of the zoo.
    #[command(flatten)]
    pub zoo: ZooArgs,
    /// Ranges of the hyperparameters.
    #[command(flatten)]
    pub ranges: Ranges,
}

/// Heading of the flags for zoos in the help.
const ZOO: &str = "A zoo of your own";

/// Flags of `demo --make-zoo`: model and images.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = ZOO)]
pub struct ZooArgs {
    /// Architecture of the small base model, which is trained first [default: vit]. `vit` loads in
    /// transformers, `timm-vit` in timm, `resnet` in torchvision and timm. A ResNet takes the
    /// longest to train
    #[arg(long, value_enum, requires = "make_zoo", conflicts_with = "base")]
    pub family: Option<ZooFamily>,
    /// Images: a folder with one subfolder per class, at least 5 images per class (JPEG, PNG, WebP).
    /// Each class is divided into five parts. Half of the images are for the sweep (learn, select,
    /// test) and are copied to DIR/data [default: the UCI digits]
    #[arg(long, value_name = "FOLDER", requires = "make_zoo")]
    pub images: Option<PathBuf>,
    /// Texts: a JSONL, CSV, TSV or Parquet file with columns `text` (and `text_pair`) and `label`, at
    /// least 5 different texts per class. Needs --base, a text encoder with a tokenizer.json
    #[arg(long, value_name = "FILE", requires_all = ["make_zoo", "base"], conflicts_with_all = ["images", "image_size", "family"])]
    pub texts: Option<PathBuf>,
    /// Texts are truncated to this number of tokens. Time and memory grow with it [default: 128]
    #[arg(long, value_name = "N", requires = "texts", value_parser = clap::value_parser!(u32).range(4..=8192))]
    pub max_length: Option<u32>,
    /// Images are resized to this height and width in pixels: a multiple of 4 (digits: of 8), and at
    /// least 32 for a ResNet. Time and memory grow with its square [default: 32; digits: 8, or 32
    /// for a ResNet; with --base: the input size of that model]
    #[arg(long, value_name = "N", requires = "make_zoo", value_parser = clap::value_parser!(u32).range(4..=1024))]
    pub image_size: Option<u32>,
    /// Fine-tune this model instead of a small one: a folder written by save_pretrained or timm's
    /// save_for_hf, of family vit, timm-vit or resnet; with --texts of family bert or modernbert. If
    /// its classes differ from those of the data, it gets a new head, which is trained first with all
    /// other weights frozen
    #[arg(long, value_name = "FOLDER", requires = "make_zoo")]
    pub base: Option<PathBuf>,
    /// Epochs of training for the base model or the new head [default: 100, or as many as make 900
    /// steps of 50 images; 30 for a ResNet or a new head; 3 with --texts]
    #[arg(long, value_name = "N", requires = "make_zoo", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub base_epochs: Option<u32>,
    /// Share of deliberately bad ingredients, 0 to 1, to see how methods treat them. Three kinds in
    /// turn: 8 times the epochs without augmentation and label smoothing; 25 times the highest
    /// learning rate; half of the labels replaced at random. training.json records the kind
    #[arg(long, value_name = "SHARE", requires = "make_zoo", default_value_t = 0.0, value_parser = share)]
    pub bad: f64,
}

/// Ranges from which the hyperparameters of fine-tuning runs are drawn.
#[derive(Debug, Clone, PartialEq, Args, Serialize)]
#[command(
    next_help_heading = "Hyperparameters of the fine-tuning runs, each drawn from LOW..HIGH; a single number applies to all runs"
)]
pub struct Ranges {
    /// Peak learning rate of AdamW, log-uniform. A high or wide range moves the ingredients so far
    /// apart that averaging them does not work. With --texts: 1e-5..2e-4
    #[arg(long, value_name = "LOW..HIGH", requires = "make_zoo", default_value = "2e-4..4e-3", default_value_if("texts", ArgPredicate::IsPresent, "1e-5..2e-4"), value_parser = positive)]
    pub learning_rate: Ends<f64>,
    /// Decoupled weight decay, log-uniform
    #[arg(long, value_name = "LOW..HIGH", requires = "make_zoo", default_value = "1e-4..0.3", value_parser = decay)]
    pub weight_decay: Ends<f64>,
    /// Epochs. With --texts: 1..4
    #[arg(long, value_name = "LOW..HIGH", requires = "make_zoo", default_value = "10..30", default_value_if("texts", ArgPredicate::IsPresent, "1..4"), value_parser = epochs)]
    pub epochs: Ends<u32>,
    /// Label smoothing: share of the target that is spread over all classes
    #[arg(long, value_name = "LOW..HIGH", requires = "make_zoo", default_value = "0..0.2", value_parser = part)]
    pub label_smoothing: Ends<f64>,
    /// Augmentation: share of the images that are shifted by an eighth of their size, up, down, left
    /// or right. Not for texts
    #[arg(long, value_name = "LOW..HIGH", requires = "make_zoo", default_value = "0..0.8", default_value_if("texts", ArgPredicate::IsPresent, "0"), value_parser = part)]
    pub shift: Ends<f64>,
    /// Augmentation: standard deviation of the noise that is added to normalised pixels. Not for
    /// texts
    #[arg(long, value_name = "LOW..HIGH", requires = "make_zoo", default_value = "0..0.3", default_value_if("texts", ArgPredicate::IsPresent, "0"), value_parser = not_negative)]
    pub noise: Ends<f64>,
}

/// Architectures of the small base models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ZooFamily {
    /// Hugging Face ViT
    Vit,
    /// timm's ViT
    TimmVit,
    /// torchvision's ResNet, with one block per stage
    Resnet,
}

impl ZooFamily {
    /// The corresponding model family.
    pub fn family(self) -> Family {
        match self {
            Self::Vit => Family::Vit,
            Self::TimmVit => Family::TimmVit,
            Self::Resnet => Family::Resnet,
        }
    }
}

/// Range of a hyperparameter; both ends are included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ends<T> {
    /// Lower end, at most `high`.
    pub low: T,
    /// Upper end.
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
        (Some(low), Some(high)) => Err(format!("expected LOW..HIGH with LOW <= HIGH, found {low}..{high}")),
        _ => Err(format!("expected LOW..HIGH or a single number, with {expected}")),
    }
}

fn positive(text: &str) -> Result<Ends<f64>, String> {
    ends(text, "numbers above 0", |value: f64| value > 0.0 && value.is_finite())
}

fn not_negative(text: &str) -> Result<Ends<f64>, String> {
    ends(text, "numbers of at least 0", |value: f64| value >= 0.0 && value.is_finite())
}

/// A log-uniform range cannot include 0, but 0 for all runs is valid.
fn decay(text: &str) -> Result<Ends<f64>, String> {
    let found = not_negative(text)?;
    match found.low > 0.0 || found.high == 0.0 {
        true => Ok(found),
        false => Err("expected numbers above 0 (the range is log-uniform), or a single 0".to_string()),
    }
}

fn part(text: &str) -> Result<Ends<f64>, String> {
    ends(text, "numbers from 0 to 1", |value: f64| (0.0..=1.0).contains(&value))
}

fn epochs(text: &str) -> Result<Ends<u32>, String> {
    ends(text, "whole numbers from 1 to 100000", |value: u32| (1..=100_000).contains(&value))
}

fn share(text: &str) -> Result<f64, String> {
    let found = text.trim().parse().ok().filter(|share| (0.0..=1.0).contains(share));
    found.ok_or_else(|| "expected a number from 0 to 1".to_string())
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
            (positive("2..1").map(drop), "LOW <= HIGH, found 2..1"),
            (decay("0..1").map(drop), "the range is log-uniform"),
            (part("0..1.5").map(drop), "from 0 to 1"),
            (not_negative("NaN").map(drop), "at least 0"),
            (epochs("0..3").map(drop), "whole numbers from 1"),
            (epochs("1.5..3").map(drop), "whole numbers from 1"),
            (share("1.1").map(drop), "from 0 to 1"),
        ] {
            let fault = found.unwrap_err();
            assert!(fault.contains(expected), "expected `{expected}` in `{fault}`");
        }
    }
}
