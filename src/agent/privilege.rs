//! Giving up root once the sources are open, for systems without systemd.

use rustix::io::Errno;
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use std::io::Read;
use std::path::{Path, PathBuf};

/// /etc/passwd and /etc/group of an image; more is garbage.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrivilegeError {
    /// A file cannot be read.
    #[error("--user {user}: {path}: {source}")]
    Read {
        /// The user.
        user: String,
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// Nobody of that name.
    #[error("--user {0}: no such user in /etc/passwd")]
    NoSuchUser(String),
    /// Only root becomes somebody else.
    #[error("--user {0}: only root can become another user")]
    NotRoot(String),
    /// The system refused.
    #[error("--user {user}: {step}: {source}")]
    System {
        /// The user.
        user: String,
        /// What was tried.
        step: &'static str,
        /// The system's word.
        source: Errno,
    },
}

/// A user, with all groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    name: String,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl User {
    /// Looks `name` up in the image's own files: a static binary has no name service.
    pub(super) fn find(name: &str) -> Result<Self, PrivilegeError> {
        let passwd = read(name, Path::new("/etc/passwd"))?;
        let groups = read(name, Path::new("/etc/group"))?;
        parse(name, &passwd, &groups).ok_or_else(|| PrivilegeError::NoSuchUser(name.to_owned()))
    }

    /// Becomes that user, for good: groups, ids and capability sets.
    ///
    /// The agent has one thread; the system calls act on that thread.
    pub(super) fn become_it(&self) -> Result<(), PrivilegeError> {
        let already = geteuid() == Uid::from_raw(self.uid);
        if !geteuid().is_root() && !already {
            return Err(PrivilegeError::NotRoot(self.name.clone()));
        }
        let failed = |step| move |source| PrivilegeError::System { user: self.name.clone(), step, source };
        if !already {
            let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
            let gid = Gid::from_raw(self.gid);
            let uid = Uid::from_raw(self.uid);
            empty_bounding_set().map_err(failed("capability bounding set"))?;
            set_thread_groups(&groups).map_err(failed("setgroups"))?;
            set_thread_res_gid(gid, gid, gid).map_err(failed("setresgid"))?;
            set_thread_res_uid(uid, uid, uid).map_err(failed("setresuid"))?;
        }
        drop_capabilities().map_err(failed("capabilities"))
    }

    /// Who owns the state file after that.
    pub(super) fn ids(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }
}

/// Empties every capability set of this thread. What the service manager emptied already is left alone: its filter of
/// system calls may not allow more.
pub(super) fn drop_capabilities() -> Result<(), Errno> {
    let CapabilitySets { effective, permitted, inheritable } = capabilities(None)?;
    if effective.contains(CapabilitySet::SETPCAP) {
        empty_bounding_set()?;
    }
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    if [effective, permitted, inheritable] == [none; 3] {
        return Ok(());
    }
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

/// Needs CAP_SETPCAP.
fn empty_bounding_set() -> Result<(), Errno> {
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // A capability that this kernel does not know.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read(user: &str, path: &Path) -> Result<String, PrivilegeError> {
    let failed = |source| PrivilegeError::Read { user: user.to_owned(), path: path.to_owned(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `name:password:uid:gid:…` of passwd(5) and `name:password:gid:member,member` of group(5).
fn parse(user: &str, passwd: &str, group: &str) -> Option<User> {
    let (uid, gid) = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (name == user).then_some((uid, gid))
    })?;
    let mut groups = vec![gid];
    for line in group.lines() {
        let mut fields = line.split(':').skip(2);
        let Some(other) = fields.next().and_then(|field| field.parse().ok()) else { continue };
        let member = fields.next().is_some_and(|members| members.split(',').any(|member| member == user));
        if member && !groups.contains(&other) {
            groups.push(other);
        }
    }
    Some(User { name: user.to_owned(), uid, gid, groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_comes_with_all_groups_and_a_broken_line_is_passed_over() {
        let passwd = "root:x:0:0::/:\nbroken\nmeter:x:71:72::/:\nmeter2:x:1:1::/:\n";
        let group = "meter:x:72:\nadm:x:4:meter,x\nother:x:5:x\nbroken:x\nempty:x:6:\nkvm:x:7:meter2\n";
        let user = parse("meter", passwd, group).unwrap();
        assert_eq!((user.uid, user.gid, user.groups), (71, 72, vec![72, 4]));
        assert_eq!(parse("nobody-here", passwd, group), None);
        assert_eq!(parse("broken", passwd, group), None);
    }

    #[test]
    fn this_machine_has_a_root_and_no_user_of_a_silly_name() {
        assert_eq!(User::find("root").unwrap().ids(), (0, 0));
        let error = User::find("no-such-user-here").unwrap_err().to_string();
        assert!(error.contains("no-such-user-here") && error.contains("/etc/passwd"), "{error}");
    }
}
