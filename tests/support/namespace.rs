//! Network namespaces, for what a test must not do to the whole machine.

use std::process::Command;

use super::{Mode, left_out};

/// Set where a test runs in a namespace of its own.
const INSIDE: &str = "RINGLANE_TEST_IN_NAMESPACE";

/// Whether the test is to go on: it runs in a namespace of its own. Else it is started there, and fails here if it fails there.
pub(crate) fn is_in_own_network(test: &str, mode: Mode) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.is_ok_and(|status| status.success()), "loopback is up");
        return true;
    }
    let unshare = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        // An unprivileged user is root in a user namespace.
        if !nix::unistd::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.arg("--net").args(arguments);
        command.output()
    };
    if !unshare(&["true"]).is_ok_and(|output| output.status.success()) {
        left_out(test, "unshare --net is missing or forbidden here");
        return false;
    }
    let program = std::env::current_exe().expect("the test's own program");
    let name = format!("{test}::{}", format!("{mode:?}").to_lowercase());
    let program = program.to_str().expect("a path of the build");
    let inner = ["env", &format!("{INSIDE}=1"), program, "--exact", &name];
    let output = unshare(&inner).expect("it could be run before");
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && said.contains("1 passed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(passed, "in the namespace:\n{said}{errors}");
    let inside = errors
        .lines()
        .filter_map(|line| line.split_once(": LEFT OUT, for "));
    for (test, reason) in inside {
        left_out(test, reason);
    }
    false
}

/// Rules for the packets of a namespace (nft(8)).
pub(crate) struct Firewall {
    table: &'static str,
}

impl Firewall {
    /// One without rules; `None`, and it is said, where that is not possible.
    pub(crate) fn raise(test: &str) -> Option<Self> {
        let table = "ip t";
        let chain =
            |hook| format!("add chain {table} {hook} {{ type filter hook {hook} priority 0; }}");
        let chains = ["input", "output"].map(chain).join("; ");
        if nft(&format!("add table {table}; {chains}")) {
            return Some(Self { table });
        }
        left_out(test, "nft is missing or forbidden here");
        None
    }

    /// Adds a rule to the chain `input` or `output`, which it begins with.
    #[track_caller]
    pub(crate) fn add(&self, rule: &str) {
        let added = nft(&format!("add rule {} {rule}", self.table));
        assert!(added, "{rule}");
    }
}

fn nft(rules: &str) -> bool {
    let status = Command::new("nft").arg(rules).status();
    status.is_ok_and(|status| status.success())
}
