//! Clients that a server would be better off without: they send byte by byte, read byte by byte, or say nothing more.
//! What becomes of them is the server's business; they try again until they are stopped.

use crate::support::KEY;
use std::{io::Result, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::sleep,
};

/// Of each kind.
const CLIENTS: usize = 20;
/// Between two bytes, and before a client comes again.
const PAUSE: Duration = Duration::from_millis(100);

/// Starts them; they end with the set.
pub fn clients(address: &str) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for n in 0..CLIENTS * 3 {
        clients.spawn(again_and_again(n, address.to_owned()));
    }
    clients
}

async fn again_and_again(n: usize, address: String) {
    loop {
        // That the server cuts them is what they are for.
        drop(match n % 3 {
            0 => write_slowly(&address).await,
            1 => read_slowly(&address).await,
            _ => begin_and_stay(&address).await,
        });
        sleep(PAUSE).await;
    }
}

fn head(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: strata\r\nauthorization: Bearer {KEY}\r\n{more}\r\n")
}

async fn write_slowly(address: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    for byte in head("GET", "/v1/namespaces", "").into_bytes() {
        stream.write_all(&[byte]).await?;
        sleep(PAUSE).await;
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(())
}

async fn read_slowly(address: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    // Many answers on one connection, so that they do not fit into buffers on the way.
    stream.write_all(head("GET", "/openapi.json", "").repeat(10).as_bytes()).await?;
    let mut byte = [0];
    while stream.read(&mut byte).await? > 0 {
        sleep(PAUSE).await;
    }
    Ok(())
}

async fn begin_and_stay(address: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let more = "content-type: application/json\r\ncontent-length: 1000\r\n";
    stream.write_all(head("POST", "/v1/namespaces", more).as_bytes()).await?;
    stream.write_all(b"{").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(())
}
