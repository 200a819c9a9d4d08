//! Time limits of uploads, tested with a simulated registry: no real one can be made so slow.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::*;

const SIZE: usize = 12 << 20;
const SHORT: Duration = Duration::from_secs(1);

/// Way in which the registry receives a blob.
#[derive(Clone, Copy)]
enum Manner {
    /// Takes about four seconds.
    Slowly,
    /// Reads this number of bytes, and then nothing.
    Stops(usize),
    /// Reads everything, but does not answer.
    Silent,
}

/// Starts a registry that has no blobs and accepts everything. Returns its host and port.
fn registry(manner: Manner) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    // With small buffers, sent bytes are soon read.
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(8).unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            // An error of the connection is reported by the client.
            tokio::spawn(async move { serve(client, manner).await.ok() });
        }
    });
    host
}

async fn serve(mut client: TcpStream, manner: Manner) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        read(&mut client, length, manner).await?;
        let status = match head.split(' ').next().unwrap() {
            "head" => "404 Not Found",
            "post" => "202 Accepted",
            "put" => "201 Created",
            _ => "200 OK",
        };
        let answer =
            format!("HTTP/1.1 {status}\r\nlocation: /v2/lab/probe/blobs/uploads/1\r\ncontent-length: 0\r\n\r\n");
        client.write_all(answer.as_bytes()).await?;
    }
}

async fn read(client: &mut TcpStream, length: usize, manner: Manner) -> std::io::Result<()> {
    let mut piece = vec![0; 64 * 1024];
    let mut read = 0;
    while read < length {
        if matches!(manner, Manner::Stops(after) if read > after) {
            std::future::pending::<()>().await;
        }
        if matches!(manner, Manner::Slowly) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let most = piece.len().min(length - read);
        let size = client.read_exact(&mut piece[..most]).await?;
        read += size;
    }
    if length > 0 && matches!(manner, Manner::Silent) {
        std::future::pending::<()>().await;
    }
    Ok(())
}

/// Sends a blob. Returns the result and the elapsed time.
async fn send(manner: Manner) -> (Result<bool, RegistryError>, Duration) {
    let host = registry(manner);
    let mut repository = Repository::new(&format!("{host}/lab/probe")).unwrap().login(Login::anonymous()).attempts(1);
    repository.patience = SHORT;
    let session = repository.open().await.unwrap();
    let blob = Blob::new(vec![7; SIZE]);
    let begun = Instant::now();
    let sent = session.attempt("send it", || Box::pin(session.send_blob(&blob))).await;
    (sent, begun.elapsed())
}

#[tokio::test]
async fn an_upload_takes_as_long_as_it_goes_on() {
    let (sent, took) = send(Manner::Slowly).await;
    assert!(sent.unwrap());
    assert!(took > 2 * SHORT, "it took {took:?}, in which no limit was tried");
}

#[tokio::test]
async fn an_upload_that_stops_is_given_up() {
    for manner in [Manner::Stops(2 << 20), Manner::Silent] {
        let (sent, took) = send(manner).await;
        let error = sent.unwrap_err();
        assert_eq!(error.kind(), RegistryErrorKind::Connection);
        assert_eq!(error.reason(), "timed out: no data was sent or received for 1 seconds");
        assert!(error.hint().unwrap().ends_with("try again; uploaded layers are kept"), "{error:?}");
        assert!(took < 10 * SHORT, "it took {took:?}");
    }
}
