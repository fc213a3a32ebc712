//! The socket: its mode, its lock, many clients, slow clients, and the way down.

use super::*;
use crate::rpc::server::{Limits, Server, ServerError};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Serves a node from a thread of its own until dropped.
pub(super) struct Served {
    pub path: PathBuf,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

pub(super) fn serve(limits: Limits) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rpc.sock");
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let (ready, is_ready) = mpsc::channel();
    let at = path.clone();
    let thread = std::thread::spawn(move || {
        on_runtime(async {
            let context = node().await;
            let mut killed = context.control.node().stopped.subscribe();
            let server = Server::bind(&at, limits).unwrap();
            ready.send(()).unwrap();
            let end = async {
                tokio::select! {
                    _ = stopped => {}
                    _ = killed.wait_for(|k| *k) => {}
                }
            };
            server.run(context.clone(), end).await;
        });
    });
    is_ready.recv().unwrap();
    Served { path, stop: Some(stop), thread: Some(thread), _dir: dir }
}

impl Served {
    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ends well");
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
    }
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// One line, without its end; empty when the connection ended.
fn line(stream: &mut UnixStream) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while stream.read(&mut byte).expect("a reply within 10 s") == 1 && byte != *b"\n" {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

fn ask(stream: &mut UnixStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).unwrap();
    line(stream)
}

const LEVEL: &str = r#"{"method":"log_get_level","id":1}"#;
const INFO: &str = r#"{"jsonrpc":"2.0","id":1,"result":"INFO"}"#;

#[test]
fn pieces_and_several_requests_at_once_are_answered_in_order() {
    let served = serve(Limits::default());
    let mut stream = connect(&served.path);
    for byte in format!("  {LEVEL}\n").bytes() {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(line(&mut stream), INFO);
    let many: Vec<String> = (0..500).map(|i| format!("{{\"method\":\"log_get_level\",\"id\":{i}}}")).collect();
    let many = many.concat();
    stream.write_all(many.as_bytes()).unwrap();
    for i in 0..500 {
        assert_eq!(line(&mut stream), format!("{{\"jsonrpc\":\"2.0\",\"id\":{i},\"result\":\"INFO\"}}"));
    }
}

#[test]
fn the_socket_is_private_locked_and_taken_away() {
    let mut served = serve(Limits::default());
    let meta = std::fs::metadata(&served.path).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o660);
    let second = || on_runtime(async { Server::bind(&served.path, Limits::default()).map(drop) });
    assert_eq!(second(), Err(ServerError::Locked));
    assert_eq!(ask(&mut connect(&served.path), LEVEL), INFO, "the first one is not disturbed");
    served.end();
    assert!(!served.path.exists());
    // A socket that a killed process left.
    drop(std::os::unix::net::UnixListener::bind(&served.path).unwrap());
    let again = || on_runtime(async { Server::bind(&served.path, Limits::default()).map(drop) });
    assert_eq!(again(), Ok(()));
    let long = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
    let refused = on_runtime(async { Server::bind(&long, Limits::default()).map(drop) });
    assert!(matches!(refused, Err(ServerError::Os { errno: libc::ENAMETOOLONG, .. })), "{refused:?}");
}

#[test]
fn malformed_text_is_said_and_ends_only_its_connection() {
    let served = serve(Limits { body_bytes: 1 << 16, ..Limits::default() });
    let mut other = connect(&served.path);
    assert_eq!(ask(&mut other, LEVEL), INFO);
    for (text, code) in [
        ("GET / HTTP/1.1\r\n".to_owned(), -32700),
        ("{\"a\"]".to_owned(), -32700),
        ("{\"a\" \"b\"}".to_owned(), -32700),
        ("[".repeat(10_000), -32700),
        (format!("{{\"a\":\"{}", "x".repeat(1 << 17)), -32600),
    ] {
        let mut stream = connect(&served.path);
        // The server may close before it has read all of it.
        let _ = stream.write_all(text.as_bytes());
        let reply = line(&mut stream);
        assert!(reply.contains(&format!("\"id\":null,\"error\":{{\"code\":{code},")), "{reply}");
        let mut rest = Vec::new();
        assert!(!matches!(stream.read_to_end(&mut rest), Ok(n) if n > 0), "it goes on after an error");
    }
    assert_eq!(ask(&mut other, LEVEL), INFO);
}

