//! The raw limit of this machine's TCP: the same bytes on the wire as NVMe/TCP reads and writes, moved by nonblocking
//! receive and gathering send, with nothing in between. What a target reaches is measured against this.
//!
//! A read is 72 bytes there and 24 + N back; a write is 72 + N there and 24 back, as a CapsuleCmd with in-capsule data,
//! a `C2HData` with SUCCESS and a `CapsuleResp` are. One thread per side; each turn is one receive and one send per connection.

use super::clock::Clock;
use super::latency::Recorder;
use crate::base::Time;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of a request before its payload.
pub const REQUEST: usize = 72;
/// Bytes of a response before its payload.
pub const RESPONSE: usize = 24;
const RECEIVE: usize = 256 * 1024;
/// Slices per send (the kernel's `UIO_MAXIOV`).
const SLICES: usize = 1024;
const READ: u8 = 1;
const WRITE: u8 = 2;
/// Largest payload a server accepts.
pub const PAYLOAD_MAX: usize = 1 << 20;

/// Sends a queue of `(header, payload)` stretches that share their bytes, in as few calls as it takes.
struct Sender {
    header: Vec<u8>,
    payload: Vec<u8>,
    /// Payload bytes behind each header still to be sent.
    queue: VecDeque<usize>,
    /// Bytes of the first that have left.
    sent: usize,
}

impl Sender {
    fn new(header: Vec<u8>) -> Sender {
        Sender { header, payload: Vec::new(), queue: VecDeque::new(), sent: 0 }
    }

    fn push(&mut self, payload: usize) {
        if self.payload.len() < payload {
            self.payload.resize(payload, 0x5a);
        }
        self.queue.push_back(payload);
    }

    fn flush(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        while !self.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut used = 0;
            let mut skip = self.sent;
            for &payload in self.queue.iter().take(SLICES / 2) {
                for part in [&self.header[..], &self.payload[..payload]] {
                    let from = skip.min(part.len());
                    skip -= from;
                    if from < part.len() {
                        slices[used] = IoSlice::new(&part[from..]);
                        used += 1;
                    }
                }
            }
            match stream.write_vectored(&slices[..used]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => self.left(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn left(&mut self, n: usize) {
        self.sent += n;
        while let Some(payload) = self.queue.front() {
            let whole = self.header.len() + payload;
            if self.sent < whole {
                break;
            }
            self.sent -= whole;
            self.queue.pop_front();
        }
    }
}

/// One nonblocking receive; `Ok(0)` when nothing is there.
fn receive(stream: &mut TcpStream, into: &mut [u8]) -> io::Result<usize> {
    match stream.read(into) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(n) => Ok(n),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        Err(e) => Err(e),
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)
}

/// A client as the server sees it.
struct Peer {
    stream: TcpStream,
    sender: Sender,
    /// Bytes of the header that is arriving.
    head: Vec<u8>,
    /// Bytes of its payload still to come.
    skip: usize,
}

impl Peer {
    /// Takes what arrived apart and queues the answers. False when it is not this protocol.
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.skip > 0 || bytes.is_empty() {
                break;
            }
            // The usual case: the whole header is here.
            let whole = bytes.first_chunk::<REQUEST>().filter(|_| self.head.is_empty());
            let header: [u8; REQUEST] = if let Some(header) = whole {
                bytes = &bytes[REQUEST..];
                *header
            } else {
                let n = (REQUEST - self.head.len()).min(bytes.len());
                self.head.extend_from_slice(&bytes[..n]);
                bytes = &bytes[n..];
                let Ok(header) = <[u8; REQUEST]>::try_from(self.head.as_slice()) else { break };
                self.head.clear();
                header
            };
            let len = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
            if len > PAYLOAD_MAX {
                return false;
            }
            match header[0] {
                READ => self.sender.push(len),
                WRITE => {
                    self.skip = len;
                    self.sender.push(0);
                }
                _ => return false,
            }
        }
        true
    }
}

/// Answers every connection on `listener` until `stop`. Spins; a connection that fails or speaks something else is
/// closed.
///
/// # Errors
/// When the listener itself fails.
pub fn serve(listener: &TcpListener, stop: &AtomicBool) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut peers: Vec<Peer> = Vec::new();
    let mut buffer = vec![0; RECEIVE];
    let mut turns = 0u32;
    while !stop.load(Ordering::Relaxed) {
        turns = turns.wrapping_add(1);
        if peers.is_empty() || turns.is_multiple_of(1024) {
            match listener.accept() {
                Ok((stream, _)) => {
                    prepare(&stream)?;
                    let sender = Sender::new(vec![0xa5; RESPONSE]);
                    peers.push(Peer { stream, sender, head: Vec::with_capacity(REQUEST), skip: 0 });
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if peers.is_empty() {
                        std::thread::sleep(std::time::Duration::from_millis(5));
                    }
                    std::thread::yield_now();
                }
                Err(e) => return Err(e),
            }
        }
        peers.retain_mut(|peer| {
            let Ok(n) = receive(&mut peer.stream, &mut buffer) else { return false };
            (n == 0 || peer.take(&buffer[..n])) && peer.sender.flush(&mut peer.stream).is_ok()
        });
    }
    Ok(())
}

