//! A soak for a person: what was run and is in the books, each law with what it came to, and what breaks one.

use super::super::fleet::Fleet;
use super::super::show::{align, because, seconds};
use super::Soaked;
use crate::host::table::{Look, titled_table};
use crate::host::text::grouped;
use comfy_table::Table;

impl Soaked {
    /// Three tables, then what is wrong, a line each, and one line of the outcome.
    #[must_use]
    pub fn table(&self, fleet: &Fleet, look: Look) -> String {
        let clones = self.sandboxes.saturating_sub(fleet.sandboxes);
        let mut text = format!(
            "{} sandboxes and {} clones of them, {} h (seed {}, faults: {}): {} reports reconciled, {} decisions posted\n\n",
            grouped(fleet.sandboxes),
            grouped(clones),
            grouped(fleet.hours),
            fleet.seed,
            fleet.faults,
            grouped(self.reports),
            grouped(self.postings),
        );
        for table in [self.time(look), self.laws(look), self.explained(look)] {
            text.push_str(&format!("{}\n\n", table.trim_fmt()));
        }
        for wrong in &self.wrong {
            text.push_str(&format!("wrong: {wrong}\n"));
        }
        let (books, run) = (grouped(self.sandboxes), seconds(self.run));
        text.push_str(&format!("{books} books of {run} s, {} wrong\n", grouped(self.wrong.len() as u64)));
        text
    }

    fn time(&self, look: Look) -> Table {
        let mut table = titled_table(&["TIME", "s", ""], look);
        table.add_row(["run", &seconds(self.run), ""]);
        table.add_row(["in the host's book", &seconds(self.cell), "pauses that nobody announced are in it"]);
        table.add_row(["in the guests' book", &seconds(self.edge), ""]);
        for (cause, ns) in self.short.iter().filter(|(_, ns)| **ns > 0) {
            table.add_row([&format!("not in it: {}", cause.name()), &seconds(*ns), because(*cause)]);
        }
        table.add_row([
            "in it, not run",
            &seconds(self.long),
            "pauses that nobody announced, at most the cap of each",
        ]);
        align(&mut table, 1..2);
        table
    }

    fn laws(&self, look: Look) -> Table {
        let mut table = titled_table(&["LAW", "AT MOST", "IS"], look);
        let millis = |ns: u64| format!("{} ms", grouped(ns / 1_000_000));
        let one = millis(super::judge::APART);
        table.add_row(["a host's book, beyond the VM's intervals", &one, &millis(self.worst_cell)]);
        table.add_row(["a guests' book, beyond what is declared", &one, &millis(self.worst)]);
        let (is, due) = self.skipped_free;
        table.add_row(["orgs' hours skipped as free", &format!("just {due}"), &is.to_string()]);
        let (checked, flagged) = self.compared;
        let hours =
            format!("sandboxes' hours flagged ({} of {}) for no cause", grouped(flagged), grouped(checked));
        table.add_row([&hours, "0", &grouped(self.uncaused)]);
        let alerts = format!("alerts of orgs ({}) for no cause", grouped(self.alerts.0));
        table.add_row([&alerts, "0", &grouped(self.alerts.1)]);
        table.add_row(["worlds that broke a law, postings refused", "0", &grouped(self.broken)]);
        align(&mut table, 1..3);
        table
    }

    fn explained(&self, look: Look) -> Table {
        let mut table = titled_table(&["EXPLAINED BY", "SANDBOXES"], look);
        for (cause, sandboxes) in &self.causes {
            table.add_row([*cause, &grouped(*sandboxes)]);
        }
        align(&mut table, 1..2);
        table
    }
}
