//! Text encoders equal to transformers and sentence-transformers on miniature models (recipe:
//! `fixtures/make_text_encoders.py`), padding that changes nothing, and what is refused.

use std::path::PathBuf;

use crate::support::changed::Changed;
use crate::support::fixture;
use crate::support::golden::{check_named, load, tensor, try_load, zoo_spec};
use mehl_soup::sweep::parse::parse_spec;
use mehl_soup::sweep::spec::{Family, ZooSpec};
use mehl_soup_worker::engine::Inputs;
use mehl_soup_worker::families::{Model, ModelInputs, Pass};
use serde_json::json;
use tch::{Device, Kind, Tensor};

/// Folders of the fixtures, their family, and the classes of those with a head.
const CASES: [(&str, Family, Option<i64>); 11] = [
    ("bert", Family::Bert, Some(3)),
    ("roberta", Family::Bert, Some(3)),
    ("xlm_roberta", Family::Bert, Some(3)),
    ("distilbert", Family::Bert, Some(3)),
    ("st_mean", Family::Bert, None),
    ("st_cls", Family::Bert, None),
    ("st_max", Family::Bert, None),
    ("st_normalised", Family::Bert, None),
    ("modernbert", Family::Modernbert, Some(3)),
    ("modernbert_mean", Family::Modernbert, Some(3)),
    ("st_modernbert", Family::Modernbert, None),
];

fn none() -> ZooSpec {
    zoo_spec(None)
}

fn model(case: &str) -> Box<dyn Model> {
    load(&[fixture("encoders").join(case)], &none())
}

/// The inputs of a case, and its labels.
fn batch(case: &str) -> (Vec<(String, Tensor)>, Tensor) {
    let golden = fixture("encoders").join(case).join("golden.safetensors");
    let bytes = std::fs::read(&golden).unwrap();
    let names = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let has = |name: &&str| names.names().contains(name);
    let inputs = ["input_ids", "attention_mask", "token_type_ids"].into_iter().filter(has);
    let inputs = inputs.map(|name| (name.to_string(), tensor(&golden, name, Kind::Int64))).collect();
    (inputs, tensor(&golden, "labels", Kind::Int64))
}

fn copies(inputs: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    inputs.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}

fn outputs(model: &dyn Model, inputs: ModelInputs) -> Tensor {
    model.outputs(&inputs, Pass::Learn.full()).unwrap()
}

/// Values are the same but for the order of sums.
fn same(what: &str, found: &Tensor, expected: &Tensor) {
    let far = (found - expected).abs().max().double_value(&[]);
    assert!(far < 1e-12, "{what}: {far}");
}

#[test]
fn encoders_equal_their_libraries() {
    for (case, family, classes) in CASES {
        let folder = fixture("encoders").join(case);
        let (found, model) =
            try_load(std::slice::from_ref(&folder), &none()).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!((found, model.classes()), (family, classes), "{case}");
        let (inputs, labels) = batch(case);
        check_named(model.as_ref(), &ModelInputs::new(inputs), &labels, &folder.join("golden.safetensors"), "");
    }
}

#[test]
fn a_wrapped_encoder_without_its_configurations_class_is_the_same() {
    for case in ["bert", "roberta", "distilbert", "modernbert"] {
        let changed = Changed::copy(&format!("encoders/{case}")).under("module.").config("/architectures", json!(null));
        let model = load(&[changed.write()], &none());
        let (inputs, labels) = batch(case);
        let golden = fixture("encoders").join(case).join("golden.safetensors");
        check_named(model.as_ref(), &ModelInputs::new(inputs), &labels, &golden, "module.");
    }
}

