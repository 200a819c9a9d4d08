//! A proxy in front of a registry that misbehaves as networks and busy registries do.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// What goes wrong, and how many times.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The connection is cut after this many bytes from the client, in a request that is longer than that.
    Cut {
        /// How many bytes come through.
        after: usize,
        /// How many connections are cut.
        times: u32,
    },
    /// Requests that begin like this are answered with this status, and do not reach the registry.
    Answer {
        /// The beginning, such as `POST `.
        to: &'static str,
        /// The status line's number and text.
        status: &'static str,
        /// How many requests are answered so.
        times: u32,
    },
}

/// The proxy; it lasts as long as the process.
pub struct Proxy {
    port: u16,
    left: Arc<AtomicU32>,
}

impl Proxy {
    /// A proxy in front of this host.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn before(host: String, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let port = listener.local_addr().expect("a listener has an address").port();
        let (Fault::Cut { times, .. } | Fault::Answer { times, .. }) = fault;
        let left = Arc::new(AtomicU32::new(times));
        let counter = left.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (host, left) = (host.clone(), counter.clone());
                thread::spawn(move || serve(client, &host, fault, &left));
            }
        });
        Self { port, left }
    }

    /// Where it is: a host and a port.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How many faults are still to come.
    pub fn left(&self) -> u32 {
        self.left.load(Ordering::SeqCst)
    }
}

fn serve(mut client: TcpStream, host: &str, fault: Fault, left: &AtomicU32) -> io::Result<()> {
    let mut server = TcpStream::connect(host)?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let mut passed = 0;
    let mut piece = vec![0; 64 * 1024];
    loop {
        let size = client.read(&mut piece).unwrap_or(0);
        if size == 0 {
            break;
        }
        match fault {
            Fault::Cut { after, .. } if passed + size > after && take(left) => {
                // As much as fits goes through, so that the registry is left with half of it.
                server.write_all(&piece[..after.saturating_sub(passed)])?;
                client.shutdown(Shutdown::Both)?;
                break;
            }
            // The client waits for an answer before it asks again, so a request begins where a piece does.
            Fault::Answer { to, status, .. } if piece.starts_with(to.as_bytes()) && take(left) => {
                write!(client, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
                client.shutdown(Shutdown::Both)?;
                break;
            }
            _ => server.write_all(&piece[..size])?,
        }
        passed += size;
    }
    server.shutdown(Shutdown::Both)?;
    let _ = back.join();
    Ok(())
}

/// Takes one of those that are left, if any is.
fn take(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}
