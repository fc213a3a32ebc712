//! The unix socket: who may connect, how many, how fast, how large. One task per client answers its requests in their
//! order; a client that is slow, wrong or gone harms only itself.

use super::context::{Caller, Context};
use super::dispatch::{Answered, answer, malformed};
use super::frame::Framer;
use crate::cluster::Node;
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How much the server takes. Each has the default of RELIABILITY section 4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of one request or batch.
    pub body_bytes: usize,
    /// Clients connected at once.
    pub clients: usize,
    /// Requests per second of one client, over time; a client that sends more is answered later.
    pub rate_per_s: u32,
    /// Requests that one client may send at once before its rate counts.
    pub burst: u32,
    /// Milliseconds for a request that has begun to arrive whole, and for a reply to be taken.
    pub stall_ms: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { body_bytes: 1 << 20, clients: 64, rate_per_s: 50, burst: 2000, stall_ms: 30_000 }
    }
}

/// Why there is no socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ServerError {
    /// Another process serves this path.
    #[error("another process serves it")]
    Locked,
    /// The operating system refused.
    #[error("{what}: {}", std::io::Error::from_raw_os_error(*errno))]
    Os {
        /// The step that failed.
        what: &'static str,
        /// errno.
        errno: i32,
    },
}

fn os(what: &'static str) -> impl Fn(std::io::Error) -> ServerError {
    move |e| ServerError::Os { what, errno: e.raw_os_error().unwrap_or(0) }
}

fn rustix_os(what: &'static str) -> impl Fn(rustix::io::Errno) -> ServerError {
    move |e| ServerError::Os { what, errno: e.raw_os_error() }
}

/// A listening socket and its lock.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    lock_path: PathBuf,
    /// Held (flock) as long as the server lives.
    _lock: File,
    /// The socket's group, whose members may connect.
    group: u32,
    limits: Limits,
}

impl Server {
    /// Listens on `path`, mode 0660. A socket that a dead process left there is replaced; one that lives is not.
    /// Must be called inside a tokio runtime.
    pub fn bind(path: &Path, limits: Limits) -> Result<Server, ServerError> {
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        let lock = lock(&lock_path)?;
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(os("remove the stale socket")(e)),
            _ => {}
        }
        let address = SocketAddrUnix::new(path).map_err(rustix_os("socket path"))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(rustix_os("socket"))?;
        // The file gets the mode of the unbound socket, so there is no moment in which others could connect.
        rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o660)).map_err(rustix_os("chmod the socket"))?;
        rustix::net::bind(&socket, &address).map_err(rustix_os("bind"))?;
        rustix::fs::chmod(path, Mode::from_raw_mode(0o660)).map_err(rustix_os("chmod the socket"))?;
        rustix::net::listen(&socket, 64).map_err(rustix_os("listen"))?;
        let group = std::fs::metadata(path).map_err(os("stat the socket"))?.gid();
        let listener = UnixListener::from_std(socket.into()).map_err(os("socket"))?;
        Ok(Server { listener, path: path.to_owned(), lock_path, _lock: lock, group, limits })
    }

    /// Serves until `stop` is done; then answers what has been asked, and takes the socket away.
    pub async fn run<N: Node + 'static>(self, context: Rc<Context<N>>, stop: impl Future<Output = ()>) {
        let tasks = LocalSet::new();
        let (stopping, _) = watch::channel(false);
        let clients = Rc::new(Cell::new(0));
        let serve = async {
            tokio::pin!(stop);
            tasks.spawn_local(mend(context.clone(), stopping.subscribe()));
            loop {
                let accepted = tokio::select! {
                    () = &mut stop => break,
                    accepted = self.listener.accept() => accepted,
                };
                let Ok((stream, _)) = accepted else {
                    // Out of file descriptors, most likely; trying again at once would spin.
                    sleep(Duration::from_millis(50)).await;
                    continue;
                };
                if let Some(why) = self.refusal(&stream, clients.get()) {
                    tasks.spawn_local(refuse(stream, why));
                    continue;
                }
                clients.set(clients.get() + 1);
                let client = Client::new(stream, self.limits, stopping.subscribe());
                let (context, clients) = (context.clone(), clients.clone());
                tasks.spawn_local(async move {
                    client.serve(&context).await;
                    clients.set(clients.get() - 1);
                });
            }
            stopping.send_replace(true);
        };
        tasks.run_until(serve).await;
        // A request under way is seen through, unless its client does not take the reply.
        let _ = timeout(Duration::from_secs(10), tasks).await;
    }

    /// Why this client is not served, if it is not.
    fn refusal(&self, stream: &UnixStream, clients: usize) -> Option<String> {
        let line = |code: i32, why: String| {
            Some(format!("{{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{{\"code\":{code},\"message\":\"{why}\"}}}}\n"))
        };
        let admitted = stream.peer_cred().is_ok_and(|peer| admits(&peer, self.group));
        if !admitted {
            return line(-libc::EACCES, "Permission denied: only root, the node's user and the socket's group".into());
        }
        if clients >= self.limits.clients {
            return line(-libc::EBUSY, format!("Device or resource busy: {clients} clients are connected"));
        }
        None
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The lock is still held, so these are ours.
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(&self.lock_path);
    }
}

