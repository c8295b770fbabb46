//! Records one by one, as a stream.
//! Invariant: what was not taken from the stream is read again: dropping it puts the positions back.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream::{Stream, unfold};

use super::GroupConsumer;
use crate::consumer::{Consumer, ConsumerRecord};
use crate::error::{ConsumeError, GroupError};

/// How long one poll of the stream waits before it looks again.
const POLL: Duration = Duration::from_secs(1);

/// What a stream reads from.
trait Source {
    type Error;

    fn consumer(&mut self) -> &mut Consumer;
    fn next(&mut self) -> impl Future<Output = Result<Vec<ConsumerRecord>, Self::Error>> + Send;
}

impl Source for GroupConsumer {
    type Error = GroupError;

    fn consumer(&mut self) -> &mut Consumer {
        &mut self.consumer
    }

    async fn next(&mut self) -> Result<Vec<ConsumerRecord>, GroupError> {
        self.poll(POLL).await
    }
}

impl Source for Consumer {
    type Error = ConsumeError;

    fn consumer(&mut self) -> &mut Consumer {
        self
    }

    async fn next(&mut self) -> Result<Vec<ConsumerRecord>, ConsumeError> {
        if self.positions().next().is_none() {
            // Nothing is assigned, and nobody else can assign while the stream borrows the consumer.
            tokio::time::sleep(POLL).await;
        }
        self.poll(POLL).await
    }
}

/// What was polled and not taken yet.
struct Untaken<'a, S: Source> {
    source: &'a mut S,
    records: VecDeque<ConsumerRecord>,
}

impl<S: Source> Drop for Untaken<'_, S> {
    fn drop(&mut self) {
        // The first of each partition decides, so the last is put back first.
        for record in self.records.drain(..).rev() {
            self.source.consumer().put_back(&record);
        }
    }
}

fn stream<S: Source + Send>(source: &mut S) -> impl Stream<Item = Result<ConsumerRecord, S::Error>> + Send
where
    S::Error: Send,
{
    unfold(Untaken { source, records: VecDeque::new() }, async |mut untaken| {
        loop {
            if let Some(record) = untaken.records.pop_front() {
                return Some((Ok(record), untaken));
            }
            match untaken.source.next().await {
                Ok(records) => untaken.records.extend(records),
                Err(error) => return Some((Err(error), untaken)),
            }
        }
    })
}

impl GroupConsumer {
    /// The records one by one, without end. After an error that [`GroupError::is_retriable`] allows, the next item may be a record again. With automatic
    /// commits, a record counts as processed when the one after it is asked for; to commit by hand, drop the stream first.
    ///
    /// ```no_run
    /// # async fn example(mut member: madang_client::GroupConsumer) -> Result<(), madang_client::GroupError> {
    /// use futures_util::{StreamExt, pin_mut};
    ///
    /// let records = member.stream();
    /// pin_mut!(records);
    /// while let Some(record) = records.next().await {
    ///     println!("{:?}", record?.value);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stream(&mut self) -> impl Stream<Item = Result<ConsumerRecord, GroupError>> + Send {
        stream(self)
    }
}

impl Consumer {
    /// The records one by one, without end. After an error that [`ConsumeError::is_retriable`] allows, the next item may be a record again.
    pub fn stream(&mut self) -> impl Stream<Item = Result<ConsumerRecord, ConsumeError>> + Send {
        stream(self)
    }
}
