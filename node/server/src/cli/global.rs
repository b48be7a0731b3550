//! What every client command shares: where the cluster is, and how results are printed.

use std::sync::Arc;
use std::time::Duration;

use flotilla_client::{Client, ClientOptions, Error, api};

use super::exit::CliError;
use super::outage;
use super::output::{Output, note};

/// How long a question about the cluster itself waits for its answer: a node that is starting says within 2 s why.
const ANSWER_PATIENCE: Duration = Duration::from_secs(4);

/// Options of every client command.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// Nodes to connect to, host:port, comma separated; any node serves any request
    #[arg(long, global = true, env = "FLOTILLA_ADDR", value_delimiter = ',', value_name = "HOST:PORT")]
    #[arg(default_value = "127.0.0.1:7070", value_parser = parse_address)]
    pub addr: Vec<String>,
    /// How results are printed
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Output,
}

impl Global {
    /// Connects to the cluster. What takes long, then and later, is told on stderr.
    ///
    /// # Errors
    /// If no address answers.
    pub async fn client(&self) -> Result<Client, CliError> {
        self.client_telling(|line| note(line)).await
    }

    /// What the cluster consists of. That it does not say is an answer, too, and is wanted soon.
    ///
    /// # Errors
    /// If no address answers; what a node said last that does not serve yet.
    pub async fn described_cluster(&self) -> Result<(Client, api::DescribeClusterResponse), CliError> {
        let options =
            ClientOptions { connect_timeout: ANSWER_PATIENCE, request_timeout: ANSWER_PATIENCE, ..ClientOptions::default() };
        let client = Client::unconnected(self.addr.iter().cloned(), options)?;
        let outage = client.outage();
        match client.describe_cluster(api::DescribeClusterRequest {}).await {
            Ok(cluster) => Ok((client, cluster)),
            Err(Error::Timeout(_)) if outage.borrow().is_some() => {
                let last = outage.borrow().as_ref().map(|outage| outage.error.clone());
                Err(last.unwrap_or(Error::Timeout(ANSWER_PATIENCE)).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// As [`Global::client`], with another way to say what takes long.
    ///
    /// # Errors
    /// If no address answers.
    pub async fn client_telling(&self, say: impl Fn(&str) + Send + Sync + 'static) -> Result<Client, CliError> {
        let client = Client::unconnected(self.addr.iter().cloned(), ClientOptions::default())?;
        let say = Arc::new(say);
        let warn = Arc::clone(&say);
        client.tell_foreign_nodes(move |error| warn(&format!("warning: {error}")));
        outage::tell(&client, move |line| say(line));
        client.reach().await?;
        Ok(client)
    }
}

/// Reads `host:port`.
///
/// # Errors
/// What is wrong with the text, and what would be right.
pub fn parse_address(text: &str) -> Result<String, String> {
    const RIGHT: &str = "write host:port, such as 127.0.0.1:7070 or [::1]:7070";
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("no address, there or in FLOTILLA_ADDR: {RIGHT}"));
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(format!("an address without {scheme}:// is wanted: {RIGHT}"));
    }
    let Some((host, port)) = text.rsplit_once(':').filter(|(host, _)| is_host(host)) else {
        return Err(format!("not an address: {RIGHT}"));
    };
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(format!("{host}:{port}")),
        _ => Err(format!("{port:?} is not a port: {RIGHT}")),
    }
}

/// A name or an address; those with colons in brackets.
fn is_host(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    inner.map_or_else(|| !text.is_empty() && text.chars().all(plain), |inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for (text, address) in
            [(" localhost:7070 ", "localhost:7070"), ("10.0.0.1:1", "10.0.0.1:1"), ("[::1]:7070", "[::1]:7070")]
        {
            assert_eq!(parse_address(text).unwrap(), address);
        }
        for text in
            ["", " ", "localhost", "http://localhost:7070", ":7070", "a b:1", "a:0", "a:65536", "a:b", "::1", "::1:7070", "a/b:1"]
        {
            let error = parse_address(text).unwrap_err();
            assert!(error.contains("write host:port"), "{text:?}: {error}");
        }
    }
}
