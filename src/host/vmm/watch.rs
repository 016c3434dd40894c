//! QEMU's word unasked: one connection that is held, and made again where it ended.

use super::address::VmmKind;
use super::error::{Failed, Limit, VmmCause, VmmError};
use super::qmp::Qmp;
use super::{Vmm, VmmCpus, VmmEvent, VmmMemory};
use tokio::net::UnixStream;

/// The events of one QEMU. While it lives nobody else is served at the QMP socket; questions go through it.
#[derive(Debug)]
pub struct VmmWatch {
    vmm: Vmm,
    /// Absent after a failure: the next call connects again.
    qmp: Option<Qmp<UnixStream>>,
}

impl VmmWatch {
    pub(super) async fn open(vmm: Vmm) -> Result<Self, VmmError> {
        if vmm.address.kind != VmmKind::Qmp {
            let cause = VmmCause::NoEvents(vmm.address.kind);
            return Err(Failed { request: "watching", cause }.at(&vmm.address));
        }
        let limit = Limit::new(vmm.timeout);
        let qmp = vmm.open(limit).await.map_err(|failed| failed.at(&vmm.address))?;
        Ok(Self { vmm, qmp: Some(qmp) })
    }

    /// The next event, however long that takes. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The connection ended or could not be made: the next call makes it again. When to call is up to the caller.
    pub async fn next(&mut self) -> Result<VmmEvent, VmmError> {
        let limit = Limit::new(self.vmm.timeout);
        let qmp = match &mut self.qmp {
            Some(qmp) => qmp,
            absent => {
                absent.insert(self.vmm.open(limit).await.map_err(|failed| failed.at(&self.vmm.address))?)
            }
        };
        match qmp.event().await {
            Ok(event) => Ok(event),
            Err(cause) => {
                self.qmp = None;
                Err(Failed { request: "waiting for an event", cause }.at(&self.vmm.address))
            }
        }
    }

    /// The memory, now, on the same connection. Events from before are not told any more.
    ///
    /// # Errors
    /// As for [`Vmm::memory`]; the connection is made again by the next call.
    pub async fn memory(&mut self) -> Result<VmmMemory, VmmError> {
        let limit = Limit::new(self.vmm.timeout);
        let mut qmp = self.taken(limit).await?;
        let answer = qmp.memory(limit).await;
        self.put_back(qmp, answer)
    }

    /// The CPUs, now, on the same connection.
    ///
    /// # Errors
    /// As for [`VmmWatch::memory`].
    pub async fn cpus(&mut self) -> Result<VmmCpus, VmmError> {
        let limit = Limit::new(self.vmm.timeout);
        let mut qmp = self.taken(limit).await?;
        let answer = qmp.cpus(limit).await;
        self.put_back(qmp, answer)
    }

    /// A future that is dropped with a question half written takes the connection with it.
    async fn taken(&mut self, limit: Limit) -> Result<Qmp<UnixStream>, VmmError> {
        match self.qmp.take() {
            Some(qmp) => Ok(qmp),
            None => self.vmm.open(limit).await.map_err(|failed| failed.at(&self.vmm.address)),
        }
    }

    fn put_back<T>(&mut self, qmp: Qmp<UnixStream>, answer: Result<T, Failed>) -> Result<T, VmmError> {
        let whole = match &answer {
            Ok(_) => true,
            Err(failed) => matches!(failed.cause, VmmCause::Refused { .. } | VmmCause::NotRunning(_)),
        };
        if whole {
            self.qmp = Some(qmp);
        }
        answer.map_err(|failed| failed.at(&self.vmm.address))
    }
}