/// Outputs and gradients of a batch of samples of different lengths are those of single samples, whatever stands in the
/// padding, whether a mask or the samples' lengths tell it.
#[test]
fn padding_changes_nothing() {
    for (case, _, _) in CASES {
        let model = model(case);
        let (inputs, _) = batch(case);
        let mask = &inputs.iter().find(|(name, _)| name == "attention_mask").unwrap().1;
        let lengths = mask.sum_dim_intlist(1, false, Kind::Int64);
        let mut others = copies(&inputs);
        others.retain(|(name, _)| name != "attention_mask");
        let single = |n: i64| {
            let length = lengths.int64_value(&[n]);
            let cut = |(name, t): &(String, Tensor)| (name.clone(), t.narrow(0, n, 1).narrow(1, 0, length));
            outputs(model.as_ref(), ModelInputs::new(others.iter().map(cut).collect()))
        };
        let expected = Tensor::cat(&(0..4).map(single).collect::<Vec<_>>(), 0);
        let expected_gradients = gradients(model.as_ref(), &expected);
        for filling in [0, 1, 7, -5, 10_000] {
            let filled = |(name, t): &(String, Tensor)| (name.clone(), t.masked_fill(&mask.eq(0), filling));
            let filled: Vec<_> = others.iter().map(filled).collect();
            let mut with_mask = copies(&filled);
            with_mask.push(("attention_mask".to_string(), mask.shallow_clone()));
            let by_mask = ModelInputs::new(with_mask);
            let by_lengths = ModelInputs::new(filled).with_lengths(lengths.shallow_clone());
            for (how, inputs) in [("mask", by_mask), ("lengths", by_lengths)] {
                let what = format!("{case}, {how}, filled with {filling}");
                let found = outputs(model.as_ref(), inputs);
                same(&what, &found, &expected);
                for (a, b) in gradients(model.as_ref(), &found).iter().zip(&expected_gradients) {
                    same(&what, a, b);
                }
            }
        }
    }
}

/// Gradients of a number that all outputs decide.
fn gradients(model: &dyn Model, outputs: &Tensor) -> Vec<Tensor> {
    let weights = Tensor::arange(outputs.numel() as i64, (Kind::Double, Device::Cpu)).view_as(outputs).sin();
    let leaves: Vec<&Tensor> = model.parameters().values().collect();
    Tensor::run_backward(&[&(outputs * weights).sum(Kind::Double)], &leaves, true, false)
}

#[test]
fn a_sample_that_is_all_padding_gives_numbers() {
    for (case, _, _) in CASES {
        let model = model(case);
        let ids = Tensor::from_slice(&[5i64, 6, 7, 8]).view([2, 2]);
        let mask = Tensor::from_slice(&[0i64, 0, 1, 1]).view([2, 2]);
        let inputs = [("input_ids".to_string(), ids), ("attention_mask".to_string(), mask)];
        let found = outputs(model.as_ref(), ModelInputs::new(inputs.into()));
        let gradients = gradients(model.as_ref(), &found);
        for values in gradients.iter().chain([&found]) {
            assert_eq!(values.isfinite().all().int64_value(&[]), 1, "{case}");
        }
    }
}

#[test]
fn what_a_model_takes_is_said_and_longer_samples_are_refused() {
    let cases =
        [("bert", 12, 3), ("roberta", 10, 3), ("xlm_roberta", 8, 3), ("distilbert", 12, 2), ("modernbert", 12, 2)];
    for (case, longest, inputs) in cases {
        let model = model(case);
        let expected = model.expected_inputs().unwrap();
        assert_eq!(expected.len(), inputs, "{case}");
        assert!(expected[0].takes(&[longest]) && !expected[0].takes(&[longest + 1]), "{case}");
        assert_eq!(expected.iter().map(|input| input.optional).collect::<Vec<_>>()[..2], [false, true]);
        let tokens = |length| ModelInputs::from(Tensor::full([2, length], 9, (Kind::Int64, Device::Cpu)));
        assert_eq!(outputs(model.as_ref(), tokens(longest)).size(), [2, 3]);
        let error = model.outputs(&tokens(longest + 1), Pass::Score.full()).unwrap_err().to_string();
        assert!(error.contains(&format!("at most {longest} tokens")), "{case}: {error}");
    }
}

