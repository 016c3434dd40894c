//! The host's end: the agent started by hand in the small image, and `guestmeter` asking it.

use super::HUNG;
use super::reading::Reading;
use super::vm::Vm;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::process::{Command, Output, Stdio};

impl Vm {
    /// Starts the agent in the small image and waits until it answers.
    pub(crate) fn start_agent(&mut self, arguments: &str) {
        let command = format!(
            "/usr/bin/guestmeterd --notify none {arguments} >/dev/null 2>>/run/agent.log </dev/null &"
        );
        self.sh(&command);
        self.wait("the agent to answer", HUNG, |vm| vm.try_read().is_some());
    }

    /// Writes a file in the guest, through its vsock.
    pub(crate) fn put(&mut self, bytes: &[u8], to: &str) {
        self.sh(&format!("socat -u VSOCK-LISTEN:5000 CREATE:{to} >/dev/null 2>&1 </dev/null &"));
        let mut stream = self.dial(5000);
        stream.write_all(bytes).expect("the guest reads");
        stream.shutdown(Shutdown::Write).expect("an open connection");
        stream.read_to_end(&mut Vec::new()).expect("the guest's end");
        let length = bytes.len().to_string();
        self.wait("all of the file", HUNG, |vm| vm.run(&format!("stat -c %s {to}")).text().trim() == length);
    }

    /// What the agent has logged, in either image.
    pub(crate) fn agent_log(&mut self) -> String {
        self.run("cat /run/agent.log; journalctl -b -u guestmeterd --no-pager | tail -20").text()
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
        let output = self.host("read", &["--json", "--timeout", "10s"]);
        output.status.success().then(|| Reading::from_json(String::from_utf8_lossy(&output.stdout).trim()))
    }

    /// One reading over vsock, which must be exact and agree with the VMM.
    pub(crate) fn read_exact(&mut self) -> Reading {
        let reading = self.agreeing(|vm| {
            let output = vm.host("read", &["--json", "--timeout", "60s"]);
            if !output.status.success() {
                let log = vm.agent_log();
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
