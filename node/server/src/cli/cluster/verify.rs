//! `flotilla cluster verify`: whether the replicas have applied the same, and an exit code that says so.

use flotilla_client::api;
use flotilla_client::api::ReplicaFinding;
use serde::Serialize;

use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::{count, print};

/// Lines printed for people; programs get all.
const LINES_MAX: usize = 50;

#[derive(Debug, Serialize)]
struct Verified {
    equal: bool,
    groups: Vec<Group>,
}

#[derive(Debug, Serialize)]
struct Group {
    /// Absent: the controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    equal: bool,
    /// The last entry of the log in which all that are equal were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    through_entry: Option<u64>,
    replicas: Vec<Replica>,
}

#[derive(Debug, Serialize)]
struct Replica {
    node_id: u64,
    finding: Finding,
    /// Of the log, as the finding says.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<u64>,
}

/// Stable words for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Finding {
    Equal,
    Differs,
    Alone,
    Behind,
    NotComparable,
    Down,
    Unreachable,
    /// A newer server says something that is not known here.
    Unknown,
}

pub async fn run(global: &Global) -> Result<(), CliError> {
    let answer = global.client().await?.verify_replicas(api::VerifyReplicasRequest {}).await?;
    let verified = Verified::from(answer);
    let failed = verified.groups.iter().filter(|group| !group.equal).count();
    print(global.output, &verified, |verified, _| text(verified))?;
    if failed == 0 {
        return Ok(());
    }
    Err(CliError::Failed(format!(
        "not all replicas are known to be equal: {} of {}",
        failed,
        count(verified.groups.len() as u64, "group")
    )))
}

impl From<api::VerifyReplicasResponse> for Verified {
    fn from(answer: api::VerifyReplicasResponse) -> Self {
        let groups: Vec<Group> = answer.groups.into_iter().map(Group::from).collect();
        // A cluster has a controller.
        Self { equal: !groups.is_empty() && groups.iter().all(|group| group.equal), groups }
    }
}

impl From<api::VerifiedGroup> for Group {
    fn from(group: api::VerifiedGroup) -> Self {
        let replicas: Vec<Replica> = group.replicas.into_iter().map(Replica::from).collect();
        let equals = || replicas.iter().filter(|replica| replica.finding == Finding::Equal);
        let alone = matches!(replicas.as_slice(), [only] if only.finding == Finding::Alone);
        let equal = alone || !replicas.is_empty() && equals().count() == replicas.len();
        let through_entry = equals().filter_map(|replica| replica.entry).min();
        Self { topic: group.topic, partition: group.partition, equal, through_entry, replicas }
    }
}

impl From<api::VerifiedReplica> for Replica {
    fn from(replica: api::VerifiedReplica) -> Self {
        let finding = match replica.finding() {
            ReplicaFinding::Equal => Finding::Equal,
            ReplicaFinding::Differs => Finding::Differs,
            ReplicaFinding::Alone => Finding::Alone,
            ReplicaFinding::Behind => Finding::Behind,
            ReplicaFinding::NotComparable => Finding::NotComparable,
            ReplicaFinding::Down => Finding::Down,
            ReplicaFinding::Unreachable => Finding::Unreachable,
            ReplicaFinding::Unspecified => Finding::Unknown,
        };
        Self { node_id: replica.node_id, finding, entry: replica.entry }
    }
}

fn text(verified: &Verified) -> String {
    let compared: usize = verified.groups.iter().map(|group| group.equals().count()).sum();
    let alone = verified.groups.iter().filter(|group| group.replicas.len() == 1).count();
    let mut lines: Vec<String> = verified.groups.iter().filter(|group| !group.equal).map(Group::line).collect();
    let more = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    if more > 0 {
        lines.push(format!("and {more} more: -o json shows all"));
    }
    let groups = count(verified.groups.len() as u64, "group");
    let alone =
        if alone == 0 { String::new() } else { format!("; {alone} with one replica, so that there is nothing to compare") };
    lines.push(format!("{groups}: {} have applied the same{alone}", count(compared as u64, "replica")));
    lines.join("\n")
}

