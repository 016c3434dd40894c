//! `read --vmm`: one guest's report beside its VMM's word, and whether both can be true.

use super::Outcome;
use super::error::CliError;
use super::lifecycle::show;
use super::output::{Output, complain, complain_of_vmm};
use crate::host::client::{Client, Reading};
use crate::host::error::ClientError;
use crate::host::vmm::show::BothSides;
use crate::host::vmm::{Vmm, VmmAddress, VmmCpus, VmmError, VmmMemory};
use std::time::Duration;

/// The VMM first and last, the guest between: what moves meanwhile lies between the VMM's two answers.
pub(super) async fn run(
    client: &Client,
    address: VmmAddress,
    timeout: Duration,
    json: bool,
    output: &mut Output,
) -> Result<Outcome, CliError> {
    let vmm = Vmm::new(address.clone(), timeout);
    let before = vmm.memory().await;
    let reading = client.read().await;
    match (reading, after(&vmm, before).await) {
        (Ok(reading), Ok((before, after, cpus))) => {
            show(&reading, json, output)?;
            let both = BothSides { reading, address, before, after, cpus };
            if json {
                output.line(&both.json()?)?;
            } else {
                output.text(&format!("\n{}", both.table(output.look())))?;
            }
            Ok(if both.differences().is_empty() { Outcome::Fine } else { Outcome::Found })
        }
        (reading, vmm) => {
            half(reading, json, output)?;
            if let Err(error) = vmm {
                complain_of_vmm(&error);
            }
            Ok(Outcome::Unreachable)
        }
    }
}

async fn after(
    vmm: &Vmm,
    before: Result<VmmMemory, VmmError>,
) -> Result<(VmmMemory, VmmMemory, VmmCpus), VmmError> {
    let before = before?;
    Ok((before, vmm.memory().await?, vmm.cpus().await?))
}

/// One side is silent: the other is shown all the same.
fn half(reading: Result<Reading, ClientError>, json: bool, output: &mut Output) -> Result<(), CliError> {
    match reading {
        Ok(reading) => show(&reading, json, output),
        Err(error) => {
            complain(&error);
            Ok(())
        }
    }
}
