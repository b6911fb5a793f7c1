//! What `compute.recompute` is for: less memory. Alone in its process, whose peak it measures.

#![allow(clippy::unwrap_used, reason = "a test that fails by unwrapping says all that is needed")]

use std::collections::BTreeMap;

use mehl_soup::host;
use mehl_soup_worker::data::Batch;
use mehl_soup_worker::engine::{Clock, memory};
use mehl_soup_worker::families::{Pass, Precision, Vit, VitConfig};
use mehl_soup_worker::objectives::{Backward, Classification, Course, Discarded, Leaves, Objective, Step};
use tch::{Device, Kind, Tensor};

const LAYERS: i64 = 12;
const BATCH: i64 = 16;

fn model() -> Vit {
    let config = serde_json::json!({
        "architectures": ["ViTForImageClassification"], "model_type": "vit", "patch_size": 16, "image_size": 224,
        "hidden_size": 128, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 512,
    });
    let config = VitConfig::from_json(&config).unwrap();
    let parameters: BTreeMap<String, Tensor> = config
        .tensors(5)
        .into_iter()
        .map(|(name, shape)| (name, (Tensor::randn(&shape, (Kind::Float, Device::Cpu)) * 0.02).set_requires_grad(true)))
        .collect();
    Vit::from_parameters(config, 5, parameters)
}

/// Bytes that the peak is above what was there before.
fn peak(model: &Vit, precision: Precision, recompute: bool) -> u64 {
    let leaves = Leaves::all(model);
    let images = Tensor::randn([BATCH, 3, 224, 224], (Kind::Float, Device::Cpu));
    let batch = Batch::new(images.into(), Tensor::zeros([BATCH], (Kind::Int64, Device::Cpu)));
    let backward = Backward { how: Pass::Learn.with(precision), course: Course::ByParts { recompute } };
    let run = || {
        let (clock, sink) = (&mut Clock::new(Device::Cpu), &mut Discarded);
        let mut step = Step { leaves: &leaves, inverse_temperature: None, backward, clock, sink };
        Classification.gradients(model, &batch, &mut step).unwrap()
    };
    // What libraries set up at the first call is no part of it.
    run();
    memory::give_back_freed_pages();
    host::reset_peak();
    let before = host::memory().resident;
    run();
    host::memory().peak.saturating_sub(before)
}

#[test]
fn recomputing_takes_the_memory_of_one_block() {
    // Each large tensor in a mapping of its own, which goes when it goes: what is measured is what is in use, not what the allocator keeps of it.
    #[cfg(target_env = "gnu")]
    // SAFETY: no other thread allocates yet, and the value is within the documented range.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
    let model = model();
    for precision in [Precision::Full, Precision::Bf16] {
        let (anew, kept) = (peak(&model, precision, true), peak(&model, precision, false));
        println!("{precision:?}: {} MB recomputed, {} MB kept", anew >> 20, kept >> 20);
        // One of twelve blocks, what goes between all of them (a twentieth of what they keep), gradients, temporaries of one operation.
        assert!(anew < kept * 2 / 5, "{precision:?}: {anew} bytes recomputed, {kept} kept");
    }
}
