//! Proxy in front of a registry that injects the faults of networks and busy registries.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Fault to inject, and the number of times.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Cuts the connection after this many bytes from the client, in a request that is longer than that.
    Cut {
        /// Number of bytes that are forwarded.
        after: usize,
        /// Number of connections to cut.
        times: u32,
    },
    /// Answers requests with this prefix with this status, without forwarding them to the registry.
    Answer {
        /// Prefix, such as `POST `.
        to: &'static str,
        /// Number and text of the status line.
        status: &'static str,
        /// Number of requests to answer.
        times: u32,
    },
}

/// Proxy that lasts as long as the process.
pub struct Proxy {
    port: u16,
    left: Arc<AtomicU32>,
}

impl Proxy {
    /// Creates a proxy in front of this host.
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

    /// Returns the host and the port of the proxy.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the number of faults still to inject.
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
                // Forwards as much as fits, so that the registry has only a part of the request.
                server.write_all(&piece[..after.saturating_sub(passed)])?;
                client.shutdown(Shutdown::Both)?;
                break;
            }
            // The client waits for an answer before its next request, so a request begins where a piece does.
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

/// Uses up one of the remaining faults, and returns whether there was any.
fn take(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}
