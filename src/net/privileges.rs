//! Giving up what only the start needs: root's identity, capabilities, and every way back to them (credentials(7), capabilities(7)).
//!
//! Capabilities and `no_new_privs` belong to threads, and a new thread takes those of the one that starts it. So this is done before there
//! are others. The user and the groups are changed by the C library, which changes them in all threads.

use std::io;

use nix::unistd::{
    Gid, Uid, getegid, geteuid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid,
};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::config::Account;

/// Ports from here on are everyone's, where the kernel does not say (ip(7)).
const UNPRIVILEGED_PORT: u16 = 1024;

/// Whom the process runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Whether it may still bind ports that others may not.
    pub binds_low_ports: bool,
}

/// Whether the kernel keeps any of these ports from those without `CAP_NET_BIND_SERVICE`.
pub fn are_any_low(mut ports: impl Iterator<Item = u16>) -> bool {
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(UNPRIVILEGED_PORT);
    ports.any(|port| port < first_free)
}

/// Becomes `account` and gives up all capabilities, for good, but that to bind low ports if it is to be kept; execve(2) can gain none
/// either. Without an account, root stays root and keeps all. The error is a sentence that says what to do.
pub fn renounce(account: Option<&Account>, keep_low_ports: bool) -> Result<Identity, String> {
    rustix::thread::set_no_new_privs(true).map_err(failed("no_new_privs cannot be set"))?;
    if let Some(account) = account {
        // The right to do this goes with the user. Without it the set is of no use either: no_new_privs holds.
        let _ = empty_bounding_set();
        if !is(account) {
            rustix::thread::set_keep_capabilities(true)
                .map_err(failed("capabilities cannot be kept"))?;
            become_account(account)?;
        }
    }
    if !geteuid().is_root() {
        let keep = if keep_low_ports {
            CapabilitySet::NET_BIND_SERVICE
        } else {
            CapabilitySet::empty()
        };
        keep_only(keep).map_err(failed("the capabilities cannot be given up"))?;
    }
    let held = rustix::thread::capabilities(None)
        .map_err(failed("the capabilities cannot be looked at"))?;
    Ok(Identity {
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
        binds_low_ports: held.effective.contains(CapabilitySet::NET_BIND_SERVICE),
    })
}

/// Whether the process was started as `account`, as by `User=` of systemd.
fn is(account: &Account) -> bool {
    let Account { uid, gid, .. } = account;
    let ids = getresuid().ok().zip(getresgid().ok());
    ids.is_some_and(|(users, groups)| {
        [users.real, users.effective, users.saved].map(Uid::as_raw) == [*uid; 3]
            && [groups.real, groups.effective, groups.saved].map(Gid::as_raw) == [*gid; 3]
    })
}

fn become_account(account: &Account) -> Result<(), String> {
    let refused = |error: nix::Error| refusal(account, error);
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    let groups: Vec<Gid> = account.groups.iter().copied().map(Gid::from_raw).collect();
    // The user last: with it goes the right to set the groups.
    setgroups(&groups).map_err(refused)?;
    setresgid(gid, gid, gid).map_err(refused)?;
    setresuid(uid, uid, uid).map_err(refused)?;
    // Capabilities that are kept are not in force now, so this shows whether the way back is closed.
    let root = Uid::from_raw(0);
    let mut held: Vec<u32> = getgroups()
        .map_err(refused)?
        .into_iter()
        .map(Gid::as_raw)
        .collect();
    held.sort_unstable();
    if !is(account) || held != account.groups || setresuid(root, root, root).is_ok() {
        return Err(format!(
            "the process could not become user `{}` for good; it does not go on as something between",
            account.user
        ));
    }
    Ok(())
}

fn refusal(account: &Account, error: nix::Error) -> String {
    let user = &account.user;
    match error {
        nix::Error::EPERM => format!(
            "user `{user}`: the process runs as user {} and may not become another (CAP_SETUID, CAP_SETGID); start it as root or as `{user}`, or leave user out",
            geteuid()
        ),
        error => format!("user `{user}`: the process cannot become it: {error}"),
    }
}

fn keep_only(keep: CapabilitySet) -> rustix::io::Result<()> {
    let kept = rustix::thread::capabilities(None)?.permitted & keep;
    // Ambient capabilities must be inheritable, so these go with the others.
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )
}

/// Ends at the first number that the kernel does not know.
fn empty_bounding_set() -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Err(rustix::io::Errno::INVAL) => break,
            outcome => outcome?,
        }
    }
    Ok(())
}

fn failed(what: &'static str) -> impl Fn(rustix::io::Errno) -> String {
    move |error| format!("{what}: {}", io::Error::from(error))
}
