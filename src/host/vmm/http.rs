//! One HTTP/1.1 exchange over a stream: bounded, and every way in which it ends told apart.

use super::address::VmmKind;
use super::error::{Said, VmmCause, cut};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes as Chunk;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, HOST, SERVER};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::io;
use std::pin::pin;
use tokio::io::{AsyncRead, AsyncWrite};

/// Cloud Hypervisor's `vm.info` names every device of the VM; a large one has some ten thousand bytes.
pub const BODY_BYTES_MAX: usize = 1 << 20;
const HEADERS_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;

/// An answer with its whole body.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The `Server` header.
    pub server: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Asks `request`, `GET` and a path, on a connection of its own. Sets no limit in time, for its caller does.
///
/// # Errors
/// No HTTP, more of it than [`BODY_BYTES_MAX`], or an end before the end.
pub async fn get<S>(stream: S, kind: VmmKind, request: &'static str) -> Result<Answer, VmmCause>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let path = request.strip_prefix("GET ").unwrap_or(request);
    let question = Request::get(path)
        .header(HOST, "localhost")
        .header(ACCEPT, "application/json")
        .body(Empty::<Chunk>::new())
        .map_err(|error| VmmCause::Malformed(error.to_string()))?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEADERS_BYTES_MAX).max_headers(HEADERS_MAX);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|error| failed(kind, &error))?;
    let mut exchange = pin!(async {
        let response = sender.send_request(question).await.map_err(|error| failed(kind, &error))?;
        whole(kind, response).await
    });
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        answer = &mut exchange => return answer,
        _ended = &mut connection => {}
    }
    // The connection has said all it will; why it ended, the exchange says.
    exchange.await
}

async fn whole(kind: VmmKind, response: Response<hyper::body::Incoming>) -> Result<Answer, VmmCause> {
    let status = response.status().as_u16();
    let server = response.headers().get(SERVER).map(|name| String::from_utf8_lossy(name.as_bytes()));
    let server = server.map(|name| cut(&name));
    let (mut incoming, mut body) = (response.into_body(), Vec::new());
    // Copied as they come: a body in a million chunks would cost many times its size.
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| failed(kind, &error))?;
        let data = frame.into_data().unwrap_or_default();
        if body.len().saturating_add(data.len()) > BODY_BYTES_MAX {
            return Err(VmmCause::TooLong(BODY_BYTES_MAX));
        }
        body.extend_from_slice(&data);
    }
    Ok(Answer { status, server, body })
}

fn failed(kind: VmmKind, error: &hyper::Error) -> VmmCause {
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(io) if matches!(io.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            VmmCause::Closed
        }
        Some(io) if io.kind() == io::ErrorKind::UnexpectedEof => VmmCause::Closed,
        // Chunks that are none.
        Some(io) if matches!(io.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            VmmCause::Malformed(io.to_string())
        }
        Some(io) => VmmCause::Broken(io::Error::new(io.kind(), io.to_string())),
        None if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => VmmCause::Closed,
        // It spoke before it was asked, as QMP does.
        None => VmmCause::NotThisVmm { expected: kind, said: Said::NoHttp(error.to_string()) },
    }
}

impl Answer {
    /// The document in the body, where the VMM did answer the request.
    ///
    /// # Errors
    /// It is another VMM, it refused, or the body is not such a document.
    pub fn document<T: DeserializeOwned>(&self, kind: VmmKind) -> Result<T, VmmCause> {
        self.expect_server(kind)?;
        if self.status != 200 {
            return Err(self.refusal());
        }
        serde_json::from_slice(&self.body).map_err(|error| VmmCause::Malformed(error.to_string()))
    }

    /// Both VMMs name themselves in each answer; a proxy between may not.
    fn expect_server(&self, kind: VmmKind) -> Result<(), VmmCause> {
        match &self.server {
            Some(name) if !name.contains(kind.name()) => {
                Err(VmmCause::NotThisVmm { expected: kind, said: Said::Name(name.clone()) })
            }
            _ => Ok(()),
        }
    }

    /// The VMM's own words for its refusal: Firecracker has an object with one text, Cloud Hypervisor a list.
    #[must_use]
    pub fn refusal(&self) -> VmmCause {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Words {
            Fault { fault_message: String },
            Chain(Vec<String>),
        }
        let text = match serde_json::from_slice(&self.body) {
            Ok(Words::Fault { fault_message }) => cut(&fault_message),
            Ok(Words::Chain(chain)) => cut(&chain.join(": ")),
            Err(_) => cut(&String::from_utf8_lossy(&self.body)),
        };
        VmmCause::Refused { code: self.status.to_string(), text }
    }
}
