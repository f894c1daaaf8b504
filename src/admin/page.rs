//! The page at `/lb/`: a document, a style sheet, two scripts and a picture, all within this program. One script reads the status
//! page every second, the other gives orders, and the Content-Security-Policy lets them reach nothing but this listener.

use super::http::Answer;

/// Path, Content-Type and content.
type File = (&'static str, &'static str, &'static str);

const FILES: [File; 5] = [
    (
        "/lb/",
        "text/html; charset=utf-8",
        include_str!("page/index.html"),
    ),
    (
        "/lb/page.css",
        "text/css; charset=utf-8",
        include_str!("page/page.css"),
    ),
    (
        "/lb/page.js",
        "text/javascript; charset=utf-8",
        include_str!("page/page.js"),
    ),
    (
        "/lb/steer.js",
        "text/javascript; charset=utf-8",
        include_str!("page/steer.js"),
    ),
    (
        "/lb/icon.svg",
        "image/svg+xml",
        include_str!("page/icon.svg"),
    ),
];

/// The file at this path.
pub(super) fn file(path: &str) -> Option<Answer> {
    let (_, content_type, content) = FILES.into_iter().find(|(at, ..)| *at == path)?;
    Some(Answer::new(200, content_type, content.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names come from the configuration and reasons from us, but what is on the page is text, never markup.
    #[test]
    fn the_page_holds_nothing_that_its_policy_forbids_and_makes_no_markup() {
        for (path, _, content) in FILES {
            let inline = ["<style", "style=\"", " onload", " onclick", "<script>"];
            let markup = ["innerHTML", "outerHTML", "insertAdjacent", "document.write"];
            let code = ["eval(", "Function(", "http://", "https://", "//cdn"];
            let forbidden = inline.iter().filter(|_| path == "/lb/");
            for text in forbidden.chain(&markup).chain(&code) {
                let content = content.replace("http://www.w3.org/2000/svg", "");
                assert!(!content.contains(text), "{path} has {text}");
            }
        }
    }
}
