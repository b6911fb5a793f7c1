//! A zoo of random weights, large enough for its memory to be told from everything else's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mehl_soup_worker::families::VitConfig;
use mehl_soup_worker::rng;
use rand_chacha::rand_core::Rng;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

const CLASSES: i64 = 4;

/// About 34 MB of weights an ingredient.
fn config() -> serde_json::Value {
    serde_json::json!({
        "architectures": ["ViTForImageClassification"], "model_type": "vit", "patch_size": 8, "image_size": 16,
        "hidden_size": 384, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 1536,
    })
}

fn write(path: &Path, tensors: &BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn floats(shape: &[usize], scale: f32, seed: u64) -> Vec<u8> {
    let mut rng = rng::generator(seed, "floats", &[]);
    let n: usize = shape.iter().product();
    (0..n).flat_map(|_| ((rng.next_u32() as f32 / u32::MAX as f32 - 0.5) * scale).to_le_bytes()).collect()
}

/// A zoo in `folder/zoo`, and learn data of 12 samples in `folder/learn.safetensors`.
pub fn make(folder: &Path, ingredients: u64) {
    let vit = VitConfig::from_json(&config()).unwrap();
    for k in 0..ingredients {
        let at = folder.join(format!("zoo/k{k}"));
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("config.json"), config().to_string()).unwrap();
        let tensors = vit.tensors(CLASSES).into_iter().enumerate().map(|(i, (name, shape))| {
            let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
            let bytes = floats(&shape, 0.1, 1000 * k + i as u64);
            (name, (Dtype::F32, shape, bytes))
        });
        write(&at.join("model.safetensors"), &tensors.collect());
    }
    let shape = vec![12, 3, 16, 16];
    let labels = (0..12i64).flat_map(|i| (i % CLASSES).to_le_bytes()).collect();
    let learn = BTreeMap::from([
        ("inputs".to_string(), (Dtype::F32, shape.clone(), floats(&shape, 2.0, 7))),
        ("labels".to_string(), (Dtype::I64, vec![12], labels)),
    ]);
    write(&folder.join("learn.safetensors"), &learn);
}

/// A zoo of BERTs in `folder/zoo`, 36 MB each, and texts of 4 to 120 tokens in `folder/learn.jsonl`.
pub fn make_texts(folder: &Path, ingredients: u64) {
    const WIDTH: usize = 384;
    const INNER: usize = 1536;
    const LAYERS: usize = 5;
    let config = serde_json::json!({
        "architectures": ["BertForSequenceClassification"], "model_type": "bert", "vocab_size": 300,
        "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": INNER,
        "max_position_embeddings": 128, "type_vocab_size": 2, "pad_token_id": 0,
        "id2label": { "0": "a", "1": "b" }, "label2id": { "a": 0, "b": 1 },
    });
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("bert.embeddings.word_embeddings.weight".into(), vec![300, WIDTH]),
        ("bert.embeddings.position_embeddings.weight".into(), vec![128, WIDTH]),
        ("bert.embeddings.token_type_embeddings.weight".into(), vec![2, WIDTH]),
    ];
    let mut both = |name: &str, shape: Vec<usize>| {
        shapes.push((format!("{name}.bias"), vec![shape[0]]));
        shapes.push((format!("{name}.weight"), shape));
    };
    both("bert.embeddings.LayerNorm", vec![WIDTH]);
    both("bert.pooler.dense", vec![WIDTH, WIDTH]);
    both("classifier", vec![2, WIDTH]);
    for layer in 0..LAYERS {
        let block = format!("bert.encoder.layer.{layer}");
        for name in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
            both(&format!("{block}.{name}"), vec![WIDTH, WIDTH]);
        }
        both(&format!("{block}.attention.output.LayerNorm"), vec![WIDTH]);
        both(&format!("{block}.intermediate.dense"), vec![INNER, WIDTH]);
        both(&format!("{block}.output.dense"), vec![WIDTH, INNER]);
        both(&format!("{block}.output.LayerNorm"), vec![WIDTH]);
    }
    for k in 0..ingredients {
        let at = folder.join(format!("zoo/k{k}"));
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("config.json"), config.to_string()).unwrap();
        fs::copy(super::fixture("text-base/tokenizer.json"), at.join("tokenizer.json")).unwrap();
        let tensors = shapes.iter().enumerate().map(|(i, (name, shape))| {
            (name.clone(), (Dtype::F32, shape.clone(), floats(shape, 0.1, 1000 * k + i as u64)))
        });
        write(&at.join("model.safetensors"), &tensors.collect());
    }
    let words = |i: usize| ["cat ", "dog ", "owl "][i % 3].repeat([2, 10, 20, 35, 58][i % 5]);
    let row = |i| {
        let (text, label) = (words(i), ["a", "b"][i % 2]);
        serde_json::json!({ "text": text, "label": label }).to_string() + "\n"
    };
    fs::write(folder.join("learn.jsonl"), (0..60).map(row).collect::<String>()).unwrap();
}