/// Takes the lock file. Its last owner removes it, so a file that was locked may no longer be the one at the path.
fn lock(path: &Path) -> Result<File, ServerError> {
    loop {
        let mut how = OpenOptions::new();
        how.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = how.open(path).map_err(os("open the lock file"))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
            rustix::io::Errno::WOULDBLOCK => ServerError::Locked,
            e => rustix_os("lock")(e),
        })?;
        let held = file.metadata().map_err(os("stat the lock file"))?;
        match std::fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => return Ok(file),
            _ => {}
        }
    }
}

/// Root and our own user are more than members of the socket's group.
fn role(peer: &UCred) -> Caller {
    let own = rustix::process::geteuid().as_raw();
    if peer.uid() == 0 || peer.uid() == own { Caller::Admin } else { Caller::Operator }
}

/// Root, our own user, and members of the socket's group.
fn admits(peer: &UCred, group: u32) -> bool {
    role(peer) == Caller::Admin || peer.gid() == group || peer.pid().is_some_and(|pid| member(pid, group))
}

/// True when the process has `group` among its supplementary groups.
fn member(pid: i32, group: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let groups = status.lines().find_map(|l| l.strip_prefix("Groups:")).unwrap_or_default();
    groups.split_ascii_whitespace().any(|g| g.parse() == Ok(group))
}

async fn refuse(mut stream: UnixStream, why: String) {
    let _ = timeout(Duration::from_secs(1), stream.write_all(why.as_bytes())).await;
}

/// Tries again, now and then, what failed at start for reasons that may pass.
async fn mend<N: Node + 'static>(context: Rc<Context<N>>, mut stopping: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            () = sleep(Duration::from_secs(5)) => {}
        }
        if context.running() {
            context.control.mend().await;
        }
    }
}

struct Client {
    stream: UnixStream,
    caller: Caller,
    framer: Framer,
    limits: Limits,
    bucket: Bucket,
    stopping: watch::Receiver<bool>,
}

impl Client {
    fn new(stream: UnixStream, limits: Limits, stopping: watch::Receiver<bool>) -> Client {
        let bucket = Bucket::new(limits, Instant::now());
        let caller = stream.peer_cred().map_or(Caller::Operator, |peer| role(&peer));
        Client { stream, caller, framer: Framer::new(limits.body_bytes), limits, bucket, stopping }
    }

    async fn serve<N: Node + 'static>(mut self, context: &Rc<Context<N>>) {
        let mut bytes = vec![0; 16 << 10];
        let mut begun = None;
        loop {
            if !self.answer_arrived(context).await {
                return;
            }
            begun = begun.filter(|_| self.framer.partial()).or_else(|| self.framer.partial().then(Instant::now));
            let late = begun.map(|b: Instant| b + Duration::from_millis(self.limits.stall_ms));
            let read = tokio::select! {
                _ = self.stopping.wait_for(|stop| *stop) => return,
                () = sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() => return,
                read = self.stream.read(&mut bytes) => read,
            };
            match read {
                Ok(n) if n > 0 => self.framer.push(&bytes[..n]),
                _ => return,
            }
        }
    }

    /// Answers every whole request that has arrived; false when the connection is to end.
    async fn answer_arrived<N: Node + 'static>(&mut self, context: &Rc<Context<N>>) -> bool {
        loop {
            let reply = match self.framer.next_value() {
                Ok(None) => return true,
                Ok(Some(value)) => {
                    self.bucket.take().await;
                    answer(context, self.caller, value).await
                }
                Err(why) => Answered::Close(malformed(&why)),
            };
            let (text, go_on) = match reply {
                Answered::Reply(text) => (text, true),
                Answered::Close(text) => (text, false),
            };
            let patience = Duration::from_millis(self.limits.stall_ms);
            let sent = timeout(patience, self.stream.write_all(text.as_bytes())).await;
            if !go_on || !matches!(sent, Ok(Ok(()))) {
                return false;
            }
        }
    }
}

/// A token bucket: `burst` at once, `rate_per_s` over time.
#[derive(Debug)]
struct Bucket {
    per_request: Duration,
    burst: Duration,
    /// The time at which the bucket would be full again.
    full: Instant,
}

impl Bucket {
    fn new(limits: Limits, now: Instant) -> Bucket {
        let per_request = Duration::from_secs(1) / limits.rate_per_s.max(1);
        Bucket { per_request, burst: per_request * limits.burst.max(1), full: now }
    }

    /// How long the next request has to wait.
    fn wait(&mut self, now: Instant) -> Duration {
        self.full = self.full.max(now) + self.per_request;
        (self.full - now).saturating_sub(self.burst)
    }

    async fn take(&mut self) {
        let wait = self.wait(Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
}
