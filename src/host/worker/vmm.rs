//! The VMM's word beside the guest's: asked once in a while, and sooner where the guest is silent.

use super::core::{Commit, Core};
use super::descriptor::Descriptor;
use super::fleet::{Sandbox, State};
use super::metrics::label;
use super::order::Phase;
use crate::host::reconcile::{Answer, Evidence, VmState};
use crate::host::vmm::{Vmm, VmmCause, VmmError};
use crate::units::Nanos;

/// Questions are so much closer together while the guest, or the VMM, is not heard.
const SOONER: u32 = 6;
/// Answers in a row that there is no VM: one may be restarting.
const GONE_LEAST: u32 = 2;

impl Core {
    /// Asks, if it is time, and takes the answer in.
    pub(super) async fn ask_vmm(&self, sandbox: &Sandbox, state: &mut State, descriptor: &Descriptor) {
        let Some(address) = &descriptor.vmm else { return };
        let now = self.clock.now();
        if sandbox.phase() != Some(Phase::Running) || now.boot < state.vmm_due {
            return;
        }
        let config = self.config();
        let vmm = Vmm::new(address.clone(), config.vmm.timeout);
        let answered = tokio::select! {
            answered = question(&vmm) => answered,
            () = sandbox.called() => return,
        };
        let received = self.clock.now().unix;
        let (name, answer) = match &answered {
            Ok(answer) => {
                state.vmm_gone = 0;
                ("answered", Some(Answer { received, ..*answer }))
            }
            Err(error) if is_gone(error) => {
                state.vmm_gone = state.vmm_gone.saturating_add(1);
                let gone =
                    Answer { received, state: VmState::Gone, memory: None, memory_max: None, vcpus: None };
                ("gone", (state.vmm_gone >= GONE_LEAST).then_some(gone))
            }
            Err(error) => {
                tracing::debug!(sandbox = sandbox.name, %error, "a VMM does not answer");
                ("failed", None)
            }
        };
        self.metrics.vmm.get_or_create(&label(name)).inc();
        let soon = state.failures > 0 || answered.is_err();
        let interval = if soon { config.vmm.interval / SOONER } else { config.vmm.interval };
        state.vmm_due = now.boot.saturating_add(interval.into());
        let Some(answer) = answer else { return };
        let taken = self
            .write(sandbox, state, Commit::IfDue, |draft| {
                self.take(draft, &[Evidence::Vmm(answer)]);
                None
            })
            .await;
        if let Err(error) = taken {
            tracing::debug!(sandbox = sandbox.name, %error, "not committed");
        }
    }
}

/// Both answers, as evidence without its instant.
async fn question(vmm: &Vmm) -> Result<Answer, VmmError> {
    let memory = vmm.memory().await?;
    let cpus = vmm.cpus().await?;
    Ok(Answer {
        received: Nanos::ZERO,
        state: VmState::Running,
        memory: memory.total(),
        memory_max: memory.boot.checked_add(memory.maximum),
        vcpus: Some(cpus.maximum.unwrap_or(cpus.present)),
    })
}

fn is_gone(error: &VmmError) -> bool {
    matches!(error.cause, VmmCause::NoSocket | VmmCause::NobodyAtSocket | VmmCause::NotRunning(_))
}
