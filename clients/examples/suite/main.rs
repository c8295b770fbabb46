//! The client against a cluster that runs: `cargo run -p madang-client --example suite -- 127.0.0.1:9092 [STORY]`; with the feature `tls`,
//! `--ca FILE` before the address is for a listener that speaks TLS. It speaks to Madang and to Apache Kafka alike.
//! Its topics and groups have names that nobody else has, and stay behind.

mod stories;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|argument| argument == "--ca").is_some() {
        trust(&arguments.next().unwrap_or_default());
    }
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

/// Every client trusts the certificates of this file.
#[cfg(feature = "tls")]
fn trust(file: &str) {
    let tls = match madang_client::TlsConfig::new(file) {
        Ok(tls) => tls,
        Err(error) => panic!("{file}: {error}"),
    };
    let configure = move |address: &str| madang_client::ClientConfig {
        tls: Some(tls.clone()),
        ..madang_client::ClientConfig::new([address])
    };
    stories::CONFIGURE.set(Box::new(configure));
}

#[cfg(not(feature = "tls"))]
fn trust(_: &str) {
    panic!("--ca wants the feature tls");
}
