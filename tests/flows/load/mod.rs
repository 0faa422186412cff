//! More than the server can do: too many requests, clients that are slow or gone, keys that ask too often, organizations
//! that have enough, and disks without room.

mod clients;
mod disk;
mod keys;
mod overload;
mod served;
mod slow;

use crate::support::{KEY, SOON, Server};
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// A connection to the server without anything of HTTP in between.
fn connect(server: &Server) -> TcpStream {
    let address = server.url().strip_prefix("http://").expect("a server without TLS");
    let stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    stream
}

/// The beginning of a request that makes a namespace, whose body has so many bytes.
fn announce(server: &Server, body_bytes: u64) -> TcpStream {
    let mut stream = connect(server);
    let head = format!(
        "POST /v1/namespaces HTTP/1.1\r\nhost: strata\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n\
         content-length: {body_bytes}\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).expect("the server takes a header");
    stream
}

/// Everything that comes until the server closes the connection. One that it resets ends there, too.
fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => all.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the server neither answers nor closes: {error}"),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// The status of an answer, and 0 for none.
fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}
