//! Pixels equal to Pillow's, and whole pipelines to torchvision's, transformers' and timm's (recipe: `fixtures/make_images.py`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::{fixture, read_floats};
use mehl_soup::sweep::image_spec::{Extent, ImageSpec, Interpolation, ResizeSpec};
use mehl_soup::sweep::spec::Family;
use mehl_soup_worker::data::images::decode::decode;
use mehl_soup_worker::data::images::resolve::{ModelFacts, resolve};
use mehl_soup_worker::data::images::transform::{Passes, PixelTransform, Pixels, Resize};
use safetensors::SafeTensors;

fn golden(file: &str) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(fixture("images").join(file)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    tensors.tensors().into_iter().map(|(name, view)| (name, (view.shape().to_vec(), view.data().to_vec()))).collect()
}

fn keep(channels: usize) -> PixelTransform {
    PixelTransform {
        orientation: true,
        max_pixels: ImageSpec::MAX_PIXELS,
        channels,
        resize: Resize::Keep,
        interpolation: Interpolation::Bicubic,
        passes: Passes::Pillow,
        crop: None,
    }
}

/// Largest and mean difference.
fn distance(a: &[u8], b: &[u8]) -> (u8, f64) {
    assert_eq!(a.len(), b.len());
    let gaps = || a.iter().zip(b).map(|(&a, &b)| a.abs_diff(b));
    (gaps().max().unwrap(), gaps().map(f64::from).sum::<f64>() / a.len() as f64)
}

#[test]
fn decoding_equals_pillows() {
    let mut worst: BTreeMap<&str, (u8, f64)> = BTreeMap::new();
    let mut seen = 0;
    for (name, (shape, expected)) in golden("decoded.safetensors") {
        let (file, channels) = name.strip_suffix(":L").map_or((name.as_str(), 3), |file| (file, 1));
        let bytes = std::fs::read(fixture("images/encoded").join(file)).unwrap();
        let found = decode(&bytes, &keep(channels)).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!([found.extent.height, found.extent.width], shape[..2], "{name}");
        let (largest, mean) = distance(&found.values, &expected);
        let is_jpeg = image::guess_format(&bytes).unwrap() == image::ImageFormat::Jpeg;
        let kind = if is_jpeg {
            "JPEG"
        } else if file == "lossy.webp" {
            "lossy WebP"
        } else {
            "lossless"
        };
        println!("{name}: largest difference {largest}, mean {mean:.4}");
        match kind {
            // Transforms and colour conversion round differently in each decoder.
            "JPEG" => assert!(mean < 1.0, "{name}: mean difference {mean}"),
            "lossy WebP" => assert!(mean < 1.0, "{name}: mean difference {mean}"),
            _ => assert_eq!(largest, 0, "{name}"),
        }
        let so_far = worst.entry(kind).or_default();
        *so_far = (so_far.0.max(largest), so_far.1.max(mean));
        seen += 1;
    }
    println!("worst by kind: {worst:?}");
    assert!(seen >= 35, "only {seen} images were compared");
}

#[test]
fn resizing_equals_pillows() {
    let golden = golden("resized.safetensors");
    let source = |name: &str, channels: usize| {
        let (shape, values) = &golden[name];
        Pixels { extent: Extent { height: shape[0], width: shape[1] }, channels, values: values.clone() }
    };
    let mut worst = Vec::new();
    let mut seen = 0;
    for (name, (shape, expected)) in golden.iter().filter(|(name, _)| name.contains('x')) {
        let parts: Vec<&str> = name.split(':').collect();
        let (image, word) = match parts[..] {
            ["l", word, _] => (source("source_l", 1), word),
            ["board", word, _] => (source("board_l", 1), word),
            ["noise", word, _] => (source("noise_l", 1), word),
            [word, _] => (source("source", 3), word),
            _ => panic!("{name}"),
        };
        let interpolation = Interpolation::NAMED.iter().find(|(known, _)| *known == word).unwrap().1;
        let extent = Extent { height: shape[0], width: shape[1] };
        let transform = PixelTransform { resize: Resize::Exact(extent), interpolation, ..keep(image.channels) };
        let mut planar = vec![7; expected.len()];
        transform.apply(&image, &mut planar).unwrap();
        let area = extent.height * extent.width;
        let found: Vec<u8> =
            (0..expected.len()).map(|i| planar[(i % image.channels) * area + i / image.channels]).collect();
        let (largest, mean) = distance(&found, expected);
        // The resizer's weights have 15 bits and Pillow's 22: each of the two passes may round otherwise. Lanczos, whose weights sum to most in
        // size, makes two levels of that in one value of the 12,000 here.
        let allowed = match word {
            "nearest" => 0,
            "lanczos" => 2,
            _ => 1,
        };
        worst.push((largest > allowed || mean > 0.02, name, largest, mean));
        seen += 1;
    }
    worst.retain(|case| case.0);
    assert!(worst.is_empty(), "{worst:?}");
    assert_eq!(seen, 96);
}

