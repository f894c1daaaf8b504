//! Whom the process runs as. Names are looked up while the configuration is read, so that a wrong one has its line.

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::Account;
use super::complaint::{Complaints, Flaw};
use super::reader::Reader;
use std::ffi::CString;

const USERS_HELP: &str = "`getent passwd` lists the users of this machine; `useradd --system --no-create-home NAME` makes one";
const GROUPS_HELP: &str =
    "`getent group` lists the groups of this machine; `groupadd --system NAME` makes one";

/// A user as `user` gives it.
struct Owner {
    name: String,
    uid: Uid,
    /// Its own group; a number that the machine has no user for has none.
    gid: Option<Gid>,
}

/// The user and group to become; `None` when the process stays what it is.
pub(super) fn account(root: &Reader<'_>, complaints: &Complaints<'_>) -> Option<Account> {
    let owner = root.parsed("user", owner);
    let group = root.parsed("group", group);
    let Some(owner) = owner else {
        // `same` names none either; a user that is refused has been complained about.
        let named = root.changes("user") || root.refuses("user");
        if root.gives("group") && !named {
            let flaw = Flaw::new("group is given without a user");
            let help = "name a user as well: a process that keeps its user keeps its group";
            complaints.error(&root.span_of("group"), flaw.help(help));
        }
        return None;
    };
    let Some(gid) = group.or(owner.gid) else {
        if !root.gives("group") {
            let flaw = Flaw::new(format!(
                "user `{}` is not known here and has no group of its own",
                owner.name
            ));
            complaints.error(&root.span_of("user"), flaw.help("set group as well"));
        }
        return None;
    };
    Some(Account {
        groups: groups(&owner, gid),
        uid: owner.uid.as_raw(),
        gid: gid.as_raw(),
        user: owner.name,
    })
}

fn owner(text: &str) -> Result<Owner, Flaw> {
    let number = number(text)?.map(Uid::from_raw);
    let found = match number {
        Some(uid) => User::from_uid(uid),
        None => User::from_name(text),
    };
    let found = found.map_err(|error| {
        Flaw::new(format!("the user `{text}` cannot be looked up: {error}")).help(USERS_HELP)
    })?;
    let owner = match (found, number) {
        (Some(user), _) => Owner {
            name: user.name,
            uid: user.uid,
            gid: Some(user.gid),
        },
        (None, Some(uid)) => Owner {
            name: text.to_owned(),
            uid,
            gid: None,
        },
        (None, None) => {
            return Err(Flaw::new(format!("there is no user `{text}`")).help(USERS_HELP));
        }
    };
    if owner.uid.is_root() {
        let flaw = Flaw::new(format!("the user `{text}` is root, who keeps every right"));
        return Err(flaw.help("name an unprivileged user; leave user out to run as who starts it"));
    }
    Ok(owner)
}

/// A user or group that is given by its number. The largest number means "no change" where the kernel takes one (setresuid(2)).
fn number(text: &str) -> Result<Option<u32>, Flaw> {
    match text.parse() {
        Ok(u32::MAX) => Err(Flaw::new(format!("`{text}` is nobody's number"))),
        number => Ok(number.ok()),
    }
}

fn group(text: &str) -> Result<Gid, Flaw> {
    if let Some(number) = number(text)? {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(Flaw::new(format!("there is no group `{text}`")).help(GROUPS_HELP)),
        Err(error) => Err(
            Flaw::new(format!("the group `{text}` cannot be looked up: {error}")).help(GROUPS_HELP),
        ),
    }
}

/// All groups that the user is in, as a login would have them (initgroups(3)); `gid` alone for one that is not known.
fn groups(owner: &Owner, gid: Gid) -> Vec<u32> {
    let named = CString::new(owner.name.as_str()).ok();
    let listed = named
        .filter(|_| owner.gid.is_some())
        .and_then(|name| getgrouplist(&name, gid).ok());
    let mut groups: Vec<u32> = listed
        .unwrap_or_else(|| vec![gid])
        .into_iter()
        .map(Gid::as_raw)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}
