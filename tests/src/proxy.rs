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
    /// Responds with this status to requests with this prefix, without forwarding them to the registry.
    Respond {
        /// Prefix, such as `POST `.
        to: &'static str,
        /// Number and text of the status line.
        status: &'static str,
        /// Number of requests to respond to.
        times: u32,
    },
}

/// Proxy that lasts as long as the process.
pub struct Proxy {
    port: u16,
    remaining: Arc<AtomicU32>,
}

impl Proxy {
    /// Creates a proxy in front of this host.
    ///
    /// # Panics
    /// If no port is free.
    pub fn before(host: String, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("a listener has an address").port();
        let (Fault::Cut { times, .. } | Fault::Respond { times, .. }) = fault;
        let remaining = Arc::new(AtomicU32::new(times));
        let counter = remaining.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (host, remaining) = (host.clone(), counter.clone());
                thread::spawn(move || serve(client, &host, fault, &remaining));
            }
        });
        Self { port, remaining }
    }

    /// Returns the host and the port of the proxy.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the number of faults still to inject.
    pub fn remaining_faults(&self) -> u32 {
        self.remaining.load(Ordering::SeqCst)
    }
}

fn serve(mut client: TcpStream, host: &str, fault: Fault, remaining: &AtomicU32) -> io::Result<()> {
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
            Fault::Cut { after, .. } if passed + size > after && use_up(remaining) => {
                // Forwards the bytes up to the cut, so that the registry receives only a part of the request.
                server.write_all(&piece[..after.saturating_sub(passed)])?;
                client.shutdown(Shutdown::Both)?;
                break;
            }
            // The client waits for a response before its next request, so a request begins where a piece does.
            Fault::Respond { to, status, .. } if piece.starts_with(to.as_bytes()) && use_up(remaining) => {
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
fn use_up(remaining: &AtomicU32) -> bool {
    remaining.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |remaining| remaining.checked_sub(1)).is_ok()
}
