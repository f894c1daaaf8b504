//! What the tests' own tools must notice.

mod support;

use std::process::Command;

/// Set where the test runs itself.
const AGAIN: &str = "RINGLANE_TEST_LEFT_OUT";

#[test]
fn a_test_that_is_left_out_says_so_though_it_passes() {
    if std::env::var_os(AGAIN).is_some() {
        support::left_out("sample", "it is one");
        return;
    }
    let program = std::env::current_exe().expect("the test's own program");
    let output = Command::new(program)
        .args([
            "--exact",
            "a_test_that_is_left_out_says_so_though_it_passes",
        ])
        .env(AGAIN, "1")
        .output()
        .expect("it runs now");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(
        errors.contains("sample: LEFT OUT, for it is one"),
        "{errors}"
    );
}
