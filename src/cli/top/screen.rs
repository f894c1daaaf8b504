//! The terminal while `ringlane top` has it. However the program ends, the terminal is given back as it was.

use std::io::{self, Write as _};
use std::panic;
use std::sync::Once;

use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, queue};

use super::rows::Mood;
use super::view::{Line, View};

/// The terminal in raw mode, on its other screen. Dropping it gives both back.
pub(super) struct Screen {
    out: io::Stdout,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn enter() -> io::Result<Self> {
        give_back_before_a_panic_is_told();
        terminal::enable_raw_mode()?;
        let mut screen = Self { out: io::stdout() };
        execute!(screen.out, EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    /// Shows as much as fits.
    pub(super) fn draw(&mut self, view: &View) -> io::Result<()> {
        let (width, height) = terminal::size()?;
        let mut out = self.out.lock();
        for (row, line) in view.visible(usize::from(height)).into_iter().enumerate() {
            queue!(out, cursor::MoveTo(0, row as u16))?;
            draw_line(&mut out, &line, usize::from(width))?;
        }
        queue!(out, Clear(ClearType::FromCursorDown))?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Nobody is left to tell when it fails.
fn give_back() {
    let _ = execute!(io::stdout(), ResetColor, cursor::Show, LeaveAlternateScreen);
    let _ = terminal::disable_raw_mode();
}

/// What a panic says would be lost with the other screen.
fn give_back_before_a_panic_is_told() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            give_back();
            told(panic);
        }));
    });
}

fn draw_line(out: &mut impl io::Write, line: &Line, width: usize) -> io::Result<()> {
    match line.mood {
        Mood::Plain => {}
        Mood::Title => queue!(out, SetAttribute(Attribute::Bold))?,
        Mood::Warning => queue!(out, SetForegroundColor(Color::Yellow))?,
        Mood::Bad => queue!(
            out,
            SetForegroundColor(Color::Red),
            SetAttribute(Attribute::Bold)
        )?,
    }
    let text: String = line.text.chars().take(width).collect();
    queue!(
        out,
        Print(text),
        SetAttribute(Attribute::Reset),
        ResetColor,
        Clear(ClearType::UntilNewLine),
        Print("\r\n")
    )
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;
    use std::process::Command;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    const CHILD: &str = "RINGLANE_TEST_PANIC_ON_SCREEN";
    const NAME: &str = "cli::top::screen::tests::a_panic_gives_the_terminal_back_before_it_is_told";

    /// Runs itself in a terminal of its own, where it panics.
    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        if std::env::var_os(CHILD).is_some() {
            let _screen = Screen::enter().expect("a terminal");
            panic!("provoked");
        }
        let control = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&control).expect("it is ours");
        unlockpt(&control).expect("it is ours");
        let name = ptsname(&control, Vec::new()).expect("it has a name");
        let open = || {
            let path = name.to_str().expect("a path in /dev");
            File::options().read(true).write(true).open(path)
        };
        let ours = open().expect("it opens");
        let lines = || {
            rustix::termios::tcgetattr(&ours)
                .expect("a terminal")
                .local_modes
        };
        let before = lines();
        let mut child = Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", NAME, "--nocapture"])
            .env(CHILD, "1")
            .env("RUST_BACKTRACE", "0")
            .stdin(open().expect("it opens"))
            .stdout(open().expect("it opens"))
            .stderr(open().expect("it opens"))
            .spawn()
            .expect("it starts");
        assert!(!child.wait().expect("it ends").success());
        assert_eq!(lines(), before, "the line discipline is as before");
        // What the child wrote comes in pieces; the end of it is an error, when nobody has the terminal open any more (pty(7)).
        drop(ours);
        let mut bytes = Vec::new();
        let _ = File::from(control).read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        let entered = text.find("\x1b[?1049h").expect("it took the screen");
        let left = text.find("\x1b[?1049l").expect("it gave the screen back");
        let told = text.find("provoked").expect("the panic is told");
        assert!(entered < left && left < told, "{text:?}");
    }
}
