//! Asks again and again where each partition ends, and who leads it.

use std::sync::Arc;
use std::time::Duration;

use flotilla_client::{Client, ClientOptions, Error};
use tokio::sync::watch;

use super::{Shared, topic};
use crate::fault::Leaders;
use crate::history::Watermark;

/// The only observer: its answers come one after the other.
const OBSERVER: u32 = 0;
const INTERVAL: Duration = Duration::from_millis(200);
/// Soon, so that many questions meet a fault.
const TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn run(shared: Arc<Shared>, via: (u64, Vec<String>), mut stop: watch::Receiver<bool>) {
    let mut client = None;
    while !*stop.borrow() {
        let asked = tokio::select! {
            asked = ask(&shared, &via.1, &mut client) => asked,
            _ = stop.changed() => return,
        };
        if asked.is_err() {
            // While partitions have no leader there is no answer: that is what is expected, and another time will do.
            client = None;
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = stop.changed() => {}
        }
    }
}

async fn ask(shared: &Shared, addresses: &[String], client: &mut Option<Client>) -> Result<(), Error> {
    let client = match client {
        Some(client) => client,
        None => {
            let options = ClientOptions { connect_timeout: TIMEOUT, request_timeout: TIMEOUT, ..ClientOptions::default() };
            client.insert(Client::connect(addresses, options).await?)
        }
    };
    let leaders = topic::leaders(client, &shared.options.topic).await?;
    note_leaders(shared, leaders);
    let invoked = shared.clock.now();
    let ends = topic::ends(client, &shared.options.topic).await?;
    let completed = shared.clock.now();
    let told = ends.into_iter().map(|(partition, high_watermark)| Watermark {
        observer: OBSERVER,
        invoked,
        completed,
        partition,
        high_watermark,
    });
    shared.notes().history.watermarks.extend(told);
    Ok(())
}

fn note_leaders(shared: &Shared, leaders: Leaders) {
    let mut notes = shared.notes();
    for (partition, leader) in leaders {
        // While there is none, the former one counts: only another node is a change.
        if let Some(leader) = leader {
            let before = notes.leaders.insert(partition, Some(leader)).flatten();
            notes.leader_changes += u64::from(before.is_some_and(|before| before != leader));
        }
    }
}
