//! `pollux rpc METHOD [JSON]`: one call over the node's unix socket.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `pollux rpc`.
#[derive(clap::Args)]
pub struct Args {
    /// Method, for example `bdev_get_bdevs`; `rpc_get_methods` lists them
    method: String,
    /// Parameters, one JSON object
    #[arg(value_name = "JSON")]
    params: Option<String>,
    /// Socket of the node
    #[arg(long, default_value = super::RPC_SOCKET, value_name = "PATH")]
    rpc_socket: PathBuf,
    /// Print the result on one line
    #[arg(long)]
    json: bool,
    /// Give up after this many seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
}

/// Largest answer taken, bytes.
const ANSWER_MAX: usize = 32 << 20;

/// Calls and prints. Status 0: a result; 1: the node answered with an error; 2: no answer.
pub fn run(args: &Args) -> ExitCode {
    let answer = match call(args) {
        Ok(answer) => answer,
        Err(why) => {
            eprintln!("pollux rpc: {why}");
            return ExitCode::from(2);
        }
    };
    if let Some(error) = answer.get("error") {
        let code = error.get("code").and_then(Value::as_i64).unwrap_or(0);
        let message = error.get("message").and_then(Value::as_str).unwrap_or("no message");
        eprintln!("pollux rpc: {}: {message} (code {code})", args.method);
        return ExitCode::from(1);
    }
    let result = answer.get("result").unwrap_or(&Value::Null);
    let text = if args.json { result.to_string() } else { format!("{result:#}") };
    // A reader that has seen enough and left is no error of ours.
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::SUCCESS
}

fn call(args: &Args) -> Result<Value, String> {
    let mut request = json!({"jsonrpc": "2.0", "id": 1, "method": args.method});
    if let Some(text) = &args.params {
        let params: Value = serde_json::from_str(text).map_err(|e| format!("JSON: {e}"))?;
        request["params"] = params;
    }
    let limit = Duration::from_secs(args.timeout.max(1));
    exchange(&args.rpc_socket, &request, limit)
}

fn exchange(socket: &Path, request: &Value, limit: Duration) -> Result<Value, String> {
    let at = |what: &'static str| move |e: std::io::Error| format!("{}: {what}: {e}", socket.display());
    let mut stream = UnixStream::connect(socket).map_err(at("connect (is the node running?)"))?;
    stream.set_read_timeout(Some(limit)).map_err(at("timeout"))?;
    stream.write_all(request.to_string().as_bytes()).map_err(at("send"))?;
    let mut bytes = Vec::new();
    let mut part = [0; 8 << 10];
    loop {
        let n = stream.read(&mut part).map_err(at("receive"))?;
        if n == 0 {
            return Err(format!("{}: the node closed the connection without an answer", socket.display()));
        }
        bytes.extend_from_slice(&part[..n]);
        // An answer is one object and a line feed; JSON has none inside strings.
        if bytes.ends_with(b"\n") {
            return serde_json::from_slice(&bytes).map_err(|e| format!("answer: {e}"));
        }
        if bytes.len() > ANSWER_MAX {
            return Err(format!("the answer is larger than {ANSWER_MAX} bytes"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn an_answer_in_pieces_is_one_answer_and_silence_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let node = std::thread::spawn(move || {
            for pieces in [vec!["{\"id\":1,\"res", "ult\":{\"a\":", "2}}\n"], vec![]] {
                let (mut s, _) = listener.accept().unwrap();
                let mut ask = [0; 512];
                let n = s.read(&mut ask).unwrap();
                let ask: Value = serde_json::from_slice(&ask[..n]).unwrap();
                assert_eq!(ask["method"], "m");
                for p in pieces {
                    s.write_all(p.as_bytes()).unwrap();
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "m"});
        let limit = Duration::from_secs(10);
        assert_eq!(exchange(&path, &request, limit).unwrap()["result"]["a"], 2);
        assert!(exchange(&path, &request, limit).unwrap_err().contains("closed"));
        node.join().unwrap();
        assert!(exchange(&dir.path().join("none"), &request, limit).unwrap_err().contains("is the node running"));
    }
}
