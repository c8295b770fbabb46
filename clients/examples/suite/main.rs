//! The client against a cluster that runs: `cargo run -p madang-client --example suite -- 127.0.0.1:9092 [STORY]`.
//! It speaks to Madang and to Apache Kafka alike. Its topics and groups have names that nobody else has, and stay behind.

mod stories;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let only = arguments.next();
    for (name, story) in stories::ALL {
        if only.as_ref().is_none_or(|only| name.contains(only.as_str())) {
            let began = std::time::Instant::now();
            story(address.clone()).await;
            println!("{name}: ok, {:.1} s", began.elapsed().as_secs_f64());
        }
    }
}
