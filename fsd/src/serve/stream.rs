//! From a thread that may block to a client that reads slowly: a short queue that makes the thread wait, and that tells it
//! when nobody reads any more.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{runtime::Handle, sync::mpsc, task::AbortHandle};
use tokio_stream::Stream;
use tonic::Status;

use super::Answer;

/// Messages that wait for a client. With diffs and file frames of up to 2 MiB this bounds what a slow one costs.
const QUEUE_MESSAGES_MAX: usize = 8;

/// The end that is written to.
#[derive(Debug)]
pub(super) struct Sink<T>(mpsc::Sender<Result<T, Status>>);

/// The end that tonic sends from.
#[derive(Debug)]
pub struct Events<T>(mpsc::Receiver<Result<T, Status>>);

/// A new queue.
pub(super) fn channel<T>() -> (Sink<T>, Events<T>) {
    let (sender, receiver) = mpsc::channel(QUEUE_MESSAGES_MAX);
    (Sink(sender), Events(receiver))
}

impl<T: Send + 'static> Sink<T> {
    /// Hands over a message, after waiting for room. Error: CANCELLED if nobody reads any more.
    pub(super) fn send(&self, message: T) -> Answer<()> {
        self.0.blocking_send(Ok(message)).map_err(|_| Status::cancelled("the caller went away"))
    }

    /// Hands over a message if there is room: for progress, of which the latest is the best.
    pub(super) fn offer(&self, message: T) {
        // A full queue and a client that is gone both mean that nobody misses it.
        let _ = self.0.try_send(Ok(message));
    }

    /// Ends the stream with an error.
    pub(super) fn fail(&self, status: Status) {
        // Nobody is there to be told.
        let _ = self.0.blocking_send(Err(status));
    }

    /// A flag that is raised when the client goes away.
    pub(super) fn watch(&self) -> Watch {
        let flag = Arc::new(AtomicBool::new(false));
        let (sender, raised) = (self.0.clone(), Arc::clone(&flag));
        let task = Handle::current().spawn(async move {
            sender.closed().await;
            raised.store(true, Ordering::Relaxed);
        });
        Watch { flag, task: task.abort_handle() }
    }
}

/// Watches for a client's end until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    /// Raised when the client is gone.
    pub(super) flag: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Its end of the queue would keep the stream open.
        self.task.abort();
    }
}

impl<T> Stream for Events<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}