#[test]
fn sixty_four_racing_clients_and_one_more() {
    let served = serve(Limits::default());
    let mut streams: Vec<UnixStream> = (0..64).map(|_| connect(&served.path)).collect();
    for stream in &mut streams {
        assert_eq!(ask(stream, LEVEL), INFO);
    }
    let mut extra = connect(&served.path);
    assert!(line(&mut extra).contains("Device or resource busy: 64 clients"), "the 65th is told");
    assert_eq!(line(&mut extra), "");
    let makers: Vec<_> = streams
        .into_iter()
        .enumerate()
        .map(|(i, mut stream)| {
            std::thread::spawn(move || {
                let (mut made, name) = (0, i % 8);
                for _ in 0..4 {
                    let create = json!({"method": "bdev_null_create", "id": 1,
                        "params": {"name": format!("N{name}"), "num_blocks": 8, "block_size": 512}});
                    made += i64::from(ask(&mut stream, &create.to_string()).contains("\"result\""));
                    let delete = json!({"method": "bdev_null_delete", "id": 1, "params": {"name": format!("N{name}")}});
                    made -= i64::from(ask(&mut stream, &delete.to_string()).contains("\"result\""));
                }
                made
            })
        })
        .collect();
    let left: i64 = makers.into_iter().map(|t| t.join().unwrap()).sum();
    let bdevs = ask(&mut connect(&served.path), r#"{"method":"bdev_get_bdevs","id":1}"#);
    let bdevs: Value = serde_json::from_str(&bdevs).unwrap();
    assert_eq!(
        i64::try_from(bdevs["result"].as_array().unwrap().len()),
        Ok(left),
        "made less deleted is what is there"
    );
}

#[test]
fn a_request_that_stalls_is_cut_off_and_an_idle_client_is_not() {
    let served = serve(Limits { stall_ms: 200, ..Limits::default() });
    let (mut idle, mut slow) = (connect(&served.path), connect(&served.path));
    let begun = Instant::now();
    slow.write_all(b"{\"method\":").unwrap();
    let mut rest = Vec::new();
    assert_eq!(slow.read_to_end(&mut rest).unwrap(), 0);
    assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
    assert_eq!(ask(&mut idle, LEVEL), INFO);
}

#[test]
fn a_client_past_its_rate_waits_and_others_do_not() {
    let served = serve(Limits { rate_per_s: 100, burst: 5, ..Limits::default() });
    let (mut fast, mut other) = (connect(&served.path), connect(&served.path));
    let begun = Instant::now();
    fast.write_all(LEVEL.repeat(25).as_bytes()).unwrap();
    assert_eq!(ask(&mut other, LEVEL), INFO);
    for _ in 0..25 {
        assert_eq!(line(&mut fast), INFO);
    }
    assert!(begun.elapsed() >= Duration::from_millis(180), "20 requests past the burst: {:?}", begun.elapsed());
}

#[test]
fn stopping_answers_what_was_asked() {
    let mut served = serve(Limits::default());
    let mut stream = connect(&served.path);
    let kill = r#"{"method":"spdk_kill_instance","params":{"sig_name":"SIGTERM"},"id":1}"#;
    assert_eq!(ask(&mut stream, kill), r#"{"jsonrpc":"2.0","id":1,"result":true}"#);
    served.thread.take().unwrap().join().unwrap();
    assert!(UnixStream::connect(&served.path).is_err());
    assert_eq!(line(&mut stream), "");
}
