//! The client in Rust against a broker: the stories that it tells of itself.

#[path = "../../clients/examples/suite/stories/mod.rs"]
pub(crate) mod stories;

use crate::client::{Yard, run};

#[test]
fn the_native_client_keeps_what_it_promises() {
    let yard = Yard::open(&["group.initial.rebalance.delay.ms=0"]);
    for (name, story) in stories::ALL {
        println!("{name}");
        run(story(yard.broker.address.clone()));
    }
}
