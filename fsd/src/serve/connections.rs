//! Connections, counted: more than the bound are closed before anything is read from them.

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

/// A connection that counts until it is dropped.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    _counted: OwnedSemaphorePermit,
}

/// Those who connect, at most `max` at a time.
pub(super) fn counted<S>(
    incoming: impl Stream<Item = io::Result<S>>,
    max: usize,
) -> impl Stream<Item = io::Result<Connection<S>>> {
    let free = Arc::new(Semaphore::new(max));
    let mut is_told = false;
    incoming.filter_map(move |stream| match stream {
        Ok(stream) => match Arc::clone(&free).try_acquire_owned() {
            Ok(counted) => {
                is_told = false;
                Some(Ok(Connection { stream, _counted: counted }))
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

impl<S: Connected> Connected for Connection<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.stream.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
