//! One line of QMP, and the documents in it. Pure.

use super::error::{VmmCause, cut};
use super::{SizeChange, VmmCpus, VmmMemory};
use crate::units::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::borrow::Cow;

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Greeting,
    /// The answer to the command of this id is in the line.
    Return(Option<u64>),
    Error {
        id: Option<u64>,
        class: String,
        text: String,
    },
    SizeChange,
    OtherEvent,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "QMP")]
    greeting: Option<IgnoredAny>,
    #[serde(rename = "return")]
    answer: Option<IgnoredAny>,
    error: Option<ErrorText>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    id: Option<u64>,
}

#[derive(Deserialize)]
struct ErrorText {
    class: String,
    desc: String,
}

/// What a line is; the documents in it are not looked at yet.
pub(super) fn line(bytes: &[u8]) -> Result<Line, VmmCause> {
    let envelope: Envelope<'_> = read(bytes)?;
    match envelope {
        Envelope { greeting: Some(_), .. } => Ok(Line::Greeting),
        Envelope { event: Some(name), .. } if name == "MEMORY_DEVICE_SIZE_CHANGE" => Ok(Line::SizeChange),
        Envelope { event: Some(_), .. } => Ok(Line::OtherEvent),
        Envelope { answer: Some(_), id, .. } => Ok(Line::Return(id)),
        Envelope { error: Some(ErrorText { class, desc }), id, .. } => {
            Ok(Line::Error { id, class: cut(&class), text: cut(&desc) })
        }
        _ => Err(VmmCause::Malformed(format!("a line of QMP that says nothing: {}", shown(bytes)))),
    }
}

/// The beginning of a line, for a message.
pub(super) fn shown(bytes: &[u8]) -> String {
    cut(String::from_utf8_lossy(bytes.get(..200).unwrap_or(bytes)).trim_end())
}

/// The document of an answer.
pub(super) fn answer<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, VmmCause> {
    #[derive(Deserialize)]
    struct Answer<T> {
        #[serde(rename = "return")]
        answer: T,
    }
    read::<Answer<T>>(bytes).map(|line| line.answer)
}

/// The change that an event tells of.
pub(super) fn size_change(bytes: &[u8]) -> Result<SizeChange, VmmCause> {
    #[derive(Deserialize)]
    struct Event {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        id: Option<String>,
        size: u64,
    }
    let Event { data } = read(bytes)?;
    let plugged = Bytes(data.size);
    if plugged > Bytes::PHYSICAL_MAX {
        return Err(VmmCause::Malformed(format!("a device of {plugged}, more than any machine's memory")));
    }
    Ok(SizeChange { device: data.id.map(|id| cut(&id)), plugged })
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, VmmCause> {
    serde_json::from_slice(bytes).map_err(|error| VmmCause::Malformed(error.to_string()))
}

/// `StatusInfo` of `query-status`.
#[derive(Deserialize)]
pub(super) struct Status {
    status: String,
}

/// Before its start and before a snapshot is loaded, QEMU answers for a machine that nothing runs in.
pub(super) fn running(status: &Status) -> Result<(), VmmCause> {
    match status.status.as_str() {
        "prelaunch" | "inmigrate" => Err(VmmCause::NotRunning(status.status.clone())),
        _ => Ok(()),
    }
}

/// One of `query-memory-devices`.
#[derive(Deserialize)]
pub(super) struct Device {
    #[serde(rename = "type")]
    kind: String,
    data: DeviceData,
}

/// Of `VirtioMEMDeviceInfo` and `PCDIMMDeviceInfo` what matters here.
#[derive(Deserialize)]
struct DeviceData {
    id: Option<String>,
    size: Option<u64>,
    #[serde(rename = "requested-size")]
    requested_size: Option<u64>,
    #[serde(rename = "max-size")]
    max_size: Option<u64>,
}

/// `MemoryInfo` of `query-memory-size-summary`.
#[derive(Deserialize)]
pub(super) struct Summary {
    #[serde(rename = "base-memory")]
    base_memory: u64,
}

/// A DIMM is boot memory, as the guest sees it; an NVDIMM, virtio-pmem or SGX region is no memory that is billed.
pub(super) fn memory(devices: Vec<Device>, summary: &Summary) -> Result<VmmMemory, VmmCause> {
    let mut sums = Sums { boot: Bytes(summary.base_memory), ..Sums::default() };
    let mut ignored = Vec::new();
    for Device { kind, data } in devices {
        let missing = |field: &str| {
            VmmCause::Malformed(format!(
                "the {kind} device {} has no {field}",
                data.id.as_deref().unwrap_or("")
            ))
        };
        let size = data.size.map(Bytes).ok_or_else(|| missing("size"));
        match kind.as_str() {
            "virtio-mem" => {
                let requested = data.requested_size.map(Bytes).ok_or_else(|| missing("requested-size"))?;
                let maximum = data.max_size.map(Bytes).ok_or_else(|| missing("max-size"))?;
                sums.add(Sums { boot: Bytes::ZERO, plugged: size?, requested, maximum })?;
            }
            "dimm" => sums.add(Sums { boot: size?, ..Sums::default() })?,
            _ => ignored.push(cut(&match data.id {
                Some(id) => format!("{kind} {id}"),
                None => kind,
            })),
        }
    }
    let Sums { boot, plugged, requested, maximum } = sums;
    VmmMemory { boot, plugged: Ok(plugged), requested, maximum, ignored }.checked()
}

#[derive(Default)]
struct Sums {
    boot: Bytes,
    plugged: Bytes,
    requested: Bytes,
    maximum: Bytes,
}

impl Sums {
    fn add(&mut self, device: Self) -> Result<(), VmmCause> {
        // Each device by itself, too: two that cannot be must not make a sum that can.
        if device.plugged > device.maximum || device.requested > device.maximum {
            let what = format!(
                "a device of {} with {} plugged and {} requested",
                device.maximum, device.plugged, device.requested
            );
            return Err(VmmCause::Malformed(what));
        }
        let sum = |a: Bytes, b: Bytes| {
            let over = || VmmCause::Malformed("the devices' sizes pass the end of a number".to_owned());
            a.checked_add(b).ok_or_else(over)
        };
        self.boot = sum(self.boot, device.boot)?;
        self.plugged = sum(self.plugged, device.plugged)?;
        self.requested = sum(self.requested, device.requested)?;
        self.maximum = sum(self.maximum, device.maximum)?;
        Ok(())
    }
}

/// `query-cpus-fast` lists the CPUs that are there, hotplugged ones included.
pub(super) fn cpus(listed: &[IgnoredAny]) -> Result<VmmCpus, VmmCause> {
    let present = u32::try_from(listed.len()).unwrap_or(u32::MAX);
    VmmCpus { present, maximum: None }.checked()
}
