//! What happens to orders: the stock shrinks, a bill is written, a mail is sent. Each service is a group of its own, so each sees every order.
//!
//! ```text
//! cargo run -p madang-examples --bin order_service -- inventory|billing|mail [TOPIC] [COUNT]
//! ```
//! Look at: it ends after COUNT orders, and started again it goes on behind them, as its group has committed how far it was (`madang group describe
//! orders-billing`). Start one service twice at the same time, and the two share the partitions.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use madang_client::{ConsumerConfig, GroupConfig, GroupConsumer, GroupError, OutOfRange};
use madang_examples::order::Order;
use madang_examples::{Failure, PATIENCE, argument, client, ensure_topic};
use tokio::time::Instant;

/// What the services have to show for their work.
#[derive(Default)]
struct Ledger(BTreeMap<String, u64>);

impl Ledger {
    fn handle(&mut self, service: &str, order: &Order) -> String {
        let Order { id, customer, item, quantity, .. } = order;
        match service {
            "inventory" => {
                *self.0.entry(item.clone()).or_default() += u64::from(*quantity);
                format!("{id} takes {quantity} {item} from the shelf")
            }
            "billing" => {
                *self.0.entry(customer.clone()).or_default() += order.cents();
                format!("{id} costs {customer} {} cents", order.cents())
            }
            _ => {
                *self.0.entry(customer.clone()).or_default() += 1;
                format!("{id} to {customer}: {quantity} {item} on the way")
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let service = argument(1, "");
    if !["inventory", "billing", "mail"].contains(&service.as_str()) {
        return Err(Failure::new("which service? inventory, billing or mail"));
    }
    let (topic, count) = (argument(2, "orders"), argument(3, "10").parse::<usize>()?);
    let client = client();
    ensure_topic(&client, &topic, 3, &[]).await?;

    // The group is what makes this service see every order once, whatever others do. A new group begins with the first order, not with the next.
    let consumer = ConsumerConfig { out_of_range: OutOfRange::Earliest, ..ConsumerConfig::default() };
    let config = GroupConfig { consumer, ..GroupConfig::new(format!("{topic}-{service}")) };
    let mut member = GroupConsumer::new(client, config, [topic.as_str()]);

    let (mut ledger, mut done, mut records) = (Ledger::default(), HashSet::new(), 0);
    let mut give_up = Instant::now() + PATIENCE;
    while done.len() < count {
        let polled = member.poll(Duration::from_secs(1)).await?;
        if polled.is_empty() && Instant::now() >= give_up {
            return Err(Failure::new(format!("{} of {count} orders came, and no more in {PATIENCE:?}", done.len())));
        } else if polled.is_empty() {
            continue;
        }
        give_up = Instant::now() + PATIENCE;
        for record in polled {
            records += 1;
            match serde_json::from_slice::<Order>(record.value.as_deref().unwrap_or_default()) {
                // Commits come after the work, so that none is skipped; an order whose commit was lost comes again, and is known by its id. A real
                // service keeps the ids with its data.
                Ok(order) if done.insert(order.id.clone()) => {
                    println!("{service}: {}", ledger.handle(&service, &order));
                }
                Ok(order) => eprintln!("{} came again", order.id),
                // What nobody can read must not stop everything behind it. A real service would put it aside in a topic of its own.
                Err(error) => {
                    eprintln!("{}-{} at {} is no order: {error}", record.topic, record.partition, record.offset)
                }
            }
        }
        commit(&mut member).await?;
    }
    // Others of the group, if there are any, take over at once.
    member.leave().await?;
    for (name, total) in &ledger.0 {
        println!("{service}: {name} {total}");
    }
    println!("{service}: {} orders in {records} records", done.len());
    Ok(())
}

/// While partitions move between members a commit may be refused; whoever has the partitions then reads those records again.
async fn commit(member: &mut GroupConsumer) -> Result<(), GroupError> {
    match member.commit().await {
        Err(error) if error.is_retriable() => {
            eprintln!("not committed: {error}");
            Ok(())
        }
        outcome => outcome,
    }
}
