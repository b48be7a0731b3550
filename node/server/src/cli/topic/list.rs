//! `flotilla topic list`.

use flotilla_client::api;

use super::view::TopicView;
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::{print, table};

pub async fn run(global: &Global) -> Result<(), CliError> {
    let topics = global.client().await?.list_topics(api::ListTopicsRequest {}).await?.topics;
    let topics: Vec<TopicView> = topics.into_iter().map(TopicView::from).collect();
    print(global.output, &topics, |topics, wide| {
        let columns = if wide { TopicView::HEAD.len() } else { TopicView::NARROW_COLUMNS };
        let rows: Vec<_> = topics.iter().map(|topic| topic.row().into_iter().take(columns).collect()).collect();
        table(TopicView::HEAD.get(..columns).unwrap_or_default(), &rows)
    })
}
