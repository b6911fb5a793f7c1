//! Which library computes linear layers in f32.

use mehl_soup::sweep::spec::LinearLibrary;
use tch::{Device, Kind};

use crate::torch::has_onednn;

/// The library that a task begins with, and a note where it is not the stated one.
///
/// `auto` is oneDNN on processors of AMD, where MKL is slower, else libtorch's choice. It depends on
/// the processor alone and not on a trial, so that a sweep that is run again takes the same one.
pub fn resolve(
    stated: Option<LinearLibrary>,
    parameters: Kind,
    device: Device,
) -> (LinearLibrary, Option<&'static str>) {
    let can = (parameters, device) == (Kind::Float, Device::Cpu) && has_onednn();
    match stated {
        Some(LinearLibrary::Onednn) if !can => (
            LinearLibrary::Libtorch,
            Some(
                "compute.linear = \"onednn\" is for f32 on a CPU, with a libtorch that has oneDNN; \
                 libtorch chooses the library",
            ),
        ),
        Some(stated) => (stated, None),
        None if can && is_amd() => (LinearLibrary::Onednn, None),
        None => (LinearLibrary::Libtorch, None),
    }
}

/// The library that a task goes on with that began with `begun`: another only where there is no
/// oneDNN, and then the result is not bit-exact.
pub fn resume(begun: LinearLibrary, parameters: Kind, device: Device) -> LinearLibrary {
    resolve(Some(begun), parameters, device).0
}

/// Whether the processor is one of AMD, or of Hygon, whose cores are AMD's.
#[cfg(target_arch = "x86_64")]
fn is_amd() -> bool {
    let id = std::arch::x86_64::__cpuid(0);
    let vendor = [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes).concat();
    matches!(vendor.as_slice(), b"AuthenticAMD" | b"HygonGenuine")
}

#[cfg(not(target_arch = "x86_64"))]
fn is_amd() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn onednn_is_for_f32_on_a_cpu() {
        let resolved = |stated, kind, device| resolve(stated, kind, device).0;
        let cpu = Device::Cpu;
        assert_eq!(resolved(Some(LinearLibrary::Libtorch), Kind::Float, cpu), LinearLibrary::Libtorch);
        let onednn = Some(LinearLibrary::Onednn);
        assert_eq!(resolved(onednn, Kind::Double, cpu), LinearLibrary::Libtorch);
        assert_eq!(resolved(onednn, Kind::Float, Device::Cuda(0)), LinearLibrary::Libtorch);
        assert!(resolve(onednn, Kind::Double, cpu).1.is_some_and(|note| note.contains("compute.linear")));
        assert_eq!(resolved(None, Kind::Double, cpu), LinearLibrary::Libtorch);
        assert_eq!(resume(LinearLibrary::Libtorch, Kind::Float, cpu), LinearLibrary::Libtorch);
        if has_onednn() {
            assert_eq!(resolved(onednn, Kind::Float, cpu), LinearLibrary::Onednn);
            let auto = if is_amd() { LinearLibrary::Onednn } else { LinearLibrary::Libtorch };
            assert_eq!(resolved(None, Kind::Float, cpu), auto);
        }
    }
}
