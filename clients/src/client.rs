//! What producers, consumers and administration share: the cluster's metadata and a connection per broker and purpose.
//! Invariant: connections are kept only for bootstrap addresses and for brokers of the newest metadata.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use madang_protocol::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use madang_protocol::types::{NodeId, Uuid};
use madang_protocol::{ErrorCode, Request};

use crate::backoff::Backoff;
use crate::connection::{Call, Connection, Settings};
use crate::error::{ConnectionError, MetadataError, check};
use crate::metadata::{Broker, Metadata};

/// How a client reaches its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// `HOST:PORT` of brokers to start from.
    pub bootstrap: Vec<String>,
    /// The name that brokers log and count this client under.
    pub client_id: String,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for an answer, beyond the time the request itself lets the broker wait.
    pub request_timeout: Duration,
    /// How long calls that need a leader or a coordinator keep trying to find one.
    pub retry_timeout: Duration,
    /// The largest answer that is read, in bytes.
    pub max_response_bytes: usize,
    /// Whom to trust, and who the client is, if brokers are reached over TLS.
    #[cfg(feature = "tls")]
    pub tls: Option<crate::tls::TlsConfig>,
    /// Whom to trust, if brokers are reached over QUIC, which all addresses are of then.
    #[cfg(feature = "quic")]
    pub quic: Option<crate::quic::QuicConfig>,
}

impl ClientConfig {
    /// Defaults: connect within 5 s, answers within 30 s and up to 128 MiB, retries for 30 s.
    #[must_use]
    pub fn new<A: Into<String>>(bootstrap: impl IntoIterator<Item = A>) -> Self {
        Self {
            bootstrap: bootstrap.into_iter().map(Into::into).collect(),
            client_id: "madang-client".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            retry_timeout: Duration::from_secs(30),
            max_response_bytes: 128 << 20,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "quic")]
            quic: None,
        }
    }
}

/// Requests of one lane travel over one connection per broker, one at a time. Whoever parks requests has a lane of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lane(u64);

impl Lane {
    /// What nobody waits long for.
    pub(crate) const SHARED: Self = Self(0);
}

/// The answer to a request, to be awaited. Boxed, as the compiler cannot see that a future over a request of some lifetime can change threads.
pub(crate) type Answer<'a, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// A handle to a cluster. Clones share connections and metadata.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClientConfig,
    settings: Arc<Settings>,
    connections: Mutex<HashMap<(String, Lane), Arc<Connection>>>,
    metadata: Mutex<Arc<Metadata>>,
    next_lane: AtomicU64,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