/// The whole way from a file to the model's input; returns it with the transform's rescale and standard deviations.
fn prepare(case: &serde_json::Value, image: &Path, output: Extent) -> (Vec<f64>, Vec<f64>) {
    let place = tempfile::tempdir().unwrap();
    let (mut spec, mut config) = (ImageSpec::default(), None);
    let mut folders: Vec<PathBuf> = vec![];
    let mut family = Family::Vit;
    if let Some(json) = case.get("preprocessor") {
        std::fs::write(place.path().join("preprocessor_config.json"), json.to_string()).unwrap();
        folders.push(place.path().to_path_buf());
    } else if let Some(cfg) = case.get("pretrained_cfg") {
        config = Some(serde_json::json!({"pretrained_cfg": cfg}));
    } else {
        family = Family::Resnet;
        if output.height % 2 == 1 {
            // 33 / 0.875 is 37.7: torchvision was told 37.
            spec.resize = Some(ResizeSpec::ShortestEdge(37));
        }
    }
    let input = Some(vec![3, output.height as i64, output.width as i64]);
    let resolved = resolve(&spec, &ModelFacts { family, input, config: config.as_ref(), folders }).unwrap();
    let pixels = decode(&std::fs::read(image).unwrap(), &resolved.pixels).unwrap();
    let area = output.height * output.width;
    let mut values = vec![0; 3 * area];
    resolved.pixels.apply(&pixels, &mut values).unwrap();
    let norm = &resolved.normalization;
    let normalized = values
        .iter()
        .enumerate()
        .map(|(i, &v)| (f64::from(v) * norm.rescale - norm.mean[i / area]) / norm.std[i / area])
        .collect();
    (normalized, norm.std.iter().map(|std| norm.rescale / std).collect())
}

#[test]
fn pipelines_equal_those_of_the_libraries_within_one_level() {
    let about: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fixture("images/pipelines.json")).unwrap()).unwrap();
    let floats = read_floats(&fixture("images/pipelines.safetensors"));
    let shapes = golden("pipelines.safetensors");
    let mut seen = 0;
    for (name, case) in about.as_object().unwrap() {
        for image in case["images"].as_array().unwrap() {
            let image = image.as_str().unwrap();
            let key = format!("{name}:{image}");
            let shape = &shapes[&key].0;
            let output = Extent { height: shape[1], width: shape[2] };
            let path = fixture("images/pipelines").join(format!("{image}.png"));
            let (found, level) = prepare(case, &path, output);
            let area = output.height * output.width;
            let expected = &floats[&key];
            assert_eq!(found.len(), expected.len(), "{key}");
            let mut off = 0;
            for (i, (f, e)) in found.iter().zip(expected).enumerate() {
                let levels = (f - e).abs() / level[i / area];
                // f32 on their side.
                assert!(levels < 1.001, "{key}[{i}]: found {f}, expected {e}: {levels} levels");
                off += usize::from(levels > 0.5);
            }
            println!("{key}: {off} of {} values differ by one level", expected.len());
            // A crop or a size that is off by one would move most of them.
            assert!(off * 5 < expected.len(), "{key}: {off} of {} values differ", expected.len());
            seen += 1;
        }
    }
    assert_eq!(seen, 54);
}
