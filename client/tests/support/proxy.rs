//! A TCP proxy whose connections can be cut, as a network does.

use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub struct Proxy {
    pub address: String,
    upstream: Arc<Mutex<String>>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Proxy {
    pub async fn start(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let upstream = Arc::new(Mutex::new(upstream));
        let (open, leads_to) = (Arc::clone(&connections), Arc::clone(&upstream));
        tokio::spawn(async move {
            while let Ok((mut downstream, _)) = listener.accept().await {
                let upstream = leads_to.lock().unwrap().clone();
                let copying = tokio::spawn(async move {
                    if let Ok(mut upstream) = TcpStream::connect(upstream).await {
                        let _ = copy_bidirectional(&mut downstream, &mut upstream).await;
                    }
                });
                open.lock().unwrap().push(copying);
            }
        });
        Self { address, upstream, connections }
    }

    /// From now on new connections go elsewhere.
    pub fn lead_to(&self, upstream: &str) {
        *self.upstream.lock().unwrap() = upstream.to_owned();
    }

    /// Cuts every connection; how many there were.
    pub fn cut(&self) -> usize {
        let cut = std::mem::take(&mut *self.connections.lock().unwrap());
        cut.iter().for_each(JoinHandle::abort);
        cut.len()
    }
}
