//! What the tests' own tools must notice.

mod support;

use std::process::Command;

use support::{Origin, Response, Wire};

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

/// RFC 9112 section 8: a message that ends with its connection is whole only where that was closed in good order.
#[test]
fn a_reset_is_not_the_end_of_an_answer() {
    let origin = Origin::bind();
    let mut client = Wire::connect(origin.address.parse().expect("an address"));
    let mut server = origin.accept();
    server.send("HTTP/1.1 200 OK\r\n\r\nhalf");
    let mut response = Response::read_head(&mut client, "GET").expect("a head");
    server.reset();
    assert!(response.read_body(&mut client).is_err());
}

/// To the proxy it is a server that closes, for which it may answer just what the test expects.
#[test]
fn an_origin_that_panics_complains() {
    let served = Origin::bind().serve(|_| panic!("by design"));
    let mut client = Wire::connect(served.address.parse().expect("an address"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_close();
    assert_eq!(served.take_complaints().len(), 1);
}
