//! Guest and VMM side by side, for a person and as `guestmeter.vmm/1`.

use super::compare::{Row, What, compare};
use super::{VmmAddress, VmmCpus, VmmMemory};
use crate::host::client::Reading;
use crate::host::table::{Look, bytes, titled_table};
use crate::host::text::Safe;
use crate::units::Bytes;
use comfy_table::{Cell, CellAlignment, Color};
use serde::Serialize;

/// Names the shape; another shape gets another name.
pub const SCHEMA: &str = "guestmeter.vmm/1";

/// A guest's report and what its VMM said around it.
#[derive(Clone, Debug)]
pub struct BothSides {
    /// The guest's side.
    pub reading: Reading,
    /// The VMM that was asked.
    pub address: VmmAddress,
    /// Its word before the report.
    pub before: VmmMemory,
    /// Its word after the report.
    pub after: VmmMemory,
    /// Its word on the CPUs.
    pub cpus: VmmCpus,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    target: String,
    vmm: String,
    boot_bytes: Bytes,
    plugged_bytes: Option<Bytes>,
    plugged_before_bytes: Option<Bytes>,
    doubt: Option<&'static str>,
    requested_bytes: Bytes,
    maximum_bytes: Bytes,
    cpus: u32,
    cpus_max: Option<u32>,
    ignored: &'a [String],
    differs: Vec<&'static str>,
}

impl BothSides {
    fn rows(&self) -> [Row; 4] {
        compare(&self.reading.report, &self.before, &self.after, self.cpus)
    }

    /// The numbers that cannot both be true.
    #[must_use]
    pub fn differences(&self) -> Vec<What> {
        self.rows().iter().filter(|row| row.differs).map(|row| row.what).collect()
    }

    /// One line of JSON, without its newline.
    ///
    /// # Errors
    /// None that is known: the document has string keys only, and no floats.
    pub fn json(&self) -> serde_json::Result<String> {
        let VmmMemory { boot, plugged, requested, maximum, ref ignored } = self.after;
        let differences = self.differences().into_iter().map(|what| match what {
            What::Cpus => "cpus",
            other => other.name(),
        });
        serde_json::to_string(&Document {
            schema: SCHEMA,
            target: self.reading.target.to_string(),
            vmm: self.address.to_string(),
            boot_bytes: boot,
            plugged_bytes: plugged.ok(),
            plugged_before_bytes: self.before.plugged.ok(),
            doubt: plugged.err().map(super::Doubt::name),
            requested_bytes: requested,
            maximum_bytes: maximum,
            cpus: self.cpus.present,
            cpus_max: self.cpus.maximum,
            ignored,
            differs: differences.collect(),
        })
        .map(|text| crate::host::json::unsteering(&text))
    }

    /// A table with a column for each side.
    #[must_use]
    pub fn table(&self, look: Look) -> String {
        let mut table = titled_table(&["", "GUEST", "VMM", ""], look);
        for row in self.rows() {
            let shown = |span| spelled(row.what, span);
            let guest = row.guest.map_or_else(|| "unknown".to_owned(), shown);
            let remark = if row.differs {
                Cell::new("differs").fg(Color::Red)
            } else {
                Cell::new(self.remark(row.what))
            };
            table.add_row([Cell::new(row.what.name()), Cell::new(guest), Cell::new(shown(row.vmm)), remark]);
        }
        for column in 1..3 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        format!("{}\n{}\n", self.address, table.trim_fmt())
    }

    fn remark(&self, what: What) -> String {
        match what {
            What::Boot if !self.after.ignored.is_empty() => {
                format!("without {}", Safe(&self.after.ignored.join(", ")))
            }
            What::Plugged => match self.after.plugged {
                Ok(_) => format!("at most {}", bytes(self.after.maximum)),
                Err(doubt) => doubt.to_string(),
            },
            _ => String::new(),
        }
    }
}

fn spelled(what: What, (least, most): (u64, u64)) -> String {
    let one = |number: u64| match what {
        What::Cpus => number.to_string(),
        _ => bytes(Bytes(number)),
    };
    if least == most { one(least) } else { format!("{} to {}", one(least), one(most)) }
}
