//! Two processes on one address: both are served by the kernel in turn (`SO_REUSEPORT`, socket(7)), and the second says so.

mod support;

use support::{Config, Mode, Origin, Served, Wire, eventually, in_each_mode};

in_each_mode!(a_second_process_starts_with_a_warning,);

fn a_second_process_starts_with_a_warning(mode: Mode) {
    let (old, new) = (Origin::serve_text("old"), Origin::serve_text("new"));
    let start = |address: &str, origin: &Served| {
        Config::new(mode)
            .tables(&format!("[[listen]]\naddress = \"{address}\""))
            .upstream(&[&origin.address], "")
            .start()
    };
    let warned = |log: Vec<String>| {
        log.iter()
            .any(|line| line.contains("another socket is bound there"))
    };
    let mut first = start("127.0.0.1:0", &old);
    let address = first.addresses[0];
    let second = start(&address.to_string(), &new);
    assert!(warned(second.log()), "{:?}", second.log());
    assert!(!warned(first.log()), "{:?}", first.log());
    let ask = || Wire::connect(address).get("/").text();
    eventually("both are asked", || {
        let answers: Vec<_> = (0..20).map(|_| ask()).collect();
        ["old", "new"]
            .iter()
            .all(|one| answers.iter().any(|answer| answer == one))
    });
    // What lingers there of the first is no listener.
    first.stop();
    assert!((0..20).all(|_| ask() == "new"));
    drop(second);
    let third = start(&address.to_string(), &old);
    assert!(!warned(third.log()), "{:?}", third.log());
}
