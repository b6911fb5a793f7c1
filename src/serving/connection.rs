//! One HTTP connection, watched from its first byte to its last.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tower::ServiceExt;

use super::Limits;
use super::table::{Connection, Seat};

/// Bytes that are buffered of a head, and of an answer: a head may not be larger.
const BUFFER: usize = 64 << 10;

/// A body that did not come within its time. What a handler reads of it ends with this error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request body did not arrive within {0} s")]
pub struct SlowBody(pub u64);

/// Answers the requests of a connection until it ends, is closed, or `stopping` says so and the
/// request that is under way is answered.
pub(super) async fn answer(
    stream: TcpStream,
    seat: Seat,
    router: Router,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    // Answers are written whole, or in large pieces.
    drop(stream.set_nodelay(true));
    let connection = seat.connection.clone();
    let watched = connection.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (connection, router) = (watched.clone(), router.clone());
        async move {
            let request = request.map(|body| Body::new(Received::new(body, &connection, &limits)));
            let Ok(response) = router.oneshot(request).await;
            Ok::<_, Infallible>(response.map(|body| Sent { body, connection }))
        }
    });
    let io = TokioIo::new(Watched { stream, connection: connection.clone() });
    let serving = http1::Builder::new().max_buf_size(BUFFER).serve_connection(io, service);
    let mut serving = std::pin::pin!(serving);
    let mut is_stopping = false;
    loop {
        tokio::select! {
            // Clients that go away, or speak something else, are no fault of this program.
            _ = serving.as_mut() => return,
            () = connection.close.notified() => return,
            _ = stopping.wait_for(|stop| *stop), if !is_stopping => {
                is_stopping = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

/// A body that a handler reads, and that has a deadline.
struct Received {
    body: Incoming,
    connection: Arc<Connection>,
    deadline: Pin<Box<Sleep>>,
    seconds: u64,
}

impl Received {
    /// Tells the connection that a request's head is there.
    fn new(body: Incoming, connection: &Arc<Connection>, limits: &Limits) -> Self {
        connection.head(http_body::Body::is_end_stream(&body), Instant::now());
        let deadline = Box::pin(tokio::time::sleep(limits.body));
        Self { body, connection: connection.clone(), deadline, seconds: limits.body.as_secs() }
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(None) => {
                self.connection.body(Instant::now());
                Poll::Ready(None)
            }
            // The deadline is for all of it: a byte now and then prolongs nothing.
            answer if self.deadline.is_elapsed() || self.deadline.as_mut().poll(context).is_ready() => {
                drop(answer);
                Poll::Ready(Some(Err(SlowBody(self.seconds).into())))
            }
            Poll::Ready(Some(frame)) => Poll::Ready(Some(frame.map_err(Into::into))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        // Whether it is whole or not, nobody waits for it.
        self.connection.body(Instant::now());
    }
}

/// A body that is sent.
struct Sent {
    body: Body,
    connection: Arc<Connection>,
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.connection.answered(Instant::now());
    }
}

/// A stream that tells its connection what the client sends and takes.
struct Watched {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl Watched {
    fn written(&self, answer: &Poll<io::Result<usize>>) {
        match answer {
            Poll::Pending => self.connection.unread(Instant::now()),
            Poll::Ready(Ok(bytes)) => self.connection.taken(*bytes),
            Poll::Ready(Err(_)) => {}
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let answer = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.connection.received(Instant::now());
        }
        answer
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let answer = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(&answer);
        answer
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let answer = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.written(&answer);
        answer
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // All that there was to write is written.
        self.connection.flushed();
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
