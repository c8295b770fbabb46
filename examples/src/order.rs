//! An order as it travels: JSON, the same for the programs in Rust, Python and Java.

use madang_client::ProducerRecord;
use serde::{Deserialize, Serialize};

/// Something that was bought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Names the order; whoever receives it twice knows it by this.
    pub id: String,
    /// Who bought.
    pub customer: String,
    /// What.
    pub item: String,
    /// How many.
    pub quantity: u32,
    /// For one of them, in cents.
    pub price_cents: u64,
}

impl Order {
    /// A made-up order; the programs in other languages make up the same ones under ids of their own.
    #[must_use]
    pub fn sample(source: &str, number: usize) -> Self {
        const CUSTOMERS: [&str; 4] = ["ann", "bob", "cat", "dan"];
        const ITEMS: [(&str, u64); 3] = [("lamp", 2_500), ("chair", 4_000), ("desk", 12_000)];
        let (item, price_cents) = ITEMS[number % ITEMS.len()];
        Self {
            id: format!("{source}-{number}"),
            customer: CUSTOMERS[number % CUSTOMERS.len()].to_owned(),
            item: item.to_owned(),
            quantity: 1 + (number % 2) as u32,
            price_cents,
        }
    }

    /// What all of it costs.
    #[must_use]
    pub fn cents(&self) -> u64 {
        u64::from(self.quantity) * self.price_cents
    }

    /// The record that carries it. Its key is the customer, so that the orders of one customer are in one partition, in order.
    ///
    /// # Errors
    /// Whatever keeps it from becoming JSON.
    pub fn record(&self, topic: &str) -> Result<ProducerRecord, serde_json::Error> {
        Ok(ProducerRecord::new(topic).key(self.customer.clone()).value(serde_json::to_vec(self)?))
    }
}
