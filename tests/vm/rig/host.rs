//! The host's end: the agent started by hand in the small image, and `guestmeter` asking it.

use super::qemu::Vm;
use super::reading::Reading;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

impl Vm {
    /// Starts the agent in the small image and waits until it answers.
    pub(crate) fn start_agent(&mut self, arguments: &str) {
        let command = format!(
            "/usr/bin/guestmeterd --notify none {arguments} >/dev/null 2>>/run/agent.log </dev/null &"
        );
        self.sh(&command);
        self.wait("the agent to answer", Duration::from_secs(30), |vm| vm.try_read().is_some());
    }

    pub(crate) fn target(&self) -> String {
        format!("hvsock://{}:1020", self.vsock_path().display())
    }

    /// `guestmeter COMMAND TARGET ARGUMENTS` on the host.
    pub(crate) fn host(&self, command: &str, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_guestmeter"))
            .arg(command)
            .arg(self.target())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("guestmeter runs")
    }

    /// The same, which has to end with `code` and say why.
    pub(crate) fn host_fails(&self, command: &str, arguments: &[&str], code: i32) {
        let output = self.host(command, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{command} {arguments:?}: {stderr}");
        assert!(!stderr.is_empty() || !output.stdout.is_empty(), "{command} said nothing");
    }

    pub(crate) fn try_read(&self) -> Option<Reading> {
        let output = self.host("read", &["--json", "--timeout", "5s"]);
        output.status.success().then(|| Reading::from_json(String::from_utf8_lossy(&output.stdout).trim()))
    }

    /// One reading over vsock, which must be exact and agree with the VMM.
    pub(crate) fn read_exact(&mut self) -> Reading {
        let reading = self.agreeing(|vm| {
            let output = vm.host("read", &["--json", "--timeout", "20s"]);
            if !output.status.success() {
                let log =
                    vm.run("cat /run/agent.log; journalctl -b -u guestmeterd --no-pager | tail -20").text();
                vm.fail(&format!(
                    "guestmeter read: {}\nagent: {log}",
                    String::from_utf8_lossy(&output.stderr)
                ));
            }
            Reading::from_json(String::from_utf8_lossy(&output.stdout).trim())
        });
        if !reading.is_exact() {
            self.fail(&format!("not exact: {reading:#?}"));
        }
        reading
    }
}
