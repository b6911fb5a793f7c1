//! Faults of the parts, as the engine's caller needs them: by what it does next.

use mehl_soup::runner::engine::EngineError;
use mehl_soup::zoo::ZooError;
use tch::TchError;

use crate::data::DataError;
use crate::families::FamilyError;
use crate::hyperplane::SpanError;

/// libtorch's faults: running out of memory is told apart from the rest.
pub fn torch_error(error: TchError) -> EngineError {
    let text = error.to_string();
    // libtorch's messages carry a C++ stack; the first line says what happened. Those of a TorchScript module carry its code
    // first.
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = match text.contains("TorchScript interpreter") {
        true => lines.find(|line| line.starts_with("RuntimeError:")).or_else(|| text.lines().next()),
        false => lines.next(),
    };
    let first = first.unwrap_or_default().to_string();
    let lower = text.to_lowercase();
    if lower.contains("out of memory") || lower.contains("can't allocate memory") || lower.contains("bad_alloc") {
        EngineError::OutOfMemory(first)
    } else {
        EngineError::Internal(first)
    }
}

/// A zoo's faults are the input's.
pub fn zoo_error(error: ZooError) -> EngineError {
    EngineError::Input(error.to_string())
}

/// A family's faults are the input's.
pub fn family_error(error: FamilyError) -> EngineError {
    match error {
        FamilyError::Torch { file, source } => match torch_error(source) {
            EngineError::Internal(message) => EngineError::Input(format!("{file}: {message}")),
            other => other,
        },
        other => EngineError::Input(other.to_string()),
    }
}

/// The data's faults are the input's, but for libtorch's own.
pub fn data_error(error: DataError) -> EngineError {
    match error {
        DataError::Torch(error) => torch_error(error),
        other => EngineError::Input(other.to_string()),
    }
}

/// Reading a model batch.
pub fn span_error(error: SpanError) -> EngineError {
    match error {
        SpanError::Zoo(error) => zoo_error(error),
        SpanError::Torch(error) => torch_error(error),
    }
}
