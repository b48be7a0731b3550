//! What takes long is told to whoever watches, and its end, too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::Duration;

use flotilla_client::{Client, ClientOptions, Error, api};
use flotilla_proto::v1;
use flotilla_proto::v1::cluster_server::{Cluster, ClusterServer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// What the server does with a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Answers,
    Refuses,
    Hesitates,
}

struct Moody(watch::Receiver<Mood>);

#[tonic::async_trait]
impl Cluster for Moody {
    async fn describe_cluster(
        &self,
        _: Request<v1::DescribeClusterRequest>,
    ) -> Result<Response<v1::DescribeClusterResponse>, Status> {
        let mut mood = self.0.clone();
        if *mood.borrow() == Mood::Refuses {
            return Err(Status::unavailable("as asked"));
        }
        mood.wait_for(|mood| *mood == Mood::Answers).await.unwrap();
        Ok(Response::new(Default::default()))
    }

    async fn get_metadata(&self, _: Request<v1::GetMetadataRequest>) -> Result<Response<v1::GetMetadataResponse>, Status> {
        Ok(Response::new(v1::GetMetadataResponse { cluster_id: "moody".to_owned(), ..Default::default() }))
    }

    async fn verify_replicas(
        &self,
        _: Request<v1::VerifyReplicasRequest>,
    ) -> Result<Response<v1::VerifyReplicasResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

async fn start() -> (Client, watch::Sender<Mood>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (moods, mood) = watch::channel(Mood::Answers);
    tokio::spawn(
        Server::builder().add_service(ClusterServer::new(Moody(mood))).serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let client = Client::connect([address], ClientOptions::default()).await.unwrap();
    (client, moods)
}

/// Calls while the server is in this mood; returns what is told before it answers after all.
async fn told_while(mood: Mood) -> Error {
    let (client, moods) = start().await;
    let mut outages = client.outage();
    client.describe_cluster(api::DescribeClusterRequest {}).await.unwrap();
    assert!(outages.borrow().is_none());
    moods.send_replace(mood);
    let calling = tokio::spawn({
        let client = client.clone();
        async move { client.describe_cluster(api::DescribeClusterRequest {}).await }
    });
    let told = outages.wait_for(Option::is_some).await.unwrap().clone().unwrap().error;
    moods.send_replace(Mood::Answers);
    calling.await.unwrap().unwrap();
    assert!(outages.borrow().is_none(), "its end is told, too");
    told
}

#[tokio::test]
async fn a_call_that_is_not_answered_is_told_of() {
    assert!(matches!(told_while(Mood::Hesitates).await, Error::Timeout(_)));
}

#[tokio::test]
async fn a_call_that_is_refused_and_repeated_is_told_of() {
    let told = told_while(Mood::Refuses).await;
    assert!(told.to_string().contains("as asked"), "{told}");
}

#[tokio::test]
async fn who_waits_for_the_first_connection_can_watch_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = ClientOptions { request_timeout: Duration::from_secs(3600), ..ClientOptions::default() };
    let client = Client::unconnected([listener.local_addr().unwrap().to_string()], options).unwrap();
    let mut outages = client.outage();
    tokio::select! {
        reached = client.reach() => panic!("nobody answers: {reached:?}"),
        told = outages.wait_for(Option::is_some) => assert!(matches!(told.unwrap().as_ref().unwrap().error, Error::Timeout(_))),
    }
}
