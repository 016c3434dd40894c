//! The VMM's own word: a QMP connection that is asked one thing at a time.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use super::HUNG;
use serde_json::{Value, json};

pub(crate) struct Qmp {
    reader: BufReader<UnixStream>,
}

/// One virtio-mem device as `query-memory-devices` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryDevice {
    pub(crate) id: String,
    pub(crate) requested_bytes: u64,
    pub(crate) plugged_bytes: u64,
}

impl Qmp {
    pub(crate) fn new(stream: UnixStream) -> Result<Self, String> {
        stream.set_read_timeout(Some(HUNG)).map_err(|error| error.to_string())?;
        let mut qmp = Self { reader: BufReader::new(stream) };
        qmp.next_message()?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and gives its `return`; events on the way are passed over.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.reader.get_mut(), "{request}").map_err(|error| format!("QMP {command}: {error}"))?;
        loop {
            let mut answer = self.next_message()?;
            if let Some(error) = answer.get("error") {
                return Err(format!("QMP {request}: {error}"));
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    fn next_message(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Err("QMP: QEMU closed the connection".to_owned()),
            Ok(_) => serde_json::from_str(&line).map_err(|error| format!("QMP: {error} in {line:?}")),
            Err(error) => Err(format!("QMP: no answer: {error}")),
        }
    }

    /// The virtio-mem devices, in the order of their ids.
    pub(crate) fn memory_devices(&mut self) -> Result<Vec<MemoryDevice>, String> {
        let answer = self.execute("query-memory-devices", json!({}))?;
        let listed = answer.as_array().into_iter().flatten();
        let mut devices = listed
            .filter_map(|device| {
                let data = device.get("data")?;
                Some(MemoryDevice {
                    id: data.get("id")?.as_str()?.to_owned(),
                    requested_bytes: data.get("requested-size")?.as_u64()?,
                    plugged_bytes: data.get("size")?.as_u64()?,
                })
            })
            .collect::<Vec<_>>();
        devices.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(devices)
    }
}
