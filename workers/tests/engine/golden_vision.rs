//! CLIP, timm and ResNet equal to their Python originals on miniature models (recipes: `fixtures/make_*.py`), how they are found, and what
//! is refused.

use std::path::PathBuf;

use crate::support::changed::{Changed, ingredient};
use crate::support::golden::{check, close, load, tensor, try_load, zoo_spec};
use crate::support::{fixture, read_floats};
use mehl_soup::sweep::spec::{Family, ZooSpec};
use mehl_soup_worker::families::{Model, Pass};
use tch::{Kind, Tensor};

/// The model in a folder of the fixtures, or its file where the folder has no configuration; of the family that is expected to be found.
fn found(folder: &str, spec: &ZooSpec, family: Family) -> Box<dyn Model> {
    let (detected, model) = try_load(&[ingredient(&fixture(folder))], spec).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(detected, family, "{folder}");
    model
}

fn heads(heads: usize) -> ZooSpec {
    ZooSpec { heads: Some(heads), ..zoo_spec(None) }
}

/// Compares with a golden file of the fixtures.
fn equal(model: &dyn Model, golden: &str) {
    let golden = fixture(golden).join("golden.safetensors");
    let pixels = tensor(&golden, "pixel_values", Kind::Double);
    let shape = model.input_shapes().unwrap();
    assert_eq!(shape, [pixels.size()[1..].to_vec()]);
    assert_eq!(model.classes(), Some(5));
    check(model, &[pixels], &tensor(&golden, "labels", Kind::Int64), &golden, "");
}

#[test]
fn clip_by_openais_names_equals_pytorch() {
    for (case, names) in [("openai", "module.model.visual."), ("openai_tower", "visual.")] {
        let model = found(&format!("clip/{case}"), &heads(2), Family::ClipVit);
        assert!(model.parameters().contains_key(&format!("{names}proj")));
        assert!(!model.parameters().keys().any(|name| name.contains("text") || name.contains("logit_scale")));
        equal(model.as_ref(), &format!("clip/{case}"));
    }
    let gelu = ZooSpec { activation: Some("gelu".into()), ..heads(2) };
    equal(found("clip/openai_gelu", &gelu, Family::ClipVit).as_ref(), "clip/openai_gelu");
}

#[test]
fn clip_by_hugging_faces_names_equals_transformers() {
    let model = found("clip/hugging_face", &zoo_spec(None), Family::ClipVit);
    assert!(model.gradient_free("vision_model.encoder.layers.0.self_attn.k_proj.bias"));
    equal(model.as_ref(), "clip/hugging_face");
    // With the integer buffer that old versions wrote.
    equal(found("clip/hugging_face_old", &zoo_spec(None), Family::ClipVit).as_ref(), "clip/hugging_face");
}

#[test]
fn timm_vits_equal_timm() {
    for case in ["vit", "gap", "no_embed_class", "clip", "mean_of_all", "distilled"] {
        let folder = format!("timm/{case}");
        equal(found(&folder, &zoo_spec(None), Family::TimmVit).as_ref(), &folder);
    }
}

#[test]
fn a_timm_vit_without_configuration_under_a_wrapper_equals_timm() {
    equal(found("timm/bare", &heads(2), Family::TimmVit).as_ref(), "timm/bare");
    let vit = Changed::copy("timm/vit");
    std::fs::remove_file(vit.folder.path().join("config.json")).unwrap();
    equal(load(&[vit.write()], &heads(2)).as_ref(), "timm/vit");
    let distilled = Changed::copy("timm/distilled");
    std::fs::remove_file(distilled.folder.path().join("config.json")).unwrap();
    equal(load(&[distilled.write()], &heads(2)).as_ref(), "timm/distilled");
}

#[test]
fn wrapped_models_of_hugging_face_equal_transformers() {
    for (of, prefix) in [("vit/vit", "module."), ("clip/hugging_face", "model.")] {
        let model = load(&[Changed::copy(of).under(prefix).write()], &zoo_spec(None));
        let golden = fixture(of).join("golden.safetensors");
        let pixels = tensor(&golden, "pixel_values", Kind::Double);
        check(model.as_ref(), &[pixels], &tensor(&golden, "labels", Kind::Int64), &golden, prefix);
    }
}

