//! How much memory a task may take, and whether it fits.

use mehl_soup::host;
use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::spec::{ComputeSpec, MethodName, ModelBatch};
use tch::Device;

use super::allocations;
use super::needs::Needs;

/// The part of free memory that is taken where nothing is said: fragmentation and other programs have the rest.
const SHARE: f64 = 0.8;

/// Bytes that a task's [`Needs`] are held against, and where they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// What `soup.model_batch = "auto"` fills.
    pub bytes: u64,
    /// What is more is refused: the stated budget, or all the memory that there is.
    pub ceiling: u64,
    /// Where the ceiling comes from, in words.
    pub source: &'static str,
}

/// Slots that compute on the CPU, in one process.
pub fn cpu_slots(compute: &ComputeSpec) -> u64 {
    compute.devices.iter().filter(|name| *name == "cpu").count().max(1) as u64
}

/// The budget of one of a specification's devices: `compute.memory`, else the larger part of what is free now.
///
/// On the CPU it is anonymous memory of the whole process, shared between the slots that are on the CPU; on a GPU it is each device's.
pub fn budget(compute: &ComputeSpec, device: Device) -> Budget {
    let slots = match device {
        Device::Cpu => cpu_slots(compute),
        _ => 1,
    };
    if let Some(bytes) = compute.memory_bytes {
        return Budget { bytes: bytes / slots, ceiling: bytes / slots, source: "compute.memory" };
    }
    if device == Device::Cpu {
        let (own, limit) = (host::memory().anonymous, host::memory_limit());
        // What the kernel calls available is the machine's; a control group may allow less.
        let free = host::available().min(limit.saturating_sub(own));
        let bytes = own + (free as f64 * SHARE) as u64 / slots;
        return Budget { bytes, ceiling: limit, source: "this machine's memory or its control group's" };
    }
    let memory = allocations::device_memory(device);
    let (bytes, ceiling) = match memory.map(|memory| (memory.reserved, memory.free, memory.total)) {
        Some((reserved, Some(free), Some(total))) => (reserved + (free as f64 * SHARE) as u64, total),
        // Nobody tells: whatever is asked for is tried.
        _ => (u64::MAX, u64::MAX),
    };
    Budget { bytes, ceiling, source: "the device's memory" }
}

/// Ingredients at once: what the specification says if it fits, the most that fit where it says `auto`.
///
/// # Errors
/// [`EngineError::Input`] with the numbers if what is asked for, or one ingredient where that is `auto`, cannot fit.
pub fn model_batch(
    asked: ModelBatch,
    method: MethodName,
    needs: &Needs,
    budget: &Budget,
    ingredients: usize,
) -> Result<usize, EngineError> {
    let all = method.holds_all();
    let wanted = match asked {
        _ if all => ingredients,
        ModelBatch::Fixed(b) => b.clamp(1, ingredients.max(1)),
        ModelBatch::Auto(_) => needs.largest(budget.bytes, ingredients).unwrap_or(1),
    };
    if needs.peak(wanted) <= budget.ceiling {
        return Ok(wanted);
    }
    let gib = |bytes: u64| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30));
    let parts = format!(
        "{} before the task, {} for the centre, {} per ingredient, {} for one pass",
        gib(needs.base),
        gib(needs.centre),
        gib(needs.row),
        gib(needs.beside())
    );
    let what = match all {
        true => format!("method `{method}` holds all {wanted} ingredients"),
        false => format!("soup.model_batch: {wanted} ingredients at once"),
    };
    let advice = match needs.largest(budget.ceiling, ingredients) {
        Some(b) if all => format!(
            "{b} fit. Use method `steady`, `mehl` or `mehl+` with soup.model_batch = {b}, or a \
             smaller soup.direction_dtype"
        ),
        Some(b) => format!("soup.model_batch = {b} fits"),
        None => "not even one ingredient fits. Reduce soup.batch, compute.score_batch or soup.direction_dtype, or set compute.recompute".to_string(),
    };
    Err(EngineError::Input(format!(
        "{what}: expected at most {} ({}), but {} are needed ({parts}); {advice}",
        gib(budget.ceiling),
        budget.source,
        gib(needs.peak(wanted)),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mehl_soup::sweep::spec::Auto;

    const GIB: u64 = 1 << 30;

    fn needs() -> Needs {
        Needs { base: GIB, centre: GIB, row: GIB, learning: GIB, ..Needs::default() }
    }

    fn stated(bytes: u64) -> Budget {
        Budget { bytes, ceiling: bytes, source: "compute.memory" }
    }

    #[test]
    fn auto_takes_what_fits_and_a_number_is_kept_to() {
        let auto = ModelBatch::Auto(Auto::Auto);
        let of = |asked, method, bytes| model_batch(asked, method, &needs(), &stated(bytes), 5);
        assert_eq!(of(auto, MethodName::MehlPlus, 6 * GIB).unwrap(), 3);
        assert_eq!(of(auto, MethodName::MehlPlus, 60 * GIB).unwrap(), 5);
        assert_eq!(of(ModelBatch::Fixed(2), MethodName::Mehl, 6 * GIB).unwrap(), 2);
        assert_eq!(of(auto, MethodName::HlPlus, 8 * GIB).unwrap(), 5);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_numbers() {
        let of = |asked, method, bytes| match model_batch(asked, method, &needs(), &stated(bytes), 5) {
            Err(EngineError::Input(text)) => text,
            other => panic!("{other:?}"),
        };
        let text = of(ModelBatch::Fixed(4), MethodName::Mehl, 6 * GIB);
        for part in
            ["soup.model_batch: 4", "at most 6.00 GiB (compute.memory)", "7.00 GiB", "soup.model_batch = 3 fits"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let text = of(ModelBatch::Auto(Auto::Auto), MethodName::Hl, 6 * GIB);
        assert!(text.contains("method `hl` holds all 5 ingredients") && text.contains("3 fit. Use method"), "{text}");
        let text = of(ModelBatch::Auto(Auto::Auto), MethodName::Mehl, 3 * GIB);
        assert!(text.contains("not even one ingredient fits"), "{text}");
    }
}
