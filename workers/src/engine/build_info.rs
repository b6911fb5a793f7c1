//! What computes here: checkpoints of another build go on only within tolerance.

use mehl_soup::checkpoint::Build;
use mehl_soup::sweep::spec::LinearLibrary;
use tch::Device;

/// The build of this process, with the library of linear layers.
pub fn build(device: Device, compute_threads: usize, linear: LinearLibrary) -> Build {
    Build {
        libtorch: env!("MEHL_SOUP_LIBTORCH_VERSION").to_string(),
        cpu_capability: cpu_capability(),
        compute_threads,
        device: match device {
            Device::Cpu => "cpu",
            _ => "cuda",
        }
        .to_string(),
        linear,
    }
}

/// The instruction set that libtorch chooses its kernels by.
fn cpu_capability() -> String {
    if let Ok(stated) = std::env::var("ATEN_CPU_CAPABILITY") {
        return stated;
    }
    #[cfg(target_arch = "x86_64")]
    {
        // Matrix products ask for more than the two words that libtorch's own kernels know.
        let features = [
            ("avx2", std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma")),
            ("avx512", std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512bw")),
            ("avx512_vnni", std::is_x86_feature_detected!("avx512vnni")),
            ("avx512_bf16", std::is_x86_feature_detected!("avx512bf16")),
        ];
        let names: Vec<&str> = features.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
        names.last().copied().unwrap_or("default").to_string()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        std::env::consts::ARCH.to_string()
    }
}
