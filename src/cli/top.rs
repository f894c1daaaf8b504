//! `ringlane top`: a running proxy in the terminal.

mod rows;
mod screen;
mod view;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use self::rows::Sort;
use self::screen::Screen;
use self::view::View;
use super::client::Client;
use super::place::Place;
use super::{WRONG_USE, say};

const EVERY: Duration = Duration::from_secs(1);
/// How late a signal may be noticed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

const AFTER_HELP: &str = "\
The address is that of --admin, else that of [admin] in --config, else 127.0.0.1:9900.

Keys: q quits, s goes through the orders of --sort, arrows and Page Up and Down scroll.
Where standard output is no terminal, one table is printed, as with --once.

Exit code: 0 when done, 1 when the proxy cannot be reached, 2 for wrong use.";

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct TopArgs {
    #[command(flatten)]
    place: Place,
    /// Print one table and end
    #[arg(long)]
    once: bool,
    /// What the servers are sorted by
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
}

pub(super) fn run(args: &TopArgs) -> ExitCode {
    let client = match args.place.reader() {
        Ok(client) => client,
        Err(why) => {
            say(&format!("error: {why}"));
            return ExitCode::from(WRONG_USE);
        }
    };
    let outcome = if args.once || !io::stdout().is_terminal() {
        once(&client, args.sort)
    } else {
        watch(client, args.sort).map_err(|error| format!("the terminal: {error}"))
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&format!("error: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn once(client: &Client, sort: Sort) -> Result<(), String> {
    let mut view = View::new(sort);
    view.take(client.status()?.0, Instant::now());
    let mut stdout = io::stdout().lock();
    for line in view.lines() {
        // A reader that has seen enough, such as head(1), is no failure.
        if writeln!(stdout, "{}", line.text).is_err() {
            break;
        }
    }
    Ok(())
}

/// An answer and when it came.
type Answered = (Instant, Result<Value, String>);

/// Asks every second, in a thread of its own: a proxy that hangs must not keep `q` from working.
fn ask(client: Client) -> io::Result<Receiver<Answered>> {
    let (answers, received) = sync_channel(1);
    let ask = move |answers: SyncSender<Answered>| {
        loop {
            let start = Instant::now();
            let answer = client.status().map(|(status, _)| status);
            if answers.send((Instant::now(), answer)).is_err() {
                return;
            }
            thread::sleep(EVERY.saturating_sub(start.elapsed()));
        }
    };
    thread::Builder::new()
        .name("top-client".to_owned())
        .spawn(move || ask(answers))?;
    Ok(received)
}

/// Until `q` or a signal.
fn watch(client: Client, sort: Sort) -> io::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let answers = ask(client)?;
    let mut screen = Screen::enter()?;
    let mut view = View::new(sort);
    screen.draw(&view)?;
    while !stop.load(Relaxed) {
        let mut changed = false;
        while let Ok((at, answer)) = answers.try_recv() {
            match answer {
                Ok(status) => view.take(status, at),
                Err(why) => view.fail(why, at),
            }
            changed = true;
        }
        if event::poll(LOOK_EVERY)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    if quits(key) {
                        return Ok(());
                    }
                    press(&mut view, key.code);
                    changed = true;
                }
                Event::Resize(..) => changed = true,
                _ => {}
            }
        }
        if changed {
            screen.draw(&view)?;
        }
    }
    Ok(())
}

fn quits(key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
        || control && key.code == KeyCode::Char('c')
}

fn press(view: &mut View, key: KeyCode) {
    const PAGE: isize = 10;
    match key {
        KeyCode::Char('s') => view.sort_by_next(),
        KeyCode::Up => view.scroll(-1),
        KeyCode::Down => view.scroll(1),
        KeyCode::PageUp => view.scroll(-PAGE),
        KeyCode::PageDown => view.scroll(PAGE),
        KeyCode::Home => view.scroll(isize::MIN),
        _ => {}
    }
}
