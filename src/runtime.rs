//! A thread with a monoio runtime of its own, for the sample origin and the byte relay.
//!
//! Both sit beside the proxy, not in it: they need one thread, the best ring flags and epoll where `io_uring` is refused.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use monoio::net::TcpStream;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use socket2::{Domain, Protocol, Socket, Type};

use crate::net::affinity;
use crate::net::ring::{ENTRIES, Flags, header, patiently};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Accepts outstanding on one listener: one loop turn takes that many connections.
const ACCEPTS: usize = 8;
/// Pause after an accept that failed (descriptors used up, most likely), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Opens a listening socket whose connections have `TCP_NODELAY`.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    };
    let open = || {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?; // accepted sockets inherit it, which saves a system call each
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(named)
}

/// Starts a thread, on `cpu` if given, that runs what `main` returns; comes back when its runtime is built.
pub(crate) fn start<M, F>(name: &str, cpu: Option<usize>, main: M) -> io::Result<()>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let (built, outcome) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let pinned = cpu.map_or(Ok(()), pin);
            run(pinned, &built, main);
        })?;
    outcome
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("the thread ended before it was ready")))
}

/// Ties the calling thread to `cpu`.
fn pin(cpu: usize) -> io::Result<()> {
    if affinity::pin_to(cpu) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "cannot pin a thread to CPU {cpu}: choose one that this process may use (taskset -p shows them)"
    )))
}

/// Builds the runtime on this thread, reports the outcome, and runs `main` to its end.
fn run<M, F>(pinned: io::Result<()>, built: &mpsc::SyncSender<io::Result<()>>, main: M)
where
    M: FnOnce() -> F,
    F: Future<Output = ()> + 'static,
{
    let report = |outcome| built.send(outcome).is_ok();
    if let Err(error) = pinned {
        report(Err(error));
    } else if let Ok(mut runtime) = header::alone(|| patiently(|| ring().enable_timer().build())) {
        report(Ok(()));
        runtime.block_on(main());
    } else {
        match RuntimeBuilder::<LegacyDriver>::new().enable_timer().build() {
            Ok(mut runtime) => {
                report(Ok(()));
                runtime.block_on(main());
            }
            Err(error) => {
                report(Err(error));
            }
        }
    }
}

/// The ring that a shard has on a kernel which takes the best flags.
fn ring() -> RuntimeBuilder<IoUringDriver> {
    RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(ENTRIES)
        .uring_builder(Flags::DeferTaskrun.builder(ENTRIES))
}

/// Accepts connections for ever and runs `serve` on each as a task of its own. Call it on a runtime's thread.
pub(crate) fn accept<S, F>(listener: TcpListener, serve: S) -> io::Result<()>
where
    S: Fn(TcpStream) -> F + Clone + 'static,
    F: Future<Output = ()> + 'static,
{
    // epoll needs a socket that does not block, io_uring one that does: it answers EAGAIN otherwise instead of waiting.
    listener.set_nonblocking(monoio::utils::is_legacy())?;
    let listener = std::rc::Rc::new(monoio::net::TcpListener::from_std(listener)?);
    for _ in 0..ACCEPTS {
        let (listener, serve) = (listener.clone(), serve.clone());
        monoio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(monoio::spawn(serve(stream))),
                    Err(_) => monoio::time::sleep(ACCEPT_PAUSE).await,
                }
            }
        });
    }
    Ok(())
}
