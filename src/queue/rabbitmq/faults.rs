//! What went wrong, by what the caller does next.

use std::io;

use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::{Error, ErrorKind};

use crate::queue::QueueError;

/// Most characters of a broker's own words.
const WORDS: usize = 300;

fn words(text: impl ToString) -> String {
    text.to_string().chars().take(WORDS).collect()
}

/// Of something that was asked on a connection or a channel.
pub fn error(error: &Error) -> QueueError {
    match error.kind() {
        ErrorKind::ProtocolError(told) => protocol(told),
        ErrorKind::IOError(error) => connection(error),
        ErrorKind::AuthProviderError(_) => QueueError::Refused(words(error)),
        ErrorKind::InvalidProtocolVersion(_) | ErrorKind::ParsingError(_) => {
            QueueError::Setup(format!("the server does not speak AMQP 0-9-1: {}", words(error)))
        }
        // The channel ended, and its end was told elsewhere.
        ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidChannel(_) => QueueError::Withdrawn(words(error)),
        _ => QueueError::Unreachable(words(error)),
    }
}

/// Of a declaration.
pub fn declaration(told: &Error) -> QueueError {
    match told.kind() {
        ErrorKind::ProtocolError(told)
            if matches!(
                told.kind(),
                AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::RESOURCELOCKED)
            ) =>
        {
            QueueError::Foreign(words(told.get_message().as_str()))
        }
        _ => error(told),
    }
}

fn protocol(told: &AMQPError) -> QueueError {
    let text = words(told.get_message().as_str());
    match told.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
            QueueError::Refused(text)
        }
        AMQPErrorKind::Hard(AMQPHardError::NOTIMPLEMENTED) => QueueError::Setup(text),
        AMQPErrorKind::Soft(_) => QueueError::Withdrawn(text),
        AMQPErrorKind::Hard(_) => QueueError::Unreachable(text),
    }
}

/// Of a socket, with or without TLS.
fn connection(error: &io::Error) -> QueueError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls) => QueueError::Setup(format!("TLS: {}", words(tls))),
        None => QueueError::Unreachable(words(error)),
    }
}