fn resnet(case: &str, prefix: &str) {
    let folder = format!("resnet/{case}");
    let model = found(&folder, &zoo_spec(None), Family::Resnet);
    let path = fixture(&folder).join("golden.safetensors");
    let golden = read_floats(&path);
    let pixels = tensor(&path, "pixel_values", Kind::Double);
    let labels = tensor(&path, "labels", Kind::Int64).narrow(0, 0, 4);
    let (first, second) = (pixels.narrow(0, 0, 4), pixels.narrow(0, 2, 4));
    assert_eq!((model.classes(), model.input_shapes()), (Some(5), None));

    let statistics = model.statistics().expect("one ingredient's statistics are not those of every soup");
    let values = |tensor: &Tensor| Vec::<f64>::try_from(tensor).unwrap();
    let before: Vec<Vec<f64>> = statistics.values().map(values).collect();
    check(model.as_ref(), &[first.shallow_clone()], &labels, &path, "");
    let score = model.outputs(&first.shallow_clone().into(), Pass::Score.full()).unwrap();
    close("score", &score.detach(), &golden["score64"]);
    let after: Vec<Vec<f64>> = statistics.values().map(values).collect();
    assert_eq!(before, after, "neither learning nor scoring writes running statistics");

    for (seen, batch) in [&first, &second].into_iter().enumerate() {
        let logits =
            tch::no_grad(|| model.outputs(&batch.shallow_clone().into(), Pass::Collect { seen }.full())).unwrap();
        if seen == 0 {
            close("logits while collecting", &logits, &golden["logits64"]);
        }
    }
    let expected: Vec<_> = golden.keys().filter_map(|key| key.strip_prefix("collected64.")).collect();
    let mut names: Vec<_> = statistics.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, expected);
    assert!(names.iter().all(|name| name.starts_with(prefix)));
    for (name, tensor) in statistics {
        close(name, tensor, &golden[&format!("collected64.{name}")]);
    }
}

#[test]
fn resnet_of_basic_blocks_equals_torchvision() {
    resnet("basic", "");
}

#[test]
fn resnet_of_grouped_bottlenecks_under_a_wrapper_equals_torchvision() {
    resnet("bottleneck", "module.");
}

#[test]
fn resnet_of_timm_equals_timm() {
    resnet("timm", "");
}

#[test]
fn statistics_that_are_equal_in_all_ingredients_are_fixed() {
    let copies = [Changed::copy("resnet/basic"), Changed::copy("resnet/basic")];
    let paths: Vec<PathBuf> = copies.iter().map(Changed::write).collect();
    let model = load(&paths, &zoo_spec(None));
    assert!(model.statistics().is_none());
    let path = fixture("resnet/basic/golden.safetensors");
    let first = tensor(&path, "pixel_values", Kind::Double).narrow(0, 0, 4);
    for pass in [Pass::Learn, Pass::Score, Pass::Collect { seen: 0 }] {
        let logits = model.outputs(&first.shallow_clone().into(), pass.full()).unwrap();
        close("score", &logits.detach(), &read_floats(&path)["score64"]);
    }
}

#[test]
fn one_value_a_channel_has_no_statistics_of_a_batch() {
    let model = found("resnet/basic", &zoo_spec(None), Family::Resnet);
    let one = Tensor::ones([1, 3, 24, 24], (Kind::Double, tch::Device::Cpu));
    assert!(model.outputs(&one.shallow_clone().into(), Pass::Score.full()).is_ok());
    let error = model.outputs(&one.into(), Pass::Learn.full()).unwrap_err().to_string();
    assert!(error.contains("layer4.0.bn1: expected more than one value per channel"), "{error}");
}

#[test]
fn tensors_that_no_layer_reads_are_refused() {
    let none = zoo_spec(None);
    let extra = |of: &str, name: &str| Changed::copy(of).zeros(name, &[3]);
    let says = "extra.weight: expected no such tensor, found it";
    extra("clip/openai", "module.model.extra.weight").refused(&heads(2), &[says, "clip-vit"]);
    extra("clip/hugging_face", "vision_model.extra.weight").refused(&none, &[says]);
    extra("timm/vit", "blocks.1.extra.weight").refused(&none, &[says, "timm-vit"]);
    extra("resnet/basic", "layer1.0.extra.weight").refused(&none, &[says, "resnet"]);
}

#[test]
fn missing_tensors_and_other_shapes_are_named() {
    let none = zoo_spec(None);
    Changed::copy("timm/vit").without("blocks.1.mlp.fc1.bias").zeros("norm.weight", &[17]).refused(
        &none,
        &[
            "blocks.1.mlp.fc1.bias: expected shape [24], found no such tensor",
            "norm.weight: expected shape [16], found [17]",
        ],
    );
    Changed::copy("resnet/basic")
        .without("layer1.0.bn1.running_var")
        .refused(&none, &["layer1.0.bn1.running_var: expected shape [4], found no such tensor"]);
    Changed::copy("clip/openai")
        .zeros("module.model.visual.positional_embedding", &[4, 16])
        .refused(&heads(2), &["expected a class token and a square number of patches, found 4 tokens"]);
}

