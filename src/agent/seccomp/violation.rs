//! What a forbidden system call comes to: its number on standard error, and the end.
#![allow(unsafe_code, reason = "a signal handler, and how it ends the process, have no safe interface")]

use crate::agent::exit;
use libc::{c_int, c_void};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// `si_code` of a SIGSYS that a filter's trap sends.
const SYS_SECCOMP: c_int = 1;
const BEFORE: &[u8] = b"<3>system call ";
const AFTER: &[u8] = b" is not on the agent's list (--no-seccomp does without one): the agent ends\n";
/// By a process, as any other signal.
const SENT: &[u8] = b"<3>SIGSYS was sent: the agent ends\n";
/// Digits of the greatest number.
const DIGITS: usize = 10;
const LINE_BYTES_MAX: usize = BEFORE.len() + DIGITS + AFTER.len();

/// The start of `siginfo_t` for SIGSYS where pointers have 64 bits; the C library's binding has no such view.
#[repr(C)]
struct Trapped {
    signal: c_int,
    error: c_int,
    code: c_int,
    padding: c_int,
    address: *const c_void,
    call: c_int,
    arch: u32,
}

const _: () = assert!(size_of::<Trapped>() <= size_of::<libc::siginfo_t>());

/// Handles SIGSYS from here on. The filter lets nobody change that.
pub(super) fn name_them() -> std::io::Result<()> {
    let action = SigAction::new(SigHandler::SigAction(violated), SaFlags::SA_SIGINFO, SigSet::all());
    // SAFETY: the handler does nothing but two system calls that may be made in one, and does not return.
    unsafe { sigaction(Signal::SIGSYS, &action) }?;
    Ok(())
}

/// Makes no calls that the filter forbids, or the kernel would end it without a word.
extern "C" fn violated(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes a whole `siginfo_t`, of which `Trapped` is the beginning; any bytes make its numbers.
    let trapped = unsafe { &*info.cast::<Trapped>() };
    let mut line = [0; LINE_BYTES_MAX];
    let text = if trapped.code == SYS_SECCOMP {
        let length = write_line(&mut line, trapped.call.cast_unsigned());
        line.get(..length).unwrap_or_default()
    } else {
        SENT
    };
    // Nobody is left to tell if standard error is gone.
    let _ = rustix::io::write(rustix::stdio::stderr(), text);
    // SAFETY: ends the process; nothing of it runs after.
    unsafe { libc::_exit(exit::SOFTWARE.into()) }
}

/// Without memory of its own: a handler may have come in the midst of an allocation.
fn write_line(line: &mut [u8], call: u32) -> usize {
    let mut digits = [0; DIGITS];
    let mut rest = call;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    let zeros = digits.iter().take(DIGITS - 1).take_while(|digit| **digit == b'0').count();
    let bytes = BEFORE.iter().chain(digits.iter().skip(zeros)).chain(AFTER);
    line.iter_mut().zip(bytes).map(|(to, from)| *to = *from).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_by_its_number() {
        for (call, wanted) in [(0, "system call 0 is"), (59, "call 59 is"), (u32::MAX, "call 4294967295 is")]
        {
            let mut line = [0; LINE_BYTES_MAX];
            let length = write_line(&mut line, call);
            let text = std::str::from_utf8(&line[..length]).unwrap();
            assert!(text.contains(wanted) && text.ends_with("ends\n"), "{text}");
        }
    }
}
