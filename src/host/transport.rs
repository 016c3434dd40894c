//! From a target to a stream of bytes: AF_VSOCK, a VMM's bridge, a Unix socket.

use super::error::{Cause, Step};
use super::target::Target;
use super::vsock;
use std::io;
use std::path::Path;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

/// `OK 4294967295\n` has 14; what is longer is no such answer.
const BRIDGE_ANSWER_BYTES_MAX: usize = 32;

/// What frames go over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects; sets no limit in time, for its caller does.
pub(super) async fn connect(target: &Target) -> Result<Box<dyn Stream>, Cause> {
    match target {
        Target::Unix(path) => Ok(Box::new(unix(path).await?)),
        Target::Hybrid { path, port } => {
            let mut stream = unix(path).await?;
            bridge(&mut stream, *port).await?;
            Ok(Box::new(stream))
        }
        Target::Vsock { cid, port } => Ok(Box::new(vsock::connect(*cid, *port).await?)),
    }
}

async fn unix(path: &Path) -> Result<UnixStream, Cause> {
    UnixStream::connect(path).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Cause::NoSocket,
        io::ErrorKind::ConnectionRefused => Cause::NobodyAtSocket,
        _ => Cause::Connect(error),
    })
}

/// The handshake of hybrid vsock: `CONNECT <port>\n`, then `OK <port of either side>\n` or the end.
async fn bridge(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), port: u32) -> Result<(), Cause> {
    let broken = |error| Cause::Broken { step: Step::Bridging, error };
    // One write: Firecracker drops a line that comes in parts.
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await.map_err(broken)?;
    let mut line = Vec::with_capacity(BRIDGE_ANSWER_BYTES_MAX);
    loop {
        // One byte at a time: what follows the line is the agent's.
        match stream.read_u8().await {
            Ok(b'\n') => break,
            Ok(byte) => line.push(byte),
            Err(error) => return Err(unbridged(error, &line, port)),
        }
        if line.len() >= BRIDGE_ANSWER_BYTES_MAX {
            break;
        }
    }
    let text = std::str::from_utf8(&line).unwrap_or_default();
    match text.strip_prefix("OK ").map(str::parse::<u32>) {
        Some(Ok(_)) => Ok(()),
        _ => Err(Cause::Hybrid(String::from_utf8_lossy(&line).into_owned())),
    }
}

/// The end at once is how a VMM says that no listener took the connection; some reset it instead.
fn unbridged(error: io::Error, line: &[u8], port: u32) -> Cause {
    let ended = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
    match (ended, line.is_empty()) {
        (true, true) => Cause::NobodyAtPort { port },
        (true, false) => Cause::Hybrid(String::from_utf8_lossy(line).into_owned()),
        (false, _) => Cause::Broken { step: Step::Bridging, error },
    }
}
