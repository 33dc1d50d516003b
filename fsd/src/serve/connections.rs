//! Connections that carry something along, and those that are counted: more than the bound are closed before anything is read from them.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Connected;

/// What a connection carries along.
pub(super) trait Companion<S>: Unpin {
    /// See [`Connected`].
    type ConnectInfo: Clone + Send + Sync + 'static;

    fn connect_info(&self, stream: &S) -> Self::ConnectInfo;

    /// Asked before anything is read or written. Error: nothing is any more.
    fn check(&mut self, _context: &mut Context<'_>) -> io::Result<()> {
        Ok(())
    }
}

/// A connection with what it carries along.
#[derive(Debug)]
pub(super) struct Connection<S, C> {
    pub(super) stream: S,
    pub(super) companion: C,
}

/// Until it is dropped there is one connection more.
#[derive(Debug)]
pub(super) struct Counted {
    _permit: OwnedSemaphorePermit,
}

impl<S: Connected> Companion<S> for Counted {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self, stream: &S) -> S::ConnectInfo {
        stream.connect_info()
    }
}

/// Those who connect, at most `max` at a time.
pub(super) fn counted<S>(
    incoming: impl Stream<Item = io::Result<S>>,
    max: usize,
) -> impl Stream<Item = io::Result<Connection<S, Counted>>> {
    let free = Arc::new(Semaphore::new(max));
    let mut is_told = false;
    incoming.filter_map(move |stream| match stream {
        Ok(stream) => match Arc::clone(&free).try_acquire_owned() {
            Ok(permit) => {
                is_told = false;
                Some(Ok(Connection { stream, companion: Counted { _permit: permit } }))
            }
            Err(_) => {
                // Once: whoever goes on connecting must not fill the log as well.
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(max, "so many connections are open; more are closed");
                }
                None
            }
        },
        Err(error) => Some(Err(error)),
    })
}

impl<S, C: Companion<S>> Connected for Connection<S, C> {
    type ConnectInfo = C::ConnectInfo;

    fn connect_info(&self) -> C::ConnectInfo {
        self.companion.connect_info(&self.stream)
    }
}

impl<S: Unpin, C: Companion<S>> Connection<S, C> {
    fn checked(&mut self, context: &mut Context<'_>) -> io::Result<Pin<&mut S>> {
        self.companion.check(context)?;
        Ok(Pin::new(&mut self.stream))
    }
}

impl<S: AsyncRead + Unpin, C: Companion<S>> AsyncRead for Connection<S, C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.checked(context)?.poll_read(context, buf)
    }
}

impl<S: AsyncWrite + Unpin, C: Companion<S>> AsyncWrite for Connection<S, C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.checked(context)?.poll_write(context, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.checked(context)?.poll_write_vectored(context, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.checked(context)?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.checked(context)?.poll_shutdown(context)
    }
}
