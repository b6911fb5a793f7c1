//! What timm's architectures are by name: what neither tensors nor `config.json` tell, and what is not computed.

use super::activation::Activation;

/// What an architecture's name says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Named {
    /// Attention heads, where they are not 64 wide.
    pub heads: Option<i64>,
    /// Activation of the perceptrons.
    pub activation: Activation,
    /// Added to variances by layer norms.
    pub eps: f64,
}

/// Parts of architectures' names whose heads are 16, whatever the width (timm 1.0.31, `vision_transformer.py` and `deit.py`).
const SIXTEEN_HEADS: [&str; 6] = ["_huge_", "_giant_", "_giantopt_", "_gigantic_", "_so400m_", "vit_base_patch16_gap_"];

/// SigLIP models whose GELU is the hyperbolic tangent's; the others' is exact.
const TANH_GELU: [&str; 5] = [
    "vit_base_patch32_siglip_",
    "vit_giantopt_patch16_siglip_",
    "vit_large_patch16_siglip_512",
    "vit_large_patch16_siglip_gap_512",
    "vit_so400m_patch16_siglip_",
];

/// Parts of architectures' names that say what this family does not compute, though tensors might fit.
const OTHERS: [(&str, &str); 13] = [
    ("_rpn_", "norms after attention and MLP"),
    ("relpos", "relative positions"),
    ("_rope_", "rotary positions"),
    ("_dinov3", "rotary positions"),
    ("_pe_", "rotary positions"),
    ("_sapiens2", "rotary positions"),
    ("_lingbot", "rotary positions"),
    ("_xp_", "attention and MLP in parallel"),
    ("_18x2_", "parallel blocks"),
    ("_36x1_r", "parallel blocks"),
    ("vit_pwee_", "attention and MLP in parallel"),
    ("vit_dwee_", "differential attention"),
    ("vit_dlittle_", "differential attention"),
];

/// What an architecture's name, without the tag after a dot, says.
///
/// # Errors
/// What it has that is not computed.
pub(super) fn named(architecture: &str) -> Result<Named, String> {
    let name = architecture.split('.').next().unwrap_or_default();
    if let Some((_, what)) = OTHERS.iter().find(|(part, _)| name.contains(part)) {
        return Err(format!("architecture `{name}` has {what}, which is not supported"));
    }
    let heads = match name {
        "test_vit" | "test_vit2" => Some(2),
        "test_vit3" | "test_vit4" => Some(3),
        // As wide as DINOv2's giant, not as the one before it.
        _ if name.contains("_giant_patch16_radio_") => None,
        _ => SIXTEEN_HEADS.iter().any(|part| name.contains(part)).then_some(16),
    };
    let activation = if name.contains("_quickgelu_") {
        Activation::QuickGelu
    } else if TANH_GELU.iter().any(|beginning| name.starts_with(beginning)) {
        Activation::GeluTanh
    } else {
        Activation::Gelu
    };
    Ok(Named { heads, activation, eps: if name.contains("_clip_") { CLIP_EPS } else { EPS } })
}

/// Of timm's layer norms.
pub(super) const EPS: f64 = 1e-6;

/// The same in the architectures after CLIP, which are those with a norm before the blocks.
pub(super) const CLIP_EPS: f64 = 1e-5;

/// Parts of tensors' names that say what this family does not compute.
const PARTS: [(&str, &str); 16] = [
    ("patch_embed.backbone.", "a hybrid's convolutional stem"),
    ("patch_embed.norm.", "a norm of the patch embedding"),
    ("attn_pool.", "attention pooling"),
    ("rel_pos", "relative positions"),
    ("rope", "rotary positions"),
    (".attns.", "parallel attentions"),
    (".ffns.", "parallel MLPs"),
    (".in_proj.", "attention and MLP in parallel"),
    (".mlp.fc1_g.", "a gated MLP (SwiGLU)"),
    (".mlp.w12.", "a gated MLP (SwiGLU)"),
    (".mlp.gate", "a gated MLP"),
    (".mlp.norm.", "a norm within the MLP"),
    (".attn.norm.", "a norm within the attention"),
    (".attn.gate.", "gated attention"),
    (".attn.lambda_", "differential attention"),
    (".attn.q_proj.", "separate projections of queries, keys and values"),
];

/// What is not computed, by a tensor's name.
pub(super) fn refused(tensor: &str) -> Option<&'static str> {
    PARTS.iter().find(|(part, _)| tensor.contains(part)).map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_tensors_do_not() {
        let of = |name| named(name).unwrap();
        assert_eq!(
            of("vit_base_patch16_224.augreg_in1k"),
            Named { heads: None, activation: Activation::Gelu, eps: EPS }
        );
        assert_eq!(of("deit3_huge_patch14_224").heads, Some(16));
        assert_eq!(of("vit_base_patch16_gap_224").heads, Some(16));
        let clip = of("vit_large_patch14_clip_quickgelu_224");
        assert_eq!((clip.activation, clip.eps), (Activation::QuickGelu, CLIP_EPS));
        assert_eq!(of("vit_so400m_patch16_siglip_gap_256").activation, Activation::GeluTanh);
        assert_eq!(of("vit_so400m_patch14_siglip_gap_224").activation, Activation::Gelu);
        let fault = named("vit_base_patch16_rpn_224").unwrap_err();
        assert!(fault.contains("norms after attention"), "{fault}");
    }

    /// All architectures of timm's plain ViT and DeiT classes (recipe: `tests/fixtures/make_timm.py`).
    #[test]
    fn names_tell_what_timm_builds() {
        type Told = Option<(i64, i64, String, f64)>;
        let timm: std::collections::BTreeMap<String, Told> =
            serde_json::from_str(include_str!("../../tests/fixtures/timm/architectures.json")).unwrap();
        let mut computed = 0;
        for (name, told) in &timm {
            let Some((width, heads, activation, eps)) = told else { continue };
            let named = named(name).unwrap_or_else(|fault| panic!("{fault}"));
            assert_eq!((named.heads.unwrap_or(width / 64), named.eps), (*heads, *eps), "{name}");
            let expected = match activation.as_str() {
                "GELU" => Activation::Gelu,
                "GELUTanh" => Activation::GeluTanh,
                "QuickGELU" => Activation::QuickGelu,
                other => panic!("{name}: {other}"),
            };
            assert_eq!(named.activation, expected, "{name}");
            computed += 1;
        }
        assert!(computed > 100, "{computed}");
    }

    #[test]
    fn what_is_not_computed_is_known_by_its_tensors() {
        assert_eq!(refused("blocks.0.mlp.fc1_g.weight"), Some("a gated MLP (SwiGLU)"));
        assert_eq!(refused("attn_pool.latent"), Some("attention pooling"));
        assert_eq!(refused("blocks.0.attn.q_norm.weight"), None);
    }
}
