//! Hotplug events of the kernel: memory blocks and CPUs that come, go, go online or offline.

use super::poller::{Poller, Watched};
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with};
use std::mem::MaybeUninit;

/// The multicast group the kernel itself sends to; udev's is another.
const KERNEL_GROUP: u32 = 1;
/// The kernel's own limit of an event (`UEVENT_BUFFER_SIZE`); what is cut off is not needed here.
const EVENT_BYTES_MAX: usize = 2048;
/// Events taken in one wake-up: a burst that is longer is taken in the next. A resume is told within 60 calls whatever
/// the kernel has to tell. Events of other devices are taken too: a restore that brings some wakes the agent.
const EVENTS_PER_WAKE_MAX: usize = 8;

/// How the kernel names a virtio-mem device, of whatever vendor (`virtio_uevent`, `VIRTIO_ID_MEM`).
const VIRTIO_MEM: &[u8] = b"MODALIAS=virtio:d00000018v";

/// The kernel's event socket.
#[derive(Debug)]
pub(super) struct Uevents {
    socket: Watched,
}

impl Uevents {
    /// Needs no privilege; fails where a sandbox forbids AF_NETLINK.
    pub(super) fn open(poller: &mut Poller) -> std::io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Self { socket: poller.watch(socket)? })
    }

    /// Whether more wait than were taken.
    pub(super) fn are_waiting(&self) -> bool {
        self.socket.is_readable()
    }

    /// Takes what waits; says whether memory or CPUs were among it. A burst is one answer.
    ///
    /// # Errors
    /// The socket is of no use any more.
    #[inline(never)]
    pub(super) fn take(&self) -> std::io::Result<bool> {
        let mut hotplug = false;
        for _ in 0..EVENTS_PER_WAKE_MAX {
            if !self.socket.is_readable() {
                break;
            }
            let mut space = [MaybeUninit::uninit(); EVENT_BYTES_MAX];
            match recvfrom(self.socket.descriptor(), space.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok(((event, _), _, sender)) => {
                    let kernel = sender
                        .and_then(|sender| SocketAddrNetlink::try_from(sender).ok())
                        .is_some_and(|sender| sender.pid() == 0);
                    hotplug |= kernel && is_hotplug(event);
                }
                // Events were lost: one of them may have been ours.
                Err(Errno::NOBUFS) => hotplug = true,
                Err(Errno::AGAIN) => self.socket.nothing_to_read(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(hotplug)
    }
}

/// `ACTION@DEVPATH`, then NUL-separated `KEY=value` (Documentation of `lib/kobject_uevent.c`).
fn is_hotplug(event: &[u8]) -> bool {
    let mut parts = event.split(|byte| *byte == 0);
    let header = parts.next().unwrap_or_default();
    let Some(at) = header.iter().position(|byte| *byte == b'@') else { return false };
    let (action, path) = header.split_at(at);
    // Its driver comes late, or goes. Other devices of the bus do at each snapshot.
    if matches!(action, b"bind" | b"unbind") {
        return parts.any(|part| part.starts_with(VIRTIO_MEM));
    }
    matches!(action, b"add" | b"remove" | b"online" | b"offline")
        && (path.starts_with(b"@/devices/system/memory/") || path.starts_with(b"@/devices/system/cpu/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Nanos;

    #[test]
    fn memory_blocks_and_cpus_are_told_from_the_rest() {
        for event in [
            b"add@/devices/system/memory/memory32\0ACTION=add\0".as_slice(),
            b"online@/devices/system/memory/memory32\0",
            b"offline@/devices/system/memory/memory32\0",
            b"remove@/devices/system/memory/memory32",
            b"online@/devices/system/cpu/cpu1\0",
            b"bind@/devices/pci0000:00/0000:00:05.0/virtio1\0ACTION=bind\0DRIVER=virtio_mem\0MODALIAS=virtio:d00000018v00001AF4\0",
            b"unbind@/devices/platform/LNRO0005:01/virtio12\0MODALIAS=virtio:d00000018v00000000",
        ] {
            assert!(is_hotplug(event), "{}", String::from_utf8_lossy(event));
        }
        for event in [
            b"".as_slice(),
            b"@",
            b"add",
            b"change@/devices/system/memory/memory32\0",
            b"add@/devices/virtual/net/lo\0/devices/system/memory/",
            b"bind@/devices/pci0000:00/0000:00:05.0\0",
            b"bind@/devices/pci0000:00/0000:00:05.0/virtio1\0ACTION=bind\0MODALIAS=virtio:d00000013v00001AF4\0",
            b"change@/devices/pci0000:00/0000:00:05.0/virtio1\0MODALIAS=virtio:d00000018v00001AF4\0",
            b"bind@MODALIAS=virtio:d00000018v00001AF4",
            b"online@/devices/system/",
            b"remove@/devices/system/node/node1\0",
            b"libudev\0add@/devices/system/memory/memory32",
            &[0xff; 4096],
        ] {
            assert!(!is_hotplug(event), "{}", String::from_utf8_lossy(event));
        }
    }

    #[test]
    fn the_kernels_socket_opens_and_a_quiet_one_says_nothing() {
        let mut poller = Poller::new().unwrap();
        let uevents = Uevents::open(&mut poller).unwrap();
        poller.sleep(Nanos::ZERO).unwrap();
        assert!(!uevents.take().unwrap());
        assert!(!uevents.are_waiting());
    }
}
