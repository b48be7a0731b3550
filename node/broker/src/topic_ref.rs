//! How requests name a topic.

use std::sync::Arc;

use flotilla_machines::controller::{Image, Topic, TopicId};

use crate::error::TopicMissing;

/// A topic by its name, and by its id if who asks knows it: a topic that was created again under the same name is another
/// one, in which positions of the old one mean nothing.
#[derive(Debug, Clone, Copy)]
pub struct TopicRef<'a> {
    /// Its name.
    pub name: &'a str,
    /// Absent: whichever topic has the name.
    pub id: Option<TopicId>,
}

impl TopicRef<'_> {
    /// The topic in `image`.
    ///
    /// # Errors
    /// If there is none of that name, or another one has it.
    pub fn find(self, image: &Image) -> Result<&Arc<Topic>, TopicMissing> {
        let named = image.topic(self.name);
        let named = named.ok_or_else(|| TopicMissing::UnknownTopic { topic: self.name.to_owned() })?;
        match self.id {
            Some(requested) if requested != named.id => {
                Err(TopicMissing::Recreated { topic: self.name.to_owned(), topic_id: named.id })
            }
            _ => Ok(named),
        }
    }
}

impl<'a> From<&'a str> for TopicRef<'a> {
    fn from(name: &'a str) -> Self {
        Self { name, id: None }
    }
}

impl<'a> From<&'a String> for TopicRef<'a> {
    fn from(name: &'a String) -> Self {
        Self { name, id: None }
    }
}

impl<'a> From<&'a Topic> for TopicRef<'a> {
    fn from(topic: &'a Topic) -> Self {
        Self { name: &topic.name, id: Some(topic.id) }
    }
}

impl<'a> From<&'a Arc<Topic>> for TopicRef<'a> {
    fn from(topic: &'a Arc<Topic>) -> Self {
        Self::from(&**topic)
    }
}
