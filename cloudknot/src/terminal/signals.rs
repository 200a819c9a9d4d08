//! The signals that end a program: Ctrl-C, SIGTERM and SIGHUP. Finished items are stored first. Handled on a thread and a runtime
//! of their own, because the engine's threads may wait for output that nobody reads.

use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Terminal;
use crate::event::stop_all;

/// Maximum time that an interrupted program waits for finished items to be stored; a container has 30 seconds to store
/// them.
const STORE_TIMEOUT: Duration = Duration::from_secs(40);
/// Maximum time that an interrupted program waits for its last lines to be read.
const PRINT_TIMEOUT: Duration = Duration::from_secs(2);

/// A signal, and the listener for it.
type Listener = (SignalKind, Signal);

/// Ends the program on a signal from now on.
pub(super) fn handle(terminal: Arc<Terminal>) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // Registered before the thread starts: the user may press Ctrl-C as soon as the start of a run is shown.
    let listeners = register(&runtime)?;
    let thread = std::thread::Builder::new().name("cloudknot-signals".into());
    thread.spawn(move || runtime.block_on(end_on_signal(listeners, &terminal))).map(drop)
}

fn register(runtime: &Runtime) -> io::Result<Vec<Listener>> {
    let _entered = runtime.enter();
    let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
    if !is_ignored(SignalKind::hangup()) {
        kinds.push(SignalKind::hangup());
    }
    kinds.into_iter().map(|kind| Ok((kind, signal(kind)?))).collect()
}

/// Returns whether the program ignores a signal, as its parent has set it: `nohup` does so for SIGHUP, and it stays ignored.
///
/// Only Linux tells. Elsewhere the signal keeps its effect, ignored or not.
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask >> (kind.as_raw_value() - 1) & 1 == 1)
}

async fn end_on_signal(mut listeners: Vec<Listener>, terminal: &Terminal) {
    let kind = next(&mut listeners).await;
    terminal.interrupt();
    stop_all();
    tokio::select! {
        () = wait_for_runs(terminal) => {}
        // A second signal ends the program at once.
        _ = next(&mut listeners) => {}
    }
    terminal.show_interrupted_runs();
    terminal.flush_within(PRINT_TIMEOUT);
    // The keepers of the item processes end them, and everything that they started, once this program has ended.
    // The exit code that a shell expects of a program ended by this signal.
    std::process::exit(128 + kind.as_raw_value());
}

/// Returns the next signal.
async fn next(listeners: &mut [Listener]) -> SignalKind {
    std::future::poll_fn(|context| {
        let received =
            listeners.iter_mut().find_map(|(kind, listener)| listener.poll_recv(context).is_ready().then_some(*kind));
        received.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

async fn wait_for_runs(terminal: &Terminal) {
    let began = Instant::now();
    let mut hint_shown = false;
    while terminal.has_runs() && began.elapsed() < STORE_TIMEOUT {
        if !hint_shown && began.elapsed() > Duration::from_secs(1) {
            terminal.show_interrupt_hint();
            hint_shown = true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
