//! Hands received bytes to a [`Handler`]: landing places first, then whole PDUs in place. The same for every engine, so
//! that a handler sees one behaviour.

use super::{CARRY_MAX, ConnId, Handler, Tx};
use crate::mem::Pool;

/// Presents `bytes`, the next of the stream of `conn`, and returns how many were consumed. Bytes for which the handler
/// names a landing place are copied there; the rest goes to [`Handler::data`] until it makes no more progress.
///
/// # Panics
/// When the handler leaves more than [`CARRY_MAX`] bytes without being paused, or claims more than it was given.
pub(super) fn feed<H: Handler>(conn: ConnId, bytes: &[u8], tx: &mut Tx, pool: &mut Pool, handler: &mut H) -> usize {
    let mut at = 0;
    loop {
        let landed = land(conn, &bytes[at..], tx, pool, handler);
        at += landed;
        // A second look at the same rest makes sense only when a landing place took some of it in between.
        if at == bytes.len() || (landed == 0 && at != 0) {
            break;
        }
        let rest = &bytes[at..];
        let taken = handler.data(conn, rest, tx, pool);
        assert!(taken <= rest.len(), "a handler consumed more than it was given");
        at += taken;
        if at == bytes.len() || taken == 0 {
            break;
        }
    }
    assert!(bytes.len() - at <= CARRY_MAX || handler.paused(conn), "a handler left more than a partial PDU");
    at
}

/// Copies the front of `bytes` into the places the handler names; returns how many bytes landed.
fn land<H: Handler>(conn: ConnId, bytes: &[u8], tx: &mut Tx, pool: &mut Pool, handler: &mut H) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        let n = match handler.landing(conn) {
            Some(place) if !place.is_empty() => {
                let n = place.len().min(bytes.len() - at);
                place[..n].copy_from_slice(&bytes[at..at + n]);
                n
            }
            _ => break,
        };
        handler.landed(conn, n, tx, pool);
        at += n;
    }
    at
}
