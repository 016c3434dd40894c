//! The demo's worker: `guestmeter worker` with a ledger and an API of its own, and the API's other end.

use super::DemoError;
use super::process::Process;
use crate::host::cli::WORKER;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// One answer; the guest's part in it has a deadline that is shorter.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// A report and its envelope are a few kilobytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Why the worker has not answered.
#[derive(Debug, thiserror::Error)]
pub(in crate::host::cli) enum ApiError {
    /// Nobody at its socket.
    #[error("{}: {error}", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// No request can be made of it.
    #[error("the request {0}")]
    Request(#[from] hyper::http::Error),
    /// No HTTP, or an end before the end.
    #[error("the connection: {0}")]
    Http(#[from] hyper::Error),
    /// A body that is far too long, or that broke off.
    #[error("the answer's body: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// Another answer than 200.
    #[error("it answers {status}: {text}")]
    Refused {
        /// The status.
        status: u16,
        /// The body.
        text: String,
    },
    /// An answer that is none.
    #[error("its answer: {0}")]
    Json(#[from] serde_json::Error),
    /// No answer at all.
    #[error("no answer within {ANSWER_MAX:?}")]
    Late,
}

/// A running worker; dropped, it is killed.
pub(super) struct Worker {
    process: Process,
    socket: PathBuf,
}

/// The sandbox that the worker is told of.
pub(super) struct Described<'a> {
    pub(super) sandbox: &'a str,
    pub(super) org: &'a str,
    pub(super) target: String,
    pub(super) base_memory_mib: u64,
}

impl Worker {
    /// Writes its configuration and the sandbox's descriptor, and starts it.
    pub(super) fn start(folder: &Path, described: &Described<'_>) -> Result<Self, DemoError> {
        let socket = folder.join("api.sock");
        let config = folder.join("worker.toml");
        write(&config, &configuration(folder, &socket))?;
        let sandboxes = folder.join("sandboxes");
        let failed = |error| DemoError::File { path: sandboxes.clone(), error };
        std::fs::create_dir(&sandboxes).map_err(failed)?;
        write(&sandboxes.join("sandbox.toml"), &descriptor(described))?;
        let arguments = [WORKER.as_ref(), "--config".as_ref(), config.as_os_str()];
        let process = Process::start("worker", arguments, folder.join("worker.log"))?;
        Ok(Self { process, socket })
    }

    /// Waits until it serves.
    pub(super) async fn answers(&mut self) -> Result<(), DemoError> {
        let Self { process, socket } = self;
        Ok(process
            .answers(async || exchange(socket, Method::GET, "/healthz", String::new()).await.map(drop))
            .await?)
    }

    pub(super) async fn get(&self, path: &str) -> Result<String, ApiError> {
        exchange(&self.socket, Method::GET, path, String::new()).await
    }

    pub(super) async fn post(&self, path: &str, body: String) -> Result<String, ApiError> {
        exchange(&self.socket, Method::POST, path, body).await
    }

    /// Has it stop as systemd would; how it ended.
    pub(super) async fn end(&mut self) -> Result<ExitStatus, DemoError> {
        Ok(self.process.end().await?)
    }

    /// What it last said.
    pub(super) fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}

/// Where the worker keeps its books.
pub(super) fn database(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("ledger.db").display())
}

fn configuration(folder: &Path, socket: &Path) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let path = |path: &Path| quoted(&path.display().to_string());
    format!(
        "db = {}\nsandboxes = {}\n[api]\nsocket = {}\n[poll]\ninterval = \"1s\"\ntimeout = \"1s\"\n\
         [log]\nformat = \"text\"\n",
        quoted(&database(folder)),
        path(&folder.join("sandboxes")),
        path(socket),
    )
}

fn descriptor(described: &Described<'_>) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let Described { sandbox, org, target, base_memory_mib } = described;
    format!(
        "sandbox = {}\norg = {}\nplan = \"pro\"\ntarget = {}\nbase_memory_mib = {base_memory_mib}\n",
        quoted(sandbox),
        quoted(org),
        quoted(target)
    )
}

fn write(path: &Path, text: &str) -> Result<(), DemoError> {
    std::fs::write(path, text).map_err(|error| DemoError::File { path: path.to_owned(), error })
}

/// The body of the answer, if that is 200.
async fn exchange(socket: &Path, method: Method, path: &str, body: String) -> Result<String, ApiError> {
    let asking = async {
        let connect = |error| ApiError::Connect { path: socket.to_owned(), error };
        let stream = UnixStream::connect(socket).await.map_err(connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder().method(method).uri(path).header("host", "worker");
        let request = request.body(Full::new(Bytes::from(body)))?;
        let mut answer = pin!(async {
            let answer = sender.send_request(request).await?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
            let body = body.map_err(ApiError::Body)?.to_bytes();
            let text = String::from_utf8_lossy(&body).into_owned();
            if status == 200 { Ok(text) } else { Err(ApiError::Refused { status, text }) }
        });
        tokio::select! {
            answer = &mut answer => return answer,
            _ended = connection => {}
        }
        // The connection has said all it will; why it ended, the answer says.
        answer.await
    };
    timeout(ANSWER_MAX, asking).await.unwrap_or(Err(ApiError::Late))
}
