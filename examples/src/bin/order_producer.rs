//! Orders come in: the beginning of a pipeline whose other parts are `order_service`, and the programs in `examples/python` and `examples/java`.
//!
//! ```text
//! cargo run -p madang-examples --bin order_producer -- [TOPIC] [COUNT]
//! ```
//! Look at: it knows nothing of who reads. A service that comes later reads the orders of before too.

use madang_client::{Producer, ProducerConfig};
use madang_examples::order::Order;
use madang_examples::{Failure, argument, client, ensure_topic, write_all};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let topic = argument(1, "orders");
    let count: usize = argument(2, "10").parse()?;
    let client = client();
    // Three partitions: up to three members of a group share the work.
    ensure_topic(&client, &topic, 3, &[]).await?;

    let producer = Producer::new(client, ProducerConfig::default());
    let orders = (1..=count).map(|number| Order::sample("rust", number).record(&topic));
    let written = write_all(&producer, orders.collect::<Result<Vec<_>, _>>()?).await?;
    println!("rust: {written} orders written");
    Ok(())
}
