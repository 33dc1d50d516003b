//! A door for fuzz targets: a mount without a kernel.

use std::sync::Arc;

use zerocopy::FromBytes;

use super::{
    abi::InHeader,
    dispatch::Dispatch,
    exchange::{Next, REPLY_BUFFER_BYTES, exchange},
    request::Request,
};
use crate::session::Session;

/// Room for the first argument in a ring.
const FIRST_BYTES_MAX: usize = 128;

/// Longer messages are not tried in parts: it takes long, and nothing is parted behind the first argument.
const PARTED_BYTES_MAX: usize = 512;

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

    /// A ring hands a request's first argument over apart from the others. Wherever a message is parted, it means the same or is
    /// refused: panics where that is not so.
    pub fn part(&self, message: &[u8]) {
        if message.len() > PARTED_BYTES_MAX {
            return;
        }
        let Ok(whole) = Request::parse(message, self.setxattr_ext) else { return };
        let whole = format!("{:?}", whole.operation);
        let Ok((header, body)) = InHeader::read_from_prefix(message) else { return };
        for at in 0..=body.len().min(FIRST_BYTES_MAX) {
            let (first, others) = body.split_at(at);
            if let Ok(parted) = Request::of_parts(header, first, others, self.setxattr_ext) {
                assert_eq!(format!("{:?}", parted.operation), whole, "parted at {at}");
            }
        }
    }

    /// The reply to a message, empty where the kernel waits for none; `None` for what is not even a header.
    pub fn send(&mut self, message: &[u8]) -> Option<&[u8]> {
        match exchange(&self.dispatch, self.setxattr_ext, message, &mut self.reply).ok()? {
            // Nothing is fetched there: it has no remote store.
            Next::Silence | Next::Fetch { .. } => Some(&[]),
            Next::Reply(len) | Next::Last(len) => Some(&self.reply[..len]),
        }
    }
}