#[test]
fn what_a_family_does_not_compute_is_refused_by_name() {
    let none = zoo_spec(None);
    let vit = |name: &str| Changed::copy("timm/vit").zeros(name, &[16]);
    vit("attn_pool.latent").refused(&none, &["attn_pool.latent: attention pooling"]);
    vit("blocks.0.mlp.fc1_g.weight").refused(&none, &["gated MLP (SwiGLU)"]);
    vit("patch_embed.backbone.conv.weight").refused(&none, &["a hybrid's convolutional stem"]);
    Changed::copy("timm/vit")
        .zeros("blocks.0.mlp.fc1.weight", &[48, 16])
        .refused(&none, &["width 48, but fc2 takes 24: a gated MLP (SwiGLU)"]);
    let config = |pointer: &str, value: &str| Changed::copy("timm/vit").config(pointer, value.into());
    config("/global_pool", "map").refused(&none, &["global_pool: expected `token` or `avg`, found `map`"]);
    config("/architecture", "vit_base_patch16_rpn_224").refused(&none, &["norms after attention and MLP"]);
    Changed::copy("timm/vit")
        .config("/model_args", serde_json::json!({"num_heads": 2, "mlp_layer": "swiglu"}))
        .refused(&none, &["model_args.mlp_layer"]);

    let stated = zoo_spec(Some(Family::Resnet));
    Changed::copy("resnet/basic")
        .zeros("conv1.0.weight", &[4, 3, 3, 3])
        .refused(&stated, &["conv1.0.weight: a deep stem"]);
    Changed::copy("resnet/basic")
        .zeros("conv1.weight", &[4, 3, 3, 3])
        .refused(&none, &["expected a stem of 7x7, found 3x3"]);
    Changed::copy("resnet/basic").zeros("layer1.0.se.fc1.weight", &[2, 4]).refused(&none, &["channel attention"]);
    Changed::copy("resnet/timm")
        .config("/architecture", "resnetblur50".into())
        .refused(&stated, &["found `resnetblur50`"]);
}

#[test]
fn heads_that_files_do_not_tell_must_be_stated_and_must_not_contradict() {
    Changed::copy("clip/openai").refused(&zoo_spec(None), &["set zoo.heads"]);
    Changed::copy("timm/bare").refused(&zoo_spec(None), &["set zoo.heads"]);
    Changed::copy("clip/openai").refused(&heads(3), &["expected a divisor of the width 16, found 3"]);
    Changed::copy("timm/vit").refused(&heads(4), &["num_heads is 2, but the specification sets 4"]);
    Changed::copy("clip/hugging_face").refused(&heads(4), &["num_attention_heads is 2", "sets 4"]);
    Changed::copy("vit/vit").refused(&heads(4), &["num_attention_heads is 2", "sets 4"]);
    Changed::copy("resnet/basic").refused(&heads(4), &["this model is a ResNet"]);
}

#[test]
fn ingredients_configurations_must_agree() {
    for (of, pointer) in [
        ("clip/hugging_face", "/vision_config/hidden_act"),
        ("timm/vit", "/architecture"),
        ("resnet/timm", "/architecture"),
    ] {
        let (one, other) = (Changed::copy(of), Changed::copy(of).config(pointer, "other".into()));
        let Err(error) = try_load(&[one.write(), other.write()], &zoo_spec(None)) else { panic!("{of}") };
        let error = error.to_string();
        let name = pointer.trim_start_matches('/').replace('/', ".");
        assert!(error.contains(&name) && error.contains("found \"other\"") && error.contains("config.json"), "{error}");
    }
}

#[test]
fn a_zoo_of_two_candidates_says_what_was_looked_at() {
    let mut both = Changed::copy("resnet/basic");
    both.tensors.extend(Changed::copy("timm/vit").tensors);
    both.refused(&zoo_spec(None), &["tensor names fit `timm-vit` and `resnet`", "checked: config.json: none"]);
    Changed::copy("timm/vit").zeros("x", &[1]).config("/architecture", "convnext_tiny".into()).refused(
        &zoo_spec(None),
        &["an unknown family", "tensor names say `timm-vit`", "architecture `convnext_tiny`"],
    );
}
