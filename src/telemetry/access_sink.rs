//! Where the access log's lines go: a file, a FIFO or standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags};

/// Opening it never waits; writing may.
pub(super) struct Sink {
    /// None is standard output.
    path: Option<PathBuf>,
    /// Has no buffer: what it took is written.
    out: Box<dyn Write + Send>,
    /// What is written ends within a line.
    torn: bool,
}

impl Sink {
    pub(super) fn new(path: Option<PathBuf>, out: impl Write + Send + 'static) -> Self {
        Self {
            path,
            out: Box::new(out),
            torn: false,
        }
    }

    /// Opens a file for appending, or standard output for no path. The error names the file.
    pub(super) fn open(path: Option<PathBuf>) -> io::Result<Self> {
        let file = open(path.as_deref())?;
        Ok(Self::new(path, Patient(file)))
    }

    /// Opens the file again by its name. With an error the old one stays.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let file = open(self.path.as_deref())?;
        let is_new = |found: std::fs::Metadata| found.is_file() && found.len() == 0;
        self.torn &= !file.metadata().is_ok_and(is_new);
        self.out = Box::new(Patient(file));
        Ok(())
    }

    /// Its name, for people.
    pub(super) fn name(&self) -> String {
        let path = self.path.as_ref();
        path.map_or_else(
            || "standard output".into(),
            |path| path.display().to_string(),
        )
    }

    /// Writes lines. An error comes with how many of them are not there as a whole.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        if self.torn {
            let ended = self.out.write_all(b"\n");
            ended.map_err(|error| (line_count(lines), error))?;
            self.torn = false;
        }
        let mut rest = lines;
        let error = loop {
            if rest.is_empty() {
                return Ok(());
            }
            match self.out.write(rest) {
                Ok(0) => break io::ErrorKind::WriteZero.into(),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
        };
        let written = &lines[..lines.len() - rest.len()];
        self.torn = written.last().is_some_and(|last| *last != b'\n');
        Err((line_count(rest), error))
    }
}

/// A file that is waited for when it takes nothing. Who shares standard output with us may have it not block (`O_NONBLOCK` belongs to the
/// open file, fcntl(2)), and a full pipe is no failed disk.
struct Patient(File);

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    rustix::event::poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None)?;
                }
                outcome => return outcome,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Lines that end in these bytes.
pub(super) fn line_count(bytes: &[u8]) -> u64 {
    bytes.split(|byte| *byte == b'\n').count() as u64 - 1
}

/// Others may not read a new file: it names clients.
fn open(path: Option<&Path>) -> io::Result<File> {
    let Some(path) = path else {
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        return Ok(output.into());
    };
    let named = |why: &dyn std::fmt::Display, error: &io::Error| {
        io::Error::new(error.kind(), format!("{}: {why}", path.display()))
    };
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        // Without it, a FIFO is opened when somebody reads it, and signals wait as long.
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let file = file.map_err(|error| match error.raw_os_error() {
        Some(libc::ENXIO) if is_fifo(path) => {
            named(&"nobody reads this FIFO; start its reader first", &error)
        }
        Some(libc::ENOENT) => named(&"its directory is missing; make it first", &error),
        _ => named(&error, &error),
    })?;
    rustix::io::ioctl_fionbio(&file, false).map_err(|error| named(&error, &error.into()))?;
    Ok(file)
}

