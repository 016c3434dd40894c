//! Hotplug events of the kernel: memory blocks and CPUs that come, go, go online or offline.

use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The multicast group the kernel itself sends to; udev's is another.
const KERNEL_GROUP: u32 = 1;
/// The kernel's own limit of an event (`UEVENT_BUFFER_SIZE`); what is cut off is not needed here.
const EVENT_BYTES_MAX: usize = 2048;
/// Events taken in one wake-up: a burst that is longer is taken in the next.
const EVENTS_PER_WAKE_MAX: usize = 256;

/// The kernel's event socket.
#[derive(Debug)]
pub(super) struct Uevents {
    socket: AsyncFd<OwnedFd>,
}

impl Uevents {
    /// Needs no privilege; fails where a sandbox forbids AF_NETLINK. Must be called inside the runtime.
    pub(super) fn open() -> std::io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Self { socket: super::descriptor::watch(socket, Interest::READABLE)? })
    }

    /// Ready once events wait.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_read_ready(cx).map(|_| ())
    }

    /// Takes what waits; says whether memory or CPUs were among it. A burst is one answer.
    ///
    /// # Errors
    /// The socket is of no use any more.
    pub(super) fn take(&self) -> std::io::Result<bool> {
        let mut hotplug = false;
        for _ in 0..EVENTS_PER_WAKE_MAX {
            let mut event = [0; EVENT_BYTES_MAX];
            let received = self
                .socket
                .try_io(Interest::READABLE, |socket| Ok(recvfrom(socket, &mut event, RecvFlags::DONTWAIT)?));
            match received {
                Ok((length, _, sender)) => {
                    let kernel = sender
                        .and_then(|sender| SocketAddrNetlink::try_from(sender).ok())
                        .is_some_and(|sender| sender.pid() == 0);
                    hotplug |= kernel && is_hotplug(event.get(..length).unwrap_or_default());
                }
                // Events were lost: one of them may have been ours.
                Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => hotplug = true,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(hotplug)
    }
}

/// `ACTION@DEVPATH`, then NUL-separated `KEY=value` (Documentation of `lib/kobject_uevent.c`).
fn is_hotplug(event: &[u8]) -> bool {
    let header = event.split(|byte| *byte == 0).next().unwrap_or_default();
    let Some(at) = header.iter().position(|byte| *byte == b'@') else { return false };
    let (action, path) = header.split_at(at);
    matches!(action, b"add" | b"remove" | b"online" | b"offline")
        && (path.starts_with(b"@/devices/system/memory/") || path.starts_with(b"@/devices/system/cpu/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_blocks_and_cpus_are_told_from_the_rest() {
        for event in [
            b"add@/devices/system/memory/memory32\0ACTION=add\0".as_slice(),
            b"online@/devices/system/memory/memory32\0",
            b"offline@/devices/system/memory/memory32\0",
            b"remove@/devices/system/memory/memory32",
            b"online@/devices/system/cpu/cpu1\0",
        ] {
            assert!(is_hotplug(event), "{}", String::from_utf8_lossy(event));
        }
        for event in [
            b"".as_slice(),
            b"@",
            b"add",
            b"change@/devices/system/memory/memory32\0",
            b"add@/devices/virtual/net/lo\0/devices/system/memory/",
            b"libudev\0add@/devices/system/memory/memory32",
            &[0xff; 4096],
        ] {
            assert!(!is_hotplug(event), "{}", String::from_utf8_lossy(event));
        }
    }

    #[test]
    fn the_kernels_socket_opens_and_a_quiet_one_says_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            assert!(!Uevents::open().unwrap().take().unwrap());
        });
    }
}
