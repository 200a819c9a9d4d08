//! Time limits of uploads, tested with a simulated registry, since a real one cannot be slowed down.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::*;

const SIZE: usize = 12 << 20;
const SHORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Behavior of the registry while it receives a blob.
#[derive(Clone, Copy)]
enum Behavior {
    /// Takes about four seconds.
    Slowly,
    /// Reads this number of bytes, and then nothing.
    Stops(usize),
    /// Reads everything, but does not respond.
    Silent,
}

/// Starts a registry that has no blobs and accepts everything. Returns its host and port.
fn registry(behavior: Behavior) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    // With a small buffer, the client notices soon that the registry does not read.
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(8).unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            // An error of the connection is reported by the client.
            tokio::spawn(async move { serve(client, behavior).await.ok() });
        }
    });
    host
}

async fn serve(mut client: TcpStream, behavior: Behavior) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        read(&mut client, length, behavior).await?;
        let status = match head.split(' ').next().unwrap() {
            "head" => "404 Not Found",
            "post" => "202 Accepted",
            "put" => "201 Created",
            _ => "200 OK",
        };
        let response =
            format!("HTTP/1.1 {status}\r\nlocation: /v2/lab/probe/blobs/uploads/1\r\ncontent-length: 0\r\n\r\n");
        client.write_all(response.as_bytes()).await?;
    }
}

async fn read(client: &mut TcpStream, length: usize, behavior: Behavior) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut read = 0;
    while read < length {
        if matches!(behavior, Behavior::Stops(after) if read > after) {
            std::future::pending::<()>().await;
        }
        if matches!(behavior, Behavior::Slowly) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let max = buffer.len().min(length - read);
        let size = client.read_exact(&mut buffer[..max]).await?;
        read += size;
    }
    if length > 0 && matches!(behavior, Behavior::Silent) {
        std::future::pending::<()>().await;
    }
    Ok(())
}

/// Sends a blob. Returns the result and the elapsed time.
async fn send(behavior: Behavior) -> (Result<bool, RegistryError>, Duration) {
    let host = registry(behavior);
    let mut repository = Repository::new(&format!("{host}/lab/probe")).unwrap().login(Login::anonymous()).attempts(1);
    repository.timeout = SHORT_TIMEOUT;
    let session = repository.open().await.unwrap();
    let blob = Blob::new(vec![7; SIZE]);
    let start = Instant::now();
    let sent = session.attempt("send a blob", || Box::pin(session.send_blob(&blob))).await;
    (sent, start.elapsed())
}

#[tokio::test]
async fn upload_with_progress_has_no_time_limit() {
    let (sent, took) = send(Behavior::Slowly).await;
    assert!(sent.unwrap());
    assert!(took > 2 * SHORT_TIMEOUT, "took {took:?}, which is within the limit");
}

#[tokio::test]
async fn stalled_upload_times_out() {
    for behavior in [Behavior::Stops(2 << 20), Behavior::Silent] {
        let (sent, took) = send(behavior).await;
        let error = sent.unwrap_err();
        assert_eq!(error.kind(), RegistryErrorKind::Connection);
        assert_eq!(error.reason(), "timed out: no data was sent or received for 1 seconds");
        assert!(error.hint().unwrap().ends_with("try again; uploaded layers are kept"), "{error:?}");
        assert!(took < 10 * SHORT_TIMEOUT, "took {took:?}");
    }
}