/// BERT's pooler under an embedding, heads of pre-training, buffers of old versions: there, and in no gradient.
#[test]
fn other_heads_are_carried_along() {
    let changed = Changed::copy("encoders/bert")
        .zeros("cls.predictions.transform.dense.weight", &[16, 16])
        .zeros("cls.seq_relationship.bias", &[2])
        .zeros("bert.embeddings.position_ids", &[1, 12]);
    let model = load(&[changed.write()], &none());
    assert!(!model.parameters().keys().any(|name| name.starts_with("cls.") || name.ends_with("position_ids")));
    let distil = Changed::copy("encoders/distilbert").zeros("vocab_projector.bias", &[40]);
    assert!(!load(&[distil.write()], &none()).parameters().contains_key("vocab_projector.bias"));
    let modern = Changed::copy("encoders/modernbert").zeros("decoder.bias", &[40]);
    assert!(!load(&[modern.write()], &none()).parameters().contains_key("decoder.bias"));
    let modern = Changed::copy("encoders/st_modernbert").zeros("head.norm.weight", &[16]);
    assert!(!load(&[modern.write()], &none()).parameters().contains_key("head.norm.weight"));
    let roberta =
        Changed::copy("encoders/roberta").zeros("lm_head.bias", &[40]).zeros("roberta.pooler.dense.weight", &[16, 16]);
    assert!(!load(&[roberta.write()], &none()).parameters().keys().any(|name| name.contains("pooler")));
    let embedding = self::model("st_mean");
    assert!(!embedding.parameters().keys().any(|name| name.contains("pooler")));
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let bert = || Changed::copy("encoders/bert");
    bert().zeros("bert.extra.weight", &[3]).refused(&none(), &["bert.extra.weight: expected no such tensor, found it"]);
    bert()
        .zeros("classifier.weight", &[3, 12])
        .refused(&none(), &["classifier.weight: expected shape [3, 16], found [3, 12]"]);
    bert().without("bert.encoder.layer.1.output.dense.bias").without("bert.pooler.dense.weight").refused(
        &none(),
        &["layer.1.output.dense.bias: expected shape [16], found no such tensor", "bert.pooler.dense"],
    );
    bert()
        .config("/num_hidden_layers", json!(1))
        .refused(&none(), &["bert.encoder.layer.1.attention.self.query.weight: expected no such tensor"]);
    Changed::copy("encoders/st_mean")
        .zeros("embeddings.LayerNorm.gamma", &[16])
        .refused(&none(), &["embeddings.LayerNorm.gamma: the name that an old version", "save_pretrained"]);
}

#[test]
fn configurations_that_are_not_computed_are_refused() {
    let bert = |pointer: &str, value| Changed::copy("encoders/bert").config(pointer, value);
    bert("/position_embedding_type", json!("relative_key")).refused(&none(), &["expected `absolute`"]);
    bert("/is_decoder", json!(true)).refused(&none(), &["is_decoder: expected an encoder"]);
    bert("/hidden_act", json!("mish")).refused(&none(), &["hidden_act: expected one of", "`mish`"]);
    bert("/num_attention_heads", json!(3)).refused(&none(), &["expected a divisor of the width 16, found 3"]);
    bert("/pad_token_id", json!(40)).refused(&none(), &["pad_token_id: expected a number below vocab_size 40"]);
    bert("/architectures", json!(["BertForTokenClassification"]))
        .refused(&none(), &["for sequence classification, found `BertForTokenClassification`", "mehl_soup export"]);
    let heads = ZooSpec { heads: Some(4), ..none() };
    bert("/hidden_size", json!(16)).refused(&heads, &["num_attention_heads is 2", "sets 4"]);
    Changed::copy("encoders/distilbert").refused(&heads, &["n_heads is 2", "sets 4"]);
    let roberta = Changed::copy("encoders/roberta").config("/pad_token_id", json!(null));
    roberta.refused(&none(), &["pad_token_id: expected a number, from which RoBERTa counts"]);
    let bare = Changed::copy("encoders/bert");
    std::fs::remove_file(bare.folder.path().join("config.json")).unwrap();
    bare.refused(&none(), &["expected the configuration of a BERT, a RoBERTa or a DistilBERT, found none"]);
}

/// A key's bias is noise only where nothing turns keys.
#[test]
fn gradients_that_are_noise_are_known() {
    let bert = model("bert");
    assert!(bert.gradient_free("bert.encoder.layer.0.attention.self.key.bias"));
    assert!(!bert.gradient_free("bert.encoder.layer.0.attention.self.query.bias"));
    assert!(model("distilbert").gradient_free("distilbert.transformer.layer.1.attention.k_lin.bias"));
    let modern = model("modernbert");
    assert!(modern.parameters().contains_key("model.layers.0.attn.Wqkv.bias"));
    assert!(!modern.parameters().keys().any(|name| modern.gradient_free(name)));
}

