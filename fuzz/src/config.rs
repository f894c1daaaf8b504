//! Configuration text: it is taken or complained about, and a complaint points into the text.

use ringlane::config::Config;

/// Reads a configuration file.
pub fn parse(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Err(complaints) = Config::parse(text, "fuzz.toml") else {
        return;
    };
    assert!(!complaints.is_empty(), "refused without a reason");
    for complaint in complaints {
        let shown = complaint.to_string();
        assert!(
            !shown.contains('\r') && !shown.contains('\x1b'),
            "{shown:?}"
        );
        if let Some(place) = &complaint.place {
            let line = text.split('\n').nth(place.line - 1);
            let line = line.expect("a line of the file").chars().count();
            assert!(place.column <= line + 1, "{shown}");
        }
    }
}
