//! The API's sockets: a Unix socket for this machine's operators, and loopback TCP with a token if asked.

use super::api::problem::Refusal;
use super::config::{Api, SocketMode, read_bounded};
use crate::host::transport::Stream;
use axum::Router;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket as Socket2, Type};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A request's head, and the time between two of one connection.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// One head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Connections that wait to be taken.
const BACKLOG: i32 = 128;
/// After a failure that more descriptors or memory would mend.
const RETRY: Duration = Duration::from_millis(100);
/// A longer file is no token.
const TOKEN_BYTES_MAX: u64 = 4096;
/// A shorter one is guessed.
const TOKEN_BYTES_MIN: usize = 16;

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The system refuses.
    #[error("{place}: {error}")]
    Bind {
        /// Where.
        place: String,
        /// What it says.
        error: io::Error,
    },
    /// Another worker.
    #[error("{}: somebody serves there already", .0.display())]
    InUse(PathBuf),
    /// Something else has that name.
    #[error("{}: exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// A token that is none.
    #[error("{}: {why}", .path.display())]
    Token {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// The sockets, bound.
pub(super) struct Sockets {
    unix: UnixListener,
    name: Name,
    tcp: Option<(TcpListener, Token)>,
    connections: usize,
}

/// What a request has to bear.
type Token = Arc<[u8]>;

impl Sockets {
    pub(super) async fn bind(api: &Api) -> Result<Self, ServeError> {
        let (unix, name) = bind_unix(&api.socket, api.mode).await?;
        let tcp = match (api.tcp, &api.token_file) {
            (Some(address), Some(file)) => {
                let token = token(file).map_err(|why| ServeError::Token { path: file.clone(), why })?;
                let failed = |error| ServeError::Bind { place: address.to_string(), error };
                Some((TcpListener::bind(address).await.map_err(failed)?, token))
            }
            _ => None,
        };
        Ok(Self { unix, name, tcp, connections: api.connections })
    }

    /// Where loopback TCP is served.
    pub(super) fn tcp_address(&self) -> Option<std::net::SocketAddr> {
        self.tcp.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// Serves until `stop`; requests that are under way then still get their answer.
    pub(super) fn serve(self, router: &Router, tasks: &TaskTracker, stop: &CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.connections));
        let server = Server { slots, tasks: tasks.clone(), stop: stop.clone() };
        if let Some((listener, token)) = self.tcp {
            let guarded = router.clone().layer(middleware::from_fn(move |request: Request, next: Next| {
                let admitted = bears(&request, &token);
                async move { if admitted { next.run(request).await } else { Refusal::Token.into_response() } }
            }));
            tasks.spawn(server.clone().run(Socket::Tcp(listener), guarded));
        }
        tasks.spawn(server.run(Socket::Unix { listener: self.unix, _name: self.name }, router.clone()));
    }
}

enum Socket {
    Unix { listener: UnixListener, _name: Name },
    Tcp(TcpListener),
}

impl Socket {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Unix { listener, .. } => Ok(Box::new(listener.accept().await?.0)),
            Self::Tcp(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

#[derive(Clone)]
struct Server {
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Server {
    async fn run(self, socket: Socket, router: Router) {
        loop {
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
            let stream = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            match stream {
                Ok(stream) => {
                    let connection = Self::connection(stream, router.clone(), self.stop.clone());
                    self.tasks.spawn(async move {
                        connection.await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the API cannot take a connection");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// One connection to its end, which a stop hastens.
    async fn connection(stream: Box<dyn Stream>, router: Router, stop: CancellationToken) {
        let service = TowerToHyperService::new(router);
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEAD_BYTES_MAX);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection of the API ended");
        }
    }
}

/// Takes the same time whatever of the token is right.
fn bears(request: &Request, token: &Token) -> bool {
    let given = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let given = given.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
    given.ct_eq(token).into()
}

fn token(path: &Path) -> Result<Token, String> {
    let text = read_bounded(path, TOKEN_BYTES_MAX).map_err(|error| error.to_string())?;
    let text = text.ok_or_else(|| format!("it has more than {TOKEN_BYTES_MAX} bytes"))?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.len() < TOKEN_BYTES_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("a token has at least {TOKEN_BYTES_MIN} characters, all of them visible ASCII"));
    }
    Ok(token.as_bytes().into())
}

/// The file of a socket that is ours; it goes with its listener.
struct Name(PathBuf);

impl Drop for Name {
    fn drop(&mut self) {
        // What is left over, the next worker replaces.
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn bind_unix(path: &Path, mode: SocketMode) -> Result<(UnixListener, Name), ServeError> {
    let failed = |error| ServeError::Bind { place: path.display().to_string(), error };
    remove_stale(path).await?;
    let address = SockAddr::unix(path).map_err(failed)?;
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket2::new(Domain::UNIX, kind, None).map_err(failed)?;
    // Before it has a name, so that nobody else can be quicker.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(|error| failed(error.into()))?;
    socket.bind(&address).and_then(|()| socket.listen(BACKLOG)).map_err(failed)?;
    let listener = UnixListener::from_std(socket.into()).map_err(failed)?;
    let name = Name(path.to_owned());
    if mode == SocketMode::Group {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    }
    Ok((listener, name))
}

/// Removes a socket that nobody listens at; never anything else.
async fn remove_stale(path: &Path) -> Result<(), ServeError> {
    let failed = |error| ServeError::Bind { place: path.display().to_string(), error };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(ServeError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(ServeError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(value: Option<&str>) -> Request {
        let mut request = Request::default();
        if let Some(value) = value {
            request.headers_mut().insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        request
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token: Token = b"0123456789abcdef".as_slice().into();
        assert!(bears(&request(Some("Bearer 0123456789abcdef")), &token));
        for wrong in ["Bearer 0123456789abcde", "Bearer 0123456789abcdef0", "Bearer ", "0123456789abcdef"] {
            assert!(!bears(&request(Some(wrong)), &token), "{wrong}");
        }
        assert!(!bears(&request(None), &token));
    }

    #[test]
    fn a_token_is_long_and_visible() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (text, good) in [("0123456789abcdef\n", true), ("short\n", false), ("0123456789 abcdef", false)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(super::token(&path).is_ok(), good, "{text:?}");
        }
    }

    #[tokio::test]
    async fn the_socket_has_its_mode_and_replaces_only_what_nobody_serves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (listener, name) = bind_unix(&path, SocketMode::Group).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(bind_unix(&path, SocketMode::Owner).await, Err(ServeError::InUse(_))));
        drop((listener, name));
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind_unix(&path, SocketMode::Owner).await, Err(ServeError::NotASocket(_))));
    }
}