impl Group {
    fn equals(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|replica| replica.finding == Finding::Equal)
    }

    fn line(&self) -> String {
        let named = match (&self.topic, self.partition) {
            (Some(topic), Some(partition)) => format!("partition {partition} of topic {topic}"),
            _ => "the controller".to_owned(),
        };
        let equal: Vec<String> = self.equals().map(|replica| replica.node_id.to_string()).collect();
        let through = match (equal.as_slice(), self.through_entry) {
            ([], _) | (_, None) => "nothing is equal".to_owned(),
            (several, Some(through)) => format!("equal through entry {through} on nodes {}", several.join(", ")),
        };
        let others = self.replicas.iter().filter(|replica| replica.finding != Finding::Equal).map(Replica::words);
        format!("{named}: {through}; {}", others.collect::<Vec<_>>().join("; "))
    }
}

impl Replica {
    fn words(&self) -> String {
        let of = |entry: Option<u64>| entry.map_or_else(|| "nothing".to_owned(), |entry| format!("entry {entry}"));
        let what = match self.finding {
            Finding::Equal => "is equal".to_owned(),
            Finding::Differs => format!("differs at {}", of(self.entry)),
            Finding::Alone => "has nobody who is equal".to_owned(),
            Finding::Behind => format!("is behind, at {}", of(self.entry)),
            Finding::NotComparable => "has hashes that begin elsewhere".to_owned(),
            Finding::Down => "does not run".to_owned(),
            Finding::Unreachable => "did not answer".to_owned(),
            Finding::Unknown => "is in a state that this version does not know".to_owned(),
        };
        format!("node {} {what}", self.node_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(topic: Option<&str>, replicas: &[(u64, ReplicaFinding, Option<u64>)]) -> api::VerifiedGroup {
        let replica = |(node_id, finding, entry): &(u64, ReplicaFinding, Option<u64>)| api::VerifiedReplica {
            node_id: *node_id,
            finding: (*finding).into(),
            entry: *entry,
        };
        let replicas = replicas.iter().map(replica).collect();
        api::VerifiedGroup { topic: topic.map(str::to_owned), partition: topic.map(|_| 4), replicas }
    }

    fn equal(node_id: u64, through: u64) -> (u64, ReplicaFinding, Option<u64>) {
        (node_id, ReplicaFinding::Equal, Some(through))
    }

    #[test]
    fn all_are_equal() {
        let groups = vec![group(None, &[equal(1, 9), equal(2, 9)]), group(Some("t"), &[(1, ReplicaFinding::Alone, None)])];
        let verified = Verified::from(api::VerifyReplicasResponse { groups });
        assert!(verified.equal);
        let expected = "2 groups: 2 replicas have applied the same; 1 with one replica, so that there is nothing to compare";
        assert_eq!(text(&verified), expected);
        assert!(!Verified::from(api::VerifyReplicasResponse::default()).equal, "nothing was said");
    }

    #[test]
    fn who_is_not_known_to_be_equal_is_named() {
        let groups = vec![
            group(None, &[equal(1, 9), equal(2, 8), (3, ReplicaFinding::Differs, Some(5))]),
            group(
                Some("t"),
                &[(1, ReplicaFinding::Alone, None), (2, ReplicaFinding::Unreachable, None), (3, ReplicaFinding::Behind, Some(2))],
            ),
            group(Some("u"), &[(1, ReplicaFinding::Down, None), (2, ReplicaFinding::NotComparable, None)]),
        ];
        let verified = Verified::from(api::VerifyReplicasResponse { groups });
        assert!(!verified.equal);
        let expected = "the controller: equal through entry 8 on nodes 1, 2; node 3 differs at entry 5\n\
            partition 4 of topic t: nothing is equal; node 1 has nobody who is equal; node 2 did not answer; node 3 is behind, at entry 2\n\
            partition 4 of topic u: nothing is equal; node 1 does not run; node 2 has hashes that begin elsewhere\n\
            3 groups: 2 replicas have applied the same";
        assert_eq!(text(&verified), expected);
        let shown = serde_json::to_value(&verified).unwrap_or_default();
        assert_eq!(shown.pointer("/groups/1/replicas/1/finding"), Some(&"unreachable".into()));
        assert_eq!(shown.pointer("/groups/0/through_entry"), Some(&8.into()));
        assert_eq!(shown.pointer("/groups/0/topic"), None);
    }
}