/// What versions of transformers before 5 wrote says the same.
#[test]
fn an_earlier_configuration_of_modernbert_is_the_same() {
    let earlier = Changed::copy("encoders/modernbert")
        .config("/layer_types", json!(null))
        .config("/rope_parameters", json!(null))
        .config("/global_attn_every_n_layers", json!(3))
        .config("/global_rope_theta", json!(160_000.0))
        .config("/local_rope_theta", json!(10_000.0));
    let model = load(&[earlier.write()], &none());
    let (inputs, labels) = batch("modernbert");
    let golden = fixture("encoders/modernbert/golden.safetensors");
    check_named(model.as_ref(), &ModelInputs::new(inputs), &labels, &golden, "");
}

/// A window that is smaller than the samples, and the kind of each block, decide the logits.
#[test]
fn windows_and_kinds_of_blocks_matter() {
    let (inputs, _) = batch("modernbert");
    let logits = |changed: Changed| {
        outputs(load(&[changed.write()], &none()).as_ref(), ModelInputs::new(copies(&inputs))).detach()
    };
    let usual = logits(Changed::copy("encoders/modernbert"));
    for (pointer, value) in [
        ("/local_attention", json!(6)),
        ("/layer_types/1", json!("full_attention")),
        ("/rope_parameters/sliding_attention/rope_theta", json!(100.0)),
        ("/rope_parameters/full_attention/rope_theta", json!(100.0)),
        ("/classifier_pooling", json!("mean")),
    ] {
        let other = logits(Changed::copy("encoders/modernbert").config(pointer, value));
        assert!((other - &usual).abs().max().double_value(&[]) > 1e-4, "{pointer}");
    }
}

#[test]
fn configurations_of_modernbert_that_are_not_computed_are_refused() {
    let modern = |pointer: &str, value| Changed::copy("encoders/modernbert").config(pointer, value);
    modern("/classifier_pooling", json!("max")).refused(&none(), &["classifier_pooling: expected `cls` or `mean`"]);
    modern("/num_attention_heads", json!(16)).refused(&none(), &["expected heads of an even width", "found 16"]);
    modern("/rope_parameters/full_attention/rope_type", json!("yarn"))
        .refused(&none(), &["rope_parameters.full_attention.rope_type: expected `default`"]);
    modern("/mlp_bias", json!(false))
        .refused(&none(), &["model.layers.0.mlp.Wi.bias: expected no such tensor, found it"]);
    modern("/head_dim", json!(4)).refused(&none(), &["head_dim: expected 8"]);
    modern("/architectures", json!(["ModernBertForTokenClassification"]))
        .refused(&none(), &["found `ModernBertForTokenClassification`"]);
}

#[test]
fn ingredients_must_agree() {
    let pair = |case: &str, file: &str, pointer: &str, value| {
        let (one, other) = (Changed::copy(&format!("encoders/{case}")), Changed::copy(&format!("encoders/{case}")));
        let other = other.json(file, pointer, value);
        let Err(error) = try_load(&[one.write(), other.write()], &none()) else { panic!("{case}: {pointer}") };
        error.to_string()
    };
    let error = pair("bert", "config.json", "/layer_norm_eps", json!(0.1));
    assert!(error.contains("layer_norm_eps: expected 0.001, found 0.1"), "{error}");
    let error = pair("st_mean", "1_Pooling/config.json", "/pooling_mode", json!("cls"));
    assert!(error.contains("embeddings: expected mean, found cls"), "{error}");
}

#[test]
fn an_encoder_with_neither_head_nor_modules_says_the_way_out() {
    let encoder = Changed::copy("encoders/st_mean");
    std::fs::remove_file(encoder.folder.path().join("modules.json")).unwrap();
    encoder.refused(&none(), &["modules.json of sentence-transformers, found neither", "mehl_soup export"]);
    let both = Changed::copy("encoders/bert");
    std::fs::copy(fixture("encoders/st_mean/modules.json"), both.folder.path().join("modules.json")).unwrap();
    std::fs::create_dir(both.folder.path().join("1_Pooling")).unwrap();
    let pooling = "1_Pooling/config.json";
    std::fs::copy(fixture("encoders/st_mean").join(pooling), both.folder.path().join(pooling)).unwrap();
    both.refused(&none(), &["found both: take modules.json away"]);
}

