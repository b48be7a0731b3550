//! `flotilla health`, which containers and scripts ask: it says what `/readyz` says, by its exit code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::net::TcpListener;

use flotilla_tests::cli::Cli;
use flotilla_tests::server::Server;

#[test]
fn the_exit_code_says_whether_the_node_is_ready() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::started(dir.path(), &[]);
    let cli = Cli::new(server.address());
    let port = server.http_address().rsplit_once(':').unwrap().1.to_owned();
    assert_eq!(cli.run(&format!("health --http 127.0.0.1:{port}")).ok(), "ok\n");
    assert!(cli.run(&format!("health --http 0.0.0.0:{port} -o json")).ok().contains("\"ready\": true"));
    server.stop();
    let said = cli.run(&format!("health --http 127.0.0.1:{port}")).fails(1);
    assert!(said.contains("does not answer"), "{said}");
}

#[test]
fn a_node_that_is_not_ready_is_not_healthy_and_says_why() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let node = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.0 503 Service Unavailable\r\n\r\nstopping: the node finishes what is in flight\n").unwrap();
        String::from_utf8(request).unwrap()
    });
    let said = Cli::new("127.0.0.1:1").run(&format!("health --http {address}")).fails(1);
    assert_eq!(said, "error: not ready: stopping: the node finishes what is in flight\n");
    assert!(node.join().unwrap().starts_with("GET /readyz HTTP/1.0\r\n"));
}
