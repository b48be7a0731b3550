//! `flotilla health`: whether the node on this machine takes requests, for health checks of containers and scripts.
//!
//! It asks `/readyz` of the HTTP port, which the same flags, environment and file name as for the server.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::exit::CliError;
use super::output::{self, Output};
use super::server::ServerArgs;

/// A node that has not answered by then is as good as gone.
const TIMEOUT: Duration = Duration::from_secs(3);
/// An answer is a few lines.
const ANSWER_BYTES_MAX: u64 = 16 << 10;
const REQUEST: &[u8] = b"GET /readyz HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Arguments of `flotilla health`.
#[derive(Debug, clap::Args)]
pub struct HealthArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// Succeeds if the node is ready, and prints what it says.
///
/// # Errors
/// A configuration that does not load, a node that does not answer, or one that is not ready.
pub async fn run(args: &HealthArgs, output: Output) -> Result<(), CliError> {
    let (config, _) = args.server.load()?;
    let address = reachable(config.http);
    let failed = |why: String| CliError::Failed(format!("the HTTP port at {address} (setting http) does not answer: {why}"));
    let answer = tokio::time::timeout(TIMEOUT, ask(address)).await;
    let answer = answer.map_err(|_| failed(format!("nothing within {TIMEOUT:?}")))?.map_err(|error| failed(error.to_string()))?;
    let said = verdict(&answer)?;
    output::print(output, &json!({ "ready": true, "said": said }), |_, _| format!("{said}\n"))
}

/// Who listens on every interface is reached over the loopback one.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

async fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// What the node says, if it says so with status 200.
fn verdict(answer: &str) -> Result<&str, CliError> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        return Ok(body.trim_end());
    }
    let said = if body.trim().is_empty() { status } else { body.trim_end() };
    Err(CliError::Failed(format!("not ready: {said}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn only_200_is_healthy() {
        assert_eq!(verdict("HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nok\n").unwrap(), "ok");
        let said = |answer| verdict(answer).unwrap_err().to_string();
        assert_eq!(said("HTTP/1.0 503 Service Unavailable\r\na: b\r\n\r\nstopping: x\n"), "not ready: stopping: x");
        assert_eq!(said("HTTP/1.0 404 Not Found\r\n\r\n"), "not ready: HTTP/1.0 404 Not Found");
        assert_eq!(said("200"), "not ready: 200");
        assert_eq!(said(""), "not ready: ");
    }

    #[test]
    fn every_interface_is_reached_over_the_loopback_one() {
        for (listening, asked) in
            [("0.0.0.0:7071", "127.0.0.1:7071"), ("[::]:7071", "[::1]:7071"), ("192.0.2.1:80", "192.0.2.1:80")]
        {
            assert_eq!(reachable(listening.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
