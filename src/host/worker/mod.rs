//! The host worker: polls agents, hears them, takes the platform's calls, and keeps the books.
//!
//! One way through it: the descriptors of a drop-in directory make the fleet; the poller visits each sandbox in its turn;
//! a visit, or a call of the API, gives evidence; [`reconcile`](super::reconcile) decides; the desk commits; only then is
//! the guest acknowledged and the platform answered. Whatever is not committed is said again by whoever said it: a guest
//! keeps what is not acknowledged, the platform repeats what is not answered.
//!
//! # Configuration
//! ```
//! let config: guestmeter::host::worker::Config = r#"
//! db = "sqlite:/var/lib/guestmeter/ledger.db"   # or postgres://USER@HOST/DATABASE
//! sandboxes = "/etc/guestmeter/sandboxes.d"
//! tiers = "/etc/guestmeter/tiers.toml"          # without it no memory size is off tier
//!
//! [api]
//! socket = "/run/guestmeter-worker/api.sock"
//! mode = "0660"                                 # its group too; "0600" where nothing is said
//! tcp = "127.0.0.1:9180"                        # only if asked, and only with a token
//! token_file = "/etc/guestmeter/token"
//!
//! [poll]
//! interval = "5s"
//! timeout = "2s"
//! concurrency = 64
//! save = "60s"                                  # how much evidence may be in memory alone
//! lost = "30s"                                  # from when on a silent agent is alerted on
//!
//! [vmm]
//! interval = "60s"
//! timeout = "2s"
//!
//! [lifecycle]
//! deadline = "2s"                               # of a call that names none
//! deadline_max = "60s"
//!
//! [notify]
//! hybrid = true                                 # listen at PATH_1020 of each hvsock target
//! vsock_port = 1020                             # and at this port of AF_VSOCK
//!
//! [parity]
//! enabled = true
//!
//! [metrics]
//! per_sandbox = false
//!
//! [log]
//! format = "json"                               # or "text"
//! filter = "info"
//! "#
//! .parse()?;
//! # assert_eq!(config.poll.interval.as_secs(), 5);
//! # Ok::<(), guestmeter::host::worker::ConfigFault>(())
//! ```
//!
//! A file `NAME.toml` of the drop-in directory describes a sandbox. Write it under another name and rename it.
//! ```toml
//! sandbox = "sb-1"
//! org = "acme"
//! plan = "pro"
//! base_memory_mib = 1024                  # what the VM boots with, virtio-mem excluded
//! target = "hvsock:///run/vm/sb-1.vsock"  # none for an image without an agent
//! vmm = "firecracker:///run/vm/sb-1.api"  # or qmp:///…, cloud-hypervisor:///…
//! ```
//!
//! # Around a snapshot
//! ```text
//! api() { curl -sf --unix-socket /run/guestmeter-worker/api.sock "http://worker/v1/sandboxes/sb-1/$1" -d "$2"; }
//! now() { date +%s%N; }
//! api pausing "{\"event_id\":\"$job-1\",\"at\":$(now),\"epoch\":\"$epoch\",\"deadline_ms\":500}"
//! # … pause the VM, save it, resume it …
//! api resumed "{\"event_id\":\"$job-2\",\"at\":$(now),\"epoch\":\"$epoch\"}"   # its answer has the next epoch
//! ```
//! `pausing` answers `confirmed` once the guest's count is closed and committed, or `unconfirmed` at its deadline; either
//! way the VM may be paused then. A call that is not answered with 200 is repeated, with the same `event_id` and `at`.
//!
//! # What to alert on
//! | metric | when |
//! |---|---|
//! | `guestmeter_ledger_up` | 0: nothing is acknowledged, calls get 503 |
//! | `guestmeter_agents{name="silent"}` | above 0: billed as requested; so is `none`, an image without an agent |
//! | `guestmeter_agents{name="other_epoch"}`, `{name="provisional"}` | for minutes: guests that could not be named |
//! | `guestmeter_verdicts_total{name="impossible"}` | rises: a guest claims what cannot be, and is credited nothing for it |
//! | `guestmeter_parity_alerts`, `guestmeter_parity_systemic` | above 0: the books of orgs differ, two hours in a row |
//! | `guestmeter_polls_missed_total` | rises: more agents than this worker can ask in time |
//! | `guestmeter_descriptor_faults` | above 0: a file that cannot be used; its last good contents stay |
//! | `guestmeter_clock_offset_seconds` | far from 0: the machine's clock stepped, and the books catch up slowly |
//! | `guestmeter_postings_total{name="refused"}` | rises: the ledger contradicts a decision, which is on record there |

mod acks;
pub mod api;
pub(super) mod books;
mod call_time;
mod clock;
mod config;
mod core;
mod descriptor;
mod descriptors;
mod desk;
mod directory;
mod fleet;
mod lifecycle;
mod metrics;
mod naming;
mod notifications;
mod order;
mod parity_job;
mod poller;
mod run;
mod serve;
mod span;
mod talk;
mod told;
mod visit;
mod vmm;
mod watching;

pub use config::{
    Api, Config, ConfigError, ConfigFault, Lifecycle, Log, LogFormat, Metrics, Notify, Parity, Poll,
    SocketMode, VmmPoll,
};
pub use descriptor::{Descriptor, DescriptorError};
pub use order::{Call, Expected, Phase};
pub use run::{Checked, WorkerError, check, run};
pub use serve::ServeError;