/// A panic of another thread cannot leave these maps half-changed, so its poison is ignored.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// A client; nothing is connected before it is needed.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        let settings = Arc::new(Settings {
            client_id: config.client_id.clone(),
            connect_timeout: config.connect_timeout,
            max_response_bytes: config.max_response_bytes,
            #[cfg(feature = "tls")]
            tls: config.tls.clone(),
            #[cfg(feature = "quic")]
            quic: config.quic.clone().map(crate::quic::Pool::new),
        });
        let inner = Inner {
            config,
            settings,
            connections: Mutex::default(),
            metadata: Mutex::default(),
            next_lane: AtomicU64::new(1),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The configuration it was made with.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    /// What is known without asking: the topics that were used so far.
    #[must_use]
    pub fn cached_metadata(&self) -> Arc<Metadata> {
        Arc::clone(&lock(&self.inner.metadata))
    }

    /// The cluster and all its topics, read now.
    ///
    /// # Errors
    /// [`MetadataError`] if no broker answers or the one that does refuses.
    pub async fn all_metadata(&self) -> Result<Metadata, MetadataError> {
        self.ask_metadata(None, false).await
    }

    /// The cluster and these topics, read now. A topic's own error is in [`Metadata::errors`]. With `create`, a missing topic is created if the cluster
    /// does so.
    ///
    /// # Errors
    /// [`MetadataError`] if no broker answers or the one that does refuses.
    pub async fn metadata(&self, topics: &[&str], create: bool) -> Result<Arc<Metadata>, MetadataError> {
        let newer = self.ask_metadata(Some(topics), create).await?;
        let mut kept = lock(&self.inner.metadata);
        *kept = Arc::new(kept.updated(newer));
        let metadata = Arc::clone(&kept);
        drop(kept);
        self.prune(&metadata);
        Ok(metadata)
    }

    /// The same, tried again until every topic has all its leaders or the retry timeout is over.
    ///
    /// # Errors
    /// The last error.
    pub async fn usable_metadata(&self, topics: &[&str], create: bool) -> Result<Arc<Metadata>, MetadataError> {
        let mut backoff = Backoff::within(self.inner.config.retry_timeout);
        loop {
            let error = match self.metadata(topics, create).await {
                Ok(metadata) => match unusable(&metadata, topics) {
                    None => return Ok(metadata),
                    Some(error) => error,
                },
                Err(error) => error,
            };
            // A missing topic that nobody creates will not come by waiting.
            let hopeless = !error.is_retriable() || (error.is_unknown_topic() && !create);
            if hopeless || self.is_refused(&error) || !backoff.wait().await {
                return Err(error);
            }
        }
    }

    /// Whether nothing listens where the client was told to start, so that waiting longer only hides it.
    fn is_refused(&self, error: &MetadataError) -> bool {
        let never_connected = lock(&self.inner.metadata).brokers.is_empty();
        never_connected && matches!(error, MetadataError::Connection(error) if error.is_unsent())
    }

    async fn ask_metadata(&self, topics: Option<&[&str]>, create: bool) -> Result<Metadata, MetadataError> {
        let named = |name: &&str| MetadataRequestTopic { topic_id: Uuid::ZERO, name: Some((*name).to_owned().into()) };
        let request = MetadataRequest {
            topics: topics.map(|topics| topics.iter().map(named).collect()),
            allow_auto_topic_creation: create,
            ..MetadataRequest::default()
        };
        let answer = self.any(&request).await?;
        check(answer.error_code).map_err(MetadataError::Broker)?;
        Ok(Metadata::of(answer))
    }

    /// Forgets that leaders are where they are, after a broker said otherwise.
    pub(crate) async fn refresh(&self, topics: &[&str]) -> Result<Arc<Metadata>, MetadataError> {
        self.metadata(topics, false).await
    }

    /// A lane of its own for someone who parks requests.
    pub(crate) fn new_lane(&self) -> Lane {
        Lane(self.inner.next_lane.fetch_add(1, Ordering::Relaxed))
    }

    /// Closes what a lane has open.
    pub(crate) fn close_lane(&self, lane: Lane) {
        lock(&self.inner.connections).retain(|(_, of), _| *of != lane);
    }

    fn connection(&self, address: &str, lane: Lane) -> Arc<Connection> {
        let mut connections = lock(&self.inner.connections);
        let connection = connections
            .entry((address.to_owned(), lane))
            .or_insert_with(|| Arc::new(Connection::new(address.to_owned(), Arc::clone(&self.inner.settings))));
        Arc::clone(connection)
    }

    fn prune(&self, metadata: &Metadata) {
        let brokers: Vec<_> = metadata.brokers.values().map(Broker::address).collect();
        let bootstrap = &self.inner.config.bootstrap;
        let is_known = |address: &String| brokers.contains(address) || bootstrap.contains(address);
        lock(&self.inner.connections).retain(|(address, _), _| is_known(address));
        #[cfg(feature = "quic")]
        self.inner.settings.quic.iter().for_each(|pool| pool.keep(is_known));
    }

    /// Goes on over new UDP sockets, as where the network or the address of the machine changes. Connections over QUIC stay, with what is under way on
    /// them; a change that the socket need not be bound anew for is followed without it. Without QUIC it does nothing.
    ///
    /// # Errors
    /// No socket can be bound.
    #[cfg(feature = "quic")]
    pub fn rebind(&self) -> std::io::Result<()> {
        self.inner.settings.quic.as_ref().map_or(Ok(()), crate::quic::Pool::rebind)
    }

    /// A call that waits as long as a request without a wait of its own may take.
    pub(crate) fn call(&self) -> Call {
        Call::within(self.inner.config.request_timeout)
    }

    /// Sends a request to the first broker that can be reached.
    pub(crate) fn any<'a, 'q: 'a, R>(&'a self, request: &'a R) -> Answer<'a, R::Response<'static>, ConnectionError>
    where
        R: Request<'q> + Sync,
        R::Response<'static>: Send,
    {
        Box::pin(async move {
            let mut addresses = self.inner.config.bootstrap.clone();
            addresses.extend(self.cached_metadata().brokers.values().map(Broker::address));
            let mut last = ConnectionError::NoAddress("the cluster".to_owned());
            for address in addresses {
                match self.connection(&address, Lane::SHARED).send(request, self.call()).await {
                    Err(error) if error.is_unsent() => last = error,
                    outcome => return outcome,
                }
            }
            Err(last)
        })
    }

    /// Sends a request to one broker.
    pub(crate) fn to<'a, 'q: 'a, R>(
        &'a self,
        broker: &Broker,
        lane: Lane,
        request: &'a R,
        call: Call,
    ) -> Answer<'a, R::Response<'static>, ConnectionError>
    where
        R: Request<'q> + Sync,
        R::Response<'static>: Send,
    {
        let connection = self.connection(&broker.address(), lane);
        Box::pin(async move { connection.send(request, call).await })
    }

    /// Sends a request that is not answered to one broker.
    pub(crate) fn to_unanswered<'a, 'q: 'a, R>(
        &'a self,
        broker: &Broker,
        lane: Lane,
        request: &'a R,
        call: Call,
    ) -> Answer<'a, (), ConnectionError>
    where
        R: Request<'q> + Sync,
    {
        let connection = self.connection(&broker.address(), lane);
        Box::pin(async move { connection.send_unanswered(request, call).await })
    }

    /// All brokers, read now.
    pub(crate) async fn brokers(&self) -> Result<Vec<Broker>, MetadataError> {
        Ok(self.metadata(&[], false).await?.brokers.values().cloned().collect())
    }

    /// The broker that takes administrative requests: the controller's, as far as it is known.
    pub(crate) async fn controller(&self) -> Result<Broker, MetadataError> {
        let metadata = self.metadata(&[], false).await?;
        let controller = metadata.controller.and_then(|id: NodeId| metadata.brokers.get(&id));
        let broker = controller.or_else(|| metadata.brokers.values().next());
        broker.cloned().ok_or(MetadataError::Broker(ErrorCode::BrokerNotAvailable))
    }
}

/// What still keeps one of these topics from being used.
fn unusable(metadata: &Metadata, topics: &[&str]) -> Option<MetadataError> {
    topics.iter().find_map(|name| match metadata.topic(name) {
        Err(error) => Some(error),
        Ok(topic) if topic.partitions.is_empty() => {
            Some(MetadataError::Topic { topic: (*name).to_owned(), code: ErrorCode::LeaderNotAvailable })
        }
        Ok(topic) => topic
            .partitions
            .iter()
            .find(|partition| partition.leader.is_none())
            .map(|found| MetadataError::NoLeader { topic: (*name).to_owned(), partition: found.partition }),
    })
}
