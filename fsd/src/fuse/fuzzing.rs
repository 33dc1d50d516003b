//! A door for fuzz targets: a mount without a kernel.

use std::sync::Arc;

use super::{
    dispatch::Dispatch,
    exchange::{Next, REPLY_BUFFER_BYTES, exchange},
};
use crate::session::Session;

/// Carries out messages as they would come from /dev/fuse.
#[derive(Debug)]
pub struct Device {
    dispatch: Dispatch,
    setxattr_ext: bool,
    reply: Vec<u8>,
}

impl Device {
    /// A mount of a session; `acl` decides on the form of SETXATTR.
    pub fn new(session: Arc<Session>, acl: bool) -> Device {
        let dispatch = Dispatch::new(session, Arc::default());
        Device { dispatch, setxattr_ext: acl, reply: vec![0; REPLY_BUFFER_BYTES] }
    }

    /// The reply to a message, empty where the kernel waits for none; `None` for what is not even a header.
    pub fn send(&mut self, message: &[u8]) -> Option<&[u8]> {
        match exchange(&self.dispatch, self.setxattr_ext, message, &mut self.reply).ok()? {
            Next::Silence => Some(&[]),
            Next::Reply(len) | Next::Last(len) => Some(&self.reply[..len]),
        }
    }
}
