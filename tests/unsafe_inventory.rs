//! Holds the list of unsafe code in docs/unsafe.md to the code, both ways.

#[path = "support/sources.rs"]
mod sources;

use std::fs;
use std::path::PathBuf;

use sources::rust_files;

const PAGE: &str = include_str!("../docs/unsafe.md");

/// File and beginning of each block, by file and then as they stand.
type Inventory = Vec<(String, String)>;

#[test]
fn every_unsafe_block_is_on_the_page() {
    let mut in_code = Inventory::new();
    for file in rust_files(&root().join("src")) {
        let text = fs::read_to_string(&file).expect("a source file");
        let name = file.strip_prefix(root()).expect("below the root");
        let blocks = blocks(&text).into_iter();
        in_code.extend(blocks.map(|block| (name.display().to_string(), block)));
    }
    assert!(
        in_code.len() > 3,
        "the search finds what is there: {in_code:?}"
    );
    let mut on_page: Inventory = PAGE.lines().filter_map(row).collect();
    in_code.sort();
    on_page.sort();
    assert_eq!(in_code, on_page, "docs/unsafe.md must list each block");
}

#[test]
fn blocks_are_found() {
    let text = "// unsafe { a }\nlet a = unsafe { b(c) };\nlet d = unsafe {\n    e(\n};\nunsafe impl F for G {}\nunsafe fn h() {}";
    assert_eq!(blocks(text), ["b(c)", "e(", "impl F for G {}", "fn h() {}"]);
}

/// The first line of what follows each `unsafe`, comments and attributes apart.
fn blocks(text: &str) -> Vec<String> {
    let code: Vec<&str> = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default().trim())
        .collect();
    let mut found = Vec::new();
    for (number, line) in code.iter().enumerate() {
        for (_, after) in line
            .match_indices("unsafe ")
            .map(|(at, word)| line.split_at(at + word.len()))
        {
            let inside = match after.strip_prefix('{').map(str::trim) {
                // The block's own first line.
                Some("") => code.get(number + 1).copied().unwrap_or_default(),
                // One line, up to the brace that closes the block.
                Some(inside) => inside.split('}').next().unwrap_or_default(),
                None => after,
            };
            found.push(inside.trim().to_owned());
        }
    }
    found
}

/// File and block of a row of the page's table.
fn row(line: &str) -> Option<(String, String)> {
    let mut cells = line.strip_prefix("| `")?.split(" | ");
    let file = cells.next()?.trim_end_matches('`');
    let block = cells.next()?.trim_matches('`');
    Some((file.to_owned(), block.to_owned()))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