/// What an echo client does.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Writes; else reads.
    pub write: bool,
    /// Bytes per request, at most [`PAYLOAD_MAX`].
    pub payload: usize,
    /// Requests under way per connection.
    pub depth: usize,
    /// Connections.
    pub conns: usize,
    /// Not measured, ns.
    pub warmup_ns: u64,
    /// Measured, ns.
    pub time_ns: u64,
    /// Requests to measure at most.
    pub count: u64,
}

/// What an echo client measured.
#[derive(Debug)]
pub struct Measured {
    /// Requests and latencies.
    pub recorder: Recorder,
    /// Measured time, ns.
    pub window_ns: u64,
    /// Part of it in turns that received something, ns.
    pub busy_ns: u64,
}

/// A connection of the client.
struct Lane {
    stream: TcpStream,
    sender: Sender,
    /// When each request under way was sent, oldest first.
    sent: VecDeque<Time>,
    /// Bytes of the answer that is arriving.
    got: usize,
}

/// Loads the echo server at `addr`.
///
/// # Errors
/// When it can not be reached or goes away.
pub fn load(addr: SocketAddr, load: &Load, stop: &AtomicBool) -> io::Result<Measured> {
    let clock = Clock::start();
    let mut header = vec![0; REQUEST];
    header[0] = if load.write { WRITE } else { READ };
    header[4..8].copy_from_slice(&(load.payload as u32).to_le_bytes());
    let (there, back) = if load.write { (load.payload, 0) } else { (0, load.payload) };
    let answer = RESPONSE + back;
    let mut lanes = Vec::with_capacity(load.conns);
    for _ in 0..load.conns {
        let stream = TcpStream::connect(addr)?;
        prepare(&stream)?;
        let mut lane =
            Lane { stream, sender: Sender::new(header.clone()), sent: VecDeque::with_capacity(load.depth), got: 0 };
        for _ in 0..load.depth {
            lane.sender.push(there);
            lane.sent.push_back(clock.now());
        }
        lanes.push(lane);
    }
    let mut buffer = vec![0; RECEIVE];
    let mut out = Measured { recorder: Recorder::new(), window_ns: 0, busy_ns: 0 };
    let start = clock.now().after_ns(load.warmup_ns);
    let end = start.after_ns(load.time_ns);
    let mut before = clock.now();
    while before < end && out.recorder.ops < load.count && !stop.load(Ordering::Relaxed) {
        let mut worked = false;
        let mut now = before;
        for lane in &mut lanes {
            lane.sender.flush(&mut lane.stream)?;
            let n = receive(&mut lane.stream, &mut buffer)?;
            now = clock.now();
            lane.got += n;
            worked |= n > 0;
            while lane.got >= answer {
                lane.got -= answer;
                let sent = lane.sent.pop_front().ok_or(ErrorKind::InvalidData)?;
                if before >= start {
                    out.recorder.latency(now.since(sent));
                    out.recorder.ops += 1;
                    out.recorder.bytes += load.payload as u64;
                }
                lane.sender.push(there);
                lane.sent.push_back(now);
            }
        }
        if worked && before >= start {
            out.busy_ns += now.since(before);
        }
        before = now;
    }
    out.window_ns = before.since(start);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn every_request_is_answered_with_the_right_number_of_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let server = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || serve(&listener, &stop).unwrap()
        });
        for (write, payload, depth, conns) in
            [(false, 4096, 8, 1), (true, 4096, 32, 2), (true, 1, 3, 1), (false, 0, 1, 1), (true, 300_000, 4, 1)]
        {
            let l = Load { write, payload, depth, conns, warmup_ns: 0, time_ns: u64::MAX >> 1, count: 200 };
            let m = load(addr, &l, &AtomicBool::new(false)).unwrap();
            assert!(m.recorder.ops >= 200, "{l:?}: {} requests", m.recorder.ops);
            assert_eq!(m.recorder.bytes, m.recorder.ops * payload as u64);
            assert!(m.window_ns > 0 && m.busy_ns <= m.window_ns);
        }
        // Something else on the port harms nobody but itself.
        let mut alien = TcpStream::connect(addr).unwrap();
        alien.write_all(&[9; 100]).unwrap();
        assert!(matches!(alien.read(&mut [0; 10]), Ok(0) | Err(_)));
        stop.store(true, Ordering::Relaxed);
        server.join().unwrap();
    }
}
