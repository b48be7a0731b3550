//! What every client command shares: where the cluster is, and how results are printed.

use flotilla_client::{Client, ClientOptions};

use super::exit::CliError;
use super::output::Output;

/// Options of every client command.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// Nodes to connect to, host:port, comma separated; any node serves any request
    #[arg(long, global = true, env = "FLOTILLA_ADDR", value_delimiter = ',', value_name = "HOST:PORT")]
    #[arg(default_value = "127.0.0.1:7070")]
    pub addr: Vec<String>,
    /// How results are printed
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Output,
}

impl Global {
    /// Connects to the cluster.
    ///
    /// # Errors
    /// If no address answers.
    pub async fn client(&self) -> Result<Client, CliError> {
        Ok(Client::connect(self.addr.iter().cloned(), ClientOptions::default()).await?)
    }
}
