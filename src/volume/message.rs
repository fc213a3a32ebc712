//! What cores say to each other about block requests. A buffer inside a message is owned by the receiving core until
//! the reply brings it home.

use crate::base::Status;
use crate::mem::Buf;
use crate::repl::{Detail, Part};

/// A message between two cores' fronts.
#[derive(Debug)]
pub enum Message {
    /// Please do this part. `part.tag` is the sender's name for it.
    Request {
        /// The part; the receiver owns its chunk.
        part: Part,
        /// Payload of a Write, Compare or `CompareWrite`, destination of a Read.
        buf: Option<Buf>,
    },
    /// The part ended; the buffer comes home.
    Reply {
        /// The tag of the request.
        tag: u64,
        /// How it ended.
        status: Status,
        /// What the kind says besides.
        detail: Detail,
        /// The request's buffer.
        buf: Option<Buf>,
    },
}