/// Why a sweep of these models, with two classes, does not begin.
fn not_begun(models: &[PathBuf]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let learn = folder.path().join("learn.safetensors");
    let ids = Tensor::full([4, 3], 9, (Kind::Int64, Device::Cpu));
    let labels = Tensor::from_slice(&[0i64, 1, 0, 1]);
    Tensor::write_safetensors(&[("input_ids", ids), ("labels", labels)], &learn).unwrap();
    let sweep = folder.path().join("sweep.toml");
    let models: Vec<String> = models.iter().map(|path| format!("'{}'", path.display())).collect();
    let text = format!(
        "[zoo]\ningredients = [{}]\n[data]\nlearn = '{learn}'\nselect = '{learn}'\ninputs = ['input_ids']\n\
         objective = 'classification'\n",
        models.join(", "),
        learn = learn.display()
    );
    std::fs::write(&sweep, text).unwrap();
    let opened = Inputs::open(&parse_spec(&sweep).unwrap(), Device::Cpu, Kind::Float, None, &mut |_| {});
    let Err(error) = opened.map(|_| ()) else { panic!("it begins") };
    error.to_string()
}

#[test]
fn embeddings_are_not_taken_for_logits() {
    let encoder = Changed::copy("encoders/st_mean");
    let error = not_begun(&[encoder.write(), fixture("encoders/st_mean")]);
    assert!(error.contains("found an encoder of sentence-transformers (modules.json)"), "{error}");
}

#[test]
fn labels_in_another_order_and_heads_of_another_width_are_told() {
    let named = |labels: [&str; 3]| {
        let map = json!({"0": labels[0], "1": labels[1], "2": labels[2]});
        Changed::copy("encoders/modernbert").config("/id2label", map).config("/label2id", json!(null))
    };
    let (one, turned) = (named(["no", "perhaps", "yes"]), named(["yes", "perhaps", "no"]));
    let error = not_begun(&[one.write(), turned.write()]);
    // The first is the one whose folder comes first.
    let orders = ["`no` for output 0, found `yes`", "`yes` for output 0, found `no`"];
    assert!(orders.iter().any(|order| error.contains(order)), "{error}");
    let wider = named(["no", "perhaps", "yes"]).zeros("classifier.weight", &[4, 16]).zeros("classifier.bias", &[4]);
    let error = not_begun(&[one.write(), wider.write()]);
    assert!(error.contains("classifier.weight") && error.contains("[3, 16]") && error.contains("[4, 16]"), "{error}");
}

#[test]
fn modules_that_are_not_computed_are_refused_by_name() {
    let with = |file: &str, pointer: &str, value| Changed::copy("encoders/st_normalised").json(file, pointer, value);
    let modules = |pointer: &str, value| with("modules.json", pointer, value);
    modules("/2/type", json!("sentence_transformers.models.Dense"))
        .refused(&none(), &["module `Dense` (`2_Normalize`)", "and no other module"]);
    modules("/0/path", json!("0_Transformer")).refused(&none(), &["the encoder is in `0_Transformer`: move its files"]);
    modules("/1/path", json!("../elsewhere")).refused(&none(), &["expected a path inside the folder"]);
    modules("/1/path", json!("3_Pooling")).refused(&none(), &["3_Pooling/config.json", "found no file"]);
    modules("/0/type", json!("x.CLIPModel")).refused(&none(), &["found `CLIPModel`, `Pooling`, `Normalize`"]);
    with("1_Pooling/config.json", "/pooling_mode", json!("lasttoken"))
        .refused(&none(), &["pooling_mode: expected `mean`, `cls` or `max`, found `lasttoken`"]);
    with("sentence_bert_config.json", "/transformer_task", json!("fill-mask"))
        .refused(&none(), &["transformer_task: expected `feature-extraction`, found \"fill-mask\""]);
}