fn is_fifo(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.file_type().is_fifo())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::fs;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::process::Command;
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn temporary(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!(
            "ringlane-access-sink-{}-{name}",
            std::process::id()
        ))
    }

    fn fifo(name: &str) -> PathBuf {
        let path = temporary(name);
        let made = Command::new("mkfifo").arg(&path).status();
        assert!(made.is_ok_and(|status| status.success()));
        path
    }

    /// A disk with so much room, again and again; it refuses a write when the room is used up.
    struct Disk {
        room: VecDeque<usize>,
        text: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.room.front_mut() {
                Some(0) => {
                    self.room.pop_front();
                    Err(io::ErrorKind::StorageFull.into())
                }
                room => {
                    let taken = room
                        .as_deref()
                        .map_or(bytes.len(), |room| bytes.len().min(*room));
                    if let Some(room) = room {
                        *room -= taken;
                    }
                    let mut text = self.text.lock().expect("a whole text");
                    text.extend_from_slice(&bytes[..taken]);
                    Ok(taken)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_pipe_that_does_not_block_is_waited_for() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        rustix::io::ioctl_fionbio(&writer, true).expect("a pipe has that");
        let mut filled = 0;
        while let Ok(count) = (&writer).write(&[b'.'; 4096]) {
            filled += count;
        }
        let reading = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        let lines = "a line of the log\n".repeat(50_000); // more than a pipe holds
        let mut sink = Sink::new(None, Patient(File::from(OwnedFd::from(writer))));
        sink.write(lines.as_bytes()).expect("all is taken");
        drop(sink);
        let text = reading.join().expect("no panic").expect("a text");
        assert!(text[filled..] == lines, "{} bytes", text.len());
    }

    #[test]
    fn a_full_disk_tears_one_line_and_no_other() {
        let cases: [(&[usize], [u64; 3], &str); 6] = [
            (&[], [0, 0, 0], "a1\na2\nb1\nb2\nc1\nc2\n"),
            (&[0], [2, 0, 0], "b1\nb2\nc1\nc2\n"),
            (&[3], [1, 0, 0], "a1\nb1\nb2\nc1\nc2\n"),
            (&[1], [2, 0, 0], "a\nb1\nb2\nc1\nc2\n"),
            (&[5, 0], [1, 2, 0], "a1\na2\nc1\nc2\n"),
            (&[4, 2], [1, 2, 0], "a1\na\nb\nc1\nc2\n"),
        ];
        for (room, lost, expected) in cases {
            let text = Arc::new(Mutex::new(Vec::new()));
            let disk = Disk {
                room: room.iter().copied().collect(),
                text: Arc::clone(&text),
            };
            let mut sink = Sink::new(None, disk);
            let batches = ["a1\na2\n", "b1\nb2\n", "c1\nc2\n"];
            let found = batches.map(|lines| {
                sink.write(lines.as_bytes())
                    .map_or_else(|lost| lost.0, |()| 0)
            });
            let text = text.lock().expect("a whole text");
            assert_eq!(
                (str::from_utf8(&text), found),
                (Ok(expected), lost),
                "{room:?}"
            );
        }
    }

    #[test]
    fn a_new_file_begins_with_a_line() {
        let path = temporary("new");
        let mut sink = Sink::open(Some(path.clone())).expect("a file");
        for expected in ["a\n", "a\n\nb\n"] {
            sink.torn = true;
            sink.reopen().expect("a file");
            sink.write(&expected.as_bytes()[expected.len() - 2..])
                .expect("room");
            assert_eq!(fs::read_to_string(&path).expect("there"), expected);
        }
        fs::remove_file(&path).expect("there");
    }

    #[test]
    fn a_fifo_needs_a_reader() {
        let path = fifo("reader");
        let (done, told) = channel();
        let opening = path.clone();
        thread::spawn(move || done.send(Sink::open(Some(opening)).err()));
        let error = told.recv_timeout(Duration::from_secs(20)).expect("no hang");
        let error = error.expect("nobody reads").to_string();
        assert!(
            error.contains("nobody reads this FIFO") && error.contains("reader"),
            "{error}"
        );

        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let mut sink = Sink::open(Some(path.clone())).expect("somebody reads");
        let mut reader = File::open(&path).expect("a FIFO");
        drop(opened);
        fs::remove_file(&path).expect("there");
        // More than fits: the rest waits.
        let lines = b"a line\n".repeat(100_000);
        let writing = thread::spawn(move || sink.write(&lines).is_ok());
        let mut text = Vec::new();
        reader.read_to_end(&mut text).expect("what was written");
        assert!(writing.join().expect("no panic"));
        assert_eq!(line_count(&text), 100_000);
    }
}
