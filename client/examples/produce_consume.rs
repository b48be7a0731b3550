//! Writes three records to a topic and reads the whole topic back: `cargo run --example produce_consume -- HOST:PORT TOPIC`.

use std::env;

use flotilla_client::{Assignment, Client, ClientOptions, ConsumerOptions, Error, Position, ProducerOptions, Record, api};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7070".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "example".to_owned());

    let client = Client::connect([address], ClientOptions::default()).await?;
    let create = api::CreateTopicRequest { name: topic.clone(), if_not_exists: true, ..Default::default() };
    client.create_topic(create).await?;

    let producer = client.producer(&topic, ProducerOptions::default()).await?;
    for ship in ["Santa María", "Pinta", "Niña"] {
        let place = producer.send(Record::new(ship).key("1492")).await?.await?;
        println!("{ship} is at offset {} of partition {}", place.offset, place.partition);
    }
    producer.close().await?;

    let options = ConsumerOptions { until_end: true, ..ConsumerOptions::default() };
    let mut consumer = client.consumer(&topic, Assignment::all(Position::Earliest), options).await?;
    while let Some(chunk) = consumer.next().await? {
        for record in chunk.records() {
            let record = record?;
            println!("{}/{}: {}", chunk.partition(), record.offset, String::from_utf8_lossy(record.value.unwrap_or_default()));
        }
    }
    Ok(())
}
