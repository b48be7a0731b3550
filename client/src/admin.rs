//! Administration: topics, offsets, consumer groups, the cluster, its nodes and partitions; and single produce calls. Requests and answers are
//! the messages of the API ([`crate::api`]), whose comments are the documentation.

use flotilla_proto::v1;
use flotilla_proto::v1::cluster_client::ClusterClient;
use flotilla_proto::v1::consumer_client::ConsumerClient;
use flotilla_proto::v1::groups_client::GroupsClient;
use flotilla_proto::v1::nodes_client::NodesClient;
use flotilla_proto::v1::partitions_client::PartitionsClient;
use flotilla_proto::v1::producer_client::ProducerClient;
use flotilla_proto::v1::topics_client::TopicsClient;

use crate::client::{Client, Repeat, timed};
use crate::error::Error;

/// One method for each unary call: its documentation, name, stub, message types, and whether it may be repeated blindly.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $stub:ident($request:ident) -> $response:ident, $repeat:ident;)*) => {
        impl Client {
            $($(#[$doc])*
            ///
            /// # Errors
            /// If the server refuses, or none answers within the request timeout.
            pub async fn $name(&self, request: v1::$request) -> Result<v1::$response, Error> {
                let message_bytes_max = self.message_bytes_max();
                self.call(Repeat::$repeat, |channel, left| {
                    let mut stub = $stub::new(channel).max_decoding_message_size(message_bytes_max);
                    let request = timed(request.clone(), left);
                    async move { stub.$name(request).await }
                })
                .await
            })*
        }
    };
}

calls! {
    /// Creates a topic.
    create_topic: TopicsClient(CreateTopicRequest) -> CreateTopicResponse, IfNotDone;
    /// All topics.
    list_topics: TopicsClient(ListTopicsRequest) -> ListTopicsResponse, Safe;
    /// A topic with its partitions.
    describe_topic: TopicsClient(DescribeTopicRequest) -> DescribeTopicResponse, Safe;
    /// Changes a topic's configuration.
    alter_topic: TopicsClient(AlterTopicRequest) -> AlterTopicResponse, Safe;
    /// Adds partitions to a topic.
    add_partitions: TopicsClient(AddPartitionsRequest) -> AddPartitionsResponse, IfNotDone;
    /// Deletes a topic and its records.
    delete_topic: TopicsClient(DeleteTopicRequest) -> DeleteTopicResponse, IfNotDone;
    /// Deletes the records before an offset.
    delete_records: TopicsClient(DeleteRecordsRequest) -> DeleteRecordsResponse, Safe;
    /// Turns positions into offsets.
    list_offsets: ConsumerClient(ListOffsetsRequest) -> ListOffsetsResponse, Safe;
    /// Reads from one partition, once.
    fetch: ConsumerClient(FetchRequest) -> FetchResponse, Safe;
    /// Stores how far a group has read.
    commit: GroupsClient(CommitRequest) -> CommitResponse, Safe;
    /// What a group has committed.
    committed: GroupsClient(CommittedRequest) -> CommittedResponse, Safe;
    /// The cluster and its nodes.
    describe_cluster: ClusterClient(DescribeClusterRequest) -> DescribeClusterResponse, Safe;
    /// Compares what the replicas have applied.
    verify_replicas: ClusterClient(VerifyReplicasRequest) -> VerifyReplicasResponse, Safe;
    /// Moves every leader off a node, before a restart or maintenance. Returns at once.
    drain_node: NodesClient(DrainNodeRequest) -> DrainNodeResponse, Safe;
    /// Takes back a node that was drained or is leaving.
    undrain_node: NodesClient(UndrainNodeRequest) -> UndrainNodeResponse, Safe;
    /// Moves everything off a node, then forgets it for ever. Returns at once.
    remove_node: NodesClient(RemoveNodeRequest) -> RemoveNodeResponse, IfNotDone;
    /// Where partitions are, and how they stand.
    list_partitions: PartitionsClient(ListPartitionsRequest) -> ListPartitionsResponse, Safe;
    /// Gives a partition other replicas. Returns at once.
    move_partition: PartitionsClient(MovePartitionRequest) -> MovePartitionResponse, IfNotDone;
    /// Leaves a partition's replicas as they were before its move.
    cancel_move: PartitionsClient(CancelMoveRequest) -> CancelMoveResponse, IfNotDone;
    /// Makes another replica a partition's leader. Returns when it leads.
    transfer_leader: PartitionsClient(TransferLeaderRequest) -> TransferLeaderResponse, Safe;
    /// Begins a damaged partition without other replicas again from what can be read of it. What cannot is lost.
    recover_partition: PartitionsClient(RecoverPartitionRequest) -> RecoverPartitionResponse, IfNotDone;
    /// One unary produce call, repeated only where it provably had no effect. [`Client::producer`] is faster.
    produce: ProducerClient(ProduceRequest) -> ProduceResponse, IfNotDone;
    /// A new producer id.
    init_producer: ProducerClient(InitProducerRequest) -> InitProducerResponse, Safe;
}
