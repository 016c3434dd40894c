//! AF_VSOCK for tokio: a connection that is waited for without blocking, then a stream.
#![allow(unsafe_code, reason = "tokio has no safe way to watch a descriptor it has no type for")]

use super::error::Cause;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// `VMADDR_CID_ANY` of `linux/vm_sockets.h`.
const CID_ANY: u32 = u32::MAX;

/// Connects to a guest of this machine's kernel.
pub(super) async fn connect(cid: u32, port: u32) -> Result<Vsock, Cause> {
    let connecting = async {
        let socket = Socket::new(Domain::VSOCK, Type::STREAM.nonblocking().cloexec(), None)?;
        match socket.connect(&SockAddr::vsock(cid, port)) {
            Ok(()) => return Ok(Vsock(watch(socket)?)),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        let socket = watch(socket)?;
        let _ready = socket.writable().await?;
        match socket.get_ref().take_error()? {
            Some(error) => Err(error),
            None => Ok(Vsock(socket)),
        }
    };
    connecting.await.map_err(|error: io::Error| refused(error, cid, port))
}

fn watch(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a `Socket` owns its descriptor, which is open and the same until it is dropped; `AsyncFd` owns the
    // socket from here on and hands out only shared references, which cannot replace it.
    unsafe { Ok(AsyncFd::register(socket)?) }
}

/// Where guests dial this host: AF_VSOCK, any CID of ours.
pub(super) struct VsockListener(AsyncFd<Socket>);

impl VsockListener {
    /// Must be called inside the runtime.
    pub(super) fn bind(port: u32, backlog: i32) -> io::Result<Self> {
        let socket = Socket::new(Domain::VSOCK, Type::STREAM.nonblocking().cloexec(), None)?;
        socket.bind(&SockAddr::vsock(CID_ANY, port))?;
        socket.listen(backlog)?;
        Ok(Self(watch(socket)?))
    }

    /// The next connection, and the CID that it comes from.
    pub(super) async fn accept(&self) -> io::Result<(Vsock, u32)> {
        loop {
            let mut guard = self.0.readable().await?;
            if let Ok(accepted) = guard.try_io(|socket| accept(socket.get_ref())) {
                return accepted;
            }
        }
    }
}

fn accept(socket: &Socket) -> io::Result<(Vsock, u32)> {
    let (stream, address) = socket.accept()?;
    stream.set_nonblocking(true)?;
    let (cid, _port) = address.as_vsock_address().ok_or(io::ErrorKind::InvalidData)?;
    Ok((Vsock(watch(stream)?), cid))
}

/// A guest without a listener answers with a reset; one that does not exist has no route to it.
fn refused(error: io::Error, cid: u32, port: u32) -> Cause {
    use rustix::io::Errno;
    match Errno::from_io_error(&error) {
        Some(Errno::CONNRESET | Errno::CONNREFUSED) => Cause::NobodyAtPort { port },
        Some(Errno::NODEV | Errno::ADDRNOTAVAIL | Errno::HOSTUNREACH | Errno::NETUNREACH) => {
            Cause::NoGuest { cid }
        }
        Some(Errno::TIMEDOUT) => Cause::Unanswered { cid },
        _ => Cause::Connect(error),
    }
}

/// An AF_VSOCK stream, which tokio has no type for.
pub(super) struct Vsock(AsyncFd<Socket>);

impl AsyncRead for Vsock {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let space = out.initialize_unfilled();
            if let Ok(read) = guard.try_io(|socket| socket.get_ref().read(space)) {
                return Poll::Ready(read.map(|count| out.advance(count)));
            }
        }
    }
}

impl AsyncWrite for Vsock {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            if let Ok(written) = guard.try_io(|socket| socket.get_ref().write(bytes)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.get_ref().shutdown(std::net::Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    /// The errors of `connect(2)` on AF_VSOCK, from the kernel's `net/vmw_vsock/`.
    #[test]
    fn a_guest_without_a_listener_is_not_a_guest_that_is_not_there() {
        let cause = |errno: Errno| refused(errno.into(), 42, 1020);
        assert!(matches!(cause(Errno::CONNRESET), Cause::NobodyAtPort { port: 1020 }));
        assert!(matches!(cause(Errno::NODEV), Cause::NoGuest { cid: 42 }));
        assert!(matches!(cause(Errno::TIMEDOUT), Cause::Unanswered { cid: 42 }));
        assert!(matches!(cause(Errno::ACCESS), Cause::Connect(_)));
    }

    /// A Unix pair in its place: what tokio does with the descriptor is the same.
    #[tokio::test]
    async fn bytes_go_both_ways_and_end() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM.nonblocking(), None).unwrap();
        let (mut ours, mut theirs) = (Vsock(watch(ours).unwrap()), Vsock(watch(theirs).unwrap()));
        let sent: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        let (written, read) = tokio::join!(
            async {
                ours.write_all(&sent).await.unwrap();
                ours.shutdown().await
            },
            async {
                let mut received = Vec::new();
                theirs.read_to_end(&mut received).await.unwrap();
                received
            }
        );
        written.unwrap();
        assert!(read == sent, "{} bytes of {}", read.len(), sent.len());
    }
}
